"""Deny rules: what they refuse, and whom."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model import deny_rules
from extauthz.model.deny_rules import DenyRule, DenyRules, contains, read_address


def a_rule(network: str | None = None, *, name: str = "rule", **fields: Any) -> DenyRule:
    return DenyRule(name=name, network=None if network is None else ip_network(network), **fields)


def refused(rules: DenyRules, address: str, api: str = "Pets", version: str = "1") -> str | None:
    rule = rules.find_for_client(address, api, version)
    return None if rule is None else rule.name


def caller_refused(
    rules: DenyRules,
    *,
    address: str = "192.0.2.1",
    api: str = "Pets",
    version: str = "1",
    application: str = "mobile",
    user: str = "alice",
) -> str | None:
    rule = rules.find_for_caller(address, api, version, application, user)
    return None if rule is None else rule.name


@pytest.mark.parametrize(
    ("network", "address", "is_refused"),
    [
        ("203.0.113.0/24", "203.0.113.0", True),
        ("203.0.113.0/24", "203.0.113.255", True),
        ("203.0.113.0/24", "203.0.114.0", False),
        ("203.0.113.7/32", "203.0.113.7", True),
        ("203.0.113.7/32", "203.0.113.8", False),
        ("0.0.0.0/0", "198.51.100.1", True),
        ("0.0.0.0/0", "2001:db8::1", False),
        ("::/0", "2001:db8::1", True),
        ("::/0", "198.51.100.1", False),
        ("2001:db8::/32", "2001:db8:ffff::1", True),
        ("2001:db8::/32", "2001:db9::1", False),
        ("2001:db8::1/128", "2001:0DB8:0:0::1", True),
        # One client, written in two ways.
        ("203.0.113.0/24", "::ffff:203.0.113.9", True),
        ("fe80::/10", "fe80::1%eth0", True),
        # It may lie there: nobody leaves a rule by having no address.
        ("203.0.113.7/32", "", True),
        ("::/0", "nonsense", True),
        ("0.0.0.0/0", "203.0.113.7:80", True),
    ],
)
def test_a_network_refuses_its_addresses(network: str, address: str, *, is_refused: bool) -> None:
    rule = a_rule(network)
    assert refused(DenyRules([rule]), address) == ("rule" if is_refused else None)
    # A rule with another condition goes the long way, to the same answer.
    for_api = a_rule(network, api="Pets")
    assert refused(DenyRules([for_api]), address) == ("rule" if is_refused else None)
    assert rule.network is not None
    family, number = read_address(address)
    assert family == 0 or contains(rule.network, family, number) is is_refused


def test_networks_of_many_lengths_are_all_looked_at() -> None:
    rules = DenyRules(
        [
            a_rule("10.0.0.0/8", name="wide"),
            a_rule("192.0.2.0/30", name="narrow"),
            a_rule("2001:db8::/32", name="six"),
        ]
    )
    assert refused(rules, "10.200.1.1") == "wide"
    assert refused(rules, "192.0.2.3") == "narrow"
    assert refused(rules, "192.0.2.4") is None
    assert refused(rules, "2001:db8::2") == "six"


def test_a_rule_refuses_only_what_fits_every_condition() -> None:
    rules = DenyRules([a_rule("203.0.113.0/24", api="Pets", version="1")])
    assert refused(rules, "203.0.113.7") == "rule"
    assert refused(rules, "203.0.114.7") is None
    assert refused(rules, "203.0.113.7", api="Dogs") is None
    assert refused(rules, "203.0.113.7", version="2") is None


def test_an_inverted_rule_refuses_all_the_rest() -> None:
    rules = DenyRules([a_rule("203.0.113.0/24", invert=True)])
    assert refused(rules, "203.0.113.7") is None
    assert refused(rules, "198.51.100.1") == "rule"
    assert refused(rules, "2001:db8::1") == "rule"
    # Who cannot be placed inside is outside.
    assert refused(rules, "") == "rule"


def test_a_rule_about_addresses_refuses_unknown_ones_only_where_all_else_fits() -> None:
    rules = DenyRules([a_rule("203.0.113.0/24", api="Pets", version="1")])
    assert refused(rules, "") == "rule"
    assert refused(rules, "", api="Dogs") is None
    assert refused(rules, "", version="2") is None


def test_an_api_can_be_refused_for_all() -> None:
    rules = DenyRules([a_rule(api="Pets")])
    assert refused(rules, "198.51.100.1") == "rule"
    assert refused(rules, "") == "rule"
    assert refused(rules, "198.51.100.1", api="Dogs") is None


@pytest.mark.parametrize(
    ("fields", "asked", "is_refused"),
    [
        ({"application": "mobile"}, {}, True),
        ({"application": "mobile"}, {"application": "web"}, False),
        ({"application": "mobile"}, {"application": "Mobile"}, False),
        ({"user": "alice"}, {}, True),
        ({"user": "alice"}, {"user": "bob"}, False),
        ({"user": "alice", "application": "web"}, {}, False),
        ({"application": "mobile", "api": "Pets"}, {}, True),
        ({"application": "mobile", "api": "Dogs"}, {}, False),
        ({"application": "mobile", "version": "2"}, {}, False),
        ({"network": "192.0.2.0/24", "user": "alice"}, {}, True),
        ({"network": "192.0.2.0/24", "user": "alice"}, {"address": "198.51.100.1"}, False),
        ({"network": "192.0.2.0/24", "user": "alice"}, {"address": ""}, True),
        ({"network": "192.0.2.0/24", "user": "bob"}, {"address": ""}, False),
        ({"application": "mobile", "invert": True}, {}, False),
        ({"application": "mobile", "invert": True}, {"application": "web"}, True),
    ],
)
def test_refuses_callers(
    fields: dict[str, Any], asked: dict[str, str], *, is_refused: bool
) -> None:
    rules = DenyRules([a_rule(**fields)])
    assert caller_refused(rules, **asked) == ("rule" if is_refused else None)


def test_rules_wait_until_what_they_ask_for_is_known() -> None:
    of_client, of_caller = a_rule("192.0.2.0/24", name="client"), a_rule(user="alice", name="user")
    rules = DenyRules([of_caller, of_client])
    assert (of_client.needs_identity, of_caller.needs_identity) == (False, True)
    assert refused(rules, "192.0.2.1") == "client"
    assert refused(rules, "198.51.100.1") is None
    assert caller_refused(rules) == "user"
    assert caller_refused(DenyRules([of_client])) is None


def test_no_rules_are_empty_and_refuse_nobody() -> None:
    rules = DenyRules()
    assert rules.is_empty
    assert refused(rules, "192.0.2.1") is None
    assert caller_refused(rules) is None


@pytest.mark.parametrize("rule", [a_rule("192.0.2.0/24"), a_rule(api="Pets"), a_rule(user="alice")])
def test_any_rule_is_not_empty(rule: DenyRule) -> None:
    assert not DenyRules([rule]).is_empty


@pytest.mark.parametrize(
    ("address", "read"),
    [
        ("192.0.2.1", (4, 0xC0000201)),
        ("::1", (6, 1)),
        ("::ffff:192.0.2.1", (4, 0xC0000201)),
        ("fe80::1%eth0", (6, 0xFE800000000000000000000000000001)),
        ("", (0, 0)),
        ("192.0.2.256", (0, 0)),
        ("192.0.2.1/24", (0, 0)),
        ("010.0.0.1", (0, 0)),
    ],
)
def test_reads_addresses(address: str, read: tuple[int, int]) -> None:
    assert read_address(address) == read


# The index finds what looking at every rule would find.

NETWORKS = ["192.0.2.0/24", "192.0.2.1/32", "0.0.0.0/0", "192.0.2.0/25", "2001:db8::/32", "::/0"]
ADDRESSES = ["192.0.2.1", "192.0.2.200", "2001:db8::1", "::1", "::ffff:192.0.2.1", "", "x"]
NAMES = ["a", "b"]

rules_drawn = st.builds(
    DenyRule,
    name=st.just("rule"),
    network=st.none() | st.sampled_from([ip_network(text) for text in NETWORKS]),
    api=st.none() | st.sampled_from(NAMES),
    version=st.none() | st.sampled_from(NAMES),
    application=st.none() | st.sampled_from(NAMES),
    consumer_key=st.none() | st.sampled_from(NAMES),
    user=st.none() | st.sampled_from(NAMES),
    invert=st.booleans(),
    until_us=st.none() | st.integers(0, 3),
)


@given(
    st.lists(rules_drawn, max_size=8),
    st.sampled_from(ADDRESSES),
    st.tuples(*[st.sampled_from(["", *NAMES])] * 5),
    st.integers(0, 3),
)
def test_a_caller_is_refused_by_the_index_when_a_rule_refuses_it(
    rules: list[DenyRule], address: str, named: tuple[str, ...], now_us: int
) -> None:
    api, version, application, consumer_key, user = named
    family, number = read_address(address)

    def refuses(rule: DenyRule, *, with_identity: bool) -> bool:
        asked = (api, version) + ((application, consumer_key, user) if with_identity else ("",) * 3)
        wanted = (rule.api, rule.version, rule.application, rule.consumer_key, rule.user)
        fits = all(its in (None, name) for its, name in zip(wanted, asked, strict=True))
        is_unknown = fits and rule.network is not None and family == 0
        if rule.network is not None:
            fits = fits and contains(rule.network, family, number)
        is_over = rule.until_us is not None and rule.until_us <= now_us
        return (is_unknown or fits is not rule.invert) and not is_over

    index = DenyRules(rules)
    of_client = index.find_for_client(address, api, version, now_us=now_us)
    assert (of_client is not None) is any(
        refuses(rule, with_identity=False) for rule in rules if not rule.needs_identity
    )
    of_caller = index.find_for_caller(
        address, api, version, application, user, consumer_key=consumer_key, now_us=now_us
    )
    assert (of_caller is not None) is any(
        refuses(rule, with_identity=True) for rule in rules if rule.needs_identity
    )


def test_many_thousands_of_rules_are_not_looked_at_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked_at = 0
    is_on = deny_rules._is_on

    def count(*arguments: Any) -> bool:
        nonlocal looked_at
        looked_at += 1
        return is_on(*arguments)

    monkeypatch.setattr(deny_rules, "_is_on", count)
    networks = [a_rule(f"10.{n >> 8}.{n & 255}.0/24") for n in range(20_000)]
    names = [a_rule(application=f"a{n}") for n in range(5_000)]
    users = [a_rule(f"10.0.{n & 255}.0/24", user="alice") for n in range(256)]
    of_versions = [a_rule("192.0.2.9/32", api="Pets", version=f"v{n}") for n in range(5_000)]
    of_users = [a_rule(application="web", user=f"u{n}", until_us=0) for n in range(5_000)]
    over = [a_rule(f"172.16.{n >> 8}.{n & 255}/32", api="Dogs", until_us=0) for n in range(5_000)]
    rules = DenyRules([*networks, *names, *users, *of_versions, *of_users, *over])
    assert refused(rules, "10.1.1.1") == "rule"
    assert refused(rules, "192.0.2.1") is None
    assert refused(rules, "192.0.2.9", version="w") is None
    assert caller_refused(rules, application="a4999") == "rule"
    assert caller_refused(rules, application="b", user="alice") is None
    assert caller_refused(rules, address="10.0.7.1", application="b", user="alice") == "rule"
    assert caller_refused(rules, application="web", user="u7") is None
    # Nor for a client whose address is not known.
    assert refused(DenyRules([*over, *of_versions]), "", api="Dogs") is None
    assert refused(DenyRules([*over, *of_versions]), "", version="w") is None
    assert looked_at <= 6


def test_of_rules_that_ask_for_the_same_the_one_that_lasts_longest_counts() -> None:
    for ends in ([None, 5, 7], [5, None, 7], [7, 5, None]):
        rules = [a_rule(user="alice", name=str(us), until_us=us) for us in ends]
        rule = DenyRules(rules).find_for_caller("", "Pets", "1", "", "alice", now_us=6)
        assert rule is not None and rule.name == "None"
