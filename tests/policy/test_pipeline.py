"""The steps in their order, and what a decision leaves behind."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from typing import Any

import pytest

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import CounterStoreError, KeySourceError
from extauthz.model.apis import ApiState
from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, Catalog, CustomLimit, RevokedToken
from extauthz.model.decision import Allow, Decision, Reason
from extauthz.model.deny_rules import DenyRule
from extauthz.model.identity import Identity, KeyType, Place, PlaceKind, Secret, SecurityScheme
from extauthz.model.issuers import ApiCall, Issuer
from extauthz.model.limits import Charge, LimitLevel, Taking
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.model.subscriptions import SubscriptionState
from extauthz.policy.pipeline import Steps
from extauthz.policy.progress import Step
from extauthz.policy.repeated_warnings import EVERY_S
from extauthz.policy.subscription import Subscribed
from extauthz.ports import NO_DEADLINE, Deadline
from tests.builders import (
    API_KEY,
    START_US,
    FakeClock,
    a_catalog,
    a_limit,
    a_request,
    a_resource,
    a_tier,
    an_api,
    sha256,
)
from tests.deciding import OPAQUE_ENDPOINT, TWO_FAILURES, Deciding
from tests.keys import START_S, a_jwt, an_issuer

MOBILE = Application(name="mobile", owner="alice", tier=a_tier("App", a_limit(50)))
GOLD = a_tier("Gold", a_limit(3), burst=a_limit(2, per_s=1))
NONE = SecurityScheme.NONE
PASSED = Deadline(0.0)


def a_full_catalog(*apis: Any, **fields: Any) -> Catalog:
    """Limits on every level, so that a charge anywhere would be seen."""
    fields.setdefault("application", MOBILE)
    fields.setdefault("subscription_fields", {"tier": GOLD})
    fields.setdefault("issuers", (an_issuer(introspection=OPAQUE_ENDPOINT),))
    fields.setdefault(
        "custom_limits",
        [CustomLimit(name="all", template="all", tier=a_tier("Custom", a_limit(1000)))],
    )
    fields.setdefault("tiers", [a_tier("Unauthenticated", a_limit(5))])
    return a_catalog(*apis, **fields)


def keyed(path: str = "/httpbin/1.0.0/ip", key: str = API_KEY, **fields: Any) -> ApiRequest:
    return a_request(path, headers={"x-api-key": key}, **fields)


def bearer(token: str, **fields: Any) -> ApiRequest:
    return a_request(headers={"authorization": f"Bearer {token}"}, **fields)


async def test_allows_what_every_step_lets_pass() -> None:
    deciding = Deciding(a_full_catalog())
    allow = await deciding.allow(keyed())
    assert allow.route.resource.template == "/ip"
    assert allow.identity.application is MOBILE
    assert allow.subscription is not None and allow.tier == "Gold"
    assert [(status.level.value, status.reading.remaining) for status in allow.limits] == [
        ("subscription", 2),
        ("burst", 1),
        ("application", 49),
        ("custom", 999),
    ]


async def test_without_an_optional_credential_the_address_is_limited_and_no_scope_asked() -> None:
    optional = a_resource(security=(SecurityScheme.API_KEY, NONE), scopes=("read",))
    deciding = Deciding(a_full_catalog(an_api(optional)))
    nobody = a_request()
    allow = await deciding.allow(nobody)
    assert (allow.identity.scheme, allow.subscription) == (NONE, None)
    assert [status.level.value for status in allow.limits] == ["custom", "client"]
    assert [await deciding.reason(nobody) for _ in range(5)] == ["allowed"] * 4 + ["rate_limited"]
    assert await deciding.reason(a_request(client="192.0.2.2")) == "allowed"
    assert (await deciding.allow(keyed())).tier == "Gold"
    assert (await deciding.allow(keyed())).credential_places


async def test_every_decision_has_an_id_of_its_own() -> None:
    deciding = Deciding(a_full_catalog())
    decisions: list[Decision] = [await deciding.decide(keyed()) for _ in range(4)]
    decisions += [await Deciding().decide(keyed())]
    assert len({decision.id for decision in decisions}) == 5


# Every reason, and what a denial leaves behind

SANDBOX_ONLY = frozenset({KeyType.SANDBOX})
KEY = ApiKey(digest=sha256(API_KEY), application=MOBILE)


def a_key(**fields: Any) -> list[ApiKey]:
    return [ApiKey(digest=sha256(API_KEY), application=MOBILE, **fields)]


def with_state(state: SubscriptionState) -> Catalog:
    return a_full_catalog(subscription_fields={"state": state, "tier": GOLD})


def scoped() -> Catalog:
    return a_full_catalog(an_api(a_resource(scopes=("admin",))))


def opaque_catalog() -> Catalog:
    schemes = (SecurityScheme.OPAQUE, SecurityScheme.API_KEY)
    return a_full_catalog(an_api(a_resource(security=schemes)))


TWICE = a_request(headers=[("x-api-key", API_KEY), ("x-api-key", "other")])

DENIALS: list[tuple[str, Catalog, ApiRequest]] = [
    ("missing_credentials", a_full_catalog(), a_request()),
    ("invalid_credentials", a_full_catalog(), keyed(key="guess")),
    ("invalid_credentials", a_full_catalog(), bearer(a_jwt(aud="other"))),
    ("ambiguous_credentials", a_full_catalog(), TWICE),
    ("token_expired", a_full_catalog(), bearer(a_jwt(exp=START_S - 60))),
    ("token_expired", a_full_catalog(api_keys=a_key(expires_at_us=START_US)), keyed()),
    ("token_inactive", opaque_catalog(), bearer("opaque")),
    ("token_revoked", a_full_catalog(), bearer(a_jwt(jti="revoked"))),
    ("wrong_key_type", a_full_catalog(an_api(key_types=SANDBOX_ONLY)), keyed()),
    (
        "audience_not_allowed",
        a_full_catalog(an_api(audiences=frozenset({"shop"}))),
        bearer(a_jwt()),
    ),
    (
        "credential_not_permitted",
        a_full_catalog(api_keys=a_key(networks=(ip_network("10.0.0.0/8"),))),
        keyed(),
    ),
    ("api_not_found", a_full_catalog(), keyed("/other")),
    ("api_not_found", a_full_catalog(an_api(state=ApiState.RETIRED)), keyed()),
    ("resource_not_found", a_full_catalog(), keyed("/httpbin/1.0.0/other")),
    ("method_not_allowed", a_full_catalog(), keyed(method="DELETE")),
    ("api_blocked", a_full_catalog(an_api(state=ApiState.BLOCKED)), keyed()),
    ("subscription_not_found", a_full_catalog(subscribed=False), keyed()),
    ("subscription_blocked", with_state(SubscriptionState.BLOCKED), keyed()),
    ("subscription_inactive", with_state(SubscriptionState.ON_HOLD), keyed()),
    ("insufficient_scope", scoped(), bearer(a_jwt())),
    ("rate_limited", a_full_catalog(an_api(a_resource(cost=4))), keyed()),
    ("rate_limited", a_full_catalog(an_api(tier=a_tier("None", a_limit(0)))), keyed()),
    (
        "blocked",
        a_full_catalog(deny_rules=[DenyRule(name="ip", network=ip_network("192.0.2.0/24"))]),
        keyed(),
    ),
    (
        "blocked",
        a_full_catalog(deny_rules=[DenyRule(name="app", application="mobile")]),
        keyed(),
    ),
    ("malformed_request", a_full_catalog(), keyed("/httpbin/1.0.0/%2e%2e/ip")),
    ("unavailable", a_full_catalog(), bearer(a_jwt(kid="away"))),
]


class MissingKeys:
    """Raises for the key named "away"."""

    def __init__(self, deciding: Deciding) -> None:
        self._find = deciding.keys.find_keys

    async def find_keys(
        self, issuer: Issuer, key_id: str | None, *, deadline: Deadline = NO_DEADLINE
    ) -> Sequence[Any]:
        if key_id == "away":
            raise KeySourceError("away")
        return await self._find(issuer, key_id, deadline=deadline)

    async def find_newer_keys(self, *_args: Any, **_how: Any) -> Sequence[Any]:
        return ()


@pytest.mark.parametrize(("reason", "catalog", "request_"), DENIALS)
async def test_a_denied_request_is_not_charged(
    reason: str, catalog: Catalog, request_: ApiRequest
) -> None:
    deciding = Deciding(catalog)
    deciding.authenticator.tokens._keys = MissingKeys(deciding)
    deciding.revocations.replace("catalog", [RevokedToken(token_id="revoked")])
    await deciding.decide(keyed())  # so that there are counters that could change
    before = deciding.counted()
    for _ in range(2):
        assert await deciding.reason(request_) == reason
        assert deciding.counted() == before


def test_every_reason_is_reached() -> None:
    assert {reason for reason, _, _ in DENIALS} == {reason.value for reason in Reason}


@pytest.mark.parametrize(
    ("fields", "level"),
    [
        ({"subscription_fields": {"tier": a_tier("Low", a_limit(1))}}, LimitLevel.SUBSCRIPTION),
        (
            {"subscription_fields": {"tier": a_tier("Low", burst=a_limit(1, per_s=1))}},
            LimitLevel.BURST,
        ),
        ({"application": Application(name="mobile", tier=a_tier("A", a_limit(1)))}, "application"),
        (
            {
                "custom_limits": [
                    CustomLimit(name="ip", template="$clientIp", tier=a_tier("C", a_limit(1)))
                ]
            },
            "custom",
        ),
    ],
)
async def test_the_limit_that_has_no_room_names_the_level(
    fields: dict[str, Any], level: LimitLevel | str
) -> None:
    deciding = Deciding(a_full_catalog(**fields))
    await deciding.allow(keyed())
    deny = await deciding.deny(keyed())
    assert deny.denial.level is LimitLevel(level)
    assert deny.denial.rule == {"custom": "ip", "application": "A"}.get(str(level), "Low")
    assert deny.denial.retry_after_us > 0
    assert deny.limits and any(status.reading.exceeded for status in deny.limits)


async def test_callers_without_a_credential_are_limited_by_their_address() -> None:
    deciding = Deciding(a_full_catalog(an_api(a_resource(security=(NONE,)))))
    for _ in range(5):
        await deciding.allow(a_request())
    assert (await deciding.deny(a_request())).denial.level is LimitLevel.CLIENT
    await deciding.allow(a_request(client="192.0.2.2"))


@pytest.mark.parametrize(
    "rule",
    [
        DenyRule(name="nets", network=ip_network("192.0.2.0/24")),
        DenyRule(name="rogues", application="mobile"),
    ],
)
async def test_a_deny_rule_that_refuses_is_named(rule: DenyRule) -> None:
    deny = await Deciding(a_full_catalog(deny_rules=[rule])).deny(keyed())
    assert (deny.reason, deny.denial.rule) == (Reason.BLOCKED, rule.name)
    assert rule.name not in deny.denial.detail


# The order of the steps


async def test_a_blocked_address_is_told_nothing_about_its_credential() -> None:
    rules = [DenyRule(name="ip", network=ip_network("192.0.2.1/32"))]
    deciding = Deciding(a_full_catalog(deny_rules=rules), failure_limit=TWO_FAILURES)
    for _ in range(3):
        assert await deciding.reason(keyed(key="guess")) == "blocked"
    assert await deciding.reason(bearer(a_jwt())) == "blocked"
    assert deciding.keys.asked == []


async def test_a_deny_rule_goes_by_the_trusted_address() -> None:
    rules = [DenyRule(name="ip", network=ip_network("203.0.113.5/32"))]
    deciding = Deciding(a_full_catalog(deny_rules=rules), trusted_hops=1)
    request = a_request(headers={"x-api-key": API_KEY, "x-forwarded-for": "203.0.113.5"})
    assert await deciding.reason(request) == "blocked"
    forged = {"x-api-key": API_KEY, "x-forwarded-for": "203.0.113.5, 192.0.2.7"}
    assert await deciding.reason(a_request(headers=forged)) == "allowed"


async def test_a_deny_rule_for_a_user_waits_for_the_user() -> None:
    rules = [DenyRule(name="user", user="alice", api="HttpbinAPI")]
    deciding = Deciding(a_full_catalog(deny_rules=rules))
    assert await deciding.reason(a_request()) == "missing_credentials"
    assert await deciding.reason(bearer(a_jwt())) == "blocked"
    assert await deciding.reason(bearer(a_jwt(sub="bob"))) == "allowed"


async def test_subscription_comes_before_scopes_and_scopes_before_limits() -> None:
    nothing_left = an_api(a_resource(scopes=("admin",)), tier=a_tier("None", a_limit(0)))
    token = bearer(a_jwt())
    assert await Deciding(a_full_catalog(nothing_left, subscribed=False)).reason(token) == (
        "subscription_not_found"
    )
    assert await Deciding(a_full_catalog(nothing_left)).reason(token) == "insufficient_scope"
    admin = bearer(a_jwt(scope="admin"))
    assert await Deciding(a_full_catalog(nothing_left)).reason(admin) == "rate_limited"


def steps_noted() -> tuple[list[tuple[Step, object]], Any]:
    noted: list[tuple[Step, object]] = []
    return noted, lambda step, found: noted.append((step, found))


async def test_notes_what_each_step_found() -> None:
    rules = [DenyRule(name="other", application="other")]
    deciding = Deciding(a_full_catalog(deny_rules=rules))
    noted, note = steps_noted()
    allow = await deciding.allow(keyed(), note=note)
    assert [step for step, _ in noted] == [
        Step.MATCH,
        Step.DENY_RULES,
        Step.AUTHENTICATE,
        Step.DENY_RULES,
        Step.SUBSCRIPTION,
        Step.SCOPES,
        Step.RATE_LIMITS,
    ]
    found = [finding for _, finding in noted]
    assert isinstance(found[0], Route) and isinstance(found[2], Identity)
    assert found[1] is None and found[3] is None and found[5] is None
    assert isinstance(found[4], Subscribed) and found[6] == allow.limits


async def test_notes_end_with_the_step_that_refuses() -> None:
    deciding = Deciding(a_full_catalog(subscribed=False))
    noted, note = steps_noted()
    deny = await deciding.deny(keyed(), note=note)
    assert [step for step, _ in noted] == [Step.MATCH, Step.AUTHENTICATE, Step.SUBSCRIPTION]
    assert noted[-1][1] == deny.denial


async def test_a_note_that_fails_allows_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def note(_step: Step, _found: object) -> None:
        raise RuntimeError("no pencil")

    assert await Deciding().reason(keyed(), note=note) == "unavailable"
    assert "because of a defect" in caplog.text


# What is not charged


async def test_up_to_scopes_nothing_is_charged() -> None:
    deciding = Deciding(a_full_catalog())
    for _ in range(10):
        allow = await deciding.allow(keyed(), steps=Steps.UP_TO_SCOPES)
        assert allow.limits == ()
    assert deciding.counted() == {}
    assert await Deciding(scoped()).reason(bearer(a_jwt()), steps=Steps.UP_TO_SCOPES) == (
        "insufficient_scope"
    )


async def test_a_look_charges_nothing_and_says_what_would_be() -> None:
    deciding = Deciding(a_full_catalog(subscription_fields={"tier": a_tier("Gold", a_limit(2))}))
    for left in (2, 1):
        for _ in range(3):
            looked = await deciding.allow(keyed(), charge=False)
            assert looked.limits[0].reading.remaining == left
        await deciding.allow(keyed())
    before = deciding.counted()
    deny = await deciding.deny(keyed(), charge=False)
    assert (deny.reason, deny.denial.level) == (Reason.RATE_LIMITED, LimitLevel.SUBSCRIPTION)
    assert deny.denial.retry_after_us > 0
    assert deciding.counted() == before
    assert await deciding.reason(keyed()) == "rate_limited"


async def test_a_look_asks_for_the_resources_whole_cost() -> None:
    api = an_api(a_resource(cost=2))
    tier = a_tier("Gold", a_limit(3))
    deciding = Deciding(a_full_catalog(api, subscription_fields={"tier": tier}))
    assert await deciding.reason(keyed(), charge=False) == "allowed"
    await deciding.allow(keyed())
    assert await deciding.reason(keyed(), charge=False) == "rate_limited"


async def test_a_look_is_not_refused_by_what_is_not_enforced() -> None:
    tier = a_tier("Gold", a_limit(0), stop_on_quota_reach=False)
    deciding = Deciding(a_full_catalog(subscription_fields={"tier": tier}))
    looked = await deciding.allow(keyed(), charge=False)
    assert looked.limits[0].reading.exceeded
    taken = await deciding.allow(keyed())
    assert taken.limits[0].reading.exceeded


@pytest.mark.parametrize("look", [{"charge": False}, {"shadow": True}], ids=["look", "shadow"])
@pytest.mark.parametrize("guess", [keyed(key="guess"), bearer("opaque-guess")])
async def test_a_look_at_a_guess_is_not_counted_against_the_guesser(
    look: Mapping[str, Any], guess: ApiRequest
) -> None:
    deciding = Deciding(a_full_catalog(), failure_limit=TWO_FAILURES)
    for _ in range(5):
        await deciding.reason(guess, **look)
    assert len(deciding.failures) == 0
    await deciding.reason(guess)
    assert len(deciding.failures) == 1


# When it cannot be decided


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (keyed(), "unavailable"),
        (a_request(), "missing_credentials"),
        (keyed("/other"), "api_not_found"),
    ],
)
async def test_after_the_deadline_nothing_is_allowed_and_nothing_charged(
    request_: ApiRequest, reason: str
) -> None:
    deciding = Deciding(a_full_catalog())
    assert await deciding.reason(request_, deadline=PASSED) == reason
    assert deciding.counted() == {}


async def test_after_the_deadline_not_even_an_unlimited_request_is_allowed() -> None:
    unlimited = a_catalog(an_api(a_resource(security=(NONE,))))
    assert await Deciding(unlimited).reason(a_request(), deadline=PASSED) == "unavailable"


async def test_a_deadline_in_time_does_no_harm() -> None:
    await Deciding(a_full_catalog()).allow(keyed(), deadline=in_an_hour())


class LateStore(MemoryCounterStore):
    """Charges, and lets the deadline pass before it answers."""

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        taking = await super().take(charges, dedup_id=dedup_id)
        object.__setattr__(deadline, "monotonic_s", 0.0)
        return taking


class LateAndAwayStore(LateStore):
    """Cannot undo a charge either."""

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        raise CounterStoreError("away")


def in_an_hour() -> Deadline:
    return Deadline(time.monotonic() + 3600)


async def test_a_charge_that_came_too_late_is_given_back() -> None:
    clock = FakeClock()
    store = LateStore(clock)
    late = Deciding(a_full_catalog(), counters=store)
    assert await late.reason(keyed(), deadline=in_an_hour()) == "unavailable"
    assert len(store) > 0
    charges = [Charge(key, a_limit().algorithm, 9, 60_000_000, 0) for key in store._states]
    taking = await MemoryCounterStore.take(store, charges)
    assert [reading.remaining for reading in taking.readings] == [9] * len(charges)


async def test_a_look_that_came_too_late_gives_nothing_back() -> None:
    store = LateAndAwayStore(FakeClock())
    late = Deciding(a_full_catalog(), counters=store)
    assert await late.reason(keyed(), charge=False, deadline=in_an_hour()) == "unavailable"


async def test_a_late_charge_that_cannot_be_given_back_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    late = Deciding(a_full_catalog(), counters=LateAndAwayStore(FakeClock()))
    assert await late.reason(keyed(), deadline=in_an_hour()) == "unavailable"
    assert "counter_store_failed" in caplog.text


class BrokenStore(MemoryCounterStore):
    """Raises what it is told to."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(FakeClock())
        self._error = error

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        raise self._error


async def test_an_outage_is_logged_by_its_code(caplog: pytest.LogCaptureFixture) -> None:
    deciding = Deciding(a_full_catalog(), counters=BrokenStore(CounterStoreError("timed out")))
    deny = await deciding.deny(keyed())
    assert deny.reason is Reason.UNAVAILABLE
    assert deny.route is not None and deny.identity.application is MOBILE
    assert "counter_store_failed: timed out" in caplog.text
    assert "timed out" not in deny.denial.detail


async def test_requests_of_an_outage_are_not_a_line_each(caplog: pytest.LogCaptureFixture) -> None:
    deciding = Deciding(a_full_catalog(), counters=BrokenStore(CounterStoreError("timed out")))
    began_s = time.monotonic()
    for _ in range(100):
        assert await deciding.reason(keyed()) == "unavailable"
    lines = 1 + (time.monotonic() - began_s) // EVERY_S
    assert 1 <= len(caplog.messages) <= lines


async def test_cancellation_is_not_swallowed() -> None:
    deciding = Deciding(a_full_catalog(), counters=BrokenStore(asyncio.CancelledError()))
    with pytest.raises(asyncio.CancelledError):
        await deciding.decide(keyed())
    assert deciding.observer.told == []


@pytest.mark.parametrize("readings", ["none", "too many", "contradiction"])
async def test_an_answer_that_makes_no_sense_allows_nothing(readings: str) -> None:
    class Nonsense(MemoryCounterStore):
        async def take(
            self,
            charges: Sequence[Charge],
            *,
            dedup_id: str | None = None,
            deadline: Deadline = NO_DEADLINE,
        ) -> Taking:
            taking = await super().take(charges)
            if readings == "contradiction":
                return Taking(charged=False, readings=taking.readings)
            return Taking(
                charged=True, readings=taking.readings * (2 if readings == "too many" else 0)
            )

    deciding = Deciding(a_full_catalog(), counters=Nonsense(FakeClock()))
    assert await deciding.reason(keyed()) == "unavailable"


# Observers


async def test_observers_are_told_once() -> None:
    deciding = Deciding(a_full_catalog())
    allowed, denied = keyed(), a_request()
    decisions = [await deciding.decide(allowed), await deciding.decide(denied)]
    assert [(request, decision) for request, decision, _ in deciding.observer.told] == [
        (allowed, decisions[0]),
        (denied, decisions[1]),
    ]
    assert all(duration_us >= 0 for _, _, duration_us in deciding.observer.told)


async def test_an_observer_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
            raise RuntimeError("full disk")

    deciding = Deciding(a_full_catalog())
    deciding.pipeline.record._observers = (Broken(), deciding.observer)
    await deciding.allow(keyed())
    await deciding.deny(a_request())
    assert len(deciding.observer.told) == 2
    assert "observer failed" in caplog.text


# One snapshot


class SwappingTokens:
    """Knows every token, and swaps the catalog while it is asked."""

    def __init__(self, deciding: Deciding, then: Catalog) -> None:
        self._deciding = deciding
        self._then = then

    async def introspect(
        self,
        issuer: Issuer,
        token: Secret,
        *,
        call: ApiCall | None = None,
        deadline: Deadline = NO_DEADLINE,
        client: str = "",
    ) -> Mapping[str, Any]:
        self._deciding.catalog = self._then
        return {"active": True, "client_id": "abc123", "aud": "httpbin"}


async def test_a_decision_sees_one_catalog_though_it_is_swapped_meanwhile() -> None:
    opaque = an_api(a_resource(security=(SecurityScheme.OPAQUE,)))
    old = a_full_catalog(opaque)
    nothing = a_full_catalog(opaque, subscribed=False, consumer_keys={}, custom_limits=[])
    deciding = Deciding(old)
    deciding.authenticator.tokens._introspector = SwappingTokens(deciding, nothing)
    allow = await deciding.allow(bearer("opaque"))
    assert allow.route.api is opaque and allow.identity.application is MOBILE
    assert [status.name for status in allow.limits] == ["Gold", "Gold", "App", "all"]
    assert await deciding.reason(bearer("opaque")) == "subscription_not_found"


# What goes on to the answer


@pytest.mark.parametrize(
    ("api", "names"),
    [
        (an_api(), {"authorization", "x-api-key", "apikey"}),
        (an_api(a_resource(security=(SecurityScheme.API_KEY,))), {"x-api-key", "apikey"}),
        (an_api(forward_credentials=True), set()),
        (an_api(api_key_places=(Place(PlaceKind.COOKIE, "k"),)), {"authorization", "k"}),
        (an_api(bearer_header="x-token"), {"x-token", "x-api-key", "apikey"}),
    ],
)
async def test_names_every_place_that_a_credential_is_taken_from(api: Any, names: set[str]) -> None:
    deciding = Deciding(a_full_catalog(api))
    headers = {"x-api-key": API_KEY, "cookie": f"k={API_KEY}"}
    allow = await deciding.allow(a_request(headers=headers))
    assert {place.name for place in allow.credential_places} == names


async def test_a_denial_keeps_what_was_known() -> None:
    catalog = a_full_catalog(an_api(a_resource(cost=4)))
    deny = await Deciding(catalog).deny(keyed())
    assert deny.route is not None and deny.identity.application is MOBILE
    assert deny.subscription is not None and deny.tier == "Gold"
    assert deny.limits


async def test_no_secret_is_in_a_decision_or_a_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = a_jwt()
    deciding = Deciding(a_full_catalog(), pepper=Secret("very-secret-pepper"))
    decisions = [
        await deciding.decide(request)
        for request in (keyed(), bearer(token), keyed(key="a-secret-guess"), bearer("opaque-one"))
    ]
    assert any(isinstance(decision, Allow) for decision in decisions)
    seen = repr(decisions) + caplog.text
    for secret in (API_KEY, token, "a-secret-guess", "opaque-one", "very-secret-pepper"):
        assert secret not in seen
