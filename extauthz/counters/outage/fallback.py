"""Counts while the shared store is away, and until the debts of that time are charged there.

The primary store is asked as long as a breaker is closed. When it is open, or the primary did not
answer this request, each charge's `on_outage` says what happens, at once and in memory (`local`).
The rules that keep the totals right:

- What may have been charged at the primary is never charged there again. A request whose
  primary call failed is counted here, and is a debt only when it is sure that nothing was charged.
- Debts are charged at the primary before it decides again, see `recovery` and `debts`.
- A repeated deduplication id gets the first answer, from here or from the primary, while that is
  remembered.
- What was taken here is given back here.
"""

from __future__ import annotations

import asyncio
import logging
import random as random_numbers
import time
from collections.abc import Awaitable, Callable, Sequence
from fractions import Fraction
from typing import Final

from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.outage.breaker import BreakerState, CircuitBreaker
from extauthz.counters.outage.debts import Debts
from extauthz.counters.outage.local import DebtTime, LocalTakings, LocalTime
from extauthz.counters.outage.mode import FallbackRules, FallbackState
from extauthz.counters.outage.recovery import Recovery
from extauthz.counters.outage.remembered import RememberedTakings, name_taking
from extauthz.errors import CounterStoreError
from extauthz.model.limits import US_PER_S, Algorithm, Charge, Reading, Taking
from extauthz.ports import NO_DEADLINE, Clock, CounterStore, Deadline

_log = logging.getLogger(__name__)

_AWAY: Final = "the counter store is away"

_LOOK: Final = (Charge("probe", Algorithm.FIXED_WINDOW, 1, US_PER_S, 0),)
"""The cost is 0, so nothing is charged."""

_UNSURE: Final = Taking(charged=False, readings=())

DEFAULT_RULES: Final = FallbackRules()


class FallbackCounterStore:
    """A `CounterStore` that goes on without its primary.

    Args:
        local: counts in an outage; used by this store only. Both stores are closed with it.
        share: the part of each limit, above 0 and at most 1, that this process may admit by itself
            in an outage: 1 divided by the number of processes. A limit's share is rounded up.
        observe: called with the new state after each change of the breaker; must be quick.
        monotonic: the clock of deadlines, in seconds.
        sleep, random: for the waits between probes and their jitter.

    Raises:
        ValueError: the share is out of range.
    """

    def __init__(
        self,
        primary: CounterStore,
        local: MemoryCounterStore,
        clock: Clock,
        *,
        share: Fraction | float,
        rules: FallbackRules = DEFAULT_RULES,
        observe: Callable[[FallbackState], None] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        random: Callable[[], float] = random_numbers.random,
    ) -> None:
        self._primary = primary
        self._clock = clock
        self._timeout_s = rules.timeout_s
        self._hasty_s = rules.hasty_s
        self._observe = observe
        self._monotonic = monotonic
        self._breaker = CircuitBreaker(rules.breaker, random=random, on_change=self._note_change)
        self._debts = Debts(rules.max_debts)
        self._here = LocalTakings(local, self._debts, clock, share)
        self._answers = RememberedTakings(ttl_us=rules.ids_remembered_us, most=rules.max_ids)
        self._undone = RememberedTakings(ttl_us=rules.ids_remembered_us, most=rules.max_ids)
        """Local takings that were given back."""
        self._unsure = RememberedTakings(ttl_us=rules.ids_remembered_us, most=rules.max_ids)
        """Takings that the primary did not answer, and may have charged."""
        self._recovery = Recovery(
            primary,
            self._breaker,
            self._debts,
            clock,
            timeout_s=rules.timeout_s,
            ids_remembered_s=rules.ids_remembered_us / 1e6,
            monotonic=monotonic,
            sleep=sleep,
        )
        self._since_us = clock.now_us()
        self._away_since_us: int | None = None
        self._paid_before = 0
        self._failures = 0
        self._last_error = ""
        self._looking: asyncio.Task[None] | None = None

    @property
    def state(self) -> FallbackState:
        """The current state."""
        return FallbackState(
            breaker=self._breaker.state,
            since_us=self._since_us,
            is_failing=self._breaker.is_failing,
            failures=self._failures,
            last_error=self._last_error,
            admitted_locally=self._here.admitted,
            debts=len(self._debts),
            charged_back=self._recovery.paid,
            given_up=self._recovery.given_up + self._here.unrecorded,
        )

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        """See `CounterStore.take`.

        Raises:
            CounterStoreError: the primary is away and a limit denies in an outage, the caller's
                deadline passed meanwhile, or the local store has no place for a counter.
        """
        if dedup_id is not None:
            return await self._take_once(charges, dedup_id, deadline)
        if not self._breaker.is_closed:
            return await self._take_here(charges)
        try:
            return await self._take_there(charges, None, deadline)
        except CounterStoreError as error:
            return await self._take_instead(charges, deadline, error, as_debt=error.charged_nothing)

    async def _take_once(
        self, charges: Sequence[Charge], dedup_id: str, deadline: Deadline
    ) -> Taking:
        name = name_taking(dedup_id, charges)
        answer = self._answers.find(name, self._moment_us())
        if answer is not None and isinstance(answer.at_us, LocalTime):
            return answer
        # The primary's memory of ids has precedence: another replica may have given it back since.
        if not self._breaker.is_closed:
            taking = answer or await self._take_here(charges)
        else:
            try:
                taking = await self._take_there(charges, dedup_id, deadline)
            except asyncio.CancelledError:
                self._unsure.add(name, _UNSURE, self._moment_us())
                raise
            except CounterStoreError as error:
                now_us = self._moment_us()
                # A repetition of this call may have been answered while it waited.
                answer = self._answers.find(name, now_us)
                # An earlier call with this id may have been charged.
                as_debt = error.charged_nothing and self._unsure.find(name, now_us) is None
                if not as_debt:
                    self._unsure.add(name, _UNSURE, now_us)
                taking = answer or await self._take_instead(
                    charges, deadline, error, as_debt=as_debt
                )
        self._answers.add(name, taking, self._moment_us())
        return taking

    async def _take_there(
        self, charges: Sequence[Charge], dedup_id: str | None, deadline: Deadline
    ) -> Taking:
        """Asks the primary, for a limited time, and tells the breaker how that went."""
        asked_at = self._breaker.moment
        began_s = self._monotonic()
        until_s = began_s + self._timeout_s
        if deadline.monotonic_s is not None and deadline.monotonic_s < until_s:
            until_s = deadline.monotonic_s
        else:
            deadline = Deadline(until_s)
        try:
            taking = await self._primary.take(charges, dedup_id=dedup_id, deadline=deadline)
        except (CounterStoreError, asyncio.CancelledError) as error:
            now_s = self._monotonic()
            gave_up = isinstance(error, asyncio.CancelledError) or now_s >= until_s
            if not gave_up or now_s - began_s >= self._hasty_s:
                self._note_failure(charges, error, asked_at)
            raise
        # A refusal does not prove that the store was asked: it may have come from a cache.
        if self._breaker.is_suspect and taking.charged and charges:
            self._breaker.note_success()
        return taking

    async def _take_instead(
        self,
        charges: Sequence[Charge],
        deadline: Deadline,
        error: CounterStoreError,
        *,
        as_debt: bool,
    ) -> Taking:
        """Takes locally when the primary did not answer and the caller still waits."""
        if deadline.monotonic_s is not None and self._monotonic() >= deadline.monotonic_s:
            raise error
        self._recovery.asked = charges
        taking = await self._here.take(charges, error, as_debt=as_debt)
        if as_debt and self._debts:
            self._recovery.start()
        return taking

    async def _take_here(self, charges: Sequence[Charge]) -> Taking:
        self._recovery.asked = charges
        return await self._here.take(charges)

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        """See `CounterStore.give_back`. A debt that was paid already stays charged at the primary.

        Raises:
            CounterStoreError: it was taken at the primary, and that is away.
        """
        if dedup_id is not None:
            name, now_us = name_taking(dedup_id, charges), self._moment_us()
            answer = self._answers.find(name, now_us)
            self._answers.forget(name)
            if answer is None and self._undone.find(name, now_us) is not None:
                return
            if answer is not None and isinstance(answer.at_us, LocalTime):
                if answer.charged:
                    self._undone.add(name, answer, now_us)
                    await self._here.give_back(charges, answer.at_us)
                return
            at_us = None
        elif at_us is None and not self._breaker.is_closed:
            at_us = DebtTime(self._clock.now_us())
        if isinstance(at_us, LocalTime):
            await self._here.give_back(charges, at_us)
            return
        if not self._breaker.is_closed:
            raise CounterStoreError(f"{_AWAY}; what was taken from it stays charged")
        asked_at = self._breaker.moment
        try:
            await self._primary.give_back(charges, at_us=at_us, dedup_id=dedup_id)
        except CounterStoreError as error:
            self._note_failure(charges, error, asked_at)
            raise

    @property
    def is_away(self) -> bool:
        """Whether the primary is not asked now, so that this process counts by itself."""
        return not self._breaker.is_closed

    async def read_here(self, charges: Sequence[Charge]) -> list[tuple[int, Reading]]:
        """What this process has counted by itself: for each charge, its share and a reading."""
        return await self._here.read(charges)

    async def look(self, within_s: float | None = None) -> None:
        """Makes a call that charges nothing, so that `state` is current without traffic, too.

        Waits at most `within_s`, or the store's own timeout; a later answer or timeout is still
        noted. While the breaker is not closed, only the recovery calls the primary.
        """
        if not self._breaker.is_closed:
            return
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        await asyncio.wait((self._looking,), timeout=within_s)

    async def _look(self) -> None:
        try:
            await self._take_there(_LOOK, None, NO_DEADLINE)
        except CounterStoreError as error:
            _log.debug("the counter store did not answer a check of its state: %s", error)
        except Exception:  # noqa: BLE001  (a defect must not end what only wants to know)
            _log.exception("a check of the counter store's state failed because of a defect")

    async def close(self) -> None:
        """Ends the recovery, leaves debts unpaid, and closes both stores."""
        await self._recovery.stop()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        try:
            await self._primary.close()
        finally:
            await self._here.close()

    def _moment_us(self) -> int:
        """Monotonic time, for what is remembered for a while; the wall clock may be set."""
        return round(self._monotonic() * US_PER_S)

    def _note_failure(self, charges: Sequence[Charge], error: BaseException, asked_at: int) -> None:
        self._failures += 1
        self._last_error = str(error) or "no answer before the caller gave up"
        self._recovery.asked = charges
        self._breaker.note_failure(asked_at)

    def _note_change(self, state: BreakerState) -> None:
        now_us = self._since_us = self._clock.now_us()
        code = {"code": CounterStoreError.code}
        if state is BreakerState.OPEN:
            if self._away_since_us is None:
                self._away_since_us = now_us
                self._paid_before = self._recovery.paid
                _log.warning(
                    "%s: %s: %s; each limit follows its outage mode until it is back",
                    CounterStoreError.code,
                    _AWAY,
                    self._last_error,
                    extra=code,
                )
            self._recovery.start()
        elif state is BreakerState.CLOSED:
            _log.info(
                "%s: the counter store is back after %.1f s; %d that were admitted meanwhile "
                "are charged to it",
                CounterStoreError.code,
                (now_us - (self._away_since_us or now_us)) / 1e6,
                self._recovery.paid - self._paid_before,
                extra=code,
            )
            self._away_since_us = None
        if self._observe is not None:
            try:
                self._observe(self.state)
            except Exception:  # noqa: BLE001  (telemetry must not change decisions)
                _log.exception("an observer of the counter store failed")
