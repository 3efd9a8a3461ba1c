"""The path that was decided on is the path that the upstream gets, whatever the client writes.

Envoy's own normalisation is turned off: nothing but extauthz stands between.
"""

from __future__ import annotations

import http.client
import itertools
import json
import posixpath
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote

import pytest

from extauthz.envoy.configuration.parameters import EscapedSlashes
from tests.e2e.envoys import EnvoyVersion
from tests.e2e.running import Deployment, Gateway, next_client
from tests.e2e.world import World

pytestmark = pytest.mark.e2e

AS_IT_COMES: Final[dict[str, Any]] = {
    "normalize_path": False,
    "merge_slashes": False,
    "escaped_slashes": EscapedSlashes.KEEP_UNCHANGED,
}
PUBLIC: Final = "/sides/1.0.0/public/x"
SECRET: Final = "/sides/1.0.0/secret"


@dataclass(frozen=True, slots=True)
class Answer:
    """Of a raw request. `target` is what the upstream saw; None when it saw nothing."""

    status: int
    target: str | None
    reason: str


def send(gateway: Gateway, target: str, *, method: str = "GET", headers: str = "") -> Answer:
    """Sends a request target byte for byte, as no client library would."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=60) as connection:
        connection.sendall(
            f"{method} {target} HTTP/1.1\r\nhost: any.example\r\nconnection: close\r\n"
            f"x-forwarded-for: {next_client()}\r\n{headers}\r\n".encode("latin-1")
        )
        response = http.client.HTTPResponse(connection, method=method)
        response.begin()
        return read_answer(response)


def read_answer(response: http.client.HTTPResponse) -> Answer:
    body = response.read()
    if response.headers.get("x-upstream"):
        return Answer(response.status, json.loads(body)["target"], "")
    is_ours = response.headers.get("content-type") == "application/problem+json"
    return Answer(response.status, None, json.loads(body)["reason"] if is_ours else "")


def could_be_secret(target: str) -> bool:
    """Whether any reader, however careless, could take a target for the secret resource."""
    path = target.partition("?")[0].partition("#")[0]
    for _ in range(3):
        without_parameters = "/".join(segment.partition(";")[0] for segment in path.split("/"))
        for read in (path, without_parameters, path.replace("\\", "/")):
            if posixpath.normpath("/" + read.lstrip("/")).lower().startswith(SECRET):
                return True
        path = unquote(path)
    return False


REFUSED: Final = (
    f"{PUBLIC}/../../secret/x",
    "/sides/1.0.0/public/../secret/x",
    "/sides/1.0.0/public/%2e%2e/secret/x",
    "/sides/1.0.0/public/%2E./secret/x",
    "/sides/1.0.0/public/.%2e/secret/x",
    "/sides/1.0.0/public//../secret/x",
    "/sides/1.0.0/secret/./x",
    "/sides/1.0.0/secret/%78",
    "/sides//1.0.0/secret/x",
    "http://any.example/sides/1.0.0/public/../secret/x",
    "/sides/1.0.0/public/..%2fsecret/x",
    "/sides/1.0.0/public/..%2Fsecret/x",
    "/sides/1.0.0/public%2f..%2fsecret%2fx",
    "/sides/1.0.0/public/..%5csecret%5cx",
    "/sides/1.0.0/public/..\\secret\\x",
    "/sides/1.0.0/public/..;/secret/x",
    "/sides/1.0.0/public/..;a=b/secret/x",
    "/sides/1.0.0/public/..%3b/secret/x",
    "/sides/1.0.0/public;/../secret/x",
    "/sides/1.0.0/public/%252e%252e/secret/x",
    "/sides/1.0.0/public/..%252fsecret/x",
    "/sides/1.0.0/public/x%00",
    "/sides/1.0.0/public/x%00/../../secret/x",
    "/sides/1.0.0/public/x%0d%0a",
    "/sides/1.0.0/public/x%7f",
    "/sides/1.0.0/public/%",
    "/sides/1.0.0/public/%2",
    "/sides/1.0.0/public/%zz",
    "/sides/1.0.0/public/\xfc",
    "/sides/1.0.0/public/<x>",
    "/../sides/1.0.0/public/x",
    "/%2e%2e/sides/1.0.0/public/x",
    "/sides/1.0.0/public/x#/../../secret/x",
    "//sides/1.0.0/public/x",
    "/sides/1.0.0//public/x",
    "/sides/1.0.0/public//x",
    "/sides/1.0.0/./public/x",
    "/sides/1.0.0/public/%2e/x",
    "/sides/1.0.0/secret/../public/x",
    "/sides/1.0.0/secret/%2e%2e/public/x",
    "/sides/1.0.0/%70ublic/x",
    "/sides/1.0.0/public/x/../y/",
    "http://any.example/sides/1.0.0/public/./x",
    "/sides/1.0.0//public/x?a=%2e%2e//&b",
    "/sides/1.0.0/public/..%23",
    "/sides/1.0.0/public/x%3Fy",
    "/sides/1.0.0/public/x%2523",
    "/sides/1.0.0/%70ublic%2F..%2Fsecret/x",
)
SENT_ON: Final = (
    PUBLIC,
    f"{PUBLIC}?a=/../../secret/x",
    f"{PUBLIC}?a=%2e%2e%2f;b&c=\\",
    "/sides/1.0.0/public/...",
    "/sides/1.0.0/public/%C3%BC",
    "/sides/1.0.0/public/%c3%bc",
    "/sides/1.0.0/public/%20",
    "/sides/1.0.0/public/a:b@c,d=e!$&'()*+~",
)


@pytest.mark.parametrize("target", REFUSED)
def test_a_path_that_two_could_read_differently_is_refused(
    deployment: Deployment, version: EnvoyVersion, target: str
) -> None:
    answer = send(deployment.gateway(version, **AS_IT_COMES), target)
    assert (answer.status, answer.target) == (400, None)
    # A few are refused by Envoy's own parser; all others by us, with this reason.
    assert answer.reason in {"malformed_request", ""}
    if answer.reason == "":
        assert any(mark in target for mark in ("#", "\xfc"))


@pytest.mark.parametrize("target", SENT_ON)
def test_a_path_in_its_normal_form_is_sent_on_as_it_is(
    deployment: Deployment, version: EnvoyVersion, target: str
) -> None:
    answer = send(deployment.gateway(version, **AS_IT_COMES), target)
    assert (answer.status, answer.target) == (200, target)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "*"),
        ("OPTIONS", "*"),
        ("GET", "sides/1.0.0/secret/x"),
        ("GET", "../sides/1.0.0/secret/x"),
        ("GET", "http:///sides/1.0.0/secret/x"),
        ("GET", "?/sides/1.0.0/secret/x"),
        ("CONNECT", "any.example:80"),
    ],
)
def test_a_target_of_another_form_reaches_nobody(
    deployment: Deployment, version: EnvoyVersion, method: str, target: str
) -> None:
    answer = send(deployment.gateway(version, **AS_IT_COMES), target, method=method)
    assert answer.target is None
    assert 400 <= answer.status < 500


def test_an_absolute_target_is_decided_on_by_its_path(
    deployment: Deployment, world: World, version: EnvoyVersion
) -> None:
    gateway = deployment.gateway(version, **AS_IT_COMES)
    key = f"x-api-key: {world.keys['mobile']}\r\n"
    assert send(gateway, f"http://any.example{PUBLIC}").target == PUBLIC
    assert send(gateway, f"http://any.example{SECRET}/x").status == 401
    assert send(gateway, f"http://any.example{SECRET}/x", headers=key).target == f"{SECRET}/x"


PIECES: Final = ("..", "%2e%2E", ".", "", "public", "secret", "..;", "..%2f")


def test_no_spelling_leads_to_the_secret_without_a_key(
    deployment: Deployment, version: EnvoyVersion
) -> None:
    gateway = deployment.gateway(version, **AS_IT_COMES)
    reached = 0
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=60)
    for pieces in itertools.product(PIECES, repeat=3):
        target = f"/sides/1.0.0/{'/'.join(pieces)}/x"
        connection.putrequest("GET", target, skip_accept_encoding=True)
        connection.putheader("x-forwarded-for", next_client())
        connection.endheaders()
        answer = read_answer(connection.getresponse())
        assert answer.status in {200, 400, 401, 404}, (target, answer)
        if answer.target is not None:
            reached += 1
            assert not could_be_secret(answer.target), (target, answer)
            assert answer.target == target
    connection.close()
    assert reached > 0


ROUTED: Final = {f"{SECRET}/": "/to-secret/", "/sides/1.0.0/public/": "/to-public/", "/": "/to-x/"}
"""Routes by prefix, as gateways have them, and what each makes of the prefix."""


@pytest.fixture(scope="module")
def routing(deployment: Deployment) -> Iterator[Gateway]:
    """An Envoy with its default normalisation, none, whose routes rewrite the prefix."""

    def add_routes(bootstrap: dict[str, Any]) -> None:
        (listener,) = bootstrap["static_resources"]["listeners"]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        for virtual_host in manager["route_config"]["virtual_hosts"]:
            (route,) = virtual_host["routes"]
            virtual_host["routes"] = [
                {
                    **route,
                    "match": {"prefix": prefix},
                    "route": {**route["route"], "prefix_rewrite": rewritten},
                }
                for prefix, rewritten in ROUTED.items()
            ]

    address = deployment.service().grpc_address
    with deployment.run_gateway(address, change=add_routes, **AS_IT_COMES) as gateway:
        yield gateway


def test_the_api_that_is_decided_on_is_the_one_that_is_routed_to(
    routing: Gateway, world: World
) -> None:
    """Without a key nothing but what the public route takes is let through, and as it came."""
    reached = 0
    connection = http.client.HTTPConnection("127.0.0.1", routing.port, timeout=60)
    spelled = ("public", "secret", "..", "%2e%2e", "", ".", "%73ecret", "public%2F..")
    for pieces in itertools.product(spelled, repeat=3):
        for key in ("", world.keys["mobile"]):
            target = f"/sides/1.0.0/{'/'.join(pieces)}/x%40y"
            connection.putrequest("GET", target, skip_accept_encoding=True)
            connection.putheader("x-forwarded-for", next_client())
            if key:
                connection.putheader("x-api-key", key)
            connection.endheaders()
            answer = read_answer(connection.getresponse())
            if answer.target is None:
                assert answer.status in {400, 401, 404}
                continue
            reached += 1
            prefix = "/sides/1.0.0/public/" if pieces[0] == "public" else f"{SECRET}/"
            assert answer.target == target.replace(prefix, ROUTED[prefix], 1)
            assert key or pieces[0] == "public"
    connection.close()
    assert reached > 0


def test_envoys_own_normalisation_agrees_with_ours(
    deployment: Deployment, version: EnvoyVersion
) -> None:
    gateway = deployment.gateway(version)
    assert send(gateway, "/sides//1.0.0/secret/../public/./x").target == PUBLIC
    assert send(gateway, "/sides/1.0.0/public/%2e%2e/secret/x").status == 401
    # Of escapes those that nobody needs go, and all others stay as they are.
    answer = send(gateway, "/sides/1.0.0/%70ublic/%7Ea/%40%c3%a9%20")
    assert answer.target == "/sides/1.0.0/public/~a/%40%c3%a9%20"
    assert send(gateway, "/sides/1.0.0/public/..%2fsecret/x").status == 400
