from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from extauthz.clients.issuer_http import IssuerHttp
from tests.builders import FakeClock
from tests.clients.loopback import LoopbackServer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def server() -> AsyncIterator[LoopbackServer]:
    async with LoopbackServer() as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[IssuerHttp]:
    async with IssuerHttp() as client:
        yield client
