"""Tiers that count each user of what they limit apart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extauthz.model.applications import Application
from extauthz.model.conditions import Pattern, TextCondition, TextSource
from extauthz.model.identity import Identity
from extauthz.model.limits import ConditionGroup
from tests.builders import a_catalog, a_limit, a_request, a_resource, a_tier, an_api
from tests.deciding import Deciding
from tests.keys import a_jwt, an_issuer
from tests.policy.limits.plans import CALLER, a_planner, key_of, plan

PER_USER = a_tier("PerUser", a_limit(1), per_user=True)
ALICE = replace(
    CALLER, application=Application(name="mobile", tier=PER_USER), issuer="https://idp.example/"
)
BOB = replace(ALICE, user="bob")


def key_for(identity: Identity, **how: object) -> str:
    return key_of(*plan(identity=identity, **how))  # type: ignore[arg-type]


def test_each_user_of_an_application_has_a_count() -> None:
    assert key_for(ALICE) == key_for(ALICE)
    keys = {key_for(it) for it in (ALICE, BOB, replace(ALICE, issuer="other"))}
    assert len(keys) == 3
    web = replace(ALICE, application=Application(name="web", tier=PER_USER))
    assert key_for(web) not in keys


def test_requests_without_a_user_are_counted_together() -> None:
    nobody = replace(ALICE, user="")
    assert key_for(nobody) == key_for(replace(nobody, issuer="other"))
    assert key_for(nobody) not in (key_for(ALICE), key_for(BOB))


def test_one_planner_keeps_the_users_apart() -> None:
    planner = a_planner()
    keys = [key_of(*plan(planner, identity=it)) for it in (ALICE, BOB, ALICE, BOB)]
    assert keys[:2] == keys[2:] and keys[0] != keys[1]


def test_a_tier_of_an_api_may_count_users_too() -> None:
    api = an_api(tier=PER_USER)
    caller = replace(ALICE, application=Application(name="mobile"))
    of_web = replace(caller, application=Application(name="web"))
    assert key_for(caller, api=api) == key_for(of_web, api=api)
    assert key_for(caller, api=api) != key_for(replace(caller, user="bob"), api=api)


def test_other_tiers_of_the_same_request_count_as_ever() -> None:
    of_api = a_tier("Api", a_limit(5))
    api = an_api(tier=of_api)
    (first, mine), (again, others) = (plan(api=api, identity=it) for it in (ALICE, BOB))
    assert first.charge.key == again.charge.key
    assert mine.charge.key != others.charge.key
    assert not first.charge.origin and not first.charge.roams


def test_users_take_the_places_of_what_callers_choose() -> None:
    (planned,) = plan(identity=ALICE, client="192.0.2.1")
    assert planned.charge.origin == "4-c00002" and planned.charge.roams


def test_a_condition_group_of_the_tier_counts_users_apart_as_well() -> None:
    header = TextCondition(source=TextSource.HEADER, name="x-plan", pattern=Pattern("gold"))
    tier = replace(
        PER_USER, conditions=(ConditionGroup(name="g", when=(header,), limits=(a_limit(2),)),)
    )
    application = Application(name="mobile", tier=tier)
    keys = {
        key_of(*plan(identity=replace(it, application=application), headers=headers))
        for it in (ALICE, BOB)
        for headers in ({}, {"x-plan": "gold"})
    }
    assert len(keys) == 4


@pytest.mark.parametrize(("per_user", "expected"), [(True, "allowed"), (False, "rate_limited")])
async def test_a_user_is_not_kept_out_by_another(expected: str, *, per_user: bool) -> None:
    application = Application(name="mobile", tier=replace(PER_USER, per_user=per_user))
    deciding = Deciding(
        a_catalog(an_api(a_resource()), application=application, issuers=(an_issuer(),))
    )

    def by(user: str) -> str:
        return f"Bearer {a_jwt(sub=user, jti=user)}"

    ask = deciding.reason
    assert await ask(a_request(headers={"authorization": by("alice")})) == "allowed"
    assert await ask(a_request(headers={"authorization": by("alice")})) == "rate_limited"
    assert await ask(a_request(headers={"authorization": by("bob")})) == expected
