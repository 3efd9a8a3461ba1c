"""Behind an Envoy that an operator has changed: what its settings do to a decision.

One Envoy has a listener for each setting. What is shown here stands in the page on Envoy.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest
import yaml

from extauthz.demo.processes import run_envoy
from extauthz.envoy.configuration.bootstrap import write_bootstrap
from extauthz.envoy.configuration.parameters import EnvoyParameters, UnderscoreHeaders, Upstream
from tests.e2e.envoys import EnvoyVersion, find_envoy_binary
from tests.e2e.raw_upstreams import Http2Echo, WebSocketEcho, send_with_trailers, serve
from tests.e2e.running import PATIENT_MS, Deployment, next_client
from tests.e2e.world import World
from tests.free_ports import find_free_port

pytestmark = pytest.mark.e2e

PUBLIC: Final = "/sides/1.0.0/public/x"
SECRET: Final = "/sides/1.0.0/secret/x"
KEYS: Final = "/keys/1.0.0/open"
HTTP2: Final = "http2.example"
PLAIN_HTTP2: Final = "plain-http2.example"
WEBSOCKET: Final = "websocket.example"
ORIGIN: Final = "https://shop.example"
MESH_CLUSTER: Final = "outbound|9001||extauthz.default.svc.cluster.local"

Tree = dict[str, Any]


def _ext_authz(**fields: Any) -> Callable[[Tree], None]:
    def change(manager: Tree) -> None:
        manager["http_filters"][0]["typed_config"].update(fields)

    return change


def _rules(**rules: bool) -> Callable[[Tree], None]:
    return _ext_authz(decoder_header_mutation_rules=rules)


def _ask(**fields: Any) -> Callable[[Tree], None]:
    return _ext_authz(
        grpc_service={"timeout": f"{PATIENT_MS / 1000}s", "envoy_grpc": fields},
    )


def _manager(**fields: Any) -> Callable[[Tree], None]:
    return lambda manager: manager.update(fields)


def _answer_cors(manager: Tree) -> None:
    """Envoy's own filter, in front of ext_authz, for pages of one origin."""
    name, kind = (
        "envoy.filters.http.cors",
        "type.googleapis.com/envoy.extensions.filters.http.cors.v3.",
    )
    manager["http_filters"].insert(0, {"name": name, "typed_config": {"@type": f"{kind}Cors"}})
    policy = {
        "@type": f"{kind}CorsPolicy",
        "allow_origin_string_match": [{"exact": ORIGIN}],
        "allow_methods": "GET",
        "allow_headers": "x-api-key",
        "expose_headers": "www-authenticate, retry-after, ratelimit",
    }
    for host in manager["route_config"]["virtual_hosts"]:
        host["typed_per_filter_config"] = {name: policy}


def _take_many_headers(manager: Tree) -> None:
    manager["max_request_headers_kb"] = 256
    manager["common_http_protocol_options"]["max_headers_count"] = 1000


CHANGES: Final[Mapping[str, Callable[[Tree], None]]] = {
    "printed": lambda _: None,
    "some headers": _ext_authz(
        allowed_headers={"patterns": [{"exact": "x-api-key"}, {"exact": "x-forwarded-for"}]}
    ),
    "some headers and the host": _ext_authz(
        allowed_headers={
            "patterns": [
                {"exact": "x-api-key"},
                {"exact": "x-forwarded-for"},
                {"exact": ":authority"},
            ]
        }
    ),
    "no address": _ext_authz(allowed_headers={"patterns": [{"exact": "x-api-key"}]}),
    "disallow_all": _rules(disallow_all=True),
    "disallow_all is error": _rules(disallow_all=True, disallow_is_error=True),
    "disallow_system": _rules(disallow_system=True),
    "disallow_system is error": _rules(disallow_system=True, disallow_is_error=True),
    "empty rules": _rules(),
    "body_format": _manager(
        local_reply_config={"body_format": {"json_format": {"said": "%LOCAL_REPLY_BODY%"}}}
    ),
    "cors": _answer_cors,
    "many headers": _take_many_headers,
    "mesh cluster": _ask(cluster_name=MESH_CLUSTER),
    "mesh cluster with authority": _ask(cluster_name=MESH_CLUSTER, authority="extauthz"),
}


class OwnEnvoy:
    """A running Envoy, and its access log once it has ended."""

    def __init__(self, ports: Mapping[str, int], log_file: Path) -> None:
        self._ports, self._log_file = ports, log_file
        self.http = httpx2.Client(trust_env=False, timeout=60)

    def call(
        self, listener: str, method: str, path: str, headers: Mapping[str, str]
    ) -> httpx2.Response:
        url = f"http://127.0.0.1:{self._ports[listener]}{path}"
        return self.http.request(method, url, headers={"x-forwarded-for": next_client(), **headers})

    def port(self, listener: str) -> int:
        return self._ports[listener]

    def read_log(self) -> list[Tree]:
        """The lines of the access log."""
        lines = self._log_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.fixture(scope="module")
def running(
    deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[OwnEnvoy, ExitStack]]:
    folder = tmp_path_factory.mktemp("own-envoy")
    ports = {name: find_free_port() for name in CHANGES}
    admin_port = find_free_port()
    with ExitStack() as stack:
        written = _write_envoy(
            ports,
            admin_port,
            extauthz=deployment.service().grpc_address,
            echo=deployment.http_upstream,
            http2=stack.enter_context(serve(Http2Echo)),
            websocket=stack.enter_context(serve(WebSocketEcho)),
        )
        file, log_file = folder / "envoy.yaml", folder / "envoy.log"
        file.write_text(yaml.safe_dump(written))
        binary = find_envoy_binary(EnvoyVersion.NEWEST)
        own = OwnEnvoy(ports, log_file)
        stack.enter_context(own.http)
        stack.enter_context(run_envoy(file, admin_port, log_file, binary))
        yield own, stack


@pytest.fixture(scope="module")
def envoy(running: tuple[OwnEnvoy, ExitStack]) -> OwnEnvoy:
    return running[0]


def _write_envoy(
    ports: Mapping[str, int],
    admin_port: int,
    *,
    extauthz: str,
    echo: str,
    http2: str,
    websocket: str,
) -> Tree:
    """One Envoy: the printed bootstrap, with a changed listener for each setting."""
    written = []
    for name, port in ports.items():
        parameters = EnvoyParameters(
            upstreams=(
                Upstream(address=http2, name="http2", hosts=(HTTP2,), speaks_http2=True),
                Upstream(address=http2, name="plain", hosts=(PLAIN_HTTP2,), speaks_http2=True),
                Upstream(address=websocket, name="websocket", hosts=(WEBSOCKET,)),
                Upstream(address=echo),
            ),
            extauthz=extauthz,
            listen=f"127.0.0.1:{port}",
            admin_port=admin_port,
            timeout_ms=PATIENT_MS,
            # What extauthz does by itself is looked at here.
            underscore_headers=UnderscoreHeaders.ALLOW,
        )
        one = write_bootstrap(parameters)
        (listener,) = one["static_resources"]["listeners"]
        listener["name"] = name
        CHANGES[name](listener["filter_chains"][0]["filters"][0]["typed_config"])
        written.append(one)
    whole = written[0]["static_resources"]
    whole["listeners"] = [one["static_resources"]["listeners"][0] for one in written]
    clusters = {one["name"]: one for one in whole["clusters"]}
    whole["clusters"].append({**clusters["extauthz"], "name": MESH_CLUSTER})
    (options,) = clusters["plain"]["typed_extension_protocol_options"].values()
    del options["http_filters"]  # as in a configuration that nobody printed
    return written[0]


def seen_by_upstream(answer: httpx2.Response) -> tuple[str, dict[str, str]]:
    """Target and header fields."""
    assert answer.status_code == 200, answer.text
    seen = answer.json()
    return seen["target"], {name.lower(): value for name, value in seen["headers"]}


# Header fields that the service is not shown


def test_what_is_hidden_from_the_service_does_not_pass(envoy: OwnEnvoy, world: World) -> None:
    sent = {
        "x-api-key": world.keys["mobile"],
        "apikey": "another",
        "x_api_key": "a-third",
        "x-extauthz-user": "forged",
        "x_extauthz_user": "forged",
        "x-extauthz_tier": "forged",
        "x-other": "1",
    }
    # Seen, there are two keys that differ; so nobody knows which one counts.
    assert envoy.call("printed", "GET", SECRET, sent).json()["reason"] == "ambiguous_credentials"
    for listener in ("some headers", "some headers and the host"):
        _, headers = seen_by_upstream(envoy.call(listener, "GET", SECRET, sent))
        assert headers["x-extauthz-user"] == "alice"
        assert headers["x-other"] == "1"
        assert headers.keys().isdisjoint(
            {"x-api-key", "apikey", "x_api_key", "x_extauthz_user", "x-extauthz_tier"}
        )


def test_a_client_whose_address_is_hidden_is_refused_by_rules_that_ask_for_it(
    envoy: OwnEnvoy, world: World
) -> None:
    answer = envoy.call("no address", "GET", SECRET, {"x-api-key": world.keys["mobile"]})
    assert answer.status_code == 400
    assert "address is not known" in answer.json()["detail"]


def test_hidden_headers_are_told_of_in_the_log(
    deployment: Deployment, envoy: OwnEnvoy, world: World
) -> None:
    envoy.call("some headers", "GET", SECRET, {"x-api-key": world.keys["mobile"]})
    log = deployment.service().log_file.read_text()
    assert log.count("Envoy keeps header fields from this service") == 1


# Rules for mutations

FORGED: Final = {"x-extauthz-user": "forged"}


def test_without_mutations_a_forged_identity_and_the_key_pass(
    envoy: OwnEnvoy, world: World
) -> None:
    """Nothing in Envoy's question shows that it will not do what it is told."""
    sent = {**FORGED, "x-api-key": world.keys["mobile"]}
    _, headers = seen_by_upstream(envoy.call("disallow_all", "GET", SECRET, sent))
    assert headers["x-extauthz-user"] == "forged"
    assert headers["x-api-key"] == world.keys["mobile"]
    assert envoy.call("disallow_all is error", "GET", SECRET, sent).status_code == 500


def test_without_system_mutations_a_key_in_the_query_stays(envoy: OwnEnvoy, world: World) -> None:
    target = f"{KEYS}?apikey={world.keys['mobile']}"
    path, headers = seen_by_upstream(envoy.call("disallow_system", "POST", target, FORGED))
    assert path == target
    assert headers["x-extauthz-user"] == "alice"
    assert envoy.call("disallow_system is error", "POST", target, FORGED).status_code == 500


@pytest.mark.parametrize("listener", ["printed", "empty rules"])
def test_with_rules_that_allow_it_all_is_done(envoy: OwnEnvoy, world: World, listener: str) -> None:
    target = f"{KEYS}?a=1&apikey={world.keys['mobile']}"
    path, headers = seen_by_upstream(envoy.call(listener, "POST", target, FORGED))
    assert path == f"{KEYS}?a=1"
    assert headers["x-extauthz-user"] == "alice"


# Answers


def test_a_format_for_local_replies_takes_the_place_of_ours(envoy: OwnEnvoy) -> None:
    ours = envoy.call("printed", "GET", SECRET, {})
    formatted = envoy.call("body_format", "GET", SECRET, {})
    assert ours.headers["content-type"] == "application/problem+json"
    assert formatted.headers["content-type"] == "application/json"
    assert formatted.status_code == ours.status_code == 401
    assert formatted.headers["www-authenticate"] == ours.headers["www-authenticate"]
    assert json.loads(formatted.json()["said"])["reason"] == "missing_credentials"


# Trailers


@pytest.mark.parametrize(
    ("upstream", "passing"), [(HTTP2, {"x-other"}), (PLAIN_HTTP2, {"x-other", *FORGED})]
)
def test_the_printed_bootstrap_takes_identity_out_of_trailers(
    envoy: OwnEnvoy, upstream: str, passing: set[str]
) -> None:
    headers = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", PUBLIC),
        (":authority", upstream),
        ("x-forwarded-for", next_client()),
    ]
    trailers = [*FORGED.items(), ("x-other", "1")]
    status, body = send_with_trailers(envoy.port("printed"), headers, trailers)
    assert status == 200, body
    seen = json.loads(body)
    assert dict(seen["trailers"]).keys() == passing
    assert "x-extauthz-user" not in dict(seen["headers"])


# The cluster's name as the authority of calls


def test_a_cluster_of_a_mesh_needs_an_authority_of_its_own(
    deployment: Deployment, envoy: OwnEnvoy, world: World
) -> None:
    """Envoy takes the cluster's name for one, and an Envoy that is called refuses "|" in it."""
    sent = {"x-api-key": world.keys["mobile"]}
    assert envoy.call("mesh cluster with authority", "GET", SECRET, sent).status_code == 200
    status = envoy.call("mesh cluster", "GET", SECRET, sent).status_code
    assert status == (503 if deployment.host == "envoy" else 200)


# Browsers, and requests with many headers


def test_envoys_cors_filter_answers_preflights_and_lets_scripts_read_denials(
    envoy: OwnEnvoy,
) -> None:
    asks = {"origin": ORIGIN, "access-control-request-method": "GET"}
    preflight = envoy.call("cors", "OPTIONS", SECRET, asks)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == ORIGIN
    assert preflight.headers["access-control-allow-headers"] == "x-api-key"
    denied = envoy.call("cors", "GET", SECRET, {"origin": ORIGIN})
    assert denied.status_code == 401
    assert denied.headers["access-control-allow-origin"] == ORIGIN
    assert "www-authenticate" in denied.headers["access-control-expose-headers"]
    # Without it, the preflight has no credential, and a script cannot read why it was denied.
    assert envoy.call("printed", "OPTIONS", SECRET, asks).status_code == 405
    assert "access-control-allow-origin" not in envoy.call("printed", "GET", SECRET, asks).headers


@pytest.mark.parametrize(
    ("listener", "headers", "status"),
    [
        ("printed", {f"x-{number}": "1" for number in range(80)}, 200),
        ("printed", {f"x-{number}": "1" for number in range(101)}, 431),
        ("printed", {"x-long": "a" * 50_000}, 200),
        ("printed", {"x-long": "a" * 62_000}, 431),
        ("many headers", {f"x-{number}": "a" * 200 for number in range(900)}, 200),
        ("many headers", {f"x-{number}": "1" for number in range(1001)}, 431),
    ],
)
def test_as_many_headers_as_envoy_takes_are_decided_on(
    envoy: OwnEnvoy, listener: str, headers: Mapping[str, str], status: int
) -> None:
    assert envoy.call(listener, "GET", PUBLIC, headers).status_code == status


# WebSocket


def _shake_hands(port: int, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """The status of a handshake, and what came back of "ping" behind it."""
    sent = {
        "host": WEBSOCKET,
        "connection": "upgrade",
        "upgrade": "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "x-forwarded-for": next_client(),
        **headers,
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    with socket.create_connection(("127.0.0.1", port), timeout=60) as wire:
        wire.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
        with wire.makefile("rb") as answer:
            status = int(answer.readline().split()[1])
            while answer.readline().strip():
                pass
            if status != 101:
                return status, b""
            wire.sendall(b"ping")
            return status, answer.read(4)


def test_a_websocket_opens_after_an_allow_and_not_after_a_denial(
    envoy: OwnEnvoy, world: World
) -> None:
    port = envoy.port("printed")
    key = {"x-api-key": world.keys["mobile"]}
    assert _shake_hands(port, SECRET, key) == (101, b"ping")
    assert _shake_hands(port, SECRET, {}) == (401, b"")
    assert _shake_hands(port, SECRET, {"x-api-key": "guess"}) == (401, b"")


# The access log: the last test, as it ends Envoy, which writes its log out by then


def test_the_access_log_says_what_was_decided(
    running: tuple[OwnEnvoy, ExitStack], world: World
) -> None:
    envoy, stack = running
    key = world.keys["mobile"]
    target = f"{KEYS}?apikey={key}"
    assert envoy.call("printed", "POST", target, {"x-request-id": "in-query"}).status_code == 200
    stack.close()
    lines = envoy.read_log()
    assert not any(key in json.dumps(line) for line in lines)
    opened = [line for line in lines if line["upgrade"] == "websocket"]
    assert [(line["status"], line["decision"]["reason"]) for line in opened] == [
        (101, "allowed"),
        (401, "missing_credentials"),
        (401, "invalid_credentials"),
    ]
    told = opened[0]["decision"]
    assert (told["api"], told["version"], told["resource"]) == ("Sides", "1.0.0", "/secret/*")
    assert (told["application"], told["user"]) == ("mobile", "alice")
    assert told["ext_authz_duration"] >= 0
    assert told["decision_id"]
    assert opened[1]["status_details"] == "ext_authz_denied"
    (by_query,) = [line for line in lines if line["path"] == KEYS and line["status"] == 200][-1:]
    assert (by_query["method"], by_query["decision"]["tier"]) == ("POST", "Gold")
