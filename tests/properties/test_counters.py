"""Laws of counting, and the store against a slow model that remembers every admission."""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any, TypeVar

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from extauthz.counters.formulas import (
    QUANTA,
    State,
    add_cost,
    find_quantum_us,
    read_state,
    reset_us,
    room_in,
    take_back,
    wait_us,
)
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
        return max(0, charge.limit - self.taken_in(self.window(now_us)))

    def window(self, now_us: int) -> tuple[int, int]:
        """Of a sliding window the one that ends with this microsecond."""
        if self.charge.algorithm is Algorithm.SLIDING_WINDOW:
            return now_us - self.charge.window_us + 1, now_us + 1
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


moments = st.lists(
    st.tuples(st.one_of(st.integers(0, 40), st.integers(0, 2000)), st.integers(1, 30)),
    min_size=1,
    max_size=80,
)
small_and_large_limits = st.one_of(st.integers(1, QUANTA), st.integers(QUANTA + 1, 200))


def most_in_a_stretch(spent: list[tuple[int, int]], window_us: int) -> int:
    """The most that was spent in any stretch of time of that length. Looks at every one."""
    return max(
        sum(cost for other_us, cost in spent if at_us - window_us < other_us <= at_us)
        for at_us, _ in spent
    )


@given(limit=small_and_large_limits, window_us=st.integers(1, 1000), offers=moments)
@settings(max_examples=300, deadline=None)
def test_a_sliding_window_admits_at_most_the_limit_in_any_stretch_of_time(
    limit: int, window_us: int, offers: list[tuple[int, int]]
) -> None:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock)
    admitted: list[tuple[int, int]] = []
    for elapsed_us, cost in offers:
        clock.us += elapsed_us
        charge = Charge("k", Algorithm.SLIDING_WINDOW, limit, window_us, cost)
        reading = at_once(store.take([charge])).readings[0]
        # What has left for as long as a quantum is there again, and with small limits at once.
        slack_us = find_quantum_us(window_us) - 1 if limit > QUANTA else 0
        since_us = clock.us - window_us - slack_us
        held = sum(cost for at_us, cost in admitted if at_us > since_us)
        if reading.exceeded:
            assert held + cost > limit
        else:
            admitted.append((clock.us, cost))
            assert most_in_a_stretch(admitted, window_us) <= limit


class SlidingLogAgainstAList(RuleBasedStateMachine):
    """Takings with and without a hold, enforced or not, of changing limits, and given back.

    The list knows when each unit was spent: with a hold, at any time up to its end.
    """

    @initialize(window_us=st.one_of(st.integers(1, 200), st.just(10**6)))
    def begin(self, window_us: int) -> None:
        self.window_us = window_us
        self.now_us = START_US
        self.state: State | None = None
        self.taken: list[tuple[Charge, int, int]] = []
        """Charge, when it was taken, and when it was spent."""

    @rule(elapsed=st.one_of(st.floats(0, 0.1), st.floats(0, 2)))
    def wait(self, elapsed: float) -> None:
        self.now_us += int(elapsed * self.window_us)

    @rule(
        limit=small_and_large_limits,
        cost=st.integers(1, 9),
        is_enforced=st.booleans(),
        hold=st.one_of(st.just(0.0), st.floats(0, 1)),
        spent=st.floats(0, 1),
        times=st.integers(1, 5),
        apart_us=st.integers(0, 40),
    )
    def take(
        self,
        limit: int,
        cost: int,
        is_enforced: bool,  # noqa: FBT001  (drawn)
        hold: float,
        spent: float,
        times: int,
        apart_us: int,
    ) -> None:
        hold_us = int(hold * find_quantum_us(self.window_us))
        charge = Charge(
            "k",
            Algorithm.SLIDING_WINDOW,
            limit,
            self.window_us,
            cost,
            enforced=is_enforced,
            hold_us=hold_us,
        )
        for _ in range(times):
            state = read_state(charge, self.state, self.now_us)
            if cost <= room_in(charge, state, self.now_us):
                assert self.still_counting() + cost <= limit
            elif is_enforced:
                return
            self.state = add_cost(charge, state, self.now_us)
            self.taken.append((charge, self.now_us, self.now_us + int(spent * hold_us)))
            self.now_us += apart_us

    @rule(which=st.integers(0, 200), knows_when=st.booleans())
    def give_back(self, which: int, knows_when: bool) -> None:  # noqa: FBT001  (drawn)
        # Without a time it is just now: not so long ago that it would not count any more.
        recent = [one for one in self.taken if knows_when or one[1] + self.window_us > self.now_us]
        if not recent or self.state is None:
            return
        charge, at_us, _ = one = recent[which % len(recent)]
        self.taken.remove(one)
        self.state = take_back(charge, self.state, at_us if knows_when else None, self.now_us)

    def still_counting(self) -> int:
        """What is in the last stretch, or will be spent yet."""
        return sum(
            c.cost for c, _, spent_us in self.taken if spent_us + self.window_us > self.now_us
        )

    @invariant()
    def the_log_counts_all_that_was_spent_now_and_later(self) -> None:
        if not hasattr(self, "state") or self.state is None:
            return
        for later_us in {self.now_us, *[spent_us for _, _, spent_us in self.taken]}:
            at_us = max(self.now_us, later_us + self.window_us - 1)
            counting = sum(c.cost for c, _, us in self.taken if us + self.window_us > at_us)
            assert read_state(self.look, self.state, at_us)[2] >= counting

    @invariant()
    def the_log_is_short_and_in_order(self) -> None:
        if not hasattr(self, "state") or self.state is None:
            return
        _, edge_us, count, extra, older = read_state(self.look, self.state, self.now_us)
        ends, counts = list(older[::2]), list(older[1::2])
        assert len(ends) + 1 <= 2 * QUANTA + 2
        assert all(one < other for one, other in pairwise([*ends, edge_us])) or not count
        assert sum(counts) + extra == count and all(one > 0 for one in counts)

    @property
    def look(self) -> Charge:
        return Charge("k", Algorithm.SLIDING_WINDOW, 1, self.window_us, 0)


TestSlidingLogAgainstAList = SlidingLogAgainstAList.TestCase
TestSlidingLogAgainstAList.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None
)


@given(
    limit=small_and_large_limits,
    window_us=st.integers(1, 366 * 86_400 * 10**6),
    taken=st.lists(st.tuples(st.floats(0, 0.2), st.integers(1, 9)), min_size=1, max_size=50),
    cost=st.integers(1, 200),
)
@settings(max_examples=200, deadline=None)
def test_a_sliding_window_waits_exactly_as_long_as_needed_at_any_size(
    limit: int, window_us: int, taken: list[tuple[float, int]], cost: int
) -> None:
    charge = Charge("k", Algorithm.SLIDING_WINDOW, limit, window_us, min(cost, limit))
    state, now_us = None, START_US
    for elapsed, other in taken:
        now_us += int(elapsed * window_us)
        state = add_cost(replace(charge, cost=other), read_state(charge, state, now_us), now_us)
    state = read_state(charge, state, now_us)
    if charge.cost > room_in(charge, state, now_us):
        fits_us = now_us + wait_us(charge, state, now_us)
        assert charge.cost <= room_in(charge, read_state(charge, state, fits_us), fits_us)
        early_us = fits_us - 1
        assert charge.cost > room_in(charge, read_state(charge, state, early_us), early_us)
    empty_us = now_us + reset_us(charge, state, now_us)
    assert read_state(charge, state, empty_us - 1)[2] > 0
    assert read_state(charge, state, empty_us)[2] == 0


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
            assert all(0 <= number < 2**53 for number in (*state[:4], *state[4]))


@given(
    algorithm=st.sampled_from(list(Algorithm)),
    limit=st.sampled_from([5, 40]),
    cost=st.integers(1, 5),
    is_enforced=st.booleans(),
    offers=st.lists(
        st.tuples(st.one_of(st.integers(0, 5), st.integers(0, 110)), st.integers(0, 4)),
        max_size=40,
    ),
)
@settings(max_examples=400, deadline=None)
def test_giving_back_never_makes_more_room_than_never_having_taken(
    algorithm: Algorithm,
    limit: int,
    cost: int,
    is_enforced: bool,  # noqa: FBT001  (drawn)
    offers: list[tuple[int, int]],
) -> None:
    clock = FakeClock(START_US)
    with_it, without = MemoryCounterStore(clock), MemoryCounterStore(clock)
    bounds = EDGES if algorithm is Algorithm.CALENDAR else ()
    charge = Charge("k", algorithm, limit, 100, cost, enforced=is_enforced, bounds=bounds)
    due: list[tuple[int, int]] = []
    for number, (elapsed_us, undone_after) in enumerate(offers):
        clock.us += elapsed_us
        for _, at_us in [one for one in due if one[0] == number]:
            at_once(with_it.give_back([charge], at_us=at_us))
        if all(until <= number for until, _ in due):
            peek = replace(charge, cost=0)
            kept = at_once(with_it.take([peek])).readings[0].remaining
            assert kept <= at_once(without.take([peek])).readings[0].remaining
        taking = at_once(with_it.take([charge]))
        if taking.charged and undone_after:
            due.append((number + undone_after, taking.at_us))
        elif taking.charged:
            # The other store sees the same takings that stay.
            assert at_once(without.take([charge])).charged
