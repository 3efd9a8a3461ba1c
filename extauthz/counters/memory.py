"""Counts in this process's memory: for one replica, for tests, and while a shared store is away.

The arithmetic is `extauthz.counters.formulas`. What this store adds:

- Nothing is awaited between looking and charging, so a taking is whole by itself.
- Time never goes back: a reading of the clock before the latest one counts as the latest. A
  clock that is set back can so only make a limit stricter.
- A counter is dropped when it says nothing any more. There are never more than `max_keys`. When
  all of them still count, a charge that would need one more raises CounterStoreError: throwing
  out a live counter would let its consumer in twice. Counters that are there go on working, so
  a flood of new keys does not reach the consumers that are being counted.
- Answers to a `dedup_id` are kept for `dedup_ttl_us`, the oldest `max_dedup_ids` at most; a
  repetition after that is a new taking. The same id with other keys is another taking.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from heapq import heappop, heappush, heapreplace
from typing import Final, TypeAlias

from extauthz.counters.formulas import (
    NONE_OLDER,
    State,
    add_cost,
    add_to_log,
    read_log,
    read_state,
    reset_us,
    room_in,
    take_back,
    wait_us,
)
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, Reading, Taking
from extauthz.ports import NO_DEADLINE, Clock, Deadline

_DedupKey: TypeAlias = tuple[str, ...]

_FIXED: Final = Algorithm.FIXED_WINDOW
_SLIDING: Final = Algorithm.SLIDING_WINDOW
_SWEPT_AT_ONCE: Final = 4
"""Counters looked at for each taking; more than one taking can add to what is due."""


class MemoryCounterStore:
    """A `CounterStore` in memory."""

    def __init__(
        self,
        clock: Clock,
        max_keys: int = 1_000_000,
        *,
        dedup_ttl_us: int = 60_000_000,
        max_dedup_ids: int = 100_000,
    ) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._dedup_ttl_us = dedup_ttl_us
        self._max_dedup_ids = max_dedup_ids
        self._latest_us = 0
        self._states: dict[str, State] = {}
        self._expiries: list[tuple[int, str]] = []
        """A heap with one entry for each counter: a time at which it is worth a look."""
        self._answers: OrderedDict[_DedupKey, Taking] = OrderedDict()

    def __len__(self) -> int:
        """How many counters are held, those that are due to be dropped included."""
        return len(self._states)

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        """See `CounterStore.take`. Never waits, so the deadline does not matter."""
        now_us = self._now_us()
        if self._expiries and self._expiries[0][0] <= now_us:
            self._sweep(now_us)
        if dedup_id is None:
            return self._take(charges, now_us)
        key = _dedup_key(dedup_id, charges)
        answer = self._find_answer(key, now_us)
        if answer is None:
            answer = self._take(charges, now_us)
            self._answers[key] = answer
            if len(self._answers) > self._max_dedup_ids:
                self._answers.popitem(last=False)
        return answer

    def _take(self, charges: Sequence[Charge], now_us: int) -> Taking:
        states = self._states
        looks: dict[str, tuple[Charge, State, int]] = {}
        charged, missing = True, False
        for charge in charges:
            cost, key = charge.cost, charge.key
            if cost < 0:
                raise ValueError(f"cost {cost} is negative; use give_back")
            stored = states.get(key)
            if charge.algorithm is _FIXED:
                # The two commonest rules: `read_state` and `room_in` in place.
                edge_us = now_us - now_us % charge.window_us + charge.window_us
                if stored is None or stored[1] < edge_us:
                    state, room = (edge_us, edge_us, 0, 0, NONE_OLDER), charge.limit
                else:
                    state, room = stored, charge.limit - stored[2]
                    room = max(room, 0)
            elif charge.algorithm is _SLIDING:
                state = read_log(stored, charge.window_us, now_us)
                room = charge.limit - state[2]
                room = max(room, 0)
            else:
                state = read_state(charge, stored, now_us)
                room = room_in(charge, state, now_us)
            if stored is None and cost:
                missing = True
            if cost > room and charge.enforced:
                charged = False
            looks[key] = (charge, state, room)
        if len(looks) != len(charges):
            raise ValueError("a key stands twice among the charges")
        if charged and missing and len(states) + len(charges) > self._max_keys:
            self._make_room(charges, now_us)
        readings = []
        for charge, state, room in looks.values():
            cost = charge.cost
            exceeded = cost > room
            if charged and cost:
                state = self._charge(charge, state, now_us)
                room = 0 if exceeded else room - cost
            if charge.algorithm is _FIXED:
                left_us = state[1] - now_us
                wait = left_us if exceeded else 0
            elif charge.algorithm is _SLIDING:
                left_us = state[0] - now_us if state[2] else 0
                wait = wait_us(charge, state, now_us) if exceeded else 0
            else:
                left_us = reset_us(charge, state, now_us)
                wait = wait_us(charge, state, now_us) if exceeded else 0
            readings.append(Reading(exceeded, room, left_us, wait))
        return Taking(charged, tuple(readings), now_us)

    def _charge(self, charge: Charge, state: State, now_us: int) -> State:
        if charge.algorithm is _FIXED:
            state = (state[0], state[1], state[2] + charge.cost, 0, NONE_OLDER)
        elif charge.algorithm is _SLIDING:
            state = add_to_log(charge, state, now_us)
        else:
            state = add_cost(charge, state, now_us)
        if charge.key not in self._states:
            heappush(self._expiries, (state[0], charge.key))
        self._states[charge.key] = state
        return state

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        """See `CounterStore.give_back`."""
        now_us = self._now_us()
        if len({charge.key for charge in charges}) != len(charges):
            raise ValueError("a key stands twice among the charges")
        if dedup_id is not None:
            key = _dedup_key(dedup_id, charges)
            answer = self._find_answer(key, now_us)
            if answer is None or not answer.charged:
                return
            at_us = answer.at_us
            del self._answers[key]
        changed = {}
        for charge in charges:
            stored = self._states.get(charge.key)
            if stored is not None:
                changed[charge.key] = take_back(charge, stored, at_us, now_us)
        self._states.update(changed)

    async def close(self) -> None:
        """Forgets everything."""
        self._states.clear()
        self._expiries.clear()
        self._answers.clear()

    def _now_us(self) -> int:
        now_us = self._clock.now_us()
        if now_us < self._latest_us:
            return self._latest_us
        self._latest_us = now_us
        return now_us

    def _find_answer(self, key: _DedupKey, now_us: int) -> Taking | None:
        answers = self._answers
        oldest_us = now_us - self._dedup_ttl_us
        while answers and next(iter(answers.values())).at_us <= oldest_us:
            answers.popitem(last=False)
        return answers.get(key)

    def _sweep(self, now_us: int) -> None:
        """Looks at a few counters that are due, so that none is kept for nothing for long."""
        for _ in range(_SWEPT_AT_ONCE):
            if not self._drop_due(now_us):
                return

    def _drop_due(self, now_us: int) -> bool:
        """Drops the counter that is due first, or notes its new time; False when none is due."""
        expiries = self._expiries
        if not expiries or expiries[0][0] > now_us:
            return False
        key = expiries[0][1]
        expires_us = self._states[key][0]
        if expires_us > now_us:
            heapreplace(expiries, (expires_us, key))
        else:
            heappop(expiries)
            del self._states[key]
        return True

    def _make_room(self, charges: Sequence[Charge], now_us: int) -> None:
        """Drops expired counters until every charge has a place, or raises CounterStoreError."""
        while True:
            missing = sum(1 for c in charges if c.cost and c.key not in self._states)
            if len(self._states) + missing <= self._max_keys:
                return
            if not self._drop_due(now_us):
                raise CounterStoreError(
                    f"all {self._max_keys} counters are in use; "
                    "raise the store's max_keys or count in Redis"
                )


def _dedup_key(dedup_id: str, charges: Sequence[Charge]) -> _DedupKey:
    return (dedup_id, *[charge.key for charge in charges])
