"""How the counter store is opened and asked once at the start."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from extauthz.app.counting import Counting, open_counting, probe_counting
from extauthz.model.limits import Algorithm, Charge
from extauthz.serving.admin.readiness import ReadyState
from extauthz.settings.stores import CounterSettings
from extauthz.telemetry.measures.dependencies import Dependencies
from tests.builders import S
from tests.e2e.backends import hold_dead_port


@pytest.fixture(name="port")
def hold_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    # A busy machine exceeds neither this nor the time-out below by chance.
    monkeypatch.setattr("extauthz.app.counting.LOOK_S", 20.0)
    with hold_dead_port() as port:
        yield port


def open_redis(port: int, timeout: str = "20s") -> Counting:
    section = {"store": "redis", "url": f"redis://127.0.0.1:{port}/0", "timeout": timeout}
    return open_counting(CounterSettings.model_validate(section), Dependencies())


async def test_a_store_that_is_away_at_the_start_is_named_with_its_address(
    caplog: pytest.LogCaptureFixture, port: int
) -> None:
    counting = open_redis(port)
    try:
        await probe_counting(counting)
    finally:
        await counting.store.close()
    (message,) = [it.getMessage() for it in caplog.records if it.name == "extauthz.app.counting"]
    assert f"Redis at 127.0.0.1:{port} cannot be reached" in message
    assert "on_outage: deny" not in message


async def test_a_store_that_accepts_and_stays_silent_is_named_after_its_own_timeout(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extauthz.app.counting.LOOK_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        counting = open_redis(silent.getsockname()[1], timeout="50ms")
        try:
            await probe_counting(counting)
        finally:
            await counting.store.close()
    assert "limits follow their outage modes until it answers" in caplog.text


async def test_readiness_tells_of_a_store_that_is_away_before_anybody_calls(
    port: int,
) -> None:
    counting = open_redis(port)
    try:
        await counting.look()
        check = counting.check()
        assert (check.state, counting.is_up) == (ReadyState.DEGRADED, False)
        assert "cannot be reached" in str(check.facts["last_error"])
    finally:
        await counting.store.close()


async def test_a_store_in_memory_is_always_ready() -> None:
    counting = open_counting(CounterSettings(), Dependencies())
    await counting.look()
    check = counting.check()
    assert (check.state, counting.is_up) == (ReadyState.READY, True)
    await counting.store.close()


async def test_readiness_tells_of_a_memory_that_is_full() -> None:
    counting = open_counting(CounterSettings(max_keys=100), Dependencies())
    for number in range(200):
        charge = Charge(f"{{c{number}}}", Algorithm.FIXED_WINDOW, 5, 3600 * S, origin="6-1")
        await counting.store.take([charge])
    check = counting.check()
    assert check.state is ReadyState.DEGRADED
    assert check.facts["full_for"] == "caller"
    assert check.facts["in_memory"] == len(counting.memory) <= 100
    assert counting.is_up
    await counting.store.close()
