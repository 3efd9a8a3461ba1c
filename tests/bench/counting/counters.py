"""What one taking from the memory store costs, and planning and judging it.

Then what the quanta of a sliding window cost its client: how much is admitted, in hundredths of
what a log of every request would admit, over fifty windows after the first.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from statistics import median

from extauthz.counters.memory import MemoryCounterStore
from extauthz.model.apis import CostSource, Resource
from extauthz.model.applications import Application
from extauthz.model.conditions import (
    AddressCondition,
    Condition,
    Pattern,
    TextCondition,
    TextSource,
)
from extauthz.model.identity import Identity, Place, PlaceKind, SecurityScheme
from extauthz.model.limits import Algorithm, Charge, ConditionGroup, Tier
from extauthz.model.routing.routes import Route
from extauthz.policy.limits.answers import judge
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.policy.limits.planning import RateLimitPlanner
from tests.bench.tables import Row
from tests.builders import (
    START_US,
    FakeClock,
    S,
    a_catalog,
    a_limit,
    a_request,
    a_resource,
    a_tier,
    an_api,
)

TITLE = "Counters in memory: a taking of 1, 2 and 4 limits, and its plan and judgement"

REPEATS = 7
TIMES = 10_000
WINDOW_US = 3600 * S
USER_AGENT = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 Chrome/124.0.0.0 Mobile"
OFFICE = AddressCondition(family=4, first=0, last=(1 << 32) - 1)
BOTS = TextCondition(source=TextSource.HEADER, name="user-agent", pattern=Pattern("Android|iPhone"))
BOUNDS = (0, START_US - S, START_US + 86_400 * S, START_US + 2 * 86_400 * S)


def measure() -> Iterator[Row]:
    """One row for each algorithm, by number of limits; the median of repeats."""
    for algorithm in Algorithm:
        row: dict[str, object] = {"what": f"take, {algorithm.value}"}
        for limits in (1, 2, 4):
            row[f"{limits} limits (µs)"] = asyncio.run(_measure_taking(algorithm, limits))
        yield row
    yield from _measure_planning()
    for what, offer in _OFFERS.items():
        share = asyncio.run(_measure_share(offer()))
        yield {"what": f"sliding_window, limit {LIMIT}: {what}", "admitted (%)": share}


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
    planner = RateLimitPlanner(catalog)
    limited = LimitedRequest(a_request(), route, identity, subscription.tier, "192.0.2.1")

    def plan() -> object:
        return planner.plan_charges(limited, START_US)

    planned = planner.plan_charges(limited, START_US)
    store = MemoryCounterStore(FakeClock(START_US))
    taking = asyncio.run(store.take([limit.charge for limit in planned]))
    yield {"what": "plan, remembered", "2 limits (µs)": _median_call_us(plan)}
    yield {"what": "plan, cost of the request", "2 limits (µs)": _measure_costs()}
    yield {"what": "plan, by address", "2 limits (µs)": _measure_conditions(OFFICE)}
    yield {"what": "plan, by pattern", "2 limits (µs)": _measure_conditions(BOTS)}
    yield {"what": "judge", "2 limits (µs)": _median_call_us(lambda: judge(planned, taking))}


def _measure_costs() -> float:
    place = Place(PlaceKind.HEADER, "x-cost")
    resource = a_resource(cost_from=CostSource(place=place, maximum=50))
    return _measure_request(resource, a_tier("Gold", a_limit(10**6)), {"x-cost": "7"})


def _measure_conditions(condition: Condition) -> float:
    group = ConditionGroup(name="g", when=(condition,), limits=(a_limit(10**6),))
    tier = a_tier("Gold", a_limit(10**6), conditions=(group,))
    return _measure_request(a_resource(), tier, {"user-agent": USER_AGENT})


def _measure_request(resource: Resource, tier: Tier, headers: dict[str, str]) -> float:
    """Planning for an application with a limit, subscribed with one more."""
    application = Application(name="mobile", tier=a_tier("App", a_limit(10**6)))
    api, request = an_api(resource), a_request(headers=headers)
    identity = Identity(scheme=SecurityScheme.JWT, application=application)
    planner = RateLimitPlanner(a_catalog(api))
    limited = LimitedRequest(request, Route(api, resource), identity, tier, "192.0.2.1")
    return _median_call_us(lambda: planner.plan_charges(limited, START_US))


def _median_call_us(call: Callable[[], object]) -> float:
    taken = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        for _ in range(TIMES):
            call()
        taken.append((time.perf_counter() - began) / TIMES * 1e6)
    return round(median(taken), 2)


MINUTE_US = 60 * S
LIMIT = 500
WINDOWS = 50


def _evenly(times_the_limit: float) -> Iterator[int]:
    apart_us = MINUTE_US / LIMIT / times_the_limit
    for number in range(int((WINDOWS + 1) * LIMIT * times_the_limit)):
        yield int(number * apart_us)


def _at_random(times_the_limit: float) -> Iterator[int]:
    chance = random.Random(1)
    at_us = 0.0
    while at_us < (WINDOWS + 1) * MINUTE_US:
        yield int(at_us)
        at_us += chance.expovariate(LIMIT * times_the_limit / MINUTE_US)


def _in_bursts(apart_s: float) -> Iterator[int]:
    for number in range(int((WINDOWS + 1) * 60 / apart_s)):
        yield from [int(number * apart_s * S) + of_burst for of_burst in range(LIMIT)]


_OFFERS: dict[str, Callable[[], Iterator[int]]] = {
    "0.9 of it, evenly": lambda: _evenly(0.9),
    "all of it, evenly": lambda: _evenly(1),
    "1.1 of it, evenly": lambda: _evenly(1.1),
    "four times it, evenly": lambda: _evenly(4),
    "0.9 of it, at random": lambda: _at_random(0.9),
    "all of it, at random": lambda: _at_random(1),
    "twice it, at random": lambda: _at_random(2),
    "bursts of it, each minute": lambda: _in_bursts(60),
    "bursts of it, every 7 s": lambda: _in_bursts(7),
}


async def _measure_share(offers: Iterable[int]) -> float:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock)
    charge = Charge("k", Algorithm.SLIDING_WINDOW, LIMIT, MINUTE_US)
    log: deque[int] = deque()
    admitted = exact = 0
    for at_us in offers:
        clock.us = START_US + at_us
        charged = (await store.take([charge])).charged
        while log and log[0] <= at_us - MINUTE_US:
            log.popleft()
        is_free = len(log) < LIMIT
        if is_free:
            log.append(at_us)
        if at_us >= MINUTE_US:
            admitted += charged
            exact += is_free
    return round(100 * admitted / exact, 2)


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("counters")))
