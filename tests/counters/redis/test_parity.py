"""The script against the memory store: the same readings, bit by bit, for whatever is asked."""

from __future__ import annotations

import asyncio
import inspect
import random
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from extauthz.counters import formulas
from extauthz.counters.formulas import find_quantum_us
from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.redis.script import Script
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import MAX_BURST, Algorithm, Charge, Taking
from extauthz.ports import CounterStore
from tests.builders import START_US, FakeClock, S
from tests.redis_server import find_shared, settings_of

DAY = 86_400 * S
EDGES = tuple(START_US + offset for offset in (-900, -50, 130, 600, 1700, 10**7, 3600 * S, 9 * DAY))
"""Calendar windows of uneven length, in microseconds."""

COUNTERS = 6
windows = st.one_of(st.integers(1, 200), st.sampled_from([S, 60 * S, 3600 * S, 366 * DAY]))
limits = st.one_of(st.integers(0, 12), st.sampled_from([1000, 99_991, MAX_BURST]))
costs = st.one_of(st.integers(0, 5), st.integers(0, 2 * MAX_BURST))
steps = st.one_of(
    st.integers(0, 300), st.sampled_from([999_999, 30 * S, 60 * S, 61 * S, 3601 * S, 2 * DAY])
)
decisions = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, COUNTERS - 1), costs, max_size=4),
        st.sampled_from([None, None, None, "one", "other"]),
    ),
    max_size=6,
)


async def ask(store: CounterStore, charges: Sequence[Charge], dedup_id: str | None) -> object:
    """A taking without its time where nothing was asked; the word where it cannot be decided."""
    try:
        taking = await store.take(charges, dedup_id=dedup_id)
    except CounterStoreError:
        return "could not decide"
    return taking if charges else taking.charged


class RedisAgainstMemory(RuleBasedStateMachine):
    """Any order of takings, alone and together, of giving back, changed limits and passing time."""

    @initialize(
        shapes=st.lists(
            st.tuples(st.sampled_from(list(Algorithm)), limits, windows, st.booleans()),
            min_size=COUNTERS,
            max_size=COUNTERS,
        )
    )
    def begin(self, shapes: list[tuple[Algorithm, int, int, bool]]) -> None:
        self.clock = FakeClock(START_US)
        self.runner = asyncio.Runner()
        self.memory = MemoryCounterStore(self.clock)
        deployment = find_shared("redis")
        self.redis, self.remembering = (
            RedisCounterStore(
                settings_of(deployment, prefix=prefix),
                remember_refusals=remember,
                clock=self.clock,
                monotonic_us=self.clock.now_us,
            )
            for prefix, remember in (("a:", False), ("b:", True))
        )
        self.charges = [
            Charge(
                f"{{x}}{number}",
                algorithm,
                limit,
                window_us,
                enforced=enforced,
                bounds=EDGES if algorithm is Algorithm.CALENDAR else (),
            )
            for number, (algorithm, limit, window_us, enforced) in enumerate(shapes)
        ]
        self.taken: list[tuple[list[Charge], Taking]] = []

    @rule(elapsed_us=steps)
    def wait(self, elapsed_us: int) -> None:
        self.clock.us += elapsed_us

    @rule(number=st.integers(0, COUNTERS - 1), limit=limits)
    def change_a_limit(self, number: int, limit: int) -> None:
        self.charges[number] = replace(self.charges[number], limit=limit)

    @rule(asked=decisions)
    def take(self, asked: list[tuple[dict[int, int], str | None]]) -> None:
        orders = [
            ([replace(self.charges[number], cost=cost) for number, cost in chosen.items()], once)
            for chosen, once in asked
        ]

        async def ask_together(store: CounterStore) -> list[object]:
            return await asyncio.gather(*[ask(store, *order) for order in orders])

        expected = self.runner.run(ask_together(self.memory))
        assert self.runner.run(ask_together(self.redis)) == expected
        remembered = self.runner.run(ask_together(self.remembering))
        for (charges, once), taking, other in zip(orders, expected, remembered, strict=True):
            if isinstance(taking, Taking):
                assert isinstance(other, Taking)
                assert other.charged is taking.charged
                if taking.charged and once is None:
                    self.taken.append((charges, taking))
            elif taking == "could not decide":
                # A refusal that is still good may answer before the clock is asked.
                assert not isinstance(other, Taking) or not other.charged

    @rule(which=st.integers(0, 9), knows_when=st.booleans())
    def give_back(self, which: int, knows_when: bool) -> None:  # noqa: FBT001  (drawn)
        if which < len(self.taken):
            charges, taking = self.taken.pop(which)
            self._give_back(charges, taking.at_us if knows_when else None, None)

    @rule(chosen=st.sets(st.integers(0, COUNTERS - 1), max_size=2), once=st.sampled_from(["one"]))
    def undo(self, chosen: set[int], once: str) -> None:
        self._give_back([self.charges[number] for number in sorted(chosen)], None, once)

    def _give_back(self, charges: list[Charge], at_us: int | None, once: str | None) -> None:
        outcomes = []
        for store in (self.memory, self.redis, self.remembering):
            try:
                self.runner.run(store.give_back(charges, at_us=at_us, dedup_id=once))
                outcomes.append("given back")
            except CounterStoreError:
                outcomes.append("could not decide")
        assert len(set(outcomes)) == 1

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.redis.close())
            self.runner.run(self.remembering.close())
            self.runner.close()


TestRedisAgainstMemory = RedisAgainstMemory.TestCase
TestRedisAgainstMemory.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


@given(
    algorithm=st.sampled_from([a for a in Algorithm if a is not Algorithm.CALENDAR]),
    limit=st.integers(1, MAX_BURST),
    window_us=st.integers(1, 366 * DAY),
    taken=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_agrees_with_memory_at_any_size(
    algorithm: Algorithm, limit: int, window_us: int, taken: list[tuple[float, float]]
) -> None:
    clock = FakeClock(START_US)

    async def compare() -> None:
        memory = MemoryCounterStore(clock)
        store = RedisCounterStore(
            settings_of(find_shared("redis")), remember_refusals=False, clock=clock
        )
        for elapsed, part in taken:
            clock.us += int(elapsed * window_us)
            charge = Charge("{x}k", algorithm, limit, window_us, cost=int(part * limit))
            assert await store.take([charge]) == await memory.take([charge])
        await store.close()

    asyncio.run(compare())


@pytest.mark.parametrize("algorithm", [Algorithm.SLIDING_WINDOW, Algorithm.BURST])
@pytest.mark.parametrize("enforced", [True, False])
@pytest.mark.parametrize("window_us", [40, 3200, 60 * S])
def test_agrees_with_memory_through_a_long_run_of_taking_and_giving_back(
    algorithm: Algorithm,
    enforced: bool,  # noqa: FBT001  (a table's column)
    window_us: int,
) -> None:
    clock, drawn = FakeClock(START_US), random.Random(window_us)
    is_log = algorithm is Algorithm.SLIDING_WINDOW
    quantum_us = find_quantum_us(window_us)

    async def compare() -> None:
        memory = MemoryCounterStore(clock)
        store = RedisCounterStore(
            settings_of(find_shared("redis")), remember_refusals=False, clock=clock
        )
        taken: list[tuple[Charge, int]] = []
        limit = 33
        for number in range(1000):
            # Often to the very microsecond at which something counts no more.
            ends = [at_us + window_us for _, at_us in taken if at_us + window_us > clock.us]
            if ends and drawn.random() < 0.2:
                clock.us = min(ends) - drawn.randrange(2)
            else:
                clock.us += drawn.choice((0, 0, 1, quantum_us // 2, quantum_us))
            if number % 100 == 0:
                limit = drawn.choice((3, 32, 33, 90))
            if taken and drawn.random() < 0.3:
                charge, at_us = taken.pop(drawn.randrange(len(taken)))
                at_us += drawn.choice((0, 0, 0, 0, -1, 1, -2 * quantum_us))
                when = None if drawn.random() < 0.1 else at_us
                await store.give_back([charge], at_us=when)
                await memory.give_back([charge], at_us=when)
            hold_us = drawn.choice((0, 0, 0, 1, quantum_us)) if is_log else 0
            cost = drawn.choice((0, 1, 1, 1, 2, 5))
            charge = Charge(
                "{x}k", algorithm, limit, window_us, cost, enforced=enforced, hold_us=hold_us
            )
            taking = await store.take([charge])
            assert taking == await memory.take([charge])
            if taking.charged:
                taken = [*taken[-60:], (charge, taking.at_us)]
        await store.close()

    asyncio.run(compare())


@given(
    algorithm=st.sampled_from(list(Algorithm)),
    offers=st.lists(st.tuples(st.integers(-400, 300), st.integers(1, 3)), max_size=20),
)
@settings(max_examples=40, deadline=None)
def test_a_clock_that_goes_back_admits_no_more_than_one_that_stands_still(
    algorithm: Algorithm, offers: list[tuple[int, int]]
) -> None:
    clock, latest = FakeClock(START_US), FakeClock(0)

    async def compare() -> None:
        memory = MemoryCounterStore(latest)
        store = RedisCounterStore(
            settings_of(find_shared("redis")), remember_refusals=False, clock=clock
        )
        for elapsed_us, cost in offers:
            clock.us += elapsed_us
            charge = Charge("{x}k", algorithm, 5, 100, cost, bounds=(0, *EDGES))
            if (await store.take([charge])).charged:
                # What is refused leaves no trace, so its time is not known later.
                latest.us = max(latest.us, clock.us)
                assert (await memory.take([charge])).charged
        await store.close()

    asyncio.run(compare())


def test_every_formula_has_its_namesake_in_the_script() -> None:
    named = {name.lstrip("_") for name, found in vars(formulas).items() if inspect.isroutine(found)}
    assert len(named) > 10
    script = Script("", 1).source.decode()
    assert named <= set(re.findall(r"^local function (\w+)", script, re.MULTILINE))
