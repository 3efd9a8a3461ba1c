"""What is found in a catalog, in which pages, and within which bounds."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any

import pytest

from extauthz.inspection.catalog_entries import Search
from extauthz.inspection.catalog_search import (
    KINDS,
    MOST_SUBSCRIPTIONS,
    CatalogChanged,
    search_catalog,
)
from extauthz.inspection.slices import LOOK
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, Catalog, ClientRegistration
from extauthz.model.identity import KeyType
from extauthz.model.limits import Algorithm
from extauthz.model.subscriptions import Subscription, SubscriptionState
from extauthz.telemetry.decision_log.masking import Masks, UserMask
from tests.builders import START_US, a_limit, a_tier, an_api, sha256

GOLD = a_tier("Gold", a_limit(100), burst=a_limit(5, per_s=1, algorithm=Algorithm.BURST))
MOBILE = Application(name="mobile", owner="alice", tier=GOLD)
SHOP = Application(name="Web Shop", owner="bob")
ISSUER = "https://idp.example/"
MASKS = Masks()


def a_catalog(**fields: Any) -> Catalog:
    return Catalog(
        apis=[
            an_api(hosts=("api.example.com",)),
            an_api(name="Pets", version="v1", base_paths=("/pets/v1",), tier=GOLD),
        ],
        applications=[MOBILE, SHOP],
        api_keys=[
            ApiKey(
                digest=sha256("a-good-key"), application=MOBILE, scopes=frozenset({"b", "a"}),
                expires_at_us=START_US,
            ),
            ApiKey(digest=sha256("other"), application=SHOP, key_type=KeyType.SANDBOX),
        ],
        consumer_keys={(ISSUER, "abc123"): ClientRegistration(application=MOBILE)},
        certificates={"spiffe://mesh/shop": ClientRegistration(application=SHOP)},
        subscriptions=[
            Subscription(application="mobile", api="HttpbinAPI", version="1.0.0", tier=GOLD),
            Subscription(
                application="Web Shop", api="Pets", version="v1", state=SubscriptionState.BLOCKED
            ),
        ],
        tiers=[GOLD],
        revision="0123456789abcdef",
        **fields,
    )  # fmt: skip


async def found(**wanted: Any) -> list[dict[str, Any]]:
    page = await search_catalog(a_catalog(), Search(**wanted), MASKS)
    assert page.next == ""
    return page.results


async def named(**wanted: Any) -> list[tuple[str, str]]:
    return [
        (it["kind"], it.get("name") or it.get("id") or it.get("principal") or it["application"])
        for it in await found(**wanted)
    ]


KEY = sha256("a-good-key").hex()
OTHER = sha256("other").hex()
CLIENT = MASKS.hash_text("abc123")
PRINCIPAL = MASKS.hash_text("spiffe://mesh/shop")
ALICE = MASKS.hash_text("alice")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        ({"text": "httpbin"}, [("api", "HttpbinAPI"), ("subscription", "mobile")]),
        ({"text": "EXAMPLE.com"}, [("api", "HttpbinAPI")]),
        ({"text": "/pets"}, [("api", "Pets")]),
        ({"text": "alice"}, [("application", "mobile")]),
        ({"text": "shop", "kind": "application"}, [("application", "Web Shop")]),
        ({"text": "lic"}, []),
        ({"text": ALICE[:6]}, [("application", "mobile")]),
        ({"text": "spiffe://mesh/shop"}, [("certificate", PRINCIPAL)]),
        ({"text": "SPIFFE://mesh/shop"}, []),
        ({"text": PRINCIPAL[:8].upper()}, [("certificate", PRINCIPAL)]),
        ({"text": "shop", "kind": "certificate"}, []),
        ({"text": KEY}, [("api_key", KEY[:12])]),
        ({"text": KEY[:12]}, [("api_key", KEY[:12])]),
        ({"text": KEY[:13]}, []),
        ({"text": KEY[:63]}, []),
        ({"text": KEY[:-1] + ("0" if KEY[-1] != "0" else "1")}, []),
        ({"text": KEY[:7].upper()}, [("api_key", KEY[:12])]),
        ({"text": f"sha256: {KEY[:8]}"}, [("api_key", KEY[:12])]),
        ({"text": "a-good-key"}, []),
        ({"text": "abc123"}, [("consumer_key", CLIENT)]),
        ({"text": CLIENT}, [("consumer_key", CLIENT)]),
        ({"text": CLIENT[:8]}, [("consumer_key", CLIENT)]),
        ({"text": "gold"}, [("tier", "Gold")]),
        ({"application": "mobile", "kind": "api_key"}, [("api_key", KEY[:12])]),
        (
            {"application": "Web Shop"},
            [
                ("application", "Web Shop"),
                ("api_key", OTHER[:12]),
                ("certificate", PRINCIPAL),
                ("subscription", "Web Shop"),
            ],
        ),
        ({"api": "Pets"}, [("api", "Pets"), ("subscription", "Web Shop")]),
        ({"api": "Pets", "application": "mobile"}, []),
        ({"api": "Pets", "application": "Web Shop"}, [("subscription", "Web Shop")]),
        ({"text": "nothing has this"}, []),
    ],
)
async def test_finds(wanted: dict[str, str], names: list[tuple[str, str]]) -> None:
    assert await named(**wanted) == names


async def test_an_entry_says_what_there_is_to_know() -> None:
    (api,) = await found(text="pets", kind="api")
    assert api == {
        "kind": "api", "name": "Pets", "version": "v1", "context": ["/pets/v1"], "hosts": ["*"],
        "state": "PUBLISHED", "tier": "Gold", "security": ["jwt", "api_key"], "resources": 1,
        "subscriptions": 1,
    }  # fmt: skip
    (mobile,) = await found(text="mobile", kind="application")
    assert mobile == {
        "kind": "application", "name": "mobile", "owner": MASKS.hash_text("alice"), "tier": "Gold",
        "subscription_count": 1,
        "subscriptions": [
            {
                "kind": "subscription", "application": "mobile", "api": "HttpbinAPI",
                "version": "1.0.0", "state": "UNBLOCKED", "tier": "Gold",
            }
        ],
    }  # fmt: skip
    (key,) = await found(text=KEY)
    assert key == {
        "kind": "api_key", "id": KEY[:12], "application": "mobile", "key_type": "PRODUCTION",
        "scopes": ["a", "b"], "expires": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    (tier,) = await found(kind="tier")
    assert tier == {
        "kind": "tier", "name": "Gold", "limits": ["100 requests per 1m, fixed_window"],
        "burst": "5 requests per 1s, burst", "stop_on_quota_reach": True, "condition_groups": 0,
    }  # fmt: skip


async def test_users_and_consumer_keys_are_shown_as_in_the_log_of_decisions() -> None:
    assert "alice" not in str(await found()) and "abc123" not in str(await found())
    open_masks = Masks(user=UserMask.FULL)
    page = await search_catalog(a_catalog(), Search(text="mobile", kind="application"), open_masks)
    assert page.results[0]["owner"] == "alice"


@pytest.mark.parametrize(
    ("mask", "text", "is_found"),
    [
        (UserMask.FULL, "ALI", True),
        (UserMask.FULL, "mesh/sh", True),
        (UserMask.HASH, "ali", False),
        (UserMask.HASH, "mesh/sh", False),
        (UserMask.HASH, ALICE, True),
        (UserMask.OFF, "ali", False),
        (UserMask.OFF, ALICE, False),
        (UserMask.OFF, "alice", True),
    ],
)
async def test_what_is_masked_is_not_found_by_its_parts(
    mask: UserMask, text: str, *, is_found: bool
) -> None:
    """Else many searches would say a name letter by letter."""
    page = await search_catalog(a_catalog(), Search(text=text), Masks(user=mask))
    assert bool(page.results) is is_found


@pytest.mark.parametrize("most", [1, 2, 3, 100])
async def test_pages_together_are_everything(most: int) -> None:
    catalog, results, after = a_catalog(), list[dict[str, Any]](), ""
    for _ in range(100):
        page = await search_catalog(catalog, Search(most=most, after=after), MASKS)
        assert len(page.results) <= most
        results += page.results
        after = page.next
        if not after:
            break
    assert results == await found(most=100)
    assert {it["kind"] for it in results} == set(KINDS)


async def test_a_long_search_ends_in_time_and_goes_on_from_its_cursor() -> None:
    """Each look at the time is half a second later than the one before."""
    applications = [Application(name=f"application {it}") for it in range(200 * LOOK)]
    subscriptions = [
        Subscription(application=it.name, api=f"api {place % 7}", version="1")
        for place, it in enumerate(applications)
    ]
    catalog = Catalog(applications=applications, subscriptions=subscriptions, revision="r")
    results, after, searches = list[dict[str, Any]](), "", 0
    ticks = count(0.0, 0.5)
    while True:
        page = await search_catalog(
            catalog, Search(text="application 31", after=after), MASKS,
            within_s=0.0, monotonic=lambda: next(ticks),
        )  # fmt: skip
        results += page.results
        searches += 1
        after = page.next
        if not after:
            break
    wanted = [it for it in applications if "application 31" in it.name]
    assert [it["name"] for it in results if it["kind"] == "application"] == [
        it.name for it in wanted
    ]
    assert len([it for it in results if it["kind"] == "subscription"]) == len(wanted)
    assert 1 < searches <= 2 * 200 + 2 * len(wanted)


async def test_others_run_while_a_large_catalog_is_searched() -> None:
    applications = [Application(name=f"application {it}") for it in range(200_000)]
    catalog = Catalog(applications=applications)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    other = asyncio.create_task(take_turns())
    await search_catalog(catalog, Search(text="nothing"), MASKS, within_s=60)
    other.cancel()
    # Some 20 ms of comparing, in turns of 1 ms; between two of them others have many.
    assert turns > 10


async def test_an_application_with_many_subscriptions_lists_the_first() -> None:
    subscriptions = [
        Subscription(application="mobile", api=f"api {it}", version="1") for it in range(70)
    ]
    catalog = Catalog(applications=[MOBILE], subscriptions=subscriptions)
    page = await search_catalog(catalog, Search(kind="application"), MASKS)
    (mobile,) = page.results
    assert mobile["subscription_count"] == 70
    assert len(mobile["subscriptions"]) == MOST_SUBSCRIPTIONS


@pytest.mark.parametrize(
    "after", ["x", "0123456789ab.api.x", "0123456789ab.nothing.1", "ffffffffffff.api.1", "..1", "²"]
)
async def test_a_cursor_of_another_catalog_is_refused(after: str) -> None:
    with pytest.raises(CatalogChanged):
        await search_catalog(a_catalog(), Search(after=after), MASKS)


async def test_a_cursor_beyond_the_end_finds_nothing() -> None:
    page = await search_catalog(
        a_catalog(), Search(kind="api", after="0123456789ab.api.999999999999999"), MASKS
    )
    assert (page.results, page.next) == ([], "")
