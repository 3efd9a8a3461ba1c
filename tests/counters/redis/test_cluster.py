"""Counting in a Redis Cluster: all or nothing over several slots, and slots that move."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import pytest

from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.redis.cluster import find_tag, split_by_slot
from extauthz.counters.redis.refusals import SLOTS
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.applications import Application
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.model.limits import Algorithm, Charge, Taking
from extauthz.model.routing.routes import Route
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.policy.limits.planning import RateLimitPlanner
from tests.builders import START_US, FakeClock, S, a_catalog, a_limit, a_request, a_tier, an_api
from tests.redis_server import Deployment, RedisServer, find_shared, settings_of

WINDOW_US = 36_500 * 86_400 * S
OWN, SHARED, WIDEST = "{a1}own", "{k2}shared", "{p5}widest"
"""Three slots, on three nodes, in the order in which they are asked."""


@pytest.fixture
def cluster() -> Deployment:
    return find_shared("redis, cluster")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store(cluster: Deployment, clock: FakeClock) -> AsyncIterator[RedisCounterStore]:
    settings = settings_of(cluster)
    store = RedisCounterStore(
        settings, remember_refusals=False, clock=clock, monotonic_us=clock.now_us
    )
    yield store
    await store.close()


def a_charge(
    key: str, limit: int = 3, algorithm: Algorithm = Algorithm.FIXED_WINDOW, cost: int = 1
) -> Charge:
    return Charge(key, algorithm, limit, 60 * S, cost)


def node_of(cluster: Deployment, key: str) -> RedisServer:
    slot = cluster.primary.ask("CLUSTER", "KEYSLOT", f"extauthz:{key}")
    return cluster.servers[min(int(slot) // 5461, 2)]


def test_the_keys_of_these_tests_lie_on_different_nodes(cluster: Deployment) -> None:
    assert len({node_of(cluster, key).port for key in (OWN, SHARED, WIDEST)}) == 3


def test_splits_as_redis_does(cluster: Deployment) -> None:
    charges = [a_charge(key) for key in (WIDEST, OWN, SHARED, "{a1}other", "no tag", "{}x", "{ä}b")]
    for slot, places in split_by_slot(charges, "extauthz:"):
        for place in places:
            key = f"extauthz:{charges[place].key}"
            assert slot == cluster.primary.ask("CLUSTER", "KEYSLOT", key)


@pytest.mark.parametrize("held", [[0], [16_383], range(5461), range(10_923, SLOTS)], ids=str)
def test_finds_a_hash_tag_in_a_slot_of_the_node(cluster: Deployment, held: Sequence[int]) -> None:
    here, other = ("127.0.0.1", 1), ("127.0.0.1", 2)
    server_of = [here if slot in held else other for slot in range(SLOTS)]
    tag = find_tag(server_of, here)
    assert cluster.primary.ask("CLUSTER", "KEYSLOT", f"extauthz:{{{tag}}}marker") in held


def test_a_node_without_slots_has_no_hash_tag() -> None:
    assert find_tag([None] * SLOTS, ("127.0.0.1", 1)) is None


def test_asks_for_the_consumers_own_limits_first_and_shared_ones_last() -> None:
    tier = a_tier("T", a_limit(10))
    catalog = a_catalog(
        an_api(tier=tier),
        application=Application(name="mobile", tier=tier),
        subscription_fields={"tier": tier},
    )
    api = next(iter(catalog.apis.values()))
    subscription = next(iter(catalog.subscriptions.values()))
    identity = Identity(scheme=SecurityScheme.JWT, application=catalog.applications["mobile"])
    limited = LimitedRequest(
        a_request(), Route(api, api.resources[0]), identity, subscription.tier, "192.0.2.1"
    )
    planned = RateLimitPlanner(catalog).plan_charges(limited, START_US)
    charges = [limit.charge for limit in planned]
    asked = [[charges[p].key[1] for p in places] for _, places in split_by_slot(charges, "")]
    assert asked == [["a", "a"], ["p"]]


@pytest.mark.parametrize("algorithm", [a for a in Algorithm if a is not Algorithm.CALENDAR])
async def test_decides_over_several_slots_as_memory_does(
    store: RedisCounterStore, clock: FakeClock, algorithm: Algorithm
) -> None:
    memory = MemoryCounterStore(clock)
    charges = [
        a_charge(WIDEST, 4, algorithm),
        a_charge(OWN, 6, algorithm),
        # Not a burst: given back when it was full, that may hold less than before.
        replace(a_charge(SHARED, 2, Algorithm.SLIDING_WINDOW), enforced=False),
        a_charge("{a1}other", 9, algorithm),
        a_charge("{k7}third", 5, algorithm, cost=2),
    ]
    for _ in range(8):
        for chosen in (charges, charges[:2], charges[1:], charges[3:]):
            assert await store.take(chosen) == await memory.take(chosen)
        clock.advance(7)


async def test_many_at_once_over_several_slots_admit_exactly_the_limit(
    store: RedisCounterStore,
) -> None:
    charges = [a_charge(OWN, 1000), a_charge(WIDEST, 50)]
    taken = await asyncio.gather(*[store.take(charges) for _ in range(100)])
    assert sum(taking.charged for taking in taken) == 50
    peeked = await store.take([replace(charge, cost=0) for charge in charges])
    assert [reading.remaining for reading in peeked.readings] == [950, 0]


async def test_a_repetition_over_several_slots_is_charged_once(store: RedisCounterStore) -> None:
    charges = [a_charge(OWN), a_charge(WIDEST)]
    first = await store.take(charges, dedup_id="x")
    assert await store.take(charges, dedup_id="x") == first
    await store.give_back(charges, dedup_id="x")
    await store.give_back(charges, dedup_id="x")
    assert [reading.remaining for reading in (await store.take(charges)).readings] == [2, 2]


async def test_a_repeated_refusal_over_several_slots_stays_one_and_charges_nothing(
    store: RedisCounterStore,
) -> None:
    own, full = a_charge(OWN), a_charge(WIDEST, 0)
    for _ in range(3):
        assert not (await store.take([own, full], dedup_id="x")).charged
    assert (await store.take([own])).readings[0].remaining == 2


async def test_what_is_given_back_over_several_slots_can_be_taken_again(
    store: RedisCounterStore,
) -> None:
    charges = [a_charge(OWN, 1), a_charge(WIDEST, 1)]
    taking = await store.take(charges)
    assert not (await store.take(charges)).charged
    await store.give_back(charges, at_us=taking.at_us)
    assert (await store.take(charges)).charged


@contextmanager
def stopped(server: RedisServer) -> Iterator[None]:
    server.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.signal(signal.SIGCONT)


async def test_what_was_taken_is_given_back_when_a_later_node_does_not_answer(
    cluster: Deployment, clock: FakeClock
) -> None:
    store = RedisCounterStore(
        settings_of(cluster, timeout_s=0.2), clock=clock, monotonic_us=clock.now_us
    )
    own, widest = a_charge(OWN), a_charge(WIDEST)
    assert isinstance(await take_at_last(store, clock, [own, widest]), Taking)
    with stopped(node_of(cluster, WIDEST)):
        with pytest.raises(CounterStoreError):
            await store.take([own, widest])
        # The other nodes go on, and closing waits for what is given back.
        assert (await take_at_last(store, clock, [a_charge(SHARED)])).charged
        await store.close()
    store = RedisCounterStore(settings_of(cluster), clock=clock)
    assert (await store.take([own])).readings[0].remaining == 1
    await store.close()


async def take_at_last(store: RedisCounterStore, clock: FakeClock, charges: list[Charge]) -> Taking:
    async with asyncio.timeout(60):
        while True:
            try:
                return await store.take(charges)
            except CounterStoreError:
                clock.us += 1
                await asyncio.sleep(0)


def set_slot(cluster: Deployment, slot: int, *words: str) -> None:
    for server in cluster.servers:
        server.ask("CLUSTER", "SETSLOT", slot, *words)


async def test_follows_a_slot_that_has_moved(store: RedisCounterStore, cluster: Deployment) -> None:
    charge = a_charge(OWN)
    assert (await store.take([charge])).charged
    cluster.flush()
    slot = cluster.primary.ask("CLUSTER", "KEYSLOT", f"extauthz:{OWN}")
    old, new = node_of(cluster, OWN), node_of(cluster, WIDEST)
    set_slot(cluster, slot, "NODE", new.ask("CLUSTER", "MYID").decode())
    try:
        taken = await asyncio.gather(*[store.take([charge]) for _ in range(5)])
        assert sum(taking.charged for taking in taken) == 3
        assert len(new.dump()) == 1
    finally:
        cluster.flush()
        set_slot(cluster, slot, "NODE", old.ask("CLUSTER", "MYID").decode())


async def test_follows_a_slot_that_is_just_moving(
    store: RedisCounterStore, cluster: Deployment
) -> None:
    charge = a_charge(OWN)
    assert (await store.take([charge])).charged
    cluster.flush()
    slot = cluster.primary.ask("CLUSTER", "KEYSLOT", f"extauthz:{OWN}")
    old, new = node_of(cluster, OWN), node_of(cluster, WIDEST)
    new.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", old.ask("CLUSTER", "MYID").decode())
    old.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", new.ask("CLUSTER", "MYID").decode())
    try:
        taken = await asyncio.gather(*[store.take([charge]) for _ in range(5)])
        assert sum(taking.charged for taking in taken) == 3
        assert (len(new.list_keys()), len(old.list_keys())) == (1, 0)
        # Redis cannot run a script whose keys may be on either node.
        with pytest.raises(CounterStoreError):
            await store.take([charge, a_charge("{a1}other")])
    finally:
        cluster.flush()
        for server in (old, new):
            server.ask("CLUSTER", "SETSLOT", slot, "STABLE")


async def test_counts_with_any_one_node_to_begin_with(cluster: Deployment) -> None:
    for server in cluster.servers:
        settings = settings_of(Deployment([], [], f"redis+cluster://127.0.0.1:{server.port}"))
        store = RedisCounterStore(settings)
        assert (await store.take([a_charge(OWN, 9), a_charge(WIDEST, 9)])).charged
        await store.close()


async def test_without_any_node_nothing_is_decided() -> None:
    clock = FakeClock()
    dead = Deployment([], [], "redis+cluster://127.0.0.1:1,127.0.0.1:2")
    store = RedisCounterStore(settings_of(dead), monotonic_us=clock.now_us)
    for _ in range(2):
        with pytest.raises(CounterStoreError, match="no node"):
            await store.take([a_charge(OWN)])
    await store.close()


async def test_a_redis_that_is_no_cluster_is_none() -> None:
    single = find_shared("redis").primary
    address = Deployment([], [], f"redis+cluster://127.0.0.1:{single.port}")
    store = RedisCounterStore(settings_of(address))
    with pytest.raises(CounterStoreError, match="no node"):
        await store.take([a_charge(OWN)])
    await store.close()
