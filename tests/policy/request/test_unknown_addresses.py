"""Where nobody knows from where a request came, whatever asks for it refuses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, CustomLimit
from extauthz.model.conditions import AddressCondition
from extauthz.model.decision import Deny, Reason
from extauthz.model.deny_rules import DenyRule
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.model.limits import ConditionGroup
from extauthz.model.request import Peer
from extauthz.policy.authentication.api_keys.restrictions import NETWORK_NOT_KNOWN
from extauthz.policy.limits.planning import RateLimitPlanner
from extauthz.policy.request.client_address import ADDRESS_NOT_KNOWN
from tests.builders import (
    API_KEY,
    a_catalog,
    a_limit,
    a_request,
    a_resource,
    a_tier,
    an_api,
    sha256,
)
from tests.deciding import Deciding
from tests.policy.limits.plans import a_limited_request

ONE_ADDRESS = AddressCondition(family=4, first=1, last=1)
NO_ADDRESS = a_request(headers={"x-api-key": API_KEY}, client="")
BOUND_KEY = ApiKey(
    digest=sha256(API_KEY),
    application=Application(name="mobile", owner="alice"),
    networks=(ip_network("192.0.2.0/24"),),
)
BY_ADDRESS: dict[str, dict[str, Any]] = {
    "a deny rule": {"deny_rules": [DenyRule(name="ip", network=ip_network("192.0.2.1/32"))]},
    "a deny rule for all others": {
        "deny_rules": [DenyRule(name="ip", network=ip_network("192.0.2.1/32"), invert=True)]
    },
    "a deny rule for an owner's addresses": {
        "deny_rules": [DenyRule(name="ip", network=ip_network("192.0.2.1/32"), user="alice")]
    },
    "a custom limit": {
        "custom_limits": [CustomLimit(name="by ip", template="$clientIp", tier=a_tier())]
    },
    "a custom limit that holds for addresses": {
        "custom_limits": [
            CustomLimit(name="for ip", template="all", tier=a_tier(), when=(ONE_ADDRESS,))
        ]
    },
    "a condition group": {
        "subscription_fields": {
            "tier": a_tier(conditions=(ConditionGroup(name="inside", when=(ONE_ADDRESS,)),))
        }
    },
}


@pytest.mark.parametrize("rule", BY_ADDRESS)
async def test_a_rule_by_address_refuses_who_has_none_that_is_known(
    rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    deciding = Deciding(a_catalog(**BY_ADDRESS[rule]))
    deny = await deciding.deny(NO_ADDRESS)
    assert deny.denial is ADDRESS_NOT_KNOWN
    assert deny.reason is Reason.MALFORMED_REQUEST
    assert "the proxy told no source address" in caplog.text
    assert deciding.counted() == {}
    unaddressed = await deciding.decide(replace(NO_ADDRESS, source=Peer(address="0.0.0.0")))
    assert isinstance(unaddressed, Deny) and unaddressed.denial is ADDRESS_NOT_KNOWN


@pytest.mark.parametrize("rule", BY_ADDRESS)
async def test_rules_by_address_of_other_apis_refuse_nobody(rule: str) -> None:
    fields = dict(BY_ADDRESS[rule])
    if "deny_rules" in fields:
        fields["deny_rules"] = [replace(one, api="Other") for one in fields["deny_rules"]]
        if fields["deny_rules"][0].invert:
            return  # which refuses every other API, whoever asks
    elif "custom_limits" in fields:
        fields["custom_limits"] = [
            replace(one, apis=frozenset({"Other"})) for one in fields["custom_limits"]
        ]
    else:
        del fields["subscription_fields"]
    await Deciding(a_catalog(**fields)).allow(NO_ADDRESS)


async def test_a_key_that_is_bound_to_networks_is_refused_without_an_address() -> None:
    deny = await Deciding(a_catalog(api_keys=[BOUND_KEY])).deny(NO_ADDRESS)
    assert deny.denial is NETWORK_NOT_KNOWN
    assert deny.reason is Reason.CREDENTIAL_NOT_PERMITTED


async def test_the_limit_of_clients_without_credentials_refuses_who_has_no_address() -> None:
    public = an_api(a_resource(security=(SecurityScheme.NONE,)))
    tier = a_tier("Unauthenticated", a_limit(5))
    limited = Deciding(a_catalog(public, tiers=[tier]))
    assert (await limited.deny(a_request(client=""))).denial is ADDRESS_NOT_KNOWN
    await limited.allow(a_request(client="192.0.2.1"))
    await Deciding(a_catalog(public)).allow(a_request(client=""))


async def test_who_is_counted_by_address_for_want_of_a_name_needs_one() -> None:
    planner = RateLimitPlanner(a_catalog())
    for user, consumer_key, asks in (("", "", True), ("alice", "", False), ("", "k", False)):
        identity = Identity(scheme=SecurityScheme.JWT, user=user, consumer_key=consumer_key)
        tiered = a_limited_request(identity=identity, subscription_tier=a_tier())
        assert planner.asks_address(tiered) is asks
        assert not planner.asks_address(a_limited_request(identity=identity))


async def test_no_rule_by_address_means_that_nobody_needs_one() -> None:
    await Deciding(a_catalog()).allow(NO_ADDRESS)
