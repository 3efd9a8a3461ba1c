"""Reads replies of Redis, bounded by the size that a reply to this program can have.

All calls use RESP2, which every Redis, Valkey, proxy and managed service understands; nothing of
RESP3 is needed. A peer that is broken, or is no Redis at all, may announce a billion elements or
send a line without an end. Nothing is allocated for elements that were only announced, and a reply
that breaks a bound below, or the protocol, is an `InvalidResponse`; the connection is then closed.

A reply is an `int`, `bytes`, None, a list of those, or a `RedisRefusal`, which is an error reply.
The script's own replies are lists of integers. They are recognised by their bytes and parsed by
hiredis in one call: without other kinds of replies nothing can be announced that has not arrived.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import InvalidResponse

from extauthz.counters.redis.internals import find_stream, has_buffered
from extauthz.counters.redis.refusals import RedisRefusal

MOST_ELEMENTS: Final = 100_000
"""Of one reply, all levels together: a cluster's map with every slot in a row of its own has
fewer elements for each of 16,384 slots than could be written in any sensible cluster."""
MOST_AT_ONCE: Final = 8_192
"""Integers in one reply that are parsed in one call: several times as many as a batch needs."""
LONGEST_TEXT: Final = 65_536
"""Bytes of a text or a line."""
DEEPEST: Final = 8

_AT_ONCE: Final = 65_536
_YIELD_AFTER: Final = 1_000
"""Elements that are read one by one before the event loop runs other tasks."""
_HEAD_OF_INTEGERS: Final = re.compile(rb"\*([0-9]{1,4})\r\n:")
_OF_INTEGERS: Final = b"0123456789-:\r\n"
_LONGEST_INTEGER: Final = 23
_NUMBER: Final = re.compile(rb"-?[0-9]{1,19}")

Reply = int | bytes | None | list["Reply"] | RedisRefusal


class BoundedParser:
    """A redis-py `parser_class` for RESP2 with bounds."""

    EXCEPTION_CLASSES: Final[dict[str, object]] = {}

    def __init__(self, socket_read_size: int) -> None:
        self._read_size = max(socket_read_size, _AT_ONCE)
        self._stream: asyncio.StreamReader | None = None
        self._buffer = b""
        self._at = 0
        self._left = 0
        """Elements that the current reply may still have."""

    def on_connect(self, connection: AbstractConnection) -> None:
        """Resets the parser for a new connection."""
        self._stream = find_stream(connection)
        self._buffer, self._at = b"", 0

    def on_disconnect(self) -> None:
        """Drops the buffer and the stream."""
        self._stream = None
        self._buffer, self._at = b"", 0

    async def can_read(self) -> bool:
        """Whether unexpected bytes have arrived, or the other side has closed."""
        stream = self._stream
        if stream is None:
            raise OSError("the connection is closed")
        return self._at < len(self._buffer) or stream.at_eof() or has_buffered(stream)

    async def read_response(
        self,
        disable_decoding: bool = False,  # noqa: FBT001, FBT002  (redis-py's signature)
        push_request: bool = False,  # noqa: FBT001, FBT002
    ) -> Reply:
        """The next reply.

        Raises:
            InvalidResponse: the reply is no RESP2, or breaks a bound.
            redis.exceptions.ConnectionError: the other side has closed the connection.
        """
        self._left = MOST_ELEMENTS
        if self._at == len(self._buffer):
            await self._fill()
        head = _HEAD_OF_INTEGERS.match(self._buffer, self._at)
        if head is not None:
            integers = await self._read_integers(int(head[1]), head.end() - self._at - 1)
            if integers is not None:
                return integers
        return await self._read(1)

    async def _read(self, depth: int) -> Reply:
        line = await self._read_line()
        kind, rest = line[:1], line[1:]
        if kind == b":":
            return _read_number(rest)
        if kind == b"*":
            return await self._read_list(_read_number(rest), depth)
        if kind == b"$":
            return await self._read_text(_read_number(rest))
        if kind == b"+":
            return rest
        if kind == b"-":
            return RedisRefusal(rest.decode("utf-8", "replace"))
        raise InvalidResponse("what came is no reply of the Redis protocol, version 2")

    async def _read_list(self, count: int, depth: int) -> list[Reply] | None:
        if count == -1:
            return None
        self._left -= count
        if count < 0 or self._left < 0 or depth > DEEPEST:
            raise InvalidResponse(f"a list of {count} elements is longer than any reply can be")
        found: list[Reply] = []
        for number in range(count):
            if number % _YIELD_AFTER == _YIELD_AFTER - 1:
                await asyncio.sleep(0)
            found.append(await self._read(depth + 1))
        return found

    async def _read_integers(self, count: int, size_of_head: int) -> list[Reply] | None:
        """Parses a list of `count` integers in one call; None for another list, then unread."""
        if not 0 < count <= MOST_AT_ONCE:
            return None
        while True:
            buffer, begin = self._buffer, self._at + size_of_head
            end = buffer.find(b"*", begin)  # of the next reply to the same write, on a cluster
            numbers = buffer[begin : end if end >= 0 else None]
            if numbers.translate(None, _OF_INTEGERS) or len(numbers) > count * _LONGEST_INTEGER:
                return None
            lines = numbers.count(b"\n")
            if lines >= count or end >= 0:
                break
            await self._fill()
        if lines != count or numbers[-1:] != b"\n":
            return None
        reader = hiredis.Reader()
        reader.feed(buffer[self._at : begin] + numbers)
        try:
            reply = reader.gets()
        except hiredis.ProtocolError:
            return None
        if type(reply) is not list:
            return None
        self._at = begin + len(numbers)
        return reply

    async def _read_text(self, size: int) -> bytes | None:
        if size == -1:
            return None
        if not 0 <= size <= LONGEST_TEXT:
            raise InvalidResponse(f"a text of {size} bytes is longer than any reply can be")
        while len(self._buffer) - self._at < size + 2:
            await self._fill()
        end = self._at + size
        text = self._buffer[self._at : end]
        if self._buffer[end : end + 2] != b"\r\n":
            raise InvalidResponse("a text does not end where it should")
        self._at = end + 2
        return text

    async def _read_line(self) -> bytes:
        looked = self._at
        while (end := self._buffer.find(b"\r\n", looked)) < 0:
            looked = max(0, len(self._buffer) - self._at - 1)
            if looked > LONGEST_TEXT:
                raise InvalidResponse("a line is longer than any reply can be")
            await self._fill()
        line = self._buffer[self._at : end]
        self._at = end + 2
        return line

    async def _fill(self) -> None:
        """Waits for more bytes; those that were read are removed from the buffer."""
        if self._stream is None:
            raise RedisConnectionError("the connection is closed")
        more = await self._stream.read(self._read_size)
        if not more:
            raise RedisConnectionError("the server has closed the connection")
        self._buffer, self._at = self._buffer[self._at :] + more, 0


def _read_number(text: bytes) -> int:
    if not _NUMBER.fullmatch(text):
        raise InvalidResponse("what came where a number should stand is none")
    return int(text)
