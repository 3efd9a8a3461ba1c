"""What a service tells of itself is searched for what it must not: in each form in which it tells.

One service is asked with credentials of every kind, good and bad, at both doors, through a real
Envoy and past it. Then its spans, its metrics, the pages of the admin listener, its log at level
debug, the log of decisions, the records of usage and its denials are searched for keys, tokens,
users, and for what stood in the paths and queries of requests.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import httpx2
import pytest
import yaml

from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest, Peer
from tests.e2e.deciding.test_reasons import CASES, UNAVAILABLE, call_http
from tests.e2e.operating.test_usage import report_soon
from tests.e2e.running import Deployment, Gateway
from tests.e2e.world import World
from tests.free_ports import find_free_port
from tests.mixer_compat.asking import (
    APIKEY,
    AUTHORIZATION,
    METRIC,
    QUOTA,
    a_metric,
    a_quota,
    an_apikey,
    an_authorization,
)
from tests.redis_server import RedisServer
from tests.telemetry.collectors import Collector, run_grpc_collector

pytestmark = pytest.mark.e2e

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
PAGES: Final = ("/metrics", "/readyz")
"""Beside those of the API, which its own document names."""
PRINCIPAL: Final = "spiffe://cluster.local/ns/default/sa/erin"


@dataclass(frozen=True, slots=True)
class Planted:
    """Texts that are made up for this test.

    Attributes:
        name: of an API, and of a file with a warning. It is shown, which proves that the search
            finds what is.
        segment: in a path, where the template has a name.
        value: of a query parameter, and of a header field.
        guess: a credential that nobody has.
    """

    name: str = field(default_factory=lambda: f"planted-{secrets.token_hex(8)}")
    segment: str = field(default_factory=lambda: f"segment-{secrets.token_hex(8)}")
    value: str = field(default_factory=lambda: f"value-{secrets.token_hex(8)}")
    guess: str = field(default_factory=lambda: f"guess-{secrets.token_hex(8)}")

    @property
    def path(self) -> str:
        """A path, with a query."""
        return f"/planted/1.0.0/things/{self.segment}?q={self.value}"


def write_catalog(file: Path, planted: Planted) -> None:
    """An API beside the world's, for credentials of every kind; a rule that is warned of."""
    resource = {"methods": ["POST"], "path": "/things/{thing}"}
    api = {"name": planted.name, "version": "1.0.0", "context": "/planted"}
    schemes = ["mtls", "jwt", "opaque", "api_key"]
    places = [{"header": "x-api-key"}, {"query": "apikey"}, {"cookie": "session"}]
    tree = {
        "apis": [
            {
                **api,
                "security": schemes,
                "api_key_places": places,
                "subscription": "none",
                "resources": [resource],
            }
        ],
        "applications": [{"name": "certified", "certificates": [{"principal": PRINCIPAL}]}],
        "deny": [{"application": "nobody"}],
    }
    file.write_text(yaml.safe_dump(tree))


def list_needles(world: World, planted: Planted) -> set[str]:
    """What must not be found anywhere."""
    digests = {hashlib.sha256(key.encode()).hexdigest() for key in world.keys.values()}
    users = {"carol", "dave", "erin", "alice"}
    return {*world.secrets, *digests, *users, planted.segment, planted.value, planted.guess}


def search(told: Mapping[str, bytes], needles: Iterable[str]) -> list[str]:
    """Where which of the needles was found."""
    return [
        f"{needle} in {source}"
        for source, text in told.items()
        for needle in needles
        if needle.encode() in text
    ]


def list_credentials(world: World, planted: Planted) -> list[dict[str, str]]:
    """Header fields with a credential each: of every kind, good and bad."""
    leaky = f'{{"error": "no {planted.guess}"}}'
    tokens = [
        world.sign(),
        world.sign(exp=1_000_000_000),
        world.sign(aud="elsewhere"),
        world.sign(sub=planted.guess),
        world.sign(iss=f"https://{planted.guess}.example/"),
        world.sign(header={"kid": planted.guess}),
        world.sign(header={"alg": planted.guess}),
        world.sign()[:-4],
        world.make_opaque(),
        world.make_opaque(active=False),
        world.make_opaque(sub=planted.guess),
        world.make_refused(500, leaky),
        world.make_refused(400, leaky),
        planted.guess,
        f"{planted.guess}.{planted.guess}.{planted.guess}",
        f"{planted.guess} {planted.guess}",
    ]
    keys = (world.keys["mobile"], world.keys["outdated"], planted.guess)
    return [
        {},
        *({"authorization": f"Bearer {token}"} for token in tokens),
        *({"x-api-key": key} for key in keys),
        *({"cookie": f"session={key}"} for key in keys),
        {"authorization": f"Basic {planted.guess}"},
        {"x-forwarded-client-cert": f"Hash={'0' * 64};URI={PRINCIPAL}"},
        {"x-forwarded-client-cert": f"By={planted.guess};URI=spiffe://{planted.guess}"},
        {"x-forwarded-for": planted.guess},
    ]


def ask_through_envoy(gateway: Gateway, world: World, planted: Planted) -> list[bytes]:
    """Makes the requests; gives the denials that clients saw."""
    answers = [call_http(gateway, world, case) for case in (*CASES, UNAVAILABLE)]
    more = {"x-secret": planted.value}
    for headers in list_credentials(world, planted):
        answers.append(gateway.call("POST", planted.path, {**headers, **more}))
        answers.append(gateway.call("PUT", f"/{planted.segment}?apikey={planted.guess}", headers))
    answers += [
        gateway.call("POST", f"{planted.path}&apikey={key}", more)
        for key in (world.keys["mobile"], planted.guess)
    ]
    assert {answer.status_code for answer in answers} >= {200, 400, 401, 403, 404, 429, 503}
    return [
        repr((answer.headers.multi_items(), answer.text)).encode()
        for answer in answers
        if answer.status_code != httpx2.codes.OK
    ]


def ask_past_envoy(address: str, mixer: str, world: World, planted: Planted) -> None:
    """Asks both doors for what no Envoy would, and as Mixer does."""
    peer = Peer(principal=PRINCIPAL)
    peer.address.socket_address.address = "192.0.2.1"
    request = CheckRequest()
    request.attributes.source = peer.SerializeToString()
    http = request.attributes.request.http
    http.method, http.path, http.host = "POST", planted.path, "api.example"
    with grpc.insecure_channel(address) as channel:
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        for message in (request.SerializeToString(), planted.guess.encode(), b""):
            check(message, timeout=60)
    with grpc.insecure_channel(mixer) as channel:
        for key in (world.keys["mobile"], planted.guess):
            asked = {"method": "POST", "path": planted.path, "api_key": key, "token": planted.guess}
            calls = (
                (AUTHORIZATION, an_authorization(asked)),
                (APIKEY, an_apikey(f"POST {planted.path}", key, planted.name)),
                (QUOTA, a_quota(asked)),
                (METRIC, a_metric([asked])),
            )
            for path, asking in calls:
                call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path)
                call(asking.SerializeToString(), timeout=60)
                with suppress(grpc.RpcError):
                    call(planted.guess.encode(), timeout=60)


def read_pages(address: str) -> dict[str, bytes]:
    """What the admin listener shows, by page."""
    told = {}
    with httpx2.Client(base_url=f"http://{address}", timeout=60, trust_env=False) as client:
        document = client.get("/api/openapi.json").json()
        api = [path for path, methods in document["paths"].items() if "get" in methods]
        for page in (*PAGES, *api):
            answer = client.get(page)
            assert answer.status_code == httpx2.codes.OK, (page, answer.text)
            told[page] = answer.content
    return told


def write_spans(collector: Collector) -> bytes:
    return b"\n".join(received.span.SerializeToString() for received in collector.spans())


def write_logs(collector: Collector) -> dict[str, bytes]:
    """The log records that came: lines of the service's log, and decisions."""
    logs = [received.record for received in collector.logs()]
    lines = [record.SerializeToString() for record in logs if not record.event_name]
    decisions = [record.SerializeToString() for record in logs if record.event_name]
    return {"sent log": b"\n".join(lines), "sent decisions": b"\n".join(decisions)}


def test_nothing_tells_a_key_a_token_a_user_or_a_path(
    deployment: Deployment, world: World, tmp_path: Path
) -> None:
    planted = Planted()
    catalog = tmp_path / f"{planted.name}.yaml"
    decisions, usage = tmp_path / "decisions.jsonl", tmp_path / "usage.jsonl"
    write_catalog(catalog, planted)
    admin, mixer = (f"127.0.0.1:{find_free_port()}" for _ in range(2))
    redis = RedisServer(tmp_path).start()
    told: dict[str, bytes] = {}
    with run_grpc_collector() as collector:
        settings: dict[str, Any] = {
            "catalog": {"files": [str(world.catalog), str(catalog)]},
            "counters": {"store": "redis", "url": f"redis://127.0.0.1:{redis.port}"},
            "credentials": {"trust_xfcc": True},
            "listen": {"admin": admin, "mixer": mixer},
            "log": {
                "format": "json",
                "otlp": True,
                "decisions": {"file": str(decisions), "otlp": True},
            },
            "usage": {"file": {"path": str(usage)}},
            "telemetry": {
                "otlp": {"endpoint": collector.url},
                "trace_ratio": 1,
                "request_context": "follow",
            },
        }
        environment = {
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_BLRP_SCHEDULE_DELAY": "50",
            "NO_PROXY": "127.0.0.1",
        }
        with (
            deployment.run_service("searched", settings, environment=environment) as service,
            deployment.run_gateway(
                service.grpc_address, change=report_soon, access_logs=True
            ) as gateway,
        ):
            told["denials"] = b"\n".join(ask_through_envoy(gateway, world, planted))
            ask_past_envoy(service.grpc_address, mixer, world, planted)
            redis.kill()
            # Errors of a dependency that is away are told, too.
            gateway.call("POST", planted.path, {"x-api-key": world.keys["mobile"]})
            told |= read_pages(admin)
        told |= {"spans": write_spans(collector), **write_logs(collector)}
    told["log"] = service.log_file.read_bytes()
    told["decisions"] = decisions.read_bytes()
    told["usage"] = usage.read_bytes()
    # What is shown is found: the search could fail.
    shown = {place.partition(" in ")[2] for place in search(told, [planted.name])}
    pages = {"/metrics", "/api/decisions", "/api/denials"}
    assert shown >= {"spans", "log", "sent log", "decisions", "sent decisions", "usage", *pages}
    assert all(json.loads(line)["body"] for line in told["log"].splitlines())
    assert b"extauthz_dependency_calls_total" in told["/metrics"]
    assert search(told, list_needles(world, planted)) == []


def test_whatever_a_service_of_the_run_tells_is_searched_at_its_end(
    deployment: Deployment,
) -> None:
    """What is shown is found in each form: the search at the end of the run could fail."""
    told = deployment.told
    with (
        deployment.run_service("telling", {}, tells_all=True) as service,
        deployment.run_gateway(service.grpc_address, told=told) as gateway,
    ):
        key = {"x-api-key": f"wrong-{secrets.token_hex(8)}"}
        assert gateway.call("POST", "/keys/1.0.0/open", key).status_code == 401
        told.collector.wait_for(CHECK.removeprefix("/"))
    shown = told.find_leaks(["invalid_credentials"])
    places = {place.rpartition("/")[2].rpartition(" in ")[2] for place in shown}
    assert places >= {"spans", "answers", "pages.txt", "decisions.jsonl"}
    assert any(str(service.log_file) in place for place in told.find_leaks([service.grpc_address]))
