"""The log of decisions: which decisions are written, where, and what is lost when a sink fails."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import resource
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extauthz.app.log import open_decision_log
from extauthz.app.service import GRPC, METRICS, Service, open_service
from extauthz.errors import ConfigError
from extauthz.model.decision import Allow, Denial, Deny, Reason
from extauthz.model.identity import ANONYMOUS, Secret
from extauthz.model.limits import LimitLevel
from extauthz.model.routing.routes import Route
from extauthz.serving.methods import Call, UnaryMethod
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings
from extauthz.telemetry.decision_log import sinks
from extauthz.telemetry.decision_log.lines import FileLines, StdoutLines
from extauthz.telemetry.decision_log.log import DecisionLog
from extauthz.telemetry.decision_log.masking import MAX_CLIENT_TEXT, Masks
from extauthz.telemetry.decision_log.record import LoggedDecision, note_decision
from extauthz.telemetry.decision_log.sampling import DecisionSampling
from extauthz.telemetry.decision_log.sinks import (
    AT_ONCE,
    CLOSE_S,
    MADE_AT_ONCE,
    Entry,
    Sink,
    SinkAway,
    SinkThread,
)
from tests.builders import a_request, a_resource, an_api
from tests.envoy.wire import a_check

ROUTE = Route(an_api(), a_resource("/ip"))
ALLOW = Allow(id="d-1", route=ROUTE, identity=ANONYMOUS, tier="Gold")
LIMITED = Deny(
    id="d-2",
    denial=Denial(reason=Reason.RATE_LIMITED, level=LimitLevel.BURST, rule="Gold"),
    route=ROUTE,
    shadow=True,
)


def log_to(*sinks: SinkThread, allow_ratio: float = 1.0, deny_ratio: float = 1.0) -> DecisionLog:
    sampling = DecisionSampling(allow_ratio=allow_ratio, deny_ratio=deny_ratio)
    return DecisionLog(sinks, Masks(), sampling)


def log_to_file(file: Path, **how: Any) -> DecisionLog:
    return log_to(SinkThread("file", FileLines(file), place=str(file), **how))


def dropped(log: DecisionLog) -> list[int]:
    return [sink.dropped for sink in log.sinks]


def wait_until(happened: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end_s


def read(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_decision_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    log = log_to_file(file)
    headers = {"x-request-id": "r-1", "authorization": "Bearer secret"}
    log.observe(a_request(path="/httpbin/1.0.0/ip", headers=headers), ALLOW, 48)
    log.observe(a_request(request_id="r-2", door="mixer"), LIMITED, 7)
    log.close()
    first, second = read(file)
    assert first.pop("time")
    assert first.pop("path_hash") == read(file)[0]["path_hash"]
    assert first == {
        "decision": "d-1",
        "door": "envoy",
        "shadow": False,
        "request": "r-1",
        "method": "GET",
        "outcome": "allow",
        "reason": "",
        "level": "",
        "rule": "",
        "api": "HttpbinAPI",
        "version": "1.0.0",
        "resource": "/ip",
        "application": "",
        "tier": "Gold",
        "duration_us": 48,
        "detail": "",
        "user": "",
        "consumer_key": "",
        "client_address": "",
        "missing_scopes": [],
        "limits": [],
        "trace_id": "",
        "catalog": "",
    }
    assert (second["door"], second["shadow"], second["request"]) == ("mixer", True, "r-2")
    refused = [second[name] for name in ("outcome", "reason", "level", "rule")]
    assert refused == ["deny", "rate_limited", "burst", "Gold"]
    assert "secret" not in file.read_text()
    assert dropped(log) == [0]


def test_a_path_is_told_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    log = log_to_file(file)
    for path in ("/reset/s3cret", "/reset/s3cret", "/reset/other", "/\udcff"):
        log.observe(a_request(path=path), ALLOW, 1)
    log.close()
    one, same, other, _ = (line["path_hash"] for line in read(file))
    assert one == same != other
    assert "s3cret" not in file.read_text()


def test_an_id_that_a_client_chose_is_cut_and_stays_on_its_line(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    log = log_to_file(file)
    log.observe(a_request(headers={"x-request-id": '"}\n' + "x" * 9999}), ALLOW, 1)
    log.close()
    (line,) = read(file)
    assert line["request"] == ('"}\n' + "x" * 9999)[:MAX_CLIENT_TEXT]


# Files


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    file, rotated = tmp_path / "decisions.jsonl", tmp_path / "decisions.jsonl.1"
    log = log_to_file(file)
    log.observe(a_request(), ALLOW, 1)
    wait_until(lambda: file.stat().st_size > 0)
    file.rename(rotated)
    log.observe(a_request(), LIMITED, 1)
    log.close()
    assert [line["decision"] for line in (*read(rotated), *read(file))] == ["d-1", "d-2"]
    assert [line["decision"] for line in read(file)] == ["d-2"]


def test_lines_that_the_queue_has_no_room_for_are_counted(tmp_path: Path) -> None:
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log = log_to_file(fifo, max_waiting=2)
    # A reader that does not read: the writer is held up once the pipe is full.
    for _ in range(2000):
        log.observe(a_request(), ALLOW, 1)
    assert log.sinks[0].dropped > 0
    assert log.sinks[0].waiting <= 2
    os.close(reader)  # the writer fails, and ends
    log.close()


def test_a_disk_that_hangs_holds_up_a_stop_for_a_limited_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log = log_to_file(fifo)
    for _ in range(2000):
        log.observe(a_request(), ALLOW, 1)
    log.close(within_s=0.01)
    (lost,) = dropped(log)
    assert [record.getMessage() for record in caplog.records] == [
        f"{lost} decisions could not be written to {fifo}: it takes too long"
    ]
    # All that was not dropped is there; and then the one that the disk had in its hands.
    os.set_blocking(reader, True)
    with os.fdopen(reader, encoding="utf-8") as told:
        lines = told.readlines()
    assert 0 < len(lines) <= 2000 - lost + 1
    assert all(json.loads(line)["decision"] == "d-1" for line in lines)
    log.sinks[0]._thread.join()


def test_a_folder_that_is_gone_costs_lines_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, moved = tmp_path / "logs", tmp_path / "moved"
    folder.mkdir()
    log = log_to_file(folder / "decisions.jsonl")
    folder.rename(moved)
    with caplog.at_level(logging.ERROR):
        log.observe(a_request(), ALLOW, 1)
        log.observe(a_request(), ALLOW, 1)
        wait_until(lambda: dropped(log) == [2])
    folder.mkdir()
    log.observe(a_request(), LIMITED, 1)
    log.close()
    assert [line["decision"] for line in read(folder / "decisions.jsonl")] == ["d-2"]
    assert dropped(log) == [2]
    assert len(caplog.records) == 1


def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    log = log_to_file(file)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        log.observe(a_request(), ALLOW, 1)
        wait_until(lambda: dropped(log) == [1])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    log.observe(a_request(), LIMITED, 1)
    log.observe(a_request(), ALLOW, 1)
    log.close()
    torn, *whole = file.read_text().splitlines()
    assert len(torn) == 10
    assert [json.loads(line)["decision"] for line in whole] == ["d-2", "d-1"]


def test_a_disk_that_takes_no_more_costs_lines_and_no_decision(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = log_to_file(Path("/dev/full"))
    with caplog.at_level(logging.ERROR):
        log.observe(a_request(), ALLOW, 1)
        log.observe(a_request(), ALLOW, 1)
        log.close()
    assert dropped(log) == [2]
    assert [record.getMessage() for record in caplog.records] == [
        "decisions could not be written to /dev/full"
    ]


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    settings = read_log(tmp_path, decisions="missing/decisions.jsonl")
    with (
        pytest.raises(ConfigError, match=r"missing/decisions\.jsonl: cannot be written"),
        open_decision_log(settings),
    ):
        pass


# Several sinks


class Given:
    """A sink that takes what it is given, once it may."""

    def __init__(self, at_once: int = AT_ONCE) -> None:
        self.at_once = at_once
        self.taken: list[str] = []
        self.calls: list[int] = []
        self.away = 0
        """How many calls are still refused as if the sink were away."""
        self.may = threading.Event()
        self.may.set()
        self.closed = False

    def write(self, entries: Sequence[Entry]) -> None:
        assert self.may.wait(20)
        self.calls.append(len(entries))
        if self.away:
            self.away -= 1
            raise SinkAway("it restarts")
        self.taken += [str(entry.record["decision"]) for entry in entries]

    def close(self) -> None:
        self.closed = True


def run_sink(sink: Sink, name: str = "given", **how: Any) -> SinkThread:
    return SinkThread(name, sink, place=f"the {name} one", **how)


def observe(log: DecisionLog, count: int) -> list[str]:
    """That many decisions; gives their ids."""
    ids = [f"d-{number}" for number in range(count)]
    for id_ in ids:
        log.observe(a_request(), Allow(id=id_, route=ROUTE, identity=ANONYMOUS), 1)
    return ids


def test_a_sink_that_hangs_keeps_nothing_from_another() -> None:
    hanging, good = Given(), Given()
    hanging.may.clear()
    log = log_to(run_sink(hanging, max_waiting=5), run_sink(good))
    ids = observe(log, 50)
    wait_until(lambda: good.taken == ids)
    assert dropped(log) == [45, 0]
    started_s = time.monotonic()
    log.close(within_s=0.05)
    assert time.monotonic() - started_s < 5
    assert dropped(log) == [50, 0]
    assert good.closed
    hanging.may.set()
    log.sinks[0]._thread.join()
    assert hanging.closed


def test_decisions_come_in_their_order_and_a_few_at_a_time() -> None:
    sink = Given()
    log = log_to(run_sink(sink))
    ids = observe(log, 1000)
    log.close()
    assert sink.taken == ids
    assert max(sink.calls) <= AT_ONCE


def test_no_more_than_a_few_records_are_made_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While records are made, no decision is; those of a batch took 0.4 ms together."""
    happened: list[str] = []

    class Pause(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            happened.append("pause")
            return super().wait(timeout)

    def make(entry: Entry) -> None:
        happened.append("record")
        make_record(entry)

    make_record = Entry.make
    monkeypatch.setattr(sinks, "Event", Pause)
    monkeypatch.setattr(Entry, "make", make)
    sink = Given()
    log = log_to(run_sink(sink))
    ids = observe(log, 200)
    wait_until(lambda: sink.taken == ids)
    log.close()
    runs = [len(run) for run in "".join(it[0] for it in happened).split("p")]
    # Sinks of this test ask for each record once more when it is written.
    assert max(runs) <= MADE_AT_ONCE + AT_ONCE
    assert [it for it in runs if 0 < it <= MADE_AT_ONCE]


def test_a_sink_that_is_away_gets_everything_when_it_is_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extauthz.telemetry.decision_log.sinks._FIRST_RETRY_S", 0.001)
    sink = Given()
    sink.away = 3
    log = log_to(run_sink(sink))
    ids = observe(log, 5)
    wait_until(lambda: sink.taken == ids)
    log.close()
    assert dropped(log) == [0]
    (said,) = caplog.records
    assert said.getMessage() == "decisions wait for the given one: it restarts"


def test_a_stop_does_not_wait_for_a_sink_that_is_away() -> None:
    sink = Given()
    sink.away = 10**6
    log = log_to(run_sink(sink))
    observe(log, 5)
    wait_until(lambda: bool(sink.calls))
    started_s = time.monotonic()
    log.close()
    assert time.monotonic() - started_s < CLOSE_S
    assert dropped(log) == [5]
    assert sink.closed


def test_standard_output_that_nobody_reads_keeps_nothing_up() -> None:
    reading, writing = os.pipe()
    log = log_to(run_sink(StdoutLines(writing), max_waiting=10))
    for _ in range(2000):  # more than a pipe holds
        log.observe(a_request(), ALLOW, 1)
    started_s = time.monotonic()
    log.close(within_s=0.05)
    assert time.monotonic() - started_s < 5
    assert log.sinks[0].dropped > 0
    os.close(reading)
    log.sinks[0]._thread.join()
    os.close(writing)


def test_standard_output_gets_a_line_for_each_decision() -> None:
    reading, writing = os.pipe()
    log = log_to(run_sink(StdoutLines(writing)))
    ids = observe(log, 3)
    log.close()
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as told:
        assert [json.loads(line)["decision"] for line in told] == ids


# Sampling


def note(request_id: str = "", decision_id: str = "", trace_id: str = "") -> LoggedDecision:
    headers = {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01"} if trace_id else {}
    request = a_request(request_id=request_id, headers=headers)
    return note_decision(request, Allow(id=decision_id, route=ROUTE, identity=ANONYMOUS), 1)


@pytest.mark.parametrize(
    ("ratios", "written"),
    [
        ({}, ["d-1", "d-2"]),
        ({"allow_ratio": 0.0}, ["d-2"]),
        ({"deny_ratio": 0.0}, ["d-1"]),
        ({"allow_ratio": 0.0, "deny_ratio": 0.0}, []),
    ],
)
def test_denials_and_allowed_requests_have_a_share_each(
    ratios: dict[str, float], written: list[str]
) -> None:
    sink = Given()
    log = log_to(run_sink(sink), **ratios)
    log.observe(a_request(), ALLOW, 1)
    log.observe(a_request(), LIMITED, 1)
    log.close()
    assert sink.taken == written


def test_a_share_is_about_that_share() -> None:
    sampling = DecisionSampling(allow_ratio=0.25)
    taken = sum(sampling.takes(note(f"r-{number}"), 0.25) for number in range(4000))
    assert 850 < taken < 1150


@given(st.text(min_size=1, max_size=50), st.floats(0, 1), st.floats(0, 1))
def test_a_larger_share_takes_what_a_smaller_one_takes(
    request_id: str, one: float, other: float
) -> None:
    sampling, noted = DecisionSampling(key=Secret("k")), note(request_id)
    if sampling.takes(noted, min(one, other)):
        assert sampling.takes(noted, max(one, other))


@given(st.text(max_size=50), st.integers(1, 2**128 - 1))
def test_decisions_about_one_request_are_taken_together(request_id: str, trace: int) -> None:
    sampling, trace_id = DecisionSampling(), f"{trace:032x}"
    one = note(request_id, "d-1", trace_id)
    other = note(request_id, "d-2", trace_id)
    assert sampling.takes(one, 0.5) is sampling.takes(other, 0.5)


def test_without_the_key_nobody_knows_which_ids_are_taken() -> None:
    def taken(key: str | None) -> list[bool]:
        sampling = DecisionSampling(key=None if key is None else Secret(key))
        return [sampling.takes(note(f"r-{number}"), 0.5) for number in range(64)]

    assert taken("one") == taken("one")
    assert taken("one") != taken("other") != taken(None)


# Settings


def read_log(folder: Path, **log: Any) -> Settings:
    (folder / "catalog.yaml").write_text("tiers: {Gold: {}}\n")
    file = folder / "extauthz.yaml"
    file.write_text(yaml.safe_dump({"catalog": {"files": ["catalog.yaml"]}, "log": log}))
    return read_settings(file, {})


def test_a_file_s_name_is_the_short_form_of_the_section(tmp_path: Path) -> None:
    short = read_log(tmp_path, decisions="d.jsonl")
    assert short.log == read_log(tmp_path, decisions={"file": "d.jsonl"}).log
    assert short.log.decisions is not None
    assert short.log.decisions.file == tmp_path / "d.jsonl"


@pytest.mark.parametrize(
    ("decisions", "problem"),
    [
        ({}, r"log\.decisions: names no place to write to"),
        ({"stdout": False}, r"log\.decisions: names no place to write to"),
        (
            {"stdout": True, "client_address": "hash"},
            r"log\.decisions\.client_address: hash needs hash_key_file",
        ),
        ({"redis": {}}, r"log\.decisions\.redis: names no url, and the counters are not in a Red"),
        ({"redis": {"username": "a"}}, r"log\.decisions\.redis: says how a Redis of its own is"),
        ({"redis": {"url": "http://h"}}, r"log\.decisions\.redis: the scheme is not known"),
        ({"stdout": True, "allow_ratio": 1.1}, r"log\.decisions\.allow_ratio: "),
        ({"stdout": True, "deny_ratio": float("nan")}, r"log\.decisions\.deny_ratio: "),
        ({"stdout": True, "user": "some"}, r"log\.decisions\.user: "),
        ({"stdout": True, "consumer_key": "full"}, r"log\.decisions\.consumer_key: "),
        ({"redis": {"url": "redis://h", "key": "a b"}}, r"log\.decisions\.redis\.key: "),
        ([], r"log\.decisions: "),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    tmp_path: Path, decisions: Any, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        read_log(tmp_path, decisions=decisions)


def test_everything_is_masked_as_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a secret\n")
    decisions = {
        "file": "d.jsonl",
        "user": "full",
        "client_address": "hash",
        "hash_key_file": "key",
        "allow_ratio": 0,
    }
    with open_decision_log(read_log(tmp_path, decisions=decisions)) as log:
        assert log is not None
        log.observe(a_request(), ALLOW, 1)
        deny = Deny(id="d-3", denial=Denial(reason=Reason.BLOCKED), client_address="192.0.2.7")
        log.observe(a_request(), deny, 1)
    (line,) = read(tmp_path / "d.jsonl")
    masks = Masks(key=Secret("a secret"))
    assert (line["decision"], line["client_address"]) == ("d-3", masks.hash_text("192.0.2.7"))


# Metrics


@pytest.mark.parametrize(
    ("log", "shown"),
    [({}, None), ({"decisions": "/dev/null"}, "0.0"), ({"decisions": "/dev/full"}, "1.0")],
)
async def test_lines_that_are_lost_show_in_metrics(
    tmp_path: Path, log: dict[str, str], shown: str | None
) -> None:
    async with open_service(read_log(tmp_path, **log)) as service:
        method = service.doors[GRPC].table.find("/envoy.service.auth.v3.Authorization/Check")
        assert isinstance(method, UnaryMethod)
        await service.doors[GRPC].answer_unary(method, a_check(path="/any"), Call())
        end_s = time.monotonic() + 20
        while (found := await find_lost(service)) != shown:
            assert time.monotonic() < end_s, found
            await asyncio.sleep(0)


async def find_lost(service: Service) -> str | None:
    text = (await service.questions[METRICS](None)).decode()
    found = re.search(r"^extauthz_decision_log_dropped_total(?:{\S+})? (\S+)", text, re.MULTILINE)
    return None if found is None else found[1]
