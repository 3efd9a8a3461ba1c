"""Limits in bytes: looked at before the request, charged when its size is known."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.applications import Application
from extauthz.model.decision import Reason
from extauthz.model.limits import Algorithm, LimitLevel, QuotaUnit, Reading, Taking, Tier
from extauthz.policy.limits.answers import judge
from extauthz.policy.limits.planning import MAX_USAGE_BYTES, RateLimitPlanner
from extauthz.policy.limits.quota import UsedBytes
from extauthz.policy.limits.tier_limits import PlannedLimit
from tests.builders import (
    API_KEY,
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
from tests.deciding import Deciding
from tests.policy.limits.plans import CALLER, a_limited_request, a_planner, custom, plan

SIZE = a_limit(1000, quota_unit=QuotaUnit.BYTES)
BOTH = a_tier("Both", a_limit(5), SIZE)


def plan_usage(
    planner: RateLimitPlanner,
    request_bytes: int,
    response_bytes: int,
    **fields: Any,
) -> tuple[PlannedLimit, ...]:
    used = UsedBytes(request_bytes=request_bytes, response_bytes=response_bytes)
    return planner.plan_usage_charges(a_limited_request(**fields), START_US, used)


# Planned


def test_a_limit_in_bytes_is_only_looked_at_whatever_the_request_costs() -> None:
    api = an_api(a_resource(cost=7))
    for cost, charged in [(None, 7), (3, 3), (0, 0)]:
        planned = plan(api=api, subscription_tier=BOTH, cost=cost)
        assert [limit.charge.cost for limit in planned] == [charged, 0]


def test_requests_and_bytes_of_one_period_are_counted_apart() -> None:
    assert len({limit.charge.key for limit in plan(subscription_tier=BOTH)}) == 2


def test_usage_goes_to_the_counters_that_were_looked_at_and_to_no_other() -> None:
    application = Application(name="mobile", tier=BOTH)
    planner = a_planner(custom_limits=[custom("all", a_limit(), SIZE)])
    who = replace(CALLER, application=application)
    api = an_api(a_resource(cost=7))
    planned = plan(planner, api=api, identity=who, subscription_tier=BOTH)
    usage = plan_usage(planner, 200, 300, api=api, identity=who, subscription_tier=BOTH)
    assert [one.charge.key for one in usage] == [
        one.charge.key for one in planned if one.limit.quota_unit is QuotaUnit.BYTES
    ]
    assert len(usage) == 3
    assert {(one.charge.cost, one.charge.enforced) for one in usage} == {(500, False)}


@pytest.mark.parametrize(
    ("request_bytes", "response_bytes", "charged"),
    [
        (1, 0, 1),
        (0, 2, 2),
        (-1, 5, 5),
        (5, -1, 5),
        (10**18, 10**18, MAX_USAGE_BYTES),
    ],
)
def test_what_is_unknown_is_not_charged_and_nonsense_is_bounded(
    request_bytes: int, response_bytes: int, charged: int
) -> None:
    (usage,) = plan_usage(a_planner(), request_bytes, response_bytes, subscription_tier=BOTH)
    assert usage.charge.cost == charged


@pytest.mark.parametrize("size", [0, -1])
def test_nothing_is_charged_for_nothing(size: int) -> None:
    assert plan_usage(a_planner(), size, size, subscription_tier=BOTH) == ()


def test_no_usage_is_charged_where_no_limit_is_in_bytes() -> None:
    assert plan_usage(a_planner(), 9, 9, subscription_tier=a_tier("T", a_limit())) == ()


# Judged


def a_taking(*remaining: int, charged: bool = True, exceeded: bool = False) -> Taking:
    return Taking(charged, tuple(Reading(exceeded, left, 30 * S, 0) for left in remaining))


def test_something_left_is_enough() -> None:
    statuses, denial = judge(plan(subscription_tier=BOTH), a_taking(4, 1))
    assert denial is None
    assert not statuses[1].reading.exceeded


def test_nothing_left_refuses_until_the_reset() -> None:
    statuses, denial = judge(plan(subscription_tier=BOTH), a_taking(4, 0))
    assert denial is not None
    assert (denial.reason, denial.level) == (Reason.RATE_LIMITED, LimitLevel.SUBSCRIPTION)
    assert denial.retry_after_us == 30 * S
    assert [status.reading.exceeded for status in statuses] == [False, True]


def test_bytes_and_requests_may_refuse_together_and_the_longest_wait_counts() -> None:
    over, spent = Reading(True, 0, 40 * S, 40 * S), Reading(False, 0, 30 * S, 0)
    _, denial = judge(plan(subscription_tier=BOTH), Taking(False, (over, spent)))
    assert denial is not None and denial.retry_after_us == 40 * S


@pytest.mark.parametrize("charged", [True, False])
def test_a_refusal_by_bytes_does_not_hide_an_answer_that_contradicts_itself(
    *, charged: bool
) -> None:
    readings = (Reading(charged, 4, 30 * S, 0), Reading(False, 0, 30 * S, 0))
    with pytest.raises(CounterStoreError):
        judge(plan(subscription_tier=BOTH), Taking(charged, readings))


def test_the_last_request_of_another_limit_is_not_refused_for_leaving_nothing() -> None:
    assert judge(plan(subscription_tier=BOTH), a_taking(0, 1))[1] is None


@pytest.mark.parametrize(
    "tier",
    [
        a_tier("T", replace(SIZE, shadow=True)),
        a_tier("T", SIZE, stop_on_quota_reach=False),
    ],
)
def test_what_is_not_enforced_is_marked_and_let_through(tier: Tier) -> None:
    statuses, denial = judge(plan(subscription_tier=tier), a_taking(0))
    assert denial is None
    assert statuses[0].reading.exceeded and not statuses[0].enforced


# Counted


@pytest.mark.parametrize("algorithm", [Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW])
async def test_bytes_past_the_limit_are_counted_and_the_next_window_is_open_again(
    algorithm: Algorithm,
) -> None:
    clock = FakeClock()
    store, planner = MemoryCounterStore(clock), a_planner()
    tier = a_tier("T", a_limit(1000, per_s=60, algorithm=algorithm, quota_unit=QuotaUnit.BYTES))

    async def refuses() -> bool:
        planned = plan(planner, subscription_tier=tier)
        taking = await store.take([one.charge for one in planned])
        return judge(planned, taking)[1] is not None

    async def charge(size: int) -> None:
        usage = plan_usage(planner, 0, size, subscription_tier=tier)
        assert (await store.take([one.charge for one in usage])).charged

    await charge(999)
    assert not await refuses()
    await charge(5000)
    assert await refuses()
    await charge(1)  # of a request that was under way: counts, and is not refused
    clock.advance(60)
    assert not await refuses()


KEYED = a_request(headers={"x-api-key": API_KEY})


async def spend(deciding: Deciding, tier: Tier, size: int) -> None:
    """Charges bytes to the subscription of API_KEY's application, as a report would."""
    catalog = deciding.catalog
    (api,) = catalog.apis.values()
    limited = a_limited_request(
        KEYED,
        api=api,
        identity=replace(CALLER, application=catalog.applications["mobile"]),
        subscription_tier=tier,
    )
    usage = RateLimitPlanner(catalog).plan_usage_charges(
        limited, deciding.clock.now_us(), UsedBytes(request_bytes=size, response_bytes=0)
    )
    await deciding.memory.take([one.charge for one in usage])


async def test_a_request_that_bytes_refuse_is_charged_nothing() -> None:
    deciding = Deciding(a_catalog(subscription_fields={"tier": BOTH}))
    await deciding.allow(KEYED)
    await spend(deciding, BOTH, 1000)
    for _ in range(9):
        deny = await deciding.deny(KEYED)
        assert (deny.reason, deny.denial.level) == (Reason.RATE_LIMITED, LimitLevel.SUBSCRIPTION)
        assert 0 < deny.denial.retry_after_us <= 60 * S
    deciding.clock.advance(60)
    for _ in range(5):
        await deciding.allow(KEYED)
    assert (await deciding.deny(KEYED)).limits[0].reading.exceeded


async def test_nothing_is_given_back_where_nothing_was_taken() -> None:
    class NothingToGiveBack(MemoryCounterStore):
        """Breaks when it is asked to give back."""

        async def give_back(self, charges: Any, **fields: Any) -> None:
            raise AssertionError(charges)

    tier = a_tier("T", SIZE)
    clock = FakeClock()
    store = NothingToGiveBack(clock)
    deciding = Deciding(a_catalog(subscription_fields={"tier": tier}), counters=store)
    deciding.memory = store
    await spend(deciding, tier, 1000)
    assert await deciding.reason(KEYED) == "rate_limited"


async def test_a_look_says_of_bytes_what_would_be() -> None:
    api = an_api(a_resource(cost=3))
    deciding = Deciding(a_catalog(api, subscription_fields={"tier": BOTH}))
    await spend(deciding, BOTH, 999)
    # One byte is left, and three requests' worth: no limit measures bytes by the request's cost.
    assert await deciding.reason(KEYED, charge=False) == "allowed"
    await spend(deciding, BOTH, 1)
    before = deciding.counted()
    assert await deciding.reason(KEYED, charge=False) == "rate_limited"
    assert deciding.counted() == before
