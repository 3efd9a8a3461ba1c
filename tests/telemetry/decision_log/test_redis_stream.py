"""Decisions in a stream of a real Redis: there, away, hanging, and refusing."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.app.log import open_decision_log
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings
from extauthz.telemetry.decision_log.log import DecisionLog
from extauthz.telemetry.decision_log.sinks import CLOSE_S
from tests.redis_server import RedisServer, find_shared
from tests.telemetry.decision_log.test_log import observe, wait_until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """One that only the test has, as it is stopped."""
    server = RedisServer(tmp_path).start()
    yield server
    server.kill()


def read(folder: Path, url: str, **redis: Any) -> Settings:
    tree = {
        "catalog": {"files": ["catalog.yaml"]},
        "log": {"decisions": {"redis": {"url": url, **redis}}},
    }
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump(tree))
    return read_settings(file, {})


def url_of(server: RedisServer) -> str:
    return f"redis://127.0.0.1:{server.port}/0"


def list_ids(server: RedisServer, stream: str = "extauthz:decisions") -> list[str]:
    entries = server.ask("XRANGE", stream, "-", "+")
    return [json.loads(fields[b"record"])["decision"] for _, fields in entries]


@pytest.mark.parametrize("name", ["redis", "redis, cluster"])
def test_each_decision_is_an_entry(tmp_path: Path, name: str) -> None:
    deployment = find_shared(name)
    with open_decision_log(read(tmp_path, deployment.url, prefix=f"{tmp_path.name}:")) as log:
        assert log is not None
        ids = observe(log, 40)
    assert log.sinks[0].dropped == 0
    stream = f"{tmp_path.name}:decisions"
    (holding,) = [one for one in deployment.servers if stream.encode() in one.list_keys()][:1]
    assert list_ids(holding, stream) == ids


def test_without_a_url_the_redis_of_the_counters_gets_them(
    tmp_path: Path, server: RedisServer
) -> None:
    tree = {
        "catalog": {"files": ["catalog.yaml"]},
        "counters": {"store": "redis", "url": url_of(server), "prefix": "mine:"},
        "log": {"decisions": {"redis": {"key": "d"}}},
    }
    file = tmp_path / "extauthz.yaml"
    file.write_text(yaml.safe_dump(tree))
    with open_decision_log(read_settings(file, {})) as log:
        assert log is not None
        ids = observe(log, 3)
    assert list_ids(server, "mine:d") == ids


def test_a_user_of_redis_needs_two_commands_and_one_key(
    tmp_path: Path, server: RedisServer
) -> None:
    rules = ("reset", "on", ">pw", "~extauthz:decisions", "-@all", "+eval", "+xadd")
    server.ask("ACL", "SETUSER", "log", *rules)
    (tmp_path / "pw").write_text("pw\n")
    access = {"username": "log", "password_file": "pw"}
    with open_decision_log(read(tmp_path, f"redis://127.0.0.1:{server.port}", **access)) as log:
        assert log is not None
        ids = observe(log, 3)
    assert list_ids(server) == ids


def test_the_stream_stays_about_as_long_as_it_may(tmp_path: Path, server: RedisServer) -> None:
    with open_decision_log(read(tmp_path, url_of(server), max_length=200)) as log:
        assert log is not None
        observe(log, 3000)
    # Redis removes whole nodes, of 100 entries by default.
    assert 200 <= server.ask("XLEN", "extauthz:decisions") <= 300


def test_a_redis_that_restarts_loses_nothing_that_waits(
    tmp_path: Path, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with open_decision_log(read(tmp_path, url_of(server))) as log:
        assert log is not None
        server.kill()
        ids = observe(log, 100)
        wait_until(lambda: "decisions wait for Redis at 127.0.0.1" in caplog.text)
        server.start()
        wait_until(lambda: waiting(log) == 0)
    assert list_ids(server) == ids
    assert log.sinks[0].dropped == 0


def waiting(log: DecisionLog) -> int:
    return log.sinks[0].waiting


def test_a_redis_that_hangs_holds_up_no_decision_and_no_stop(
    tmp_path: Path, server: RedisServer
) -> None:
    server.signal(signal.SIGSTOP)
    try:
        with open_decision_log(read(tmp_path, url_of(server))) as log:
            assert log is not None
            started_s = time.monotonic()
            observe(log, 1000)
            assert time.monotonic() - started_s < 2
            started_s = time.monotonic()
        assert time.monotonic() - started_s < CLOSE_S + 10
        assert log.sinks[0].dropped == 1000
    finally:
        server.signal(signal.SIGCONT)
    log.sinks[0]._thread.join()


def test_a_refusal_of_redis_is_told_and_grows_nothing(
    tmp_path: Path, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.ask("SET", "extauthz:decisions", "no stream")
    with open_decision_log(read(tmp_path, url_of(server))) as log:
        assert log is not None
        observe(log, 20_000)
        wait_until(lambda: "WRONGTYPE" in caplog.text)
        assert log.sinks[0].waiting == 10_000
    assert log.sinks[0].dropped == 20_000
