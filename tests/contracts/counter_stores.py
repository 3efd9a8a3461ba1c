"""The counter stores that the contract holds for, and what their tests are written with.

A store joins by an entry in `STORES`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

import pytest

from extauthz.counters.leases.store import LeaseRules, LeasingCounterStore
from extauthz.counters.memory import MemoryCounterStore
from extauthz.model.limits import Algorithm, Charge, Reading
from extauthz.ports import CounterStore
from tests.builders import START_US, FakeClock, S
from tests.counters.outage.outages import make_fallback, make_fallback_in_outage
from tests.redis_server import DEPLOYMENTS, make_redis

W = 60 * S
FIRST_US = START_US - START_US % W + W
"""A window begins here; every store's clock stands here first."""
DAY_END_US = FIRST_US + 3600 * S
BOUNDS = (FIRST_US - 7200 * S, FIRST_US - 3600 * S, DAY_END_US, DAY_END_US + 86_400 * S)

LEASED = ("redis", "redis, sentinel", "redis, cluster")
EVERY = pytest.mark.parametrize("algorithm", list(Algorithm))


@dataclass(frozen=True)
class Store:
    """A store under test, with the clock that it goes by."""

    counters: CounterStore
    clock: FakeClock

    async def take(self, *charges: Charge, dedup_id: str | None = None) -> tuple[bool, ...]:
        """Whether it was charged, then whether each charge had room."""
        taking = await self.counters.take(charges, dedup_id=dedup_id)
        assert len(taking.readings) == len(charges)
        return (taking.charged, *[not reading.exceeded for reading in taking.readings])

    async def read(self, charge: Charge) -> Reading:
        """The reading of one charge."""
        return (await self.counters.take([charge])).readings[0]

    async def remaining(self, charge: Charge) -> int:
        return (await self.read(replace(charge, cost=0))).remaining


async def make_memory(clock: FakeClock) -> CounterStore:
    return MemoryCounterStore(clock)


async def make_leasing(clock: FakeClock) -> CounterStore:
    """Every counter is hot. Leases are a part of what remains, so small limits have none."""
    rules = LeaseRules(hot_per_s=0)
    return LeasingCounterStore(MemoryCounterStore(clock), clock.now_us, rules=rules)


def make_leasing_over(name: str) -> Callable[[FakeClock], Awaitable[CounterStore]]:
    """Likewise, over a real Redis."""

    async def make(clock: FakeClock) -> CounterStore:
        redis = await make_redis(name)(clock)
        return LeasingCounterStore(redis, clock.now_us, rules=LeaseRules(hot_per_s=0))

    return make


STORES: dict[str, Callable[[FakeClock], Awaitable[CounterStore]]] = {
    "memory": make_memory,
    "leasing over memory": make_leasing,
    "fallback over memory": make_fallback,
    "fallback in an outage": make_fallback_in_outage,
    **{name: make_redis(name) for name in DEPLOYMENTS},
    **{f"leasing over {name}": make_leasing_over(name) for name in LEASED},
}


def a_charge(
    algorithm: Algorithm = Algorithm.FIXED_WINDOW, limit: int = 3, *, key: str = "", cost: int = 1
) -> Charge:
    bounds = BOUNDS if algorithm is Algorithm.CALENDAR else ()
    return Charge(key or f"{{a}}{algorithm.value}", algorithm, limit, W, cost, bounds=bounds)


def shadow(charge: Charge) -> Charge:
    return replace(charge, key=f"{charge.key}-shadow", enforced=False)
