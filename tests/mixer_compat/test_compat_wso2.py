"""The manifests of WSO2's Mixer adapter, unchanged: its inputs, its answers, without its bugs."""

from __future__ import annotations

from typing import Any

import pytest

from extauthz.model.catalog import Catalog
from extauthz.model.identity import SecurityScheme
from mixer_compat.params import HandlerParams
from mixer_compat.proto import model_pb2
from mixer_compat.proto.policy_pb2 import TimeStamp, Value
from tests.builders import START_US, S, a_catalog, a_limit, a_resource, a_tier, an_api
from tests.deciding import Deciding
from tests.keys import START_S, a_jwt, an_issuer, sign_jws
from tests.mixer_compat.asking import (
    AUTHORIZATION,
    WSO2_PARAMS,
    Asking,
    an_authorization,
    find_direct,
    params_of,
    served_plainly,
    validity_of,
)

AUDIENCE = "http://org.wso2.apimgt/gateway"

Answer = tuple[int, str]
OK: Answer = (0, "")
MISSING: Answer = (16, "Missing Credentials...")
UNAUTHORIZED: Answer = (16, "Unauthorized!")
FORBIDDEN: Answer = (7, "Resource forbidden")


def a_wso2_token(**claims: Any) -> str:
    """A self-contained token of API Manager 2.6: padded, without a key id."""
    made = {
        "aud": AUDIENCE,
        "sub": "admin@carbon.super",
        "application": {"id": 1, "name": "mobile", "tier": "Unlimited", "owner": "admin"},
        "scope": "am_application_scope scope_ip",
        "iss": "https://localhost:9443/oauth2/token",
        "keytype": "PRODUCTION",
        "subscribedAPIs": [
            {
                "name": "HttpbinAPI",
                "context": "/httpbin/1.0.0",
                "version": "1.0.0",
                "publisher": "admin",
                "subscriptionTier": "Gold",
                "subscriberTenantDomain": "carbon.super",
            }
        ],
        "consumerKey": "abc123",
        "exp": START_S + 300,
        "iat": START_S - 10,
        "jti": "b8938768-23fd-4dec-8b70-bed45eb7c33d",
        **claims,
    }
    payload = {name: value for name, value in made.items() if value is not ...}
    return sign_jws({"typ": "JWT", "alg": "RS256"}, payload, padded=True)


GOLD = a_tier("Gold", a_limit(1000))
LOCAL_ISSUER = an_issuer(
    issuer="https://localhost:9443/oauth2/token",
    audiences=frozenset({AUDIENCE}),
    subscriptions_from_token=True,
)


def catalog_of(*resources: Any, **fields: Any) -> Catalog:
    fields.setdefault("tiers", [GOLD])
    resources = resources or (
        a_resource("/ip", scopes=("scope_ip",)),
        a_resource("/headers"),
        a_resource("/delay/{delay}"),
    )
    return a_catalog(
        an_api(*resources), issuers=(LOCAL_ISSUER,), subscribed=False, api_keys=[], **fields
    )


def properties(**changes: object) -> dict[str, object]:
    """What the shipped instance `wso2-authorization` sends for ``GET /headers``."""
    return {
        "auth_header_value": f"Bearer {a_wso2_token()}",
        "api_name": "HttpbinAPI",
        "api_version": "1.0.0",
        "api_context": "/httpbin/1.0.0",
        "resource_path": "/headers",
        "request_method": "GET",
        "request_resource": '"/headers"',
        "request_scope": "",
        **changes,
    }


def bearer(**claims: Any) -> dict[str, object]:
    return {"auth_header_value": f"Bearer {a_wso2_token(**claims)}"}


EXPIRED = {"exp": START_S - 60}
OTHER_API = {"subscribedAPIs": [{"name": "Other", "version": "1.0.0", "subscriptionTier": "Gold"}]}
OTHER_CASE = {
    "subscribedAPIs": [{"name": "httpBINapi", "version": "1.0.0", "subscriptionTier": "Gold"}]
}
OTHER_VERSION = {
    "subscribedAPIs": [{"name": "HttpbinAPI", "version": "2", "subscriptionTier": "Gold"}]
}

# What the adapter answered, and what it ought to have answered where that was a bug.
TABLE: dict[str, tuple[dict[str, object], Answer]] = {
    "a good token": ({}, OK),
    "no header": ({"auth_header_value": ""}, MISSING),
    "white space": ({"auth_header_value": "   "}, MISSING),
    "one word": ({"auth_header_value": "Bearer"}, MISSING),
    "a token without a scheme": ({"auth_header_value": a_wso2_token()}, MISSING),
    "a tab is no separator": ({"auth_header_value": f"Bearer\t{a_wso2_token()}"}, MISSING),
    "words behind the token": ({"auth_header_value": f"Bearer {a_wso2_token()} more"}, OK),
    "a scheme in lower case": ({"auth_header_value": f"bearer {a_wso2_token()}"}, OK),
    "a standard token, not padded": (
        {"auth_header_value": f"Bearer {a_jwt(iss=LOCAL_ISSUER.issuer, aud=AUDIENCE)}"},
        FORBIDDEN,
    ),
    "an audience that is a list": (bearer(aud=["x", AUDIENCE]), OK),
    "scopes that are a list": (bearer(scope=["scope_ip"]), OK),
    "an expiry with a fraction": (bearer(exp=START_S + 300.5), OK),
    "an application id that is text": (
        bearer(application={"id": "1", "name": "mobile", "tier": "Unlimited", "owner": "a"}), OK,
    ),
    "an expired token": (bearer(**EXPIRED), UNAUTHORIZED),
    "no expiry": (bearer(exp=...), UNAUTHORIZED),
    "two parts": ({"auth_header_value": "Bearer a.b"}, UNAUTHORIZED),
    "an opaque token that nobody knows": ({"auth_header_value": "Bearer 1234-5678"}, UNAUTHORIZED),
    "another API's subscription": (bearer(**OTHER_API), FORBIDDEN),
    "another version's subscription": (bearer(**OTHER_VERSION), FORBIDDEN),
    "no subscription": (bearer(subscribedAPIs=[]), FORBIDDEN),
    "a name in another case": (bearer(**OTHER_CASE), OK),
    "the scope of the resource": ({"resource_path": "/ip", "request_scope": "scope_ip"}, OK),
    "a scope that only the mesh asks for": ({"request_scope": "scope_ip"}, OK),
    # Its fourth bug, fixed: any scheme was taken, and a doubled space was an empty token.
    "a doubled space": ({"auth_header_value": f"Bearer  {a_wso2_token()}"}, OK),
    "a leading space": ({"auth_header_value": f" Bearer {a_wso2_token()}"}, OK),
    "a token behind another scheme": ({"auth_header_value": f"Foo {a_wso2_token()}"}, MISSING),
    "Basic credentials": ({"auth_header_value": "Basic dXNlcjpwYXNz"}, MISSING),
    # Its eighth, fixed: nobody looked at issuer, audience and start.
    "an issuer that is not known": (bearer(iss="https://else/"), UNAUTHORIZED),
    "another audience": (bearer(aud="else"), UNAUTHORIZED),
    "a token from tomorrow": (bearer(nbf=START_S + 86_400), UNAUTHORIZED),
    # Its ninth, fixed: a missing scope is 403.
    "no scope that the mesh asks for": ({"request_scope": "scope_admin"}, FORBIDDEN),
    "no scope that the catalog asks for": (
        {**bearer(scope="x"), "resource_path": "/ip"}, FORBIDDEN,
    ),
    # Its third, fixed: nothing that is missing kills anything.
    "no API": ({"api_name": "", "api_version": "", "api_context": ""}, (5, "api_not_found")),
    "an API that is not in the catalog": ({"api_name": "Other"}, (5, "api_not_found")),
    "no path and no operation": (
        {"resource_path": "", "request_resource": ""}, (3, "malformed_request"),
    ),
    "a single quote": (
        {"resource_path": "", "request_resource": '"'}, (3, "malformed_request"),
    ),
    "a path that is a number": ({"resource_path": 7}, (3, "malformed_request")),
    # Its twelfth, fixed: what the catalog does not know is not let in without its scopes.
    "a resource that is not in the catalog": (
        {"resource_path": "/else"}, (5, "resource_not_found"),
    ),
    # The operation, where there is no path: quotes are taken off, variables filled in.
    "an operation for a path": ({"resource_path": "", "request_resource": '"/headers"'}, OK),
    "an operation with a variable": (
        {"resource_path": "", "request_resource": '"/delay/{delay}"'}, OK,
    ),
    "an operation without quotes": ({"resource_path": "", "request_resource": "/headers"}, OK),
    "a path below the context": ({"resource_path": "/httpbin/1.0.0/headers"}, OK),
    "a path and no API's name": ({"api_name": ""}, OK),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLE)
async def test_a_request_is_answered_as_the_adapter_answered(case: str) -> None:
    changes, (code, message) = TABLE[case]
    asking = Asking(Deciding(catalog_of()))
    asked = an_authorization(properties(**changes), WSO2_PARAMS)
    async with served_plainly(asking) as ask:
        data = await ask(AUTHORIZATION, asked.SerializeToString())
    result = model_pb2.CheckResult.FromString(data)
    told = result.status.message
    is_old = (code, message) in (MISSING, UNAUTHORIZED, FORBIDDEN)
    assert (result.status.code, told if is_old else told.partition(":")[0]) == (code, message)
    # The proxy's own words were the body of what the adapter denied.
    assert (find_direct(result) is None) == (is_old or code == 0)


async def test_rate_limits_work_now() -> None:
    tier = a_tier("Gold", a_limit(1))
    asking = Asking(Deciding(catalog_of(tiers=[tier])))
    first = await asking.check(properties(), WSO2_PARAMS)
    assert (first.status.code, validity_of(first)) == (0, (0, 1))
    second = await asking.check(properties(), WSO2_PARAMS)
    direct = find_direct(second)
    assert second.status.code == 8
    assert direct is not None
    assert (direct.status, direct.headers["retry-after"]) == (429, "40")


@pytest.mark.parametrize("state", ["good", "expired"])
async def test_an_answer_is_never_left_to_the_platform(state: str) -> None:
    """Zeros in an allow were kept for 60 s, however short the token lived."""
    catalog = catalog_of(tiers=[a_tier("Gold")])
    asking = Asking(Deciding(catalog), params=HandlerParams(valid_for_us=5_000_000))
    result = await asking.check(
        properties(**bearer(exp=START_S + 2) if state == "good" else bearer(**EXPIRED)),
        WSO2_PARAMS,
    )
    assert validity_of(result) == ((2, 1000) if state == "good" else (0, 0))


async def test_a_public_resource_needs_no_token() -> None:
    catalog = catalog_of(a_resource("/headers", security=(SecurityScheme.NONE,)))
    result = await Asking(Deciding(catalog)).check(properties(auth_header_value=""), WSO2_PARAMS)
    assert result.status.code == 0


async def test_own_parameters_may_ask_for_it() -> None:
    asking = Asking(Deciding(catalog_of()))
    params = params_of(compat="wso2-adapter")
    assert (await asking.check(properties(), params)).status.code == 0
    result = await asking.check(properties(auth_header_value=""), params)
    assert (result.status.code, result.status.message) == MISSING


async def test_the_settings_shadow_holds_for_wso2s_handlers_too() -> None:
    asking = Asking(Deciding(catalog_of()), params=HandlerParams(shadow=True))
    assert (await asking.check(properties(auth_header_value=""), WSO2_PARAMS)).status.code == 0


# Reports


def dimensions(**changes: object) -> dict[str, object]:
    """What the shipped instance `wso2-metrics` sends."""
    at = model_time(START_US)
    return {
        "auth_header_value": f"Bearer {a_wso2_token()}",
        "api_context": "/httpbin/1.0.0",
        "api_name": "HttpbinAPI",
        "api_version": "1.0.0",
        "resource_path": "/headers",
        "resource_path_template": '"/headers"',
        "request_method": "GET",
        "user_ip": bytes([192, 0, 2, 1]),
        "user_agent": "curl/8",
        "request_timestamp": at,
        "response_timestamp": model_time(START_US + S // 4),
        "response_size": 321,
        "api_protocol": "http",
        "response_code": 200,
        "destination": "httpbin.default.svc.cluster.local",
        "request_host": "httpbin:8000",
        **changes,
    }


def model_time(us: int) -> Value:
    stamp = TimeStamp()
    stamp.value.FromMicroseconds(us)
    return Value(timestamp_value=stamp)


async def test_its_metric_becomes_a_usage_record() -> None:
    asking = Asking(Deciding(catalog_of()))
    (record,) = await asking.report(dimensions(), params=WSO2_PARAMS)
    assert (record.api, record.version, record.resource) == ("HttpbinAPI", "1.0.0", "/headers")
    assert (record.application, record.consumer_key, record.tier) == ("mobile", "abc123", "Gold")
    assert (record.user, record.key_type) == ("admin@carbon.super", "PRODUCTION")
    assert (record.at_us, record.duration_us) == (START_US, S // 4)
    assert (record.response_code, record.response_bytes) == (200, 321)
    assert (record.client_address, record.user_agent) == ("192.0.2.1", "curl/8")
    assert (record.host, record.path) == ("httpbin", "/headers")
    assert record.destination == "httpbin.default.svc.cluster.local"


@pytest.mark.parametrize("missing", list(dimensions()))
async def test_a_metric_without_a_dimension_is_still_a_record(missing: str) -> None:
    """Bugs 3 and 13, fixed. Every status is told, and nothing that is missing kills anything."""
    asking = Asking(Deciding(catalog_of()))
    given = {name: value for name, value in dimensions().items() if name != missing}
    assert len(await asking.report(given, params=WSO2_PARAMS)) == 1
    assert asking.adapter.reports.unreadable == 0
