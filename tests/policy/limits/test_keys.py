"""No two subjects share a counter, and all of one consumer's counters share a slot."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.counters.memory import MemoryCounterStore
from extauthz.model.applications import Application
from extauthz.model.catalog import CustomLimit
from extauthz.model.conditions import AddressCondition
from extauthz.model.identity import ANONYMOUS, Identity, SecurityScheme
from extauthz.model.limits import ConditionGroup, Limit, QuotaUnit, Tier
from extauthz.policy.limits.keys import KeyTemplate, check_template, write_parts
from tests.builders import (
    FakeClock,
    a_limit,
    a_request,
    a_tier,
    an_api,
)
from tests.policy.limits.plans import CALLER, a_limited_request, a_planner, custom, key_of, plan

# Keys


def test_all_limits_of_a_consumer_share_a_hash_tag_and_others_have_their_own() -> None:
    def tags(name: str) -> set[str]:
        application = Application(name=name, tier=a_tier("App", a_limit()))
        planned = plan(
            api=an_api(tier=a_tier("A", a_limit())),
            identity=replace(CALLER, application=application),
            subscription_tier=a_tier("Gold", a_limit(), burst=a_limit(per_s=1)),
        )
        return {limit.charge.key.partition("}")[0] for limit in planned}

    shared = tags("mobile") & tags("desktop")
    assert len(tags("mobile")) == 2
    assert shared == {"{p10:HttpbinAPI5:1.0.0"}


def test_a_key_names_the_rule_and_not_the_number() -> None:
    few, many = (a_tier(name, a_limit(n)) for name, n in [("Silver", 5), ("Gold", 500)])
    assert key_of(*plan(subscription_tier=few)) == key_of(*plan(subscription_tier=many))
    other = a_tier("Gold", a_limit(5, per_s=1))
    assert key_of(*plan(subscription_tier=few)) != key_of(*plan(subscription_tier=other))


def test_two_limits_of_one_rule_are_counted_apart() -> None:
    planned = plan(subscription_tier=a_tier("T", a_limit(9), a_limit(5, shadow=True)))
    assert len({limit.charge.key for limit in planned}) == 2


def test_a_custom_limit_reports_its_own_name_and_counts_apart_from_its_twin() -> None:
    planner = a_planner(custom_limits=[custom("$user"), custom("$user", name="twin")])
    one, other = plan(planner)
    assert (one.name, other.name) == ("mine", "twin")
    assert one.charge.key != other.charge.key


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"consumer_key": "k", "issuer": "i"}, {"consumer_key": "k", "issuer": "j"}),
        ({"consumer_key": "k"}, {"user": "k"}),
        ({"user": "a", "issuer": "bc"}, {"user": "ab", "issuer": "c"}),
        ({"user": "alice"}, {}),
    ],
)
def test_consumers_without_an_application_are_told_apart(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    tier = a_tier("T", a_limit())
    keys = [
        key_of(*plan(identity=Identity(scheme=SecurityScheme.JWT, **who), subscription_tier=tier))
        for who in (one, other)
    ]
    assert keys[0] != keys[1]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
        ("", "192.0.2.1", False),
    ],
)
def test_clients_are_addresses_and_for_ipv6_sites(one: str, other: str, *, same: bool) -> None:
    planner = a_planner(tiers=[a_tier("Unauthenticated", a_limit())])
    keys = [key_of(*plan(planner, identity=ANONYMOUS, client=c)) for c in (one, other)]
    assert (keys[0] == keys[1]) is same


PARTS = st.lists(st.text(max_size=70, alphabet="{}:|#a1é\x00\ud800"), max_size=4)


@given(PARTS, PARTS)
def test_no_two_lists_of_parts_share_their_text(one: list[str], other: list[str]) -> None:
    assert (write_parts(*one) == write_parts(*other)) is (one == other)


NAMES = st.tuples(*[st.text(max_size=70, alphabet="{}:|#a1s") for _ in range(3)])


@given(NAMES, NAMES)
def test_no_two_subjects_share_a_counter(
    one: tuple[str, str, str], other: tuple[str, str, str]
) -> None:
    def keys(application: str, api: str, version: str) -> list[str]:
        planner = a_planner(custom_limits=[custom("$api:$application")])
        named = Application(name=application, tier=a_tier("App", a_limit()))
        planned = plan(
            planner,
            api=an_api(name=api or "-", version=version or "-", tier=a_tier("A", a_limit())),
            identity=replace(CALLER, application=named),
            subscription_tier=a_tier("Gold", a_limit()),
        )
        return [limit.charge.key for limit in planned]

    first, second = keys(*one), keys(*other)
    assert len(set(first)) == len(first)
    assert all(len(key) < 400 for key in first)
    same_api = tuple(part or "-" for part in one[1:]) == tuple(part or "-" for part in other[1:])
    shared = {
        0: same_api,
        1: same_api and one[0] == other[0],
        2: one[0] == other[0],
    }
    for position, expected in shared.items():
        assert (first[position] == second[position]) is expected
        assert first[position] not in second[:position] + second[position + 1 :]


def in_group(name: str, *limits: Limit) -> Tier:
    """A tier whose one group of that name every client fits."""
    everywhere = AddressCondition(family=4, first=0, last=(1 << 32) - 1)
    group = ConditionGroup(name=name, when=(everywhere,), limits=limits or (a_limit(),))
    return a_tier("T", a_limit(), conditions=(group,))


TAGGED = st.text(max_size=70, alphabet="{}:|#a1gs")


@given(TAGGED, TAGGED, TAGGED)
def test_no_two_groups_share_a_counter_nor_one_with_its_tier(
    group: str, other: str, name: str
) -> None:
    def keys(tier: Tier) -> list[str]:
        planner = a_planner(custom_limits=[CustomLimit(name=name, template="all", tier=tier)])
        named = Application(name=name, tier=tier)
        planned = plan(
            planner,
            api=an_api(name=name or "-", tier=tier),
            identity=replace(CALLER, application=named),
            subscription_tier=tier,
        )
        return [limit.charge.key for limit in planned]

    alone, one, two = keys(a_tier("T", a_limit())), keys(in_group(group)), keys(in_group(other))
    assert len({*alone, *one}) == len(alone) + len(one) == 8
    assert (one == two) is (group == other)
    assert group == other or not {*one} & {*two}


def test_bytes_and_requests_of_a_group_are_counted_apart() -> None:
    planned = plan(subscription_tier=in_group("g", a_limit(), a_limit(quota_unit=QuotaUnit.BYTES)))
    assert len({limit.charge.key for limit in planned}) == 2


# Custom keys


@pytest.mark.parametrize(
    "template",
    [
        "$api",
        "$api-$version",
        "${api}x${header.x-a}",
        "$header.x-a:$claim.tenant/$query.q",
        "${claim.https://idp.example/tenant id}",
        "$resource$application$user$clientIp$consumerKey$method",
        "all",
        "$$5",
    ],
)
def test_takes_good_templates(template: str) -> None:
    assert check_template(template) is None


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("", "empty"),
        ("$", "stands alone"),
        ("${api", "stands alone"),
        ("5$ $api", "stands alone"),
        ("$apu", r"\$apu is not known"),
        ("${}", "not known"),
        ("$api.x", r"\$api.x is not known"),
        ("$header", r"needs a name, like \$header\.x-tenant"),
        ("${claim.}", "needs a name"),
    ],
)
def test_says_what_is_wrong_with_a_template(template: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        KeyTemplate(template)


SOMEONE = replace(
    CALLER,
    issuer="https://idp.example/",
    claims={"tenant": "acme", "admin": True, "level": 7, "groups": ["a"], "https://x/y": "z"},
)


@pytest.mark.parametrize(
    ("template", "values"),
    [
        ("$api $version", ["HttpbinAPI", "1.0.0"]),
        ("$resource $method", ["/ip", "GET"]),
        ("$application", ["mobile"]),
        ("$user", [write_parts("https://idp.example/", "alice")]),
        ("$consumerKey", [write_parts("https://idp.example/", "abc")]),
        ("$clientIp", ["4-c0000201"]),
        ("$header.X-Tenant", ["one,two"]),
        ("$claim.tenant$claim.admin$claim.level", ["acme", "true", "7"]),
        ("${claim.https://x/y}", ["z"]),
        ("$query.q", ["a b"]),
        ("global", []),
        ("$header.x-absent", None),
        ("$claim.groups", None),
        ("$query.absent", None),
        ("$api$query.empty", None),
    ],
)
def test_fills_in_a_template(template: str, values: list[str] | None) -> None:
    request = a_request(
        "/httpbin/1.0.0/ip?empty=&%71=a+b&q=c", headers=[("X-Tenant", "one"), ("x-tenant", "two")]
    )
    limited = a_limited_request(request, identity=SOMEONE)
    found = KeyTemplate(template).find_subject(limited)
    assert found == (None if values is None else write_parts(template, *values))


@pytest.mark.parametrize("template", ["$application", "$user", "$consumerKey", "$claim.tenant"])
def test_a_limit_by_a_value_that_the_request_lacks_does_not_apply(template: str) -> None:
    planner = a_planner(custom_limits=[custom(template)])
    assert plan(planner, identity=ANONYMOUS) == ()


async def test_a_key_without_variables_caps_all_callers_on_all_apis_together() -> None:
    planner = a_planner(custom_limits=[custom("all", a_limit(7))])
    store = MemoryCounterStore(FakeClock())
    apis = [an_api(), an_api(name="Other")]
    callers = [CALLER, ANONYMOUS, replace(CALLER, application=Application(name="desktop"))]
    admitted = 0
    for number in range(20):
        planned = plan(planner, api=apis[number % 2], identity=callers[number % 3])
        admitted += (await store.take([limit.charge for limit in planned])).charged
    assert admitted == 7


def test_a_long_value_makes_no_long_key_and_is_still_told_apart() -> None:
    planner = a_planner(custom_limits=[custom("$header.x")])
    keys = {key_of(*plan(planner, headers={"x": "a" * 10_000 + end})) for end in "12"}
    assert len(keys) == 2
    assert all(len(key) < 150 for key in keys)
