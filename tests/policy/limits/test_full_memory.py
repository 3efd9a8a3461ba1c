"""One caller that fills memory with counters, and what becomes of everybody else's decisions."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from extauthz.counters.memory import MemoryCounterStore
from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.catalog import CustomLimit
from extauthz.model.identity import SecurityScheme
from extauthz.model.limits import OutageMode, Tier
from extauthz.model.request import ApiRequest
from tests.builders import (
    API_KEY,
    START_US,
    FakeClock,
    a_catalog,
    a_limit,
    a_request,
    a_resource,
    a_tier,
    an_api,
)
from tests.deciding import TWO_FAILURES, Deciding

MOBILE = Application(name="mobile", owner="alice", tier=a_tier("App", a_limit(50)))
FLOOD = 800
MAX_KEYS = 400


def address_of(number: int) -> str:
    """One of the networks of a single /48."""
    return f"2001:db8:1:{number:x}::1"


def most_common(reasons: list[str]) -> str:
    """Of callers from many networks: a few of them share a counter by chance."""
    return Counter(reasons).most_common(1)[0][0]


def keyed(key: str = API_KEY, client: str = "192.0.2.1", **headers: str) -> ApiRequest:
    return a_request(headers={"x-api-key": key, **headers}, client=client)


def deciding_with(*apis: Api, **fields: Any) -> Deciding:
    """A pipeline that counts in a small memory."""
    catalog = a_catalog(*apis, application=MOBILE, **fields)
    return Deciding(catalog, counters=MemoryCounterStore(FakeClock(START_US), max_keys=MAX_KEYS))


@pytest.mark.parametrize(
    ("mode", "same_network", "elsewhere"),
    [
        (OutageMode.LOCAL, "rate_limited", "allowed"),
        (OutageMode.ALLOW, "allowed", "allowed"),
        (OutageMode.DENY, "unavailable", "unavailable"),
    ],
)
async def test_a_flood_of_addresses_leaves_others_to_their_outage_mode(
    mode: OutageMode, same_network: str, elsewhere: str
) -> None:
    free = a_resource("/free", security=(SecurityScheme.NONE,))
    tier = Tier(name="Unauthenticated", limits=(a_limit(5),), on_outage=mode)
    deciding = deciding_with(an_api(a_resource(), free), tiers=[tier])

    def from_address(client: str) -> ApiRequest:
        return a_request("/httpbin/1.0.0/free", client=client)

    for number in range(FLOOD):
        await deciding.reason(from_address(address_of(number)))
    assert await deciding.reason(from_address(address_of(FLOOD))) == same_network
    assert (
        most_common(
            [await deciding.reason(from_address(f"198.51.{number}.7")) for number in range(30)]
        )
        == elsewhere
    )
    # Who is counted goes on, and so does whoever the catalog names.
    assert await deciding.reason(from_address(address_of(0))) == "allowed"
    assert await deciding.reason(keyed()) == "allowed"


async def test_a_flood_of_header_values_leaves_other_callers_and_applications_alone() -> None:
    tenant = CustomLimit(name="t", template="$header.x-tenant", tier=a_tier("T", a_limit(5)))
    free = a_resource("/free", security=(SecurityScheme.NONE,))
    deciding = deciding_with(an_api(a_resource(), free), custom_limits=[tenant])

    def of_tenant(name: str, client: str) -> ApiRequest:
        return a_request("/httpbin/1.0.0/free", headers={"x-tenant": name}, client=client)

    for number in range(FLOOD):
        await deciding.reason(of_tenant(str(number), "192.0.2.1"))
    assert await deciding.reason(of_tenant("another", "192.0.2.1")) == "rate_limited"
    reasons = [
        await deciding.reason(of_tenant(f"new-{number}", f"198.51.{number}.7"))
        for number in range(30)
    ]
    assert most_common(reasons) == "allowed"
    assert await deciding.reason(keyed()) == "allowed"


async def test_a_flood_of_guesses_has_nobody_elsewhere_refused_and_is_counted_itself() -> None:
    deciding = Deciding(
        a_catalog(application=MOBILE), failure_limit=TWO_FAILURES, max_failures=MAX_KEYS
    )
    for number in range(FLOOD):
        await deciding.reason(keyed("guess", client=address_of(number)))
    # The network that guesses has no more tries, also from an address that it never used.
    assert await deciding.reason(keyed("guess", client=address_of(FLOOD))) == "rate_limited"
    reasons = [await deciding.reason(keyed(client=f"198.51.{number}.7")) for number in range(30)]
    assert most_common(reasons) == "allowed"
