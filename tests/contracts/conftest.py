"""Fixtures of the contract suites."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.builders import FakeClock
from tests.contracts.counter_stores import FIRST_US, STORES, Store


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    clock = FakeClock(FIRST_US)
    counters = await STORES[request.param](clock)
    yield Store(counters, clock)
    await counters.close()
