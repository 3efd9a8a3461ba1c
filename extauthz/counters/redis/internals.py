"""Contains all uses of private attributes of redis-py and asyncio.

redis-py has no public way to see that the peer has reset a connection, to close one without
waiting, or to get the stream of a parser. Each function says which attribute it relies on;
tests/counters/redis/test_internals.py checks the installed redis-py for it.
"""

from __future__ import annotations

import asyncio

from redis.asyncio.connection import AbstractConnection


def is_open(connection: AbstractConnection) -> bool:
    """False when this side or the peer has closed the connection, or when it was reset.

    Only the writer shows a reset: the reader then has an error, but not the end of the stream.
    Relies on `_writer`: an `asyncio.StreamWriter`, or None once the connection is closed.
    """
    writer = connection._writer  # noqa: SLF001
    return writer is not None and not writer.is_closing() and connection.is_connected


def close_now(connection: AbstractConnection) -> None:
    """Closes a connection without waiting, so that a cancelled call can do it; raises nothing.

    Relies on `_close`: closes the transport and forgets both streams.
    """
    connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001


def find_stream(connection: AbstractConnection) -> asyncio.StreamReader | None:
    """The stream of a new connection, which redis-py's own parsers use, too.

    Relies on `_reader`, which is set before the parser's `on_connect` is called.
    """
    return connection._reader  # noqa: SLF001


def has_buffered(stream: asyncio.StreamReader) -> bool:
    """Whether received bytes wait to be read. Relies on `_buffer`, a `bytearray`."""
    return bool(stream._buffer)  # type: ignore[attr-defined]  # noqa: SLF001
