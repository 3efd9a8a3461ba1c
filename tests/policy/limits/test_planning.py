"""Which limits a request meets, and what is made of the store's answer."""

from __future__ import annotations

from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.applications import Application
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import ANONYMOUS, Identity, SecurityScheme
from extauthz.model.limits import (
    Algorithm,
    CalendarUnit,
    Limit,
    LimitLevel,
    Reading,
    Taking,
    Tier,
)
from extauthz.model.subscriptions import Subscription
from extauthz.policy.limits.answers import judge
from extauthz.policy.limits.planning import MAX_PLANS, RateLimitPlanner
from extauthz.policy.limits.tier_limits import PlannedLimit
from extauthz.policy.subscription import Subscribed, check_subscription
from tests.builders import (
    START_US,
    FakeClock,
    S,
    a_catalog,
    a_limit,
    a_resource,
    a_tier,
    an_api,
)
from tests.policy.limits.plans import CALLER, a_planner, custom, key_of, plan

# Order


def test_plans_the_levels_in_their_order() -> None:
    tiered = an_api(
        a_resource(tier=a_tier("R", a_limit())), tier=a_tier("A", a_limit(), burst=a_limit())
    )
    application = Application(name="mobile", tier=a_tier("App", a_limit()))
    subscription = Subscription(
        application="mobile",
        api="HttpbinAPI",
        version="1.0.0",
        tier=a_tier("Gold", a_limit(), a_limit(per_s=1), burst=a_limit(per_s=2)),
    )
    planner = a_planner(
        custom_limits=[custom("$api")], tiers=[a_tier("Unauthenticated", a_limit())]
    )
    planned = plan(
        planner,
        api=tiered,
        identity=Identity(scheme=SecurityScheme.NONE, application=application),
        subscription=subscription,
    )
    assert [(limit.level.value, limit.name) for limit in planned] == [
        ("api", "A"),
        ("burst", "A"),
        ("subscription", "Gold"),
        ("subscription", "Gold"),
        ("burst", "Gold"),
        ("application", "App"),
        ("custom", "mine"),
        ("client", "Unauthenticated"),
    ]
    assert len({limit.charge.key for limit in planned}) == len(planned)


def test_the_resources_tier_counts_only_where_the_api_has_none() -> None:
    api = an_api(a_resource(tier=a_tier("R", a_limit())))
    (planned,) = plan(api=api)
    assert (planned.level, planned.name) == (LimitLevel.RESOURCE, "R")


def test_plans_nothing_where_nothing_is_limited() -> None:
    assert plan(subscription_tier=Tier(name="Unlimited")) == ()


def test_takes_the_tokens_tier_where_there_is_no_subscription() -> None:
    (planned,) = plan(subscription_tier=a_tier("Token", a_limit(7)))
    assert (planned.level, planned.name, planned.charge.limit) == (
        LimitLevel.SUBSCRIPTION,
        "Token",
        7,
    )


def test_the_subscriptions_own_tier_comes_before_one_of_the_token_for_another_api() -> None:
    catalog = a_catalog(tiers=[a_tier("Token", a_limit())])
    identity = replace(CALLER, subscribed={("OtherAPI", "1.0.0"): "Token"})
    subscribed = check_subscription(catalog, an_api(), identity)
    assert isinstance(subscribed, Subscribed)
    assert subscribed.subscription is not None
    assert plan(identity=identity, subscription_tier=subscribed.tier) == ()


def test_limits_callers_without_a_credential_by_client_and_nobody_else() -> None:
    planner = a_planner(tiers=[a_tier("Unauthenticated", a_limit())])
    assert [limit.level for limit in plan(planner, identity=ANONYMOUS)] == [LimitLevel.CLIENT]
    assert plan(planner, identity=CALLER) == ()


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("$clientIp", True),
        ("$header.x-tenant:$api", True),
        ("${query.tenant}", True),
        ("$api:$application", False),
        ("$claim.tenant", True),
        ("$user", True),
        ("all", False),
    ],
)
def test_tells_whose_keys_have_no_end(key: str, *, expected: bool) -> None:
    planner = a_planner(custom_limits=[custom(key)])
    headers, path = {"x-tenant": "t"}, "/httpbin/1.0.0/ip?tenant=t"
    identity = replace(CALLER, claims={"tenant": "t"}, user="alice", issuer="https://idp.example")
    for cost in (None, 7):
        (planned,) = plan(planner, identity=identity, headers=headers, path=path, cost=cost)
        assert bool(planned.charge.origin) is expected


def test_a_consumer_of_whom_only_the_address_is_known_is_made_up_by_the_caller() -> None:
    nameless = Identity(scheme=SecurityScheme.JWT, issuer="https://idp.example")
    api = an_api(tier=a_tier("A", a_limit()))
    for identity, expected in (
        (nameless, [False, True]),
        (replace(nameless, user="alice"), [False, False]),
        (replace(nameless, consumer_key="key"), [False, False]),
        (replace(nameless, application=Application(name="client")), [False, False]),
    ):
        planned = plan(api=api, identity=identity, subscription_tier=a_tier("Gold", a_limit()))
        assert [bool(one.charge.origin) for one in planned] == expected
    (of_client,) = plan(a_planner(tiers=[a_tier("Unauthenticated", a_limit())]), identity=ANONYMOUS)
    assert of_client.charge.origin == "4-c00002"


# What is charged


@pytest.mark.parametrize(
    ("cost", "asked", "charged"), [(1, None, 1), (5, None, 5), (0, None, 0), (5, 2, 2)]
)
def test_every_charge_costs_what_the_resource_costs_unless_asked_otherwise(
    cost: int, asked: int | None, charged: int
) -> None:
    planner = a_planner(custom_limits=[custom("$api")])
    api = an_api(a_resource(cost=cost), tier=a_tier("A", a_limit()))
    plan(planner, api=api, cost=9)  # another cost of the same resource is another plan
    planned = plan(planner, api=api, cost=asked)
    assert [limit.charge.cost for limit in planned] == [charged, charged]


@pytest.mark.parametrize(
    ("tier", "enforced"),
    [
        (a_tier("T", a_limit()), True),
        (a_tier("T", a_limit(shadow=True)), False),
        (a_tier("T", a_limit(), stop_on_quota_reach=False), False),
    ],
)
def test_shadow_limits_and_tiers_that_do_not_stop_are_not_enforced(
    tier: Tier, *, enforced: bool
) -> None:
    (planned,) = plan(subscription_tier=tier)
    assert planned.charge.enforced is enforced


# Remembered plans


def test_a_plan_is_made_once() -> None:
    planner, api, tier = a_planner(), an_api(), a_tier("T", a_limit())
    assert plan(planner, api=api, subscription_tier=tier) is plan(
        planner, api=api, subscription_tier=tier
    )


def test_a_consumer_is_never_given_anothers_plan() -> None:
    planner, api = a_planner(), an_api()
    gold, silver = a_tier("T", a_limit(5)), a_tier("T", a_limit(2))
    assert plan(planner, api=api, subscription_tier=gold)[0].charge.limit == 5
    assert plan(planner, api=api, subscription_tier=silver)[0].charge.limit == 2
    other = replace(CALLER, application=Application(name="desktop"))
    assert "desktop" in key_of(*plan(planner, api=api, identity=other, subscription_tier=gold))


def test_remembers_a_bounded_number_of_plans() -> None:
    planner, api, tier = a_planner(), an_api(), a_tier("T", a_limit())
    for number in range(MAX_PLANS + 2):
        who = replace(CALLER, application=Application(name=f"a{number}"))
        assert f"a{number}" in key_of(*plan(planner, api=api, identity=who, subscription_tier=tier))
        assert len(planner._plans) <= MAX_PLANS


def test_a_calendar_plan_moves_on_with_the_calendar() -> None:
    daily = Limit(
        algorithm=Algorithm.CALENDAR,
        requests=5,
        window_us=86_400 * S,
        unit=CalendarUnit.DAY,
        timezone=ZoneInfo("Europe/Berlin"),
    )
    planner, api, tier = a_planner(), an_api(), a_tier("T", daily)
    key: set[str] = set()
    for now_us in (START_US, START_US + 86_400 * S, START_US, START_US + 9 * 86_400 * S):
        (planned,) = plan(planner, api=api, subscription_tier=tier, now_us=now_us)
        assert planned.charge.bounds[1] <= now_us < planned.charge.bounds[2]
        key.add(planned.charge.key)
    assert len(key) == 1


# Judging


def answered(*readings: tuple[bool, int], charged: bool) -> Taking:
    """A taking, from whether each limit had no room and when it would have."""
    return Taking(charged, tuple(Reading(over, 0, 1, wait_us) for over, wait_us in readings))


def three_levels() -> tuple[PlannedLimit, ...]:
    application = Application(name="mobile", tier=a_tier("App", a_limit()))
    return plan(
        api=an_api(tier=a_tier("A", a_limit(shadow=True))),
        identity=replace(CALLER, application=application),
        subscription_tier=a_tier("Gold", a_limit()),
    )


def test_allows_what_was_charged_and_tells_each_limit() -> None:
    planned = three_levels()
    statuses, denial = judge(planned, answered((True, 9), (False, 0), (False, 0), charged=True))
    assert denial is None
    assert [(s.level, s.enforced, s.reading.exceeded) for s in statuses] == [
        (LimitLevel.API, False, True),
        (LimitLevel.SUBSCRIPTION, True, False),
        (LimitLevel.APPLICATION, True, False),
    ]


@pytest.mark.parametrize(
    ("readings", "level", "retry_after_us"),
    [
        ([(False, 0), (True, 7), (False, 0)], LimitLevel.SUBSCRIPTION, 7),
        ([(False, 0), (False, 0), (True, 8)], LimitLevel.APPLICATION, 8),
        ([(True, 99), (True, 7), (True, 8)], LimitLevel.SUBSCRIPTION, 8),
        ([(True, 99), (True, 9), (True, 8)], LimitLevel.SUBSCRIPTION, 9),
    ],
)
def test_the_first_enforced_limit_names_the_denial_and_the_longest_wait_its_time(
    readings: list[tuple[bool, int]], level: LimitLevel, retry_after_us: int
) -> None:
    _, denial = judge(three_levels(), answered(*readings, charged=False))
    assert denial is not None
    assert (denial.reason, denial.level) == (Reason.RATE_LIMITED, level)
    assert denial.retry_after_us == retry_after_us
    assert denial.detail


@pytest.mark.parametrize(
    "taking",
    [
        Taking(True, ()),
        answered((False, 0), (False, 0), (False, 0), charged=False),
        answered((True, 9), (False, 0), (False, 0), charged=False),
        answered((False, 0), (True, 9), (False, 0), charged=True),
    ],
)
def test_an_answer_that_contradicts_itself_allows_nothing(taking: Taking) -> None:
    with pytest.raises(CounterStoreError):
        judge(three_levels(), taking)


@pytest.mark.parametrize("level", LimitLevel)
def test_every_level_has_a_sentence_for_the_client(level: LimitLevel) -> None:
    planned = replace(three_levels()[1], level=level)
    _, denial = judge([planned], answered((True, 1), charged=False))
    assert isinstance(denial, Denial) and denial.detail.endswith(".")


async def test_two_doors_over_one_store_admit_the_limit_together() -> None:
    catalog = a_catalog()
    store = MemoryCounterStore(FakeClock())
    admitted = 0
    tier = a_tier("Gold", a_limit(100, per_s=3600))
    doors = [RateLimitPlanner(catalog), RateLimitPlanner(catalog)]
    for number in range(300):
        planned = plan(doors[number % 2], subscription_tier=tier)
        taking = await store.take([limit.charge for limit in planned])
        admitted += judge(planned, taking)[1] is None
    assert admitted == 100
