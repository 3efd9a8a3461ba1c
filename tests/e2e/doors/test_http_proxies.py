"""What clients of real proxies get when these ask over HTTP, and what their upstreams see."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import httpx2
import pytest

from tests.e2e.doors.http_proxies import run_proxy
from tests.e2e.running import Deployment
from tests.e2e.world import World
from tests.free_ports import find_free_port

pytestmark = pytest.mark.e2e

PROXIES: Final = ("envoy", "nginx", "caddy")
OPEN: Final = "/world/1.0.0/open"
FORGED: Final = {
    "x-extauthz-application": "forged",
    "x-extauthz-user": "forged",
    "x-extauthz-tier": "forged",
}
TOLD_BY_CLIENT: Final = {
    name: OPEN.replace("open", "public")
    for name in ("x-forwarded-uri", "x-original-uri", "x-forwarded-method", "x-original-method")
}


@pytest.fixture(scope="module")
def asked(deployment: Deployment) -> Iterator[str]:
    """The address at which a service is asked over HTTP."""
    http = f"127.0.0.1:{find_free_port()}"
    settings = {
        "listen": {"http": http},
        "credentials": {"trusted_hops": 0, "use_remote_address": True},
    }
    with deployment.run_service("asked-over-http", settings):
        yield http


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest,
    deployment: Deployment,
    asked: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[httpx2.Client]:
    folder = tmp_path_factory.mktemp(request.param)
    with run_proxy(request.param, deployment, folder, asked) as client:
        yield client


def seen_by_upstream(answer: httpx2.Response) -> dict[str, str]:
    """The header fields that the upstream got. None stands twice."""
    assert answer.status_code == 200, answer.text
    fields = [(name.lower(), value) for name, value in json.loads(answer.text)["headers"]]
    assert len(dict(fields)) == len(fields)
    return dict(fields)


def test_a_key_passes_and_its_identity_reaches_the_upstream(
    proxy: httpx2.Client, world: World
) -> None:
    headers = {"x-api-key": world.keys["mobile"], **FORGED}
    seen = seen_by_upstream(proxy.post(OPEN, headers=headers, content=b"a body"))
    assert (seen["x-extauthz-application"], seen["x-extauthz-user"]) == ("mobile", "alice")
    assert seen.get("x-extauthz-tier", "") in {"", "Gold"}
    assert "x-api-key" not in seen


def test_a_caller_without_a_credential_cannot_name_itself(proxy: httpx2.Client) -> None:
    seen = seen_by_upstream(proxy.post("/world/1.0.0/public", headers=FORGED))
    assert not any(seen.get(name) for name in FORGED)


def test_a_client_cannot_say_what_is_asked_about(proxy: httpx2.Client) -> None:
    assert proxy.post(OPEN, headers=TOLD_BY_CLIENT).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/nowhere", 404),
        ("PUT", OPEN, 405),
        ("POST", "/world/1.0.0/a%2F..%2Fopen", 400),
        ("POST", "/blocked/1.0.0/open", 503),
    ],
)
def test_a_denial_reaches_the_client(
    proxy: httpx2.Client, request: pytest.FixtureRequest, method: str, path: str, status: int
) -> None:
    answer = proxy.request(method, path)
    if "envoy" in request.node.name.split("-") and status == 503:
        # Else Envoy would take it for "could not decide".
        assert answer.status_code == 403
        assert answer.headers["x-extauthz-status"] == "503"
    else:
        assert answer.status_code == status


def test_a_missing_credential_is_challenged(proxy: httpx2.Client) -> None:
    answer = proxy.post(OPEN)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer realm=")


def test_a_limit_holds_and_says_when_to_come_back(proxy: httpx2.Client, world: World) -> None:
    headers = {"x-api-key": world.keys["counted"]}
    _, refused = proxy.post(OPEN, headers=headers), proxy.post(OPEN, headers=headers)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
