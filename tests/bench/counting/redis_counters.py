"""Taking from Redis: this process's CPU, Redis's CPU, commands and latency for each decision."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median

import uvloop

from extauthz.counters.redis.store import RedisCounterStore
from extauthz.model.limits import Algorithm, Charge
from tests.bench.tables import Row
from tests.builders import S
from tests.redis_server import Deployment, find_shared, settings_of, stop_shared

TITLE = "Counters in Redis: a taking of two limits, by how many decisions are made at once"

CONCURRENT = (1, 8, 32, 64)
DECISIONS = 6400
REPEATS = 5
CONSUMERS = 1000


def measure() -> Iterator[Row]:
    """One row for each deployment, calls in flight and concurrency; the median of repeats."""
    try:
        for name, in_flight, what in (
            ("redis", 1, "redis"),
            ("redis", 2, "redis, 2 calls in flight"),
            ("redis, unix socket", 1, "redis, unix socket"),
            ("redis, cluster", 1, "cluster of 3, all limits of a consumer in one slot"),
        ):
            for concurrent in CONCURRENT:
                yield {
                    "what": what,
                    "at once": concurrent,
                    **_measure(find_shared(name), in_flight, concurrent),
                }
        yield {
            "what": "redis, refused from memory",
            "at once": 32,
            **_measure(find_shared("redis"), 1, 32, limit=1, consumers=1),
        }
    finally:
        stop_shared()


def _measure(
    deployment: Deployment, in_flight: int, concurrent: int, **fields: int
) -> dict[str, float]:
    runs = [uvloop.run(_run(deployment, in_flight, concurrent, **fields)) for _ in range(REPEATS)]
    return {column: round(median(run[column] for run in runs), 3) for column in runs[0]}


async def _run(
    deployment: Deployment,
    in_flight: int,
    concurrent: int,
    limit: int = 10**9,
    consumers: int = CONSUMERS,
) -> dict[str, float]:
    settings = replace(settings_of(deployment), in_flight=in_flight)
    store = RedisCounterStore(settings)
    of_consumer = [_charges(number, limit) for number in range(consumers)]
    latencies: list[float] = []

    async def decide(numbers: range) -> None:
        for number in numbers:
            began = time.perf_counter()
            await store.take(of_consumer[number % consumers])
            latencies.append(time.perf_counter() - began)

    await asyncio.gather(*[decide(range(n, 128 + n, 1)) for n in range(8)])  # warm
    latencies.clear()
    for server in deployment.servers:
        server.ask("CONFIG", "RESETSTAT")
    redis_s = _redis_cpu_s(deployment)
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(
        *[decide(range(start, DECISIONS, concurrent)) for start in range(concurrent)]
    )
    cpu, took = time.process_time() - cpu, time.perf_counter() - began
    redis_s = _redis_cpu_s(deployment) - redis_s
    calls = sum(server.find_calls().get("evalsha", 0) for server in deployment.servers)
    await store.close()
    return {
        "CPU (µs)": cpu / DECISIONS * 1e6,
        "Redis CPU (µs)": redis_s / DECISIONS * 1e6,
        "commands": calls / DECISIONS,
        "median (µs)": median(latencies) * 1e6,
        "decisions/s": DECISIONS / took,
    }


def _redis_cpu_s(deployment: Deployment) -> float:
    total = 0.0
    for server in deployment.servers:
        with server.asking() as client:
            cpu: dict[str, float] = client.info("cpu")
        total += cpu["used_cpu_user_main_thread"] + cpu["used_cpu_sys_main_thread"]
    return total


def _charges(consumer: int, limit: int) -> tuple[Charge, ...]:
    tag = f"{{a6:mobile{consumer}}}"
    return (
        Charge(f"{tag}s10:HttpbinAPI5:1.0.0|sliding", Algorithm.SLIDING_WINDOW, limit, 60 * S),
        Charge(f"{tag}a|fixed", Algorithm.FIXED_WINDOW, limit, 3600 * S),
    )


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("redis_counters")))
