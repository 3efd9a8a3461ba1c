"""What a Traffic Manager has throttled is refused, by the keys that it writes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.conditions import Pattern, TextCondition, TextSource
from extauthz.model.decision import Deny
from extauthz.model.limits import ConditionGroup, LimitLevel
from extauthz.policy.pipeline import Pipeline
from extauthz.policy.steps import PipelineRules
from extauthz.policy.throttled import ThrottledKeys
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
from tests.deciding import Deciding
from tests.keys import a_jwt, an_issuer

UNTIL_US = START_US + 60 * S
LIMITED = a_tier("10KPerMin", a_limit(10_000))
SHOP = Application(name="bob:ShopApp", owner="bob", number=7)
CONTEXT = "/httpbin/1.0.0"


class Managed:
    """A pipeline that honours what a Traffic Manager says."""

    def __init__(self, api: Api | None = None, **subscription: Any) -> None:
        self.deciding = Deciding(
            a_catalog(
                api or an_api(),
                application=SHOP,
                subscription_fields=subscription,
                issuers=(an_issuer(),),
            )
        )
        self.clock = self.deciding.clock
        self.throttled = ThrottledKeys(self.clock)
        self.pipeline = Pipeline(
            catalog=lambda: self.deciding.catalog,
            authenticator=self.deciding.authenticator,
            counters=self.deciding.memory,
            clock=self.clock,
            rules=PipelineRules(),
            throttled=self.throttled,
        )

    async def level(self, user: str = "alice", **headers: str) -> str:
        """The level of the denial, or "allowed"."""
        fields = {"authorization": f"Bearer {a_jwt(sub=user, jti=user)}", **headers}
        decision = await self.pipeline.decide(a_request(headers=fields))
        if not isinstance(decision, Deny):
            return "allowed"
        assert decision.denial.level is not None and decision.denial.rule == "Traffic Manager"
        return decision.denial.level.value


@pytest.mark.parametrize(
    ("key", "level"),
    [
        (f"7:{CONTEXT}:1.0.0", "subscription"),
        (f"7:{CONTEXT}:1.0.0:Gold", "subscription"),
        ("7:alice@carbon.super", "application"),
        (f"8:{CONTEXT}:1.0.0", "allowed"),
        (f"7:{CONTEXT}:2.0.0", "allowed"),
        ("7:bob@carbon.super", "allowed"),
        ("8:alice@carbon.super", "allowed"),
        (f"{CONTEXT}:1.0.0", "allowed"),  # no tier limits the API
        ("", "allowed"),
    ],
)
async def test_a_subscription_or_application_is_throttled(key: str, level: str) -> None:
    managed = Managed()
    managed.throttled.put(key, UNTIL_US)
    assert await managed.level() == level
    managed.throttled.drop(key)
    assert await managed.level() == "allowed"


OF_API = an_api(tier=LIMITED)
OF_RESOURCE = an_api(a_resource(tier=LIMITED))
PER_USER = an_api(tier=replace(LIMITED, per_user=True))
RESOURCE = f"{CONTEXT}/1.0.0/ip:GET"


@pytest.mark.parametrize(
    ("api", "key", "level"),
    [
        (OF_API, f"{CONTEXT}:1.0.0", "api"),
        (OF_API, f"{CONTEXT}:1.0.0_default", "api"),
        (OF_API, RESOURCE, "allowed"),
        (OF_RESOURCE, RESOURCE, "resource"),
        (OF_RESOURCE, f"{RESOURCE}_default", "resource"),
        (OF_RESOURCE, f"{CONTEXT}/1.0.0/ip:POST", "allowed"),
        (OF_RESOURCE, f"{CONTEXT}:1.0.0", "allowed"),
        (PER_USER, f"{CONTEXT}:1.0.0_alice@carbon.super_default", "api"),
        (PER_USER, f"{CONTEXT}:1.0.0_bob@carbon.super_default", "allowed"),
    ],
)
async def test_an_api_or_resource_is_throttled(api: Api, key: str, level: str) -> None:
    managed = Managed(api)
    managed.throttled.put(key, UNTIL_US)
    assert await managed.level() == level


@pytest.mark.parametrize(
    ("group", "plan", "level"),
    [
        ("condition_4", "gold", "api"),
        ("condition_4", "", "allowed"),
        ("default", "gold", "allowed"),
        ("default", "", "api"),
    ],
)
async def test_a_group_is_throttled_for_those_that_fit_it(
    group: str, plan: str, level: str
) -> None:
    header = TextCondition(source=TextSource.HEADER, name="x-plan", pattern=Pattern("gold"))
    groups = (ConditionGroup(name="condition_4", when=(header,), limits=(a_limit(),)),)
    managed = Managed(an_api(tier=replace(LIMITED, conditions=groups)))
    managed.throttled.put(f"{CONTEXT}:1.0.0_{group}", UNTIL_US)
    headers = {"x-plan": plan} if plan else {}
    assert await managed.level(**headers) == level


@pytest.mark.parametrize(("stops", "level"), [(True, "subscription"), (False, "allowed")])
async def test_a_tier_that_lets_pass_what_is_over_does_so(level: str, *, stops: bool) -> None:
    managed = Managed(tier=a_tier("Gold", a_limit(5000), stop_on_quota_reach=stops))
    managed.throttled.put(f"7:{CONTEXT}:1.0.0", UNTIL_US)
    assert await managed.level() == level


async def test_a_key_passes_again_when_its_time_is_over() -> None:
    managed = Managed()
    managed.throttled.put("7:alice@carbon.super", UNTIL_US)
    managed.clock.advance(59.999)
    assert await managed.level() == "application"
    managed.clock.advance(0.001)
    assert await managed.level() == "allowed"


async def test_says_how_long_and_charges_nothing() -> None:
    managed = Managed(tier=a_tier("Gold", a_limit(5000)))
    managed.throttled.put("7:alice@carbon.super", UNTIL_US)
    headers = {"authorization": f"Bearer {a_jwt()}"}
    decision = await managed.pipeline.decide(a_request(headers=headers))
    assert isinstance(decision, Deny)
    assert decision.denial.retry_after_us == 60 * S
    assert decision.denial.level is LimitLevel.APPLICATION
    assert managed.deciding.counted() == {}


async def test_nothing_is_throttled_after_all_is_forgotten() -> None:
    managed = Managed()
    managed.throttled.put("7:alice@carbon.super", UNTIL_US)
    managed.throttled.clear()
    assert await managed.level() == "allowed" and not managed.throttled


def test_keys_whose_time_is_over_make_room(caplog: pytest.LogCaptureFixture) -> None:
    clock = FakeClock()
    throttled = ThrottledKeys(clock, max_keys=2)
    throttled.put("1:a", START_US + S)
    throttled.put("2:a", UNTIL_US)
    throttled.put("3:a", UNTIL_US)
    throttled.put("4:a", UNTIL_US)
    assert len(throttled) == 2 and len(caplog.records) == 1
    clock.advance(1)
    throttled.put("3:a", UNTIL_US)
    throttled.put("2:a", UNTIL_US + S)  # one that is known needs no room
    assert len(throttled) == 2


@given(st.text(), st.integers())
def test_takes_any_text_and_forgets_it_again(key: str, until_us: int) -> None:
    throttled = ThrottledKeys(FakeClock())
    throttled.put(key, until_us)
    throttled.drop(key)
    assert not len(throttled)
