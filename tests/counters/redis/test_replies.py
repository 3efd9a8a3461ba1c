"""Replies that no Redis should give: nothing is believed, nothing large is made, nobody waits."""

from __future__ import annotations

import asyncio
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import hiredis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import InvalidResponse, RedisError

from extauthz.counters.redis.refusals import RedisRefusal
from extauthz.counters.redis.replies import MOST_AT_ONCE, MOST_ELEMENTS, BoundedParser
from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge
from tests.builders import FakeClock, S

CHARGE = Charge("{a}k", Algorithm.FIXED_WINDOW, 10, 60 * S)


async def read_all(pieces: list[bytes], replies: int) -> list[Any]:
    """What a parser reads when the pieces come one after the other."""
    stream = asyncio.StreamReader()
    parser = BoundedParser(65_536)
    parser.on_connect(SimpleNamespace(_reader=stream))  # type: ignore[arg-type]

    async def send() -> None:
        for piece in pieces:
            stream.feed_data(piece)
            await asyncio.sleep(0)
        stream.feed_eof()

    sending = asyncio.create_task(send())
    try:
        return [await parser.read_response() for _ in range(replies)]
    finally:
        await sending


def write(reply: Any) -> bytes:
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%s\r\n" % (len(reply), reply)
    if reply is None:
        return b"$-1\r\n"
    return b"*%d\r\n%s" % (len(reply), b"".join([write(one) for one in reply]))


INTEGERS = st.integers(-(2**63), 2**63 - 1)
REPLIES = st.one_of(
    st.lists(INTEGERS, max_size=40),
    st.recursive(
        st.one_of(INTEGERS, st.binary(max_size=30), st.none()),
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=12,
    ),
)


@given(
    replies=st.lists(REPLIES, min_size=1, max_size=4), cuts=st.lists(st.integers(1, 40), max_size=9)
)
def test_reads_what_hiredis_reads_however_it_is_cut(replies: list[Any], cuts: list[int]) -> None:
    text = b"".join([write(reply) for reply in replies])
    reader = hiredis.Reader()
    reader.feed(text)
    pieces: list[bytes] = []
    rest = text
    for cut in cuts:
        pieces, rest = [*pieces, rest[:cut]], rest[cut:]
    read = asyncio.run(read_all([*pieces, rest], len(replies)))
    assert read == replies == [reader.gets() for _ in replies]


async def test_reads_errors_and_words_between_other_replies() -> None:
    text = b"+OK\r\n-NOSCRIPT No matching script.\r\n*2\r\n:1\r\n:2\r\n+PONG\r\n"
    ok, error, numbers, pong = await read_all([text], 4)
    assert (ok, numbers, pong) == (b"OK", [1, 2], b"PONG")
    assert isinstance(error, RedisRefusal)
    assert error.code == "NOSCRIPT"


HOSTILE = {
    "a billion elements": b"*1000000000\r\n",
    "more elements than any list": b"*4294967295\r\n:1\r\n",
    "a billion elements further in": b"*2\r\n*1000000000\r\n",
    "many long lists": b"*20\r\n" + (b"*8000\r\n" + b":1\r\n" * 8_000) * 20,
    "lists in lists": b"*1\r\n" * 5_000 + b":1\r\n",
    "a text of a gigabyte": b"$1000000000\r\n",
    "a text of a negative length": b"$-2\r\n",
    "a list of a negative length": b"*-2\r\n",
    "a text that does not end where it says": b"$3\r\nabcd\r\n",
    "a line without an end": b"-" + b"x" * 200_000,
    "an integer without an end": b"*1\r\n:" + b"1" * 200_000,
    "no number": b":1e9\r\n",
    "a number with an underscore": b"*1\r\n:1_0\r\n",
    "a number of 30 digits": b"*1\r\n:" + b"9" * 30 + b"\r\n",
    "not a number (RESP3)": b",nan\r\n",
    "not a number in a list (RESP3)": b"*3\r\n:1\r\n,nan\r\n:1\r\n",
    "a map (RESP3)": b"%1\r\n:1\r\n:1\r\n",
    "a push (RESP3)": b">1\r\n:1\r\n",
    "an attribute (RESP3)": b"|1\r\n:1\r\n:1\r\n",
    "another protocol": b"HTTP/1.1 400 Bad Request\r\n\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_reply_that_no_redis_gives_is_refused_before_anything_is_made_of_it(
    name: str,
) -> None:
    tracemalloc.start()
    try:
        began_s = time.process_time()
        with pytest.raises(InvalidResponse):
            await read_all([HOSTILE[name]], 1)
        assert time.process_time() - began_s < 3
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


async def test_a_long_reply_that_is_read_one_by_one_lets_others_have_their_turn() -> None:
    text = b"*%d\r\n" % (MOST_ELEMENTS - 1) + b"$1\r\nx\r\n" * (MOST_ELEMENTS - 1)
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(others())
    await read_all([text], 1)
    counting.cancel()
    assert turns > MOST_ELEMENTS // 2_000


async def test_reads_lists_of_integers_that_are_longer_than_what_is_read_at_once() -> None:
    numbers = list(range(MOST_AT_ONCE + 1))
    assert await read_all([write(numbers), b""], 1) == [numbers]


async def test_a_reply_that_breaks_off_is_an_error() -> None:
    for text in (b"", b"*2\r\n:1\r\n", b"$5\r\nab", b":1", b"*2\r\n$1\r\nx\r\n"):
        with pytest.raises(RedisError):
            await read_all([text], 1)


@asynccontextmanager
async def redis_that_answers(*answers: bytes) -> AsyncIterator[tuple[RedisCounterStore, list[int]]]:
    """A store before a server that counts its connections and gives one answer to each call."""
    connections: list[int] = []
    left = list(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        try:
            await reader.readuntil(b"MGET")
            writer.write(b"+OK\r\n*2\r\n$1\r\nm\r\n$-1\r\n")
            while left:
                await reader.readuntil(b"EVALSHA")
                writer.write(left.pop(0))
                await writer.drain()
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    settings = RedisSettings(
        address=read_redis_url(f"redis://127.0.0.1:{port}"), timeout_s=5, first_pause_s=0.001
    )
    async with listener:
        store = RedisCounterStore(
            settings, remember_refusals=False, monotonic_us=FakeClock().now_us
        )
        try:
            yield store, connections
        finally:
            await store.close()


GOOD = b"*5\r\n:1\r\n:99\r\n:9\r\n:60000000\r\n:0\r\n"


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_hostile_reply_is_a_failure_and_ends_the_connection(name: str) -> None:
    async with redis_that_answers(HOSTILE[name], GOOD) as (store, connections):
        with pytest.raises(CounterStoreError, match="not known whether") as caught:
            await store.take([CHARGE])
        assert not caught.value.charged_nothing
        assert (await store.take([CHARGE])).charged
        assert len(connections) == 2


def numbers(*values: int) -> bytes:
    return write(list(values))


OUTSIDE: dict[str, tuple[bytes, Charge]] = {
    "more left than the limit": (numbers(1, 99, 11, 60 * S, 0), CHARGE),
    "more left than the limit less the cost": (numbers(1, 99, 10, 60 * S, 0), CHARGE),
    "less than nothing left": (numbers(1, 99, -1, 60 * S, 0), CHARGE),
    "a reset before now": (numbers(1, 99, 9, -1, 0), CHARGE),
    "a reset in a far future": (numbers(1, 99, 9, 2**60, 0), CHARGE),
    "a reset after two windows and a minute": (numbers(1, 99, 9, 181 * S, 0), CHARGE),
    "a wait in a far future": (numbers(0, 99, 0, 60 * S, 2**60), CHARGE),
    "charged, and exceeded": (numbers(1, 99, 0, 60 * S, 5), CHARGE),
    "refused, with room": (numbers(0, 99, 9, 60 * S, 0), CHARGE),
    "exceeded, with room": (numbers(0, 99, 9, 60 * S, 5), CHARGE),
    "refused by what is not enforced": (
        numbers(0, 99, 0, 60 * S, 5),
        replace(CHARGE, enforced=False),
    ),
    "a time before the epoch": (numbers(1, -99, 9, 60 * S, 0), CHARGE),
    "a time that no double holds": (numbers(1, 2**53, 9, 60 * S, 0), CHARGE),
    "an unknown status": (numbers(7, 99, 9, 60 * S, 0), CHARGE),
    "one number too few": (numbers(1, 99, 9, 60 * S), CHARGE),
    "one number too many": (numbers(1, 99, 9, 60 * S, 0, 0), CHARGE),
    "none at all": (numbers(), CHARGE),
    "another type": (b"+OK\r\n", CHARGE),
    "texts": (b"*5\r\n$1\r\n1\r\n$2\r\n99\r\n$1\r\n9\r\n$1\r\n5\r\n$1\r\n0\r\n", CHARGE),
    "nothing": (b"*-1\r\n", CHARGE),
    "a list in a list": (b"*1\r\n" + GOOD, CHARGE),
    "a calendar's end in a far future": (
        numbers(1, 99, 9, 10**15, 0),
        replace(CHARGE, algorithm=Algorithm.CALENDAR, bounds=(0, 60 * S, 120 * S, 180 * S)),
    ),
    "more than a burst": (
        numbers(1, 99, 10, 60 * S, 0),
        replace(CHARGE, algorithm=Algorithm.BURST),
    ),
}


@pytest.mark.parametrize("name", OUTSIDE)
async def test_an_answer_outside_of_what_was_asked_is_not_believed(name: str) -> None:
    answer, charge = OUTSIDE[name]
    async with redis_that_answers(answer, GOOD) as (store, _):
        with pytest.raises(CounterStoreError) as caught:
            await store.take([charge])
        assert not caught.value.charged_nothing
        assert (await store.take([CHARGE])).charged
