"""Brings a shared store back into use: probes it, and pays the debts of the outage.

All of it runs in one background task, which no decision waits for:

1. Wait for the breaker's cool-down, then read counters of a recent request without taking
   anything: a probe without an answer leaves nothing uncertain.
2. When it is answered, pay the debts, and only then close the breaker, so that the store does not
   grant room that is used already.
3. Pay the debts that came during step 2.

Debts that came while the breaker stayed closed, because the store certainly charged nothing, are
paid in the same way, after a cool-down and a probe.

Every call has a timeout. A payment without an answer is tried again with its id. It is given up
when its id is half as old as the store remembers ids, or when the store says that trying again
cannot help: it is better not charged than charged twice.
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
"""Counters whose payments are sent together; a store may send them as one batch."""
MAX_UNANSWERED: Final = 1024
"""Payments without an answer that are kept; above that, no new ones are drawn."""
_ANY_TIME: Final = (0, 1 << 52)
"""Calendar bounds that contain any time until 2112."""


class Recovery:
    """The task that ends an outage.

    Attributes:
        asked: charges of a recent request, for the probe.
        paid: sum of the costs that were paid.
        given_up: sum of the costs that were not paid, or are not known to have been.
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
        """Starts the task, unless it is running."""
        if not self._is_stopped and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Ends the task for good and leaves debts unpaid."""
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
        # The request may be old: the store must not refuse its calendar windows.
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
        """Pays the current debts, each once. False when the store stopped answering."""
        # Earlier payments that fail again say nothing about the store: they may be at fault.
        await self._pay(tuple(self._unanswered.values()))
        left = len(self._debts)
        while left > 0 and len(self._unanswered) < MAX_UNANSWERED:
            payments = self._debts.draw(
                min(left, COUNTERS_AT_ONCE), self._clock.now_us(), self._monotonic()
            )
            left -= COUNTERS_AT_ONCE
            self._unanswered.update((payment.id, payment) for payment in payments)
            if not payments:
                # All of these have expired; let decisions run before the next ones.
                await asyncio.sleep(0)
            elif not await self._pay(payments):
                return False
        return True

    async def _pay(self, payments: Sequence[Payment]) -> bool:
        """Sends all of these payments together; True when any was answered."""
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
        """Gives back charges that were counted in a later window than that of their requests."""
        try:
            misplaced = payment.find_misplaced(at_us)
            if misplaced:
                await self._primary.give_back(misplaced, at_us=at_us)
        except CounterStoreError as error:
            # It stays charged there, which is stricter for one window.
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
