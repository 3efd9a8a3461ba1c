"""Which requests a condition fits, and which of a tier's limits hold for them."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.applications import Application
from extauthz.model.catalog import CustomLimit
from extauthz.model.conditions import (
    LONGEST_VALUE,
    AddressCondition,
    Condition,
    Pattern,
    TextCondition,
    TextSource,
)
from extauthz.model.identity import ANONYMOUS, KeyType
from extauthz.model.limits import Algorithm, CalendarUnit, ConditionGroup, Limit, LimitLevel, Tier
from extauthz.model.subscriptions import Subscription
from extauthz.policy.limits.conditions import fits_all
from extauthz.policy.limits.tier_limits import PlannedLimit
from tests.builders import (
    START_US,
    S,
    a_limit,
    a_request,
    a_resource,
    a_tier,
    an_api,
)
from tests.policy.limits.plans import CALLER, UTC, a_limited_request, a_planner, plan

SOMEONE = replace(CALLER, claims={"plan": "gold", "level": 7, "admin": True, "groups": ["gold"]})


def addresses(first: str, last: str | None = None, *, invert: bool = False) -> AddressCondition:
    low, high = ip_address(first), ip_address(last or first)
    return AddressCondition(family=low.version, first=int(low), last=int(high), invert=invert)


def text(source: str, name: str, matches: str, *, invert: bool = False) -> TextCondition:
    return TextCondition(
        source=TextSource(source), name=name, pattern=Pattern(matches), invert=invert
    )


def a_group(name: str, *when: Condition, at_most: int = 1, **fields: Any) -> ConditionGroup:
    fields.setdefault("limits", (a_limit(at_most),))
    return ConditionGroup(name=name, when=when, **fields)


# One condition


@pytest.mark.parametrize(
    ("condition", "fitting"),
    [
        (addresses("192.0.2.1"), True),
        (addresses("192.0.2.2"), False),
        (addresses("192.0.2.0", "192.0.2.1"), True),
        (addresses("192.0.2.1", "192.0.2.2"), True),
        (addresses("192.0.2.2", "192.0.2.9"), False),
        (addresses("::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"), False),
        (text("header", "x-plan", "gold"), True),
        (text("header", "x-plan", "^gold$"), False),
        (text("header", "x-plan", "^gold,old$"), True),
        (text("header", "x-plan", "Gold"), False),
        (text("header", "x-plan", "(?i)GOLD"), True),
        (text("header", "x-absent", ""), False),
        (text("header", "x-empty", ".*"), False),
        (text("query", "kind", "^a b$"), True),
        (text("query", "kind", "second"), False),
        (text("query", "absent", ".*"), False),
        (text("claim", "plan", "^gold$"), True),
        (text("claim", "level", "^7$"), True),
        (text("claim", "admin", "^true$"), True),
        (text("claim", "groups", "gold"), False),
        (text("claim", "absent", ".*"), False),
    ],
)
def test_a_condition_fits_and_inverted_does_not(condition: Condition, *, fitting: bool) -> None:
    request = a_request(
        "/ip?k%69nd=a+b&kind=second",
        headers=[("X-Plan", "gold"), ("x-plan", "old"), ("x-empty", "")],
    )
    inverted = replace(condition, invert=True)
    assert fits_all([condition], a_limited_request(request, identity=SOMEONE)) is fitting
    assert fits_all([inverted], a_limited_request(request, identity=SOMEONE)) is not fitting


@pytest.mark.parametrize("address", ["", "@unix", "2001:db8::1"])
def test_an_address_that_is_none_or_of_another_family_is_outside(address: str) -> None:
    everywhere = addresses("0.0.0.0", "255.255.255.255")
    assert not fits_all([everywhere], a_limited_request(client=address))
    assert fits_all([replace(everywhere, invert=True)], a_limited_request(client=address))


def test_an_ipv4_address_written_as_ipv6_is_an_ipv4_address() -> None:
    assert fits_all([addresses("192.0.2.1")], a_limited_request(client="::ffff:192.0.2.1"))


def test_a_value_that_is_too_long_does_not_fit() -> None:
    anything = text("header", "x", "a")
    for length, fitting in [(LONGEST_VALUE, True), (LONGEST_VALUE + 1, False)]:
        request = a_request(headers={"x": "a" * length})
        assert fits_all([anything], a_limited_request(request)) is fitting
        assert fits_all([replace(anything, invert=True)], a_limited_request(request)) is not fitting


def test_no_pattern_makes_a_value_take_for_ever() -> None:
    # With a backtracking engine this test would not end within a lifetime.
    request = a_request(headers={"x": "a" * (LONGEST_VALUE - 1) + "!"})
    for pattern in ("^(a+)+$", "^(a|a)*$", "^(a|aa)+$", "a*a*a*a*a*a*a*a*b", "(.*)*b"):
        assert not fits_all([text("header", "x", pattern)], a_limited_request(request))


@given(st.text(alphabet="a\ud800é\x00\U0001f600", min_size=1, max_size=20))
def test_every_value_can_be_searched(value: str) -> None:
    request = a_request(headers={"x": value})
    assert fits_all([text("header", "x", "a")], a_limited_request(request)) is ("a" in value)
    assert fits_all([text("header", "x", "é")], a_limited_request(request)) is ("é" in value)


@pytest.mark.parametrize("pattern", ["(", "[", r"(a)\1", "(?=a)", "a{2000}", "((a{99}){99}){99}"])
def test_a_pattern_that_re2_does_not_take_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^[a-z ]+[\[\]()]?$"):
        Pattern(pattern)


def test_patterns_are_equal_by_their_text() -> None:
    assert len({Pattern("a"), Pattern("a"), Pattern("b")}) == 2
    assert repr(Pattern("a")) == "Pattern(text='a')"


# Groups

OFFICE = addresses("192.0.2.0", "192.0.2.255")
GOLD = text("header", "x-plan", "^gold$")
TIER = a_tier(
    "T",
    a_limit(100),
    burst=a_limit(9, per_s=1),
    conditions=(
        a_group("gold in the office", OFFICE, GOLD, at_most=10),
        a_group("gold", GOLD, at_most=20, burst=a_limit(2, per_s=1)),
        a_group("elsewhere", replace(OFFICE, invert=True), at_most=30),
    ),
)


@pytest.mark.parametrize(
    ("client", "plan_", "counted"),
    [
        ("192.0.2.1", "gold", [("T/gold in the office", 10), ("T/gold", 20), ("T/gold", 2)]),
        ("192.0.2.1", "basic", [("T", 100), ("T", 9)]),
        ("203.0.113.1", "gold", [("T/gold", 20), ("T/gold", 2), ("T/elsewhere", 30)]),
        ("203.0.113.1", "basic", [("T/elsewhere", 30)]),
        ("", "basic", [("T/elsewhere", 30)]),
    ],
)
def test_every_group_that_fits_counts_and_the_tier_itself_when_none_does(
    client: str, plan_: str, counted: list[tuple[str, int]]
) -> None:
    planned = plan(client=client, headers={"x-plan": plan_}, subscription_tier=TIER)
    assert [(limit.name, limit.charge.limit) for limit in planned] == counted
    assert len({limit.charge.key for limit in planned}) == len(planned)


def on_every_level(tier: Tier) -> dict[str, tuple[PlannedLimit, ...]]:
    """What a tier plans, wherever it hangs."""
    application = replace(CALLER, application=Application(name="mobile", tier=tier))
    subscription = Subscription(application="mobile", api="HttpbinAPI", version="1.0.0", tier=tier)
    keyless = a_planner(tiers=[replace(tier, name="Unauthenticated")])
    by_key = a_planner(custom_limits=[CustomLimit(name="all", template="all", tier=tier)])
    headers = {"x-plan": "gold"}
    return {
        "api": plan(api=an_api(tier=tier), headers=headers),
        "resource": plan(api=an_api(a_resource(tier=tier)), headers=headers),
        "subscription": plan(subscription=subscription, headers=headers),
        "application": plan(identity=application, headers=headers),
        "client": plan(keyless, identity=ANONYMOUS, headers=headers),
        "custom": plan(by_key, headers=headers),
    }


@pytest.mark.parametrize("level", [level for level in LimitLevel if level is not LimitLevel.BURST])
def test_conditions_hold_wherever_a_tier_hangs(level: LimitLevel) -> None:
    planned = on_every_level(TIER)[level.value]
    assert [(limit.level, limit.charge.limit) for limit in planned] == [
        (level, 10),
        (level, 20),
        (LimitLevel.BURST, 2),
    ]


def test_a_group_counts_apart_from_its_tier_and_with_the_same_slot() -> None:
    for planned in on_every_level(TIER).values():
        keys = {limit.charge.key for limit in planned}
        assert len(keys) == 3
        assert len({key.partition("}")[0] for key in keys}) == 1


def test_a_group_takes_from_its_tier_what_becomes_of_what_is_over() -> None:
    group = a_group("g", OFFICE, limits=(a_limit(), a_limit(per_s=1, shadow=True)))
    hard, soft = (
        plan(subscription_tier=a_tier("T", stop_on_quota_reach=stop, conditions=(group,)))
        for stop in (True, False)
    )
    assert [limit.charge.enforced for limit in hard] == [True, False]
    assert [limit.charge.enforced for limit in soft] == [False, False]


def test_a_tier_whose_groups_do_not_fit_may_have_no_limit_at_all() -> None:
    tier = a_tier("T", conditions=(a_group("g", GOLD),))
    assert plan(subscription_tier=tier) == ()
    assert len(plan(subscription_tier=tier, headers={"x-plan": "gold"})) == 1


def test_a_custom_limit_counts_only_what_fits_its_conditions() -> None:
    limit = CustomLimit(name="bots", template="all", tier=a_tier("T", a_limit()), when=(GOLD,))
    planner = a_planner(custom_limits=[limit])
    assert plan(planner) == ()
    assert [it.name for it in plan(planner, headers={"x-plan": "gold"})] == ["bots"]


def test_a_plan_with_conditions_is_made_once_for_each_choice_of_groups() -> None:
    planner, api = a_planner(), an_api()
    plans = [
        plan(planner, api=api, client=client, headers={"x-plan": p}, subscription_tier=TIER)
        for _ in range(3)
        for client in ("192.0.2.1", "203.0.113.1", "192.0.2.7")
        for p in ("gold", "basic")
    ]
    assert len({id(planned) for planned in plans}) == 4


def test_a_group_by_the_calendar_moves_on_with_it() -> None:
    daily = Limit(
        algorithm=Algorithm.CALENDAR,
        requests=5,
        window_us=86_400 * S,
        unit=CalendarUnit.DAY,
        timezone=UTC,
    )
    planner, api = a_planner(), an_api()
    tier = a_tier("T", conditions=(a_group("g", OFFICE, limits=(daily,)),))
    for days in (0, 1, 0, 9):
        now_us = START_US + days * 86_400 * S
        (planned,) = plan(planner, api=api, subscription_tier=tier, now_us=now_us)
        assert planned.charge.bounds[1] <= now_us < planned.charge.bounds[2]


# Laws

CONDITIONS = st.builds(
    replace,
    st.sampled_from(
        [OFFICE, GOLD, text("query", "q", "."), text("claim", "plan", "gold"), addresses("::1")]
    ),
    invert=st.booleans(),
)
GROUPS = st.lists(st.lists(CONDITIONS, min_size=1, max_size=3), max_size=4)
REQUESTS = st.fixed_dictionaries(
    {
        "client": st.sampled_from(["192.0.2.1", "203.0.113.1", "::1", ""]),
        "headers": st.sampled_from([{}, {"x-plan": "gold"}, {"x-plan": "golden"}]),
        "path": st.sampled_from(["/ip", "/ip?q=", "/ip?q=1"]),
        "identity": st.sampled_from([CALLER, SOMEONE]),
    }
)


def a_tier_of(groups: list[list[Condition]]) -> Tier:
    return a_tier(
        "T",
        a_limit(99),
        conditions=tuple(a_group(str(n), *when, at_most=n + 1) for n, when in enumerate(groups)),
    )


@given(GROUPS, REQUESTS)
def test_no_condition_lets_a_request_escape_all_limits_of_its_tier(
    groups: list[list[Condition]], request: dict[str, Any]
) -> None:
    names = [limit.name for limit in plan(subscription_tier=a_tier_of(groups), **request)]
    seen = a_limited_request(
        a_request(request["path"], headers=request["headers"]),
        identity=request["identity"],
        client=request["client"],
    )
    fitting = [
        f"T/{n}" for n, when in enumerate(groups) if all(fits_all([one], seen) for one in when)
    ]
    assert names == (fitting or ["T"])


@given(GROUPS, GROUPS, st.lists(REQUESTS, max_size=8))
def test_a_remembered_plan_is_the_plan_made_anew(
    of_api: list[list[Condition]],
    of_application: list[list[Condition]],
    requests: list[dict[str, Any]],
) -> None:
    planner, api = a_planner(), an_api(tier=a_tier_of(of_api))
    application = Application(name="mobile", tier=a_tier_of(of_application))
    for request in requests:
        request["identity"] = replace(request["identity"], application=application)
        assert plan(planner, api=api, **request) == plan(api=api, **request)


@pytest.mark.parametrize(
    ("claim", "value", "expected"),
    [
        ("http://wso2.org/claims/applicationname", "^ShopApp$", True),
        ("http://wso2.org/claims/applicationname", "bob", False),
        ("http://wso2.org/claims/subscriber", "^bob$", True),
        ("http://wso2.org/claims/applicationid", "^7$", True),
        ("http://wso2.org/claims/enduser", "^alice$", True),
        ("http://wso2.org/claims/keytype", "^SANDBOX$", True),
        ("http://wso2.org/claims/givenname", "^Alice$", True),  # as the token has it
        ("http://wso2.org/claims/unknown", ".", False),
    ],
)
def test_a_claim_may_be_one_of_the_backend_jwt(claim: str, value: str, *, expected: bool) -> None:
    identity = replace(
        CALLER,
        application=Application(name="bob:ShopApp", owner="bob", display_name="ShopApp", number=7),
        key_type=KeyType.SANDBOX,
        claims={
            "http://wso2.org/claims/givenname": "Alice",
            "http://wso2.org/claims/applicationname": "forged",
        },
    )
    condition = TextCondition(source=TextSource.CLAIM, name=claim, pattern=Pattern(value))
    assert fits_all((condition,), a_limited_request(identity=identity)) is expected
