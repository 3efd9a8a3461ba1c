"""Spans of calls, sent to collectors that take them, and to ones that do not."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import grpc
import httpx2
import pytest
import yaml
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

from extauthz.app.service import GRPC, METRICS, Service, list_file_problems, open_service
from extauthz.app.tracing import open_tracing, trace_method
from extauthz.errors import ConfigError
from extauthz.serving.methods import Call, RpcCode, RpcFailure, UnaryMethod
from extauthz.settings.reading import read_settings
from extauthz.settings.telemetry import TelemetrySettings
from extauthz.settings.tree import ServerSettings, Settings
from extauthz.telemetry.otlp import CLOSE_S
from extauthz.telemetry.trace_context import Sampling, read_traceparent
from extauthz.telemetry.tracing import MAX_TRACED_PER_S, CallTracer
from tests.builders import API_KEY, sha256
from tests.envoy.wire import a_check
from tests.free_ports import find_free_port
from tests.mixer_compat.asking import GivenCaller
from tests.telemetry.collectors import (
    Collector,
    hold_no_collector,
    run_grpc_collector,
    run_hanging_collector,
    run_http_collector,
)

CHECK: Final = "envoy.service.auth.v3.Authorization/Check"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED: Final = ("traceparent", f"00-{TRACE}-{SPAN}-01")
CATALOG: Final[dict[str, Any]] = {
    "apis": [
        {
            "name": "Pets",
            "version": "v1",
            "context": "/pets",
            "security": ["api_key"],
            "resources": [
                {"methods": ["GET"], "path": "/{pet}"},
                {"methods": ["GET"], "path": "/{pet}/few", "tier": "One"},
            ],
        }
    ],
    "applications": [
        {"name": "mobile", "owner": "alice", "api_keys": [{"sha256": sha256(API_KEY).hex()}]}
    ],
    "subscriptions": [{"application": "mobile", "api": "Pets", "version": "v1", "tier": "Gold"}],
    "tiers": {"Gold": {}, "One": {"limits": [{"requests": 1, "per": "1h"}]}},
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    # Collectors are on loopback, whatever proxy this machine has.
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def read(folder: Path, *, listen: Mapping[str, str] | None = None, **telemetry: Any) -> Settings:
    (folder / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))
    file = folder / "extauthz.yaml"
    written = {
        "listen": dict(listen or {}),
        "catalog": {"files": ["catalog.yaml"]},
        "telemetry": telemetry,
    }
    file.write_text(yaml.safe_dump(written))
    return read_settings(file, {})


async def ask(
    service: Service,
    path: str,
    *metadata: tuple[str, str],
    headers: Mapping[str, str] = MappingProxyType({}),
) -> None:
    method = service.doors[GRPC].table.find(f"/{CHECK}")
    assert isinstance(method, UnaryMethod)
    message = a_check(path=path, headers={"x-api-key": API_KEY, **headers})
    await service.doors[GRPC].answer_unary(method, message, Call(caller=GivenCaller(metadata)))


async def read_metrics(service: Service) -> Mapping[str, float]:
    text = (await service.questions[METRICS](None)).decode()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_a_traced_call_is_told_by_a_closed_list(protocol: str, tmp_path: Path) -> None:
    run = run_grpc_collector if protocol == "grpc" else run_http_collector
    with run() as collector:
        settings = read(tmp_path, otlp={"endpoint": collector.url, "protocol": protocol})
        async with open_service(settings) as service:
            await ask(service, "/pets/v1/secret-dog", SAMPLED)
            await ask(service, "/pets/v1/secret-dog", ("traceparent", f"00-{TRACE}-{SPAN}-00"))
            await ask(service, "/pets/v1/secret-dog/few", SAMPLED)
            await ask(service, "/pets/v1/secret-dog/few", SAMPLED)
            await ask(service, "/nothing", SAMPLED)
    spans = collector.spans()
    for received in spans:
        assert (received.span.name, received.span.kind) == (CHECK, Span.SPAN_KIND_SERVER)
        assert received.span.trace_id.hex() == TRACE
        assert received.span.parent_span_id.hex() == SPAN
        assert received.span.status.code == Status.STATUS_CODE_UNSET
        assert received.schema_url == "https://opentelemetry.io/schemas/1.44.0"
    told = [dict(received.attributes) for received in spans]
    assert len({attributes.pop("extauthz.decision") for attributes in told}) == 4
    rpc = {
        "rpc.system.name": "grpc",
        "rpc.method": CHECK,
        "rpc.response.status_code": "OK",
        "extauthz.door": "envoy",
    }
    pets = {**rpc, "extauthz.api": "Pets", "extauthz.api.version": "v1"}
    few = {**pets, "extauthz.resource": "/{pet}/few"}
    limited = {"extauthz.outcome": "deny", "extauthz.reason": "rate_limited"}
    assert told == [
        {**pets, "extauthz.resource": "/{pet}", "extauthz.outcome": "allow"},
        {**few, "extauthz.outcome": "allow"},
        {**few, **limited, "extauthz.level": "resource"},
        {**rpc, "extauthz.outcome": "deny", "extauthz.reason": "api_not_found"},
    ]
    sent = b"".join(received.span.SerializeToString() for received in spans)
    for secret in (API_KEY, "secret-dog", "mobile", "alice", sha256(API_KEY).hex()):
        assert secret.encode() not in sent


async def test_a_question_over_http_has_a_span_of_its_own_kind(tmp_path: Path) -> None:
    address = f"127.0.0.1:{find_free_port()}"
    fields = {
        "x-forwarded-method": "GET",
        "x-forwarded-host": "secret.example",
        "x-forwarded-uri": "/pets/v1/secret-dog",
        "x-forwarded-proto": "http",
        "x-forwarded-for": "192.0.2.7",
        "x-api-key": API_KEY,
        SAMPLED[0]: SAMPLED[1],
    }
    with run_grpc_collector() as collector:
        settings = read(
            tmp_path,
            listen={"http": address},
            otlp={"endpoint": collector.url, "protocol": "grpc"},
            request_context="follow",
        )
        async with open_service(settings), httpx2.AsyncClient(trust_env=False) as client:
            url = f"http://{address}"
            await client.get(f"{url}/forward-auth", headers=fields)
            await client.request("PURGE", f"{url}/envoy/secret", headers=dict([SAMPLED]))
    passed, refused = collector.spans()
    assert passed.span.trace_id.hex() == TRACE
    assert [received.span.name for received in (passed, refused)] == [
        "GET /forward-auth",
        "_OTHER /envoy",
    ]
    told = dict(passed.attributes)
    assert told.pop("extauthz.decision")
    assert told == {
        "http.request.method": "GET",
        "http.route": "/forward-auth",
        "http.response.status_code": 200,
        "extauthz.door": "http",
        "extauthz.api": "Pets",
        "extauthz.api.version": "v1",
        "extauthz.resource": "/{pet}",
        "extauthz.outcome": "allow",
    }
    assert refused.span.status.code == Status.STATUS_CODE_UNSET, "a denial is no error"
    sent = b"".join(received.span.SerializeToString() for received in (passed, refused))
    for secret in (API_KEY, "secret", "192.0.2.7", "PURGE"):
        assert secret.encode() not in sent


LOW_TRACE: Final = f"{'0' * 31}1"
"""A trace id that every ratio takes."""


@pytest.mark.parametrize(
    ("context", "ratio", "told", "trace"),
    [
        ("ignore", 1, f"00-{TRACE}-{SPAN}-01", "its own"),
        ("join", 1, f"00-{TRACE}-{SPAN}-01", TRACE),
        ("join", 1, f"00-{TRACE}-{SPAN}-00", TRACE),
        ("join", 0, f"00-{TRACE}-{SPAN}-01", None),
        ("join", 1e-9, f"00-{LOW_TRACE}-{SPAN}-01", None),
        ("join", 1, "made up", "its own"),
        ("follow", 0, f"00-{TRACE}-{SPAN}-01", TRACE),
        ("follow", 1, f"00-{TRACE}-{SPAN}-00", None),
        ("follow", 1, "made up", "its own"),
    ],
)
async def test_the_context_of_the_checked_request_counts_as_configured(
    context: str, ratio: float, told: str, trace: str | None, tmp_path: Path
) -> None:
    headers = {"traceparent": told, "tracestate": "congo=t61rcWkgMzE"}
    with run_grpc_collector() as collector:
        settings = read(
            tmp_path, otlp={"endpoint": collector.url}, trace_ratio=ratio, request_context=context
        )
        async with open_service(settings) as service:
            await ask(service, "/pets/v1/1", headers=headers)
    spans = [received.span for received in collector.spans()]
    if trace is None:
        assert spans == []
        return
    (span,) = spans
    if trace == "its own":
        assert (span.parent_span_id, span.trace_state) == (b"", "")
        assert span.trace_id.hex() not in told
    else:
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (trace, SPAN)
        assert span.trace_state == "congo=t61rcWkgMzE"


async def test_what_envoy_says_goes_before_what_the_checked_request_says(tmp_path: Path) -> None:
    headers = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    told = (
        (SAMPLED, ("tracestate", "a=1,b=2")),
        (("traceparent", f"00-{TRACE}-{SPAN}-00"),),
        (("b3", "0"),),
    )
    with run_grpc_collector() as collector:
        settings = read(
            tmp_path, otlp={"endpoint": collector.url}, trace_ratio=1, request_context="follow"
        )
        async with open_service(settings) as service:
            for metadata in told:
                await ask(service, "/pets/v1/1", *metadata, headers=headers)
    (received,) = collector.spans()
    assert received.span.trace_id.hex() == TRACE
    assert received.span.trace_state == "a=1,b=2"


async def test_a_call_that_is_shed_has_no_span_and_is_counted(tmp_path: Path) -> None:
    with run_grpc_collector() as collector:
        settings = read(tmp_path, otlp={"endpoint": collector.url}, trace_ratio=1)
        settings = settings.model_copy(update={"server": ServerSettings(max_in_flight=1)})
        async with open_service(settings) as service:
            with service.doors[GRPC].load.calls, pytest.raises(RpcFailure, match="too many calls"):
                await ask(service, "/pets/v1/1", SAMPLED)
            await ask(service, "/pets/v1/1", SAMPLED)
            shown = await read_metrics(service)
    assert len(collector.spans()) == 1
    assert shown["extauthz_calls_shed_total"] == 1


async def test_variables_are_read_where_settings_say_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_http_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=blue")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "gatekeeper")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
        async with open_service(read(tmp_path)) as service:
            await ask(service, "/pets/v1/1")
    (received,) = collector.spans("gatekeeper")
    assert received.span.parent_span_id == b""
    assert collector.headers[0]["x-tenant"] == "blue"


async def test_settings_go_before_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_grpc_collector() as collector, hold_no_collector() as nobody:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", nobody.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        settings = read(
            tmp_path, otlp={"endpoint": collector.url, "protocol": "grpc"}, trace_ratio=1
        )
        async with open_service(settings) as service:
            await ask(service, "/pets/v1/1")
    assert len(collector.spans()) == 1


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_EXPORTER=none"])
async def test_what_turns_traces_off_leaves_metrics(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable.split("="))
    with run_grpc_collector() as collector:
        settings = read(tmp_path, otlp={"endpoint": collector.url}, trace_ratio=1)
        async with open_service(settings) as service:
            await ask(service, "/pets/v1/1", SAMPLED)
            shown = await read_metrics(service)
    assert "extauthz_calls_in_flight" in shown and "extauthz_traces_spans_total" not in shown
    assert collector.spans() == []


async def test_metrics_tell_of_spans_that_were_made_and_sent(tmp_path: Path) -> None:
    with run_grpc_collector() as collector:
        settings = read(tmp_path, otlp={"endpoint": collector.url}, trace_ratio=1)
        async with open_service(settings) as service:
            for _ in range(3):
                await ask(service, "/pets/v1/1")
            await asyncio.to_thread(collector.wait_for, CHECK, 3)
            end_s = time.monotonic() + 20
            while (shown := await read_metrics(service))["extauthz_traces_sent_total"] < 3:
                assert time.monotonic() < end_s, shown
    assert shown["extauthz_traces_spans_total"] == 3
    assert shown["extauthz_traces_skipped_total"] == 0


UNWILLING: dict[str, tuple[str, Callable[[], AbstractContextManager[Collector]]]] = {
    "away, gRPC": ("grpc", hold_no_collector),
    "away, HTTP": ("http", hold_no_collector),
    "hanging, gRPC": ("grpc", run_hanging_collector),
    "hanging, HTTP": ("http", run_hanging_collector),
    "refusing, gRPC": ("grpc", lambda: run_grpc_collector(grpc.StatusCode.RESOURCE_EXHAUSTED)),
    "refusing, HTTP": ("http", lambda: run_http_collector(503)),
}


@pytest.mark.parametrize(("protocol", "run"), UNWILLING.values(), ids=UNWILLING)
async def test_an_unwilling_collector_costs_spans_and_nothing_else(
    protocol: str,
    run: Callable[[], AbstractContextManager[Collector]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "64")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "16")
    with run() as collector:
        settings = read(
            tmp_path, otlp={"endpoint": collector.url, "protocol": protocol}, trace_ratio=1
        )
        async with open_service(settings) as service:
            for _ in range(300):
                await ask(service, "/pets/v1/1")
            shown = await read_metrics(service)
            began_s = time.monotonic()
        took_s = time.monotonic() - began_s
    assert shown["extauthz_traces_spans_total"] == 300
    assert shown["extauthz_traces_sent_total"] == 0
    # Time-outs and pauses of the exporter are 10 s and more.
    assert took_s < CLOSE_S + 3


async def test_a_failed_call_is_an_error_and_tells_no_more_than_its_status() -> None:
    async def fail(_request: bytes, _call: Call) -> bytes:
        raise RpcFailure(RpcCode.UNAVAILABLE, "API_KEY")

    async def break_down(_request: bytes, _call: Call) -> bytes:
        raise ValueError("API_KEY")

    async def wait(_request: bytes, _call: Call) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    async def refuse(_request: bytes, _call: Call) -> bytes:
        raise RpcFailure(RpcCode.UNAUTHENTICATED, "who?")

    with run_grpc_collector() as collector:
        settings = TelemetrySettings.model_validate(
            {"otlp": {"endpoint": collector.url}, "trace_ratio": 1}
        )
        async with open_tracing(settings) as tracing:
            assert tracing is not None
            for handle in (fail, break_down, wait, refuse):
                method = UnaryMethod(
                    path=f"/a.Service/{handle.__name__}", decode=bytes, handle=handle, encode=bytes
                )
                traced = trace_method(method, tracing.tracer)
                task = asyncio.ensure_future(traced.handle(b"", Call()))
                await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
    found = {
        received.span.name.removeprefix("a.Service/"): (
            received.attributes["rpc.response.status_code"],
            received.attributes.get("error.type"),
            received.span.status.code,
        )
        for received in collector.spans()
    }
    error, unset = Status.STATUS_CODE_ERROR, Status.STATUS_CODE_UNSET
    assert found == {
        "fail": ("UNAVAILABLE", "UNAVAILABLE", error),
        "break_down": ("UNAVAILABLE", "UNAVAILABLE", error),
        "wait": ("CANCELLED", None, unset),
        "refuse": ("UNAUTHENTICATED", None, unset),
    }
    assert not any(b"API_KEY" in one.span.SerializeToString() for one in collector.spans())


def test_no_more_calls_are_traced_in_a_second_than_the_bound() -> None:
    second = [7.0]
    tracer = CallTracer(
        TracerProvider(shutdown_on_exit=False),
        Sampling(1),
        (read_traceparent,),
        monotonic_s=lambda: second[0],
    )

    def count_traced(calls: int) -> int:
        spans = [tracer.begin("/a.Service/Do", dict([SAMPLED])) for _ in range(calls)]
        return len([span for span in spans if span is not None])

    assert count_traced(MAX_TRACED_PER_S + 5) == MAX_TRACED_PER_S
    assert tracer.skipped == 5
    second[0] = 8.0
    assert count_traced(3) == 3


async def test_a_failing_sdk_changes_no_answer(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(SpanProcessor):
        def on_start(self, span: object, parent_context: object = None) -> None:
            if began:
                raise ValueError("on start")

        def on_end(self, span: object) -> None:
            raise ValueError("on end")

    async def answer(request: bytes, _call: Call) -> bytes:
        return await tracer.wait("wait", asyncio.sleep(0, request), SpanKind.INTERNAL, {})

    began: list[bool] = []
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Failing())
    tracer = CallTracer(provider, Sampling(1), ())
    method = UnaryMethod(path="/a.Service/Do", decode=bytes, handle=answer, encode=bytes)
    traced = trace_method(method, tracer)
    assert await traced.handle(b"one", Call()) == b"one"
    began.append(True)
    assert await traced.handle(b"two", Call()) == b"two"
    assert [record.getMessage() for record in caplog.records] == [
        "a span could not be ended",
        "a span could not be ended",
        "a span could not be begun",
    ]


def hide_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where extauthz[otlp] is not installed."""
    for name in list(sys.modules):
        if name == "extauthz.telemetry.otlp" or name.startswith("opentelemetry"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)


async def test_says_what_to_install_when_the_packages_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hide_opentelemetry(monkeypatch)
    settings = read(tmp_path, otlp={"endpoint": "http://127.0.0.1:1"})
    (problem,) = list_file_problems(settings)
    assert problem.path == "telemetry.otlp" and "install extauthz[otlp]" in problem.message
    with pytest.raises(ConfigError, match=r"telemetry\.otlp: needs OpenTelemetry"):
        async with open_service(settings):
            raise AssertionError("it opened")
    # A variable may be there for other programs: it stops nobody.
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    async with open_service(read(tmp_path)) as service:
        await ask(service, "/pets/v1/1", SAMPLED)
    assert "none are sent" in caplog.text


@pytest.mark.parametrize(
    "variable",
    ["OTEL_BSP_MAX_EXPORT_BATCH_SIZE=9999", "OTEL_EXPORTER_OTLP_TIMEOUT=soon"],
)
async def test_a_variable_that_cannot_be_used_is_a_problem_at_the_start(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable.split("="))
    with pytest.raises(ConfigError, match=r"telemetry\.otlp: a variable OTEL_.* is not usable"):
        async with open_service(read(tmp_path, otlp={"endpoint": "http://127.0.0.1:1"})):
            raise AssertionError("it opened")
