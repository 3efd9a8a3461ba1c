"""What is listed of limits is what was used, wherever it is counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from extauthz.app.counting import Counting
from extauthz.counters.leases.store import LeaseRules, LeasingCounterStore
from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.outage.fallback import FallbackCounterStore
from extauthz.errors import CounterStoreError
from extauthz.inspection.limits_in_use import CounterReading, LimitFilter, LimitsInUse, merge
from extauthz.model.catalog import CustomLimit
from extauthz.model.identity import SecurityScheme
from extauthz.model.limits import Algorithm, CalendarUnit, Charge, Limit
from extauthz.model.request import ApiRequest
from extauthz.policy.limits.quota import QuotaAsk
from extauthz.ports import CounterStore
from extauthz.telemetry.decision_log.masking import Masks
from tests.builders import (
    API_KEY,
    FakeClock,
    a_catalog,
    a_limit,
    a_request,
    a_resource,
    a_tier,
    an_api,
)  # fmt: skip
from tests.counters.outage.outages import FakeTime, Outage
from tests.deciding import Deciding
from tests.redis_server import make_redis


def keyed(path: str = "/httpbin/1.0.0/ip") -> ApiRequest:
    return a_request(path, headers={"x-api-key": API_KEY})


def a_rule(algorithm: Algorithm, requests: int) -> Limit:
    if algorithm is Algorithm.CALENDAR:
        zone = ZoneInfo("Europe/Berlin")
        return a_limit(requests, algorithm=algorithm, unit=CalendarUnit.DAY, timezone=zone)
    return a_limit(requests, per_s=3600, algorithm=algorithm)


def listing(deciding: Deciding, read: Any, *, is_shared: bool = False) -> LimitsInUse:
    return LimitsInUse(deciding.most_used, read, deciding.clock, Masks(), is_shared=is_shared)


async def listed(found: LimitsInUse, **wanted: Any) -> list[dict[str, Any]]:
    return merge([await found.find(LimitFilter(**wanted))], most=50)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("name", ["memory", "redis", "redis, cluster"])
async def test_tells_exactly_what_is_used(name: str, algorithm: Algorithm) -> None:
    """Also what another process has used since: the counters are read again."""
    clock = FakeClock()
    counters: CounterStore = MemoryCounterStore(clock)
    if name != "memory":
        counters = await make_redis(name)(clock)
    apis = [
        an_api(name=f"{algorithm.value} {name} {it}", base_paths=(f"/{it}",)) for it in ("a", "b")
    ]
    tier = a_tier("Gold", a_rule(algorithm, 10))
    catalog = a_catalog(*apis, subscription_fields={"tier": tier})
    deciding, other = Deciding(catalog, counters=counters), Deciding(catalog, counters=counters)
    deciding.clock.us = other.clock.us = clock.us
    for _ in range(3):
        await deciding.allow(keyed("/a/ip"))
    await deciding.allow(keyed("/b/ip"))
    await other.pipeline.grant(keyed("/b/ip"), QuotaAsk(amount=5))
    read = Counting(counters, MemoryCounterStore(clock)).read
    rows = await listed(listing(deciding, read))
    assert [(row["api"], row["used"], row["remaining"], row["share"]) for row in rows] == [
        (apis[1].name, 6, 4, 0.6),
        (apis[0].name, 3, 7, 0.3),
    ]
    assert {(row["limit"], row["algorithm"], row["is_fresh"]) for row in rows} == {
        (10, algorithm.value, True)
    }
    again = await listed(listing(deciding, read))
    assert [row["used"] for row in again] == [6, 3], "reading takes something"
    clock.advance(86_400)
    deciding.clock.us = clock.us
    assert await listed(listing(deciding, read)) == [], "nothing is used any more"
    await counters.close()


async def test_a_row_says_what_it_is_about() -> None:
    api = an_api(a_resource("/ip", tier=a_tier("Res", a_limit(90))))
    tier = a_tier("Gold", a_limit(10), burst=a_limit(5, per_s=1, algorithm=Algorithm.BURST))
    per_ip = CustomLimit(name="per ip", template="$clientIp", tier=a_tier("C", a_limit(50)))
    catalog = a_catalog(api, subscription_fields={"tier": tier}, custom_limits=[per_ip])
    deciding = Deciding(catalog)
    await deciding.allow(keyed())
    read = Counting(deciding.memory, deciding.memory).read
    rows = await listed(listing(deciding, read))
    assert [(row["level"], row["tier"], row["window"]) for row in rows] == [
        ("burst", "Gold", "1s"),
        ("subscription", "Gold", "1m"),
        ("custom", "per ip", "1m"),
        ("resource", "Res", "1m"),
    ]
    burst, _, custom, resource = rows
    assert burst == {
        "level": "burst",
        "tier": "Gold",
        "api": "HttpbinAPI",
        "version": "1.0.0",
        "resource": "",
        "application": "mobile",
        "consumer": "mobile",
        "consumer_kind": "application",
        "algorithm": "burst",
        "window": "1s",
        "unit": "requests",
        "limit": 5,
        "used": 1,
        "remaining": 4,
        "share": 0.2,
        "leased": 0,
        "resets": "2023-11-14T22:13:20.200000Z",
        "enforced": True,
        "counted": "process",
        "is_fresh": True,
    }
    assert (resource["resource"], resource["consumer"], resource["consumer_kind"]) == (
        "/ip",
        "",
        "",
    )
    assert custom["consumer_kind"] == "subject" and len(custom["consumer"]) == 16
    assert "192.0.2.1" not in str(rows) and "key" not in custom


@pytest.mark.parametrize(
    ("wanted", "levels"),
    [
        ({}, {"resource", "subscription"}),
        ({"level": "resource"}, {"resource"}),
        ({"application": "mobile"}, {"subscription"}),
        ({"application": "other"}, set()),
        ({"api": "HttpbinAPI"}, {"resource", "subscription"}),
        ({"api": "Other"}, set()),
        ({"most": 1}, {"subscription"}),
    ],
)
async def test_lists_what_is_wanted(wanted: dict[str, Any], levels: set[str]) -> None:
    api = an_api(a_resource("/ip", tier=a_tier("Res", a_limit(90))))
    deciding = Deciding(a_catalog(api, subscription_fields={"tier": a_tier("Gold", a_limit(10))}))
    await deciding.allow(keyed())
    read = Counting(deciding.memory, deciding.memory).read
    assert {row["level"] for row in await listed(listing(deciding, read), **wanted)} == levels


async def test_a_consumer_that_the_catalog_does_not_name_is_masked() -> None:
    catalog = a_catalog(
        an_api(a_resource("/ip", security=(SecurityScheme.NONE,))),
        tiers=[a_tier("Unauthenticated", a_limit(4))],
    )
    deciding = Deciding(catalog)
    await deciding.allow(a_request(client="198.51.100.77"))
    read = Counting(deciding.memory, deciding.memory).read
    (row,) = await listed(listing(deciding, read))
    assert (row["level"], row["consumer"], row["consumer_kind"]) == (
        "client", "198.51.100.0/24", "client_address",
    )  # fmt: skip
    assert "198.51.100.77" not in str(row)


async def test_tells_what_is_leased() -> None:
    clock = FakeClock()
    memory = MemoryCounterStore(clock)
    leasing = LeasingCounterStore(memory, clock.now_us, rules=LeaseRules(hot_per_s=0, size=50))
    shared = FallbackCounterStore(leasing, MemoryCounterStore(clock), clock, share=1)
    catalog = a_catalog(subscription_fields={"tier": a_tier("Gold", a_limit(1000))})
    deciding = Deciding(catalog, counters=shared)
    for _ in range(10):
        await deciding.allow(keyed())
    counting = Counting(shared, memory, shared, leases=leasing)
    (row,) = await listed(listing(deciding, counting.read, is_shared=True))
    # What is spent is what is charged and not held any more.
    assert row["leased"] > 0 and row["used"] - row["leased"] == 10
    assert row["counted"] == "shared"
    await shared.close()


async def test_tells_what_this_process_counts_while_the_store_is_away() -> None:
    clock = FakeClock()
    outage = Outage(share=0.5, time=FakeTime(clock))
    catalog = a_catalog(subscription_fields={"tier": a_tier("Gold", a_limit(10))})
    deciding = Deciding(catalog, counters=outage.store)
    await outage.begin()
    for _ in range(4):
        await deciding.allow(keyed())
    counting = Counting(outage.store, MemoryCounterStore(clock), outage.store)
    (row,) = await listed(listing(deciding, counting.read, is_shared=True))
    assert (row["used"], row["limit"], row["counted"]) == (4, 5, "outage")
    await outage.store.close()


async def test_the_last_reading_is_shown_where_none_can_be_had() -> None:
    deciding = Deciding(a_catalog(subscription_fields={"tier": a_tier("Gold", a_limit(10))}))
    await deciding.allow(keyed())

    async def fail(_: Sequence[Charge]) -> list[CounterReading]:
        raise CounterStoreError("away")

    (row,) = await listed(listing(deciding, fail))
    assert (row["used"], row["is_fresh"]) == (1, False)


def a_row(key: str, remaining: int, **fields: Any) -> dict[str, Any]:
    consumer = {"consumer_key": "", "user": "", "client_address": "", "subject": ""}
    return {
        "key": key, "limit": 10, "remaining": remaining, "leased": 0, "is_fresh": True,
        "is_open": False, "application": key, "consumer_kind": "application", **consumer, **fields,
    }  # fmt: skip


def test_workers_limits_are_merged_by_counter() -> None:
    one = [a_row("a", 3, leased=2), a_row("b", 8)]
    two = [a_row("c", 1), a_row("a", 3, leased=5), a_row("b", 9, is_fresh=False)]
    merged = merge([one, two], most=2)
    assert [(row["consumer"], row["remaining"], row["leased"]) for row in merged] == [
        ("c", 1, 0),
        ("a", 3, 7),
    ]
    assert not [row for row in merged if "key" in row or "is_open" in row]


@pytest.mark.parametrize(
    ("named", "made_up", "most", "shown"),
    [(9, 9, 6, (3, 3)), (1, 9, 6, (1, 5)), (0, 9, 6, (0, 6)), (9, 0, 6, (6, 0)), (9, 9, 1, (1, 0))],
)
def test_callers_that_can_be_made_up_take_half_of_the_places(
    named: int, made_up: int, most: int, shown: tuple[int, int]
) -> None:
    """As an address can: who has thousands has used up thousands of small limits."""
    rows = [a_row(f"app {it}", 5) for it in range(named)]
    rows += [a_row(f"address {it}", 0, is_open=True) for it in range(made_up)]
    merged = [row["consumer"].split(" ")[0] for row in merge([rows], most=most)]
    assert (merged.count("app"), merged.count("address")) == shown
    assert merged == sorted(merged), "the nearest to its end first"


async def test_a_flood_of_addresses_hides_no_application() -> None:
    free = a_resource("/free", security=(SecurityScheme.NONE,))
    tiers = [a_tier("Unauthenticated", a_limit(1)), a_tier("Gold", a_limit(10))]
    api = an_api(a_resource("/ip"), free)
    deciding = Deciding(a_catalog(api, subscription_fields={"tier": tiers[1]}, tiers=tiers))
    await deciding.allow(keyed())
    for number in range(1_500):
        client = f"2001:db8:{number:x}::1"
        await deciding.allow(a_request("/httpbin/1.0.0/free", client=client))
    rows = await listed(listing(deciding, Counting(deciding.memory, deciding.memory).read))
    assert (len(rows), rows[-1]["application"]) == (50, "mobile")
