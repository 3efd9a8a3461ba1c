"""The record of a decision: what it tells, and what it never shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.applications import Application
from extauthz.model.catalog import ApiKey, CustomLimit
from extauthz.model.decision import Allow, Denial, Deny, Reason
from extauthz.model.deny_rules import DenyRule
from extauthz.model.identity import ANONYMOUS, Identity, Secret, SecurityScheme
from extauthz.model.limits import LimitLevel
from extauthz.model.request import ApiRequest, Headers, Peer
from extauthz.model.routing.routes import Route
from extauthz.policy.decision_record import DecisionRecord
from extauthz.telemetry.current_trace import CurrentTrace, current_trace
from extauthz.telemetry.decision_log.masking import (
    MAX_CLIENT_TEXT,
    AddressMask,
    ClientAddress,
    ConsumerKey,
    Digest,
    Instant,
    Masks,
    Name,
    User,
    UserMask,
    list_fields,
    write_fields,
)
from extauthz.telemetry.decision_log.record import LoggedDecision, LoggedLimit, note_decision
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

DOCS: Final = Path(__file__).resolve().parents[3] / "docs" / "reference" / "decision-log.md"
KEY: Final = {"x-api-key": API_KEY}
FULL: Final = Masks(client_address=AddressMask.FULL, user=UserMask.FULL)
ALICE: Final = Identity(scheme=SecurityScheme.JWT, user="alice", consumer_key="c-1")
TRACE: Final = "0af7651916cd43dd8448eb211c80319c"


async def log(deciding: Deciding, request: ApiRequest, masks: Masks = FULL) -> dict[str, Any]:
    """The record of the decision that this request gets."""
    decision = await deciding.decide(request)
    return note_decision(request, decision, 48).write(masks)


async def test_an_allow_tells_who_called_and_what_is_left_of_each_limit() -> None:
    gold = a_tier("Gold", a_limit(10))
    catalog = a_catalog(
        an_api(a_resource("/ip", tier=a_tier("Few", a_limit(3)))),
        subscription_fields={"tier": gold},
        tiers=[gold],
        custom_limits=[CustomLimit(name="per-ip", template="$clientIp", tier=gold)],
        revision="0123456789abcdef",
    )
    deciding = Deciding(catalog)
    record = await log(deciding, a_request(headers=KEY))
    assert (record["outcome"], record["application"], record["tier"]) == ("allow", "mobile", "Gold")
    assert (record["user"], record["client_address"]) == ("alice", "192.0.2.1")
    assert record["catalog"] == "0123456789ab"
    left = [(limit["level"], limit["name"], limit["remaining"]) for limit in record["limits"]]
    assert left == [("resource", "Few", 2), ("subscription", "Gold", 9), ("custom", "per-ip", 9)]
    (limit, *_) = record["limits"]
    assert (limit["unit"], limit["limit"]) == ("requests", 3)
    assert (limit["exceeded"], limit["enforced"]) == (False, True)
    assert 0 < limit["reset_us"] <= 60_000_000


async def test_a_denial_by_a_limit_names_the_custom_limit() -> None:
    few = a_tier("Few", a_limit(1))
    limits = [CustomLimit(name="per-ip", template="$clientIp", tier=few)]
    deciding = Deciding(a_catalog(custom_limits=limits))
    await log(deciding, a_request(headers=KEY))
    record = await log(deciding, a_request(headers=KEY))
    told = [record[name] for name in ("reason", "level", "rule", "detail")]
    assert told == ["rate_limited", "custom", "per-ip", "A rate limit is reached."]
    assert [limit["exceeded"] for limit in record["limits"]] == [True]


async def test_a_denial_by_a_deny_rule_names_the_rule() -> None:
    rule = DenyRule(name="not-them", network=ip_network("192.0.2.0/24"))
    record = await log(Deciding(a_catalog(deny_rules=[rule])), a_request(headers=KEY))
    told = [record[name] for name in ("reason", "rule", "client_address", "application")]
    assert told == ["blocked", "not-them", "192.0.2.1", ""]


@pytest.mark.parametrize(
    ("all_scopes", "missing"), [(True, ["write"]), (False, ["admin", "write"])]
)
async def test_a_denial_for_scopes_names_the_ones_that_are_missing(
    *, all_scopes: bool, missing: list[str]
) -> None:
    scopes = ("read", "write") if all_scopes else ("admin", "write")
    api = an_api(a_resource("/ip", scopes=scopes, all_scopes=all_scopes))
    mobile = Application(name="mobile", owner="alice")
    key = ApiKey(digest=sha256(API_KEY), application=mobile, scopes=frozenset({"read"}))
    catalog = a_catalog(api, application=mobile, api_keys=[key])
    record = await log(Deciding(catalog), a_request(headers=KEY))
    assert (record["reason"], record["missing_scopes"]) == ("insufficient_scope", missing)


def test_an_application_that_only_the_token_names_is_told() -> None:
    identity = Identity(scheme=SecurityScheme.JWT, application_name="shop")
    assert log_of(identity)["application"] == "shop"


def log_of(identity: Identity = ANONYMOUS, masks: Masks = FULL, **fields: Any) -> dict[str, Any]:
    route = Route(an_api(), a_resource("/ip"))
    allow = Allow(id="d-1", route=route, identity=identity, **fields)
    return note_decision(a_request(), allow, 1).write(masks)


@pytest.mark.parametrize(
    ("mask", "address", "shown"),
    [
        (AddressMask.FULL, "192.0.2.77", "192.0.2.77"),
        (AddressMask.NETWORK, "192.0.2.77", "192.0.2.0/24"),
        (AddressMask.NETWORK, "::ffff:192.0.2.77", "192.0.2.0/24"),
        (AddressMask.NETWORK, "2001:db8:1:2::7", "2001:db8:1::/48"),
        (AddressMask.NETWORK, "::7", "::/48"),
        (AddressMask.HASH, "192.0.2.77", "390c5a42e4c186d1"),
        (AddressMask.HASH, "::ffff:192.0.2.77", "390c5a42e4c186d1"),
        (AddressMask.FULL, "2001:DB8::0:7%eth0", "2001:db8::7"),
        (AddressMask.OFF, "192.0.2.77", ""),
        *((mask, "", "") for mask in AddressMask),
        *((mask, "not an address", "") for mask in AddressMask),
    ],
)
def test_an_address_is_shown_as_its_mask_says(mask: AddressMask, address: str, shown: str) -> None:
    record = log_of(client_address=address, masks=Masks(client_address=mask))
    assert record["client_address"] == shown


@pytest.mark.parametrize(
    ("mask", "shown"),
    [(UserMask.FULL, "alice"), (UserMask.HASH, "2bd806c97f0e00af"), (UserMask.OFF, "")],
)
def test_a_user_is_shown_as_its_mask_says(mask: UserMask, shown: str) -> None:
    assert log_of(ALICE, Masks(user=mask))["user"] == shown


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_hash_is_the_same_everywhere_and_another_under_a_key(text: str, key: str) -> None:
    plain, keyed = Masks(), Masks(key=Secret(key))
    assert plain.hash_text(text) == Masks().hash_text(text)
    assert keyed.hash_text(text) == Masks(key=Secret(key)).hash_text(text) != plain.hash_text(text)
    assert re.fullmatch("[0-9a-f]{16}", keyed.hash_text(text))


def test_a_hash_can_be_calculated_by_common_tools() -> None:
    """By ``sha256sum`` without a key, and by ``openssl dgst -sha256 -hmac KEY`` with one."""
    assert Masks().hash_text("alice") == sha256("alice").hex()[:16]
    keyed = Masks(key=Secret("Jefe")).hash_text("what do ya want for nothing?")
    assert keyed == "5bdcc146bf60754e"  # RFC 4231, test case 2


def test_a_consumer_key_is_always_a_hash() -> None:
    assert log_of(ALICE)["consumer_key"] == sha256("c-1").hex()[:16]


def test_the_trace_of_the_call_goes_before_that_of_the_request() -> None:
    told = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}
    request = a_request(headers=told)
    allow = Allow(id="d-1", route=Route(an_api(), a_resource("/ip")), identity=ANONYMOUS)
    assert note_decision(request, allow, 1).trace_id == TRACE
    held = current_trace.set(CurrentTrace(0xABC, 1, sampled=True))
    try:
        assert note_decision(request, allow, 1).trace_id == f"{0xABC:032x}"
    finally:
        current_trace.reset(held)
    assert note_decision(a_request(headers={"traceparent": "00-x"}), allow, 1).trace_id == ""


@given(st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2500, 1, 1)))  # noqa: DTZ001
def test_a_time_is_shown_in_utc_with_its_microseconds(at: datetime) -> None:
    since = at.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    instant_ns = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    record = note_decision(a_request(), Deny(id="", denial=Denial(reason=Reason.BLOCKED)), 1)
    shown = record._replace(time=Instant(instant_ns + 999)).write(FULL)["time"]
    assert shown == at.replace(tzinfo=UTC).isoformat(timespec="microseconds")


def test_a_request_that_a_door_refused_has_a_record_too() -> None:
    deny = DecisionRecord().refuse(a_request(), Denial(reason=Reason.MALFORMED_REQUEST))
    record = note_decision(a_request(), deny, 0).write(FULL)
    assert (record["reason"], record["client_address"], record["catalog"]) == (
        "malformed_request", "", "",
    )  # fmt: skip


def test_every_field_is_documented_and_no_other() -> None:
    fields_part = DOCS.read_text().partition("## What is masked")[0]
    rows = re.findall(r"^\| (`.+?) \|", fields_part, re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`([\w\[\].]+)`", row)]
    limit = [f"limits[].{name}" for name in LoggedLimit._fields]
    assert documented == [*LoggedDecision._fields, *limit]


# What is never shown


def mark(hint: Any, marks: Iterator[str]) -> Any:
    """A value of the type, with a mark of its own in every text that it holds."""
    if hint in (str, str | None):
        return next(marks)
    if hint is bytes:
        return next(marks).encode()
    if hint == (Secret | None):
        return Secret(next(marks))
    if hint is Headers:
        return Headers({next(marks): next(marks), "authorization": f"Bearer {next(marks)}"})
    if hint is Peer:
        return mark_fields(Peer, marks)
    if hint in (Mapping[str, str], Mapping[str, Any]):
        return {next(marks): next(marks)}
    if hint == (frozenset[str] | None):
        return frozenset({next(marks)})
    if hint == tuple[str, ...]:
        return (next(marks),)
    if hint in (int, bool):
        return hint()
    if hint == (int | None):
        return None
    raise AssertionError(f"say how a {hint} is marked")


def mark_fields(kind: Any, marks: Iterator[str], **given: Any) -> Any:
    """A value of a dataclass, with marks in all fields that are not given."""
    hints = get_type_hints(kind, localns={"Application": Application})
    values = {
        part.name: mark(hints[part.name], marks)
        for part in fields(kind)
        if part.init and part.name not in given
    }
    return kind(**values, **given)


SHOWN_OF_A_REQUEST: Final = {"method", "request_id", "door"}
"""The door writes its own name."""
SHOWN_OF_A_DENIAL: Final = {"detail", "rule", "scopes"}
"""Words of the catalog, the settings and the program."""


@pytest.mark.parametrize("user", [UserMask.HASH, UserMask.OFF])
@pytest.mark.parametrize("address", [AddressMask.NETWORK, AddressMask.HASH, AddressMask.OFF])
def test_no_text_of_a_request_or_an_identity_is_shown_but_what_is_named_here(
    user: UserMask, address: AddressMask
) -> None:
    """Fields that a later change adds are marked, too, and must not be shown."""
    marks = iter([f"mark-{number}-" for number in range(1000)])
    request: ApiRequest = mark_fields(ApiRequest, marks, api_key=Secret(next(marks)))
    identity: Identity = mark_fields(
        Identity,
        marks,
        scheme=SecurityScheme.JWT,
        application=Application(name="mobile", owner=next(marks)),
        key_type=None,
        subscribed={(next(marks), next(marks)): next(marks)},
    )
    denial: Denial = mark_fields(
        Denial, marks, reason=Reason.INSUFFICIENT_SCOPE, level=LimitLevel.CUSTOM
    )
    deny = Deny(id="d-1", denial=denial, identity=identity, client_address="198.51.100.7")
    written = json.dumps(
        note_decision(request, deny, 1).write(Masks(user=user, client_address=address))
    )
    shown = set(re.findall(r"mark-\d+-", written))
    assert shown == {
        *(getattr(request, name) for name in SHOWN_OF_A_REQUEST),
        denial.detail,
        denial.rule,
        *denial.scopes,
    }
    assert "198.51.100.7" not in written


class WithText(NamedTuple):
    path: str


class WithSecret(NamedTuple):
    token: Secret


class WithTexts(NamedTuple):
    names: tuple[str, ...]


class WithTextWithin(NamedTuple):
    inner: WithText


class Named(NamedTuple):
    name: Name


@pytest.mark.parametrize("record", [WithText, WithSecret, WithTexts, WithTextWithin])
def test_a_field_whose_type_does_not_say_how_it_is_shown_is_refused(record: Any) -> None:
    with pytest.raises(TypeError, match="does not say how it is shown"):
        list_fields(record)


def test_a_secret_in_the_place_of_a_name_cannot_be_written() -> None:
    # The type checker refuses it, and would complain of this comment if it did not.
    record = Named(Secret("s3cret"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="not JSON serializable"):
        json.dumps(write_fields(record, list_fields(Named), FULL))


def test_the_type_checker_refuses_a_plain_text_in_a_record() -> None:
    """Each line below is an error; an ignore that is not needed would be one, too."""
    record = note_decision(a_request(), Deny(id="", denial=Denial(reason=Reason.BLOCKED)), 1)
    text = "anything of a request"
    record._replace(api=text)  # type: ignore[arg-type]
    values: tuple[Name, User, ConsumerKey, ClientAddress, Digest]
    values = (text, text, text, text, text)  # type: ignore[assignment]
    assert len(values) == 5


def test_what_a_client_chose_is_cut() -> None:
    long = "x" * 9999
    request = a_request(method=long, headers={"x-request-id": long})
    record = note_decision(request, Deny(id="", denial=Denial(reason=Reason.BLOCKED)), 1)
    assert record.request == record.method == long[:MAX_CLIENT_TEXT]
