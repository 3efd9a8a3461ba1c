"""Every reason of the closed set, as clients of a real Envoy see it, over HTTP and over gRPC."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, Final

import grpc
import httpx2
import pytest

from extauthz.model.decision import Reason
from extauthz.model.limits import LimitLevel
from tests.e2e.envoys import EnvoyVersion, find_envoy_binary, read_envoy_version
from tests.e2e.running import Deployment, Gateway, next_client
from tests.e2e.world import AWAY, DENIED_CLIENT, PERMITTED_CLIENT, REVOKED, World

pytestmark = pytest.mark.e2e

OPEN: Final = "/world/1.0.0/open"
METERED: Final = "/world/1.0.0/metered"
Headers = dict[str, str]


def _key(application: str) -> Callable[[World], Headers]:
    return lambda world: {"x-api-key": world.keys[application]}


def _token(**claims: Any) -> Callable[[World], Headers]:
    return lambda world: {"authorization": f"Bearer {world.sign(**claims)}"}


def _opaque(*, active: bool) -> Callable[[World], Headers]:
    return lambda world: {"authorization": f"Bearer {world.make_opaque(active=active)}"}


def _nothing(_world: World) -> Headers:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request that is denied, and what its denial says beside what the reason says.

    Attributes:
        calls: so many of the same; the last one counts.
        challenge: WWW-Authenticate, in the standard profile.
        wso2_code: where the level of a limit has its own.
    """

    title: str
    reason: Reason
    path: str = OPEN
    headers: Callable[[World], Headers] = _nothing
    repeated: tuple[str, ...] = ()
    client: str = ""
    calls: int = 1
    challenge: str = ""
    more: Mapping[str, str] = field(default_factory=dict)
    level: LimitLevel | None = None
    wso2_code: int = 0


BEARER: Final = 'Bearer realm="extauthz"'


def _invalid(description: str) -> str:
    return f'{BEARER}, error="invalid_token", error_description="{description}"'


def _limited(level: LimitLevel, code: int, path: str, headers: Any, **fields: Any) -> Case:
    return Case(
        title=f"rate limited: {level.value}",
        reason=Reason.RATE_LIMITED,
        level=level,
        wso2_code=code,
        path=path,
        headers=headers,
        calls=2,
        **fields,
    )


CASES: Final = (
    Case(title="nothing sent", reason=Reason.MISSING_CREDENTIALS, challenge=BEARER),
    Case(
        title="nothing sent where only keys are taken",
        reason=Reason.MISSING_CREDENTIALS,
        path="/keys/1.0.0/open",
        challenge='ApiKey realm="extauthz"',
    ),
    Case(
        title="unknown key",
        reason=Reason.INVALID_CREDENTIALS,
        headers=lambda _: {"x-api-key": "no-such-key"},
        challenge=_invalid("The credential is not valid"),
    ),
    Case(
        title="token for somebody else",
        reason=Reason.INVALID_CREDENTIALS,
        headers=_token(aud="elsewhere"),
        challenge=_invalid("The credential is not valid"),
    ),
    Case(
        title="two keys",
        reason=Reason.AMBIGUOUS_CREDENTIALS,
        headers=_key("mobile"),
        repeated=("x-api-key",),
    ),
    Case(
        title="expired token",
        reason=Reason.TOKEN_EXPIRED,
        headers=_token(exp=1_000_000_000),
        challenge=_invalid("The token has expired"),
    ),
    Case(
        title="expired key",
        reason=Reason.TOKEN_EXPIRED,
        headers=_key("outdated"),
        challenge=_invalid("The token has expired"),
    ),
    Case(
        title="token of tomorrow",
        reason=Reason.TOKEN_INACTIVE,
        headers=_token(nbf=int(time.time()) + 10_000),
        challenge=_invalid("The token is not active"),
    ),
    Case(
        title="token that its issuer calls inactive",
        reason=Reason.TOKEN_INACTIVE,
        headers=_opaque(active=False),
        challenge=_invalid("The token is not active"),
    ),
    Case(
        title="revoked token",
        reason=Reason.TOKEN_REVOKED,
        headers=_token(jti=REVOKED),
        challenge=_invalid("The token was revoked"),
    ),
    Case(
        title="sandbox key in production",
        reason=Reason.WRONG_KEY_TYPE,
        path="/production/1.0.0/open",
        headers=_key("sandbox"),
        challenge=_invalid("The key is for another environment"),
    ),
    Case(
        title="token for another API",
        reason=Reason.AUDIENCE_NOT_ALLOWED,
        path="/addressed/1.0.0/open",
        headers=_token(),
        challenge=_invalid("The token is not for this API"),
    ),
    Case(
        title="key from another network",
        reason=Reason.CREDENTIAL_NOT_PERMITTED,
        headers=_key("pinned"),
    ),
    Case(
        title="key from another site",
        reason=Reason.CREDENTIAL_NOT_PERMITTED,
        headers=lambda world: {**_key("referred")(world), "referer": "https://shop.example.evil/"},
    ),
    Case(title="no such API", reason=Reason.API_NOT_FOUND, path="/nowhere", headers=_key("mobile")),
    Case(
        title="no such resource",
        reason=Reason.RESOURCE_NOT_FOUND,
        path="/world/1.0.0/nothing",
        headers=_key("mobile"),
    ),
    Case(
        title="no such method",
        reason=Reason.METHOD_NOT_ALLOWED,
        path="/world/1.0.0/get-only",
        headers=_key("mobile"),
        more={"allow": "GET, HEAD"},
    ),
    Case(
        title="blocked API",
        reason=Reason.API_BLOCKED,
        path="/blocked/1.0.0/open",
        headers=_key("mobile"),
    ),
    Case(title="stranger", reason=Reason.SUBSCRIPTION_NOT_FOUND, headers=_key("stranger")),
    Case(title="blocked subscription", reason=Reason.SUBSCRIPTION_BLOCKED, headers=_key("blocked")),
    Case(
        title="subscription that waits",
        reason=Reason.SUBSCRIPTION_INACTIVE,
        headers=_key("waiting"),
    ),
    Case(
        title="token without the scope",
        reason=Reason.INSUFFICIENT_SCOPE,
        path="/world/1.0.0/scoped",
        headers=_token(scope="other"),
        challenge=(
            f'{BEARER}, error="insufficient_scope", error_description="The token lacks a scope", '
            'scope="read write"'
        ),
    ),
    Case(title="denied application", reason=Reason.BLOCKED, headers=_key("rogue")),
    Case(
        title="denied address",
        reason=Reason.BLOCKED,
        headers=_key("mobile"),
        client=DENIED_CLIENT,
    ),
    Case(
        title="path parameter",
        reason=Reason.MALFORMED_REQUEST,
        path=f"{OPEN};admin=1",
        headers=_key("mobile"),
    ),
    _limited(LimitLevel.API, 900800, "/metered/1.0.0/open", _key("mobile")),
    _limited(LimitLevel.RESOURCE, 900802, METERED, _key("mobile")),
    _limited(LimitLevel.APPLICATION, 900803, OPEN, _key("counted")),
    _limited(LimitLevel.SUBSCRIPTION, 900804, OPEN, _key("bronze")),
    _limited(LimitLevel.BURST, 900807, OPEN, _key("hasty")),
    _limited(
        LimitLevel.CUSTOM,
        900806,
        OPEN,
        lambda world: {**_key("mobile")(world), "x-meter": "mine"},
    ),
    _limited(LimitLevel.CLIENT, 900806, "/world/1.0.0/costly", _nothing, client="192.0.2.77"),
)

UNAVAILABLE: Final = Case(
    title="keys that cannot be fetched", reason=Reason.UNAVAILABLE, headers=_token(iss=AWAY)
)

# Status, gRPC code, WSO2's code and status.
MEANINGS: Final[dict[Reason, tuple[int, grpc.StatusCode, int, int]]] = {
    Reason.MISSING_CREDENTIALS: (401, grpc.StatusCode.UNAUTHENTICATED, 900902, 401),
    Reason.INVALID_CREDENTIALS: (401, grpc.StatusCode.UNAUTHENTICATED, 900901, 401),
    Reason.AMBIGUOUS_CREDENTIALS: (400, grpc.StatusCode.INVALID_ARGUMENT, 900901, 401),
    Reason.TOKEN_EXPIRED: (401, grpc.StatusCode.UNAUTHENTICATED, 900903, 401),
    Reason.TOKEN_INACTIVE: (401, grpc.StatusCode.UNAUTHENTICATED, 900904, 401),
    Reason.TOKEN_REVOKED: (401, grpc.StatusCode.UNAUTHENTICATED, 900901, 401),
    Reason.WRONG_KEY_TYPE: (401, grpc.StatusCode.UNAUTHENTICATED, 900905, 401),
    Reason.AUDIENCE_NOT_ALLOWED: (401, grpc.StatusCode.UNAUTHENTICATED, 900914, 403),
    Reason.CREDENTIAL_NOT_PERMITTED: (403, grpc.StatusCode.PERMISSION_DENIED, 900908, 403),
    Reason.API_NOT_FOUND: (404, grpc.StatusCode.NOT_FOUND, 404, 404),
    Reason.RESOURCE_NOT_FOUND: (404, grpc.StatusCode.NOT_FOUND, 900906, 404),
    Reason.METHOD_NOT_ALLOWED: (405, grpc.StatusCode.NOT_FOUND, 900906, 405),
    Reason.API_BLOCKED: (503, grpc.StatusCode.UNAVAILABLE, 700700, 503),
    Reason.SUBSCRIPTION_NOT_FOUND: (403, grpc.StatusCode.PERMISSION_DENIED, 900908, 403),
    Reason.SUBSCRIPTION_BLOCKED: (403, grpc.StatusCode.PERMISSION_DENIED, 900907, 401),
    Reason.SUBSCRIPTION_INACTIVE: (403, grpc.StatusCode.PERMISSION_DENIED, 900909, 403),
    Reason.INSUFFICIENT_SCOPE: (403, grpc.StatusCode.PERMISSION_DENIED, 900910, 403),
    Reason.RATE_LIMITED: (429, grpc.StatusCode.RESOURCE_EXHAUSTED, 0, 429),
    Reason.BLOCKED: (403, grpc.StatusCode.PERMISSION_DENIED, 900805, 403),
    Reason.MALFORMED_REQUEST: (400, grpc.StatusCode.INVALID_ARGUMENT, 900901, 400),
    Reason.UNAVAILABLE: (503, grpc.StatusCode.UNAVAILABLE, 900900, 503),
}

each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)


def call_http(gateway: Gateway, world: World, case: Case) -> httpx2.Response:
    headers = list(case.headers(world).items())
    headers += [(name, world.keys["sandbox"]) for name in case.repeated]
    for _ in range(case.calls - 1):
        gateway.call("POST", case.path, headers, client=case.client)
    return gateway.call("POST", case.path, headers, client=case.client)


def call_grpc(gateway: Gateway, world: World, case: Case) -> grpc.Call:
    """The error that a gRPC client gets."""
    metadata = list(case.headers(world).items())
    metadata += [(name, world.keys["sandbox"]) for name in case.repeated]
    error = None
    for _ in range(case.calls):
        try:
            gateway.call_grpc(case.path, metadata, client=case.client)
        except grpc.RpcError as caught:
            error = caught
    assert isinstance(error, grpc.Call), "the call came through"
    return error


def test_every_reason_and_every_level_is_met() -> None:
    assert {case.reason for case in CASES} | {UNAVAILABLE.reason} == set(Reason)
    assert {case.level for case in CASES if case.level is not None} == set(LimitLevel)
    assert MEANINGS.keys() == set(Reason)


def test_the_two_envoys_are_the_supported_range() -> None:
    oldest = read_envoy_version(find_envoy_binary(EnvoyVersion.OLDEST))
    newest = read_envoy_version(find_envoy_binary(EnvoyVersion.NEWEST))
    assert oldest[:2] == (1, 36)
    assert newest[:2] >= (1, 40)


@each_case
def test_the_standard_profile_says_why(
    deployment: Deployment, world: World, version: EnvoyVersion, case: Case
) -> None:
    answer = call_http(deployment.gateway(version), world, case)
    status, _, _, _ = MEANINGS[case.reason]
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers.get("www-authenticate", "") == case.challenge
    assert answer.headers.get("allow") == case.more.get("allow")
    assert "grpc-status" not in answer.headers
    body = answer.json()
    assert body["reason"] == case.reason.value
    assert body["status"] == status
    assert body["type"] == f"urn:extauthz:reason:{case.reason.value}"
    assert body["decision_id"]
    assert body["title"] and body["detail"]
    assert body.get("level") == (case.level.value if case.level else None)
    assert ("retry-after" in answer.headers) == (case.reason is Reason.RATE_LIMITED)
    assert ("ratelimit" in answer.headers) == (case.reason is Reason.RATE_LIMITED)


@pytest.mark.parametrize(
    "case",
    [case for case in CASES if case.level is not None],
    ids=lambda case: case.title,
)
def test_a_limited_client_learns_when_to_come_back(
    deployment: Deployment, world: World, version: EnvoyVersion, case: Case
) -> None:
    answer = call_http(deployment.gateway(version), world, case)
    retry_after_s = int(answer.headers["retry-after"])
    # Of an hour's window; a sliding one of one request needs up to two to be empty.
    assert 0 < retry_after_s <= 7200
    level = case.level.value if case.level else ""
    services = re.findall(rf'"{level}";r=0;t=(\d+)', answer.headers["ratelimit"])
    assert [int(seconds) for seconds in services] == [retry_after_s]
    assert re.search(rf'"{level}";q=\d+;w=3600', answer.headers["ratelimit-policy"])


@each_case
def test_the_wso2_profile_says_why(
    deployment: Deployment, world: World, version: EnvoyVersion, case: Case
) -> None:
    answer = call_http(deployment.gateway(version, "wso2"), world, case)
    _, _, code, status = MEANINGS[case.reason]
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json; charset=UTF-8"
    body = answer.json()
    assert body["code"] == str(case.wso2_code or code)
    assert body["message"] and body["description"]
    assert ("www-authenticate" in answer.headers) == (
        status == 401 or case.reason is Reason.INSUFFICIENT_SCOPE
    )
    if case.reason is Reason.RATE_LIMITED:
        assert body["nextAccessTime"] == answer.headers["retry-after"]
        assert parsedate_to_datetime(body["nextAccessTime"]).timestamp() > time.time()


@pytest.mark.parametrize("variant", ["standard", "wso2"])
@each_case
def test_a_grpc_client_reads_the_code_and_the_reason(
    deployment: Deployment, world: World, version: EnvoyVersion, variant: str, case: Case
) -> None:
    error = call_grpc(deployment.gateway(version, variant), world, case)
    _, code, _, _ = MEANINGS[case.reason]
    assert error.code() is code
    reason, _, title = (error.details() or "").partition(": ")
    assert reason == case.reason.value
    assert re.fullmatch(r"[A-Z][A-Za-z ]+", title)
    trailers = dict(error.trailing_metadata() or ())
    assert ("retry-after" in trailers) == (case.reason is Reason.RATE_LIMITED)
    if variant == "standard":
        assert trailers.get("www-authenticate", "") == case.challenge


@pytest.mark.parametrize("variant", ["standard", "wso2"])
def test_what_cannot_be_decided_is_what_the_operator_chose(
    deployment: Deployment, world: World, version: EnvoyVersion, variant: str
) -> None:
    gateway = deployment.gateway(version, variant)
    answer = call_http(gateway, world, UNAVAILABLE)
    assert (answer.status_code, answer.content) == (503, b"")
    assert call_grpc(gateway, world, UNAVAILABLE).code() is grpc.StatusCode.UNAVAILABLE


def test_what_cannot_be_decided_is_explained_where_envoy_can(
    deployment: Deployment, world: World
) -> None:
    gateway = deployment.gateway(EnvoyVersion.NEWEST, "error_response")
    answer = call_http(gateway, world, UNAVAILABLE)
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["reason"] == "unavailable"
    error = call_grpc(gateway, world, UNAVAILABLE)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "unavailable: The request could not be decided"


def test_an_old_envoy_denies_what_cannot_be_decided_though_it_cannot_explain(
    deployment: Deployment, world: World
) -> None:
    # Before 1.37 Envoy does not know error_response, and takes the answer for a plain denial.
    gateway = deployment.gateway(EnvoyVersion.OLDEST, "error_response")
    answer = call_http(gateway, world, UNAVAILABLE)
    assert (answer.status_code, answer.content) == (403, b"")
    assert call_grpc(gateway, world, UNAVAILABLE).code() is grpc.StatusCode.PERMISSION_DENIED


GOOD: Final = {
    "API key": _key("mobile"),
    "JWT": _token(),
    "opaque token": _opaque(active=True),
    "key from its network": _key("pinned"),
    "key from its site": lambda world: {
        **_key("referred")(world),
        "referer": "https://shop.example/cart",
    },
}


@pytest.mark.parametrize("headers", GOOD.values(), ids=GOOD)
def test_good_credentials_come_through(
    deployment: Deployment,
    world: World,
    version: EnvoyVersion,
    headers: Callable[[World], Headers],
) -> None:
    gateway, sent = deployment.gateway(version), headers(world)
    answer = gateway.call("POST", OPEN, sent, client=PERMITTED_CLIENT)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-upstream"] == "echo"
    seen = gateway.call_grpc(OPEN, sent.items(), client=PERMITTED_CLIENT)
    names = {name for name, _ in seen}
    assert "x-extauthz-application" in names
    assert names.isdisjoint({"x-api-key", "authorization"})


@pytest.mark.parametrize(
    ("accept", "content_type", "begins"),
    [
        ("application/xml", "application/xml; charset=UTF-8", "<ams:fault "),
        ("text/html", "application/json; charset=UTF-8", "{"),
    ],
)
def test_the_wso2_profile_answers_in_the_form_that_was_asked_for(
    deployment: Deployment, accept: str, content_type: str, begins: str
) -> None:
    gateway = deployment.gateway(variant="wso2")
    answer = gateway.call("POST", OPEN, {"accept": accept})
    assert answer.status_code == 401
    assert answer.headers["content-type"] == content_type
    assert answer.text.startswith(begins)


def test_guessing_costs_the_guesser_and_nobody_else(deployment: Deployment, world: World) -> None:
    gateway, guesser = deployment.gateway(), next_client()
    good = _key("mobile")(world)
    assert gateway.call("POST", OPEN, good).status_code == 200
    statuses = [
        gateway.call("POST", OPEN, {"x-api-key": f"guess-{number}"}, client=guesser).status_code
        for number in range(6)
    ]
    assert statuses == [401] * 5 + [429]
    # A key that was good a moment ago still is, for a neighbour behind the same address too.
    assert gateway.call("POST", OPEN, good, client=guesser).status_code == 200
    assert gateway.call("POST", OPEN, {"x-api-key": "guess-7"}).status_code == 401
