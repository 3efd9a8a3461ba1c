"""Amounts that are taken at once, and bytes that are charged afterwards."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.decision import Deny, Reason
from extauthz.model.limits import Charge, LimitLevel, OutageMode, QuotaUnit, Taking, Tier
from extauthz.policy.limits.quota import QuotaAsk, UsedBytes, take_quota
from extauthz.policy.limits.tier_limits import PlannedLimit, TierPlanner, take_instead
from extauthz.ports import NO_DEADLINE, Deadline
from tests.builders import (
    API_KEY,
    START_US,
    FakeClock,
    a_catalog,
    a_limit,
    a_request,
    a_resource,
    a_tier,
    an_api,
)
from tests.deciding import Deciding

REQUEST = a_request(headers={"x-api-key": API_KEY})
LATE = Deadline(monotonic_s=-1.0)


def planned(tier: Tier, cost: int) -> tuple[PlannedLimit, ...]:
    planner = TierPlanner(OutageMode.LOCAL)
    return tuple(planner.plan(LimitLevel.CUSTOM, tier, "{k}", cost, START_US))


def subscribed(*limits: Any, **fields: Any) -> Deciding:
    return Deciding(a_catalog(subscription_fields={"tier": a_tier("T", *limits, **fields)}))


async def grant(deciding: Deciding, amount: int, **how: Any) -> int:
    deadline = how.pop("deadline", NO_DEADLINE)
    shadow = how.pop("shadow", False)
    ask = QuotaAsk(amount=amount, **how)
    got = await deciding.pipeline.grant(REQUEST, ask, deadline=deadline, shadow=shadow)
    assert (got.amount == 0) or not isinstance(got.decision, Deny)
    return got.amount


class Racing(MemoryCounterStore):
    """Somebody else takes one each time before us."""

    async def take(
        self,
        charges: Any,
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        await super().take([replace(charge, cost=1) for charge in charges])
        return await super().take(charges, dedup_id=dedup_id, deadline=deadline)


@pytest.mark.parametrize(("limit", "granted"), [(10, 0), (3, 0), (100, 0)])
async def test_best_effort_does_not_run_after_others_for_ever(limit: int, granted: int) -> None:
    store = Racing(FakeClock())
    plan = planned(a_tier("T", a_limit(limit)), 1000)
    taken = await take_quota(store, plan, QuotaAsk(amount=1000, best_effort=True), NO_DEADLINE)
    assert (taken.amount if taken.taking.charged else 0) == granted
    # Four steps at most, and one of the other's before each.
    assert sum(state[2] for state in store._states.values()) <= 4


@given(
    limits=st.lists(st.integers(0, 20), min_size=1, max_size=3),
    asks=st.lists(st.tuples(st.integers(1, 30), st.booleans(), st.booleans()), max_size=8),
)
async def test_never_more_is_granted_than_the_least_limit(
    limits: list[int], asks: list[tuple[int, bool, bool]]
) -> None:
    store = MemoryCounterStore(FakeClock())
    tier = a_tier("T", *(a_limit(limit, per_s=60 + n) for n, limit in enumerate(limits)))
    total = 0
    for number, (amount, best_effort, repeated) in enumerate(asks):
        ask = QuotaAsk(amount=amount, best_effort=best_effort, dedup_id=f"D{number}")
        amounts = []
        for _ in range(1 + repeated):
            taken = await take_quota(store, planned(tier, amount), ask, NO_DEADLINE)
            amounts.append(taken.amount if taken.taking.charged else 0)
        assert len(set(amounts)) == 1, "a repetition is answered as before"
        assert amounts[0] in (0, amount) or best_effort
        if best_effort:
            assert amounts[0] == min(amount, min(limits) - total)
        total += amounts[0]
    assert total <= min(limits)
    counts = {state[2] for state in store._states.values()}
    assert counts <= {total}, "every limit counted what was granted, and nothing else"


async def test_an_amount_takes_the_place_of_the_resources_cost() -> None:
    api = an_api(a_resource(cost=5))
    deciding = Deciding(a_catalog(api, subscription_fields={"tier": a_tier("T", a_limit(10))}))
    assert await grant(deciding, 7) == 7
    assert await grant(deciding, 4) == 0
    assert await grant(deciding, 3) == 3


async def test_a_grant_is_a_decision_that_observers_see() -> None:
    deciding = subscribed(a_limit(1))
    assert [await grant(deciding, 1), await grant(deciding, 1)] == [1, 0]
    told = [decision for _, decision, _ in deciding.observer.told]
    assert [isinstance(decision, Deny) for decision in told] == [False, True]
    assert isinstance(told[1], Deny) and told[1].reason is Reason.RATE_LIMITED


async def test_a_grant_in_shadow_takes_nothing() -> None:
    deciding = subscribed(a_limit(5))
    assert [await grant(deciding, 4, shadow=True) for _ in range(3)] == [4, 4, 4]
    assert await grant(deciding, 6, shadow=True) == 0
    assert deciding.counted() == {}
    assert all(decision.shadow for _, decision, _ in deciding.observer.told)


async def test_a_deadline_that_has_passed_takes_nothing() -> None:
    deciding = subscribed(a_limit(5))
    assert await grant(deciding, 1, deadline=LATE) == 0
    assert deciding.counted() == {}


class Late(MemoryCounterStore):
    """Answers when the caller has gone."""

    def __init__(self, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(clock)
        self._monkeypatch = monkeypatch

    async def take(self, charges: Any, **how: Any) -> Taking:
        taking = await super().take(charges, **how)
        self._monkeypatch.setattr("extauthz.policy.pipeline.time.monotonic", lambda: 1e12)
        return taking


@pytest.mark.parametrize("dedup_id", [None, "D1"])
async def test_what_came_too_late_is_given_back(
    dedup_id: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Late(FakeClock(), monkeypatch)
    catalog = a_catalog(subscription_fields={"tier": a_tier("T", a_limit(5))})
    deciding = Deciding(catalog, counters=store)
    ask = QuotaAsk(amount=3, dedup_id=dedup_id)
    got = await deciding.pipeline.grant(REQUEST, ask, deadline=Deadline(monotonic_s=1e11))
    assert got.amount == 0
    assert [state[2] for state in store._states.values()] == [0]


async def test_a_decision_in_shadow_takes_nothing_and_says_so() -> None:
    deciding = subscribed(a_limit(1))
    for _ in range(2):
        decision = await deciding.decide(REQUEST, shadow=True)
        assert decision.shadow and not isinstance(decision, Deny)
    assert deciding.counted() == {}
    full = subscribed(a_limit(0))
    decision = await full.decide(REQUEST, shadow=True)
    assert decision.shadow and isinstance(decision, Deny)


# Bytes


async def test_bytes_are_charged_to_the_same_counters() -> None:
    deciding = subscribed(a_limit(1000, quota_unit=QuotaUnit.BYTES), a_limit(5))
    await deciding.allow(REQUEST)
    used = UsedBytes(request_bytes=300, response_bytes=600)
    decision = await deciding.pipeline.charge_usage(REQUEST, used)
    assert not isinstance(decision, Deny)
    allow = await deciding.allow(REQUEST)
    assert [status.reading.remaining for status in allow.limits] == [100, 3]
    assert len(deciding.observer.told) == 2, "a charge is no decision"


async def test_bytes_of_an_unknown_caller_are_charged_to_nobody() -> None:
    deciding = subscribed(a_limit(1000, quota_unit=QuotaUnit.BYTES))
    used = UsedBytes(request_bytes=300, response_bytes=600)
    decision = await deciding.pipeline.charge_usage(a_request(), used)
    assert isinstance(decision, Deny)
    assert deciding.counted() == {}


async def test_bytes_that_cannot_be_charged_are_a_denial_and_no_error() -> None:
    class Away(MemoryCounterStore):
        async def take(self, charges: Any, **how: Any) -> Taking:
            raise CounterStoreError("no answer")

    tier = a_tier("T", a_limit(1000, quota_unit=QuotaUnit.BYTES))
    catalog = a_catalog(subscription_fields={"tier": tier})
    deciding = Deciding(catalog, counters=Away(FakeClock()))
    used = UsedBytes(request_bytes=1, response_bytes=1)
    decision = await deciding.pipeline.charge_usage(REQUEST, used)
    assert isinstance(decision, Deny) and decision.reason is Reason.UNAVAILABLE


def test_another_amount_keeps_the_counters() -> None:
    (one,) = planned(a_tier("T", a_limit(5)), 3)
    less = take_instead(one, 2)
    assert isinstance(less.charge, Charge)
    assert (less.charge.key, less.charge.cost) == (one.charge.key, 2)
