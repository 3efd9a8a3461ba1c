"""Detects that a Redis has lost its counters: it was killed without persistence, or emptied.

A small key, the marker, identifies the data. It is read whenever a connection is made, and made
when it is missing. When a process has seen the marker before and finds it missing or replaced,
every counter was lost with it. This costs nothing during decisions.

On a cluster each node has a marker, in a hash slot that it holds; it moves with that slot. When no
cluster is expected, a second key in another slot is read with it: every node of a cluster refuses
that, so a cluster that is addressed as a single Redis is detected with the first connection.

Not detected are a loss before this process has seen the marker, a FLUSHALL until the next
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
"""Refusals that concern writes only: the server still answers a request that takes nothing."""


class LossWatch:
    """The markers that this process has seen.

    Attributes:
        losses: how often a store was found without what it had counted.
    """

    def __init__(self, prefix: str) -> None:
        """`prefix` is put before the marker's key, as before every other key."""
        self._prefix = prefix
        self._seen: dict[str, object] = {}
        """The marker last seen under each key: one for each node, and at most one for a slot."""
        self.losses = 0

    async def look(self, connection: AbstractConnection, name: str, tag: str | None = None) -> None:
        """Checks the marker, over a connection that is not in use yet.

        A server that refuses (a replica, a user without the right, a slot that is being moved) is
        not watched this time; whether it counts is found out by the next decision.

        Args:
            tag: the marker's hash tag; None when the server is no node of a cluster.

        Raises:
            RedisError, OSError: the connection was lost, or the server cannot count now (it is
                loading its data), or belongs to a cluster; the connection is then closed.
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
            _log.debug("the marker in Redis at %s cannot be read: %s", name, refusal)
            return
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        known = self._seen.get(key)
        self._seen[key] = found
        if known is not None and known != found:
            self.losses += 1
            _log.warning(
                "%s: Redis at %s has lost its counters; limits start from zero there, so "
                "up to twice a limit can pass in the current windows; turn on Redis's "
                "persistence, and let it evict nothing (maxmemory-policy noeviction)",
                CounterStoreError.code,
                name,
                extra={"code": CounterStoreError.code},
            )


async def _read_or_make(connection: AbstractConnection, key: str, *others: str) -> object:
    """Reads the marker, or makes it when there is none. The other keys are read with it."""
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
