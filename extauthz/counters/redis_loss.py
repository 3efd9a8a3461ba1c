"""Notices that a Redis has lost what it had counted: killed without persistence, or emptied.

A small key marks the store. It is looked at whenever a connection is made, and made when it is
missing. Who has seen it before, and finds it gone or made anew by another replica, knows that
every counter beside it is gone too. Decisions pay nothing for that.

On a cluster each node has a marker, in a hash slot that it holds; it moves with that slot.

What is not noticed: a loss before this process has seen the marker, a FLUSHALL until the next
connection, and a store that came back with an old copy of its counts.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ResponseError

from extauthz.errors import CounterStoreError

_log = logging.getLogger(__name__)


class LossWatch:
    """What this process knows of the markers.

    Attributes:
        losses: how often a store was found without what it had counted.
    """

    def __init__(self, prefix: str) -> None:
        """`prefix` stands before the marker's key, as before every other."""
        self._prefix = prefix
        self._seen: dict[str, object] = {}
        """The marker last seen under each key: one for each node, and at most one for a slot."""
        self.losses = 0

    async def look(self, connection: AbstractConnection, name: str, tag: str = "0") -> None:
        """Looks at the marker with this hash tag, over a connection that nobody else uses yet.

        A server that does not let us (a replica, a user without the right, a slot that moves) is
        not watched this time: whether it counts is for a decision to find out.

        Raises:
            RedisError, OSError: the connection was lost, or the server is still loading; it is
                closed then.
        """
        key = f"{self._prefix}{{{tag}}}marker"
        try:
            found = await _read_or_make(connection, key)
        except ResponseError as error:
            _log.debug("the marker of Redis at %s cannot be looked at: %s", name, error)
            return
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        known = self._seen.get(key)
        self._seen[key] = found
        if known is not None and known != found:
            self.losses += 1
            _log.warning(
                "%s: Redis at %s has lost what it had counted; limits begin anew there, and up to "
                "one limit more can pass in the windows that are under way; let Redis persist, "
                "and evict nothing",
                CounterStoreError.code,
                name,
                extra={"code": CounterStoreError.code},
            )


async def _read_or_make(connection: AbstractConnection, key: str) -> object:
    """The marker that stands there; a new one when there was none."""
    commands: list[tuple[Any, ...]] = [("SET", key, secrets.token_hex(8), "NX"), ("MGET", key)]
    packed = b"".join([hiredis.pack_command(command) for command in commands])
    await connection.send_packed_command(packed, check_health=False)
    refused: ResponseError | None = None
    reply: object = None
    for _ in commands:
        try:
            reply = await connection.read_response()
        except ResponseError as error:
            refused = refused or error
    if refused is not None:
        raise refused
    if not isinstance(reply, list) or len(reply) != 1 or not isinstance(reply[0], bytes):
        raise ResponseError("the answer is no marker")
    return reply[0]
