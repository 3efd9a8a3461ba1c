"""Redis away, slow, restarted, failed over: an error in time, nothing twice, and back again."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from extauthz.counters.redis.measures import RedisMeasures
from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, Taking
from extauthz.ports import NO_DEADLINE, Deadline
from extauthz.telemetry.measures.dependencies import CallResult
from tests.builders import FakeClock, S
from tests.redis_server import (
    RedisServer,
    find_free_port,
    make_folder,
    settings_of,
    start_sentinel,
)
from tests.relay import Relay

CHARGE = Charge("{a}k", Algorithm.FIXED_WINDOW, 10_000, 36_500 * 86_400 * S)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One of its own, that a test may treat badly."""
    server = RedisServer(make_folder()).start()
    yield server
    server.kill()


def settings_for(port: int, **fields: Any) -> RedisSettings:
    address = read_redis_url(f"redis://127.0.0.1:{port}")
    return replace(RedisSettings(address=address, timeout_s=20, connect_timeout_s=20), **fields)


@pytest.fixture
async def make_store(server: RedisServer) -> AsyncIterator[Callable[..., RedisCounterStore]]:
    stores = []

    def make(clock: FakeClock | None = None, **fields: Any) -> RedisCounterStore:
        monotonic_us = (clock or FakeClock()).now_us
        stores.append(
            RedisCounterStore(settings_for(server.port, **fields), monotonic_us=monotonic_us)
        )
        return stores[-1]

    yield make
    for store in stores:
        await store.close()


async def offer(store: RedisCounterStore, times: int) -> tuple[int, int]:
    """How many were charged, and for how many it is not known."""
    taken = await asyncio.gather(
        *[store.take([CHARGE]) for _ in range(times)], return_exceptions=True
    )
    charged = sum(isinstance(taking, Taking) and taking.charged for taking in taken)
    errors = [error for error in taken if isinstance(error, BaseException)]
    assert all(isinstance(error, CounterStoreError) for error in errors)
    assert charged + len(errors) == times
    return charged, len(errors)


async def take_again(store: RedisCounterStore, clock: FakeClock) -> Taking:
    """The first taking that succeeds; the pauses between attempts pass at once."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await store.take([CHARGE])
            except CounterStoreError:
                clock.advance(60)
                await asyncio.sleep(0)


def count_in(server: RedisServer) -> int:
    value = server.ask("GET", "extauthz:{a}k")
    return 0 if value is None else int(value.split()[1])


async def test_lost_connections_charge_nothing_twice(
    make_store: Callable[..., RedisCounterStore], server: RedisServer
) -> None:
    clock = FakeClock()
    store = make_store(clock, in_flight=3)
    charged = unknown = lost = 0
    for _ in range(20):
        clock.advance(60)  # a connection that is cut while it greets makes a pause
        offers = asyncio.create_task(offer(store, 50))
        kill = ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        lost += await asyncio.to_thread(server.ask, *kill)
        now_charged, now_unknown = await offers
        charged, unknown = charged + now_charged, unknown + now_unknown
    assert lost > 0
    assert charged <= count_in(server) <= charged + unknown


async def test_a_killed_redis_fails_those_who_wait_and_counts_again_when_it_is_back(
    make_store: Callable[..., RedisCounterStore], server: RedisServer
) -> None:
    clock = FakeClock()
    store = make_store(clock)
    assert (await store.take([CHARGE])).charged
    server.signal(signal.SIGSTOP)  # so that the call is in flight for certain
    offers = asyncio.create_task(offer(store, 50))
    await asyncio.sleep(0)
    server.kill()
    async with asyncio.timeout(10):  # half of the store's own timeout
        assert await offers == (0, 50)
    with pytest.raises(CounterStoreError):
        await store.take([CHARGE])
    server.start()
    taking = await take_again(store, clock)
    assert taking.readings[0].remaining == CHARGE.limit - 1
    assert count_in(server) == 1


async def test_a_stopped_redis_is_an_error_within_the_timeout(
    make_store: Callable[..., RedisCounterStore], server: RedisServer
) -> None:
    clock = FakeClock()
    store = make_store(clock, timeout_s=0.05, connect_timeout_s=0.1)
    await take_again(store, clock)
    before = count_in(server)
    server.signal(signal.SIGSTOP)
    began_s = time.monotonic()
    try:
        for _ in range(3):
            assert await offer(store, 20) == (0, 20)
    finally:
        server.signal(signal.SIGCONT)
    # Three rounds of 50 ms; the rest is for a busy machine, and far from any other timeout.
    assert time.monotonic() - began_s < 5
    await take_again(store, clock)
    assert before + 1 <= count_in(server) <= before + 62


async def test_calls_are_counted_by_how_they_ended(server: RedisServer) -> None:
    clock = FakeClock()
    measures = RedisMeasures()
    settings = settings_for(server.port, timeout_s=0.2, connect_timeout_s=0.2)
    store = RedisCounterStore(settings, monotonic_us=clock.now_us, measures=measures)
    await take_again(store, clock)
    await store.take([])
    counted = measures.counting.counts
    # The script was not known, and was sent within the same call.
    assert counted[CallResult.OK] == 1
    server.ask("CONFIG", "SET", "maxmemory", 1)
    with pytest.raises(CounterStoreError, match="OOM"):
        await store.take([CHARGE])
    assert counted == {CallResult.OK: 1, CallResult.ERROR: 1, CallResult.TIMEOUT: 0}
    server.ask("CONFIG", "SET", "maxmemory", 0)
    server.signal(signal.SIGSTOP)
    try:
        for _ in range(2):  # when the second one has failed, the first one's call has ended
            with pytest.raises(CounterStoreError):
                await store.take([CHARGE])
    finally:
        server.signal(signal.SIGCONT)
    assert counted[CallResult.TIMEOUT] >= 1
    await store.close()
    assert measures.connecting.counts[CallResult.OK] >= 1
    server.kill()
    measures = RedisMeasures()
    store = RedisCounterStore(settings_for(server.port), measures=measures)
    with pytest.raises(CounterStoreError):
        await store.take([CHARGE])
    await store.close()
    assert measures.connecting.counts[CallResult.ERROR] == 1
    assert sum(measures.counting.counts.values()) == 0


async def test_a_deadline_is_kept_that_is_shorter_than_the_timeout(
    make_store: Callable[..., RedisCounterStore], server: RedisServer
) -> None:
    store = make_store()
    await store.take([CHARGE])
    server.signal(signal.SIGSTOP)
    try:
        async with asyncio.timeout(10):
            with pytest.raises(CounterStoreError, match="not known whether"):
                await store.take([CHARGE], deadline=Deadline(time.monotonic() + 0.02))
            # The first one is still in flight, so this one is not even sent.
            with pytest.raises(CounterStoreError, match="nothing was charged"):
                await store.take([CHARGE], deadline=Deadline(time.monotonic() + 0.02))
    finally:
        server.signal(signal.SIGCONT)
    assert (await store.take([CHARGE])).readings[0].remaining == CHARGE.limit - 3


async def test_the_queue_is_bounded(
    make_store: Callable[..., RedisCounterStore], server: RedisServer
) -> None:
    store = make_store(max_waiting=5)
    await store.take([CHARGE])
    server.signal(signal.SIGSTOP)
    try:
        first = asyncio.create_task(store.take([CHARGE]))
        for _ in range(3):
            await asyncio.sleep(0)  # it is sent
        waiting = [asyncio.create_task(store.take([CHARGE])) for _ in range(5)]
        await asyncio.sleep(0)  # they wait
        with pytest.raises(CounterStoreError, match="5 decisions already wait"):
            await store.take([CHARGE])
    finally:
        server.signal(signal.SIGCONT)
    assert all(taking.charged for taking in await asyncio.gather(first, *waiting))


async def test_a_connection_that_was_closed_while_idle_is_made_anew_before_use(
    make_store: Callable[..., RedisCounterStore], server: RedisServer
) -> None:
    store = make_store()
    for _ in range(5):
        assert (await store.take([CHARGE])).charged
        server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for _ in range(3):
            await asyncio.sleep(0)  # the loop sees what has arrived
    assert count_in(server) == 5


@pytest.fixture
def relay(server: RedisServer) -> Iterator[Relay]:
    relay = Relay(server.port).start()
    yield relay
    relay.stop()


async def test_a_connection_that_was_reset_while_idle_is_made_anew_before_use(
    relay: Relay, server: RedisServer
) -> None:
    store = RedisCounterStore(settings_for(relay.port))
    for number in range(1, 6):
        assert (await store.take([CHARGE])).charged
        assert relay.accepted == number
        relay.reset()
        for _ in range(3):
            await asyncio.sleep(0)  # the loop sees what has arrived
    assert count_in(server) == 5
    await store.close()


async def test_what_waits_while_a_connection_is_reset_is_sent_on_the_next_one(
    relay: Relay, server: RedisServer
) -> None:
    store = RedisCounterStore(settings_for(relay.port))
    await store.take([CHARGE])
    server.signal(signal.SIGSTOP)
    try:
        first = asyncio.create_task(store.take([CHARGE]))
        for _ in range(3):
            await asyncio.sleep(0)  # it is sent
        waiting = [asyncio.create_task(store.take([CHARGE])) for _ in range(5)]
        await asyncio.sleep(0)
        relay.reset()
    finally:
        server.signal(signal.SIGCONT)
    with pytest.raises(CounterStoreError, match="not known whether") as caught:
        await first
    assert not caught.value.charged_nothing
    assert all(taking.charged for taking in await asyncio.gather(*waiting))
    assert count_in(server) in (6, 7)
    await store.close()


async def test_says_when_it_is_sure_that_nothing_was_charged(server: RedisServer) -> None:
    clock = FakeClock()
    store = RedisCounterStore(settings_for(server.port, max_waiting=1), monotonic_us=clock.now_us)
    await store.take([CHARGE])

    async def fail(deadline: Deadline = NO_DEADLINE) -> bool:
        with pytest.raises(CounterStoreError) as caught:
            await store.take([CHARGE], deadline=deadline)
        return caught.value.charged_nothing

    assert await fail(Deadline(time.monotonic() - 1))
    server.signal(signal.SIGSTOP)
    try:
        assert not await fail(Deadline(time.monotonic() + 0.02))  # it is sent
        waiting = asyncio.create_task(fail(Deadline(time.monotonic() + 0.02)))
        await asyncio.sleep(0)
        assert await fail()  # the queue is full
        assert await waiting
    finally:
        server.signal(signal.SIGCONT)
    server.ask("REPLICAOF", "127.0.0.1", str(find_free_port()))
    assert await fail()  # a replica
    server.kill()
    assert await fail()  # refused
    assert await fail()  # not tried again yet
    await store.close()
    assert await fail()


async def test_a_redis_that_cannot_be_reached_is_not_asked_again_before_a_pause() -> None:
    clock = FakeClock()
    server = RedisServer(make_folder(), port=find_free_port())
    store = RedisCounterStore(settings_for(server.port), monotonic_us=clock.now_us)
    with pytest.raises(CounterStoreError, match="cannot be reached"):
        await store.take([CHARGE])
    server.start()
    with pytest.raises(CounterStoreError, match="again shortly"):
        await store.take([CHARGE])
    assert server.find_calls().get("evalsha") is None
    clock.advance(0.05)
    assert (await store.take([CHARGE])).charged
    await store.close()
    server.kill()


async def test_a_replica_is_not_counted_in(
    make_store: Callable[..., RedisCounterStore], server: RedisServer
) -> None:
    store = make_store()
    assert (await store.take([CHARGE])).charged
    server.ask("REPLICAOF", "127.0.0.1", str(find_free_port()))
    with pytest.raises(CounterStoreError, match=r"READONLY|read only"):
        await store.take([CHARGE])
    server.ask("REPLICAOF", "NO", "ONE")
    assert (await store.take([CHARGE])).charged


async def test_an_answer_that_breaks_off_decides_nothing() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"MGET")
        writer.write(b"+OK\r\n*2\r\n$1\r\nm\r\n$-1\r\n")
        await reader.readuntil(b"EVALSHA")
        writer.write(b"*5\r\n:1\r\n:99\r\n:2")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    async with listener:
        store = RedisCounterStore(settings_for(port))
        with pytest.raises(CounterStoreError, match="not known whether"):
            await store.take([CHARGE])
        await store.close()


async def test_counts_on_after_sentinels_have_named_another_primary() -> None:
    deployment = start_sentinel(make_folder())
    clock = FakeClock()
    settings = settings_of(deployment, timeout_s=0.5, connect_timeout_s=2.0)
    store = RedisCounterStore(settings, monotonic_us=clock.now_us)
    try:
        await take_again(store, clock)
        primary, replica = deployment.servers
        primary.ask("WAIT", 1, 5000)
        primary.kill()
        _, unknown = await offer(store, 5)
        assert unknown == 5
        await asyncio.to_thread(deployment.sentinels[0].wait_for_log, "+switch-master")
        taking = await take_again(store, clock)
        # The count is on the replica, the script was not.
        assert taking.readings[0].remaining == CHARGE.limit - 2
        assert count_in(replica) == 2
    finally:
        await store.close()
        deployment.stop()
