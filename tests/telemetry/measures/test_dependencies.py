"""The calls of dependencies: as Prometheus reads them, and as a state for people."""

from __future__ import annotations

import asyncio
import json

import pytest
from prometheus_client.parser import text_string_to_metric_families

from extauthz.telemetry.measures.dependencies import (
    RECENT_NS,
    CallMeasure,
    CallResult,
    Dependencies,
    DependencyState,
    merge_states,
)


class _LateError(Exception):
    """What a client may raise for an answer that takes too long."""


class _Clock:
    def __init__(self) -> None:
        self.ns = 0

    def __call__(self) -> int:
        return self.ns


def make_calls(measure: CallMeasure, *results: CallResult) -> None:
    for result in results:
        measure.count(result, 0)


OK, ERROR, TIMEOUT = CallResult.OK, CallResult.ERROR, CallResult.TIMEOUT


@pytest.mark.parametrize(
    ("raised", "counted"),
    [
        (None, OK),
        (ValueError(), ERROR),
        (TimeoutError(), TIMEOUT),
        (_LateError(), TIMEOUT),
        (asyncio.CancelledError(), None),
    ],
)
def test_a_call_counts_by_how_it_ended(
    raised: BaseException | None, counted: CallResult | None
) -> None:
    measure = CallMeasure()

    def call() -> None:
        with measure.measure(_LateError):
            if raised is not None:
                raise raised

    if raised is None:
        call()
    else:
        with pytest.raises(type(raised)):
            call()
    assert measure.last is counted
    assert measure.counts == {result: int(result is counted) for result in CallResult}
    assert sum(measure.durations.buckets) == (counted is not None)


def test_an_answer_that_is_of_no_use_is_an_error() -> None:
    measure = CallMeasure()
    with measure.measure() as call:
        call.fail()
    assert measure.last is ERROR


def test_prometheus_reads_calls_by_result_and_their_durations() -> None:
    dependencies = Dependencies()
    count = dependencies.add("redis", "count")
    assert dependencies.add("redis", "count") is count
    dependencies.add("jwks", "fetch")
    make_calls(count, OK, OK, TIMEOUT)
    calls, durations = text_string_to_metric_families(dependencies.write().decode())
    assert (calls.name, calls.type) == ("extauthz_dependency_calls", "counter")
    assert {
        (sample.labels["dependency"], sample.labels["operation"], sample.labels["result"]):
        sample.value
        for sample in calls.samples
    } == {
        ("redis", "count", "ok"): 2,
        ("redis", "count", "error"): 0,
        ("redis", "count", "timeout"): 1,
        ("jwks", "fetch", "ok"): 0,
        ("jwks", "fetch", "error"): 0,
        ("jwks", "fetch", "timeout"): 0,
    }  # fmt: skip
    assert (durations.name, durations.type) == ("extauthz_dependency_duration_seconds", "histogram")
    assert {
        (sample.labels["dependency"], sample.labels["operation"]): sample.value
        for sample in durations.samples
        if sample.name.endswith("_count")
    } == {("redis", "count"): 3, ("jwks", "fetch"): 0}


@pytest.mark.parametrize(
    ("processes", "state", "calls", "failures"),
    [
        ([{"count": ()}], "unused", 0, 0),
        ([{"count": (OK, ERROR, OK)}], "ok", 3, 1),
        ([{"count": (OK, ERROR)}], "failing", 2, 1),
        ([{"count": (OK,), "connect": (OK, TIMEOUT)}], "failing", 3, 1),
        ([{"count": (OK,)}, {"count": (TIMEOUT,)}], "failing", 2, 1),
        ([{"count": (OK,)}, {"count": ()}], "ok", 1, 0),
    ],
)
def test_a_state_is_over_all_operations_and_processes(
    processes: list[dict[str, tuple[CallResult, ...]]], state: str, calls: int, failures: int
) -> None:
    counts = []
    for results in processes:
        dependencies = Dependencies()
        for operation, made in results.items():
            make_calls(dependencies.add("redis", operation), *made)
        # As between processes.
        counts.append(json.loads(json.dumps(dependencies.list_counts())))
    (told,) = merge_states(counts)
    assert (told.name, told.state, told.calls, told.failures) == ("redis", state, calls, failures)
    assert (told.p50_ms is None) is (told.p99_ms is None) is (calls == 0)


def test_a_state_tells_how_long_recent_calls_took_and_not_older_ones() -> None:
    clock = _Clock()
    dependencies = Dependencies(monotonic_ns=clock)
    measure = dependencies.add("redis", "count")

    def take(duration_us: int, times: int) -> None:
        for _ in range(times):
            began_ns = clock.ns
            clock.ns += duration_us * 1000
            measure.count(OK, began_ns)

    def tell() -> DependencyState:
        return merge_states([dependencies.list_counts()])[0]

    take(400_000, 10)
    assert tell().p50_ms == pytest.approx(350)
    clock.ns += RECENT_NS
    take(150, 98)
    assert tell().p50_ms == pytest.approx(0.155, abs=0.01)
    assert tell().p99_ms == pytest.approx(467.6, abs=1)
    clock.ns += RECENT_NS
    take(150, 1)
    assert (tell().p99_ms or 0) < 0.2
    clock.ns += 2 * RECENT_NS
    assert tell().p50_ms is None and tell().calls == 109
