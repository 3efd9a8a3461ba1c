"""A line of JSON for each decision."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

import pytest

from extauthz.errors import ConfigError
from extauthz.model.decision import Allow, Denial, Deny, Reason
from extauthz.model.identity import ANONYMOUS
from extauthz.model.limits import LimitLevel
from extauthz.model.routes import Route
from extauthz.telemetry.decision_log import MAX_REQUEST_ID, DecisionLog
from tests.builders import a_request, a_resource, an_api

ROUTE = Route(an_api(), a_resource("/ip"))
ALLOW = Allow(id="d-1", route=ROUTE, identity=ANONYMOUS, tier="Gold")
LIMITED = Deny(
    id="d-2",
    denial=Denial(reason=Reason.RATE_LIMITED, level=LimitLevel.BURST),
    route=ROUTE,
    shadow=True,
)


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
        "api": "HttpbinAPI",
        "version": "1.0.0",
        "resource": "/ip",
        "application": "",
        "tier": "Gold",
        "duration_us": 48,
    }
    assert (second["door"], second["shadow"], second["request"]) == ("mixer", True, "r-2")
    assert (second["outcome"], second["reason"], second["level"]) == (
        "deny",
        "rate_limited",
        "burst",
    )
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
    assert line["request"] == ('"}\n' + "x" * 9999)[:MAX_REQUEST_ID]


def test_a_file_that_was_moved_away_is_made_anew(tmp_path: Path) -> None:
    file, rotated = tmp_path / "decisions.jsonl", tmp_path / "decisions.jsonl.1"
    log = DecisionLog(file)
    log.observe(a_request(), ALLOW, 1)
    log._handler.queue.join()  # type: ignore[attr-defined]  # until it is written
    file.rename(rotated)
    log.observe(a_request(), LIMITED, 1)
    log.close()
    assert [line["decision"] for line in (*read(rotated), *read(file))] == ["d-1", "d-2"]
    assert [line["decision"] for line in read(file)] == ["d-2"]


def test_lines_that_the_queue_has_no_room_for_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extauthz.telemetry.decision_log.MAX_WAITING", 2)
    fifo = tmp_path / "slow"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    log = DecisionLog(fifo)
    # A reader that does not read: the writer is held up once the pipe is full.
    for _ in range(2000):
        log.observe(a_request(), ALLOW, 1)
    assert log.dropped > 0
    os.set_blocking(reader, True)
    os.close(reader)  # the writer fails, and ends
    log.close()


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


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing/decisions\.jsonl: cannot be written"):
        DecisionLog(tmp_path / "missing" / "decisions.jsonl")
