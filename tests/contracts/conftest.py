"""Fixtures of the contract suites."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.builders import FakeClock
from tests.contracts.counter_stores import FIRST_US, STORES, Store
from tests.contracts.rpc_caller import connect, make_host, serve
from tests.redis_server import stop_shared

__all__ = ["connect", "make_host", "serve"]


@pytest.fixture(scope="session", autouse=True)
def _redis_servers() -> Iterator[None]:
    yield
    stop_shared()


@pytest.fixture(params=STORES)
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    clock = FakeClock(FIRST_US)
    counters = await STORES[request.param](clock)
    yield Store(counters, clock)
    await counters.close()
