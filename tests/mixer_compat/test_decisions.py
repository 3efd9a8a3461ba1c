"""What Mixer is answered: the same decisions as at Envoy's door, in Mixer's own form."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

import pytest

from extauthz.answers.denial import DenialStyle, Profile, write_denial
from extauthz.model.apis import ApiState
from extauthz.model.catalog import Catalog, ClientRegistration
from extauthz.model.decision import Denial, Deny, Reason
from extauthz.model.deny_rules import DenyRule
from extauthz.model.identity import KeyType, SecurityScheme
from extauthz.model.subscriptions import SubscriptionState
from mixer_compat.door import NO_REQUEST
from mixer_compat.params import HandlerParams
from mixer_compat.proto import model_pb2
from mixer_compat.proto.params_pb2 import Properties
from mixer_compat.results import Validity, write_allowed, write_denied
from tests.builders import API_KEY, START_US, S, a_catalog, a_limit, a_resource, a_tier, an_api
from tests.deciding import Deciding
from tests.keys import START_S, a_jwt, an_issuer
from tests.mixer_compat.asking import (
    APIKEY,
    AUTHORIZATION,
    CHECKNOTHING,
    LISTENTRY,
    QUOTA,
    Asking,
    a_listentry,
    a_quota,
    an_apikey,
    an_authorization,
    find_direct,
    params_of,
    reason_of,
    served_plainly,
    validity_of,
)
from tests.policy.authentication.identifying import MOBILE

GOOD: dict[str, object] = {
    "method": "GET",
    "path": "/httpbin/1.0.0/ip",
    "host": "api.example.com",
    "api_key": API_KEY,
    "client_ip": bytes([192, 0, 2, 1]),
}
"""Properties of a request that is allowed."""

WITH_TOKEN: dict[str, object] = {"api_key": "", "credential": f"Bearer {a_jwt()}"}
NO_KEY: dict[str, object] = {"api_key": ""}
BY_NAME: dict[str, object] = {"api": "HttpbinAPI", "version": "1.0.0", "host": ""}
WEB = ClientRegistration(application=MOBILE)


def catalog_of(*resources: Any, **fields: Any) -> Catalog:
    """The usual catalog, with an issuer of JWTs."""
    api = fields.pop("api", {})
    fields.setdefault("issuers", (an_issuer(),))
    return a_catalog(an_api(*resources, **api), **fields)


def bearer(**claims: Any) -> dict[str, object]:
    return {"api_key": "", "credential": f"Bearer {a_jwt(**claims)}"}


RENAMED = params_of(
    properties=Properties(
        credential="cred", method="m", path="p", headers={"k": "X-Api-Key"}, query={"q": "apikey"}
    )
)
SCOPED = a_resource(scopes=("scope_ip",))
MTLS = a_resource(security=(SecurityScheme.MTLS,))
PUBLIC = a_resource(security=(SecurityScheme.NONE,))
FULL = a_tier("Full", a_limit(0))

TABLE: dict[str, tuple[str, dict[str, object], Catalog | None, Any]] = {
    "a good API key": ("allowed", {}, None, None),
    "a good token": ("allowed", WITH_TOKEN, None, None),
    "a scheme in any case": (
        "allowed", {**NO_KEY, "credential": f"bEARER  {a_jwt()}"}, None, None,
    ),
    "no credential": ("missing_credentials", NO_KEY, None, None),
    "an unknown key": ("invalid_credentials", {"api_key": "guessed"}, None, None),
    "a token of nobody": ("invalid_credentials", bearer(iss="https://else/"), None, None),
    "an expired token": ("token_expired", bearer(exp=START_S - 10), None, None),
    "a token from tomorrow": ("token_inactive", bearer(nbf=START_S + 86_400), None, None),
    "two keys": (
        "ambiguous_credentials",
        {"k": "another"},
        None,
        params_of(properties=Properties(headers={"k": "x-api-key"})),
    ),
    "the same key twice": (
        "allowed",
        {"k": API_KEY},
        None,
        params_of(properties=Properties(headers={"k": "x-api-key"})),
    ),
    "an unknown path": ("api_not_found", {"path": "/else"}, None, None),
    "an unknown resource": ("resource_not_found", {"path": "/httpbin/1.0.0/x"}, None, None),
    "another method": ("method_not_allowed", {"method": "POST"}, None, None),
    "a path in two readings": ("malformed_request", {"path": "/httpbin/1.0.0/a/../ip"}, None, None),
    "an API by name": ("allowed", BY_NAME, None, None),
    "an API by name, the path without its base": (
        "allowed", {**BY_NAME, "path": "/ip"}, None, None,
    ),
    "an API by name, in its default version": (
        "allowed", {"api": "HttpbinAPI", "host": ""}, None, None,
    ),
    "a name that is not in the catalog": (
        "api_not_found", {"api": "Another", "version": "1.0.0"}, None, None,
    ),
    "a version that is not in the catalog": (
        "api_not_found", {"api": "HttpbinAPI", "version": "2"}, None, None,
    ),
    "a context beside the path": (
        "allowed", {"context": "/httpbin/1.0.0", "path": "/ip"}, None, None,
    ),
    "a context that the path has": ("allowed", {"context": "httpbin/1.0.0/"}, None, None),
    "an operation without a path": (
        "allowed",
        {"path": "", "operation": "/httpbin/1.0.0/delay/{delay}"},
        catalog_of(a_resource("/delay/{delay}")),
        None,
    ),
    "a path with a query": (
        "allowed", {**NO_KEY, "path": f"/httpbin/1.0.0/ip?apikey={API_KEY}"}, None, None,
    ),
    "a key in the query, its name with escapes": (
        "allowed", {**NO_KEY, "path": f"/httpbin/1.0.0/ip?api%6Bey={API_KEY}"}, None, None,
    ),
    "a second key, its name with escapes": (
        "ambiguous_credentials", {"path": "/httpbin/1.0.0/ip?api%6Bey=other"}, None, None,
    ),
    "a second key behind a semicolon": (
        "ambiguous_credentials", {"path": "/httpbin/1.0.0/ip?a=1;apikey=other"}, None, None,
    ),
    "a query of more than is read": (
        "malformed_request", {"path": f"/httpbin/1.0.0/ip?{'&' * 58_000}"}, None, None,
    ),
    "a key of more than is read": ("invalid_credentials", {"api_key": "k" * 58_000}, None, None),
    "more properties than are read": (
        "malformed_request", {f"p{number}": "v" for number in range(257)}, None, None,
    ),
    "an operation of more variables than are read": (
        "malformed_request", {"path": "", "operation": "/{a}" * 129}, None, None,
    ),
    "a query parameter as a property": (
        "allowed",
        {**NO_KEY, "q": API_KEY},
        None,
        params_of(properties=Properties(query={"q": "apikey"})),
    ),
    "other names": (
        "allowed", {"m": "GET", "p": "/httpbin/1.0.0/ip", "k": API_KEY}, None, RENAMED,
    ),
    "other names, and the usual ones sent": ("malformed_request", {}, None, RENAMED),
    "a blocked API": (
        "api_blocked", {}, catalog_of(api={"state": ApiState.BLOCKED}), None,
    ),
    "no subscription": ("subscription_not_found", {}, catalog_of(subscribed=False), None),
    "a blocked subscription": (
        "subscription_blocked",
        {},
        catalog_of(subscription_fields={"state": SubscriptionState.BLOCKED}),
        None,
    ),
    "a subscription on hold": (
        "subscription_inactive",
        {},
        catalog_of(subscription_fields={"state": SubscriptionState.ON_HOLD}),
        None,
    ),
    "a sandbox key": (
        "wrong_key_type",
        bearer(keytype="SANDBOX"),
        catalog_of(api={"key_types": frozenset({KeyType.PRODUCTION})}),
        None,
    ),
    "a scope": ("allowed", WITH_TOKEN, catalog_of(SCOPED), None),
    "no scope": ("insufficient_scope", bearer(scope="other"), catalog_of(SCOPED), None),
    "a scope that the mesh asks for": (
        "allowed", {**WITH_TOKEN, "scope": "scope_headers"}, None, None,
    ),
    "another scope than the mesh asks for": (
        "insufficient_scope", {**WITH_TOKEN, "scope": "scope_admin"}, None, None,
    ),
    "any of the scopes that the mesh asks for": (
        "allowed", {**WITH_TOKEN, "scope": "scope_admin scope_ip"}, None, None,
    ),
    "a full limit": (
        "rate_limited", {}, catalog_of(subscription_fields={"tier": FULL}), None,
    ),
    "a full limit that a quota asks for": (
        "allowed",
        {},
        catalog_of(subscription_fields={"tier": FULL}),
        params_of(limits_in_quota=True),
    ),
    "a blocked address": (
        "blocked",
        {},
        catalog_of(deny_rules=[DenyRule(name="net", network=ip_network("192.0.2.0/24"))]),
        None,
    ),
    "a blocked address in 16 bytes": (
        "blocked",
        {"client_ip": bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])},
        catalog_of(deny_rules=[DenyRule(name="net", network=ip_network("192.0.2.0/24"))]),
        None,
    ),
    "a certificate": (
        "allowed",
        {**NO_KEY, "principal": "cluster.local/ns/a/sa/web"},
        catalog_of(MTLS, certificates={"spiffe://cluster.local/ns/a/sa/web": WEB}),
        None,
    ),
    "an unknown certificate": (
        "invalid_credentials",
        {**NO_KEY, "principal": "spiffe://cluster.local/ns/a/sa/other"},
        catalog_of(MTLS, certificates={"spiffe://cluster.local/ns/a/sa/web": WEB}),
        None,
    ),
    "a public resource": ("allowed", NO_KEY, catalog_of(PUBLIC), None),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
async def test_a_request_is_decided_as_at_the_other_door(case: str) -> None:
    reason, changes, catalog, params = TABLE[case]
    asking = Asking(Deciding(catalog or catalog_of()))
    asked = an_authorization({**GOOD, **changes}, params)
    async with served_plainly(asking) as ask:
        result = model_pb2.CheckResult.FromString(
            await ask(AUTHORIZATION, asked.SerializeToString())
        )
    assert reason_of(result) == reason
    if reason != "allowed":
        # Whatever is denied is told as Envoy's client is told.
        direct = find_direct(result)
        assert direct is not None
        for _, decision, _ in asking.deciding.observer.told:
            assert isinstance(decision, Deny)
            answer = write_denial(decision, NO_REQUEST, DenialStyle(), START_US)
            assert result.status.code == answer.rpc_code
            assert (direct.status, direct.body) == (answer.status, answer.body)
            assert direct.headers == {name.lower(): value for name, value in answer.headers}
        assert validity_of(result) == (0, 0)


@pytest.mark.parametrize("absent", ["method", "path"])
async def test_a_request_without_what_is_needed_is_denied(absent: str) -> None:
    asking = Asking()
    assert reason_of(await asking.check({**GOOD, absent: ""})) == "malformed_request"
    ((_, decision, _),) = asking.deciding.observer.told
    assert isinstance(decision, Deny)


async def test_the_action_stands_in_for_properties() -> None:
    asking = Asking()
    asked = an_authorization({"api_key": API_KEY}, method="GET", path="/httpbin/1.0.0/ip")
    result = model_pb2.CheckResult.FromString(await asking.ask(AUTHORIZATION, asked))
    assert reason_of(result) == "allowed"


async def test_a_property_may_stand_with_the_action() -> None:
    asking = Asking()
    asked = an_authorization({"api_key": API_KEY})
    for name in ("method", "path"):
        asked.instance.action.properties[name].string_value = str(GOOD[name])
    result = model_pb2.CheckResult.FromString(await asking.ask(AUTHORIZATION, asked))
    assert reason_of(result) == "allowed"


async def test_a_path_that_is_not_in_normal_form_is_denied() -> None:
    asking = Asking()
    assert reason_of(await asking.check({**GOOD, "path": "/httpbin//1.0.0/ip"})) == (
        "malformed_request"
    )


# How it is answered


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.value)
@pytest.mark.parametrize("profile", Profile, ids=lambda profile: profile.value)
@pytest.mark.parametrize("as_wso2_adapter", [False, True], ids=["own", "wso2-adapter"])
def test_every_reason_has_a_rendering(
    reason: Reason, profile: Profile, *, as_wso2_adapter: bool
) -> None:
    deny = Deny(id="d", denial=Denial(reason=reason, retry_after_us=S))
    style = DenialStyle(profile=profile)
    data = write_denied(deny, NO_REQUEST, style, START_US, as_wso2_adapter=as_wso2_adapter)
    result = model_pb2.CheckResult.FromString(data)
    assert 0 < result.status.code <= 16
    assert result.status.message
    assert validity_of(result) == (0, 0)
    direct = find_direct(result)
    assert (direct is None) == (
        as_wso2_adapter
        and result.status.code in (7, 16)
        and (
            result.status.message
            in ("Missing Credentials...", "Unauthorized!", "Resource forbidden")
        )
    )
    if direct is not None:
        assert 400 <= direct.status < 600
        # 13 in an answer may count as an allow, where a mesh lets failures pass.
        assert result.status.code != 13


async def test_a_full_limit_is_told_in_full() -> None:
    asking = Asking(Deciding(catalog_of(subscription_fields={"tier": a_tier("T", a_limit(1))})))
    assert reason_of(await asking.check(GOOD)) == "allowed"
    result = await asking.check(GOOD)
    direct = find_direct(result)
    assert direct is not None
    assert (result.status.code, direct.status) == (8, 429)
    assert direct.headers["retry-after"] == "40"
    assert direct.headers["ratelimit"] == '"subscription";r=0;t=40'
    assert json.loads(direct.body)["level"] == "subscription"


async def test_the_profile_wso2_is_told_by_mixer_too() -> None:
    asking = Asking(style=DenialStyle(profile=Profile.WSO2))
    direct = find_direct(await asking.check({**GOOD, **NO_KEY}))
    assert direct is not None
    assert json.loads(direct.body)["code"] == "900902"


# Validity


async def test_an_allow_without_limits_is_reused_for_a_while() -> None:
    assert validity_of(await Asking().check(GOOD)) == (1, 1000)


@pytest.mark.parametrize(
    ("params", "valid"),
    [
        (params_of(valid_for_s=60, valid_uses=7), (60, 7)),
        (params_of(valid_for_s=2), (2, 50)),
        (params_of(valid_uses=9), (3, 9)),
        (None, (3, 50)),
    ],
)
async def test_the_handler_bounds_the_reuse(params: Any, valid: tuple[float, int]) -> None:
    asking = Asking(params=HandlerParams(valid_for_us=3 * S, valid_uses=50))
    assert validity_of(await asking.check(GOOD, params)) == valid


async def test_an_allow_ends_with_its_token() -> None:
    asking = Asking(Deciding(catalog_of()), params=HandlerParams(valid_for_us=5 * S))
    result = await asking.check({**GOOD, **bearer(exp=START_S + 2)})
    assert validity_of(result) == (2, 1000)


async def test_an_allow_in_a_tokens_leeway_is_for_this_once() -> None:
    asking = Asking(Deciding(catalog_of()))
    result = await asking.check({**GOOD, **bearer(exp=START_S - 1)})
    assert (reason_of(result), *validity_of(result)) == ("allowed", 0, 1)


@pytest.mark.parametrize(
    "tier",
    [
        a_tier("T", a_limit(10)),
        a_tier("T", a_limit(10, shadow=True)),
        a_tier("T", a_limit(10), stop_on_quota_reach=False),
    ],
    ids=["a limit", "a shadow limit", "a limit that does not stop"],
)
async def test_an_allow_that_has_to_be_counted_is_for_this_once(tier: Any) -> None:
    asking = Asking(Deciding(catalog_of(subscription_fields={"tier": tier})))
    assert validity_of(await asking.check(GOOD)) == (0, 1)


async def test_an_allow_is_reused_where_a_quota_counts() -> None:
    asking = Asking(Deciding(catalog_of(subscription_fields={"tier": a_tier("T", a_limit(1))})))
    for _ in range(3):
        result = await asking.check(GOOD, params_of(limits_in_quota=True))
        assert (reason_of(result), *validity_of(result)) == ("allowed", 1, 1000)
    assert asking.deciding.counted() == {}


async def test_nothing_is_reused_where_the_settings_say_so() -> None:
    asking = Asking(params=HandlerParams(valid_for_us=0))
    assert validity_of(await asking.check(GOOD)) == (0, 1)


def test_an_allow_is_never_without_an_opinion() -> None:
    with pytest.raises(ValueError, match="60 seconds"):
        write_allowed(Validity(0, 0))


# The other templates


@pytest.mark.parametrize(
    ("operation", "key", "reason"),
    [
        ("GET /httpbin/1.0.0/ip", API_KEY, "allowed"),
        ("GET /ip", API_KEY, "allowed"),
        ("get /ip?x=1", API_KEY, "allowed"),
        ('"GET /delay/{delay}"', API_KEY, "allowed"),
        ("GET /files/*", API_KEY, "resource_not_found"),
        ("POST /ip", API_KEY, "method_not_allowed"),
        ("GET /ip", "guessed", "invalid_credentials"),
        ("GET /ip", "", "missing_credentials"),
        ("GET", API_KEY, "malformed_request"),
        ("/ip", API_KEY, "malformed_request"),
        ("", API_KEY, "malformed_request"),
    ],
)
async def test_an_apikey_instance_is_decided_by_its_operation(
    operation: str, key: str, reason: str
) -> None:
    asking = Asking(Deciding(catalog_of(a_resource(), a_resource("/delay/{delay}"))))
    data = await asking.ask(APIKEY, an_apikey(operation, key))
    assert reason_of(model_pb2.CheckResult.FromString(data)) == reason


@pytest.mark.parametrize("path", ["/open{x}door", "/open*door", "/open**door"])
async def test_no_path_of_a_clients_becomes_another_resource(path: str) -> None:
    """Were what is in braces, or a star, a "-", the upstream would get what is not public."""
    public = a_resource("/open-door", security=(SecurityScheme.NONE,))
    asking = Asking(Deciding(catalog_of(public, a_resource("/{name}"))))
    data = await asking.ask(APIKEY, an_apikey(f"GET {path}", ""))
    assert reason_of(model_pb2.CheckResult.FromString(data)) == "missing_credentials"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        # What a client sends, though it looks like a template: as the service reads it, or refused.
        ("/*me", "malformed_request"),
        ("/{,}", "malformed_request"),
        ("/x{:}", "allowed"),
        # Templates that the proxy matched.
        ("/{id}", "allowed"),
        ("/{a}-{b}", "missing_credentials"),
        ("/{lat},{lon}", "missing_credentials"),
        ("/r/*", "missing_credentials"),
    ],
)
async def test_an_operation_leads_to_what_the_service_finds_under_the_same_text(
    path: str, reason: str
) -> None:
    public = a_resource("/{id}", security=(SecurityScheme.NONE,))
    with_key = map(a_resource, ("/{lat},{lon}", "/%2Ame", "/{from}-{to}", "/r/**"))
    asking = Asking(Deciding(catalog_of(public, *with_key)))
    data = await asking.ask(APIKEY, an_apikey(f"GET {path}", ""))
    assert reason_of(model_pb2.CheckResult.FromString(data)) == reason


async def test_what_is_empty_in_the_subject_does_not_hide_what_the_action_says() -> None:
    asking = Asking(Deciding(catalog_of(a_resource())))
    asked = an_authorization({**GOOD, **WITH_TOKEN, "scope": ""})
    asked.instance.action.properties["scope"].string_value = "admin"
    result = model_pb2.CheckResult.FromString(await asking.ask(AUTHORIZATION, asked))
    assert reason_of(result) == "insufficient_scope"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (bytes([203, 0, 113, 7]), "blocked"),
        (bytes(10) + b"\xff\xff" + bytes([203, 0, 113, 7]), "blocked"),
        ("203.0.113.7", "blocked"),
        ("rogue", "blocked"),
        ("mallory", "blocked"),
        (bytes([192, 0, 2, 1]), "allowed"),
        ("mobile", "allowed"),
        ("orders:v1", "allowed"),
        ("0.0.0.0", "malformed_request"),
        ("::", "malformed_request"),
        (bytes(4), "malformed_request"),
        ("203.0.113.7:80", "malformed_request"),
        ("203.0.113.7, 10.0.0.1", "malformed_request"),
        (" 203.0.113.7", "malformed_request"),
        ("[::ffff:203.0.113.7]", "malformed_request"),
        ("2001:db8::1 ", "malformed_request"),
        ("", "malformed_request"),
        (b"", "malformed_request"),
        (b"\x01", "malformed_request"),
    ],
)
async def test_a_listentry_is_looked_up_in_the_deny_rules(value: object, reason: str) -> None:
    rules = [
        DenyRule(name="net", network=ip_network("203.0.113.0/24")),
        DenyRule(name="app", application="rogue"),
        DenyRule(name="user", user="mallory"),
    ]
    asking = Asking(Deciding(catalog_of(deny_rules=rules)))
    result = model_pb2.CheckResult.FromString(await asking.ask(LISTENTRY, a_listentry(value)))
    assert reason_of(result) == reason
    assert validity_of(result) == ((1, 1000) if reason == "allowed" else (0, 0))


@pytest.mark.parametrize("address", ["203.0.113.7:80", "203.0.113.7, 10.0.0.1", "unknown"])
async def test_a_client_address_that_is_none_is_denied(address: str) -> None:
    assert reason_of(await Asking().check({**GOOD, "client_ip": address})) == "malformed_request"
    assert reason_of(await Asking().check({**GOOD, "client_ip": "203.0.113.7"})) == "allowed"


async def test_a_listentry_passes_when_there_are_no_deny_rules() -> None:
    result = model_pb2.CheckResult.FromString(await Asking().ask(LISTENTRY, a_listentry("x")))
    assert reason_of(result) == "allowed"


async def test_a_checknothing_is_denied() -> None:
    result = model_pb2.CheckResult.FromString(await Asking().ask(CHECKNOTHING, b""))
    assert reason_of(result) == "malformed_request"


NETS = DenyRule(name="nets", network=ip_network("203.0.113.0/24"))


@pytest.mark.parametrize(
    ("path", "message", "reason", "rule"),
    [
        (LISTENTRY, a_listentry("203.0.113.7").SerializeToString(), "blocked", "nets"),
        (LISTENTRY, a_listentry("203.0.113.7:80").SerializeToString(), "malformed_request", ""),
        (CHECKNOTHING, b"", "malformed_request", ""),
        (AUTHORIZATION, b"\xff", "malformed_request", ""),
        (AUTHORIZATION, b"", "malformed_request", ""),
        (APIKEY, an_apikey("nothing", "k").SerializeToString(), "malformed_request", ""),
        (QUOTA, b"\xff", "malformed_request", ""),
        (QUOTA, a_quota({}).SerializeToString(), "malformed_request", ""),
        (QUOTA, a_quota(GOOD, 10**12).SerializeToString(), "rate_limited", ""),
        (
            AUTHORIZATION,
            an_authorization(GOOD, params_of(compat="else")).SerializeToString(),
            "unavailable",
            "",
        ),
    ],
)
async def test_what_is_denied_without_the_pipeline_is_a_decision_too(
    path: str, message: bytes, reason: str, rule: str
) -> None:
    for shadow in (False, True):
        deciding = Deciding(catalog_of(deny_rules=[NETS]))
        asking = Asking(deciding, params=HandlerParams(shadow=shadow))
        await asking.ask(path, message)
        ((request, deny, _),) = deciding.observer.told
        assert isinstance(deny, Deny)
        assert (deny.reason.value, deny.denial.rule, deny.shadow) == (reason, rule, shadow)
        assert request.door == "mixer" and deny.id


async def test_what_a_listentry_lets_pass_is_no_decision() -> None:
    asking = Asking()
    await asking.ask(LISTENTRY, a_listentry("x"))
    assert asking.deciding.observer.told == []


# Shadow


async def test_a_door_in_shadow_lets_pass_what_it_would_deny_and_tells_it() -> None:
    tier = a_tier("T", a_limit(1))
    asking = Asking(Deciding(catalog_of(subscription_fields={"tier": tier})))
    shadow = params_of(shadow=True)
    for changes in ({}, {}, NO_KEY, {"path": "/else"}, {"method": ""}):
        result = await asking.check({**GOOD, **changes}, shadow)
        assert (reason_of(result), *validity_of(result)) == ("allowed", 0, 1)
    assert asking.deciding.counted() == {}
    told = [decision for _, decision, _ in asking.deciding.observer.told]
    assert [decision.shadow for decision in told] == [True] * 5
    assert [decision.reason.value if isinstance(decision, Deny) else "" for decision in told] == [
        "", "", "missing_credentials", "api_not_found", "malformed_request",
    ]  # fmt: skip


async def test_a_door_in_shadow_by_the_settings_lets_unreadable_calls_pass() -> None:
    asking = Asking(params=HandlerParams(shadow=True))
    for path in (AUTHORIZATION, LISTENTRY, CHECKNOTHING):
        result = model_pb2.CheckResult.FromString(await asking.ask(path, b"\xff"))
        assert (reason_of(result), *validity_of(result)) == ("allowed", 0, 1)
