"""What Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from extauthz.model.decision import Allow, Denial, Deny, Reason
from extauthz.model.identity import ANONYMOUS
from extauthz.model.limits import LimitLevel
from extauthz.model.routes import Route
from extauthz.telemetry.metrics import DecisionCounts, Metrics
from tests.builders import a_request, a_resource, an_api

ROUTE = Route(an_api(), a_resource())


def scrape(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels, scope labels aside."""
    return {
        (
            sample.name,
            frozenset(item for item in sample.labels.items() if not item[0].startswith("otel_")),
        ): sample.value
        for family in text_string_to_metric_families(metrics.write().decode())
        for sample in family.samples
    }


def labels(api: str, outcome: str, reason: str, level: str) -> frozenset[tuple[str, str]]:
    return frozenset({("api", api), ("outcome", outcome), ("reason", reason), ("level", level)})


def test_decisions_are_counted_by_api_outcome_reason_and_level() -> None:
    counts, metrics = DecisionCounts(), Metrics()
    metrics.count_decisions(counts)
    request = a_request()
    limited = Denial(reason=Reason.RATE_LIMITED, level=LimitLevel.BURST)
    for _ in range(3):
        counts.observe(request, Allow(id="1", route=ROUTE, identity=ANONYMOUS), 10)
    counts.observe(request, Deny(id="2", denial=limited, route=ROUTE), 10)
    counts.observe(request, Deny(id="3", denial=Denial(reason=Reason.API_NOT_FOUND)), 10)
    counts.observe(request, Allow(id="4", route=ROUTE, identity=ANONYMOUS, shadow=True), 10)
    counts.observe(request, Deny(id="5", denial=limited, route=ROUTE, shadow=True), 10)
    decisions = {
        found: value
        for (name, found), value in scrape(metrics).items()
        if name == "extauthz_decisions_total"
    }
    metrics.close()
    assert decisions == {
        labels("HttpbinAPI", "allow", "", ""): 3,
        labels("HttpbinAPI", "deny", "rate_limited", "burst"): 1,
        labels("", "deny", "api_not_found", ""): 1,
        labels("HttpbinAPI", "would_allow", "", ""): 1,
        labels("HttpbinAPI", "would_deny", "rate_limited", "burst"): 1,
    }


def test_gauges_and_sums_are_read_at_each_scrape() -> None:
    metrics, value = Metrics(), [1]
    metrics.gauge("extauthz.test.gauge", "A gauge.", lambda: value[0])
    metrics.count("extauthz.test.sum", "A sum.", lambda: value[0] * 10)
    first = scrape(metrics)
    value[0] = 2
    second = scrape(metrics)
    metrics.close()
    assert first["extauthz_test_gauge", frozenset()] == 1
    assert second["extauthz_test_gauge", frozenset()] == 2
    assert second["extauthz_test_sum_total", frozenset()] == 20


def test_two_meters_do_not_share_their_sums() -> None:
    one, other = Metrics(), Metrics()
    one.gauge("extauthz.test.gauge", "A gauge.", lambda: 1)
    assert scrape(other) == {}
    one.close()
    other.close()
