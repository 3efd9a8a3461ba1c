"""Leases: charges a block of units of a very hot counter in advance, and spends it from memory.

This store is placed in front of a shared store. When a counter is hot in this process, it takes
more than a decision's cost from the shared store. Later decisions are paid from this block,
without the shared store. A unit is charged before it is spent, in the window in which it is spent,
so the shared count never lags and a limit is never exceeded. In return a limit may refuse too
early, by a bounded amount. The rules:

- A decision is paid from leases when all of its charges can be; else all of its charges are taken
  from the shared store, at its own cost. So a decision is atomic in either case.
- A block is taken when every charge of the decision is hot, together with the decision's own cost,
  all or nothing. If that does not fit, the decision's own cost is taken alone. Only one block of a
  counter is requested at a time; other decisions meanwhile take their own cost and do not wait.
- A block is a part of what remained at the store's last answer. So blocks shrink to nothing near
  the limit, and leave room for other processes.
- What this process holds or has lost of a counter's window is never more than `size`. A block is
  lost when its answer is lost; units are lost when a changed limit or a late answer makes them
  useless. With P processes a limit may so refuse early by at most `size` times P.
- A lease ends before its window does: the time to the edge is the store's (`Reading.reset_us`),
  counted from before the store was asked, on a monotonic clock, less 1 ms and a thousandth for
  clocks that run unevenly. No wall clock of this host matters.
- A lease belongs to one value of the limit. When the limit has another value, the store is asked.
- While the store's last answer was an error, leases are not used: the circuit breaker behind must
  see whether the store answers.

FIXED_WINDOW, CALENDAR: a window's count does not depend on when its units are spent.
SLIDING_WINDOW: a block is charged with a hold: the store counts it as taken at the end of the hold
    (a 32nd of the window), and the lease ends before. So what was spent counts for a whole window
    from then. A block is at most what is taken in that time, judged by the last second; what is
    left of it is lost until the store no longer counts it.
    BURST: never leased. It drains: k units charged early have drained by the time they are spent,
    and the store would grant the whole burst in addition. The store is also asked for a limit
    that is not enforced (a block must not mark other requests as over the limit), a cost of 0,
    and a deduplication id.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from extauthz.counters.leases.windows import (
    LeasedTime,
    WatchedKey,
    find_hold_us,
    pay_from_leases,
)
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, Taking
from extauthz.ports import NO_DEADLINE, CounterStore, Deadline

_BURST: Final = Algorithm.BURST


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseRules:
    """When a counter is hot, and how much is leased.

    Attributes:
        size: the most that a process holds of a counter, in the limit's unit.
        max_share: the largest part of what remains that is taken in advance; above 0, at most 1.
        hot_per_s: a counter is hot with more takings than this in a second.
        max_keys: counters that are watched; the least recently used one is dropped first.

    Raises:
        ValueError: one of them is out of range.
    """

    size: int = 100
    max_share: float = 0.1
    hot_per_s: int = 100
    max_keys: int = 10_000

    def __post_init__(self) -> None:
        if self.size < 1 or self.hot_per_s < 0 or self.max_keys < 1:
            raise ValueError("a lease needs a size and max_keys of 1, and hot_per_s of 0, at least")
        if not 0 < self.max_share <= 1:
            raise ValueError(f"a max_share of {self.max_share} is not above 0 and at most 1")


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


_DEFAULT_RULES: Final = LeaseRules()


class LeasingCounterStore:
    """A `CounterStore` that asks its primary less often for hot counters.

    A reading of a charge that was paid from a lease is as old as the primary's last answer:
    `remaining` is what remained then, plus what is left of the lease.

    Args:
        primary: closed with this store.
        monotonic_us: a clock that never goes back.
    """

    def __init__(
        self,
        primary: CounterStore,
        monotonic_us: Callable[[], int] = _monotonic_us,
        *,
        rules: LeaseRules = _DEFAULT_RULES,
    ) -> None:
        self._primary = primary
        self._monotonic_us = monotonic_us
        self._rules = rules
        self._keys: OrderedDict[str, WatchedKey] = OrderedDict()
        self._is_answering = True

    def __len__(self) -> int:
        """The number of counters that are watched."""
        return len(self._keys)

    def count_held(self, key: str) -> int:
        """The units of a counter that are charged at the primary and not spent here yet."""
        watched = self._keys.get(key)
        window = None if watched is None else watched.window
        if window is None or self._monotonic_us() >= window.until_us:
            return 0
        return window.left

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        """See `CounterStore.take`. Does not wait when the charges are paid from leases."""
        if dedup_id is not None or not _can_be_leased(charges):
            return await self._ask(charges, dedup_id, deadline)
        now_us = self._monotonic_us()
        keys = self._find_keys(charges, now_us)
        if keys is None:
            return await self._ask(charges, None, deadline)
        if self._is_answering:
            taking = pay_from_leases(charges, keys, now_us)
            if taking is not None:
                return taking
            extras = self._find_extras(charges, keys, now_us)
            if extras is not None:
                taking = await self._take_block(charges, keys, extras, deadline)
                if taking is not None:
                    return taking
                now_us = self._monotonic_us()
        taking = await self._ask(charges, None, deadline)
        return self._note(charges, keys, taking, now_us)

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        """See `CounterStore.give_back`. Leased units go back to their lease while it is valid."""
        if dedup_id is not None or not isinstance(at_us, LeasedTime):
            await self._give_back_there(charges, at_us, dedup_id)
            return
        leases = {lease[0].charge.key: lease for lease in at_us.windows}
        now_us = self._monotonic_us()
        for charge in charges:
            if charge.key not in leases:
                raise ValueError("what is given back was not taken then")
            window, taken_us = leases[charge.key]
            key = self._keys.get(charge.key)
            if (
                key is not None
                and key.window is window
                and not key.is_fetching
                and now_us < window.until_us
                and window.left + key.count_lost(now_us) + charge.cost <= self._rules.size
            ):
                window.left += charge.cost
            else:
                held = replace(charge, hold_us=window.hold_us)
                await self._give_back_there([held], taken_us)

    async def close(self) -> None:
        """Gives back what is left of the leases, as far as the primary answers, and closes it."""
        now_us = self._monotonic_us()
        windows = [key.window for key in self._keys.values() if key.window is not None]
        self._keys.clear()
        try:
            for window in windows if self._is_answering else ():
                if window.left and now_us < window.until_us:
                    rest = replace(window.charge, cost=window.left, hold_us=window.hold_us)
                    await self._primary.give_back([rest], at_us=window.at_us)
        except CounterStoreError:
            return  # It stays charged, as after a crash.
        finally:
            await self._primary.close()

    async def _ask(
        self, charges: Sequence[Charge], dedup_id: str | None, deadline: Deadline
    ) -> Taking:
        try:
            taking = await self._primary.take(charges, dedup_id=dedup_id, deadline=deadline)
        except BaseException:
            self._is_answering = False
            raise
        if not self._is_answering and taking.charged and charges:
            # A refusal may come from the primary's own memory.
            self._is_answering = True
        return taking

    async def _give_back_there(
        self, charges: Sequence[Charge], at_us: int | None, dedup_id: str | None = None
    ) -> None:
        try:
            await self._primary.give_back(charges, at_us=at_us, dedup_id=dedup_id)
        except BaseException:
            self._is_answering = False
            raise

    def _find_keys(self, charges: Sequence[Charge], now_us: int) -> list[WatchedKey] | None:
        """The charges' counters; None when one cannot be watched, or occurs twice."""
        known, found = self._keys, []
        for charge in charges:
            name = charge.key
            key = known.get(name)
            if key is None:
                if not self._make_room(now_us):
                    return None
                key = known[name] = WatchedKey(now_us)
            else:
                known.move_to_end(name)
            if key in found:
                return None
            key.count_taking(now_us)
            found.append(key)
        return found

    def _make_room(self, now_us: int) -> bool:
        """Drops the least recently used counter, unless this process holds units of it."""
        known = self._keys
        if len(known) >= self._rules.max_keys:
            oldest = next(iter(known))
            if known[oldest].is_held(now_us):
                known.move_to_end(oldest)  # So the next attempt looks at another one.
                return False
            del known[oldest]
        return True

    def _find_extras(
        self, charges: Sequence[Charge], keys: Sequence[WatchedKey], now_us: int
    ) -> list[int] | None:
        """How much to charge in advance of each counter; None when that would be of no use."""
        rules, extras = self._rules, []
        for charge, key in zip(charges, keys, strict=True):
            if max(key.count, key.before) <= rules.hot_per_s:
                return None
            extra = key.find_extra(charge, now_us, rules.size, rules.max_share)
            if extra is None:
                return None
            extras.append(extra)
        return extras

    async def _take_block(
        self,
        charges: Sequence[Charge],
        keys: Sequence[WatchedKey],
        extras: Sequence[int],
        deadline: Deadline,
    ) -> Taking | None:
        """Takes the decision's cost and the extra units; None when only the latter did not fit."""
        raised = [
            replace(charge, cost=charge.cost + extra, hold_us=find_hold_us(charge))
            if extra
            else charge
            for charge, extra in zip(charges, extras, strict=True)
        ]
        for key in keys:
            key.is_fetching = True
        asked_us = self._monotonic_us()
        try:
            taking = await self._ask(raised, None, deadline)
        except BaseException:
            now_us = self._monotonic_us()
            for charge, key, extra in zip(charges, keys, extras, strict=True):
                key.lose(charge, extra, now_us)
            raise
        finally:
            for key in keys:
                key.is_fetching = False
        if not taking.charged and any(
            extra and reading.exceeded
            for extra, reading in zip(extras, taking.readings, strict=True)
        ):
            return None
        return self._note(charges, keys, taking, asked_us, extras)

    def _note(
        self,
        charges: Sequence[Charge],
        keys: Sequence[WatchedKey],
        taking: Taking,
        asked_us: int,
        extras: Sequence[int] = (),
    ) -> Taking:
        """Updates the leases from an answer, and adds leased units to its readings."""
        now_us = self._monotonic_us()
        if not taking.charged:
            for key, reading in zip(keys, taking.readings, strict=True):
                if reading.exceeded and key.window is not None:
                    key.window.remaining = reading.remaining
            return taking
        readings = []
        for charge, key, reading, extra in zip(
            charges, keys, taking.readings, extras or (0,) * len(charges), strict=True
        ):
            key.note_answer(charge, reading, taking.at_us, asked_us, now_us, extra)
            window = key.window
            if (
                window is not None
                and window.left
                and now_us < window.until_us
                and window.charge.limit == charge.limit
            ):
                # The remaining amount may be from before the block was charged.
                remaining = min(charge.limit, reading.remaining + window.left)
                reading = replace(reading, remaining=remaining)
            readings.append(reading)
        return Taking(charged=True, readings=tuple(readings), at_us=taking.at_us)


def _can_be_leased(charges: Sequence[Charge]) -> bool:
    for charge in charges:
        if charge.algorithm is _BURST or not charge.enforced or charge.cost <= 0:
            return False
    return bool(charges)
