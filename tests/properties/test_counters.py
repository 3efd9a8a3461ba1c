"""Laws of counting, and the store against a slow model that remembers every admission."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import ceil
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from extauthz.counters.formulas import add_cost, read_state, room_in, wait_us
from extauthz.counters.memory import MemoryCounterStore
from extauthz.model.limits import Algorithm, Charge
from tests.builders import START_US, FakeClock

EDGES = tuple(START_US + offset for offset in (-900, -50, 130, 600, 1700, 10**7, 10**8))
"""Calendar windows of uneven length, in microseconds."""


T = TypeVar("T")


def at_once(waiting: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that never waits gives."""
    try:
        waiting.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    raise AssertionError("the memory store suspended")


class Ledger:
    """The model: every admission with its time and cost, and exact fractions. It drops nothing."""

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self.admitted: list[tuple[int, int]] = []

    def room(self, now_us: int) -> int:
        charge = self.charge
        if charge.algorithm is Algorithm.BURST:
            free = charge.window_us - self.backlog(now_us)
            return max(0, int(free * charge.limit / charge.window_us))
        window = self.window(now_us)
        used = self.taken_in(window)
        if charge.algorithm is Algorithm.SLIDING_WINDOW:
            before = (window[0] - charge.window_us, window[0])
            weight = (charge.window_us - (now_us - window[0])) / charge.window_us
            used += ceil(self.taken_in(before) * weight)
        return max(0, charge.limit - used)

    def window(self, now_us: int) -> tuple[int, int]:
        if self.charge.algorithm is Algorithm.CALENDAR:
            return next(w for w in pairwise(EDGES) if w[0] <= now_us < w[1])
        start_us = now_us // self.charge.window_us * self.charge.window_us
        return start_us, start_us + self.charge.window_us

    def taken_in(self, window: tuple[int, int]) -> int:
        return sum(cost for at_us, cost in self.admitted if window[0] <= at_us < window[1])

    def backlog(self, now_us: int) -> Fraction:
        each = Fraction(self.charge.window_us, self.charge.limit)
        arrival = Fraction(0)
        for at_us, cost in self.admitted:
            filled = max(arrival, Fraction(at_us)) + cost * each
            if not self.charge.enforced:
                filled = max(arrival, min(filled, Fraction(at_us + self.charge.window_us)))
            arrival = filled
        return max(Fraction(0), arrival - now_us)


class StoreAgainstModel(RuleBasedStateMachine):
    """Any order of takings, peeks and passing time, over several limits at once."""

    @initialize(
        limits=st.lists(st.integers(1, 12), min_size=5, max_size=5),
        window_us=st.integers(1, 200),
    )
    def begin(self, limits: list[int], window_us: int) -> None:
        self.clock = FakeClock(START_US)
        self.store = MemoryCounterStore(self.clock)
        algorithms = [*Algorithm, Algorithm.BURST]
        self.ledgers = [
            Ledger(
                Charge(
                    f"{number}",
                    algorithm,
                    limit,
                    window_us,
                    enforced=number < len(Algorithm),
                    bounds=EDGES if algorithm is Algorithm.CALENDAR else (),
                )
            )
            for number, (algorithm, limit) in enumerate(zip(algorithms, limits, strict=True))
        ]

    @rule(elapsed_us=st.integers(0, 300))
    def wait(self, elapsed_us: int) -> None:
        self.clock.us += elapsed_us

    @rule(chosen=st.sets(st.integers(0, 4)), cost=st.integers(0, 5))
    def take(self, chosen: set[int], cost: int) -> None:
        now_us = self.clock.us
        asked = [self.ledgers[number] for number in sorted(chosen)]
        rooms = [ledger.room(now_us) for ledger in asked]
        taking = at_once(self.store.take([replace(a.charge, cost=cost) for a in asked]))
        enforced = [
            room for ledger, room in zip(asked, rooms, strict=True) if ledger.charge.enforced
        ]
        assert taking.charged is all(cost <= room for room in enforced)
        for ledger, room, reading in zip(asked, rooms, taking.readings, strict=True):
            assert reading.exceeded is (cost > room)
            if taking.charged and cost:
                ledger.admitted.append((now_us, cost))
            assert reading.remaining == ledger.room(now_us)
            assert (reading.retry_after_us > 0) is reading.exceeded
            if reading.exceeded and cost <= ledger.charge.limit:
                assert cost > ledger.room(now_us + reading.retry_after_us - 1)
                assert cost <= ledger.room(now_us + reading.retry_after_us)
            assert ledger.room(now_us + reading.reset_us) == ledger.charge.limit

    @rule()
    def refuse_everything(self) -> None:
        charges = [ledger.charge for ledger in self.ledgers]
        wall = replace(charges[0], key="wall", limit=0)
        assert not at_once(self.store.take([*charges, wall])).charged

    @invariant()
    def no_window_holds_more_than_its_limit(self) -> None:
        for ledger in getattr(self, "ledgers", [])[:3]:
            if ledger.charge.algorithm is not Algorithm.BURST:
                window = ledger.window(self.clock.us)
                assert ledger.taken_in(window) <= ledger.charge.limit


TestStoreAgainstModel = StoreAgainstModel.TestCase
TestStoreAgainstModel.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@given(
    limit=st.integers(1, 50),
    window_us=st.integers(1, 10**6),
    offers=st.lists(st.tuples(st.integers(0, 10**5), st.integers(1, 9)), max_size=60),
)
@settings(max_examples=60, deadline=None)
def test_a_burst_admits_at_most_its_size_and_its_rate_in_any_stretch_of_time(
    limit: int, window_us: int, offers: list[tuple[int, int]]
) -> None:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock)
    admitted: list[tuple[int, int]] = []
    for elapsed_us, cost in offers:
        clock.us += elapsed_us
        if at_once(store.take([Charge("k", Algorithm.BURST, limit, window_us, cost)])).charged:
            admitted.append((clock.us, cost))
    for first, (from_us, _) in enumerate(admitted):
        total = 0
        for until_us, cost in admitted[first:]:
            total += cost
            assert total <= limit + Fraction((until_us - from_us) * limit, window_us)


@given(
    before=st.integers(0, 10**9),
    count=st.integers(0, 10**9),
    limit=st.integers(1, 10**9),
    cost=st.integers(1, 10**9),
    window_us=st.integers(1, 366 * 86_400 * 10**6),
    part=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=300, deadline=None)
def test_a_sliding_window_waits_exactly_as_long_as_needed_at_any_size(
    before: int, count: int, limit: int, cost: int, window_us: int, part: float
) -> None:
    charge = Charge("k", Algorithm.SLIDING_WINDOW, limit, window_us, min(cost, limit))
    start_us = START_US // window_us * window_us
    now_us = start_us + int(part * window_us)
    edge_us = start_us + window_us
    stored = (edge_us + window_us, edge_us, count, before)
    if charge.cost <= room_in(charge, stored, now_us):
        return
    fits_us = now_us + wait_us(charge, stored, now_us)
    assert charge.cost <= room_in(charge, read_state(charge, stored, fits_us), fits_us)
    early_us = fits_us - 1
    assert charge.cost > room_in(charge, read_state(charge, stored, early_us), early_us)


@given(
    limit=st.integers(1, 94_906_265),
    window_us=st.integers(1, 366 * 86_400 * 10**6),
    costs=st.lists(st.integers(1, 94_906_265), max_size=5),
)
def test_all_that_is_stored_fits_the_integers_of_a_double(
    limit: int, window_us: int, costs: list[int]
) -> None:
    for algorithm in (Algorithm.BURST, Algorithm.SLIDING_WINDOW, Algorithm.FIXED_WINDOW):
        state = None
        for cost in costs:
            charge = Charge("k", algorithm, limit, window_us, min(cost, limit))
            state = add_cost(charge, read_state(charge, state, START_US), START_US)
            assert all(0 <= number < 2**53 for number in state)


@given(
    algorithm=st.sampled_from(list(Algorithm)),
    offers=st.lists(st.tuples(st.integers(0, 90), st.booleans()), max_size=40),
)
@settings(max_examples=60, deadline=None)
def test_giving_back_never_makes_more_room_than_never_having_taken(
    algorithm: Algorithm, offers: list[tuple[int, bool]]
) -> None:
    clock = FakeClock(START_US)
    with_it, without = MemoryCounterStore(clock), MemoryCounterStore(clock)
    charge = Charge("k", algorithm, 5, 100, bounds=EDGES if algorithm is Algorithm.CALENDAR else ())
    for elapsed_us, undone in offers:
        taking = at_once(with_it.take([charge]))
        clock.us += elapsed_us
        if undone and taking.charged:
            at_once(with_it.give_back([charge], at_us=taking.at_us))
        elif taking.charged:
            # The other store sees the same takings that stay, at the same times.
            clock.us -= elapsed_us
            at_once(without.take([charge]))
            clock.us += elapsed_us
        peek = replace(charge, cost=0)
        kept = at_once(with_it.take([peek])).readings[0].remaining
        assert kept <= at_once(without.take([peek])).readings[0].remaining
