"""An issuer that decides about calls: an answer is valid for its API, resource and method only."""

from __future__ import annotations

from typing import Final

from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Secret, SecurityScheme
from extauthz.model.issuers import ApiCall, KeyValidationEndpoint
from extauthz.model.request import ApiRequest
from tests.builders import a_catalog, a_limit, a_request, a_resource, a_tier, an_api
from tests.deciding import Deciding
from tests.keys import an_issuer

TOKEN: Final = "opaque-token"
ENDPOINT: Final = KeyValidationEndpoint(
    url="https://apim.example/", username="admin", password=Secret("pw")
)
ISSUER: Final = an_issuer(
    introspection=None, key_validation=ENDPOINT, subscriptions_from_token=True
)


def ask(path: str = "/httpbin/1.0.0/ip", method: str = "GET") -> ApiRequest:
    return a_request(path=path, method=method, headers={"authorization": f"Bearer {TOKEN}"})


def deciding_for(tier: str = "Gold") -> Deciding:
    opaque = (SecurityScheme.OPAQUE,)
    api = an_api(
        a_resource("/ip", "GET", "POST", security=opaque),
        a_resource("/other", "GET", security=opaque),
    )
    deciding = Deciding(a_catalog(api, issuers=(ISSUER,), tiers=(a_tier("Gold", a_limit(2)),)))
    deciding.introspector.active[TOKEN] = {
        "active": True,
        "client_id": "not-in-the-catalog",
        "sub": "admin@carbon.super",
        "application": {"name": "DefaultApplication", "owner": "admin"},
        "subscribedAPIs": [{"name": api.name, "version": api.version, "subscriptionTier": tier}],
    }
    return deciding


def call_of(deciding: Deciding, resource: str, method: str) -> ApiCall:
    (api,) = deciding.catalog.apis.values()
    return ApiCall(
        api=api.name,
        version=api.version,
        context=api.base_paths[0],
        resource=resource,
        method=method,
    )


async def test_the_tier_of_the_answer_limits() -> None:
    deciding = deciding_for()
    reasons = [await deciding.reason(ask()) for _ in range(3)]
    assert reasons == ["allowed", "allowed", "rate_limited"]
    assert deciding.introspector.asked == 1


async def test_a_tier_that_the_catalog_does_not_have_is_no_allow() -> None:
    assert await deciding_for("Platinum").reason(ask()) != "allowed"


async def test_an_allowed_call_allows_no_other() -> None:
    deciding = deciding_for()
    refusal = Denial(reason=Reason.INSUFFICIENT_SCOPE, detail="No.")
    for resource, method in (("/ip", "POST"), ("/other", "GET")):
        deciding.introspector.calls[TOKEN, call_of(deciding, resource, method)] = refusal
    assert await deciding.reason(ask()) == "allowed"
    for path, method in (("/httpbin/1.0.0/ip", "POST"), ("/httpbin/1.0.0/other", "GET")):
        found = await deciding.reason(ask(path, method))
        assert found == "insufficient_scope"
    assert await deciding.reason(ask()) == "allowed"
    assert deciding.introspector.asked == 3


async def test_a_refused_subscription_is_the_reason() -> None:
    deciding = deciding_for()
    call = call_of(deciding, "/ip", "GET")
    for reason in (Reason.SUBSCRIPTION_NOT_FOUND, Reason.SUBSCRIPTION_BLOCKED):
        deciding.introspector.calls[TOKEN, call] = Denial(reason=reason, detail="No.")
        assert await deciding.reason(ask()) == reason.value
