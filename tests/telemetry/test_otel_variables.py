"""The variables OTEL_* that are read here, and what settings have to say beside them."""

from __future__ import annotations

import logging

import pytest

from extauthz.telemetry.otel_variables import (
    find_collector,
    is_off,
    read_propagators,
    read_protocol,
    read_sampling,
)
from extauthz.telemetry.trace_context import (
    Sampling,
    read_b3,
    read_b3_fields,
    read_traceparent,
)

SAMPLER = "OTEL_TRACES_SAMPLER"


@pytest.mark.parametrize(
    ("environment", "ratio", "expected"),
    [
        ({}, None, Sampling(0.01)),
        ({}, 0.5, Sampling(0.5)),
        ({SAMPLER: "always_on"}, 0.5, Sampling(0.5)),
        ({SAMPLER: "always_on"}, None, Sampling(1, follows_parent=False)),
        ({SAMPLER: "always_off"}, None, Sampling(0, follows_parent=False)),
        ({SAMPLER: "traceidratio", f"{SAMPLER}_ARG": "0.25"}, None, Sampling(0.25, follows_parent=False)),
        ({SAMPLER: "parentbased_always_on"}, None, Sampling(1)),
        ({SAMPLER: "parentbased_always_off"}, None, Sampling(0)),
        ({SAMPLER: "parentbased_traceidratio", f"{SAMPLER}_ARG": "0.25"}, None, Sampling(0.25)),
        ({SAMPLER: "parentbased_traceidratio"}, None, Sampling(1)),
        ({SAMPLER: "parentbased_traceidratio", f"{SAMPLER}_ARG": "2"}, None, Sampling(1)),
        ({SAMPLER: "jaeger_remote"}, None, Sampling(0.01)),
    ],
    ids=str,
)  # fmt: skip
def test_settings_then_the_sampler_then_a_hundredth(
    environment: dict[str, str], ratio: float | None, expected: Sampling
) -> None:
    assert read_sampling(environment, ratio) == expected


@pytest.mark.parametrize(
    ("environment", "off", "asked_by"),
    [
        ({}, False, ""),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, False, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, False, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_TRACES_EXPORTER": "none"}, True, ""),
        ({"OTEL_SDK_DISABLED": "TRUE"}, True, ""),
        ({"OTEL_SDK_DISABLED": "1"}, False, ""),
    ],
    ids=str,
)
def test_variables_ask_for_traces_and_turn_them_off(
    environment: dict[str, str],
    off: bool,  # noqa: FBT001
    asked_by: str,
) -> None:
    assert is_off(environment, "TRACES") is off
    assert find_collector(environment, "TRACES") == asked_by


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "grpc"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "http"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "grpc"),
        (
            {
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc",
            },
            "grpc",
        ),
    ],
    ids=str,
)
def test_the_protocol_of_traces_goes_before_that_of_all(
    environment: dict[str, str], expected: str
) -> None:
    assert read_protocol(environment, "TRACES") == expected


def test_the_last_propagator_has_the_last_word() -> None:
    assert read_propagators({}) == (read_traceparent, read_b3, read_b3_fields)
    assert read_propagators({"OTEL_PROPAGATORS": "b3, tracecontext,baggage"}) == (
        read_traceparent,
        read_b3,
    )
    assert read_propagators({"OTEL_PROPAGATORS": "none"}) == ()


@pytest.mark.parametrize(
    "variable",
    ["OTEL_TRACES_EXPORTER", "OTEL_TRACES_SAMPLER", "OTEL_PROPAGATORS", "OTEL_EXPORTER_OTLP_PROTOCOL"],
)  # fmt: skip
def test_an_unknown_value_is_named(variable: str, caplog: pytest.LogCaptureFixture) -> None:
    environment = {variable: "zipkin\n"}
    with caplog.at_level(logging.WARNING):
        is_off(environment, "TRACES")
        read_sampling(environment, None)
        read_propagators(environment)
        read_protocol(environment, "TRACES")
    (record,) = caplog.records
    assert record.getMessage().startswith(f"{variable}: 'zipkin' is unknown and is ignored")
