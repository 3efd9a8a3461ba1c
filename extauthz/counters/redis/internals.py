"""The only place that touches what redis-py and asyncio keep private, and why it has to.

redis-py tells neither that the other side has reset a connection, nor does it close one without
waiting, and it hands a parser its stream only through a private attribute. Each function says what
it relies on; tests/counters/redis/test_internals.py holds the installed redis-py to it.
"""

from __future__ import annotations

import asyncio

from redis.asyncio.connection import AbstractConnection


def is_open(connection: AbstractConnection) -> bool:
    """False when this side or the other one has closed the connection, or it was reset.

    A reset shows in the writer alone: the reader has an error then, and no end.
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
    """What a connection that was just made reads from, as redis-py's own parsers get it.

    Relies on `_reader`, which is set before the parser's `on_connect` is called.
    """
    return connection._reader  # noqa: SLF001


def has_buffered(stream: asyncio.StreamReader) -> bool:
    """Whether bytes have come that nobody has read yet. Relies on `_buffer`, a `bytearray`."""
    return bool(stream._buffer)  # type: ignore[attr-defined]  # noqa: SLF001
