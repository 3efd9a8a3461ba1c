"""Recent decisions, denials, rates and the status, as a running service shows them."""

from __future__ import annotations

import asyncio
import hashlib
import json
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from extauthz.app.admin.processes import ProcessCount
from extauthz.app.admin.questions import DECISIONS
from extauthz.app.admin.recent import (
    EVENTS_AT_ONCE,
    DecisionsAnswer,
    DenialsAnswer,
    RatesAnswer,
    find_news,
    follow_decisions,
)
from extauthz.app.admin.status import StatusAnswer
from extauthz.model.decision import Allow
from extauthz.model.identity import ANONYMOUS
from extauthz.model.routing.routes import Route
from extauthz.serving.workers.control import HostFailed
from extauthz.telemetry.recent.facts import Filter
from extauthz.telemetry.recent.recent_decisions import RecentDecisions
from tests.app.admin.services import Running, running
from tests.builders import API_KEY, a_request, a_resource, an_api

PATIENCE_S = 20
REQUEST = a_request()
ALLOW = Allow(id="a", route=Route(an_api(), a_resource("/ip")), identity=ANONYMOUS)


async def decide_some(it: Running) -> None:
    """An allow, and denials of three kinds; the second of them comes twice."""
    await it.decide("/pets/v1/secret-dog?token=secret-query", authorization="Bearer secret-bearer")
    await it.decide("/pets/v1/secret-dog/few")
    await it.decide("/pets/v1/secret-dog/few")
    await it.decide("/pets/v1/secret-dog/few")
    await it.decide("/pets/v1/secret-dog", key="secret-wrong-key")
    await it.decide("/nothing")


async def test_decisions_are_shown_as_their_records(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        await decide_some(it)
        answer = await it.get("/api/decisions")
        TypeAdapter(DecisionsAnswer).validate_python(answer)
        outcomes = [(one["outcome"], one["reason"]) for one in answer["decisions"]]
        assert outcomes == [
            ("deny", "api_not_found"),
            ("deny", "invalid_credentials"),
            ("deny", "rate_limited"),
            ("deny", "rate_limited"),
            ("allow", ""),
            ("allow", ""),
        ]
        newest = (await it.get("/api/decisions?limit=1"))["decisions"]
        assert newest == answer["decisions"][:1]
        limited = await it.get("/api/decisions?reason=rate_limited&application=mobile&api=Pets")
        assert limited["decisions"] == answer["decisions"][2:4]


async def test_no_answer_holds_what_a_client_sent(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        await decide_some(it)
        shown = ""
        for path in ("decisions", "denials", "rates", "status", "openapi.json"):
            shown += json.dumps(await it.get(f"/api/{path}"))
    for secret in (API_KEY, "secret-", "alice"):
        assert secret not in shown


async def test_denials_are_grouped_by_who_and_why(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        began = datetime.now(UTC)
        await decide_some(it)
        answer = await it.get("/api/denials")
        TypeAdapter(DenialsAnswer).validate_python(answer)
        first = answer["groups"][0]
        assert datetime.fromisoformat(first.pop("first")) >= began - timedelta(seconds=1)
        assert datetime.fromisoformat(first.pop("last")) <= datetime.now(UTC)
        assert first.pop("example")["reason"] == "rate_limited"
        assert first == {
            "outcome": "deny",
            "reason": "rate_limited",
            "level": "resource",
            "rule": "One",
            "api": "Pets",
            "version": "v1",
            "application": "mobile",
            "consumer": "",
            "folded": False,
            "count": 2,
        }
        others = {(one["reason"], one["application"], one["count"]) for one in answer["groups"][1:]}
        assert others == {("invalid_credentials", "", 1), ("api_not_found", "", 1)}
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat().replace("+", "%2B")
        assert (await it.get(f"/api/denials?since={later}"))["groups"] == []
        earlier = began.isoformat().replace("+", "%2B")
        assert len((await it.get(f"/api/denials?since={earlier}&limit=2"))["groups"]) == 2


async def test_rates_are_those_of_steps_that_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(tmp_path) as it:
        await decide_some(it)
        now_s = datetime.now(UTC).timestamp()
        monkeypatch.setattr("extauthz.app.admin.recent.time.time", lambda: now_s + 10)
        answer = await it.get("/api/rates")
    TypeAdapter(RatesAnswer).validate_python(answer)
    sums = {(one["outcome"], one["reason"]): sum(one["counts"]) for one in answer["series"]}
    assert sums == {
        ("allow", ""): 2,
        ("deny", "rate_limited"): 2,
        ("deny", "invalid_credentials"): 1,
        ("deny", "api_not_found"): 1,
    }
    assert {len(one["counts"]) for one in answer["series"]} == {answer["points"]}
    end_s = (
        datetime.fromisoformat(answer["start"]).timestamp() + answer["points"] * answer["step_s"]
    )
    assert now_s + 5 <= end_s <= now_s + 10


async def test_the_status_says_what_runs_with_which_catalog(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        answer = await it.get("/api/status")
        TypeAdapter(StatusAnswer).validate_python(answer)
        assert answer["workers"] == {"serving": 1, "wanted": 1, "restarts": 0}
        assert answer["profile"] == "standard"
        catalog = answer["catalog"]
        assert (catalog["apis"], catalog["applications"], catalog["subscriptions"]) == (1, 1, 1)
        assert catalog["problems"] == []
        assert answer["ready"] == await it.get("/readyz")
        states = {one["name"]: one["state"] for one in answer["dependencies"]}
        assert states["jwks"] == "unused"
        (tmp_path / "catalog.yaml").write_text("apis: 7\n")
        it.service.words["reload"]()
        async with asyncio.timeout(PATIENCE_S):
            while not (problems := (await it.get("/api/status"))["catalog"]["problems"]):
                pass
        assert "apis" in problems[0]


async def test_decisions_come_live(tmp_path: Path) -> None:
    async with running(tmp_path) as it:
        await it.decide("/pets/v1/before")
        headers = {"accept": "text/event-stream"}
        stream = it.http.stream("GET", "/api/decisions?outcome=deny", headers=headers)
        async with asyncio.timeout(PATIENCE_S), stream as answer:
            assert answer.headers["content-type"] == "text/event-stream"
            lines = answer.aiter_lines()
            assert await anext(lines) == "retry: 2000"
            events: list[list[str]] = []
            await decide_until_seen(it, lines, events)
    (event, event_id, text) = events[0]
    record = json.loads(text.removeprefix("data: "))
    assert (event, event_id) == ("event: decision", f"id: {record['decision']}")
    assert (record["outcome"], record["reason"]) == ("deny", "api_not_found")


async def decide_until_seen(it: Running, lines: Any, events: list[list[str]]) -> None:
    """Decides again and again until an event has come: a stream begins at its first look."""
    await anext(lines)

    async def decide() -> None:
        while True:
            await it.decide("/nothing")
            await it.decide("/pets/v1/dog")
            await asyncio.get_running_loop().run_in_executor(None, lambda: None)

    deciding = asyncio.create_task(decide())
    try:
        while not events:
            event = await anext(lines)
            if event == "event: decision":
                events.append([event, await anext(lines), await anext(lines)])
    finally:
        deciding.cancel()


class Told:
    """`Processes` whose answers a test has written; the stream ends with them."""

    def __init__(self, *answers: dict[int, Any] | None) -> None:
        self._answers = list(answers)
        self.asked: list[Any] = []

    async def ask(self, question: str, of: object = None) -> dict[int, Any]:
        assert question == DECISIONS
        self.asked.append(of)
        if not self._answers:
            raise asyncio.CancelledError
        answer = self._answers.pop(0)
        if answer is None:
            raise HostFailed("no worker answers")
        return answer

    async def ask_one(self, question: str, of: object = None) -> Any:
        raise AssertionError(question)

    def count(self) -> ProcessCount:
        raise AssertionError


def tell(matched: int, following: int, *entries: tuple[float, int, str]) -> dict[str, Any]:
    written = [[at_s, number, name, json.dumps({"d": name})] for at_s, number, name in entries]
    return {"entries": written, "next": following, "matched": matched}


async def test_a_stream_merges_workers_and_says_what_it_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("extauthz.app.admin.recent.POLL_S", 0)
    processes = Told(
        {1: tell(5, 11, (1.0, 10, "before")), 2: tell(0, 1)},
        # What had been there before is not told again; of both, the oldest comes first.
        {1: tell(7, 13, (3.0, 12, "b"), (1.0, 10, "before")), 2: tell(1, 2, (2.0, 1, "a"))},
        None,
        # Worker 2 has ended, and 3 is new.
        {1: tell(7, 13, (3.0, 12, "b")), 3: tell(4, 2, (4.0, 1, "c"))},
        {1: tell(7, 13), 3: tell(4, 2)},
    )
    pieces = follow_decisions(processes, Filter(outcome="deny"))
    sent = b""
    with suppress(asyncio.CancelledError):
        async for piece in pieces:
            sent += piece
    events = [part.decode().split("\n") for part in sent.strip().split(b"\n\n")][1:]
    assert events == [
        ["event: decision", "id: a", 'data: {"d": "a"}'],
        ["event: decision", "id: b", 'data: {"d": "b"}'],
        ["event: skipped", 'data: {"count": 1}'],
        ["event: decision", "id: c", 'data: {"d": "c"}'],
        ["event: skipped", 'data: {"count": 3}'],
    ]
    assert all(of["watch"] and of["filter"]["outcome"] == "deny" for of in processes.asked)


@pytest.mark.parametrize(
    ("decisions", "user"),
    [
        ("decisions.jsonl", hashlib.sha256(b"alice").hexdigest()[:16]),
        ({"file": "decisions.jsonl", "user": "full"}, "alice"),
        ({"file": "decisions.jsonl", "user": "off"}, ""),
    ],
)
async def test_records_are_masked_as_in_the_log_of_decisions(
    decisions: object, user: str, tmp_path: Path
) -> None:
    async with running(tmp_path, {"log": {"decisions": decisions}}) as it:
        await it.decide("/pets/v1/dog")
        (record,) = (await it.get("/api/decisions"))["decisions"]
    (line,) = (tmp_path / "decisions.jsonl").read_text().splitlines()
    assert (record["user"], json.loads(line)["user"]) == (user, user)
    assert record.keys() == json.loads(line).keys()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6))
def test_what_a_stream_shows_and_leaves_out_is_all_that_was_decided(
    rounds: list[tuple[int, int]],
) -> None:
    """Two processes decide so often between looks; records of a few are kept."""
    wanted, clock = Filter(), [1_700_000_000.0]
    remembered = [RecentDecisions(now=lambda: clock[0]) for _ in range(2)]

    def look() -> dict[int, dict[str, Any]]:
        answers = {}
        for number, recent in enumerate(remembered):
            recent.watch(wanted)
            page = recent.find(wanted, limit=EVENTS_AT_ONCE, after_s=clock[0] - 1)
            entries = [(it.at_s, it.number, it.noted.decision, "{}") for it in page.entries]
            answers[number] = {"entries": entries, "next": page.next, "matched": page.matched}
        return answers

    _, places, _ = find_news(look(), None)
    shown: list[str] = []
    left_out = 0
    for counts in rounds:
        for recent, count in zip(remembered, counts, strict=True):
            for _ in range(count):
                recent.observe(REQUEST, ALLOW, 40)
        news, places, skipped = find_news(look(), places)
        shown += [it.decision_id for it in news]
        left_out += skipped
        assert skipped >= 0 and len(news) <= EVENTS_AT_ONCE
        clock[0] += 0.25
    assert len(shown) + left_out == sum(map(sum, rounds))
