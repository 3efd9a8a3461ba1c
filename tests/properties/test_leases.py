"""Laws of leases: several processes over one store, against a list of all that passed."""

from __future__ import annotations

import types
from collections import defaultdict
from collections.abc import Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from extauthz.counters.formulas import read_state
from extauthz.counters.leases.store import LeaseRules, LeasingCounterStore
from extauthz.counters.leases.windows import LeasedTime
from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, Taking
from extauthz.ports import NO_DEADLINE, Deadline
from tests.builders import START_US, FakeClock, S

W: Final = S
SLIDING_W: Final = 32 * S
"""So long that what is leased of it may be spent for a second."""
FIRST_US = START_US - START_US % W
EDGES = tuple(FIRST_US + seconds * S for seconds in (-2, -1, 1, 2, 4, 5, 7, 9, 500))
ALGORITHMS = (Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW, Algorithm.CALENDAR)
STORES = 3


@types.coroutine
def _turn() -> Generator[None, None, None]:
    yield


class SteppedPrimary:
    """A store that waits for a step before it charges, and for another before it answers."""

    def __init__(self, store: MemoryCounterStore) -> None:
        self.store = store
        self.has_charged = False
        self.counted: dict[str, list[tuple[int, int]]] = defaultdict(list)
        """By key, when and what it charged, and gave back as less than nothing."""

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        await _turn()
        taking = await self.store.take(charges, dedup_id=dedup_id)
        self.has_charged = taking.charged
        for charge in charges if taking.charged else ():
            self.counted[charge.key].append((taking.at_us, charge.cost))
        await _turn()
        return taking

    async def give_back(
        self, charges: Sequence[Charge], *, at_us: int | None = None, dedup_id: str | None = None
    ) -> None:
        assert at_us is not None and not isinstance(at_us, LeasedTime)
        for charge in charges:
            self.counted[charge.key].append((at_us, -charge.cost))
        await self.store.give_back(charges, at_us=at_us, dedup_id=dedup_id)

    async def close(self) -> None:
        await self.store.close()


@dataclass(eq=False)
class Flight:
    """A taking that is under way."""

    charges: tuple[Charge, ...]
    store: LeasingCounterStore
    primary: SteppedPrimary
    steps: Coroutine[Any, Any, Taking]
    began_us: int
    charged_us: int | None = None
    """When the primary charged it, once it has."""


@dataclass
class Ledger:
    """What passed one limit, by the store's time, and the numbers that it had, since when."""

    charge: Charge
    numbers: list[tuple[int, int]]
    passed: list[tuple[int, int]] = field(default_factory=list)

    @property
    def is_sliding(self) -> bool:
        return self.charge.algorithm is Algorithm.SLIDING_WINDOW

    def window(self, now_us: int) -> tuple[int, int]:
        """Of a sliding window the one that ends with this microsecond."""
        if self.charge.algorithm is Algorithm.CALENDAR:
            return next(w for w in pairwise(EDGES) if w[0] <= now_us < w[1])
        if self.is_sliding:
            return now_us - SLIDING_W + 1, now_us + 1
        start_us = now_us - now_us % W
        return start_us, start_us + W

    def highest(self, at_us: int) -> int:
        """Of the numbers that the limit had in that window."""
        start_us, end_us = self.window(at_us)
        until = [since_us for since_us, _ in self.numbers[1:]] + [end_us]
        return max(
            number
            for (since_us, number), until_us in zip(self.numbers, until, strict=True)
            if since_us < end_us and until_us >= start_us
        )

    def count_passed(self, at_us: int) -> int:
        """What had passed in the window by then."""
        return total(self.passed, (self.window(at_us)[0], at_us + 1))


def total(entries: Sequence[tuple[int, int]], window: tuple[int, int]) -> int:
    return sum(cost for at_us, cost in entries if window[0] <= at_us < window[1])


def a_clock_of_its_own(clock: FakeClock, begin_us: int, ppm: int) -> Callable[[], int]:
    """Monotonic, from anywhere, and a little too fast or too slow."""
    return lambda: begin_us + (clock.us - FIRST_US) * (1_000_000 + ppm) // 1_000_000


class LeasesOverOneStore(RuleBasedStateMachine):
    """Any order of takings that overlap, answers that are lost, edges, and changed limits."""

    longest_us: int | None = W // 3
    """How long a call may take; None for any time."""

    @initialize(
        limits=st.lists(st.integers(1, 40), min_size=3, max_size=3),
        size=st.integers(1, 10),
        max_share=st.sampled_from([0.1, 0.5, 1.0]),
        clocks=st.lists(
            st.tuples(st.integers(0, 10**9), st.sampled_from([-900, 0, 900])),
            min_size=STORES,
            max_size=STORES,
        ),
    )
    def begin(
        self, limits: list[int], size: int, max_share: float, clocks: list[tuple[int, int]]
    ) -> None:
        self.clock = FakeClock(FIRST_US)
        self.memory = MemoryCounterStore(self.clock)
        self.size = size
        rules = LeaseRules(size=size, max_share=max_share, hot_per_s=0)
        self.stores = []
        for begin_us, ppm in clocks:
            primary = SteppedPrimary(self.memory)
            monotonic_us = a_clock_of_its_own(self.clock, begin_us, ppm)
            self.stores.append((LeasingCounterStore(primary, monotonic_us, rules=rules), primary))
        self.heard: dict[object, list[tuple[int, int]]] = defaultdict(list)
        """By primary and key, what passed, and what failed after it was charged."""
        self.ledgers = {}
        for algorithm, limit in zip(ALGORITHMS, limits, strict=True):
            bounds = EDGES if algorithm is Algorithm.CALENDAR else ()
            window_us = W
            if algorithm is Algorithm.SLIDING_WINDOW:
                # So that it is not used up all the time: it is so much longer.
                limit, window_us = 4 * limit, SLIDING_W
            charge = Charge(algorithm.value, algorithm, limit, window_us, bounds=bounds)
            self.ledgers[charge.key] = Ledger(charge, [(0, limit)])
        self.flights: list[Flight] = []
        self.takings: list[tuple[Flight, Taking, int]] = []

    @rule(
        elapsed_us=st.one_of(
            st.integers(0, 3000),
            st.sampled_from([99_000, 499_000, 997_000, 999_999, W, SLIDING_W - W]),
        )
    )
    def wait(self, elapsed_us: int) -> None:
        self._pass_time(elapsed_us)

    @rule(short_us=st.integers(-1, 2500))
    def wait_for_the_edge(self, short_us: int) -> None:
        self._pass_time(max(0, W - self.clock.us % W - short_us))

    @rule(which=st.integers(0, 20))
    def wait_until_something_that_passed_counts_for_the_last_time(self, which: int) -> None:
        ledger = self.ledgers[Algorithm.SLIDING_WINDOW.value]
        ends = [at_us + SLIDING_W - 1 for at_us, _ in ledger.passed]
        ends = [end_us for end_us in ends if end_us > self.clock.us]
        if ends:
            self._pass_time(ends[which % len(ends)] - self.clock.us)

    def _pass_time(self, elapsed_us: int) -> None:
        if self.longest_us is not None:
            for flight in list(self.flights):
                if self.clock.us + elapsed_us - flight.began_us > self.longest_us:
                    while flight in self.flights:
                        self._step(flight)
        self.clock.us = min(self.clock.us + elapsed_us, EDGES[-1] - 1)

    @rule(
        store=st.integers(0, STORES - 1),
        chosen=st.sets(st.integers(0, 2), min_size=1),
        cost=st.sampled_from([1, 1, 1, 2, 5]),
        times=st.integers(1, 12),
        is_stepped=st.booleans(),
    )
    def take(
        self,
        store: int,
        chosen: set[int],
        cost: int,
        times: int,
        is_stepped: bool,  # noqa: FBT001  (drawn)
    ) -> None:
        for _ in range(times):
            flight = self._begin(store, chosen, cost)
            while flight in self.flights and not is_stepped:
                self._step(flight)

    @rule(number=st.integers(0, 2))
    def take_all_there_is(self, number: int) -> None:
        for store in range(STORES):
            passed = -1
            while passed != (passed := len(self.takings)):
                flight = self._begin(store, {number})
                while flight in self.flights:
                    self._step(flight)

    @rule(store=st.integers(0, STORES - 1), number=st.integers(0, 2), turns=st.integers(0, 1))
    def take_and_lose_the_answer(self, store: int, number: int, turns: int) -> None:
        self.take(store, {number}, 1, 1, is_stepped=False)
        flight = self._begin(store, {number})
        for _ in range(turns):
            if flight in self.flights:
                self._step(flight)
        if flight in self.flights:
            self._lose(flight)

    def _begin(self, store: int, chosen: set[int], cost: int = 1) -> Flight:
        ledgers = list(self.ledgers.values())
        charges = tuple(replace(ledgers[number].charge, cost=cost) for number in sorted(chosen))
        leasing, primary = self.stores[store]
        flight = Flight(charges, leasing, primary, leasing.take(charges), self.clock.us)
        self.flights.append(flight)
        self._step(flight)
        return flight

    @rule(which=st.integers(0, 20), steps=st.integers(1, 4))
    def go_on(self, which: int, steps: int) -> None:
        for _ in range(steps):
            if self.flights:
                self._step(self.flights[which % len(self.flights)])

    @rule(which=st.integers(0, 20))
    def lose_the_answer(self, which: int) -> None:
        if self.flights:
            self._lose(self.flights[which % len(self.flights)])

    def _lose(self, flight: Flight) -> None:
        self.flights.remove(flight)
        if flight.charged_us is not None:
            for charge in flight.charges:
                entry = flight.charged_us, charge.cost
                self.heard[flight.primary, charge.key].append(entry)
        with pytest.raises(CounterStoreError):
            flight.steps.throw(CounterStoreError("no answer"))

    @rule(
        store=st.integers(0, STORES - 1),
        early_us=st.sampled_from([-300_000, 0, 1500, 2500, 500_000]),
        times=st.integers(1, 9),
    )
    def pay_late_from_a_lease_on_a_sliding_window(
        self, store: int, early_us: int, times: int
    ) -> None:
        self.take(store, {1}, 1, 3, is_stepped=False)
        self._pass_time(SLIDING_W // 32 - early_us)
        self.take(store, {1}, 1, times, is_stepped=False)

    @rule(number=st.integers(0, 2), limit=st.integers(1, 40))
    def change_a_limit(self, number: int, limit: int) -> None:
        ledger = list(self.ledgers.values())[number]
        ledger.charge = replace(ledger.charge, limit=limit)
        ledger.numbers.append((self.clock.us, limit))

    @rule(which=st.integers(0, 100))
    def give_back(self, which: int) -> None:
        if not self.takings:
            return
        flight, taking, passed_us = self.takings.pop(which % len(self.takings))
        with pytest.raises(StopIteration):
            flight.store.give_back(flight.charges, at_us=taking.at_us).send(None)
        for charge in flight.charges:
            entry = passed_us, charge.cost
            self.ledgers[charge.key].passed.remove(entry)
            self.heard[flight.primary, charge.key].remove(entry)

    def _step(self, flight: Flight) -> None:
        flight.primary.has_charged = False
        try:
            flight.steps.send(None)
        except StopIteration as stop:
            self.flights.remove(flight)
            self._note(flight, stop.value)
        else:
            if flight.primary.has_charged:
                flight.charged_us = self.clock.us

    def _note(self, flight: Flight, taking: Taking) -> None:
        is_leased = isinstance(taking.at_us, LeasedTime)
        assert taking.charged is (is_leased or flight.charged_us is not None)
        for charge, reading in zip(flight.charges, taking.readings, strict=True):
            assert 0 <= reading.remaining <= charge.limit
            assert reading.reset_us > 0 or not taking.charged
        if not taking.charged:
            assert any(reading.exceeded for reading in taking.readings)
            return
        assert not any(reading.exceeded for reading in taking.readings)
        passed_us = self.clock.us if is_leased else int(taking.at_us)
        for charge in flight.charges:
            ledger = self.ledgers[charge.key]
            ledger.passed.append((passed_us, charge.cost))
            self.heard[flight.primary, charge.key].append((passed_us, charge.cost))
            assert ledger.count_passed(passed_us) <= max(ledger.highest(passed_us), charge.limit)
        self.takings.append((flight, taking, passed_us))

    @invariant()
    def the_store_has_counted_all_that_passed(self) -> None:
        for ledger in getattr(self, "ledgers", {}).values():
            window = ledger.window(self.clock.us)
            stored = self.memory._states.get(ledger.charge.key)
            _, edge_us, count, *_ = read_state(ledger.charge, stored, self.clock.us)
            assert ledger.is_sliding or edge_us == window[1]
            assert total(ledger.passed, window) <= count

    @invariant()
    def no_process_has_charged_more_than_passed_and_a_lease(self) -> None:
        if self.longest_us is None:
            return
        for ledger in getattr(self, "ledgers", {}).values():
            key, window = ledger.charge.key, ledger.window(self.clock.us)
            for _, primary in self.stores:
                if not any(flight.primary is primary for flight in self.flights):
                    counted = total(primary.counted[key], window)
                    held = counted - total(self.heard[primary, key], window)
                    # Of a sliding window, what is heard of may have been charged before it.
                    assert held <= self.size
                    assert held >= 0 or ledger.is_sliding

    def teardown(self) -> None:
        for flight in getattr(self, "flights", []):
            flight.steps.close()


class LeasesOverASlowStore(LeasesOverOneStore):
    """Calls take as long as they like: then more may be missed, but never too much admitted."""

    longest_us = None


TestLeasesOverOneStore = LeasesOverOneStore.TestCase
TestLeasesOverASlowStore = LeasesOverASlowStore.TestCase
TestLeasesOverOneStore.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLeasesOverASlowStore.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
