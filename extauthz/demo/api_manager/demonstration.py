"""The demonstration with the stand-in: the usual example of API Manager's Istio adapter.

HttpbinAPI 1.0.0 with its four resources and two scopes is published in the API Manager, and the mesh
enforces it. While everything runs, another API is published and a token is taken back.

Source of the example: wso2/istio-apim, README (HttpbinAPI, scope_ip, scope_headers).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx2

from extauthz.demo.api_manager.server import ApiManager
from extauthz.demo.calls import Call, Outcome, make_call
from extauthz.demo.stage import BASE_PATH

REFRESH: Final = "1s"
WAIT_S: Final = 30.0
_PAUSE_S: Final = 0.05
PETS: Final = "/pets/v1"
_RESOURCES: Final = (
    {"method": "GET", "path": "/ip", "scopes": ["scope_ip"]},
    {"method": "GET", "path": "/headers", "scopes": ["scope_headers"]},
    {"method": "GET", "path": "/delay/{delay}"},
    {"method": "GET", "path": "/status/{status_code}"},
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """What is in the API Manager from the start, as its tables hold it."""

    application: dict[str, Any]
    consumer_key: str
    stranger: str
    """The consumer key of an application without a subscription."""


def publish_seed(manager: ApiManager) -> Seed:
    """Publishes HttpbinAPI, with an application that is subscribed to it and one that is not."""
    tables = manager.tables
    api = tables.publish_api("HttpbinAPI", "1.0.0", BASE_PATH, _RESOURCES)
    application = tables.create_application("ShopApp", "alice", policy="10PerMin")
    stranger = tables.create_application("OtherApp", "bob")
    tables.subscribe(application, api, "Gold")
    return Seed(
        application=application,
        consumer_key=tables.generate_keys(application),
        stranger=tables.generate_keys(stranger),
    )


def script_calls(manager: ApiManager, seed: Seed) -> tuple[Call, ...]:
    """The calls before anything is changed, in the order in which they are made."""
    ip = f"{BASE_PATH}/ip"

    def bearer(token: str) -> dict[str, str]:
        return {"authorization": f"Bearer {token}"}

    keys = manager.keys
    return (
        Call(
            title="no credential",
            path=ip,
            expected_status=401,
            expected_reason="missing_credentials",
        ),
        Call(
            title="JWT with the scope",
            path=ip,
            headers=bearer(keys.sign(seed.consumer_key, "scope_ip")),
            expected_status=200,
        ),
        Call(
            title="JWT without the scope",
            path=ip,
            headers=bearer(keys.sign(seed.consumer_key, "scope_headers")),
            expected_status=403,
            expected_reason="insufficient_scope",
        ),
        Call(
            title="opaque token with the scope",
            path=ip,
            headers=bearer(keys.issue_opaque(seed.consumer_key, "scope_ip")),
            expected_status=200,
        ),
        Call(
            title="unknown opaque token",
            path=ip,
            headers=bearer("0123456789abcdef"),
            expected_status=401,
            expected_reason="token_inactive",
        ),
        Call(
            title="JWT, not subscribed",
            path=ip,
            headers=bearer(keys.sign(seed.stranger, "scope_ip")),
            expected_status=403,
            expected_reason="subscription_not_found",
        ),
        Call(
            title="11th of 10 a minute",
            path=f"{BASE_PATH}/status/200",
            headers=bearer(keys.sign(seed.consumer_key)),
            repeat=11,
            expected_status=429,
            expected_reason="rate_limited",
        ),
        Call(
            title="API not published yet",
            path=f"{PETS}/1",
            expected_status=404,
            expected_reason="api_not_found",
        ),
    )


def change_and_call(
    manager: ApiManager, seed: Seed, client: httpx2.Client, tell: Callable[[str], None]
) -> list[Outcome]:
    """Changes something in the API Manager, and calls until the mesh has followed."""
    tell("PetsAPI is published in the API Manager …")
    tables = manager.tables
    api = tables.publish_api("PetsAPI", "v1", PETS, [{"method": "GET", "path": "/*"}])
    friend = tables.create_application("PetShop", "alice")
    consumer_key = tables.generate_keys(friend)
    tables.subscribe(friend, api, "Bronze")
    token = manager.keys.sign(consumer_key, jti="a-token-of-the-demonstration")
    headers = {"authorization": f"Bearer {token}"}
    published = Call(
        title="JWT, PetsAPI published", path=f"{PETS}/1", headers=headers,
        expected_status=200,
    )  # fmt: skip
    outcomes = [_call_until(client, published, tell)]
    tell("the token is taken back …")
    tables.revoke("a-token-of-the-demonstration")
    revoked = Call(
        title="the same JWT, revoked", path=f"{PETS}/1", headers=headers,
        expected_status=401, expected_reason="token_revoked",
    )  # fmt: skip
    outcomes.append(_call_until(client, revoked, tell))
    tell(f"application {seed.application['name']} of {seed.application['subName']} is blocked …")
    tables.block("application", f"{seed.application['subName']}:{seed.application['name']}")
    other = manager.keys.sign(seed.consumer_key, "scope_ip")
    blocked = Call(
        title="JWT, application blocked", path=f"{BASE_PATH}/ip",
        headers={"authorization": f"Bearer {other}"},
        expected_status=403, expected_reason="blocked",
    )  # fmt: skip
    outcomes.append(_call_until(client, blocked, tell))
    return outcomes


def _call_until(client: httpx2.Client, call: Call, tell: Callable[[str], None]) -> Outcome:
    """Makes a call until it gives what is expected, or the time is over."""
    pause, began_s = threading.Event(), time.monotonic()
    while True:
        outcome = make_call(client, call)
        took_s = time.monotonic() - began_s
        if outcome.as_expected or took_s > WAIT_S:
            tell(f"  … enforced after {took_s:.1f} s" if outcome.as_expected else "  … not in time")
            return outcome
        pause.wait(_PAUSE_S)
