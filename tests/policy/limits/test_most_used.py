"""Which counters are remembered, within which bounds, and by which names."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.catalog import CustomLimit
from extauthz.model.identity import ANONYMOUS, Identity, SecurityScheme
from extauthz.model.limits import Algorithm, Charge, Limit, LimitLevel, QuotaUnit, Reading
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.policy.limits.most_used import MOST_KEPT, MOST_OPEN_KEPT, MostUsed, UsedLimit, is_open
from extauthz.policy.limits.quota import QuotaAsk, UsedBytes
from extauthz.policy.limits.tier_limits import PlannedLimit
from tests.builders import (
    API_KEY,
    START_US,
    S,
    a_catalog,
    a_limit,
    a_request,
    a_resource,
    a_tier,
    an_api,
)  # fmt: skip
from tests.deciding import Deciding

LIMIT = a_limit(100)


def keyed() -> ApiRequest:
    return a_request(headers={"x-api-key": API_KEY})


def a_caller(api: Api | None = None, identity: Identity = ANONYMOUS) -> LimitedRequest:
    api = api or an_api()
    return LimitedRequest(a_request(), Route(api, api.resources[0]), identity, None, "192.0.2.1")


NAMED = Identity(scheme=SecurityScheme.API_KEY, application=Application(name="mobile", owner="a"))


def planned(key: str, limit: Limit = LIMIT) -> PlannedLimit:
    charge = Charge(key, limit.algorithm, limit.requests, limit.window_us)
    return PlannedLimit(LimitLevel.SUBSCRIPTION, "Gold", limit, charge, LimitLevel.SUBSCRIPTION)


def note(
    most_used: MostUsed,
    key: str,
    remaining: int,
    *,
    reset_s: float = 60,
    at_s: float = 0,
    identity: Identity = NAMED,
    limit: Limit = LIMIT,
) -> None:
    reading = Reading(remaining == 0, remaining, round(reset_s * S), 0)
    caller, at_us = a_caller(identity=identity), START_US + round(at_s * S)
    most_used.note(caller, [planned(key, limit)], [reading], at_us)


def keys(used: Iterable[UsedLimit]) -> list[str]:
    return [one.planned.charge.key for one in used]


def test_the_largest_share_comes_first_by_the_last_reading() -> None:
    most_used = MostUsed()
    for key, remaining in (("a", 90), ("b", 5), ("c", 50), ("a", 10), ("b", 60)):
        note(most_used, key, remaining)
    assert keys(most_used.rank()) == ["a", "c", "b"]
    assert [one.share for one in most_used.rank()] == [0.9, 0.5, 0.4]


def test_a_limit_of_nothing_is_used_up() -> None:
    most_used = MostUsed()
    none = a_limit(0)
    most_used.note(a_caller(), [planned("none", none)], [Reading(True, 0, S, S)], START_US)
    assert most_used.rank()[0].share == 1.0


def test_never_holds_more_than_it_may_and_keeps_the_most_used() -> None:
    most_used = MostUsed()
    for number in range(10 * MOST_KEPT):
        note(most_used, f"little {number}", 99)
        if number % 100 == 0:
            note(most_used, f"much {number}", 1)
        assert len(most_used) <= 2 * MOST_KEPT
    ranked = keys(most_used.rank())
    assert len(ranked) <= MOST_KEPT
    assert ranked[:100] == [f"much {number}" for number in range(0, 10 * MOST_KEPT, 100)]


@pytest.mark.parametrize("identity", [ANONYMOUS, Identity(scheme=SecurityScheme.JWT, user="u")])
def test_who_is_not_in_the_catalog_takes_no_place_of_those_who_are(identity: Identity) -> None:
    most_used = MostUsed()
    note(most_used, "mobile", 40)
    for number in range(4 * MOST_KEPT):  # each has used up a limit of its own
        note(most_used, f"made up {number}", 0, identity=identity)
    note(most_used, "newcomer", 99)
    ranked = keys(most_used.rank())
    assert ranked[-2:] == ["mobile", "newcomer"]
    assert len(ranked) == MOST_OPEN_KEPT + 2
    for number in range(4 * MOST_KEPT):
        note(most_used, f"application {number}", 10)
        assert len(most_used) <= 2 * (MOST_KEPT + MOST_OPEN_KEPT)
    ranked = keys(most_used.rank())
    assert len(ranked) == MOST_KEPT
    assert sum(key.startswith("made up") for key in ranked) == MOST_OPEN_KEPT


def test_of_equal_shares_the_heaviest_use_is_kept() -> None:
    most_used = MostUsed()
    heavy = a_limit(1_000)
    for number in range(4 * MOST_KEPT):
        note(most_used, f"light {number}", 0, identity=ANONYMOUS)
        if number == MOST_OPEN_KEPT:
            note(most_used, "heavy", 0, identity=ANONYMOUS, limit=heavy)
    assert keys(most_used.rank())[0] == "heavy"


async def test_which_subjects_the_catalog_names() -> None:
    """Rotating addresses, values and users make new counters; an application has its own."""
    tiers = [a_tier("Unauthenticated", a_limit(5)), a_tier("Gold", a_limit(10))]
    custom = [
        CustomLimit(name="per ip", template="$clientIp", tier=a_tier("C", a_limit(50))),
        CustomLimit(name="per app", template="$application", tier=a_tier("A", a_limit(50))),
    ]
    free = a_resource("/free", security=(SecurityScheme.NONE,), tier=a_tier("Res", a_limit(90)))
    catalog = a_catalog(
        an_api(a_resource("/ip"), free),
        application=MOBILE,
        subscription_fields={"tier": tiers[1]},
        custom_limits=custom,
        tiers=tiers,
    )
    deciding = Deciding(catalog)
    await deciding.allow(keyed())
    await deciding.allow(a_request("/httpbin/1.0.0/free"))
    told = {
        (it.planned.level.value, it.planned.name): is_open(it) for it in deciding.most_used.rank()
    }
    assert told == {
        ("resource", "Res"): False,
        ("subscription", "Gold"): False,
        ("application", "App"): False,
        ("client", "Unauthenticated"): True,
        ("custom", "per ip"): True,
        ("custom", "per app"): False,
    }


def test_less_used_ones_are_turned_away_for_a_while_only() -> None:
    most_used = MostUsed()
    for number in range(2 * MOST_KEPT + 1):
        note(most_used, f"half {number}", 50, reset_s=5)
    before = len(most_used)
    note(most_used, "less", 60)
    assert len(most_used) == before and "less" not in keys(most_used.rank())
    note(most_used, "less", 60, at_s=11)
    assert len(most_used) == before + 1


def test_one_consumers_limits_are_noted_once_in_a_second() -> None:
    most_used = MostUsed()
    of_one = [planned("a")]
    for at_s, remaining, expected in ((0, 90, 90), (0.5, 80, 90), (1, 70, 70), (1.5, 60, 70)):
        reading = Reading(False, remaining, S, 0)
        most_used.note(a_caller(identity=NAMED), of_one, [reading], START_US + round(at_s * S))
        (used,) = most_used.rank()
        assert used.reading.remaining == expected
    note(most_used, "b", 50, at_s=1.5)
    assert keys(most_used.rank()) == ["b", "a"]


def test_what_is_unused_again_makes_room_first() -> None:
    most_used = MostUsed()
    for number in range(2 * MOST_KEPT):
        note(most_used, f"old {number}", 0, reset_s=1)
    note(most_used, "new", 99, at_s=2)
    assert keys(most_used.rank()) == ["new"]


def test_another_value_of_the_limit_replaces_what_was_known() -> None:
    most_used = MostUsed()
    note(most_used, "a", 10)
    raised = a_limit(1000)
    note(most_used, "a", 910, limit=raised)
    assert [one.limit for one in most_used.rank()] == [raised]


MOBILE = Application(name="mobile", owner="alice", tier=a_tier("App", a_limit(70)))
TIER = a_tier("Gold", a_limit(10), burst=a_limit(5, per_s=1, algorithm=Algorithm.BURST))


async def test_each_limit_has_the_names_of_what_it_counts() -> None:
    api = an_api(a_resource("/ip", tier=a_tier("Res", a_limit(90))))
    catalog = a_catalog(
        api,
        application=MOBILE,
        subscription_fields={"tier": TIER},
        custom_limits=[
            CustomLimit(name="per ip", template="$clientIp", tier=a_tier("C", a_limit(50)))
        ],
    )
    deciding = Deciding(catalog)
    await deciding.allow(keyed())
    told = {
        (one.planned.level.value, one.planned.name): (
            one.api, one.version, one.resource, one.application, bool(one.subject),
        )
        for one in deciding.most_used.rank()
    }  # fmt: skip
    of_api = ("HttpbinAPI", "1.0.0")
    assert told == {
        ("resource", "Res"): (*of_api, "/ip", "", False),
        ("subscription", "Gold"): (*of_api, "", "mobile", False),
        ("burst", "Gold"): (*of_api, "", "mobile", False),
        ("application", "App"): ("", "", "", "mobile", False),
        ("custom", "per ip"): ("", "", "", "", True),
    }


@pytest.mark.parametrize(
    ("identity", "named"),
    [
        (
            Identity(scheme=SecurityScheme.JWT, consumer_key="abc", user="alice"),
            ("abc", "", ""),
        ),
        (Identity(scheme=SecurityScheme.JWT, user="alice"), ("", "alice", "")),
        (Identity(scheme=SecurityScheme.JWT), ("", "", "192.0.2.1")),
    ],
)
def test_a_consumer_without_an_application_is_who_is_counted(
    identity: Identity, named: tuple[str, str, str]
) -> None:
    used = UsedLimit(planned("x"), a_caller(identity=identity), Reading(False, 1, 0, 0), 0)
    assert (used.consumer_key, used.user, used.client_address) == named


async def test_notes_refusals_amounts_and_bytes_and_no_peeks() -> None:
    bytes_limit = a_limit(1000, quota_unit=QuotaUnit.BYTES)
    tier = a_tier("Gold", a_limit(3), bytes_limit)
    deciding = Deciding(a_catalog(subscription_fields={"tier": tier}))

    def left() -> list[int]:
        by_limit = {one.limit: one.reading.remaining for one in deciding.most_used.rank()}
        return [by_limit[limit] for limit in tier.limits if limit in by_limit]

    await deciding.allow(keyed(), charge=False)
    assert left() == []
    await deciding.pipeline.grant(keyed(), QuotaAsk(amount=2))
    assert left() == [1, 1000]
    await deciding.pipeline.charge_usage(keyed(), UsedBytes(request_bytes=100, response_bytes=300))
    assert left() == [1, 600]
    await deciding.allow(keyed())
    await deciding.deny(keyed())
    assert left() == [0, 600]
