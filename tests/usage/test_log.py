"""Requests reach every sink that the settings name, or are counted; nothing waits for one."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from extauthz.app.usage import sinks as app_sinks
from extauthz.app.usage.sinks import check_usage, open_usage_log
from extauthz.errors import ConfigError
from extauthz.model.usage import UsageRecord, UsageSource
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings
from extauthz.usage.log import UsageLog
from extauthz.usage.marks import Marks
from tests.builders import FakeClock
from tests.redis_server import find_shared
from tests.telemetry.collectors import run_grpc_collector, run_http_collector
from tests.usage.test_record import RECORD

_WAIT_S: Final = 30


class Kept:
    """A vendor's sink that can be held up and made to fail."""

    made: Kept

    def __init__(self, options: Mapping[str, str]) -> None:
        self.options = dict(options)
        self.lines: list[bytes] = []
        self.failures = int(options.get("failures", "0"))
        self.closed = 0
        self.may_write = threading.Event()
        self.may_write.set()
        self.is_asked = threading.Event()
        type(self).made = self

    def write(self, lines: Sequence[bytes]) -> None:
        self.is_asked.set()
        assert self.may_write.wait(_WAIT_S)
        if self.failures:
            self.failures -= 1
            raise RuntimeError("not now")
        self.lines += lines

    def close(self) -> None:
        self.closed += 1


def no_sink(_options: Mapping[str, str]) -> object:
    return object()


def read(folder: Path, **usage: Any) -> Settings:
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump({"catalog": {"files": ["catalog.yaml"]}, "usage": usage}))
    return read_settings(file, {})


def open_log(folder: Path, **usage: Any) -> UsageLog:
    settings = read(folder, **usage)
    check_usage(settings)
    return open_usage_log(settings, FakeClock(), 0)


def attempts() -> Iterator[None]:
    end_s, pause = time.monotonic() + _WAIT_S, threading.Event()
    while time.monotonic() < end_s:
        yield
        pause.wait(0.01)


def read_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_every_sink_gets_every_request(tmp_path: Path) -> None:
    redis = find_shared("redis")
    log = open_log(
        tmp_path,
        file={"path": "usage.jsonl"},
        redis={"url": redis.url, "prefix": f"{tmp_path.name}:", "max_length": 1000},
        plugin={"factory": "tests.usage.test_log:Kept", "options": {"url": "x"}},
    )
    for _ in range(40):
        log.observe_usage(RECORD)
    log.close(_WAIT_S)
    assert [(sink.name, sink.written, sink.dropped) for sink in log.sinks] == [
        ("file", 40, 0),
        ("redis", 40, 0),
        ("plugin", 40, 0),
    ]
    assert (Kept.made.options, Kept.made.closed) == ({"url": "x"}, 1)
    lines = (tmp_path / "usage.jsonl").read_bytes().splitlines()
    assert lines == Kept.made.lines
    entries = redis.servers[0].ask("XRANGE", f"{tmp_path.name}:usage", "-", "+")
    assert [fields[b"record"] for _, fields in entries] == lines
    assert json.loads(lines[0])["application"] == "mobile"


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_request_is_an_event_at_a_collector(
    tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    run = run_grpc_collector if protocol == "grpc" else run_http_collector
    with run() as collector:
        file = tmp_path / "extauthz.yaml"
        otlp = {"endpoint": collector.url, "protocol": protocol}
        tree = {"catalog": {"files": ["c"]}, "telemetry": {"otlp": otlp}, "usage": {"otlp": True}}
        file.write_text(yaml.safe_dump(tree))
        settings = read_settings(file, {})
        check_usage(settings)
        log = open_usage_log(settings, FakeClock(), 0)
        log.observe_usage(RECORD)
        log.observe_usage(UsageRecord(source=UsageSource.MIXER_TRACESPAN, trace_id="no number"))
        log.close(_WAIT_S)
    whole, bare = collector.logs()
    assert (whole.record.event_name, whole.body) == ("extauthz.usage", "rate_limited")
    assert whole.attributes["extauthz.application"] == "mobile"
    assert whole.attributes["extauthz.status"] == 429
    assert whole.record.time_unix_nano == RECORD.at_us * 1000
    assert "a-user" not in str(whole.record) and "a-secret-path" not in str(whole.record)
    assert (bare.body, bare.record.trace_id) == ("unknown", b"")
    assert [(sink.written, sink.dropped) for sink in log.sinks] == [(2, 0)]


def test_no_sink_is_no_error(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.observe_usage(RECORD)
    log.close()
    assert log.sinks == ()


def test_a_sink_that_raises_gets_the_same_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = {"factory": "tests.usage.test_log:Kept", "options": {"failures": "1"}}
    with caplog.at_level(logging.WARNING):
        log = open_log(tmp_path, plugin=plugin)
        log.observe_usage(RECORD)
        for _ in attempts():
            if log.sinks[0].written:
                break
        log.close(_WAIT_S)
    assert len(Kept.made.lines) == 1
    assert "requests wait for tests.usage.test_log:Kept: RuntimeError('not now')" in caplog.text


def test_a_sink_that_hangs_holds_up_neither_the_others_nor_the_stop(tmp_path: Path) -> None:
    log = open_log(
        tmp_path,
        file={"path": "usage.jsonl"},
        plugin={"factory": "tests.usage.test_log:Kept"},
    )
    Kept.made.may_write.clear()
    log.observe_usage(RECORD)
    assert Kept.made.is_asked.wait(_WAIT_S)
    for _ in attempts():
        if log.sinks[0].written == 1:
            break
    log.close(0.1)
    assert [sink.dropped for sink in log.sinks] == [0, 1]
    Kept.made.may_write.set()


def test_what_a_full_queue_dropped_is_said_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_sinks, "MAX_WAITING", 5)
    file = tmp_path / "usage.jsonl"
    log = open_log(tmp_path, file={"path": "usage.jsonl"})
    file.unlink()
    file.mkdir()  # it cannot be written now
    for _ in range(9):
        log.observe_usage(RECORD)
    file.rmdir()
    for _ in attempts():
        if not log.sinks[0].waiting:
            break
    log.observe_usage(RECORD)
    log.close(_WAIT_S)
    lines = read_lines(file)
    assert sum(line.get("lost", 0) for line in lines) == 4
    assert sum("source" in line for line in lines) == 6
    assert [line.get("lost") for line in lines[-2:]] == [4, None]
    assert log.sinks[0].dropped == 4


def test_the_start_after_a_crash_says_what_is_missing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    marks_file = tmp_path / ".usage.jsonl.marks"
    marks = Marks(marks_file)
    for _ in range(3):
        marks.accept()
    marks.write(1)
    crashed = marks_file.read_bytes()
    marks.close()
    marks_file.write_bytes(crashed)
    with caplog.at_level(logging.ERROR):
        log = open_log(tmp_path, file={"path": "usage.jsonl"})
    log.observe_usage(RECORD)
    log.close(_WAIT_S)
    assert log.lost == 2
    assert "up to 2 lines are missing" in caplog.text
    assert [line.get("lost") for line in read_lines(tmp_path / "usage.jsonl")] == [2, None]
    again = open_log(tmp_path, file={"path": "usage.jsonl"})
    assert again.lost == 0
    again.close()


@pytest.mark.parametrize(
    ("usage", "message"),
    [
        ({"file": {"path": "missing/usage.jsonl"}}, "cannot be written"),
        ({"file": {"path": "."}}, "Is a directory"),
        ({"redis": {}}, "names no url"),
        ({"redis": {"url": "redis://r", "password_file": "missing"}}, "missing"),
        ({"plugin": {"factory": "no.such.module:open"}}, "cannot be imported"),
        ({"plugin": {"factory": "tests.usage.test_log:missing"}}, "cannot be imported"),
        ({"hash_key_file": "missing"}, "missing"),
    ],
)
def test_what_cannot_be_written_is_told_before_the_start(
    tmp_path: Path, usage: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_usage(read(tmp_path, **usage))


def test_a_factory_that_gives_no_sink_is_told(tmp_path: Path) -> None:
    plugin = {"factory": "tests.usage.test_log:no_sink"}
    with pytest.raises(ConfigError, match="no method write"):
        open_log(tmp_path, plugin=plugin)
