"""Sends requests to the nodes of a Redis Cluster, and says in which order slots are asked.

The text in braces in a key determines its hash slot, and a script's keys must share one. A decision
with keys in several slots is sent slot by slot (`split_by_slot`): the consumer's own limits first,
those that many consumers share last. So what has to be given back after a refusal is mostly the
consumer's own.

The map of slots is read with CLUSTER SLOTS from any node that answers. It is read again when a
node sends a request on (MOVED) or is lost, one reading at a time.
"""

from __future__ import annotations

import asyncio
from binascii import crc_hqx
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from extauthz.counters.redis.batches import BatchBounds, BatchQueue, disconnect
from extauthz.counters.redis.connection import Connector
from extauthz.counters.redis.loss import LossWatch
from extauthz.counters.redis.measures import RedisMeasures
from extauthz.counters.redis.refusals import SLOTS, Redirect
from extauthz.counters.redis.script import CounterRequest, Script, find_hash_tag
from extauthz.counters.redis.settings import Server
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Charge

_MOST_REDIRECTS: Final = 4
_REREAD_US: Final = 200_000
"""Shortest time between two readings of the map, when nodes are lost or redirect repeatedly."""
_MOST_TAGS: Final = 8 * SLOTS
"""Tries for a hash tag in a slot of a node, which in practice holds hundreds of slots or more."""
_OWN_FIRST: Final = "ackrp"
"""First letters of hash tags (`policy.limits.planning`), from the narrowest subject to the widest:
consumer, client address, custom, resource, API."""


def split_by_slot(charges: Sequence[Charge], prefix: str) -> list[tuple[int, list[int]]]:
    """Slots with the indexes of their charges, in the order in which they are asked."""
    groups: dict[int, list[int]] = {}
    ranks: dict[int, int] = {}
    for place, charge in enumerate(charges):
        tag = find_hash_tag(prefix + charge.key)
        slot = crc_hqx(tag.encode("utf-8", "surrogatepass"), 0) % SLOTS
        groups.setdefault(slot, []).append(place)
        rank = _OWN_FIRST.find(tag[:1]) % (len(_OWN_FIRST) + 1)
        ranks[slot] = max(rank, ranks.get(slot, 0))
    return sorted(groups.items(), key=lambda group: ranks[group[0]])


class ClusterQueues:
    """A queue for each node that holds slots."""

    def __init__(
        self,
        seeds: Iterable[Server],
        script: Script,
        connector: Connector,
        watch: LossWatch,
        bounds: BatchBounds,
        measures: RedisMeasures,
        monotonic_us: Callable[[], int],
        now_us: Callable[[], int] | None,
    ) -> None:
        self._seeds = tuple(seeds)
        self._script = script
        self._connector = connector
        self._watch = watch
        self._bounds = bounds
        self._measures = measures
        self._monotonic_us = monotonic_us
        self._now_us = now_us
        self._server_of: list[Server | None] = [None] * SLOTS
        self._queues: dict[Server, BatchQueue] = {}
        self._reading: asyncio.Task[None] | None = None
        self._read_at_us: int | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._early: list[CounterRequest] = []
        """Requests that came before the map was first read."""
        self._is_closed = False

    @property
    def waiting(self) -> int:
        """Requests that wait to be sent."""
        return len(self._early) + sum(queue.waiting for queue in self._queues.values())

    def put(self, request: CounterRequest) -> None:
        """Queues a request at the node that holds its slot, when that is known.

        Raises:
            CounterStoreError: as `BatchQueue.put`; nothing was charged.
        """
        server = self._server_of[request.slot]
        if server is not None:
            self._queue(server).put(request)
            return
        if self._is_closed:
            raise CounterStoreError(
                "the connections to the Redis Cluster are closed", charged_nothing=True
            )
        if self._read_map() is None:
            raise CounterStoreError(
                "no node of the Redis Cluster is known to hold this slot", charged_nothing=True
            )
        if len(self._early) >= self._bounds.max_waiting:
            raise CounterStoreError(
                f"{len(self._early)} decisions already wait for the Redis Cluster's map",
                charged_nothing=True,
            )
        self._early.append(request)

    def _put_early(self) -> None:
        early, self._early = self._early, []
        for request in early:
            server = self._server_of[request.slot]
            if server is None:
                request.fail(
                    CounterStoreError(
                        "no node of the Redis Cluster says who holds this slot",
                        charged_nothing=True,
                    )
                )
            else:
                self._put_or_fail(server, request)

    async def close(self) -> None:
        """Closes every queue."""
        self._is_closed = True
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await asyncio.gather(*self._closing, *[queue.close() for queue in self._queues.values()])

    def _queue(self, server: Server) -> BatchQueue:
        queue = self._queues.get(server)
        if queue is None:
            host, port = server

            name = f"{host}:{port}"

            async def connect() -> AbstractConnection:
                connection = await self._connector.connect_to(server)
                tag = find_tag(self._server_of, server)
                if tag is not None:
                    await self._watch.look(connection, name, tag)
                return connection

            queue = self._queues[server] = BatchQueue(
                name,
                self._script,
                connect,
                self._bounds,
                self._measures,
                self._monotonic_us,
                self._now_us,
                redirect=lambda requests, redirect: self._redirect(server, requests, redirect),
                lost=self._read_map,
            )
        return queue

    def _redirect(self, by: Server, requests: Sequence[CounterRequest], redirect: Redirect) -> None:
        # A node that does not know its own name omits the host.
        server = (redirect.host or by[0], redirect.port)
        is_moved = redirect.is_moved
        if is_moved:
            self._server_of[redirect.slot] = server
            self._read_map()
        for request in requests:
            request.redirects += 1
            request.asking = not is_moved
            request.sent = False
            if request.redirects > _MOST_REDIRECTS:
                request.fail(
                    CounterStoreError(
                        "the nodes of the Redis Cluster disagree on a slot", charged_nothing=True
                    )
                )
            else:
                self._put_or_fail(server, request)

    def _put_or_fail(self, server: Server, request: CounterRequest) -> None:
        if request.answer.done():
            return
        try:
            self._queue(server).put(request)
        except CounterStoreError as error:
            request.fail(error)

    def _read_map(self) -> asyncio.Task[None] | None:
        """Starts to read the map, unless it was just read; gives the task that reads it."""
        if self._reading is None or self._reading.done():
            now_us = self._monotonic_us()
            if self._read_at_us is not None and now_us < self._read_at_us + _REREAD_US:
                return None
            self._read_at_us = now_us
            self._reading = asyncio.create_task(self._read_from_any())
            self._reading.add_done_callback(lambda _: self._put_early())
        return self._reading

    async def _read_from_any(self) -> None:
        known = list(dict.fromkeys(server for server in self._server_of if server is not None))
        for server in dict.fromkeys((*known, *self._seeds)):
            try:
                async with asyncio.timeout(self._bounds.connect_timeout_s):
                    rows = await self._ask_for_slots(server)
                server_of = _read_slots(rows, server)
            except (RedisError, OSError, ValueError, TypeError):
                continue
            self._server_of = server_of
            self._close_queues_without_slots()
            return

    async def _ask_for_slots(self, server: Server) -> Any:
        connection = await self._connector.connect_to(server)
        try:
            await connection.send_command("CLUSTER", "SLOTS", check_health=False)
            return await connection.read_response()
        finally:
            await disconnect(connection)

    def _close_queues_without_slots(self) -> None:
        holders = set(self._server_of)
        for server, queue in list(self._queues.items()):
            # A node that a slot is being moved to may hold none yet, but have requests.
            if server in holders or not queue.is_idle:
                continue
            task = asyncio.create_task(self._queues.pop(server).close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def find_tag(server_of: Sequence[Server | None], server: Server) -> str | None:
    """A node's hash tag, the same in every replica: the smallest number whose slot it holds."""
    if server not in server_of:
        return None
    for number in range(_MOST_TAGS):
        if server_of[crc_hqx(b"%d" % number, 0) % SLOTS] == server:
            return str(number)
    return None


def _read_slots(rows: Any, asked: Server) -> list[Server | None]:
    """CLUSTER SLOTS: rows of first slot, last slot, [host, port, …] of the primary, replicas.

    Raises:
        ValueError, TypeError: it is no valid map, or a slot has two primaries.
    """
    server_of: list[Server | None] = [None] * SLOTS
    said = 0
    for first, last, (host, port, *_), *_replicas in rows:
        name = host.decode() if isinstance(host, bytes) else ""
        server = (asked[0] if name in ("", "?") else name, int(port))
        said += last - first + 1
        if not 0 <= first <= last < SLOTS or said > SLOTS or not 0 < server[1] < 65536:
            raise ValueError
        server_of[first : last + 1] = [server] * (last - first + 1)
    if not said:
        raise ValueError
    return server_of
