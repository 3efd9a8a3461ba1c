"""Runs scripts on the server that holds their keys, one at a time. No decision waits for them.

Several keys share a hash slot, so that one server of a cluster holds them all. After a failure the
next call makes a new connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError, ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extauthz.counters.redis.batches import disconnect
from extauthz.counters.redis.connection import Connector
from extauthz.counters.redis.refusals import RedisRefusal, find_redirect
from extauthz.counters.redis.settings import Deployment, RedisSettings, Server
from extauthz.errors import BackendError
from extauthz.plain_text import write_plain
from extauthz.telemetry.measures.dependencies import CallMeasure

_LEAST_WAIT_S: Final = 1.0
"""Seconds for a call."""
_MOST_REDIRECTS: Final = 4
_Command: TypeAlias = tuple[str | bytes | int, ...]


class RedisCalls:
    """A connection to one Redis, Sentinels' primary or cluster.

    Args:
        keys: of every script; the prefix of the settings included.
        failure: the error that is raised.
        measure: counts the calls.
    """

    def __init__(
        self,
        settings: RedisSettings,
        keys: Sequence[str],
        failure: type[BackendError],
        measure: CallMeasure | None = None,
    ) -> None:
        self._keys = tuple(keys)
        self._failure = failure
        self._measure = measure or CallMeasure()
        address = settings.address
        self._name = str(address)
        self._seeds = address.servers if address.deployment is Deployment.CLUSTER else ()
        self._next_seed = 0
        self._server: Server | None = None
        """The node of a cluster that is asked: the one that holds the keys, once it is known."""
        self._connector = Connector(settings)
        self._connection: AbstractConnection | None = None
        self._wait_s = max(settings.timeout_s, _LEAST_WAIT_S)

    async def call(self, script: str, *args: str | bytes | int) -> Any:
        """What a script returns.

        Raises:
            BackendError: the given failure. There was no answer, or a refusal. A script that writes may have run.
        """
        command = ("EVAL", script, len(self._keys), *self._keys, *args)
        try:
            with self._measure.measure(RedisTimeoutError):
                async with asyncio.timeout(self._wait_s):
                    return await self._follow(command)
        except (RedisError, OSError) as exc:
            # TimeoutError is an OSError. What was lost is looked for anew, at another seed.
            self._server = None
            await self._drop()
            what = "refused" if isinstance(exc, ResponseError) else "did not answer"
            message = f"Redis at {self._name} {what}: {_describe(exc)}"
            raise self._failure(message) from exc
        except BaseException:
            await self._drop()
            raise

    async def close(self) -> None:
        """Closes the connection."""
        await self._drop()

    async def _follow(self, command: _Command) -> Any:
        """Sends a command, and follows a cluster's redirections."""
        is_asking = False
        for _ in range(_MOST_REDIRECTS):
            try:
                return await self._send(command, is_asking=is_asking)
            except RedisRefusal as refusal:
                redirect = find_redirect(refusal) if self._seeds else None
                if redirect is None:
                    raise
                host = redirect.host or (self._server or self._seeds[0])[0]
                await self._drop()
                self._server, is_asking = (host, redirect.port), not redirect.is_moved
        return await self._send(command, is_asking=is_asking)

    async def _send(self, command: _Command, *, is_asking: bool) -> Any:
        connection = self._connection
        if connection is None:
            connection = self._connection = await self._connect()
        if is_asking:
            await connection.send_command("ASKING")
            await connection.read_response()
        await connection.send_command(*command)
        return await connection.read_response()

    async def _connect(self) -> AbstractConnection:
        if not self._seeds:
            return await self._connector.connect()
        if self._server is not None:
            return await self._connector.connect_to(self._server)
        self._server = self._seeds[self._next_seed % len(self._seeds)]
        self._next_seed += 1
        return await self._connector.connect_to(self._server)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await disconnect(connection)


def _describe(error: BaseException) -> str:
    """What Redis or the system said, on one line; neither repeats passwords."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return write_plain(str(error)[:200]) or type(error).__name__
