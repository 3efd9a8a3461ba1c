"""Brings a shared store back into use: probes it, then charges there what was admitted here.

All of it runs in one task behind the decisions, which wait for none of it:

1. Wait for the breaker's cool-down, then look at counters of a recent request, taking nothing:
   a probe that is not answered leaves nothing uncertain.
2. When that is answered, pay the debts, and only then close the breaker: the store does not
   hand out room that is used already.
3. Pay what was admitted during 2.

What was admitted here while the breaker stayed closed, as the store was surely not charged, is
paid likewise, after a cool-down and a look.

Every call has a timeout. A payment without an answer is tried again with its id. It is given up
when its id is half as old as the store remembers ids, or when the store says that asking again
cannot help: then it is rather not charged than charged twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from extauthz.counters.outage.breaker import CircuitBreaker
from extauthz.counters.outage.debts import Debts, Payment
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Charge
from extauthz.ports import Clock, CounterStore, Deadline

_log = logging.getLogger(__name__)

COUNTERS_AT_ONCE: Final = 64
"""Counters whose payments are under way together; a store may join them to one call."""
MAX_UNANSWERED: Final = 1024
"""Payments without an answer that are kept; with more of them no new ones are drawn."""
_ANY_TIME: Final = (0, 1 << 52)
"""Calendar bounds that hold now, whatever the time; until 2112."""


class Recovery:
    """The task that ends an outage.

    Attributes:
        asked: charges of a recent request, for the probe to look at.
        paid: how much was charged at the store afterwards; a sum of costs.
        given_up: how much never was, or is not known to have been; a sum of costs.
    """

    def __init__(
        self,
        primary: CounterStore,
        breaker: CircuitBreaker,
        debts: Debts,
        clock: Clock,
        *,
        timeout_s: float,
        ids_remembered_s: float,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._primary = primary
        self._breaker = breaker
        self._debts = debts
        self._clock = clock
        self._timeout_s = timeout_s
        self._give_up_after_s = ids_remembered_s / 2
        self._monotonic = monotonic
        self._sleep = sleep
        self._unanswered: dict[str, Payment] = {}
        self._task: asyncio.Task[None] | None = None
        self._is_stopped = False
        self.asked: Sequence[Charge] = ()
        self.paid = 0
        self.given_up = 0

    def start(self) -> None:
        """Begins, unless it is under way already."""
        if not self._is_stopped and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends it for good and leaves debts unpaid."""
        self._is_stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        breaker = self._breaker
        answered = False
        while not breaker.is_closed or self._debts or self._unanswered:
            if not answered or not breaker.is_closed:
                await self._sleep(breaker.next_cooldown_s())
            if breaker.is_closed:
                asked_at = breaker.moment
                answered = (answered or await self._probe()) and await self._pay_all()
                if not answered:
                    breaker.note_failure(asked_at)
                answered = answered and not self._unanswered
            else:
                breaker.begin_probe()
                answered = await self._probe() and await self._pay_all()
                breaker.end_probe(answered=answered)

    async def _probe(self) -> bool:
        # The request may be old: its calendar windows must not make the store refuse to look.
        look = [
            replace(charge, cost=0, bounds=_ANY_TIME if charge.bounds else ())
            for charge in self.asked
        ]
        try:
            await self._primary.take(look, deadline=self._deadline())
        except CounterStoreError as error:
            _log.debug("the counter store still does not answer: %s", error)
            return False
        except Exception:  # noqa: BLE001  (a defect must not end all probing)
            _log.exception("a probe of the counter store failed because of a defect")
            return False
        return True

    async def _pay_all(self) -> bool:
        """Pays the debts of now, each once. False when the store stopped answering."""
        # What failed before says nothing about the store: the fault may be the payment's own.
        await self._pay(tuple(self._unanswered.values()))
        left = len(self._debts)
        while left > 0 and len(self._unanswered) < MAX_UNANSWERED:
            payments = self._debts.draw(
                min(left, COUNTERS_AT_ONCE), self._clock.now_us(), self._monotonic()
            )
            left -= COUNTERS_AT_ONCE
            self._unanswered.update((payment.id, payment) for payment in payments)
            if not payments:
                # Time has settled all of these; decisions go on between them and the next.
                await asyncio.sleep(0)
            elif not await self._pay(payments):
                return False
        return True

    async def _pay(self, payments: Sequence[Payment]) -> bool:
        """Pays all of these at once; whether any was answered."""
        answered = await asyncio.gather(*[self._pay_one(payment) for payment in payments])
        return any(answered)

    async def _pay_one(self, payment: Payment) -> bool:
        if self._monotonic() - payment.begun_s > self._give_up_after_s:
            self._give_up(payment, "the store may have forgotten its id")
            return False
        try:
            taking = await self._primary.take(
                payment.charges, dedup_id=payment.id, deadline=self._deadline()
            )
        except CounterStoreError as error:
            if not error.transient:
                self._give_up(payment, str(error))
            return False
        except Exception:  # noqa: BLE001  (a defect must not end the recovery)
            _log.exception("charging what was admitted failed because of a defect")
            self._give_up(payment, "a defect")
            return False
        del self._unanswered[payment.id]
        self.paid += payment.cost
        await self._return_misplaced(payment, taking.at_us)
        return True

    async def _return_misplaced(self, payment: Payment, at_us: int) -> None:
        """Gives back what was charged to a window that began after the requests came."""
        try:
            misplaced = payment.find_misplaced(at_us)
            if misplaced:
                await self._primary.give_back(misplaced, at_us=at_us)
        except CounterStoreError as error:
            # It stays charged there: stricter, for one window.
            _log.debug("a charge stays in a later window: %s", error)

    def _give_up(self, payment: Payment, reason: str) -> None:
        del self._unanswered[payment.id]
        self.given_up += payment.cost
        _log.warning(
            "%s: %d admitted during an outage may never be charged: %s",
            CounterStoreError.code,
            payment.cost,
            reason,
            extra={"code": CounterStoreError.code},
        )

    def _deadline(self) -> Deadline:
        return Deadline(self._monotonic() + self._timeout_s)
