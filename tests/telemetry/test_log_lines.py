"""Lines of the log as JSON."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from extauthz.app.service import GRPC, open_service
from extauthz.errors import CounterStoreError
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.serving.methods import Call, RpcFailure, UnaryMethod
from extauthz.settings.reading import read_settings
from extauthz.telemetry.log_lines import JsonFormatter
from tests.builders import API_KEY, sha256
from tests.e2e.backends import hold_dead_port
from tests.envoy.wire import a_check
from tests.mixer_compat.asking import GivenCaller

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
CATALOG: Final = {
    "apis": [
        {
            "name": "Pets",
            "version": "v1",
            "context": "/pets",
            "security": ["api_key"],
            "resources": [{"methods": ["GET"], "path": "/{pet}"}],
        }
    ],
    "applications": [
        {"name": "mobile", "owner": "alice", "api_keys": [{"sha256": sha256(API_KEY).hex()}]}
    ],
    "subscriptions": [{"application": "mobile", "api": "Pets", "version": "v1", "tier": "Gold"}],
    "tiers": {"Gold": {"limits": [{"requests": 5, "per": "1h"}], "on_outage": "deny"}},
}


def a_record(
    message: str = "it happened", *args: object, level: int = logging.INFO, **fields: Any
) -> logging.LogRecord:
    record = logging.LogRecord("extauthz.x", level, "", 0, message, args, None)
    vars(record).update(fields)
    return record


def write(record: logging.LogRecord, worker: int = 0) -> dict[str, Any]:
    text = JsonFormatter(worker).format(record)
    assert text.isascii() and text.isprintable()
    line: dict[str, Any] = json.loads(text)
    return line


def test_a_line_has_the_names_of_the_log_data_model() -> None:
    record = a_record("%s of %d", "one", 2, created=1_700_000_000.25)
    assert write(record) == {
        "timestamp": "2023-11-14T22:13:20.250000+00:00",
        "severity_text": "INFO",
        "severity_number": 9,
        "scope": "extauthz.x",
        "body": "one of 2",
    }


@pytest.mark.parametrize(
    ("level", "text", "number"),
    [
        (logging.DEBUG, "DEBUG", 5),
        (logging.INFO, "INFO", 9),
        (logging.WARNING, "WARN", 13),
        (logging.ERROR, "ERROR", 17),
        (logging.CRITICAL, "FATAL", 21),
        (25, "INFO", 9),
        (1, "TRACE", 1),
    ],
)
def test_a_severity_is_opentelemetrys(level: int, text: str, number: int) -> None:
    line = write(a_record(level=level))
    assert (line["severity_text"], line["severity_number"]) == (text, number)


def test_a_traceback_of_many_lines_is_in_one_line() -> None:
    with pytest.raises(ValueError, match="no") as caught:
        int("no\nnumber")
    attributes = write(a_record(exc_info=(caught.type, caught.value, caught.tb)))["attributes"]
    assert attributes["exception.type"] == "builtins.ValueError"
    assert attributes["exception.message"].endswith("'no\\nnumber'")
    assert attributes["exception.stacktrace"].startswith("Traceback (most recent call last):\n")
    assert attributes["exception.stacktrace"].count("\n") > 2


def test_a_line_tells_the_worker_and_the_code_of_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = logging.getLogger("extauthz.x")
    RepeatedWarnings(log, "it fails").warn(CounterStoreError("away"))
    line = write(caplog.records[0], worker=3)
    assert line["attributes"] == {"extauthz.worker": 3, "error.type": "counter_store_failed"}


def test_an_exception_that_was_not_there_is_left_out() -> None:
    assert "attributes" not in write(a_record(exc_info=(None, None, None)))


@given(st.text(st.characters()))
def test_any_message_is_one_line_that_can_be_read_back(message: str) -> None:
    body = write(a_record("%s", message))["body"]
    assert body == message.encode("utf-8", "backslashreplace").decode()


def test_the_services_log_is_json_on_standard_output_when_asked_for(tmp_path: Path) -> None:
    program = (
        "import logging, sys; from extauthz.app.log import start_log; "
        "from extauthz.settings.log import LogSettings; "
        "start_log(LogSettings(format='json', output='stdout')); "
        "logging.getLogger('anybody').warning('%s', sys.argv[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "a\nb\x1b"], capture_output=True, check=True, cwd=tmp_path
    )
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["body"] == "a\nb\x1b"
    assert done.stderr == b""


# Trace ids


class Kept(logging.Handler):
    """Keeps lines of JSON."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonFormatter())
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@pytest.fixture
def kept() -> Iterator[Kept]:
    handler, log = Kept(), logging.getLogger("extauthz")
    log.addHandler(handler)
    yield handler
    log.removeHandler(handler)


async def ask(folder: Path, metadata: list[tuple[str, str]], **telemetry: Any) -> None:
    """A request that cannot be decided, as Redis is away."""
    (folder / "catalog.yaml").write_text(yaml.safe_dump(CATALOG))
    with hold_dead_port() as port:
        tree = {
            "catalog": {"files": ["catalog.yaml"]},
            "counters": {"store": "redis", "url": f"redis://127.0.0.1:{port}/0"},
            "telemetry": telemetry,
        }
        (folder / "extauthz.yaml").write_text(yaml.safe_dump(tree))
        async with open_service(read_settings(folder / "extauthz.yaml", {})) as service:
            method = service.doors[GRPC].table.find(CHECK)
            assert isinstance(method, UnaryMethod)
            call = Call(caller=GivenCaller(tuple(metadata)))
            message = a_check(path="/pets/v1/1", headers={"x-api-key": API_KEY})
            with pytest.raises(RpcFailure):
                await service.doors[GRPC].answer_unary(method, message, call)


@pytest.mark.parametrize(
    ("metadata", "trace_id", "span_id", "flags"),
    [
        ([("traceparent", f"00-{TRACE}-{SPAN}-01")], TRACE, SPAN, "01"),
        ([("traceparent", f"00-{TRACE}-{SPAN}-00")], TRACE, SPAN, "00"),
        ([("b3", f"{TRACE}-{SPAN}-1")], TRACE, SPAN, "01"),
        ([("b3", f"{SPAN}-{SPAN}-0")], f"{0:016x}{SPAN}", SPAN, "00"),
        ([("b3", "0")], None, None, None),
        ([("traceparent", f"00-{TRACE}-{SPAN}-01\n")], None, None, None),
        ([], None, None, None),
    ],
)
async def test_a_line_of_a_call_has_the_ids_of_its_callers_trace(
    tmp_path: Path,
    kept: Kept,
    metadata: list[tuple[str, str]],
    trace_id: str | None,
    span_id: str | None,
    flags: str | None,
) -> None:
    await ask(tmp_path, metadata)
    (line,) = [line for line in kept.lines if line["body"].startswith("could not decide")]
    assert line.get("trace_id") == trace_id
    assert line.get("span_id") == span_id
    assert line.get("trace_flags") == flags
    assert all(
        "trace_id" not in other for other in kept.lines if other["scope"].endswith("refresh")
    )


async def test_a_line_of_a_traced_call_has_the_id_of_its_span(tmp_path: Path, kept: Kept) -> None:
    with hold_dead_port() as port:
        otlp = {"endpoint": f"http://127.0.0.1:{port}"}
        await ask(tmp_path, [("traceparent", f"00-{TRACE}-{SPAN}-01")], otlp=otlp)
    (line,) = [line for line in kept.lines if line["body"].startswith("could not decide")]
    assert (line["trace_id"], line["trace_flags"]) == (TRACE, "01")
    assert line["span_id"] != SPAN
