"""Lines of the log and decisions, sent to collectors that take them, and to ones that do not."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
import yaml
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber

from extauthz.app.log import check_log, open_decision_log, open_log_sending
from extauthz.errors import ConfigError
from extauthz.model.decision import Allow, Denial, Deny, Reason
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.model.limits import LimitLevel, LimitStatus, Reading
from extauthz.model.routing.routes import Route
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings
from extauthz.telemetry.current_trace import CurrentTrace, current_trace
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.otlp import CLOSE_S
from tests.builders import a_limit, a_request, a_resource, an_api
from tests.telemetry.collectors import (
    Collector,
    hold_no_collector,
    run_grpc_collector,
    run_hanging_collector,
    run_http_collector,
)

TRACE: Final = 0x0AF7651916CD43DD8448EB211C80319C
SPAN: Final = 0xB7AD6B7169203331
LOG: Final = logging.getLogger("anybody.else")
ROUTE: Final = Route(an_api(), a_resource("/ip"))
ALLOW: Final = Allow(
    id="d-1",
    route=ROUTE,
    identity=Identity(scheme=SecurityScheme.JWT, user="alice", consumer_key="c-1"),
    tier="Gold",
    limits=(LimitStatus(LimitLevel.API, "G\udcff", a_limit(9), Reading(False, 8, 7, 0), True),),
    client_address="192.0.2.7",
)
DENY: Final = Deny(
    id="d-2", denial=Denial(reason=Reason.BLOCKED, detail="The caller is blocked."), route=ROUTE
)


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BLRP_SCHEDULE_DELAY", "50")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def read(folder: Path, endpoint: str, protocol: str = "grpc", **log: Any) -> Settings:
    file = folder / "extauthz.yaml"
    tree: dict[str, Any] = {"catalog": {"files": ["catalog.yaml"]}, "log": log}
    if endpoint:
        tree["telemetry"] = {"otlp": {"endpoint": endpoint, "protocol": protocol}}
    file.write_text(yaml.safe_dump(tree))
    return read_settings(file, {})


def run(protocol: str) -> AbstractContextManager[Collector]:
    return run_grpc_collector() if protocol == "grpc" else run_http_collector()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_line_of_the_log_is_sent_with_everything_known_of_it(
    tmp_path: Path, protocol: str
) -> None:
    with run(protocol) as collector:
        before_ns = time.time_ns()
        with open_log_sending(read(tmp_path, collector.url, protocol, otlp=True), worker=2):
            held = current_trace.set(CurrentTrace(TRACE, SPAN, sampled=True))
            LOG.warning("one of %s", "two\nlines")
            current_trace.reset(held)
            with pytest.raises(ZeroDivisionError) as caught:
                _ = 1 / 0
            LOG.error("it failed", exc_info=(caught.type, caught.value, caught.tb))
        LOG.error("after the block")
    one, other = collector.logs()
    assert (one.scope, one.body) == ("anybody.else", "one of two\nlines")
    assert one.resource["service.name"] == "extauthz"
    assert one.record.severity_number == SeverityNumber.SEVERITY_NUMBER_WARN
    assert one.record.severity_text == "WARN"
    assert before_ns <= one.record.time_unix_nano + 1_000_000 <= time.time_ns() + 1_000_000
    assert one.record.trace_id == TRACE.to_bytes(16, "big")
    assert one.record.span_id == SPAN.to_bytes(8, "big")
    assert one.record.flags == 1
    assert one.attributes == {"extauthz.worker": 2}
    assert other.record.trace_id == b""
    assert other.attributes["exception.type"] == "builtins.ZeroDivisionError"
    assert other.attributes["exception.stacktrace"].startswith("Traceback (most recent")


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_decision_is_an_event_with_its_record(tmp_path: Path, protocol: str) -> None:
    with run(protocol) as collector:
        settings = read(tmp_path, collector.url, protocol, decisions={"otlp": True})
        with open_decision_log(settings) as log:
            assert log is not None
            traced = {"traceparent": f"00-{TRACE:032x}-{SPAN:016x}-01"}
            log.observe(a_request(headers=traced, request_id="r-\udcff"), ALLOW, 48)
            log.observe(a_request(), DENY, 7)
        assert log.sinks[0].dropped == 0
    allowed, denied = collector.logs()
    assert (allowed.record.event_name, allowed.body) == ("extauthz.decision", "allow")
    assert (denied.record.event_name, denied.body) == ("extauthz.decision", "blocked")
    assert allowed.record.trace_id == TRACE.to_bytes(16, "big")
    assert denied.record.trace_id == allowed.record.span_id == b""
    attributes = allowed.attributes
    assert attributes.pop("extauthz.path_hash")
    assert attributes == {
        "extauthz.decision": "d-1",
        "extauthz.door": "envoy",
        "extauthz.shadow": False,
        "extauthz.request": "r-\\udcff",
        "extauthz.method": "GET",
        "extauthz.outcome": "allow",
        "extauthz.api": "HttpbinAPI",
        "extauthz.api.version": "1.0.0",
        "extauthz.resource": "/ip",
        "extauthz.tier": "Gold",
        "extauthz.duration_us": 48,
        "extauthz.user": Masks().hash_text("alice"),
        "extauthz.consumer_key": Masks().hash_text("c-1"),
        "extauthz.client_address": "192.0.2.0/24",
        "extauthz.limits": [
            {
                "level": "api",
                "name": "G\\udcff",
                "unit": "requests",
                "limit": 9,
                "remaining": 8,
                "reset_us": 7,
                "exceeded": False,
                "enforced": True,
            }
        ],
    }
    assert denied.attributes["extauthz.detail"] == "The caller is blocked."


# Collectors that do not take them


AWAY: Final[dict[str, Callable[[], AbstractContextManager[Collector]]]] = {
    "away": hold_no_collector,
    "hangs": run_hanging_collector,
    "refuses": lambda: run_grpc_collector(grpc.StatusCode.PERMISSION_DENIED),
    "is full": lambda: run_grpc_collector(grpc.StatusCode.UNAVAILABLE),
}


@pytest.mark.parametrize("state", AWAY)
def test_a_collector_that_takes_nothing_holds_up_nothing(
    tmp_path: Path, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BLRP_MAX_QUEUE_SIZE", "100")
    monkeypatch.setenv("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "50")
    with AWAY[state]() as collector:
        settings = read(tmp_path, collector.url, otlp=True, decisions={"otlp": True})
        with open_log_sending(settings), open_decision_log(settings) as log:
            assert log is not None
            started_s = time.monotonic()
            for _ in range(500):
                log.observe(a_request(), ALLOW, 1)
                LOG.info("something happens")
            assert time.monotonic() - started_s < 5
            started_s = time.monotonic()
        assert time.monotonic() - started_s < 2 * CLOSE_S + 5
    assert log.sinks[0].dropped == 500


@pytest.mark.parametrize("state", ["away", "refuses"])
def test_a_failure_to_send_is_not_sent(
    tmp_path: Path, state: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It would fail, and be told, and so on."""
    with AWAY[state]() as collector, caplog.at_level(logging.DEBUG):
        with open_log_sending(read(tmp_path, collector.url, otlp=True)):
            LOG.warning("something happens")
        own = [record for record in caplog.records if record.name.startswith("opentelemetry")]
    assert 0 < len(own) < 10


# Settings and variables


@pytest.mark.parametrize(
    ("variables", "setting", "is_sent"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"OTEL_LOGS_EXPORTER": "otlp"}, False, True),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "URL"}, False, True),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "URL"}, False, False),
        ({"OTEL_LOGS_EXPORTER": "none"}, True, False),
        ({"OTEL_SDK_DISABLED": "true"}, True, False),
        ({"OTEL_TRACES_EXPORTER": "none"}, True, True),
    ],
)
def test_settings_and_variables_turn_logs_on_and_off(
    tmp_path: Path,
    variables: dict[str, str],
    setting: bool,  # noqa: FBT001  (a case of the table)
    is_sent: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with run_grpc_collector() as collector:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.replace("URL", collector.url))
        with open_log_sending(read(tmp_path, collector.url, otlp=setting)):
            LOG.error("something happens")
    assert [one.body for one in collector.logs()] == ["something happens"] * is_sent


def test_variables_alone_name_the_collector_its_protocol_and_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with run_http_collector() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", f"{collector.url}/v1/logs")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "x-tenant=one")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with open_log_sending(read(tmp_path, "")):
            LOG.error("something happens")
    (one,) = collector.logs()
    assert one.body == "something happens"
    assert collector.headers[0]["x-tenant"] == "one"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_BLRP_MAX_QUEUE_SIZE", "-1"), ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", "many")],
)
def test_a_variable_that_cannot_be_used_is_told(
    tmp_path: Path, variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    settings = read(tmp_path, "http://127.0.0.1:1", otlp=True)
    with pytest.raises(ConfigError, match=r"log\.otlp: a variable OTEL_"):
        check_log(settings)


@pytest.mark.parametrize(
    ("log", "path"),
    [({"otlp": True}, "log.otlp"), ({"decisions": {"otlp": True}}, "log.decisions.otlp")],
)
def test_without_the_packages_the_settings_are_refused(
    tmp_path: Path, log: dict[str, Any], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "extauthz.telemetry.otlp_logs", raising=False)
    settings = read(tmp_path, "http://127.0.0.1:1", **log)
    with pytest.raises(ConfigError, match=f"{path}: needs OpenTelemetry .*extauthz.otlp"):
        check_log(settings)


def test_the_packages_are_not_needed_when_a_variable_asks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [name for name in sys.modules if name.startswith("opentelemetry")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "extauthz.telemetry.otlp_logs", raising=False)
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp")
    with open_log_sending(read(tmp_path, "")):
        assert "OTEL_LOGS_EXPORTER asks for logs, which need extauthz[otlp]" in caplog.text
