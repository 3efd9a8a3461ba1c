"""What extauthz relies on of redis-py and asyncio that neither of them promises.

When one of these fails after an update of redis-py, the test's name says what no longer holds, and
its text what would break: mend `extauthz.counters.redis.internals` before anything else.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator

import pytest
from redis.asyncio.connection import AbstractConnection, DefaultParser

from extauthz.counters.redis.connection import Connector
from extauthz.counters.redis.internals import close_now, find_stream, has_buffered, is_open
from extauthz.counters.redis.replies import BoundedParser
from tests.redis_server import find_shared, settings_of


@pytest.fixture
async def connection() -> AsyncIterator[AbstractConnection]:
    connection = await Connector(settings_of(find_shared("redis"))).connect()
    yield connection
    await connection.disconnect(nowait=True)


async def test_a_connection_keeps_its_streams_where_they_are_looked_for(
    connection: AbstractConnection,
) -> None:
    """Else no queue takes any connection for usable, and every call connects anew."""
    assert isinstance(connection._writer, asyncio.StreamWriter)
    assert isinstance(connection._reader, asyncio.StreamReader)
    assert find_stream(connection) is connection._reader


async def test_a_connection_hands_its_stream_to_the_parser(connection: AbstractConnection) -> None:
    """Else `BoundedParser` reads from nothing, and no call is answered."""
    parser = connection._parser
    assert isinstance(parser, BoundedParser)
    assert parser._stream is find_stream(connection)


async def test_a_connection_that_the_other_side_resets_is_closing(
    connection: AbstractConnection,
) -> None:
    """Else a call is written to a connection that is gone: it fails, instead of connecting anew."""
    assert is_open(connection) and connection._writer is not None
    connection._writer.transport.abort()
    assert not is_open(connection)


async def test_a_connection_closes_without_waiting(connection: AbstractConnection) -> None:
    """Else a call that was given up leaves its answer for the next one to read."""
    assert not inspect.iscoroutinefunction(connection._close)
    assert connection._writer is not None
    transport = connection._writer.transport
    close_now(connection)
    assert transport.is_closing()
    assert not is_open(connection) and not connection.is_connected
    close_now(connection)  # once more is no error


async def test_a_stream_shows_what_it_has_buffered(connection: AbstractConnection) -> None:
    """Else an answer that nobody asked for is taken for the next call's."""
    stream = find_stream(connection)
    assert stream is not None and isinstance(stream._buffer, bytearray)  # type: ignore[attr-defined]
    assert not has_buffered(stream) and not await connection.can_read()
    stream.feed_data(b":1\r\n")
    assert has_buffered(stream) and await connection.can_read()


@pytest.mark.parametrize("name", ["on_connect", "on_disconnect", "can_read", "read_response"])
def test_the_parser_takes_what_redis_py_gives_a_parser(name: str) -> None:
    """Else the first reply on a connection is a TypeError, and nothing can be counted."""
    theirs = inspect.signature(getattr(DefaultParser, name))
    assert list(inspect.signature(getattr(BoundedParser, name)).parameters) == list(
        theirs.parameters
    )
