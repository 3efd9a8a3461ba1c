"""Leases: a very hot counter is charged a block up front, and spent from memory.

Stands before a store that is shared, and asks it for more than a decision costs when the counter
is hot in this process. Later decisions take from what was charged, without the store. A unit is
charged before it is spent, in the window that it is spent in, so the store's count never lags
and a limit is never exceeded. What may be missed is bounded instead. The rules:

- A decision is paid from leases when all of its charges can be; else all of it is asked of the
  store, at its own cost. So it is one step in either case.
- A block is asked for when every charge of the decision is hot, and goes with the decision's own
  cost, all or nothing. If it does not fit, the decision is asked again by itself. One block of a
  counter is on its way at a time; others ask for themselves meanwhile and wait for nobody.
- A block is a part of what remained when the store was last asked, so blocks shrink to nothing
  as the limit comes near, and what other processes can still get is not locked up.
- What this process holds or has lost of a counter's window is never more than `size`. It loses
  a block whose answer was lost, and what a changed limit or a late answer made useless. With P
  processes a limit may so refuse early by `size` times P at most.
- A lease ends before its window does: the time to the edge is the store's (`Reading.reset_us`),
  counted from before the store was asked, on a monotonic clock, less 1 ms and a thousandth for
  clocks that run unevenly. No wall clock of this host matters.
- A lease is for one number of a limit. With another number the store is asked.
- While the store's last answer was an error, leases rest: whoever watches the store must see
  how it does, and not that it was not needed.

FIXED_WINDOW, CALENDAR: which of a window's units is spent when does not matter to its count.
SLIDING_WINDOW: a block is charged with a hold: the store counts it as taken at the end of the hold
    (a 32nd of the window), and the lease ends before. So what was spent counts for a whole window
    from then. A block is no more than is taken in that time, judged by the last second; what is
    left of it is lost until the store counts it no longer.
BURST: never leased. It drains: k units charged early are forgotten by the time they are spent,
    and the store would hand out the whole burst beside them. With a burst, with a limit that is
    not enforced (a block must not mark others as over), with a cost of 0 or with a dedup id, the
    store is asked.
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
    """What is hot, and how much is leased.

    Attributes:
        size: the most that a process holds of a counter, in the limit's unit.
        max_share: of what remains, the most that a process takes up front; above 0, at most 1.
        hot_per_s: a counter is hot when it is taken from more often than this in a second.
        max_keys: counters that are watched; the one that was used longest ago goes first.

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

    A reading of what was paid from a lease is as old as the last answer of the primary:
    `remaining` is what remained then, and what is left of the lease.

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
        """How many counters are watched."""
        return len(self._keys)

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        """See `CounterStore.take`. What is paid from leases does not wait."""
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
        """See `CounterStore.give_back`. What was leased goes back to its lease while that lives."""
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
        """The charges' counters; None when one cannot be watched, or stands twice."""
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
        """Forgets the counter that was used longest ago, unless something is held of it."""
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
        """How much to charge up front of each counter; None when that would be of no use."""
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
        """Takes the decision's cost and the extras; None when only the extras did not fit."""
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
        """Learns from an answer, and adds to its readings what is leased."""
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
                # What remained may be from before the block was charged.
                remaining = min(charge.limit, reading.remaining + window.left)
                reading = replace(reading, remaining=remaining)
            readings.append(reading)
        return Taking(charged=True, readings=tuple(readings), at_us=taking.at_us)


def _can_be_leased(charges: Sequence[Charge]) -> bool:
    for charge in charges:
        if charge.algorithm is _BURST or not charge.enforced or charge.cost <= 0:
            return False
    return bool(charges)
