"""What Prometheus reads."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from extauthz.telemetry.metrics import Metrics


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
