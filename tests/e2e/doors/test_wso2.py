"""An API that is published in an API Manager, enforced at Envoy's door and at Mixer's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

import pytest

from extauthz.demo.api_manager.server import USER, ApiManager, run_api_manager
from tests.e2e.doors.both_doors import ALLOWED, Asked, BothDoors, run_both_doors
from tests.e2e.running import Deployment, Gateway, next_client

pytestmark = pytest.mark.e2e

PASSWORD: Final = "the-password-of-an-administrator"
BASE: Final = "/httpbin/1.0.0"
RESOURCES: Final = (
    {"method": "GET", "path": "/ip", "scopes": ["scope_ip"]},
    {"method": "GET", "path": "/headers", "scopes": ["scope_headers"]},
    {"method": "GET", "path": "/delay/{delay}"},
    {"method": "GET", "path": "/status/{status_code}"},
)
PATIENCE: Final = 2_000


@dataclass(frozen=True, slots=True)
class Published:
    """An API Manager, and the same service behind a real Envoy and at both of its doors."""

    manager: ApiManager
    doors: BothDoors
    gateway: Gateway
    consumer_key: str


@pytest.fixture(scope="module")
def published(
    deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Published]:
    folder = tmp_path_factory.mktemp("wso2")
    (folder / "password").write_text(PASSWORD)
    own = folder / "own.yaml"
    own.write_text("apis: [{name: Own, version: v1, context: /own, resources: "
                   "[{methods: [GET], path: /x, security: [none]}]}]")  # fmt: skip
    with ExitStack() as stack:
        manager = stack.enter_context(run_api_manager(folder, password=PASSWORD))
        tables = manager.tables
        api = tables.publish_api("HttpbinAPI", "1.0.0", BASE, RESOURCES)
        application = tables.create_application("ShopApp", "bob")
        tables.subscribe(application, api)
        consumer_key = tables.generate_keys(application)
        wso2 = {
            "url": manager.url,
            "username": USER,
            "password_file": str(folder / "password"),
            "ca": str(manager.ca_file),
            "refresh": "200ms",
        }
        doors = stack.enter_context(run_both_doors(deployment, "wso2", own, catalog={"wso2": wso2}))
        gateway = stack.enter_context(deployment.run_gateway(doors.grpc_address))
        yield Published(manager, doors, gateway, consumer_key)


def ask_everywhere(published: Published, path: str, token: str = "") -> set[tuple[str, int]]:
    """Reason and status at both doors and through Envoy; one when all agree."""
    headers = (("authorization", f"Bearer {token}"),) if token else ()
    asked = Asked(method="GET", path=path, headers=headers, client=next_client())
    answers = [published.doors.ask_envoy(asked), published.doors.ask_mixer(asked)]
    through = published.gateway.call("GET", path, dict(headers))
    is_denied = through.headers.get("content-type") == "application/problem+json"
    reason = through.json()["reason"] if is_denied else ALLOWED
    return {(answer.reason, answer.status) for answer in answers} | {(reason, through.status_code)}


def wait_until(fits: Callable[[], bool]) -> None:
    for _ in range(PATIENCE):
        if fits():
            return
    raise AssertionError("it did not come to that")


def make_token(published: Published, kind: str, *scopes: str, **claims: Any) -> str:
    keys = published.manager.keys
    if kind == "jwt":
        return keys.sign(published.consumer_key, *scopes, **claims)
    return keys.issue_opaque(published.consumer_key, *scopes)


@pytest.mark.parametrize("kind", ["jwt", "opaque"])
def test_the_usual_example_is_enforced_alike_everywhere(published: Published, kind: str) -> None:
    token = make_token(published, kind, "scope_ip")
    assert ask_everywhere(published, f"{BASE}/ip", token) == {(ALLOWED, 200)}
    assert ask_everywhere(published, f"{BASE}/delay/1", token) == {(ALLOWED, 200)}
    assert ask_everywhere(published, f"{BASE}/headers", token) == {("insufficient_scope", 403)}
    assert ask_everywhere(published, f"{BASE}/ip") == {("missing_credentials", 401)}
    assert ask_everywhere(published, f"{BASE}/nothing", token) == {("resource_not_found", 404)}


def test_the_operators_own_files_stand_beside_it(published: Published) -> None:
    assert ask_everywhere(published, "/own/v1/x") == {(ALLOWED, 200)}


def test_what_changes_in_the_api_manager_changes_at_the_doors(published: Published) -> None:
    tables = published.manager.tables
    token_id = "taken-back-later"
    token = make_token(published, "jwt", "scope_ip", jti=token_id)
    assert ask_everywhere(published, f"{BASE}/ip", token) == {(ALLOWED, 200)}
    tables.revoke(token_id)
    wait_until(lambda: ask_everywhere(published, f"{BASE}/ip", token) == {("token_revoked", 401)})
    api = tables.publish_api("Pets", "v1", "/pets/v1", [{"method": "GET", "path": "/*"}])
    application = tables.create_application("PetShop", "carol")
    tables.subscribe(application, api)
    other = published.manager.keys.sign(tables.generate_keys(application))
    wait_until(lambda: ask_everywhere(published, "/pets/v1/1", other) == {(ALLOWED, 200)})
    with tables.lock:
        api["status"] = "BLOCKED"
    wait_until(lambda: ask_everywhere(published, "/pets/v1/1", other) == {("api_blocked", 503)})
