"""Replicas of extauthz that count in one Redis: who calls them, and what operators see of them.

Each consumer has the tier of its own name and one API key. A limit's window is ten years
where a test must not meet its edge.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any, Final

import grpc
import httpx2
import yaml

from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest, CheckResponse, Peer
from tests.commands import Command
from tests.e2e.running import Deployment, next_client
from tests.free_ports import find_free_port

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
PATH: Final = "/counted/1.0.0/open"
DECADE: Final = "3650d"
PROXY: Final = "10.255.255.1"
"""The proxy in front of Envoy, which is trusted and has appended the client."""
TURN_S: Final = 60.0
_POLL_S: Final = 0.02


def key_of(consumer: str) -> str:
    """The API key of a consumer."""
    return f"key-of-{consumer}"


def write_catalog(file: Path, tiers: Mapping[str, Mapping[str, Any]]) -> None:
    """A catalog with one resource, and for each tier a consumer that is subscribed with it."""
    consumers = [
        {
            "name": name,
            "api_keys": [{"sha256": hashlib.sha256(key_of(name).encode()).hexdigest()}],
        }
        for name in tiers
    ]
    api = {"name": "Counted", "version": "1.0.0"}
    resource = {"methods": ["POST"], "path": "/open"}
    served = {**api, "context": "/counted", "security": ["api_key"], "resources": [resource]}
    subscriptions = [
        {"application": name, "api": api["name"], "version": api["version"], "tier": name}
        for name in tiers
    ]
    tree = {
        "apis": [served],
        "applications": consumers,
        "subscriptions": subscriptions,
        "tiers": {name: dict(tier) for name, tier in tiers.items()},
    }
    file.write_text(yaml.safe_dump(tree, sort_keys=False))


def write_check(consumer: str) -> bytes:
    """What Envoy asks about a request of this consumer, from an address of its own.

    Addresses are what failed attempts are counted by: a test may ask for a consumer that is not
    known yet as often as it has to.
    """
    peer = Peer()
    peer.address.socket_address.address = PROXY
    request = CheckRequest()
    request.attributes.source = peer.SerializeToString()
    http = request.attributes.request.http
    http.id, http.method, http.path = "1", "POST", PATH
    http.host, http.scheme, http.protocol = "api.example", "http", "HTTP/1.1"
    fields = {
        ":method": "POST",
        ":path": PATH,
        ":authority": "api.example",
        "x-api-key": key_of(consumer),
        "x-forwarded-for": f"{next_client()},{PROXY}",
    }
    for name, value in fields.items():
        entry = http.header_map.headers.add()
        entry.key, entry.raw_value = name, value.encode()
    return request.SerializeToString()


def read_status(answer: bytes) -> int:
    """What the client of Envoy gets: 200, or the status of the denial."""
    response = CheckResponse.FromString(answer)
    if response.HasField("denied_response"):
        return int(response.denied_response.status.code)
    return 200


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, and how long the caller waited."""

    status: int
    took_s: float


class Replica:
    """A running ``extauthz serve``."""

    def __init__(
        self,
        process: Command,
        log_file: Path,
        grpc_address: str,
        channel: grpc.Channel,
        admin: httpx2.Client,
    ) -> None:
        self.process = process
        self.log_file = log_file
        self.grpc_address = grpc_address
        self.channel = channel
        self._check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        self.admin = admin

    def ask(self, consumer: str) -> int:
        """The status of one request; 503 when the call fails as unavailable."""
        return self.ask_at_once([consumer])[0].status

    def ask_at_once(
        self, consumers: Sequence[str], timeout_s: float = TURN_S
    ) -> Sequence[Answered]:
        """One request of each, all sent before the first is answered."""
        return self.begin(consumers, timeout_s)()

    def begin(
        self, consumers: Sequence[str], timeout_s: float = TURN_S
    ) -> Callable[[], list[Answered]]:
        """Sends one request of each, and gives what waits for the answers."""
        came_s: dict[int, float] = {}
        calls = []
        for number, consumer in enumerate(consumers):
            asked_s = time.monotonic()
            call = self._check.future(write_check(consumer), timeout=timeout_s)
            calls.append((number, asked_s, call))

            def note(_: object, number: int = number) -> None:
                came_s[number] = time.monotonic()

            call.add_done_callback(note)

        def finish() -> list[Answered]:
            statuses = [_status_of(call) for _, _, call in calls]
            # A callback may come a moment after the result.
            now_s = time.monotonic()
            return [
                Answered(status, came_s.get(number, now_s) - asked_s)
                for status, (number, asked_s, _) in zip(statuses, calls, strict=True)
            ]

        return finish

    def read_readiness(self) -> tuple[int, str, dict[str, Any]]:
        """Of ``/readyz``: its HTTP status, the status as a whole, and what it says of counters."""
        answer = self.admin.get("/readyz")
        body = json.loads(answer.text)
        return answer.status_code, body["status"], body["checks"]["counters"]

    def read_metric(self, name: str) -> float:
        """Of a metric without labels."""
        lines = self.read_metrics().splitlines()
        (value,) = [line.split()[1] for line in lines if line.split(" ")[0] == name]
        return float(value)

    def read_metrics(self) -> str:
        """All of them, in Prometheus's text format."""
        return self.admin.get("/metrics").text

    def read_api(self, path: str) -> Any:
        """What a path of the admin API answers."""
        answer = self.admin.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def follow(self, query: str = "") -> AbstractContextManager[httpx2.Response]:
        """The stream of live decisions."""
        headers = {"accept": "text/event-stream"}
        return self.admin.stream("GET", f"/api/decisions{query}", headers=headers)

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Looks each moment whether something has happened, while the process runs."""
        end_s = time.monotonic() + TURN_S
        while not happened():
            assert time.monotonic() < end_s, f"{what}: did not happen in {TURN_S:g} s"
            try:
                self.process.wait(_POLL_S)
            except TimeoutExpired:
                continue
            raise AssertionError(f"extauthz ended before this happened: {what}")

    def is_without_store(self) -> bool:
        """Whether it has stopped asking Redis, but for probes."""
        return bool(self.read_readiness()[2]["circuit"] != "closed")

    def wait_until_it_says(self, status: str) -> None:
        """Returns when ``/readyz`` says so."""
        self.wait_until(lambda: self.read_readiness()[1] == status, f"/readyz says {status}")


def _status_of(call: Any) -> int:
    try:
        return read_status(call.result())
    except grpc.RpcError:
        if call.code() is grpc.StatusCode.UNAVAILABLE:
            return 503
        raise


@contextmanager
def run_replica(
    deployment: Deployment,
    catalog: Sequence[Path],
    counters: Mapping[str, Any],
    **sections: Mapping[str, Any],
) -> Iterator[Replica]:
    """An extauthz that counts in Redis as these settings say, until the block ends."""
    admin = f"127.0.0.1:{find_free_port()}"
    settings = {
        "listen": {"admin": admin},
        "catalog": {"files": [str(file) for file in catalog]},
        "counters": {"store": "redis", **counters},
        **sections,
    }
    options = [("grpc.enable_http_proxy", 0)]
    with (
        deployment.run_service("replica", settings) as service,
        grpc.insecure_channel(service.grpc_address, options) as channel,
        httpx2.Client(base_url=f"http://{admin}", timeout=TURN_S, trust_env=False) as http,
    ):
        yield Replica(service.process, service.log_file, service.grpc_address, channel, http)
