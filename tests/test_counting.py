"""How the counter store is opened and asked once at the start."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from extauthz.app.counting import open_counting, probe_counting
from extauthz.serving.readiness import ReadyState
from extauthz.settings import CounterSettings


async def test_a_store_that_is_away_at_the_start_is_named_with_its_address(
    caplog: pytest.LogCaptureFixture, unused_tcp_port: int
) -> None:
    url = f"redis://127.0.0.1:{unused_tcp_port}/0"
    counting = open_counting(CounterSettings(store="redis", url=SecretStr(url)))
    try:
        await probe_counting(counting)
    finally:
        await counting.store.close()
    (message,) = [it.getMessage() for it in caplog.records if it.name == "extauthz.app.counting"]
    assert f"Redis at 127.0.0.1:{unused_tcp_port} cannot be reached" in message
    assert "on_outage: deny" not in message


async def test_readiness_tells_of_a_store_that_is_away_before_anybody_calls(
    unused_tcp_port: int,
) -> None:
    url = f"redis://127.0.0.1:{unused_tcp_port}/0"
    counting = open_counting(CounterSettings(store="redis", url=SecretStr(url)))
    try:
        await counting.look()
        check = counting.check()
        assert (check.state, counting.is_up) == (ReadyState.DEGRADED, False)
        assert "cannot be reached" in str(check.facts["last_error"])
    finally:
        await counting.store.close()


async def test_a_store_in_memory_is_always_ready() -> None:
    counting = open_counting(CounterSettings())
    await counting.look()
    check = counting.check()
    assert (check.state, counting.is_up) == (ReadyState.READY, True)
    await counting.store.close()
