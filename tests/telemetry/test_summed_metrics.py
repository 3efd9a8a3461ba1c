"""The metrics of several workers look like those of one service."""

from __future__ import annotations

from extauthz.telemetry.summed_metrics import SummedMetrics


def text_of(allowed: int, in_flight: int, loaded: int, up: int) -> bytes:
    return (
        "# HELP extauthz_decisions_total Decisions.\n"
        "# TYPE extauthz_decisions_total counter\n"
        f'extauthz_decisions_total{{api="a \\"b\\"",outcome="allow"}} {allowed}\n'
        "# TYPE extauthz_calls_in_flight gauge\n"
        f"extauthz_calls_in_flight {in_flight}\n"
        "# TYPE extauthz_catalog_loaded gauge\n"
        f"extauthz_catalog_loaded {loaded}\n"
        "# TYPE extauthz_counters_up gauge\n"
        f"extauthz_counters_up {up}\n"
        "# TYPE extauthz_catalog_problems gauge\n"
        f"extauthz_catalog_problems {in_flight}\n"
        "# TYPE took_seconds histogram\n"
        f'took_seconds_bucket{{le="1.0"}} {allowed}\n'
        f'took_seconds_bucket{{le="+Inf"}} {allowed}\n'
        f"took_seconds_count {allowed}\n"
        f"took_seconds_sum {allowed / 2}\n"
    ).encode()


def values_of(metrics: SummedMetrics) -> dict[str, float]:
    lines = metrics.write().decode().splitlines()
    return {
        name: float(value)
        for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")
    }


ALLOWED = 'extauthz_decisions_total{api="a \\"b\\"",outcome="allow"}'


def test_counters_are_added_up_and_gauges_as_they_make_sense() -> None:
    metrics = SummedMetrics()
    metrics.update({1: text_of(3, 1, 200, 1), 2: text_of(4, 2, 100, 0)}, alive=[1, 2])
    assert values_of(metrics) == {
        ALLOWED: 7,
        "extauthz_calls_in_flight": 3,
        "extauthz_catalog_loaded": 100,
        "extauthz_counters_up": 0,
        "extauthz_catalog_problems": 2,
        'took_seconds_bucket{le="1.0"}': 7,
        'took_seconds_bucket{le="+Inf"}': 7,
        "took_seconds_count": 7,
        "took_seconds_sum": 3.5,
    }
    assert "# TYPE extauthz_decisions_total counter" in metrics.write().decode()
    assert "# HELP extauthz_decisions_total Decisions." in metrics.write().decode()


def test_what_an_ended_worker_had_counted_stays() -> None:
    metrics = SummedMetrics()
    metrics.update({1: text_of(3, 1, 200, 1), 2: text_of(4, 2, 100, 0)}, alive=[1, 2])
    metrics.update({1: text_of(5, 1, 200, 1)}, alive=[1])
    metrics.update({1: text_of(6, 1, 200, 1), 3: text_of(1, 0, 300, 1)}, alive=[1, 3])
    values = values_of(metrics)
    assert values[ALLOWED] == 6 + 4 + 1
    assert values["extauthz_calls_in_flight"] == 1
    assert values["extauthz_catalog_loaded"] == 200
    assert values["extauthz_counters_up"] == 1
    # All have ended: what was counted is still there.
    metrics.update({}, alive=[])
    assert values_of(metrics)[ALLOWED] == 11


def test_a_worker_that_does_not_answer_counts_as_it_last_said() -> None:
    metrics = SummedMetrics()
    metrics.update({1: text_of(3, 1, 200, 1), 2: text_of(4, 2, 100, 1)}, alive=[1, 2])
    metrics.update({1: text_of(5, 1, 200, 1)}, alive=[1, 2])
    assert values_of(metrics)[ALLOWED] == 9
