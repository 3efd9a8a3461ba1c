"""Recent decisions, groups of denials and rates: what a process tells of them, and the endpoints.

An answer that is merged from several processes says how many there were, and since when they
remember: what a worker that has ended had seen is gone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Final, NamedTuple

from typing_extensions import TypedDict

from extauthz.app.admin.processes import Processes
from extauthz.app.admin.questions import DECISIONS, DENIALS, RATES, write_time
from extauthz.model.decision import Reason
from extauthz.model.limits import US_PER_S
from extauthz.serving.admin.endpoints import (
    Answer,
    ApiCall,
    Endpoint,
    EventStream,
    WrittenJson,
    number_parameter,
    text_parameter,
    time_parameter,
)
from extauthz.serving.admin.streams import write_event, write_retry
from extauthz.serving.workers.control import HostFailed
from extauthz.telemetry.recent.facts import Facts, Filter
from extauthz.telemetry.recent.rates import STEP_S, STEPS
from extauthz.telemetry.recent.recent_decisions import MAX_RECORDS

DEFAULT_RECORDS: Final = 100
DEFAULT_GROUPS: Final = 100
MAX_GROUPS_SHOWN: Final = 1_000
POLL_S: Final = 0.25
"""How often a live stream looks for news."""
_OVERLAP_S: Final = 1.0
"""How far a look goes back behind the one before; what was sent already is left out."""
EVENTS_AT_ONCE: Final = 5
"""Decisions that a live stream sends after each look; the others are counted as skipped."""
_RETRY_MS: Final = 2_000


class _Remembered(TypedDict):
    processes: int
    """Processes that have answered."""
    since: str
    """Since when all of these remember."""


class DecisionsAnswer(_Remembered):
    """Records of decisions, the newest first."""

    decisions: list[dict[str, Any]]
    complete_since: str
    """Since when the record of every decision is kept; before, and in a flood, some are not."""


class DenialGroupShown(TypedDict):
    """Denials that are alike."""

    outcome: str
    reason: str
    level: str
    rule: str
    api: str
    version: str
    application: str
    consumer: str
    folded: bool
    """Whether it has the denials for which there was no group of their own."""
    count: int
    first: str
    last: str
    example: dict[str, Any]


class DenialsAnswer(_Remembered):
    """Groups of denials, those with the most first."""

    groups: list[DenialGroupShown]


class RateSeries(TypedDict):
    """Decisions in each step."""

    outcome: str
    reason: str
    counts: list[int]


class RatesAnswer(_Remembered):
    """Decisions in each step, by outcome and reason. The last step has ended."""

    step_s: int
    start: str
    points: int
    series: list[RateSeries]


OUTCOMES: Final = ("allow", "deny", "would_allow", "would_deny")
_FILTERS: Final = (
    text_parameter("outcome", "What was decided, as metrics name it.", OUTCOMES),
    text_parameter("reason", "Why it was denied.", tuple(reason.value for reason in Reason)),
    text_parameter("api", "Name of the API."),
    text_parameter("version", "Version of the API."),
    text_parameter("application", "Name of the application."),
    text_parameter("consumer", "Hash of the consumer key, as `consumer_key` of a record."),
    text_parameter("door", "The door it came to.", ("envoy", "mixer", "http")),
)


def list_recent_endpoints(processes: Processes) -> tuple[Endpoint, ...]:
    """The endpoints of what these processes remember."""

    async def show_decisions(call: ApiCall) -> Answer:
        wanted = Filter(**{name: call.query[name] or "" for name in _NAMES})
        if call.wants_events:
            return EventStream(follow_decisions(processes, wanted))
        limit = call.query["limit"]
        answers = (await processes.ask(DECISIONS, _write_question(wanted, limit))).values()
        entries = sorted((entry for it in answers for entry in it["entries"]), reverse=True)
        records = ", ".join(record for *_, record in entries[:limit])
        complete_since_s = max(it["complete_since_s"] for it in answers)
        more = {**_say_remembered(answers), "complete_since": write_time(complete_since_s)}
        return WrittenJson(f'{{"decisions": [{records}], {json.dumps(more)[1:]}')

    async def show_denials(call: ApiCall) -> DenialsAnswer:
        answers = (await processes.ask(DENIALS)).values()
        groups = _merge_groups(answers)
        since_us = call.query["since"]
        if since_us is not None:
            groups = [it for it in groups if it["last_s"] * US_PER_S >= since_us]
        groups.sort(key=lambda it: (-it["count"], -it["last_s"]))
        shown = [_show_group(it) for it in groups[: call.query["limit"]]]
        return {"groups": shown, **_say_remembered(answers)}

    async def show_rates(_: ApiCall) -> RatesAnswer:
        last_step = int(time.time()) // STEP_S - 1
        answers = (await processes.ask(RATES, last_step)).values()
        summed: dict[tuple[str, str], list[int]] = {}
        for outcome, reason, counts in (series for it in answers for series in it["series"]):
            before = summed.get((outcome, reason))
            summed[outcome, reason] = (
                counts
                if before is None
                else [one + two for one, two in zip(before, counts, strict=True)]
            )
        return {
            "step_s": STEP_S,
            "start": write_time((last_step - STEPS + 1) * STEP_S),
            "points": STEPS,
            "series": [
                {"outcome": outcome, "reason": reason, "counts": counts}
                for (outcome, reason), counts in sorted(summed.items())
            ],
            **_say_remembered(answers),
        }

    return (
        Endpoint(
            method="GET",
            path="/api/decisions",
            summary=(
                "Records of recent decisions, the newest first. As server-sent events: each new "
                "decision as it is made (`decision`), and how many were left out (`skipped`)."
            ),
            answers=DecisionsAnswer,
            handle=show_decisions,
            parameters=(
                number_parameter(
                    "limit", "The most records.", at_most=MAX_RECORDS, default=DEFAULT_RECORDS
                ),
                *_FILTERS,
            ),
            has_events=True,
        ),
        Endpoint(
            method="GET",
            path="/api/denials",
            summary="Denials by who was denied and why, and since when; those with the most first.",
            answers=DenialsAnswer,
            handle=show_denials,
            parameters=(
                time_parameter("since", "Groups with a denial at this time, or later."),
                number_parameter(
                    "limit", "The most groups.", at_most=MAX_GROUPS_SHOWN, default=DEFAULT_GROUPS
                ),
            ),
        ),
        Endpoint(
            method="GET",
            path="/api/rates",
            summary="Decisions of the last 15 minutes in steps of 5 s, by outcome and reason.",
            answers=RatesAnswer,
            handle=show_rates,
        ),
    )


_ALIKE: Final = (*Facts._fields, "is_folded")
_NAMES: Final = tuple(parameter.name for parameter in _FILTERS)


def _merge_groups(answers: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The groups of all processes, as `answer_recent` tells them, those that are alike made one."""
    merged: dict[tuple[Any, ...], dict[str, Any]] = {}
    for group in (group for it in answers for group in it["groups"]):
        known = merged.setdefault(tuple(group[name] for name in _ALIKE), group)
        if known is not group:
            known["count"] += group["count"]
            known["first_s"] = min(known["first_s"], group["first_s"])
            if group["last_s"] > known["last_s"]:
                known["last_s"], known["example"] = group["last_s"], group["example"]
    return list(merged.values())


def _show_group(group: Mapping[str, Any]) -> DenialGroupShown:
    return {
        "outcome": group["outcome"],
        "reason": group["reason"],
        "level": group["level"],
        "rule": group["rule"],
        "api": group["api"],
        "version": group["version"],
        "application": group["application"],
        "consumer": group["consumer"],
        "folded": group["is_folded"],
        "count": group["count"],
        "first": write_time(group["first_s"]),
        "last": write_time(group["last_s"]),
        "example": json.loads(group["example"]),
    }


async def follow_decisions(processes: Processes, wanted: Filter) -> AsyncGenerator[bytes, None]:
    """Decisions as server-sent events, from now on; see `EventStream`."""
    yield write_retry(_RETRY_MS)
    places: dict[int, Place] | None = None
    looked_s = time.time()
    while True:
        of = _write_question(wanted, EVENTS_AT_ONCE, after_s=looked_s - _OVERLAP_S, watch=True)
        looked_s = time.time()
        events: list[bytes] = []
        # While no worker serves there is nothing to tell.
        with suppress(HostFailed):
            answers = await processes.ask(DECISIONS, of)
            news, places, skipped = find_news(answers, places)
            events = [write_event("decision", it.record, event_id=it.decision_id) for it in news]
            if skipped > 0:
                events.append(write_event("skipped", json.dumps({"count": skipped})))
        yield b"".join(events)
        await asyncio.sleep(POLL_S)


@dataclass(frozen=True, slots=True)
class Place:
    """How far a stream is with a process: the next record, and what had fitted by then."""

    next: int
    matched: int


class Entry(NamedTuple):
    """A record in an answer. The time is the one that it shows, in nanoseconds."""

    at_ns: int
    number: int
    decision_id: str
    record: str


def find_news(
    answers: Mapping[int, Mapping[str, Any]], places: Mapping[int, Place] | None
) -> tuple[list[Entry], dict[int, Place], int]:
    """What came since `places`: records, the oldest first, the places now, and how many others.

    The first time, there is nothing: a stream begins now. All of a process that began later is news.
    """
    news, fitted = list[Entry](), 0
    for process, answer in answers.items():
        place = Place(1, 0)
        if places is None:
            place = Place(answer["next"], answer["matched"])
        elif process in places:
            place = places[process]
        # A filter that was not watched for a while is counted from the beginning again.
        fitted += answer["matched"] - (place.matched if answer["matched"] >= place.matched else 0)
        news += (it for it in map(Entry._make, answer["entries"]) if it.number >= place.next)
    news.sort()
    now = {process: Place(it["next"], it["matched"]) for process, it in answers.items()}
    # A worker that did not answer this time keeps its place.
    shown = news[-EVENTS_AT_ONCE:]
    return shown, {**(places or {}), **now}, fitted - len(shown)


def _write_question(
    wanted: Filter, limit: int, *, after_s: float = 0.0, watch: bool = False
) -> dict[str, Any]:
    return {"filter": asdict(wanted), "limit": limit, "after_s": after_s, "watch": watch}


def _say_remembered(answers: Collection[Mapping[str, Any]]) -> _Remembered:
    return {
        "processes": len(answers),
        "since": write_time(max(it["since_s"] for it in answers)),
    }
