"""Clocks that were wrong when the service started, or are set while it runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from extauthz.counters.redis import RedisCounterStore
from extauthz.model.limits import Algorithm, CalendarUnit, Charge, Taking
from extauthz.policy.calendar_windows import plan_calendar_bounds
from extauthz.ports import CounterStore
from tests.builders import FakeClock, S
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
