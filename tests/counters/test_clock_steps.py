"""Clocks that were wrong when the service started, or are set while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.model.limits import Algorithm, CalendarUnit, Charge, Taking
from extauthz.policy.limits.calendar_windows import plan_calendar_bounds
from extauthz.ports import CounterStore
from tests.builders import FakeClock, S
from tests.counters.outage.outages import Health, Outage, settle
from tests.redis_server import find_shared, settings_of

DAY: Final = 86_400 * S


def at(year: int) -> int:
    return round(datetime(year, 6, 15, 12, 0, 30, tzinfo=UTC).timestamp()) * S


class Counted:
    """A limit of 3 a minute (calendar: a day), and the clock that it is counted by."""

    def __init__(self, store: CounterStore, clock: FakeClock) -> None:
        self.store = store
        self.clock = clock

    async def take(self, algorithm: Algorithm) -> Taking:
        is_calendar = algorithm is Algorithm.CALENDAR
        charge = Charge("{a}k", algorithm, 3, DAY if is_calendar else 60 * S)
        if is_calendar:
            bounds = plan_calendar_bounds(CalendarUnit.DAY, ZoneInfo("UTC"), self.clock.us)
            charge = replace(charge, bounds=bounds)
        return await self.store.take([charge])

    async def admit(self, algorithm: Algorithm, times: int) -> int:
        return sum([(await self.take(algorithm)).charged for _ in range(times)])


@pytest.fixture
async def in_redis() -> AsyncIterator[Counted]:
    clock = FakeClock(at(2026))
    settings = settings_of(find_shared("redis"))
    store = RedisCounterStore(settings, remember_refusals=False, clock=clock)
    yield Counted(store, clock)
    await store.close()


def let_pass(counted: Counted, steady: FakeClock, us: int) -> None:
    """Time passes on both clocks; which of them is another's double does not matter."""
    counted.clock.us += us
    if steady is not counted.clock:
        steady.us += us


STEPS = [(1970, 2026), (2090, 2026), (2026, 2090), (2026, 2025)]


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize(("before", "after"), STEPS)
async def test_in_memory_the_wall_clock_may_be_set_and_limits_hold_as_before(
    algorithm: Algorithm, before: int, after: int
) -> None:
    clock, steady = FakeClock(at(before)), FakeClock(at(before))
    counted = Counted(MemoryCounterStore(clock, steady=steady), clock)
    assert await counted.admit(algorithm, 2) == 2
    clock.us = at(after)
    let_pass(counted, steady, 2 * S)
    assert await counted.admit(algorithm, 5) == 1
    taking = await counted.take(algorithm)
    window_us = DAY if algorithm is Algorithm.CALENDAR else 60 * S
    assert 0 < taking.readings[0].reset_us <= window_us
    assert taking.at_us == clock.us
    let_pass(counted, steady, taking.readings[0].reset_us)
    assert await counted.admit(algorithm, 5) == 3


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_in_memory_one_clock_that_is_set_back_by_decades_closes_nothing(
    algorithm: Algorithm,
) -> None:
    clock = FakeClock(at(2090))
    counted = Counted(MemoryCounterStore(clock), clock)
    assert await counted.admit(algorithm, 5) == 3
    clock.us = at(2026)
    taking = await counted.take(algorithm)
    assert not taking.charged
    clock.us += taking.readings[0].retry_after_us
    assert (await counted.take(algorithm)).charged


async def test_in_memory_windows_are_the_wall_clocks_after_it_was_set() -> None:
    clock, steady = FakeClock(at(1970) + 7 * S), FakeClock(at(1970) + 7 * S)
    counted = Counted(MemoryCounterStore(clock, steady=steady), clock)
    await counted.take(Algorithm.FIXED_WINDOW)
    clock.us = at(2026)
    let_pass(counted, steady, 60 * S)
    # It is half past the minute again, by the clock that was set.
    assert (await counted.take(Algorithm.FIXED_WINDOW)).readings[0].reset_us == 30 * S


@pytest.mark.parametrize("algorithm", Algorithm)
async def test_in_memory_what_was_taken_is_given_back_after_the_clock_was_set(
    algorithm: Algorithm,
) -> None:
    clock, steady = FakeClock(at(1970)), FakeClock(at(1970))
    counted = Counted(MemoryCounterStore(clock, steady=steady), clock)
    await counted.take(algorithm)
    clock.us = at(2026)
    let_pass(counted, steady, 2 * DAY)
    taking = await counted.take(algorithm)
    bounds = plan_calendar_bounds(CalendarUnit.DAY, ZoneInfo("UTC"), clock.us)
    is_calendar = algorithm is Algorithm.CALENDAR
    charge = Charge("{a}k", algorithm, 3, DAY if is_calendar else 60 * S)
    if is_calendar:
        charge = replace(charge, bounds=bounds)
    await counted.store.give_back([charge], at_us=taking.at_us)
    assert await counted.admit(algorithm, 5) == 3


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize(("before", "after"), STEPS)
async def test_an_outage_ends_though_the_clock_was_set_in_it(
    algorithm: Algorithm, before: int, after: int
) -> None:
    async with Outage() as outage:
        outage.time.clock.us = at(before)
        counted = Counted(outage.store, outage.time.clock)
        await outage.begin()
        assert (await counted.take(algorithm)).charged
        outage.time.clock.us = at(after)
        await counted.take(algorithm)
        outage.primary.health = Health.UP
        for _ in range(5):
            await outage.time.advance(6)
        assert not outage.store.state.degraded
        await settle()
        assert outage.store.state.debts == 0


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("wrong", [1970, 2090])
async def test_in_redis_a_clock_that_was_wrong_is_right_again_within_a_window(
    in_redis: Counted, algorithm: Algorithm, wrong: int
) -> None:
    window_us = DAY if algorithm is Algorithm.CALENDAR else 60 * S
    in_redis.clock.us = at(wrong)
    assert await in_redis.admit(algorithm, 5) == 3
    in_redis.clock.us = at(2026)
    taking = await in_redis.take(algorithm)
    # What a clock that is set back has counted counts once more, as if it were taken now.
    assert taking.charged is (wrong < 2026)
    assert taking.readings[0].reset_us <= window_us
    in_redis.clock.us += window_us
    assert await in_redis.admit(algorithm, 5) == 3
