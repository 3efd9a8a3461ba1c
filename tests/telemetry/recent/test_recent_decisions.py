"""What is remembered of recent decisions, and that it stays bounded."""

from __future__ import annotations

from typing import Any

import pytest

from extauthz.model.applications import Application
from extauthz.model.decision import Allow, Decision, Denial, Deny, Reason
from extauthz.model.identity import ANONYMOUS, Identity, SecurityScheme
from extauthz.model.limits import LimitLevel
from extauthz.model.routing.routes import Route
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.recent.denial_groups import IDLE_S, DenialGroups
from extauthz.telemetry.recent.facts import Filter, read_facts
from extauthz.telemetry.recent.rates import STEP_S, STEPS, DecisionRates
from extauthz.telemetry.recent.recent_decisions import (
    MAX_RECORDS,
    MAX_WATCHES,
    RECORDS_A_SECOND,
    WATCH_S,
    WATCHED_A_SECOND,
    RecentDecisions,
)
from tests.builders import a_request, a_resource, an_api

START_S = 1_700_000_000.0
ROUTE = Route(an_api(), a_resource("/ip"))
REQUEST = a_request()
ANYTHING = Filter()


def an_identity(application: str) -> Identity:
    return Identity(
        scheme=SecurityScheme.API_KEY,
        application=Application(name=application),
        consumer_key=f"key-of-{application}",
    )


def an_allow(number: int = 0, application: str = "mobile") -> Allow:
    return Allow(id=f"a-{number}", route=ROUTE, identity=an_identity(application))


def a_deny(number: int = 0, application: str = "mobile", **denial: Any) -> Deny:
    why = Denial(**{"reason": Reason.RATE_LIMITED, **denial})
    return Deny(id=f"d-{number}", denial=why, route=ROUTE, identity=an_identity(application))


class Stage:
    """A `RecentDecisions` with a clock that a test moves."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.recent = RecentDecisions(now=lambda: self.now_s)

    @property
    def kept(self) -> int:
        """How many were kept, from the beginning."""
        return self.recent.find(ANYTHING, limit=1).next - 1

    def decide(self, *decisions: Decision) -> None:
        for decision in decisions:
            self.recent.observe(REQUEST, decision, 40)

    def ids(self, wanted: Filter = ANYTHING, limit: int = MAX_RECORDS) -> list[str]:
        page = self.recent.find(wanted, limit=limit)
        return [entry.noted.decision for entry in page.entries]


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_every_record_is_kept_while_there_are_few(stage: Stage) -> None:
    stage.decide(an_allow(1), a_deny(2), an_allow(3))
    stage.now_s += 1
    stage.decide(a_deny(4))
    assert stage.ids() == ["d-4", "a-3", "d-2", "a-1"]
    assert stage.ids(limit=2) == ["d-4", "a-3"]
    page = stage.recent.find(Filter(), limit=1)
    assert page.complete_since_s == START_S


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"outcome": "allow"}, ["a-1"]),
        ({"outcome": "deny"}, ["d-3", "d-2"]),
        ({"reason": "blocked"}, ["d-3"]),
        ({"application": "web"}, ["d-3"]),
        ({"application": "mobile", "outcome": "deny"}, ["d-2"]),
        ({"api": ROUTE.api.name, "version": ROUTE.api.version}, ["d-3", "d-2", "a-1"]),
        ({"api": "other"}, []),
        ({"consumer": Masks().hash_text("key-of-web")}, ["d-3"]),
        ({"consumer": "key-of-web"}, []),
        ({"door": "mixer"}, []),
        ({"door": "envoy", "reason": "rate_limited"}, ["d-2"]),
    ],
)
def test_records_are_found_by_their_facts(
    wanted: dict[str, str], expected: list[str], stage: Stage
) -> None:
    stage.decide(an_allow(1), a_deny(2), a_deny(3, "web", reason=Reason.BLOCKED, rule="r"))
    assert stage.ids(Filter(**wanted)) == expected


def test_in_a_flood_so_many_of_each_kind_are_kept_in_a_second(stage: Stage) -> None:
    for number in range(10 * RECORDS_A_SECOND):
        stage.now_s += 0.0001
        stage.decide(an_allow(number))
    flood_s = stage.now_s
    # Neither kind crowds out the other.
    stage.decide(*(a_deny(number) for number in range(3)))
    assert stage.kept == RECORDS_A_SECOND + 3
    assert len(stage.ids(Filter(outcome="deny"))) == 3
    assert stage.recent.find(Filter(), limit=1).complete_since_s == flood_s
    stage.now_s += 1
    stage.decide(an_allow(0))
    assert stage.kept == RECORDS_A_SECOND + 4


def test_the_oldest_records_go_and_it_is_told_since_when_all_are_there(stage: Stage) -> None:
    for number in range(MAX_RECORDS + 10):
        stage.now_s += 1
        stage.decide(an_allow(number))
    ids = stage.ids()
    assert (len(ids), ids[0], ids[-1]) == (MAX_RECORDS, f"a-{MAX_RECORDS + 9}", "a-10")
    assert stage.recent.find(Filter(), limit=1).complete_since_s == START_S + 10


def test_who_is_watched_is_seen_in_a_flood_of_others(stage: Stage) -> None:
    web = Filter(application="web")
    stage.decide(*(an_allow(number) for number in range(2 * RECORDS_A_SECOND)))
    stage.decide(an_allow(1_000, "web"))
    assert stage.ids(web) == []
    stage.recent.watch(web)
    stage.decide(*(an_allow(number) for number in range(2 * RECORDS_A_SECOND)))
    stage.decide(an_allow(1_001, "web"))
    assert stage.ids(web) == ["a-1001"]
    # What fits and is too much is counted.
    stage.decide(*(an_allow(number, "web") for number in range(2 * WATCHED_A_SECOND)))
    page = stage.recent.find(web, limit=MAX_RECORDS)
    assert (len(page.entries), page.matched) == (WATCHED_A_SECOND, 2 * WATCHED_A_SECOND + 1)


def test_watching_ends_and_is_bounded(stage: Stage) -> None:
    for number in range(2 * MAX_WATCHES):
        stage.recent.watch(Filter(application=f"a{number}"))
    stage.decide(*(an_allow(1, f"a{number}") for number in range(2 * MAX_WATCHES)))
    matched = [
        stage.recent.find(Filter(application=f"a{number}"), limit=1).matched
        for number in range(2 * MAX_WATCHES)
    ]
    assert matched == [0] * MAX_WATCHES + [1] * MAX_WATCHES
    stage.now_s += WATCH_S + 1
    stage.decide(*(an_allow(number) for number in range(RECORDS_A_SECOND)), an_allow(999, "a20"))
    assert "a-999" not in stage.ids()


# Groups of denials


def test_denials_that_are_alike_are_one_group() -> None:
    stage = Stage()
    tier: Any = {"level": LimitLevel.SUBSCRIPTION, "rule": "Gold"}
    stage.decide(a_deny(1, **tier), a_deny(2, "web", **tier), an_allow(3))
    stage.now_s += 5
    stage.decide(a_deny(4, **tier), a_deny(5, reason=Reason.BLOCKED, rule="r"))
    found = {
        (it.facts.application, it.facts.reason): (it.count, it.first_s, it.last_s)
        for it in stage.recent.denials.read()
    }
    now_s = START_S + 5
    assert found == {
        ("mobile", "rate_limited"): (2, START_S, now_s),
        ("web", "rate_limited"): (1, START_S, START_S),
        ("mobile", "blocked"): (1, now_s, now_s),
    }
    assert {it.example and it.example.decision for it in stage.recent.denials.read()} == {
        "d-4", "d-2", "d-5",
    }  # fmt: skip


def test_the_first_of_a_group_is_an_example_even_in_a_flood(stage: Stage) -> None:
    stage.decide(*(a_deny(number) for number in range(3 * RECORDS_A_SECOND)))
    stage.decide(a_deny(1_000, "web"))
    (group,) = [it for it in stage.recent.denials.read() if it.facts.application == "web"]
    assert group.example is not None and group.example.decision == "d-1000"


def test_groups_are_bounded_and_what_has_none_is_counted_together() -> None:
    groups = DenialGroups(max_groups=3)
    for number in range(10):
        groups.add(read_facts(a_deny(number, f"a{number}")), START_S + number)
    groups.add(read_facts(a_deny(0, "b", reason=Reason.BLOCKED)), START_S)
    folded = [it for it in groups.read() if it.is_folded]
    assert [(it.facts.reason, it.facts.application, it.count) for it in folded] == [
        ("rate_limited", "", 7),
        ("blocked", "", 1),
    ]
    assert (folded[0].first_s, folded[0].last_s) == (START_S + 3, START_S + 9)
    # After an hour without a denial a group makes room.
    groups.add(read_facts(a_deny(0, "new")), START_S + IDLE_S + 5)
    names = [it.facts.application for it in groups.read() if not it.is_folded]
    assert names == ["new"]


def test_a_request_without_route_and_caller_has_empty_facts() -> None:
    deny = Deny(id="d", denial=Denial(reason=Reason.API_NOT_FOUND), identity=ANONYMOUS, shadow=True)
    assert read_facts(deny) == ("would_deny", "api_not_found", "", "", "", "", "", "")


# Rates


def test_decisions_are_counted_in_steps() -> None:
    stage = Stage()
    first = int(START_S) // STEP_S
    stage.decide(an_allow(), an_allow(), a_deny())
    stage.now_s += STEP_S
    stage.decide(an_allow())
    stage.now_s += 2 * STEP_S
    stage.decide(a_deny())
    read = stage.recent.rates.read(first + 3)
    assert read[("allow", "")][-4:] == [2, 1, 0, 0]
    assert read[("deny", "rate_limited")][-4:] == [1, 0, 0, 1]
    assert {len(counts) for counts in read.values()} == {STEPS}
    assert stage.recent.rates.read(first)[("allow", "")][-2:] == [0, 2]


def test_steps_that_are_too_old_are_gone() -> None:
    rates = DecisionRates()
    for step in range(3 * STEPS):
        rates.begin(step * STEP_S)
        rates.add("allow", "")
    assert rates.read(3 * STEPS - 1) == {("allow", ""): [1] * STEPS}
    assert rates.read(5 * STEPS) == {}
    # A clock that goes back counts into the last step.
    rates.begin(0)
    rates.add("allow", "")
    assert rates.read(3 * STEPS - 1)[("allow", "")][-2:] == [1, 2]
