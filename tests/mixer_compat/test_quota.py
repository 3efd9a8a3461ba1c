"""Quota calls: how much is granted, for how long, and what is counted for it."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.message import Message

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.applications import Application
from extauthz.model.catalog import Catalog
from extauthz.model.limits import Algorithm, CalendarUnit, OutageMode, QuotaUnit, Taking
from extauthz.policy.limits.quota import QuotaAsk
from extauthz.policy.limits.tier_quotas import TierQuotas
from extauthz.ports import NO_DEADLINE, Deadline
from mixer_compat.params import HandlerParams
from mixer_compat.proto import model_pb2
from tests.builders import (
    API_KEY,
    FakeClock,
    S,
    a_catalog,
    a_limit,
    a_request,
    a_tier,
)
from tests.deciding import Deciding
from tests.mixer_compat.asking import QUOTA, RQ, Asking, a_quota, params_of, seconds_of

GOOD: dict[str, object] = {"method": "GET", "path": "/httpbin/1.0.0/ip", "api_key": API_KEY}


def subscribed(*limits: Any, **fields: Any) -> Catalog:
    """The usual catalog, with these limits on the subscription."""
    return a_catalog(subscription_fields={"tier": a_tier("T", *limits)}, **fields)


def asking_for(*limits: Any, **fields: Any) -> Asking:
    return Asking(Deciding(subscribed(*limits, **fields)))


# How much


async def test_what_fits_is_granted_until_nothing_is_left() -> None:
    asking = asking_for(a_limit(5))
    grants = [(await asking.quota(GOOD, amount)).granted_amount for amount in (3, 3, 2, 1)]
    assert grants == [3, 0, 2, 0]


async def test_best_effort_takes_what_is_left() -> None:
    asking = asking_for(a_limit(5))
    grants = [
        (await asking.quota(GOOD, amount, best_effort=True)).granted_amount for amount in (3, 10, 1)
    ]
    assert grants == [3, 2, 0]


async def test_best_effort_takes_what_every_limit_has_left() -> None:
    application = a_tier("A", a_limit(4))
    asking = Asking(
        Deciding(
            a_catalog(
                application=Application(name="mobile", tier=application),
                subscription_fields={"tier": a_tier("T", a_limit(100), burst=a_limit(6, per_s=1))},
            )
        )
    )
    assert (await asking.quota(GOOD, 50, best_effort=True)).granted_amount == 4
    assert (await asking.quota(GOOD, 50, best_effort=True)).granted_amount == 0


@pytest.mark.parametrize("amount", [0, -2, -(2**63)])
async def test_nothing_is_granted_where_nothing_is_asked_for(amount: int) -> None:
    asking = asking_for(a_limit(5))
    entry = await asking.quota(GOOD, amount)
    assert (entry.granted_amount, seconds_of(entry)) == (0, 0)
    assert asking.deciding.counted() == {}


@pytest.mark.parametrize(("best_effort", "granted"), [(False, 0), (True, 5)])
async def test_an_absurd_amount_does_no_harm(*, best_effort: bool, granted: int) -> None:
    asking = asking_for(a_limit(5))
    entry = await asking.quota(GOOD, 2**63 - 1, best_effort=best_effort)
    assert entry.granted_amount == granted


async def test_without_limits_all_is_granted() -> None:
    entry = await Asking().quota(GOOD, 7)
    assert (entry.granted_amount, seconds_of(entry), entry.status.code) == (7, 1, 0)


async def test_a_limit_that_does_not_stop_grants_and_counts() -> None:
    catalog = a_catalog(
        subscription_fields={"tier": a_tier("T", a_limit(2), stop_on_quota_reach=False)}
    )
    asking = Asking(Deciding(catalog))
    assert (await asking.quota(GOOD, 5)).granted_amount == 5
    assert len(asking.deciding.counted()) == 1


async def test_what_is_refused_is_told_and_not_counted() -> None:
    asking = asking_for(a_limit(5))
    before = asking.deciding.counted()
    entry = await asking.quota(GOOD, 6)
    assert (entry.granted_amount, entry.status.code) == (0, 8)
    assert entry.status.message == "rate_limited: Too many requests"
    assert asking.deciding.counted() == before


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"api_key": "guessed"}, 16),
        ({"api_key": ""}, 16),
        ({"path": "/else"}, 5),
        ({"path": ""}, 3),
        ({"method": ""}, 3),
    ],
)
async def test_who_may_not_call_is_granted_nothing(changes: dict[str, str], code: int) -> None:
    asking = asking_for(a_limit(5))
    entry = await asking.quota({**GOOD, **changes}, 1)
    assert (entry.granted_amount, seconds_of(entry), entry.status.code) == (0, 0, code)
    assert asking.deciding.counted() == {}


async def test_both_doors_count_in_one_place() -> None:
    asking = asking_for(a_limit(5))
    request = a_request(headers={"x-api-key": API_KEY})
    assert await asking.deciding.reason(request) == "allowed"
    assert (await asking.quota(GOOD, 10, best_effort=True)).granted_amount == 4
    assert await asking.deciding.reason(request) == "rate_limited"
    assert len(asking.deciding.counted()) == 1


async def test_a_limit_in_bytes_grants_until_nothing_is_left() -> None:
    asking = asking_for(a_limit(5), a_limit(1000, quota_unit=QuotaUnit.BYTES))
    assert (await asking.quota(GOOD, 2)).granted_amount == 2
    await asking.report({**GOOD, "response_code": 200, "request_size": 400, "response_size": 700})
    before = asking.deciding.counted()
    for dedup_id in ("", "D1", "D1"):
        entry = await asking.quota(GOOD, 1, best_effort=True, dedup_id=dedup_id)
        assert (entry.granted_amount, entry.status.code) == (0, 8)
        assert asking.deciding.counted() == before


# For how long


@pytest.mark.parametrize(
    ("limit", "amount", "seconds"),
    [
        (a_limit(5), 1, 30),  # 40 s are left of the minute
        (a_limit(5, per_s=1), 1, 1),
        (a_limit(5, algorithm=Algorithm.SLIDING_WINDOW), 1, 30),
        (
            a_limit(
                5, algorithm=Algorithm.CALENDAR, unit=CalendarUnit.DAY, timezone=ZoneInfo("UTC")
            ),
            1,
            30,
        ),
        (a_limit(5), 6, 30),
        (a_limit(5, per_s=1), 6, 1),
    ],
)
async def test_a_grant_ends_with_its_window(limit: Any, amount: int, seconds: float) -> None:
    asking = Asking(Deciding(subscribed(limit)), quota_valid_for_us=30 * S)
    assert seconds_of(await asking.quota(GOOD, amount)) == seconds


async def test_a_grant_is_spent_soon_by_default() -> None:
    assert seconds_of(await asking_for(a_limit(5)).quota(GOOD)) == 1


# Repeated calls


async def test_a_repeated_call_is_charged_once() -> None:
    asking = asking_for(a_limit(5))
    for _ in range(3):
        assert (await asking.quota(GOOD, 3, dedup_id="D1")).granted_amount == 3
    assert (await asking.quota(GOOD, 3, dedup_id="D2")).granted_amount == 0
    assert (await asking.quota(GOOD, 2, dedup_id="D3")).granted_amount == 2


async def test_a_repeated_partial_grant_is_charged_once() -> None:
    asking = asking_for(a_limit(5))
    await asking.quota(GOOD, 2)
    for _ in range(3):
        entry = await asking.quota(GOOD, 10, best_effort=True, dedup_id="D1")
        assert entry.granted_amount == 3
    asking.deciding.clock.advance(50)
    entry = await asking.quota(GOOD, 10, best_effort=True, dedup_id="D1")
    assert entry.granted_amount == 3, "as before, though there is room again"


async def test_the_same_id_of_another_caller_is_another_call() -> None:
    asking = asking_for(a_limit(5))
    other = {**GOOD, "client_ip": bytes([192, 0, 2, 9])}
    assert (await asking.quota(GOOD, 3, dedup_id="D1")).granted_amount == 3
    assert (await asking.quota(other, 3, dedup_id="D1")).granted_amount == 0


@pytest.mark.parametrize("name", ["rq", "RQ", ""])
async def test_a_call_without_an_id_of_its_callers_is_never_a_repetition(name: str) -> None:
    asking = asking_for(a_limit(5))
    grants = []
    for _ in range(3):
        asked = a_quota(GOOD, 2)
        asked.dedup_id = name
        answer = model_pb2.QuotaResult.FromString(await asking.ask(QUOTA, asked))
        grants.append(answer.quotas[RQ].granted_amount)
    assert grants == [2, 2, 0]


# The entry


async def test_the_only_entry_is_answered_under_its_own_key() -> None:
    asked = a_quota(GOOD)
    params = asked.quota_request.quotas.pop(RQ)
    asked.quota_request.quotas["another"].CopyFrom(params)
    answer = model_pb2.QuotaResult.FromString(await Asking().ask(QUOTA, asked))
    assert {name: entry.granted_amount for name, entry in answer.quotas.items()} == {"another": 1}


async def test_of_several_entries_the_instances_own_counts() -> None:
    asked = a_quota(GOOD)
    asked.quota_request.quotas["another"].amount = 5
    answer = model_pb2.QuotaResult.FromString(await Asking().ask(QUOTA, asked))
    assert list(answer.quotas) == [RQ]


@pytest.mark.parametrize("data", [b"", b"\xff", b"\x0a\x00"])
async def test_a_call_that_asks_for_nothing_is_granted_nothing(data: bytes) -> None:
    assert await Asking().ask(QUOTA, data) == b""


# Tiers by name


TIERED = params_of(quota_tiers={"rq": "PerPath"})


def tiered(*limits: Any, **fields: Any) -> Asking:
    return Asking(Deciding(a_catalog(tiers=[a_tier("PerPath", *limits, **fields)])))


async def test_a_quota_that_names_a_tier_counts_it_for_each_set_of_dimensions() -> None:
    asking = tiered(a_limit(2))
    grants = [
        (await asking.quota({"path": path, "size": 7}, 1, params=TIERED)).granted_amount
        for path in ("/a", "/a", "/a", "/b", "/a")
    ]
    assert grants == [1, 1, 0, 1, 0]


async def test_quotas_of_two_namespaces_count_apart() -> None:
    asking = tiered(a_limit(1))
    for namespace in ("one", "two"):
        asked = a_quota({}, params=TIERED)
        asked.instance.name = f"rq.instance.{namespace}"
        result = model_pb2.QuotaResult.FromString(await asking.ask(QUOTA, asked))
        assert [entry.granted_amount for entry in result.quotas.values()] == [1]


async def test_a_tiers_grants_are_partial_and_repeatable_too() -> None:
    asking = tiered(a_limit(5), burst=a_limit(3, per_s=1, algorithm=Algorithm.BURST))
    for _ in range(2):
        entry = await asking.quota({}, 9, best_effort=True, dedup_id="D", params=TIERED)
        assert (entry.granted_amount, entry.status.code) == (3, 0)
    entry = await asking.quota({}, 1, dedup_id="E", params=TIERED)
    assert (entry.granted_amount, entry.status.code) == (0, 8)


@pytest.mark.parametrize("params", [None, TIERED])
async def test_more_dimensions_than_are_read_are_granted_nothing(params: Message | None) -> None:
    many = {f"d{number}": "v" for number in range(257)}
    entry = await Asking().quota({**GOOD, **many}, 1, dedup_id="d", params=params)
    assert entry.granted_amount == 0
    assert "malformed_request" in entry.status.message


async def test_dimensions_are_not_confused() -> None:
    asking = tiered(a_limit(1))
    for dimensions in ({"a": "b", "c": "d"}, {"a": "bc", "": "d"}, {"a": "b:c", "d": ""}, {}):
        assert (await asking.quota(dimensions, 1, params=TIERED)).granted_amount == 1


async def test_no_dimension_stands_in_a_counters_key() -> None:
    asking = tiered(a_limit(1))
    await asking.quota({"credential": "a-secret"}, 1, params=TIERED)
    (key,) = asking.deciding.counted()
    assert "a-secret" not in key


async def test_an_unknown_tier_grants_nothing() -> None:
    entry = await Asking().quota({}, 1, params=TIERED)
    assert (entry.granted_amount, entry.status.code) == (0, 14)


async def test_the_unlimited_tier_grants_all() -> None:
    params = params_of(quota_tiers={"rq": "Unlimited"})
    assert (await Asking().quota({}, 9, params=params)).granted_amount == 9


async def test_a_tier_without_limits_grants_all() -> None:
    assert (await tiered().quota({}, 9, params=TIERED)).granted_amount == 9


async def test_a_tier_whose_bytes_are_used_up_gives_back_what_it_took() -> None:
    asking = tiered(a_limit(5), a_limit(0, quota_unit=QuotaUnit.BYTES))
    for _ in range(2):
        entry = await asking.quota({}, 2, dedup_id="D", params=TIERED)
        assert (entry.granted_amount, entry.status.code) == (0, 8)
    counters = asking.deciding.memory
    look = [state for state in counters._states.values() if state[2]]
    assert look == []


# When something is away


class AwayStore(MemoryCounterStore):
    """A store that does not answer."""

    async def take(
        self, charges: Any, *, dedup_id: str | None = None, deadline: Deadline = NO_DEADLINE
    ) -> Taking:
        raise CounterStoreError("no answer")


async def test_a_store_that_is_away_grants_nothing() -> None:
    asking = Asking(Deciding(subscribed(a_limit(5)), counters=AwayStore(FakeClock())))
    entry = await asking.quota(GOOD)
    assert (entry.granted_amount, entry.status.code) == (0, 14)


class OutageNoting(MemoryCounterStore):
    """Notes the outage modes that charges come with: what stands before Redis follows them."""

    modes: tuple[OutageMode, ...] = ()

    async def take(
        self, charges: Any, *, dedup_id: str | None = None, deadline: Deadline = NO_DEADLINE
    ) -> Taking:
        self.modes += tuple(charge.on_outage for charge in charges)
        return await super().take(charges, dedup_id=dedup_id, deadline=deadline)


@pytest.mark.parametrize("mode", OutageMode)
async def test_a_quota_follows_its_tiers_outage_mode(mode: OutageMode) -> None:
    clock = FakeClock()
    store = OutageNoting(clock)
    tier = a_tier("T", a_limit(5), on_outage=mode)
    catalog = a_catalog(subscription_fields={"tier": tier}, tiers=[tier])
    await Asking(Deciding(catalog, counters=store)).quota(GOOD, 9, best_effort=True)
    tiers = TierQuotas(catalog=lambda: catalog, counters=store, clock=clock)
    await tiers.grant("T", "rq", {}, QuotaAsk(amount=1))
    assert set(store.modes) == {mode}


async def test_a_defect_grants_nothing() -> None:
    class Broken(MemoryCounterStore):
        async def take(self, charges: Any, **how: Any) -> Taking:
            raise RuntimeError("a defect")

    clock = FakeClock()
    asking = Asking(Deciding(subscribed(a_limit(5)), counters=Broken(clock)))
    assert (await asking.quota(GOOD)).granted_amount == 0


# Shadow


async def test_in_shadow_all_is_granted_and_nothing_counted() -> None:
    asking = asking_for(a_limit(5))
    shadow = params_of(shadow=True, quota_tiers={})
    for changes in ({}, {"api_key": "guessed"}, {"path": ""}):
        entry = await asking.quota({**GOOD, **changes}, 9, params=shadow)
        assert entry.granted_amount == 9
    tier = params_of(shadow=True, quota_tiers={"rq": "T"})
    assert (await asking.quota({}, 9, params=tier)).granted_amount == 9
    assert asking.deciding.counted() == {}
    told = [decision.shadow for _, decision, _ in asking.deciding.observer.told]
    assert told == [True, True, True]


async def test_in_shadow_by_the_settings_unreadable_params_grant_all() -> None:
    asking = Asking(params=HandlerParams(shadow=True))
    asked = a_quota(GOOD, 3)
    asked.adapter_config.type_url = "type.googleapis.com/another.Params"
    answer = model_pb2.QuotaResult.FromString(await asking.ask(QUOTA, asked))
    assert answer.quotas[RQ].granted_amount == 3
