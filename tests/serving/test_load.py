from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from extauthz.serving.load import Bound, Load
from extauthz.serving.methods import RpcCode, RpcFailure


async def messages(*given: bytes) -> AsyncIterator[bytes]:
    for message in given:
        yield message


class Silence:
    """A caller that says nothing more."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()

    def __aiter__(self) -> Silence:
        return self

    async def __anext__(self) -> bytes:
        self.begun.set()
        await asyncio.Event().wait()
        return b""


def test_refuses_at_once_above_the_bound_and_counts_it() -> None:
    load = Load(max_in_flight=1)
    with load.calls:
        assert load.in_flight == 1
        with pytest.raises(RpcFailure) as refused, load.calls:
            pytest.fail("there was no place left")
    assert refused.value.code is RpcCode.UNAVAILABLE
    assert (load.in_flight, load.shed) == (0, 1)
    with load.calls:
        assert load.in_flight == 1


def test_counts_what_the_server_in_front_refused() -> None:
    load = Load()
    load.refused_before = 7
    assert load.shed == 7


def test_a_place_is_given_back_after_an_exception() -> None:
    load = Load(max_streams=1)
    with pytest.raises(KeyError), load.streams:
        raise KeyError
    assert (load.open_streams, load.shed) == (0, 0)


def test_calls_and_streams_are_counted_apart() -> None:
    load = Load(max_in_flight=1, max_streams=1)
    with load.streams, load.calls:
        assert (load.in_flight, load.open_streams) == (1, 1)


def test_a_bound_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="give at least 1"):
        Bound(0, "")


async def test_gives_messages_until_there_are_no_more() -> None:
    load = Load()
    given = messages(b"a", b"")
    assert [await load.find_next(given) for _ in range(3)] == [b"a", b"", None]


async def test_a_drain_ends_a_read_that_waits_and_every_later_one() -> None:
    load, silence = Load(), Silence()
    reading = asyncio.create_task(load.find_next(silence))
    await silence.begun.wait()
    assert not reading.done()
    load.drain()
    load.drain()
    assert await reading is None
    assert load.draining
    assert await load.find_next(messages(b"late")) is None


async def test_a_timeout_of_the_callers_own_is_not_taken_for_a_drain() -> None:
    async def give_up() -> AsyncIterator[bytes]:
        raise TimeoutError
        yield b""

    with pytest.raises(TimeoutError):
        await Load().find_next(give_up())


async def test_a_cancelled_read_is_cancelled() -> None:
    load, silence = Load(), Silence()
    reading = asyncio.create_task(load.find_next(silence))
    await silence.begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
