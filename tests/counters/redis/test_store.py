"""Counting in one Redis: exact, whole, cheap, and with nothing left behind."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from collections.abc import AsyncIterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from extauthz.counters.redis.script import Asked, CounterRequest, settle
from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, Reading, Taking
from extauthz.ports import Deadline
from tests.builders import S
from tests.redis_server import RedisServer, find_shared, settings_of

DAYS = 86_400 * S
COUNTED = [a for a in Algorithm if a is not Algorithm.CALENDAR]
EVERY = pytest.mark.parametrize("algorithm", COUNTED)


def a_charge(
    key: str = "k", limit: int = 3, *, algorithm: Algorithm = Algorithm.FIXED_WINDOW, cost: int = 1
) -> Charge:
    # A year from the epoch on, so that no window ends and no burst refills in a test.
    return Charge(f"{{a}}{key}", algorithm, limit, 36_500 * DAYS, cost)


@pytest.fixture
def server() -> RedisServer:
    return find_shared("redis").primary


def shared_settings(**fields: Any) -> RedisSettings:
    return settings_of(find_shared("redis"), **fields)


@pytest.fixture
async def store() -> AsyncIterator[RedisCounterStore]:
    """Goes by Redis's clock, and remembers no refusals."""
    store = RedisCounterStore(shared_settings(), remember_refusals=False)
    yield store
    await store.close()


async def count_of(store: RedisCounterStore, charge: Charge) -> int:
    peek = replace(charge, cost=0, limit=10_000)
    return 10_000 - (await store.take([peek])).readings[0].remaining


# Exact


@EVERY
@pytest.mark.parametrize("in_flight", [1, 3])
async def test_many_tasks_admit_exactly_the_limit(algorithm: Algorithm, in_flight: int) -> None:
    store = RedisCounterStore(shared_settings(in_flight=in_flight), remember_refusals=False)
    charge = a_charge(limit=300, algorithm=algorithm)
    taken = await asyncio.gather(*[store.take([charge]) for _ in range(600)])
    assert sum(taking.charged for taking in taken) == 300
    await store.close()


async def offer(url: str, algorithm: Algorithm, times: int) -> int:
    settings = RedisSettings(address=read_redis_url(url), timeout_s=60, connect_timeout_s=60)
    store = RedisCounterStore(settings)
    charges = [a_charge("one", 200, algorithm=algorithm), a_charge("other", 10**6)]
    admitted = 0
    for _ in range(times // 10):
        taken = await asyncio.gather(*[store.take(charges) for _ in range(10)])
        admitted += sum(taking.charged for taking in taken)
    await store.close()
    return admitted


def offer_in_a_process(url: str, algorithm: Algorithm, times: int) -> int:
    return asyncio.run(offer(url, algorithm, times))


def test_several_processes_admit_exactly_the_limit(server: RedisServer) -> None:
    url = find_shared("redis").url
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=4, mp_context=context) as processes:
        for algorithm in COUNTED:
            find_shared("redis")
            offers = [processes.submit(offer_in_a_process, url, algorithm, 100) for _ in range(4)]
            assert sum(offered.result() for offered in offers) == 200
            # What was refused by one limit was not charged to the other.
            assert server.ask("GET", "extauthz:{a}other").split()[1] == b"200"


async def test_the_same_id_at_the_same_time_is_charged_once(store: RedisCounterStore) -> None:
    charge = a_charge()
    taken = await asyncio.gather(*[store.take([charge], dedup_id="x") for _ in range(10)])
    assert taken == [taken[0]] * 10
    assert await count_of(store, charge) == 1


@EVERY
async def test_a_refusal_changes_no_key(
    store: RedisCounterStore, server: RedisServer, algorithm: Algorithm
) -> None:
    full = a_charge("full", 2, algorithm=algorithm)
    others = [a_charge("other", 9, algorithm=algorithm), a_charge("new")]
    await store.take([full, others[0]])
    await store.take([full])
    before = server.dump()
    assert len(before) == 2
    for _ in range(3):
        assert not (await store.take([*others, full])).charged
    assert server.dump() == before


# Cheap


@pytest.mark.parametrize(("at_once", "most"), [(1, 1.0), (8, 0.3), (64, 0.1)])
async def test_decisions_share_a_command(
    store: RedisCounterStore, server: RedisServer, at_once: int, most: float
) -> None:
    async def decide(consumer: int) -> None:
        tag = f"{{a{consumer}}}"
        charges = [replace(a_charge(limit=10**6), key=f"{tag}{name}") for name in ("s", "a")]
        for _ in range(20):
            assert (await store.take(charges)).charged

    await decide(0)  # connects, and teaches the script
    server.ask("CONFIG", "RESETSTAT")
    await asyncio.gather(*[decide(consumer) for consumer in range(at_once)])
    calls = server.find_calls()
    # What the script does inside is counted too; what travels is this.
    assert calls["evalsha"] <= most * 20 * at_once
    assert not {"eval", "script|load", "ping", "select", "client|setinfo"} & set(calls)


async def test_a_lone_decision_is_one_command(
    store: RedisCounterStore, server: RedisServer
) -> None:
    charges = [a_charge(f"{number}") for number in range(4)]
    await store.take(charges)
    server.ask("CONFIG", "RESETSTAT")
    await store.take(charges)
    assert server.find_calls()["evalsha"] == 1


async def test_more_decisions_than_fit_in_a_call_are_all_answered(
    store: RedisCounterStore,
) -> None:
    many = [a_charge(f"{number}") for number in range(200)]
    taken = await asyncio.gather(
        *[store.take(many) for _ in range(3)], *[store.take([charge]) for charge in many]
    )
    assert all(taking.charged for taking in taken[:2])
    assert len(taken[0].readings) == 200


async def test_a_known_refusal_asks_nothing_of_redis(server: RedisServer) -> None:
    store = RedisCounterStore(shared_settings(), monotonic_us=lambda: 0)
    charge, other = a_charge(limit=1), a_charge("other", 9)
    await store.take([charge])
    refused = await store.take([other, charge])
    server.ask("CONFIG", "RESETSTAT")
    assert [await store.take([other, charge]) for _ in range(5)] == [refused] * 5
    assert "evalsha" not in server.find_calls()
    # An id may name a taking that was charged.
    assert not (await store.take([charge], dedup_id="1")).charged
    assert server.find_calls()["evalsha"] == 1
    await store.give_back([charge])
    assert (await store.take([other, charge])).charged
    await store.close()


@EVERY
async def test_a_key_lives_no_longer_than_it_matters(
    store: RedisCounterStore, server: RedisServer, algorithm: Algorithm
) -> None:
    charge = a_charge(limit=2, algorithm=algorithm)
    reading = (await store.take([charge])).readings[0]
    left_ms = server.ask("PTTL", "extauthz:{a}k")
    assert 0 < left_ms <= reading.reset_us / 1000 + 2
    taking = await store.take([charge])
    assert server.ask("PTTL", "extauthz:{a}k") <= taking.readings[0].reset_us / 1000 + 2
    await store.give_back([charge], at_us=taking.at_us)
    assert 0 < server.ask("PTTL", "extauthz:{a}k") <= reading.reset_us / 1000 + 2


async def test_a_burst_that_is_all_given_back_leaves_no_key(
    store: RedisCounterStore, server: RedisServer
) -> None:
    charge = a_charge(algorithm=Algorithm.BURST)
    taking = await store.take([charge])
    await store.give_back([replace(charge, cost=9)], at_us=taking.at_us)
    assert server.dump() == {}


async def test_goes_by_the_clock_of_redis(store: RedisCounterStore) -> None:
    before_us = time.time_ns() // 1000
    taking = await store.take([a_charge()])
    assert before_us <= taking.at_us <= time.time_ns() // 1000


# What is sent, and what is not


async def test_a_cancelled_decision_that_was_not_sent_is_not_charged(
    store: RedisCounterStore,
) -> None:
    charge = a_charge(limit=9)
    tasks = [asyncio.create_task(store.take([charge])) for _ in range(5)]
    await asyncio.sleep(0)  # all are in the queue
    gone, stays = tasks[0:4:2], [tasks[1], tasks[3], tasks[4]]
    for task in gone:
        task.cancel()
    assert [(await task).readings[0].remaining for task in stays] == [8, 7, 6]
    for task in gone:
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_passed_deadline_is_not_sent(store: RedisCounterStore, server: RedisServer) -> None:
    with pytest.raises(CounterStoreError, match="deadline"):
        await store.take([a_charge()], deadline=Deadline(time.monotonic() - 1))
    assert server.dump() == {}


async def test_a_script_that_redis_has_forgotten_is_sent_again(
    store: RedisCounterStore, server: RedisServer
) -> None:
    charge = a_charge(limit=200)
    for _ in range(5):
        taken = await asyncio.gather(*[store.take([charge]) for _ in range(40)])
        assert all(taking.charged for taking in taken)
        server.ask("SCRIPT", "FLUSH")
    assert await count_of(store, charge) == 200


async def test_an_error_of_one_decision_is_not_one_of_the_others(
    store: RedisCounterStore, server: RedisServer
) -> None:
    server.ask("SET", "extauthz:{a}odd", "no counter")
    outside = replace(a_charge("day", algorithm=Algorithm.CALENDAR), bounds=(1, 2))
    good = a_charge("good")
    odd = a_charge("odd")
    taken = await asyncio.gather(
        *[store.take(charges) for charges in ([good, odd], [good], [good, outside], [good])],
        return_exceptions=True,
    )
    assert isinstance(taken[0], CounterStoreError) and not taken[0].transient
    assert isinstance(taken[2], CounterStoreError) and "clocks" in str(taken[2])
    assert [t.charged for t in taken if isinstance(t, Taking)] == [True, True]
    assert await count_of(store, good) == 2
    with pytest.raises(CounterStoreError):
        await store.give_back([odd])


async def test_an_error_of_redis_is_told(store: RedisCounterStore, server: RedisServer) -> None:
    server.ask("CONFIG", "SET", "maxmemory", "1")
    try:
        with pytest.raises(CounterStoreError, match="maxmemory"):
            await store.take([a_charge(), a_charge("other")])
    finally:
        server.ask("CONFIG", "SET", "maxmemory", "0")
    assert server.dump() == {}


@pytest.mark.parametrize("word", ["with space", "ü", "\udcff", "\n", "\0", "}{", ""])
async def test_a_key_may_hold_any_text(store: RedisCounterStore, word: str) -> None:
    charges = [a_charge(f"{word}1"), a_charge(f"{word}2")]
    assert (await store.take(charges, dedup_id=word)).charged
    assert (await store.take(charges)).readings[1].remaining == 1


@pytest.mark.parametrize("limit", [-1, 94_906_266])
async def test_refuses_a_burst_that_cannot_be_counted_exactly(
    store: RedisCounterStore, limit: int
) -> None:
    with pytest.raises(ValueError, match="burst"):
        await store.take([a_charge(limit=limit, algorithm=Algorithm.BURST)])


async def test_after_closing_nothing_is_taken() -> None:
    store = RedisCounterStore(shared_settings())
    waiting = asyncio.create_task(store.take([a_charge()]))
    await asyncio.sleep(0)  # it is in the queue
    await store.close()
    with pytest.raises(CounterStoreError, match="closed"):
        await waiting
    with pytest.raises(CounterStoreError, match="closed"):
        await store.take([a_charge()])


# Answers that make no sense

GOOD = [1, 99, 2, 60, 0]


@pytest.mark.parametrize(
    "reply",
    [
        None,
        b"OK",
        7,
        [],
        GOOD[:1],
        GOOD[:4],
        [*GOOD, 1],
        [9, *GOOD[1:]],
        [1, 99, 2, -60, 0],
        [1, 99, 2, b"60", 0],
        [True, 99, 2, 60, 0],
        [1, 99, 2, None, 0],
    ],
    ids=repr,
)
async def test_an_answer_that_makes_no_sense_decides_nothing(reply: object) -> None:
    requests = [CounterRequest([a_charge()], asyncio.get_running_loop().create_future())]
    settle(requests, reply)
    with pytest.raises(CounterStoreError, match="not known whether"):
        await requests[0].answer


async def test_an_answer_is_read_request_by_request() -> None:
    loop = asyncio.get_running_loop()
    requests = [
        CounterRequest([a_charge()], loop.create_future()),
        CounterRequest([a_charge()], loop.create_future(), Asked.GIVE_BACK),
        CounterRequest([a_charge(), a_charge("other")], loop.create_future()),
    ]
    settle(requests, [*GOOD, 1, 99, 0, 99, 3, 50, 0, 0, 40, 7])
    assert [await request.answer for request in requests] == [
        Taking(charged=True, readings=(Reading(False, 2, 60, 0),), at_us=99),
        Taking(charged=True, readings=(), at_us=99),
        Taking(
            charged=False, readings=(Reading(False, 3, 50, 0), Reading(True, 0, 40, 7)), at_us=99
        ),
    ]
