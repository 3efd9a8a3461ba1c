"""Leases of a hot counter: Redis commands and time for each decision, and what is missed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from statistics import median

import uvloop

from extauthz.clock import SystemClock
from extauthz.counters.leases.store import LeaseRules, LeasingCounterStore
from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.model.limits import Algorithm, Charge
from extauthz.ports import CounterStore
from tests.bench.tables import Row
from tests.builders import S
from tests.redis_server import Deployment, find_shared, settings_of, stop_shared

TITLE = "Leases: decisions with one limit on one hot key, by lease and by how many are made at once"

SIZES = (0, 10, 100)
CONCURRENT = (1, 8, 64)
DECISIONS = 6400
REPEATS = 5
PROCESSES = 4
LIMIT = 1000
CENTURY_US = 36_500 * 86_400 * S


def measure() -> Iterator[Row]:
    """One row for each size and concurrency; then a decision in memory, and what is missed."""
    try:
        for size in SIZES:
            for concurrent in CONCURRENT:
                deployment = find_shared("redis")
                runs = [uvloop.run(_ask(deployment, size, concurrent)) for _ in range(REPEATS)]
                yield {
                    "what": f"lease of {size}" if size else "no lease",
                    "at once": concurrent,
                    **{column: round(median(run[column] for run in runs), 4) for column in runs[0]},
                }
        for limits in (1, 2):
            yield {
                "what": f"paid from a lease, {limits} limit{'s' * (limits > 1)}",
                "at once": 1,
                "commands per 1000": 0.0,
                "µs": round(median(uvloop.run(_pay(limits)) for _ in range(REPEATS)), 2),
            }
        for size in SIZES[1:]:
            for rate in (1, 50):
                missed = [uvloop.run(_miss(size, rate)) for _ in range(REPEATS)]
                who = "all equally busy" if rate == 1 else "one stops early"
                yield {
                    "what": f"lease of {size}, {PROCESSES} processes, {who}",
                    "missed of 1000": round(median(missed), 1),
                    "bound": size * PROCESSES,
                }
    finally:
        stop_shared()


def _lease(store: CounterStore, size: int) -> CounterStore:
    return LeasingCounterStore(store, rules=LeaseRules(size=size, hot_per_s=0)) if size else store


async def _ask(deployment: Deployment, size: int, concurrent: int) -> dict[str, float]:
    store = _lease(RedisCounterStore(settings_of(deployment)), size)
    charges = (Charge("{p1:a}hot", Algorithm.SLIDING_WINDOW, 10**9, CENTURY_US),)

    async def decide(times: int) -> None:
        for _ in range(times):
            await store.take(charges)
            await asyncio.sleep(0)  # as between requests: the others have their turn

    await decide(3)
    for server in deployment.servers:
        server.ask("CONFIG", "RESETSTAT")
    began = time.perf_counter()
    await asyncio.gather(*[decide(DECISIONS // concurrent) for _ in range(concurrent)])
    took = time.perf_counter() - began
    calls = sum(server.find_calls().get("evalsha", 0) for server in deployment.servers)
    await store.close()
    return {"commands per 1000": calls / DECISIONS * 1000, "µs": took / DECISIONS * 1e6}


async def _pay(limits: int) -> float:
    rules = LeaseRules(size=10**6, max_share=0.5, hot_per_s=0)
    store = LeasingCounterStore(MemoryCounterStore(SystemClock()), rules=rules)
    charges = tuple(
        Charge(f"{{p1:a}}{number}", Algorithm.SLIDING_WINDOW, 10**9, CENTURY_US)
        for number in range(limits)
    )
    for _ in range(3):
        await store.take(charges)
    began = time.perf_counter()
    for _ in range(DECISIONS):
        await store.take(charges)
    return (time.perf_counter() - began) / DECISIONS * 1e6


async def _miss(size: int, rate: int) -> int:
    """How many of the limit are not admitted. One process stops after `rate` of 1000."""
    shared = MemoryCounterStore(SystemClock())
    stores = [_lease(shared, size) for _ in range(PROCESSES)]
    charges = (Charge("{p1:a}hot", Algorithm.FIXED_WINDOW, LIMIT, CENTURY_US),)
    admitted = 0
    for turn in range(2 * LIMIT):
        for number, store in enumerate(stores):
            if rate > 1 and number == 0 and turn >= rate:
                continue
            admitted += (await store.take(charges)).charged
    return LIMIT - admitted


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("leases")))
