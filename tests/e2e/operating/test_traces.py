"""One trace, from Envoy's spans through ours to Redis and an issuer; a stop without a collector."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from extauthz.telemetry.otlp import CLOSE_S
from tests.e2e.running import Deployment
from tests.e2e.world import World
from tests.redis_server import RedisServer
from tests.telemetry.collectors import (
    Collector,
    Received,
    run_grpc_collector,
    run_hanging_collector,
)

pytestmark = pytest.mark.e2e

CHECK: Final = "envoy.service.auth.v3.Authorization/Check"
ASKED: Final = "async envoy.service.auth.v3.Authorization.Check egress"
ENVIRONMENT: Final = {"OTEL_BSP_SCHEDULE_DELAY": "50", "NO_PROXY": "127.0.0.1"}
METERED: Final = "/world/1.0.0/metered"


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path).start()
    yield server
    server.kill()


def trace_to(collector: Collector) -> Any:
    """Makes an Envoy trace every request, and send its spans to the collector."""
    port = int(collector.url.rpartition(":")[2])

    def change(bootstrap: dict[str, Any]) -> None:
        resources = bootstrap["static_resources"]
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        http2 = {
            "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
            "explicit_http_config": {"http2_protocol_options": {}},
        }
        options = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http2}
        endpoint = {"lb_endpoints": [{"endpoint": {"address": address}}]}
        resources["clusters"].append(
            {
                "name": "collector",
                "type": "STATIC",
                "typed_extension_protocol_options": options,
                "load_assignment": {"cluster_name": "collector", "endpoints": [endpoint]},
            }
        )
        tracer = {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "grpc_service": {"envoy_grpc": {"cluster_name": "collector"}},
            "service_name": "gateway",
        }
        provider = {"name": "envoy.tracers.opentelemetry", "typed_config": tracer}
        connections = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        connections["tracing"] = {"random_sampling": {"value": 100}, "provider": provider}
        flush = {"name": "flush", "static_layer": {"tracing.opentelemetry.min_flush_spans": 1}}
        bootstrap["layered_runtime"] = {"layers": [flush]}

    return change


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACED: Final = (
    (("traceparent", f"00-{TRACE}-{SPAN}-01"),),
    (("b3", f"{TRACE}-{SPAN}-1"),),
    (("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")),
)
NOT_TRACED: Final = (
    (("traceparent", f"00-{TRACE}-{SPAN}-00"),),
    (("b3", "0"),),
    (("x-b3-sampled", "0"),),
)


def ask_with(metadata: tuple[tuple[str, str], ...], address: str) -> None:
    """Asks the service itself, as a proxy would that says so much of its span."""
    with grpc.insecure_channel(address) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(f"/{CHECK}")
        check(b"", metadata=metadata, timeout=60)


def find_children(received: Received, collector: Collector) -> list[Received]:
    return [
        one
        for one in collector.spans()
        if one.span.parent_span_id == received.span.span_id
        and one.span.trace_id == received.span.trace_id
    ]


def test_one_trace_leads_from_envoy_to_redis_and_the_issuer(
    deployment: Deployment, world: World, redis_server: RedisServer
) -> None:
    with run_grpc_collector() as collector:
        settings = {
            "counters": {
                "store": "redis",
                "url": f"redis://127.0.0.1:{redis_server.port}",
                "timeout": "20s",  # a busy machine is no outage
            },
            "telemetry": {"otlp": {"endpoint": collector.url}, "trace_ratio": 1},
        }
        with (
            deployment.run_service("traced", settings, environment=ENVIRONMENT) as service,
            deployment.run_gateway(service.grpc_address, change=trace_to(collector)) as gateway,
        ):
            opaque = {"authorization": f"Bearer {world.make_opaque()}"}
            signed = {"authorization": f"Bearer {world.sign()}"}
            answers = [gateway.call("POST", METERED, headers) for headers in (opaque, opaque)]
            answers.append(gateway.call("POST", METERED, signed))
            ours = collector.wait_for(CHECK, 3)
            asked = {one.span.span_id: one for one in collector.wait_for(ASKED, 3, "gateway")}
            for metadata in (*NOT_TRACED, *TRACED):
                ask_with(metadata, service.grpc_address)
            began = {one.span.span_id for one in collector.wait_for("ingress", 3, "gateway")}
        # The service has stopped, and sent its last spans.
    told_of = [
        (one.span.trace_id.hex(), one.span.parent_span_id.hex()) for one in collector.spans()
    ]
    assert told_of.count((TRACE, SPAN)) == len(TRACED)
    assert len(collector.wait_for(CHECK)) == len(ours) + len(TRACED)
    children = [find_children(one, collector) for one in ours]
    told = [[child.span.name for child in of_one] for of_one in children]
    assert [answer.status_code for answer in answers] == [200, 429, 429]
    for one in ours:
        asking = asked[one.span.parent_span_id]
        assert asking.span.trace_id == one.span.trace_id
        assert asking.span.parent_span_id in began
        assert one.attributes["extauthz.resource"] == "/metered"
    assert told[0] == ["introspect token", "take limits"]
    assert told[2] == ["find keys", "take limits"]
    assert children[0][1].attributes == {"db.system.name": "redis"}
    outcomes = [one.attributes["extauthz.outcome"] for one in ours]
    assert outcomes == ["allow", "deny", "deny"]
    assert ours[1].attributes["extauthz.reason"] == "rate_limited"
    sent = b"".join(one.span.SerializeToString() for one in collector.spans())
    leaked = {*world.secrets, "carol", "dave", "mobile", METERED}
    assert [text for text in leaked if text.encode() in sent] == []


def test_stops_in_time_though_the_collector_hangs(deployment: Deployment, world: World) -> None:
    with run_hanging_collector() as collector:
        settings = {"telemetry": {"otlp": {"endpoint": collector.url}, "trace_ratio": 1}}
        with (
            deployment.run_service("hanging", settings, environment=ENVIRONMENT) as service,
            deployment.run_gateway(service.grpc_address) as gateway,
        ):
            headers = {"x-api-key": world.keys["mobile"]}
            for _ in range(20):
                assert gateway.call("POST", "/world/1.0.0/open", headers).status_code == 200
            began_s = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(60) == 0
            took_s = time.monotonic() - began_s
    # The exporter would wait for 10 s, and the SDK for 30.
    assert took_s < CLOSE_S + 6
    assert "the last spans could not be sent" in service.log_file.read_text()
