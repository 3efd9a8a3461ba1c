"""API keys that are for one API, with or without an application."""

from __future__ import annotations

from typing import Any

import pytest

from extauthz.model.apis import Api
from extauthz.model.catalog import ApiKey, Catalog
from extauthz.model.decision import Allow
from extauthz.model.referers import read_referer_pattern
from extauthz.model.request import ApiRequest
from tests.builders import (
    API_KEY,
    a_catalog,
    a_limit,
    a_request,
    a_resource,
    a_tier,
    an_api,
    sha256,
)
from tests.deciding import Deciding
from tests.policy.authentication.identifying import KEY, MOBILE

SHOP = ("Shop", "1.0.0")


def an_api_for(name: str, **fields: Any) -> Api:
    return an_api(
        a_resource(security=(KEY,)), name=name, base_paths=(f"/{name.lower()}",), **fields
    )


def a_catalog_of(key: ApiKey, **fields: Any) -> Catalog:
    fields.setdefault("subscription_required", False)
    return a_catalog(
        an_api_for("Shop", **fields),
        an_api_for("Other", **fields),
        api_keys=[key],
        subscribed=False,
    )


def a_key(**fields: Any) -> ApiKey:
    return ApiKey(**{"digest": sha256(API_KEY), "application": None, "api": SHOP, **fields})


def ask(name: str, **headers: str) -> ApiRequest:
    return a_request(f"/{name}/ip", headers={"x-api-key": API_KEY, **headers})


async def test_a_key_is_good_for_its_api_only() -> None:
    deciding = Deciding(a_catalog_of(a_key()))
    for _ in range(2):
        assert await deciding.reason(ask("shop")) == "allowed"
        assert await deciding.reason(ask("other")) == "invalid_credentials"


async def test_a_key_is_not_good_for_another_version() -> None:
    deciding = Deciding(a_catalog_of(a_key(api=("Shop", "2.0.0"))))
    assert await deciding.reason(ask("shop")) == "invalid_credentials"


@pytest.mark.parametrize(
    ("application", "expected"), [(MOBILE, "allowed"), (None, "subscription_not_found")]
)
async def test_a_subscription_is_that_of_the_keys_application(
    application: Any, expected: str
) -> None:
    catalog = a_catalog(
        an_api_for("Shop"), application=MOBILE, api_keys=[a_key(application=application)]
    )
    assert await Deciding(catalog).reason(ask("shop")) == expected


async def test_says_whom_a_key_stands_for() -> None:
    for key, user in (
        (a_key(user="carol", application=MOBILE), "carol"),
        (a_key(application=MOBILE), "alice"),
        (a_key(), ""),
    ):
        allowed = await Deciding(a_catalog_of(key)).allow(ask("shop"))
        assert allowed.identity.user == user


async def test_callers_without_an_application_are_counted_by_their_key() -> None:
    tier = a_tier("DefaultSubscriptionless", a_limit(1))
    api = an_api_for("Shop", subscription_required=False, unsubscribed_tier=tier)
    keys = [a_key(), a_key(digest=sha256("second"))]
    deciding = Deciding(a_catalog(api, api_keys=keys, subscribed=False))
    assert await deciding.reason(ask("shop")) == "allowed"
    assert await deciding.reason(ask("shop")) == "rate_limited"
    other = a_request("/shop/ip", headers={"x-api-key": "second"})
    allowed = await deciding.decide(other)
    assert isinstance(allowed, Allow) and allowed.tier == "DefaultSubscriptionless"


@pytest.mark.parametrize(
    ("referer", "expected"),
    [
        ("https://a.shop.example/page", "allowed"),
        ("https://shop.example/page", "credential_not_permitted"),
        ("https://legacy.example/x", "allowed"),
        ("", "credential_not_permitted"),
    ],
)
async def test_a_page_must_fit_a_pattern_or_a_beginning(referer: str, expected: str) -> None:
    patterns = (read_referer_pattern("*.shop.example/*"),)
    key = a_key(referer_patterns=patterns, referers=("https://legacy.example",))
    deciding = Deciding(a_catalog_of(key))
    for _ in range(2):
        assert await deciding.reason(ask("shop", referer=referer)) == expected


async def test_a_key_without_an_application_can_be_revoked() -> None:
    deciding = Deciding(a_catalog_of(a_key()))
    deciding.revocations.revoke_digest(sha256(API_KEY))
    assert await deciding.reason(ask("shop")) == "token_revoked"
