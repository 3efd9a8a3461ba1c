"""Notices that a Redis has lost what it had counted: killed without persistence, or emptied.

A small key marks the store. It is looked at whenever a connection is made, and made when it is
missing. Who has seen it before, and finds it gone or made anew by another replica, knows that
every counter beside it is gone too. Decisions pay nothing for that.

On a cluster each node has a marker, in a hash slot that it holds; it moves with that slot. Where
no cluster is expected, a second key in another slot is read beside it: that is what every node of
a cluster refuses, so a cluster that is addressed as a single Redis shows with the first connection.

What is not noticed: a loss before this process has seen the marker, a FLUSHALL until the next
connection, and a store that came back with an old copy of its counts.
"""

from __future__ import annotations

import logging
import secrets
from typing import Any, Final

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import InvalidResponse, RedisError

from extauthz.counters.redis.batches import read_reply
from extauthz.counters.redis.refusals import ClusterFound, RedisRefusal, find_meaning
from extauthz.errors import CounterStoreError

_log = logging.getLogger(__name__)

_OF_CLUSTERS: Final = ("CLUSTERDOWN", "CROSSSLOT", "MOVED")
_OF_WRITES: Final = ("NOREPLICAS", "READONLY")
"""What is no reason not to look: a request that takes nothing is answered all the same."""


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

    async def look(self, connection: AbstractConnection, name: str, tag: str | None = None) -> None:
        """Looks at a marker, over a connection that nobody else uses yet.

        A server that does not let us (a replica, a user without the right, a slot that moves) is
        not watched this time: whether it counts is for a decision to find out.

        Args:
            tag: the marker's hash tag; None when the server is no node of a cluster.

        Raises:
            RedisError, OSError: the connection was lost, or the server counts for nobody now
                (it is still loading), or is of a cluster; it is closed then.
        """
        key = f"{self._prefix}{{{tag or 0}}}marker"
        other = () if tag is not None else (f"{self._prefix}{{1}}marker",)
        try:
            found = await _read_or_make(connection, key, *other)
        except RedisRefusal as refusal:
            if tag is None and refusal.code in _OF_CLUSTERS:
                await connection.disconnect(nowait=True)
                raise ClusterFound(refusal.text) from None
            if find_meaning(refusal).is_elsewhere and refusal.code not in _OF_WRITES:
                await connection.disconnect(nowait=True)
                raise
            _log.debug("the marker of Redis at %s cannot be looked at: %s", name, refusal)
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


async def _read_or_make(connection: AbstractConnection, key: str, *others: str) -> object:
    """The marker that stands there; a new one when there was none. Others are read beside it."""
    commands: list[tuple[Any, ...]] = [
        ("SET", key, secrets.token_hex(8), "NX"),
        ("MGET", key, *others),
    ]
    packed = b"".join([hiredis.pack_command(command) for command in commands])
    await connection.send_packed_command(packed, check_health=False)
    made = await read_reply(connection)
    try:
        read = await read_reply(connection)
    except RedisError:
        if isinstance(made, RedisRefusal):
            raise made from None  # It says why the connection was closed.
        raise
    for reply in (read, made):
        if isinstance(reply, RedisRefusal):
            raise reply
    if not isinstance(read, list) or not read or not isinstance(read[0], bytes):
        raise InvalidResponse("the answer is no marker")
    return read[0]
