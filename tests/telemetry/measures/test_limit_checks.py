"""How full limits were: by level and tier, and at the bound of series."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extauthz.model.decision import Allow, Denial, Deny, Reason
from extauthz.model.identity import ANONYMOUS
from extauthz.model.limits import LimitLevel, LimitStatus, Reading
from extauthz.model.routing.routes import Route
from extauthz.telemetry.measures.limit_checks import LimitCheckCounts
from tests.builders import a_limit, a_request, a_resource, an_api

REQUEST = a_request()
GOLD = (LimitLevel.SUBSCRIPTION, "Gold")


def a_status(
    remaining: int, *, of: int = 10, exceeded: bool = False, tier: tuple[LimitLevel, str] = GOLD
) -> LimitStatus:
    return LimitStatus(*tier, a_limit(of), Reading(exceeded, remaining, 0, 0), enforced=True)


def an_allow(*limits: LimitStatus) -> Allow:
    return Allow(id="1", route=Route(an_api(), a_resource()), identity=ANONYMOUS, limits=limits)


def read(counts: LimitCheckCounts) -> dict[tuple[str, ...], float]:
    """What was counted, by level, tier and state; zeros are left out."""
    (family,) = text_string_to_metric_families(counts.write().decode())
    assert (family.name, family.type) == ("extauthz_limit_checks", "counter")
    return {
        tuple(sample.labels[name] for name in ("level", "tier", "state")): sample.value
        for sample in family.samples
        if sample.value
    }


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (a_status(10), "within"),
        (a_status(3), "within"),
        (a_status(2), "near"),
        (a_status(0), "near"),
        (a_status(0, exceeded=True), "over"),
        # What is left does not suffice for a request that costs more.
        (a_status(5, exceeded=True), "over"),
        (a_status(0, of=1), "near"),
        (a_status(21, of=104), "within"),
        (a_status(20, of=104), "near"),
    ],
)
def test_a_limit_is_near_its_end_when_a_fifth_is_left(status: LimitStatus, state: str) -> None:
    counts = LimitCheckCounts()
    counts.observe(REQUEST, an_allow(status), 50)
    assert read(counts) == {("subscription", "Gold", state): 1}


def test_every_limit_of_a_decision_counts_by_its_level_and_tier() -> None:
    counts = LimitCheckCounts()
    burst = a_status(9, tier=(LimitLevel.BURST, "Gold"))
    custom = a_status(0, exceeded=True, tier=(LimitLevel.CUSTOM, 'by "user"'))
    denied: dict[str, Any] = {"denial": Denial(reason=Reason.RATE_LIMITED), "id": "2"}
    counts.observe(REQUEST, an_allow(a_status(5), burst), 50)
    counts.observe(REQUEST, Deny(**denied, limits=(a_status(5), custom)), 50)
    counts.observe(REQUEST, an_allow(), 50)
    assert read(counts) == {
        ("subscription", "Gold", "within"): 2,
        ("burst", "Gold", "within"): 1,
        ("custom", 'by "user"', "over"): 1,
    }


def test_further_tiers_are_counted_together() -> None:
    counts = LimitCheckCounts(max_tiers=2)
    for name in ("a", "b", "c", "d", "a"):
        counts.observe(REQUEST, an_allow(a_status(5, tier=(LimitLevel.API, name))), 50)
    assert read(counts) == {
        ("api", "a", "within"): 2,
        ("api", "b", "within"): 1,
        ("api", "(folded)", "within"): 2,
    }
