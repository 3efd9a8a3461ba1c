"""Amounts are granted alike on every counter store."""

from __future__ import annotations

import asyncio

import pytest

from extauthz.model.limits import Algorithm, LimitLevel, OutageMode
from extauthz.policy.limits.quota import QuotaAsk, take_quota
from extauthz.policy.limits.tier_limits import PlannedLimit, TierPlanner
from extauthz.ports import NO_DEADLINE
from tests.builders import a_limit, a_tier
from tests.contracts.counter_stores import FIRST_US, Store

ALGORITHMS = [Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW, Algorithm.BURST]
LIMIT = 10


def plan(algorithm: Algorithm, cost: int) -> tuple[PlannedLimit, ...]:
    """One limit of ten in a minute, and one that is never reached."""
    tier = a_tier("T", a_limit(LIMIT, algorithm=algorithm), a_limit(1000, per_s=3600))
    planner = TierPlanner(OutageMode.LOCAL)
    subject = f"{{quota-{algorithm.value}}}"
    return tuple(planner.plan(LimitLevel.CUSTOM, tier, subject, cost, FIRST_US))


async def grant(
    store: Store,
    algorithm: Algorithm,
    amount: int,
    *,
    best_effort: bool = False,
    dedup_id: str | None = None,
) -> int:
    ask = QuotaAsk(amount=amount, best_effort=best_effort, dedup_id=dedup_id)
    planned = plan(algorithm, amount)
    taken = await take_quota(store.counters, planned, ask, NO_DEADLINE)
    return taken.amount if taken.taking.charged else 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_a_part_is_granted_once_however_often_it_is_asked_for(
    algorithm: Algorithm, store: Store
) -> None:
    assert await grant(store, algorithm, 7) == 7
    for _ in range(3):
        assert await grant(store, algorithm, 50, best_effort=True, dedup_id="D") == 3
    assert await grant(store, algorithm, 1, best_effort=True) == 0
    assert await grant(store, algorithm, 1) == 0


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_never_more_is_granted_at_once_than_the_limit(
    algorithm: Algorithm, store: Store
) -> None:
    grants = await asyncio.gather(
        *(grant(store, algorithm, 4, best_effort=True, dedup_id=f"D{n}") for n in range(8))
    )
    assert 7 <= sum(grants) <= LIMIT
