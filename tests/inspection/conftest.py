"""Ends the Redis servers that tests of this folder have started."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import stop_shared


@pytest.fixture(scope="session", autouse=True)
def _redis_servers() -> Iterator[None]:
    yield
    stop_shared()
