"""How long decisions took: as Prometheus reads it, of one process and of several."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from extauthz.model.decision import Allow, Decision, Denial, Deny, Reason
from extauthz.model.identity import ANONYMOUS
from extauthz.model.routing.routes import Route
from extauthz.telemetry.decision_durations import DecisionDurations
from extauthz.telemetry.measures.histogram import BOUNDS_US
from extauthz.telemetry.summed_metrics import SummedMetrics
from tests.builders import a_request, a_resource, an_api

NAME = "extauthz_decision_duration_seconds"
REQUEST = a_request()
ALLOW = Allow(id="1", route=Route(an_api(), a_resource()), identity=ANONYMOUS)
DENY = Deny(id="1", denial=Denial(reason=Reason.RATE_LIMITED))

Labels = tuple[str, str, str]


def read(text: bytes) -> dict[str, dict[tuple[Labels, str], float]]:
    """Samples by what they are, then by door, outcome, reason and bound."""
    found: dict[str, dict[tuple[Labels, str], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        assert (family.name, family.type) == (NAME, "histogram")
        for sample in family.samples:
            kind = sample.name.removeprefix(f"{NAME}_")
            labels = tuple(sample.labels[name] for name in ("door", "outcome", "reason"))
            assert len(labels) == 3
            found.setdefault(kind, {})[labels, sample.labels.get("le", "")] = sample.value
    return found


def test_durations_are_told_by_door_outcome_and_reason() -> None:
    durations = DecisionDurations()
    told: tuple[tuple[str, Decision], ...] = (
        ("envoy", ALLOW),
        ("envoy", DENY),
        ("mixer", DENY),
        ("mixer", replace(ALLOW, shadow=True)),
        ("mixer", replace(DENY, shadow=True)),
    )
    for door, decision in told:
        durations.observe(replace(REQUEST, door=door), decision, 70)
    assert set(read(durations.write())["count"]) == {
        (("envoy", "allow", ""), ""),
        (("envoy", "deny", "rate_limited"), ""),
        (("mixer", "deny", "rate_limited"), ""),
        (("mixer", "would_allow", ""), ""),
        (("mixer", "would_deny", "rate_limited"), ""),
    }


@pytest.mark.parametrize(
    ("duration_us", "bound"),
    [
        (0, "5e-05"),
        (50, "5e-05"),
        (51, "0.0001"),
        (1_000, "0.001"),
        (4_999_999, "5"),
        (6_000_000, "+Inf"),
    ],
)
def test_a_duration_falls_into_the_bucket_whose_bound_it_does_not_exceed(
    duration_us: int, bound: str
) -> None:
    durations = DecisionDurations()
    durations.observe(REQUEST, ALLOW, duration_us)
    buckets = read(durations.write())["bucket"]
    assert next(le for (_, le), count in buckets.items() if count == 1) == bound


@given(st.lists(st.integers(0, 2 * BOUNDS_US[-1]), min_size=1))
def test_every_bucket_holds_all_durations_up_to_its_bound(durations_us: list[int]) -> None:
    durations = DecisionDurations()
    for duration_us in durations_us:
        durations.observe(REQUEST, ALLOW, duration_us)
    found = read(durations.write())
    for (_, le), count in found["bucket"].items():
        assert count == sum(us / 1e6 <= float(le) for us in durations_us)
    assert set(found["count"].values()) == {len(durations_us)}
    assert sum(found["sum"].values()) == pytest.approx(sum(durations_us) / 1e6)


def test_workers_durations_are_added_up_and_stay_when_one_has_ended() -> None:
    one, other = DecisionDurations(), DecisionDurations()
    one.observe(REQUEST, ALLOW, 70)
    other.observe(REQUEST, ALLOW, 70)
    other.observe(REQUEST, DENY, 300)
    summed = SummedMetrics()
    summed.update({1: one.write(), 2: other.write()}, alive=[1, 2])
    summed.update({1: one.write()}, alive=[1])
    counts = read(summed.write())["count"]
    assert counts == {
        (("envoy", "allow", ""), ""): 2,
        (("envoy", "deny", "rate_limited"), ""): 1,
    }
