"""What Prometheus reads."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extauthz.telemetry.metrics import Metrics


def scrape(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Every sample by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.write().decode())
        for sample in family.samples
    }


def test_gauges_and_sums_are_read_at_each_scrape() -> None:
    metrics, value = Metrics(), [1]
    metrics.gauge("extauthz.test.gauge", "A gauge.", lambda: value[0])
    metrics.count("extauthz.test.sum", "A sum.", lambda: value[0] * 10)
    first = scrape(metrics)
    value[0] = 2
    second = scrape(metrics)
    assert first["extauthz_test_gauge", frozenset()] == 1
    assert second["extauthz_test_gauge", frozenset()] == 2
    assert second["extauthz_test_sum_total", frozenset()] == 20


def test_two_meters_do_not_share_their_sums() -> None:
    one, other = Metrics(), Metrics()
    one.gauge("extauthz.test.gauge", "A gauge.", lambda: 1)
    assert scrape(other) == {}


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED", "OTEL_METRICS_EXPORTER"])
def test_what_turns_opentelemetry_off_leaves_the_page(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "true" if variable == "OTEL_SDK_DISABLED" else "none")
    metrics = Metrics()
    metrics.gauge("extauthz.test.gauge", "A gauge.", lambda: 7)
    assert scrape(metrics) == {("extauthz_test_gauge", frozenset()): 7}
