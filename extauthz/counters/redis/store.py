"""Counts in Redis: exact over all replicas, one script call or less for each decision.

The arithmetic is `take.lua`, which computes what `extauthz.counters.formulas` says, with Redis's
own clock. Requests are sent in batches (`batches`). A decision is counted as follows:

- A cached refusal that is still valid is answered from memory (`deny_cache`).
- A single Redis, also behind Sentinels, takes all charges in one request.
- On a cluster there is one request for each hash slot. They are taken one after the other, shared
  limits last. When one is refused, what was taken is given back, and every reading is read again.
  When one cannot be sent, what was taken is given back in the background. A process that dies in
  between leaves the earlier requests charged: a counter may count one request too much, never too
  little.

A caller waits at most for the settings' timeout and its own deadline. What was sent by then may
have been charged. Trying again is safe only with a deduplication id.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

from redis.asyncio.connection import AbstractConnection

from extauthz.counters.redis.batches import BatchBounds, BatchQueue
from extauthz.counters.redis.cluster import ClusterQueues, split_by_slot
from extauthz.counters.redis.connection import Connector
from extauthz.counters.redis.deny_cache import DenyCache
from extauthz.counters.redis.loss import LossWatch
from extauthz.counters.redis.measures import RedisMeasures
from extauthz.counters.redis.script import Asked, CounterRequest, Script
from extauthz.counters.redis.settings import Deployment, RedisSettings
from extauthz.errors import CounterStoreError
from extauthz.model.limits import MAX_BURST, Algorithm, Charge, Reading, Taking
from extauthz.ports import NO_DEADLINE, Clock, Deadline

_BURST: Final = Algorithm.BURST


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1000


class RedisCounterStore:
    """A `CounterStore` in Redis or Valkey, 6.0 or later. Connects with the first taking.

    Args:
        remember_refusals: answer from memory while a counter is known to have no room.
        clock: the clock of counters; None, as always in production, for Redis's own.
        monotonic_us: for cached refusals, and for the pause before connecting again.
        measures: counts the calls.
    """

    def __init__(
        self,
        settings: RedisSettings,
        *,
        remember_refusals: bool = True,
        clock: Clock | None = None,
        monotonic_us: Callable[[], int] = _monotonic_us,
        measures: RedisMeasures | None = None,
    ) -> None:
        measures = measures or RedisMeasures()
        self._prefix = settings.prefix
        self._timeout_s = settings.timeout_s
        self.max_waiting: Final = settings.max_waiting
        """Requests that may wait to be sent to one server."""
        self._monotonic_us = monotonic_us
        self.refusals: Final = DenyCache(monotonic_us) if remember_refusals else None
        self._script = Script(settings.prefix, settings.dedup_ttl_us)
        self._connector = Connector(settings)
        self._watch = LossWatch(settings.prefix)
        self._behind: set[asyncio.Task[None]] = set()
        bounds = BatchBounds(
            timeout_s=settings.timeout_s,
            connect_timeout_s=settings.connect_timeout_s,
            in_flight=settings.in_flight,
            max_waiting=settings.max_waiting,
            first_pause_s=settings.first_pause_s,
            longest_pause_s=settings.longest_pause_s,
        )
        now_us = None if clock is None else clock.now_us
        address = settings.address
        self._name = str(address)
        self._is_cluster = address.deployment is Deployment.CLUSTER
        self._queue: BatchQueue | ClusterQueues
        if self._is_cluster:
            self._queue = ClusterQueues(
                address.servers,
                self._script,
                self._connector,
                self._watch,
                bounds,
                measures,
                monotonic_us,
                now_us,
            )
        else:
            self._queue = BatchQueue(
                self._name, self._script, self._connect, bounds, measures, monotonic_us, now_us
            )

    @property
    def losses(self) -> int:
        """How often Redis was found to have lost its counters."""
        return self._watch.losses

    @property
    def waiting(self) -> int:
        """Requests that wait to be sent to Redis."""
        return self._queue.waiting

    async def _connect(self) -> AbstractConnection:
        connection = await self._connector.connect()
        await self._watch.look(connection, self._name)
        return connection

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        """See `CounterStore.take`.

        On a cluster a repeated refusal may have other readings than the first one.
        """
        _check(charges)
        if not charges:
            return Taking(charged=True, readings=())
        until_s = self._find_end(deadline)
        refusals = self.refusals if dedup_id is None else None
        asked_us = 0
        if refusals is not None:
            refusal = refusals.find(charges)
            if refusal is not None:
                return refusal
            asked_us = self._monotonic_us()
        groups = split_by_slot(charges, self._prefix) if self._is_cluster else None
        if groups is None or len(groups) == 1:
            slot = groups[0][0] if groups is not None else 0
            taking = await self._ask(charges, Asked.TAKE, until_s, slot=slot, dedup_id=dedup_id)
        else:
            taking = await self._take_by_slot(charges, groups, until_s, dedup_id)
        if refusals is not None and not taking.charged:
            refusals.note(charges, taking, asked_us)
        return taking

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        """See `CounterStore.give_back`."""
        _check(charges)
        if not charges:
            return
        if self.refusals is not None:
            self.refusals.forget(charges)
        until_s = self._find_end(NO_DEADLINE)
        groups = split_by_slot(charges, self._prefix) if self._is_cluster else None
        if groups is None:
            groups = [(0, list(range(len(charges))))]
        await _all(
            self._ask(
                [charges[place] for place in places],
                Asked.GIVE_BACK,
                until_s,
                slot=slot,
                dedup_id=dedup_id,
                at_us=at_us,
            )
            for slot, places in groups
        )

    async def close(self) -> None:
        """Fails the requests that still wait, and closes every connection."""
        if self._behind:
            await asyncio.wait(self._behind)
        await self._queue.close()

    def _find_end(self, deadline: Deadline) -> float:
        """The time at which to give up, by the event loop's clock."""
        now_s = time.monotonic()
        left_s = self._timeout_s
        if deadline.monotonic_s is not None:
            left_s = min(left_s, deadline.monotonic_s - now_s)
            if left_s <= 0:
                raise CounterStoreError(
                    "the deadline had passed before Redis was asked", charged_nothing=True
                )
        return asyncio.get_running_loop().time() + left_s

    async def _ask(
        self,
        charges: Sequence[Charge],
        asked: Asked,
        until_s: float,
        *,
        slot: int = 0,
        dedup_id: str | None = None,
        at_us: int | None = None,
    ) -> Taking:
        """Queues one request and waits for its answer."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Taking] = loop.create_future()
        key = "" if dedup_id is None else self._script.write_answer_key(dedup_id, charges)
        request = CounterRequest(charges, answer, asked, remembered_as=key, at_us=at_us, slot=slot)
        self._queue.put(request)
        timer = loop.call_at(until_s, _give_up, request)
        try:
            return await answer
        finally:
            timer.cancel()

    async def _take_by_slot(
        self,
        charges: Sequence[Charge],
        groups: Sequence[tuple[int, list[int]]],
        until_s: float,
        dedup_id: str | None,
    ) -> Taking:
        """Takes from one slot after the other; all charges or none."""
        parts = [(slot, [charges[place] for place in places]) for slot, places in groups]
        takings: list[Taking] = []
        try:
            for slot, part in parts:
                taking = await self._ask(part, Asked.TAKE, until_s, slot=slot, dedup_id=dedup_id)
                takings.append(taking)
                if not taking.charged:
                    break
        except BaseException as error:
            # In the background: the caller must get this error, or has gone.
            self._give_back_behind(parts, takings, dedup_id)
            if takings and isinstance(error, CounterStoreError):
                # The error is about one slot, and another was charged.
                error.charged_nothing = False
            raise
        if not takings[-1].charged:
            refused = len(takings) - 1
            try:
                await _all(
                    self._give_back_part(part, taking, slot, until_s, dedup_id)
                    for (slot, part), taking in zip(parts[:refused], takings, strict=False)
                )
                looks = await _all(
                    self._ask(part, Asked.LOOK, until_s, slot=slot)
                    for number, (slot, part) in enumerate(parts)
                    if number != refused
                )
            except CounterStoreError as error:
                error.charged_nothing = False
                raise
            takings = [*looks[:refused], takings[refused], *looks[refused:]]
            return _join(charges, groups, takings, charged=False)
        return _join(charges, groups, takings, charged=True)

    async def _give_back_part(
        self,
        part: Sequence[Charge],
        taking: Taking,
        slot: int,
        until_s: float,
        dedup_id: str | None,
    ) -> Taking:
        return await self._ask(
            part, Asked.GIVE_BACK, until_s, slot=slot, dedup_id=dedup_id, at_us=taking.at_us
        )

    def _give_back_behind(
        self,
        parts: Sequence[tuple[int, list[Charge]]],
        takings: Sequence[Taking],
        dedup_id: str | None,
    ) -> None:
        until_s = self._find_end(NO_DEADLINE)

        async def give_back(slot: int, part: list[Charge], taking: Taking) -> None:
            try:
                await self._give_back_part(part, taking, slot, until_s, dedup_id)
            except CounterStoreError:
                return  # It stays charged, as after a crash.

        for (slot, part), taking in zip(parts, takings, strict=False):
            if taking.charged:
                task = asyncio.create_task(give_back(slot, part, taking))
                self._behind.add(task)
                task.add_done_callback(self._behind.discard)


async def _all(coroutines: Iterable[Coroutine[Any, Any, Taking]]) -> list[Taking]:
    """Runs all of them to their end; then raises the first error, if any."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, Taking)]


def _give_up(request: CounterRequest) -> None:
    request.fail(
        CounterStoreError(
            "Redis did not answer in time; it is not known whether anything was charged"
            if request.sent
            else "Redis could not be asked in time; nothing was charged",
            charged_nothing=not request.sent,
        )
    )


def _join(
    charges: Sequence[Charge],
    groups: Sequence[tuple[int, list[int]]],
    takings: Sequence[Taking],
    *,
    charged: bool,
) -> Taking:
    """The takings of the slots as one, with the readings in the order of the charges.

    `at_us` is the earliest: giving back with it never gives back more than was taken.
    """
    readings: dict[int, Reading] = {}
    for (_, places), taking in zip(groups, takings, strict=True):
        readings.update(zip(places, taking.readings, strict=True))
    at_us = min(taking.at_us for taking in takings)
    return Taking(charged, tuple([readings[place] for place in range(len(charges))]), at_us)


def _check(charges: Sequence[Charge]) -> None:
    keys = set()
    for charge in charges:
        keys.add(charge.key)
        if charge.cost < 0:
            raise ValueError(f"cost {charge.cost} is negative; use give_back")
        if charge.algorithm is _BURST and not 0 <= charge.limit <= MAX_BURST:
            raise ValueError(f"a burst of {charge.limit} is not in 0 to {MAX_BURST}")
    if len(keys) != len(charges):
        raise ValueError("a key stands twice among the charges")
