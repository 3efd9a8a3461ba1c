"""What Sentinels and nodes of a cluster say of others, and is not believed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge
from tests.builders import FakeClock, S
from tests.redis_server import find_shared

CHARGE = Charge("{a}k", Algorithm.FIXED_WINDOW, 10, 60 * S)


@asynccontextmanager
async def peers_that_answer(word: bytes, answers: Sequence[bytes]) -> AsyncIterator[list[str]]:
    """Servers that each give one answer to a command that holds the word."""

    def serving(answer: bytes) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.readuntil(word)
                writer.write(answer)
                await reader.read()
            except (OSError, asyncio.IncompleteReadError):
                return
            finally:
                writer.close()

        return serve

    listeners = [await asyncio.start_server(serving(one), "127.0.0.1", 0) for one in answers]
    yield [f"127.0.0.1:{one.sockets[0].getsockname()[1]}" for one in listeners]
    for listener in listeners:
        listener.close()
        await listener.wait_closed()


def fields(**values: str) -> bytes:
    words = [word.encode() for pair in values.items() for word in pair]
    return b"*%d\r\n%s" % (
        len(words),
        b"".join([b"$%d\r\n%s\r\n" % (len(word), word) for word in words]),
    )


OF_SENTINELS = {
    "a billion fields": b"*1000000000\r\n",
    "no such primary": b"-ERR No such master with that name\r\n",
    "no fields": b"*0\r\n",
    "numbers": b"*2\r\n:1\r\n:2\r\n",
    "a port that is none": fields(flags="master", ip="127.0.0.1", port="99999999"),
    "a host that is none": fields(flags="master", ip="", port="6379"),
    "down": fields(flags="master,s_down", ip="127.0.0.1", port="1"),
    "a replica": fields(flags="slave", ip="127.0.0.1", port="1"),
}


async def test_the_first_sentinel_that_makes_sense_is_believed() -> None:
    port = find_shared("redis").primary.port
    good = fields(name="s", ip="127.0.0.1", port=str(port), flags="master")
    async with peers_that_answer(b"MASTER", [*OF_SENTINELS.values(), good]) as hosts:
        address = read_redis_url(f"redis+sentinel://{','.join(hosts)}/?service=s")
        store = RedisCounterStore(
            RedisSettings(address=address, timeout_s=20, connect_timeout_s=20),
            monotonic_us=FakeClock().now_us,
        )
        assert (await store.take([CHARGE])).charged
        await store.close()


@pytest.mark.parametrize("name", OF_SENTINELS)
async def test_without_a_sentinel_that_makes_sense_nothing_is_decided(name: str) -> None:
    async with peers_that_answer(b"MASTER", [OF_SENTINELS[name]]) as (host,):
        address = read_redis_url(f"redis+sentinel://{host}/?service=s")
        store = RedisCounterStore(RedisSettings(address=address, timeout_s=20))
        with pytest.raises(CounterStoreError, match="no Sentinel names a primary of s") as caught:
            await store.take([CHARGE])
        assert caught.value.charged_nothing
        await store.close()


NODE = b"*2\r\n$9\r\n127.0.0.1\r\n:1\r\n"
MAPS = {
    "a billion rows": b"*1000000000\r\n",
    "a row of a billion slots": b"*1\r\n*3\r\n:0\r\n:1000000000\r\n" + NODE,
    "slots below zero": b"*1\r\n*3\r\n:-5\r\n:5\r\n" + NODE,
    "the same slots again and again": b"*9000\r\n" + (b"*3\r\n:0\r\n:16383\r\n" + NODE) * 9000,
    "slots that are texts": b"*1\r\n*3\r\n$1\r\n0\r\n$1\r\n9\r\n" + NODE,
    "a port that is none": b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$1\r\nh\r\n:70000\r\n",
    "a row without a node": b"*1\r\n*2\r\n:0\r\n:16383\r\n",
    "no rows": b"*0\r\n",
    "nothing": b"*-1\r\n",
    "an error": b"-ERR This instance has cluster support disabled\r\n",
}


@pytest.mark.parametrize("name", MAPS)
async def test_a_map_of_slots_that_makes_no_sense_is_no_map(name: str) -> None:
    async with peers_that_answer(b"SLOTS", [MAPS[name]]) as (host,):
        store = RedisCounterStore(
            RedisSettings(address=read_redis_url(f"redis+cluster://{host}"), timeout_s=20)
        )
        with pytest.raises(CounterStoreError, match="no node of the Redis Cluster") as caught:
            await store.take([CHARGE])
        assert caught.value.charged_nothing
        await store.close()
