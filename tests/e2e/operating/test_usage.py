"""A record of usage for each request through a real Envoy, whatever became of it."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from extauthz.model.decision import Reason
from tests.e2e.backends import WANTED_STATUS
from tests.e2e.deciding.test_reasons import CASES, MEANINGS, UNAVAILABLE, Case, call_http
from tests.e2e.envoys import EnvoyVersion
from tests.e2e.running import PATIENT_MS, Deployment, Gateway, next_client
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

OPEN: Final = "/world/1.0.0/open"
BODY: Final = b"0123456789"
_WAIT_S: Final = 60

Record = dict[str, Any]


ENDS: Final[tuple[tuple[str, str, Record], ...]] = (
    # What an upstream or Envoy answers, and what the record says of it.
    (
        "503",
        OPEN,
        {"status": 503, "outcome": "allow", "details": "via_upstream", "destination": "upstream"},
    ),
    (
        "404",
        OPEN,
        {"status": 404, "outcome": "allow", "details": "via_upstream", "destination": "upstream"},
    ),
    # Envoy itself refuses this path, and asks nobody.
    (
        "200",
        f"{OPEN}%2F..",
        {
            "status": 400,
            "outcome": "unknown",
            "details": "path_normalization_failed",
        },
    ),
)


def report_soon(bootstrap: dict[str, Any]) -> None:
    """Makes an Envoy report each request at once."""
    bootstrap["node"] = {"id": "gateway-1", "cluster": "gateways"}
    manager = bootstrap["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]
    for log in manager["typed_config"]["access_log"]:
        config = log["typed_config"].get("common_config")
        if config is not None:
            config |= {"buffer_size_bytes": 0, "buffer_flush_interval": "0.02s"}


@dataclass(frozen=True, slots=True)
class Metered:
    """A gateway that reports usage, and what was written of it."""

    gateway: Gateway
    file: Path

    def find(self, value: str, many: int = 1, field: str = "user_agent") -> list[Record]:
        """The records of the requests with this value in a field, once they are there."""
        found: list[Record] = []
        for _ in attempts():
            records = [json.loads(line) for line in self.file.read_text().splitlines()]
            found = [record for record in records if record.get(field) == value]
            if len(found) >= many:
                break
        assert len(found) == many, found
        return found


def attempts() -> Iterator[None]:
    end_s = time.monotonic() + _WAIT_S
    pause = threading.Event()
    while time.monotonic() < end_s:
        yield
        pause.wait(0.02)


@pytest.fixture(scope="module")
def metered(deployment: Deployment) -> Callable[[EnvoyVersion], Metered]:
    """For each Envoy, a gateway that reports to one service with a file of usage."""
    made: dict[EnvoyVersion, Metered] = {}
    file = deployment.folder / "usage.jsonl"
    settings = {"usage": {"file": {"path": str(file)}, "client_address": "full"}}
    service = deployment.stack.enter_context(deployment.run_service("usage", settings))

    def find(version: EnvoyVersion) -> Metered:
        if version not in made:
            gateway = deployment.stack.enter_context(
                deployment.run_gateway(
                    service.grpc_address, version, change=report_soon, access_logs=True
                )
            )
            made[version] = Metered(gateway, file)
        return made[version]

    return find


def test_an_allowed_request_is_reported_whole(
    metered: Callable[[EnvoyVersion], Metered], world: World, version: EnvoyVersion
) -> None:
    metering, client, agent = metered(version), next_client(), f"whole/{version.value}"
    headers = {"x-api-key": world.keys["mobile"], "user-agent": agent, "x-request-id": "r-1"}
    answer = metering.gateway.http.post(
        f"{OPEN}?apikey=", headers={**headers, "x-forwarded-for": client}, content=BODY
    )
    assert answer.status_code == 200
    (record,) = metering.find(agent)
    for name in ("duration_us", "decision_us", "upstream_us"):
        assert 0 < record.pop(name) < PATIENT_MS * 1000, name
    assert record.pop("time").startswith("20")
    assert record.pop("decision")
    assert record.pop("request")
    assert record == {
        "source": "envoy_access_log",
        "proxy": "gateway-1",
        "outcome": "allow",
        "api": "World",
        "version": "1.0.0",
        "resource": "/open",
        "application": "mobile",
        "key_type": "PRODUCTION",
        "method": "POST",
        "host": "127.0.0.1",
        "protocol": "HTTP/1.1",
        "status": 200,
        "details": "via_upstream",
        "request_bytes": len(BODY),
        "response_bytes": len(answer.content),
        "user_agent": agent,
        "client_address": client,
        "destination": "upstream",
    }


def test_each_denial_is_reported_with_its_reason(
    metered: Callable[[EnvoyVersion], Metered], world: World, version: EnvoyVersion
) -> None:
    metering = metered(version)
    for case in (*CASES, UNAVAILABLE):
        agent = f"{case.title}/{version.value}"

        def with_agent(world: World, case: Case = case, agent: str = agent) -> dict[str, str]:
            return {**case.headers(world), "user-agent": agent}

        call_http(metering.gateway, world, replace(case, headers=with_agent))
    for case in (*CASES, UNAVAILABLE):
        record = metering.find(f"{case.title}/{version.value}", case.calls)[-1]
        assert record["outcome"] == "deny", case.title
        assert record["reason"] == case.reason.value, case.title
        assert record["status"] == MEANINGS[case.reason][0], case.title
        assert record.get("level", "") == (case.level.value if case.level else ""), case.title
        assert record["flags"] == ["UAEX"], case.title
        # What is refused at once is refused before the client's address is looked for.
        assert "client_address" in record or case.level is None, case.title
        if case.reason is Reason.UNAVAILABLE:
            # The call failed, and a call that fails leaves no metadata.
            assert record["details"] == "ext_authz_error"
            continue
        assert record["details"] == "ext_authz_denied"
        assert record["decision"] and record["decision_us"] > 0
        assert "api" in record or case.level is None, case.title


@pytest.mark.parametrize(("wanted", "path", "expected"), ENDS, ids=["503", "404", "bad path"])
def test_every_status_is_reported(
    metered: Callable[[EnvoyVersion], Metered],
    world: World,
    version: EnvoyVersion,
    wanted: str,
    path: str,
    expected: Record,
) -> None:
    metering, agent = metered(version), f"{wanted} {path}/{version.value}"
    headers = {"x-api-key": world.keys["mobile"], "user-agent": agent, WANTED_STATUS: wanted}
    metering.gateway.call("POST", path, headers)
    (record,) = metering.find(agent)
    assert {name: record[name] for name in expected} == expected


def test_a_client_that_goes_away_is_reported(
    metered: Callable[[EnvoyVersion], Metered], world: World, version: EnvoyVersion
) -> None:
    metering, agent = metered(version), f"gone/{version.value}"
    with socket.create_connection(("127.0.0.1", metering.gateway.port)) as connection:
        key = world.keys["mobile"]
        connection.sendall(
            f"POST {OPEN} HTTP/1.1\r\nhost: x\r\nuser-agent: {agent}\r\nx-api-key: {key}\r\n"
            f"x-forwarded-for: {next_client()}\r\n{WANTED_STATUS}: 0\r\ncontent-length: 0\r\n\r\n".encode()
        )
        while b"begun" not in connection.recv(4096):
            pass
    (record,) = metering.find(agent)
    assert record["outcome"] == "allow"
    assert record["flags"] == ["DC"]
    assert record["status"] == 200


def test_a_grpc_call_is_reported(
    metered: Callable[[EnvoyVersion], Metered], world: World, version: EnvoyVersion
) -> None:
    metering, client = metered(version), next_client()
    metering.gateway.call_grpc(OPEN, (("x-api-key", world.keys["mobile"]),), client=client)
    (record,) = metering.find(client, field="client_address")
    assert (record["status"], record["protocol"], record["outcome"]) == (200, "HTTP/2", "allow")
    assert record["user_agent"].startswith("grpc-python")


def test_bytes_of_reported_requests_are_charged_to_limits_in_bytes(
    metered: Callable[[EnvoyVersion], Metered], world: World, version: EnvoyVersion
) -> None:
    metering = metered(version)
    headers = {"x-api-key": world.keys["uploader"], "x-forwarded-for": next_client()}
    answer = metering.gateway.http.post(OPEN, headers=headers)
    for _ in attempts():
        if answer.status_code != 200:
            break
        answer = metering.gateway.http.post(OPEN, headers=headers, content=b"x" * 300_000)
    assert answer.status_code == 429
    assert answer.json()["level"] == "subscription"
