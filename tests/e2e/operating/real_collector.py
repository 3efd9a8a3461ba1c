"""One trace in the real OpenTelemetry Collector: from Envoy's spans through ours to Redis.

Not part of ``make test``: it builds a collector with Go, from modules that it downloads.
``make collector`` runs it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.e2e.operating.test_traces import ASKED, CHECK, ENVIRONMENT, METERED, trace_to
from tests.e2e.running import Deployment
from tests.e2e.world import World
from tests.free_ports import find_free_port
from tests.redis_server import RedisServer
from tests.telemetry.collectors import Collector

pytestmark = pytest.mark.e2e

SOURCE: Final = Path(__file__).with_name("collector")
BUILT: Final = Path(__file__).resolve().parents[3] / "build" / "collector"
WAIT_S: Final = 60
CHAIN: Final = ("ingress", ASKED, CHECK, "take limits")
"""Each span is the parent of the next one."""


@dataclass(frozen=True, slots=True)
class RunningCollector:
    """A collector, which writes the spans that it gets to a file."""

    process: subprocess.Popen[bytes]
    grpc_port: int
    http_port: int
    file: Path

    def wait_for(self, names: frozenset[str]) -> dict[str, Mapping[str, Any]]:
        """The last span of each of these names, once there is one."""
        end_s = time.monotonic() + WAIT_S
        while not names <= (found := self._read()).keys():
            assert time.monotonic() < end_s, f"there are only {sorted(found)}"
            with suppress(subprocess.TimeoutExpired):
                pytest.fail(f"the collector ended with {self.process.wait(0.2)}")
        return found

    def _read(self) -> dict[str, Mapping[str, Any]]:
        text = self.file.read_text() if self.file.exists() else ""
        # The last line may be half written.
        lines = text[: text.rfind("\n") + 1].splitlines()
        return {
            span["name"]: span
            for line in lines
            for of_resource in json.loads(line)["resourceSpans"]
            for of_scope in of_resource["scopeSpans"]
            for span in of_scope["spans"]
        }


@pytest.fixture(scope="session")
def program() -> Path:
    """The collector, built from the source beside this file."""
    if shutil.which("go") is None:
        pytest.fail("needs Go on the PATH", pytrace=False)
    shutil.copytree(SOURCE, BUILT, dirs_exist_ok=True)
    for command in (("go", "mod", "tidy"), ("go", "build", "-o", "collector", ".")):
        subprocess.run(command, cwd=BUILT, check=True)
    return BUILT / "collector"


@contextmanager
def run_collector(program: Path, folder: Path) -> Iterator[RunningCollector]:
    """Runs a collector on loopback until the block ends."""
    grpc_port, http_port, file = find_free_port(), find_free_port(), folder / "spans.jsonl"
    protocols = {
        "grpc": {"endpoint": f"127.0.0.1:{grpc_port}"},
        "http": {"endpoint": f"127.0.0.1:{http_port}"},
    }
    config = {
        "receivers": {"otlp": {"protocols": protocols}},
        "exporters": {"file": {"path": str(file), "flush_interval": "200ms"}},
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {"traces": {"receivers": ["otlp"], "exporters": ["file"]}},
        },
    }
    (folder / "collector.yaml").write_text(yaml.safe_dump(config))
    command = (str(program), f"--config={folder / 'collector.yaml'}")
    with (folder / "collector.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield RunningCollector(process, grpc_port, http_port, file)
        finally:
            process.terminate()
            process.wait(WAIT_S)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_one_trace_leads_from_envoy_to_redis(
    protocol: str, program: Path, deployment: Deployment, world: World, tmp_path: Path
) -> None:
    (tmp_path / "redis").mkdir()
    redis = RedisServer(tmp_path / "redis").start()
    try:
        with run_collector(program, tmp_path) as collector:
            port = collector.grpc_port if protocol == "grpc" else collector.http_port
            otlp = {"endpoint": f"http://127.0.0.1:{port}", "protocol": protocol}
            settings = {
                "counters": {"store": "redis", "url": f"redis://127.0.0.1:{redis.port}"},
                "telemetry": {"otlp": otlp, "trace_ratio": 0},
            }
            change = trace_to(Collector(f"http://127.0.0.1:{collector.grpc_port}"))
            with (
                deployment.run_service("collected", settings, environment=ENVIRONMENT) as service,
                deployment.run_gateway(service.grpc_address, change=change) as gateway,
            ):
                headers = {"x-api-key": world.keys["mobile"]}
                assert gateway.call("POST", METERED, headers).status_code == 200
                spans = collector.wait_for(frozenset(CHAIN))
    finally:
        redis.kill()
    chain = [spans[name] for name in CHAIN]
    assert len({span["traceId"] for span in chain}) == 1
    for parent, span in pairwise(chain):
        assert span["parentSpanId"] == parent["spanId"]
    told = {item["key"]: item["value"] for item in spans[CHECK]["attributes"]}
    assert told["extauthz.outcome"] == {"stringValue": "allow"}
    assert told["extauthz.api"] == {"stringValue": "World"}
