"""Counts in this process's memory: for one replica, for tests, and while a shared store is away.

The arithmetic is `extauthz.counters.formulas`. What this store adds:

- Nothing is awaited between reading and charging, so a taking is atomic.
- Durations are measured with a clock that is never set; only the edges of windows come from the
  wall clock (`timeline`). So a counter keeps its remaining time when the wall clock is set.
- A counter is dropped when it is equal to an absent one. There are never more than `max_keys`;
  `memory_places` says what happens to a charge that finds no place.
- Answers to a `dedup_id` are kept for `dedup_ttl_us`, the oldest `max_dedup_ids` at most; a
  repetition after that is a new taking. The same id with other keys is another taking.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from heapq import heappop, heappush, heapreplace
from typing import Final, TypeAlias

from extauthz.counters.formulas import (
    NONE_OLDER,
    State,
    add_cost,
    add_to_log,
    find_edge_us,
    read_log,
    read_state,
    reset_us,
    room_in,
    take_back,
    wait_us,
)
from extauthz.counters.memory_places import SHARED, Occupancy, Places, find_kind
from extauthz.counters.timeline import Timeline
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, OutageMode, Reading, Taking
from extauthz.ports import NO_DEADLINE, Clock, Deadline

_DedupKey: TypeAlias = tuple[str, ...]

_FIXED: Final = Algorithm.FIXED_WINDOW
_SLIDING: Final = Algorithm.SLIDING_WINDOW
_CALENDAR: Final = Algorithm.CALENDAR
_BURST: Final = Algorithm.BURST
_ALLOW: Final = OutageMode.ALLOW
_DENY: Final = OutageMode.DENY
_LOCAL: Final = OutageMode.LOCAL
_SWEPT_AT_ONCE: Final = 4
"""Counters examined for expiry with each taking; more than a taking can add."""
_SWEPT_WHEN_FULL: Final = 64


class MemoryCounterStore:
    """A `CounterStore` in memory.

    Args:
        clock: the wall clock, for the edges of windows and for `Taking.at_us`.
        steady: measures durations; by default the same clock, better one that is never set.
    """

    def __init__(
        self,
        clock: Clock,
        max_keys: int = 1_000_000,
        *,
        steady: Clock | None = None,
        dedup_ttl_us: int = 60_000_000,
        max_dedup_ids: int = 100_000,
    ) -> None:
        self._time = Timeline(clock, steady or clock)
        self._dedup_ttl_us = dedup_ttl_us
        self._max_dedup_ids = max_dedup_ids
        self._states: dict[str, State] = {}
        self._expiries: list[tuple[int, str, int]] = []
        """A heap with an entry for each counter: when to examine it for expiry, and its kind."""
        self._places = Places(max_keys)
        self._answers: OrderedDict[_DedupKey, tuple[int, Taking]] = OrderedDict()

    def __len__(self) -> int:
        """The number of counters, including those that are due to be dropped."""
        return len(self._states)

    @property
    def occupancy(self) -> Occupancy:
        """How full it is."""
        return self._places.tell(self._time.latest_us)

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        """See `CounterStore.take`. Never waits, so the deadline is ignored."""
        now_us = self._time.now_us()
        if self._expiries and self._expiries[0][0] <= now_us:
            self._sweep(now_us)
        if dedup_id is None:
            return self._take(charges, now_us)
        key = _dedup_key(dedup_id, charges)
        answer = self._find_answer(key, now_us)
        if answer is None:
            answer = self._take(charges, now_us)
            self._answers[key] = (now_us, answer)
            if len(self._answers) > self._max_dedup_ids:
                self._answers.popitem(last=False)
        return answer

    def _take(self, charges: Sequence[Charge], now_us: int, *, have_places: bool = False) -> Taking:
        states, ahead_us = self._states, self._time.ahead_us
        looks: dict[str, tuple[Charge, State, int]] = {}
        charged, missing = True, False
        for charge in charges:
            cost, key = charge.cost, charge.key
            if cost < 0:
                raise ValueError(f"cost {cost} is negative; use give_back")
            stored = states.get(key)
            if charge.algorithm is _FIXED:
                # `read_state` and `room_in` inlined for the two most frequent algorithms. A window
                # that began before the wall clock was set keeps its own end.
                if stored is None or stored[1] <= now_us:
                    window_us = charge.window_us
                    edge_us = now_us + window_us - (now_us + ahead_us) % window_us
                    state, room = (edge_us, edge_us, 0, 0, NONE_OLDER), charge.limit
                else:
                    state, room = stored, charge.limit - stored[2]
                    room = max(room, 0)
            elif charge.algorithm is _SLIDING:
                state = read_log(stored, charge.window_us, now_us)
                room = charge.limit - state[2]
                room = max(room, 0)
            elif charge.algorithm is _CALENDAR:
                ahead_us = self._time.compare(now_us)
                edge_us = find_edge_us(charge, now_us + ahead_us) - ahead_us
                if stored is None or stored[1] <= now_us:
                    state = (edge_us, edge_us, 0, 0, NONE_OLDER)
                elif stored[1] > edge_us:
                    # It began before the wall clock was set, and ends with the current window.
                    state = (edge_us, edge_us, *stored[2:])
                    states[key] = state
                else:
                    state = stored
                room = max(0, charge.limit - state[2])
            else:
                state = read_state(charge, stored, now_us)
                room = room_in(charge, state, now_us)
            if stored is None:
                missing = True
            if cost > room and charge.enforced:
                charged = False
            looks[key] = (charge, state, room)
        if len(looks) != len(charges):
            raise ValueError("a key stands twice among the charges")
        if charged and missing and not have_places and self._places.is_crowded(len(charges)):
            return self._take_where_there_is_room(charges, now_us)
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
        return Taking(charged, tuple(readings), now_us + ahead_us)

    def _charge(self, charge: Charge, state: State, now_us: int) -> State:
        if charge.algorithm is _FIXED:
            state = (state[0], state[1], state[2] + charge.cost, 0, NONE_OLDER)
        elif charge.algorithm is _SLIDING:
            state = add_to_log(charge, state, now_us)
        else:
            state = add_cost(charge, state, now_us)
        key = charge.key
        if key not in self._states:
            kind = find_kind(key, charge)
            self._places.held[kind] += 1
            heappush(self._expiries, (state[0], key, kind))
        self._states[key] = state
        return state

    def _take_where_there_is_room(self, charges: Sequence[Charge], now_us: int) -> Taking:
        """As `_take`, when some charges may not get a counter of their own."""
        self._places.forget_rules()
        newcomers = [0, 0, 0, 0]
        counted: dict[str, Charge] = {}
        keys = []
        for charge in charges:
            places = self._find_places(charge, now_us, newcomers)
            keys.append([place.key for place in places])
            for place in places:
                other = counted.get(place.key)
                if other is not None:
                    # Two limits of one request share a counter: the larger cost is counted.
                    place = replace(
                        place,
                        cost=max(place.cost, other.cost),
                        limit=min(place.limit, other.limit),
                        enforced=place.enforced or other.enforced,
                    )
                counted[place.key] = place
        taking = self._take(list(counted.values()), now_us, have_places=True)
        found = dict(zip(counted, taking.readings, strict=True))
        readings = [
            _join(charge, [found[key] for key in of_charge])
            for charge, of_charge in zip(charges, keys, strict=True)
        ]
        return replace(taking, readings=tuple(readings))

    def _find_places(self, charge: Charge, now_us: int, newcomers: list[int]) -> Sequence[Charge]:
        """The charge as it is counted, in one counter or in two; empty when it is not counted.

        Args:
            newcomers: for each kind, new counters of this request so far; increased here.

        Raises:
            CounterStoreError: there is no place, and the limit denies then.
        """
        kind, places = find_kind("", charge), self._places
        own = self._states.get(charge.key)
        if own is not None:
            # A counter that is equal to an absent one may be dropped to make room.
            newcomers[kind] += own[0] <= now_us
            return (charge,)
        shared, *others = places.name_shared(charge)
        state = self._states.get(shared)
        may_share = charge.on_outage is _LOCAL or (
            charge.on_outage is _DENY and not charge.enforced
        )
        if not may_share or state is None or state[0] <= now_us:
            if not charge.cost:
                return (charge,)
            if self._make_room(kind, newcomers, now_us):
                newcomers[kind] += 1
                return (charge,)
            places.note_full(kind, now_us)
            if charge.on_outage is _ALLOW:
                places.crowded += 1
                return ()
            if not may_share or not self._has_shared(shared, kind, newcomers, now_us):
                places.crowded += 1
                raise CounterStoreError(
                    f"all {places.max_keys} counters are in use; "
                    "raise the store's max_keys or count in Redis",
                    charged_nothing=True,
                )
        places.crowded += 1
        names = [shared]
        names += [name for name in others if self._has_shared(name, kind, newcomers, now_us)]
        return [replace(charge, key=name) for name in names]

    def _has_shared(self, name: str, kind: int, newcomers: list[int], now_us: int) -> bool:
        """Whether a shared counter exists, or can be made now."""
        if name in self._states:
            return True
        has_place = self._make_room(kind + SHARED, newcomers, now_us)
        newcomers[kind + SHARED] += has_place
        return has_place

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        """See `CounterStore.give_back`."""
        now_us = self._time.now_us()
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
            names: Sequence[str] = (charge.key,)
            if charge.key not in self._states and charge.on_outage is not _ALLOW:
                names = self._places.name_shared(charge)
            for name in names:
                stored = self._states.get(name)
                if stored is not None:
                    changed[name] = self._take_back(charge, stored, at_us, now_us)
        self._states.update(changed)

    def _take_back(self, charge: Charge, stored: State, at_us: int | None, now_us: int) -> State:
        ahead_us = self._time.ahead_us
        if charge.algorithm is _SLIDING or charge.algorithm is _BURST:
            return take_back(charge, stored, None if at_us is None else at_us - ahead_us, now_us)
        # Windows end by the wall clock.
        expires_us, edge_us, count, extra, older = stored
        of_wall = (expires_us + ahead_us, edge_us + ahead_us, count, extra, older)
        count = take_back(charge, of_wall, at_us, now_us + ahead_us)[2]
        return (expires_us, edge_us, count, extra, older)

    async def close(self) -> None:
        """Forgets everything."""
        self._states.clear()
        self._expiries.clear()
        self._answers.clear()
        self._places.held = [0, 0, 0, 0]

    def _find_answer(self, key: _DedupKey, now_us: int) -> Taking | None:
        answers = self._answers
        oldest_us = now_us - self._dedup_ttl_us
        while answers and next(iter(answers.values()))[0] <= oldest_us:
            answers.popitem(last=False)
        found = answers.get(key)
        return None if found is None else found[1]

    def _sweep(self, now_us: int) -> None:
        """Examines a few counters that are due, so that expired ones are dropped soon."""
        for _ in range(_SWEPT_AT_ONCE):
            if not self._drop_due(now_us):
                return

    def _drop_due(self, now_us: int) -> bool:
        """Drops the counter that is due first, or updates its time; False when none is due."""
        expiries = self._expiries
        if not expiries or expiries[0][0] > now_us:
            return False
        _, key, kind = expiries[0]
        expires_us = self._states[key][0]
        if expires_us > now_us:
            heapreplace(expiries, (expires_us, key, kind))
        else:
            heappop(expiries)
            del self._states[key]
            self._places.held[kind] -= 1
        return True

    def _make_room(self, kind: int, newcomers: Sequence[int], now_us: int) -> bool:
        """Drops a bounded number of expired counters until there is a place for one more."""
        for _ in range(_SWEPT_WHEN_FULL):
            if self._places.has_room(kind, newcomers):
                return True
            if not self._drop_due(now_us):
                return False
        return self._places.has_room(kind, newcomers)


def _join(charge: Charge, readings: Sequence[Reading]) -> Reading:
    """The reading of a charge that is counted in several counters."""
    if len(readings) == 1:
        return readings[0]
    if not readings:
        return Reading(False, charge.limit, 0, 0)
    return Reading(
        any(reading.exceeded for reading in readings),
        min(reading.remaining for reading in readings),
        max(reading.reset_us for reading in readings),
        max(reading.retry_after_us for reading in readings),
    )


def _dedup_key(dedup_id: str, charges: Sequence[Charge]) -> _DedupKey:
    return (dedup_id, *[charge.key for charge in charges])
