"""Whether an application may use an API at all."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import ANONYMOUS, Identity, KeyType, SecurityScheme
from extauthz.model.subscriptions import SubscriptionState
from extauthz.policy.subscription import Subscribed, check_subscription
from tests.builders import a_catalog, a_limit, a_tier, an_api

GOLD = a_tier("Gold", a_limit())
API = an_api()
MOBILE = Application(name="mobile")
PRODUCTION, SANDBOX = KeyType.PRODUCTION, KeyType.SANDBOX


def an_identity(
    *,
    application: Application | None = MOBILE,
    key_type: KeyType | None = PRODUCTION,
    subscribed: Mapping[tuple[str, str], str] | None = None,
) -> Identity:
    return Identity(
        scheme=SecurityScheme.JWT,
        application=application,
        key_type=key_type,
        subscribed=subscribed,
    )


def a_catalog_with(state: SubscriptionState, *, api: Api = API) -> Catalog:
    return a_catalog(api, subscription_fields={"state": state, "tier": GOLD})


def reason_of(found: Subscribed | Denial) -> str:
    return found.reason.value if isinstance(found, Denial) else "good"


BLOCKED, INACTIVE = "subscription_blocked", "subscription_inactive"


@pytest.mark.parametrize(
    ("state", "key_type", "expected"),
    [
        ("UNBLOCKED", PRODUCTION, "good"),
        ("UNBLOCKED", SANDBOX, "good"),
        ("UNBLOCKED", None, "good"),
        ("TIER_UPDATE_PENDING", PRODUCTION, "good"),
        ("TIER_UPDATE_PENDING", SANDBOX, "good"),
        ("TIER_UPDATE_PENDING", None, "good"),
        ("BLOCKED", PRODUCTION, BLOCKED),
        ("BLOCKED", SANDBOX, BLOCKED),
        ("BLOCKED", None, BLOCKED),
        ("PROD_ONLY_BLOCKED", PRODUCTION, BLOCKED),
        ("PROD_ONLY_BLOCKED", SANDBOX, "good"),
        ("PROD_ONLY_BLOCKED", None, BLOCKED),
        ("ON_HOLD", PRODUCTION, INACTIVE),
        ("ON_HOLD", SANDBOX, INACTIVE),
        ("ON_HOLD", None, INACTIVE),
        ("REJECTED", PRODUCTION, INACTIVE),
        ("REJECTED", SANDBOX, INACTIVE),
        ("REJECTED", None, INACTIVE),
    ],
)
def test_goes_by_the_state_and_the_key_type(
    state: str, key_type: KeyType | None, expected: str
) -> None:
    catalog = a_catalog_with(SubscriptionState(state))
    found = check_subscription(catalog, API, an_identity(key_type=key_type))
    assert reason_of(found) == expected
    if isinstance(found, Subscribed):
        assert found.subscription is not None and found.tier is GOLD


def test_the_table_above_has_every_state() -> None:
    marks = test_goes_by_the_state_and_the_key_type.pytestmark  # type: ignore[attr-defined]  # pytest's
    assert {row[0] for row in marks[0].args[1]} == {state.value for state in SubscriptionState}


def test_denies_without_a_subscription() -> None:
    found = check_subscription(a_catalog(API, subscribed=False), API, an_identity())
    assert reason_of(found) == "subscription_not_found"


def test_denies_a_token_of_no_known_application() -> None:
    found = check_subscription(a_catalog(API), API, an_identity(application=None))
    assert reason_of(found) == "subscription_not_found"


def test_a_subscription_is_for_one_version() -> None:
    other = an_api(version="2.0.0", base_paths=("/httpbin/2.0.0",))
    found = check_subscription(a_catalog(API), other, an_identity())
    assert reason_of(found) == "subscription_not_found"


@pytest.mark.parametrize("application", [MOBILE, None])
def test_needs_none_where_the_api_asks_for_none(application: Application | None) -> None:
    api = an_api(subscription_required=False)
    catalog = a_catalog(api, subscribed=False)
    found = check_subscription(catalog, api, an_identity(application=application))
    assert found == Subscribed()


def test_the_tier_of_those_without_a_subscription_is_not_for_those_with_one() -> None:
    tier = a_tier("DefaultSubscriptionless", a_limit(10_000))
    api = an_api(subscription_required=False, unsubscribed_tier=tier)
    stranger = an_identity(application=None)
    catalog = a_catalog(api, subscribed=False)
    assert check_subscription(catalog, api, stranger) == Subscribed(tier=tier)
    assert check_subscription(catalog, api, ANONYMOUS) == Subscribed()
    subscribed = a_catalog_with(SubscriptionState.UNBLOCKED, api=api)
    found = check_subscription(subscribed, api, an_identity())
    assert isinstance(found, Subscribed) and found.tier is GOLD


def test_one_that_is_there_counts_though_none_is_asked_for() -> None:
    api = an_api(subscription_required=False)
    found = check_subscription(
        a_catalog_with(SubscriptionState.BLOCKED, api=api), api, an_identity()
    )
    assert reason_of(found) == BLOCKED


def test_a_public_resource_needs_none() -> None:
    found = check_subscription(a_catalog_with(SubscriptionState.BLOCKED), API, ANONYMOUS)
    assert found == Subscribed()


# Carried by the token

KEY = ("HttpbinAPI", "1.0.0")


@pytest.mark.parametrize(
    ("subscribed", "expected"),
    [
        ({KEY: "Gold"}, Subscribed(tier=GOLD)),
        ({KEY: "Unlimited"}, Subscribed()),
        ({KEY: ""}, Subscribed()),
        ({("httpbinapi", "1.0.0"): "Gold"}, Subscribed(tier=GOLD)),
        ({("HTTPBINAPI", "1.0.0"): "Gold"}, Subscribed(tier=GOLD)),
        ({("httpbinapi", "1.0.0"): "Unlimited", KEY: "Gold"}, Subscribed(tier=GOLD)),
    ],
)
def test_a_token_may_carry_its_subscription(
    subscribed: Mapping[tuple[str, str], str], expected: Subscribed
) -> None:
    catalog = a_catalog(API, subscribed=False, tiers=[GOLD])
    identity = an_identity(application=None, subscribed=subscribed)
    assert check_subscription(catalog, API, identity) == expected


@pytest.mark.parametrize(
    "subscribed",
    [{}, {("Other", "1.0.0"): "Gold"}, {("HttpbinAPI", "1.0"): "Gold"}, {KEY: "Platinum"}],
)
def test_a_token_for_something_else_is_not_enough(
    subscribed: Mapping[tuple[str, str], str],
) -> None:
    catalog = a_catalog(API, subscribed=False, tiers=[GOLD])
    found = check_subscription(catalog, API, an_identity(subscribed=subscribed))
    assert isinstance(found, Denial) and found.reason is Reason.SUBSCRIPTION_NOT_FOUND


def test_the_catalog_stands_in_where_the_token_names_another_api() -> None:
    catalog = a_catalog_with(SubscriptionState.UNBLOCKED)
    found = check_subscription(catalog, API, an_identity(subscribed={("Other", "1"): "Gold"}))
    assert isinstance(found, Subscribed) and found.subscription is not None
