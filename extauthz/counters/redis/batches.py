"""Sends the requests that wait for one Redis server in batches, one script call each.

There is no timer. While a call is in flight, requests gather; when it returns, they are sent as
the next batch: one script call, on a cluster one for each hash slot, in one write. A request that
comes when no call is in flight is sent at once. So the busier the server, the less each decision
costs.

- A request whose caller has gone before it is sent is dropped. Once sent, it counts as taken.
- A connection is checked just before it is used, and replaced when it was closed or reset.
- Nothing that may have been charged is ever sent twice. Only requests that the server refused
  before it read a counter are sent again (NOSCRIPT, MOVED, ASK).
- When a call has no answer in time, or its connection is lost, all of its requests fail at once,
  and the connection is closed. The next request makes a new one. When connecting fails, every
  request that waits fails, and new requests fail at once until a growing pause is over.
- The length of the queue and of a batch is bounded.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from extauthz.counters.redis.internals import close_now, is_open
from extauthz.counters.redis.measures import RedisMeasures
from extauthz.counters.redis.refusals import (
    CLUSTER,
    Redirect,
    RedisRefusal,
    find_meaning,
    find_redirect,
)
from extauthz.counters.redis.script import CounterRequest, Script, settle
from extauthz.errors import CounterStoreError
from extauthz.plain_text import write_plain
from extauthz.telemetry.measures.dependencies import MeasuredCall

Connect: TypeAlias = Callable[[], Awaitable[AbstractConnection]]
"""Gives a connection that is ready for use; raises RedisError, OSError or TimeoutError."""

SendOn: TypeAlias = Callable[[Sequence[CounterRequest], Redirect], None]
"""Sends requests on to the node that an ASK or a MOVED names."""

_LONGEST_TEXT: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchBounds:
    """Bounds of a queue and of its batches.

    Attributes:
        timeout_s: from sending a call to its whole answer.
        connect_timeout_s: for connecting and authenticating.
        in_flight: calls at the same time, each on a connection of its own.
        max_waiting: requests in the queue; further ones fail at once.
        first_pause_s, longest_pause_s: the pause after failing to connect; it is doubled each
            time, and shortened by a random part of up to half.
        max_requests, max_charges: of one batch.
    """

    timeout_s: float
    connect_timeout_s: float
    in_flight: int
    max_waiting: int
    first_pause_s: float
    longest_pause_s: float
    max_requests: int = 128
    max_charges: int = 512


class BatchQueue:
    """The queue of requests for one server, and its connections.

    Args:
        name: the server, for errors.
        now_us: the clock of the script; None for the server's own.
        monotonic_us: for the pause after a failure.
        redirect: sends on what a cluster's node does not serve; None without a cluster.
        lost: told when the server could not be reached or did not answer.
    """

    def __init__(
        self,
        name: str,
        script: Script,
        connect: Connect,
        bounds: BatchBounds,
        measures: RedisMeasures,
        monotonic_us: Callable[[], int],
        now_us: Callable[[], int] | None = None,
        redirect: SendOn | None = None,
        lost: Callable[[], object] | None = None,
    ) -> None:
        self.name = name
        self._script = script
        self._connect_now = connect
        self._bounds = bounds
        self._measures = measures
        self._monotonic_us = monotonic_us
        self._now_us = now_us
        self._redirect = redirect
        self._lost = lost
        self._waiting: deque[CounterRequest] = deque()
        self._connections: list[AbstractConnection | None] = [None] * bounds.in_flight
        self._idle = list(range(bounds.in_flight))
        self._working: set[asyncio.Task[None]] = set()
        self._pause_s = 0.0
        self._paused_until_us = 0
        self._last_failure = "the connection was lost"
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """Requests that wait to be sent."""
        return len(self._waiting)

    @property
    def is_idle(self) -> bool:
        """Whether no request waits and none is in flight."""
        return not self._waiting and not self._working

    def put(self, request: CounterRequest) -> None:
        """Queues a request; its future gets the answer.

        Raises:
            CounterStoreError: the queue is full, or the server is away; nothing was charged.
        """
        if self._is_closed:
            raise CounterStoreError(
                f"the connection to Redis at {self.name} is closed", charged_nothing=True
            )
        if len(self._waiting) >= self._bounds.max_waiting:
            raise CounterStoreError(
                f"{len(self._waiting)} decisions already wait for Redis at {self.name}",
                charged_nothing=True,
            )
        if self._pause_s and self._monotonic_us() < self._paused_until_us:
            raise CounterStoreError(
                f"Redis at {self.name} cannot be reached ({self._last_failure}); "
                "it is tried again shortly",
                charged_nothing=True,
            )
        self._waiting.append(request)
        if self._idle:
            task = asyncio.create_task(self._work(self._idle.pop()))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    async def close(self) -> None:
        """Fails the requests that wait or are in flight, and closes the connections."""
        self._is_closed = True
        self._fail_waiting(f"the connection to Redis at {self.name} was closed")
        for task in self._working:
            task.cancel()
        await asyncio.gather(*self._working, return_exceptions=True)
        for number in range(self._bounds.in_flight):
            await self._drop_connection(number, wait=True)

    async def _work(self, number: int) -> None:
        """Makes calls on connection `number` until nothing waits."""
        try:
            while self._has_waiting():
                connection = self._connections[number]
                if connection is None or not await _is_usable(connection):
                    connection = await self._connect(number)
                    if connection is None:
                        return
                requests = self._gather()
                if requests:
                    await self._call(number, connection, requests)
        finally:
            self._idle.append(number)

    def _has_waiting(self) -> bool:
        waiting = self._waiting
        while waiting and waiting[0].answer.done():
            waiting.popleft()
        return bool(waiting)

    def _gather(self) -> list[CounterRequest]:
        """The next batch: the oldest requests whose callers still wait."""
        waiting, bounds = self._waiting, self._bounds
        requests: list[CounterRequest] = []
        charges = 0
        while waiting and len(requests) < bounds.max_requests:
            request = waiting[0]
            if not request.answer.done():
                charges += len(request.charges)
                if charges > bounds.max_charges and requests:
                    break
                requests.append(request)
            waiting.popleft()
        return requests

    async def _connect(self, number: int) -> AbstractConnection | None:
        await self._drop_connection(number)
        try:
            with self._measures.connecting.measure(RedisTimeoutError):
                async with asyncio.timeout(self._bounds.connect_timeout_s):
                    connection = await self._connect_now()
        except (RedisError, OSError) as exc:
            self._pause()
            self._last_failure = _describe(exc)
            if not any(c is not None and c.is_connected for c in self._connections):
                self._fail_waiting(f"Redis at {self.name} cannot be reached: {_describe(exc)}", exc)
            return None
        self._connections[number] = connection
        self._pause_s = 0.0
        return connection

    def _pause(self) -> None:
        bounds = self._bounds
        self._pause_s = min(max(2 * self._pause_s, bounds.first_pause_s), bounds.longest_pause_s)
        pause_s = self._pause_s * (1 - random.random() / 2)  # noqa: S311  (spreads replicas)
        self._paused_until_us = self._monotonic_us() + round(pause_s * 1e6)
        if self._lost is not None:
            self._lost()

    async def _call(
        self, number: int, connection: AbstractConnection, requests: list[CounterRequest]
    ) -> None:
        groups = self._group(requests)
        try:
            with self._measures.counting.measure() as measured:
                sha, source = self._script.sha, self._script.source
                unknown = await self._exchange(connection, groups, "EVALSHA", sha, measured)
                if unknown:
                    # The server has not seen the script, or has forgotten it. Nothing ran.
                    await self._exchange(connection, unknown, "EVAL", source, measured)
        except (RedisError, OSError) as exc:
            await self._drop_connection(number)
            what = (
                f"did not answer within {self._bounds.timeout_s * 1000:g} ms"
                if isinstance(exc, TimeoutError)
                else f"was lost: {_describe(exc)}"
            )
            for request in requests:
                request.fail(_unanswered(self.name, what, exc))
            if self._lost is not None:
                self._lost()
        except BaseException:
            # A reply that comes on this connection later must not be read as another call's.
            close_now(connection)
            for request in requests:
                request.fail(_unanswered(self.name, "was given up", None))
            raise

    def _group(self, requests: list[CounterRequest]) -> list[list[CounterRequest]]:
        """Groups requests by script call: one for all, or on a cluster one for each hash slot."""
        if self._redirect is None:
            return [requests]
        groups: dict[tuple[int, bool], list[CounterRequest]] = {}
        for request in requests:
            groups.setdefault((request.slot, request.asking), []).append(request)
        return list(groups.values())

    async def _exchange(
        self,
        connection: AbstractConnection,
        groups: list[list[CounterRequest]],
        command: str,
        script: str | bytes,
        measured: MeasuredCall,
    ) -> list[list[CounterRequest]]:
        """Sends a script call for each group and settles it; returns those without the script."""
        now_us = None if self._now_us is None else self._now_us()
        parts = []
        for requests in groups:
            if requests[0].asking:
                parts.append(hiredis.pack_command(("ASKING",)))
            call = self._script.write_call(requests, now_us)
            parts.append(hiredis.pack_command((command, script, *call)))
            for request in requests:
                request.sent = True
        replies: list[object] = []
        async with asyncio.timeout(self._bounds.timeout_s):
            await connection.send_packed_command(b"".join(parts), check_health=False)
            for requests in groups:
                if requests[0].asking:
                    await read_reply(connection)
                replies.append(await read_reply(connection))
        unknown: list[list[CounterRequest]] = []
        is_elsewhere = False
        for requests, reply in zip(groups, replies, strict=True):
            if not isinstance(reply, RedisRefusal):
                is_elsewhere = not settle(requests, reply) or is_elsewhere
                continue
            if reply.code == "NOSCRIPT" and command == "EVALSHA":
                unknown.append(requests)
                continue
            redirect = find_redirect(reply)
            if redirect is not None and self._redirect is not None:
                self._redirect(requests, redirect)
                continue
            measured.fail()
            for request in requests:
                request.fail(self._refused(reply))
            is_elsewhere = is_elsewhere or find_meaning(reply).is_elsewhere
        if is_elsewhere:
            await connection.disconnect(nowait=True)
            if self._lost is not None:
                self._lost()
        return unknown

    def _refused(self, refusal: RedisRefusal) -> CounterStoreError:
        meaning = find_meaning(refusal)
        if refusal.code == "MOVED" and self._redirect is None:
            meaning = CLUSTER
        error = CounterStoreError(
            f"Redis at {self.name} refused to count: {_describe(refusal)}"
            + (f" ({meaning.advice})" if meaning.advice else ""),
            transient=meaning.is_transient,
            charged_nothing=meaning.charged_nothing,
        )
        error.__cause__ = refusal
        return error

    def _fail_waiting(self, message: str, cause: Exception | None = None) -> None:
        waiting = list(self._waiting)
        self._waiting.clear()
        for request in waiting:
            error = CounterStoreError(message, transient=_is_transient(cause), charged_nothing=True)
            error.__cause__ = cause
            request.fail(error)

    async def _drop_connection(self, number: int, *, wait: bool = False) -> None:
        connection, self._connections[number] = self._connections[number], None
        if connection is not None:
            await disconnect(connection, wait=wait)


async def _is_usable(connection: AbstractConnection) -> bool:
    """False when the other side has closed or reset it, or has sent what nobody asked for.

    What is written without a pause after this was True has been sent: until then it is sure that
    nothing was.
    """
    try:
        return is_open(connection) and not await connection.can_read()
    except (RedisError, OSError):
        return False


async def read_reply(connection: AbstractConnection) -> object:
    """A reply, or the error that the server replied with; other errors are raised."""
    try:
        return await connection.read_response()
    except RedisRefusal as refusal:
        return refusal


async def disconnect(connection: AbstractConnection, *, wait: bool = False) -> None:
    """Closes a connection, whatever state it is in."""
    try:
        await connection.disconnect(nowait=not wait)
    except (RedisError, OSError):
        close_now(connection)


def _is_transient(cause: Exception | None) -> bool:
    return not isinstance(cause, RedisRefusal) or find_meaning(cause).is_transient


def _describe(error: BaseException) -> str:
    """The text of an error of Redis or the system; neither repeats passwords."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return write_plain(str(error)[:_LONGEST_TEXT]) or type(error).__name__


def _unanswered(name: str, what: str, cause: Exception | None) -> CounterStoreError:
    error = CounterStoreError(
        f"the call to Redis at {name} {what}; it is not known whether anything was charged"
    )
    error.__cause__ = cause
    return error
