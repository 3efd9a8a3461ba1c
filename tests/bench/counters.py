"""What one taking from the memory store costs, and planning and judging it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from statistics import median

from extauthz.counters.memory import MemoryCounterStore
from extauthz.model.catalog import Application
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.model.limits import Algorithm, Charge
from extauthz.model.routes import Route
from extauthz.policy.rate_limit import RateLimitPlanner, judge
from tests.bench.tables import Row
from tests.builders import START_US, FakeClock, S, a_catalog, a_limit, a_request, a_tier

TITLE = "Counters in memory: a taking of 1, 2 and 4 limits, and its plan and judgement"

REPEATS = 7
TIMES = 10_000
WINDOW_US = 3600 * S
BOUNDS = (0, START_US - S, START_US + 86_400 * S, START_US + 2 * 86_400 * S)


def measure() -> Iterator[Row]:
    """One row for each algorithm, by number of limits; the median of repeats."""
    for algorithm in Algorithm:
        row: dict[str, object] = {"what": f"take, {algorithm.value}"}
        for limits in (1, 2, 4):
            row[f"{limits} limits (µs)"] = asyncio.run(_measure_taking(algorithm, limits))
        yield row
    yield from _measure_planning()


async def _measure_taking(algorithm: Algorithm, limits: int) -> float:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock)
    bounds = BOUNDS if algorithm is Algorithm.CALENDAR else ()
    charges = [
        Charge(
            f"{{a6:mobile}}s10:HttpbinAPI5:1.0.0|{algorithm.value}-{number}",
            algorithm,
            2 * TIMES * REPEATS,
            WINDOW_US,
            bounds=bounds,
        )
        for number in range(limits)
    ]

    async def take() -> None:
        for _ in range(TIMES):
            clock.us += 1
            await store.take(charges)

    taking = await _median_us(take)
    if not (await store.take(charges)).charged:
        raise RuntimeError("the limit was reached, so refusals were measured")
    return taking


async def _median_us(run: Callable[[], Coroutine[None, None, None]]) -> float:
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        await run()
        taken.append((time.perf_counter() - began) / TIMES * 1e6)
    return round(median(taken), 2)


def _measure_planning() -> Iterator[Row]:
    application = Application(name="mobile", tier=a_tier("App", a_limit(10**6)))
    catalog = a_catalog(
        application=application, subscription_fields={"tier": a_tier("Gold", a_limit(10**6))}
    )
    api = next(iter(catalog.apis.values()))
    subscription = next(iter(catalog.subscriptions.values()))
    route = Route(api, api.resources[0])
    identity = Identity(scheme=SecurityScheme.JWT, application=application)
    planner, request = RateLimitPlanner(catalog), a_request()

    def plan() -> object:
        return planner.plan_charges(route, identity, subscription, request, "192.0.2.1", START_US)

    planned = planner.plan_charges(route, identity, subscription, request, "192.0.2.1", START_US)
    store = MemoryCounterStore(FakeClock(START_US))
    taking = asyncio.run(store.take([limit.charge for limit in planned]))
    yield {"what": "plan, remembered", "2 limits (µs)": _median_call_us(plan)}
    yield {"what": "judge", "2 limits (µs)": _median_call_us(lambda: judge(planned, taking))}


def _median_call_us(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(TIMES):
            call()
        taken.append((time.perf_counter() - began) / TIMES * 1e6)
    return round(median(taken), 2)


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("counters")))
