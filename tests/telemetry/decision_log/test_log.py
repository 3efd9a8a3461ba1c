"""A line of JSON for each decision."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from extauthz.app.service import GRPC, METRICS, Service, open_service
from extauthz.errors import ConfigError
from extauthz.model.decision import Allow, Denial, Deny, Reason
from extauthz.model.identity import ANONYMOUS
from extauthz.model.limits import LimitLevel
from extauthz.model.routing.routes import Route
from extauthz.serving.methods import Call, UnaryMethod
from extauthz.settings.reading import read_settings
from extauthz.telemetry.decision_log.log import DecisionLog
from extauthz.telemetry.decision_log.masking import MAX_CLIENT_TEXT
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


def wait_until(happened: Callable[[], bool]) -> None:
    end_s = time.monotonic() + 20
    while not happened():
        assert time.monotonic() < end_s


def read(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_decision_is_a_line(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    log = DecisionLog(file)
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
    assert log.dropped == 0


def test_a_path_is_told_by_its_hash(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    log = DecisionLog(file)
    for path in ("/reset/s3cret", "/reset/s3cret", "/reset/other", "/\udcff"):
        log.observe(a_request(path=path), ALLOW, 1)
    log.close()
    one, same, other, _ = (line["path_hash"] for line in read(file))
    assert one == same != other
    assert "s3cret" not in file.read_text()


def test_an_id_that_a_client_chose_is_cut_and_stays_on_its_line(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    log = DecisionLog(file)
    log.observe(a_request(headers={"x-request-id": '"}\n' + "x" * 9999}), ALLOW, 1)
    log.close()
    (line,) = read(file)
    assert line["request"] == ('"}\n' + "x" * 9999)[:MAX_CLIENT_TEXT]


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    file, rotated = tmp_path / "decisions.jsonl", tmp_path / "decisions.jsonl.1"
    log = DecisionLog(file)
    log.observe(a_request(), ALLOW, 1)
    wait_until(lambda: log._written == 1)
    file.rename(rotated)
    log.observe(a_request(), LIMITED, 1)
    log.close()
    assert [line["decision"] for line in (*read(rotated), *read(file))] == ["d-1", "d-2"]
    assert [line["decision"] for line in read(file)] == ["d-2"]


def test_lines_that_the_queue_has_no_room_for_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extauthz.telemetry.decision_log.log.MAX_WAITING", 2)
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log = DecisionLog(fifo)
    # A reader that does not read: the writer is held up once the pipe is full.
    for _ in range(2000):
        log.observe(a_request(), ALLOW, 1)
    assert log.dropped > 0
    os.close(reader)  # the writer fails, and ends
    log.close()


def test_a_disk_that_hangs_holds_up_a_stop_for_a_limited_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log = DecisionLog(fifo)
    for _ in range(2000):
        log.observe(a_request(), ALLOW, 1)
    log.close(within_s=0.01)
    dropped = log.dropped
    assert [record.getMessage() for record in caplog.records] == [
        f"{dropped} decisions could not be written to {fifo}: it takes too long"
    ]
    # All that was not dropped is there; and then the one that the disk had in its hands.
    os.set_blocking(reader, True)
    with os.fdopen(reader, encoding="utf-8") as told:
        lines = told.readlines()
    assert 0 < len(lines) == 2000 - dropped + 1
    assert all(json.loads(line)["decision"] == "d-1" for line in lines)
    log._thread.join()


def test_a_folder_that_is_gone_costs_lines_until_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, moved = tmp_path / "logs", tmp_path / "moved"
    folder.mkdir()
    log = DecisionLog(folder / "decisions.jsonl")
    folder.rename(moved)
    with caplog.at_level(logging.ERROR):
        log.observe(a_request(), ALLOW, 1)
        log.observe(a_request(), ALLOW, 1)
        wait_until(lambda: log.dropped == 2)
    folder.mkdir()
    log.observe(a_request(), LIMITED, 1)
    log.close()
    assert [line["decision"] for line in read(folder / "decisions.jsonl")] == ["d-2"]
    assert log.dropped == 2
    assert len(caplog.records) == 1


def test_a_line_that_was_torn_spoils_no_other(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    log = DecisionLog(file)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))
    try:
        log.observe(a_request(), ALLOW, 1)
        wait_until(lambda: log.dropped == 1)
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
    log = DecisionLog(Path("/dev/full"))
    with caplog.at_level(logging.ERROR):
        log.observe(a_request(), ALLOW, 1)
        log.observe(a_request(), ALLOW, 1)
        log.close()
    assert log.dropped == 2
    assert [record.getMessage() for record in caplog.records] == [
        "a decision could not be written to /dev/full"
    ]


@pytest.mark.parametrize(
    ("log", "shown"),
    [({}, None), ({"decisions": "/dev/null"}, "0.0"), ({"decisions": "/dev/full"}, "1.0")],
)
async def test_lines_that_are_lost_show_in_metrics(
    tmp_path: Path, log: dict[str, str], shown: str | None
) -> None:
    file = tmp_path / "extauthz.yaml"
    file.write_text(yaml.safe_dump({"catalog": {"files": ["catalog.yaml"]}, "log": log}))
    (tmp_path / "catalog.yaml").write_text("tiers: {Gold: {}}\n")
    async with open_service(read_settings(file, {})) as service:
        method = service.doors[GRPC].table.find("/envoy.service.auth.v3.Authorization/Check")
        assert isinstance(method, UnaryMethod)
        await service.doors[GRPC].answer_unary(method, a_check(path="/any"), Call())
        end_s = time.monotonic() + 20
        while (found := await find_lost(service)) != shown:
            assert time.monotonic() < end_s, found


async def find_lost(service: Service) -> str | None:
    text = (await service.questions[METRICS](None)).decode()
    found = re.search(r"^extauthz_decision_log_dropped_total (\S+)", text, re.MULTILINE)
    return None if found is None else found[1]


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing/decisions\.jsonl: cannot be written"):
        DecisionLog(tmp_path / "missing" / "decisions.jsonl")
