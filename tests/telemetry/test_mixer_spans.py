"""Spans of Mixer's calls through real gRPC, in every form in which a caller tells of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import yaml
from google.protobuf.message import Message

from extauthz.app.doors.mixer import MIXER
from extauthz.app.service import open_service, read_listeners
from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.settings.reading import read_settings
from tests.builders import API_KEY
from tests.mixer_compat.asking import (
    APIKEY,
    AUTHORIZATION,
    LISTENTRY,
    METRIC,
    QUOTA,
    a_listentry,
    a_metric,
    a_quota,
    an_apikey,
    an_authorization,
)
from tests.telemetry.collectors import run_grpc_collector
from tests.telemetry.test_page import CATALOG

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FORMS: Final = (
    (("traceparent", f"00-{TRACE}-{SPAN}-01"), ("tracestate", "congo=t61rcWkgMzE")),
    (("b3", f"{TRACE}-{SPAN}-1"),),
    (("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN), ("x-b3-sampled", "1")),
)
GOOD: Final = {"method": "GET", "path": "/pets/v1/1", "api_key": API_KEY}
BAD: Final = {**GOOD, "api_key": "guessed"}
CALLS: Final[tuple[tuple[str, Message, str], ...]] = (
    (AUTHORIZATION, an_authorization(GOOD), "allow"),
    (AUTHORIZATION, an_authorization(BAD), "deny"),
    (APIKEY, an_apikey("GET /{pet}", API_KEY, "Pets", "v1"), "allow"),
    # Of an address that no rule blocks nothing is decided.
    (LISTENTRY, a_listentry("192.0.2.1"), ""),
    (QUOTA, a_quota(GOOD), "allow"),
    (METRIC, a_metric([GOOD]), ""),
)


@pytest.mark.parametrize("form", FORMS, ids=["W3C", "b3", "x-b3"])
async def test_each_method_is_a_span_of_its_callers_trace(
    form: tuple[tuple[str, str], ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    (tmp_path / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))
    with run_grpc_collector() as collector:
        tree: dict[str, Any] = {
            "catalog": {"files": ["catalog.yaml"]},
            "listen": {"grpc": "127.0.0.1:0", "mixer": "127.0.0.1:0"},
            "telemetry": {"otlp": {"endpoint": collector.url}, "trace_ratio": 0},
        }
        (tmp_path / "extauthz.yaml").write_text(yaml.safe_dump(tree))
        settings = read_settings(tmp_path / "extauthz.yaml", {})
        async with open_service(settings) as service:
            listeners = [one for one in read_listeners(settings) if one.door == MIXER]
            host = GrpcioHost(service.doors, listeners)
            await host.start()
            try:
                async with grpc.aio.insecure_channel(str(host.addresses[0])) as channel:
                    for path, message, _ in CALLS:
                        ask: Any = channel.unary_unary(path)
                        await ask(message.SerializeToString(), metadata=form, timeout=60)
                        # Without a word of its caller's, the ratio of 0 decides.
                        await ask(message.SerializeToString(), timeout=60)
            finally:
                await host.stop(0)
    spans = collector.spans()
    told = [
        (f"/{received.span.name}", received.attributes.get("extauthz.outcome", ""))
        for received in spans
    ]
    assert told == [(path, outcome) for path, _, outcome in CALLS]
    for received in spans:
        span = received.span
        assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
        assert span.trace_state == dict(form).get("tracestate", "")
        assert received.attributes["rpc.response.status_code"] == "OK"
    sent = b"".join(received.span.SerializeToString() for received in spans)
    assert API_KEY.encode() not in sent and b"guessed" not in sent
