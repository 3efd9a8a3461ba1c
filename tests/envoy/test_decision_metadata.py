"""What access logs read of a decision."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct

from extauthz.envoy.decision_metadata import write_decision_metadata
from extauthz.model.applications import Application
from extauthz.model.decision import Allow, Decision, Denial, Deny, Reason
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.model.limits import LimitLevel, LimitStatus, Reading
from extauthz.model.routing.routes import Route
from tests.builders import a_limit, a_resource, an_api

RESOURCE = a_resource("/ip")
ROUTE = Route(an_api(RESOURCE), RESOURCE)
ALICE = Identity(
    scheme=SecurityScheme.JWT,
    application=Application(name="mobile"),
    user="alice",
    consumer_key="abc123",
)
WHOLE = {
    "decision_id": "1",
    "decision_us": 345,
    "reason": "allowed",
    "api": "HttpbinAPI",
    "version": "1.0.0",
    "resource": "/ip",
    "application": "mobile",
    "consumer_key": "abc123",
    "user": "alice",
    "tier": "Gold",
    "limits": ["Gold"],
    "remaining": 7,
}


def a_status(remaining: int = 7, *, exceeded: bool = False, enforced: bool = True) -> LimitStatus:
    reading = Reading(exceeded, remaining, 0, 0)
    return LimitStatus(LimitLevel.SUBSCRIPTION, "Gold", a_limit(10), reading, enforced)


def an_allow(**fields: Any) -> Allow:
    fields.setdefault("identity", ALICE)
    fields.setdefault("tier", "Gold")
    fields.setdefault("limits", (a_status(),))
    return Allow(id=fields.pop("id", "1"), route=ROUTE, **fields)


def read(decision: Decision) -> dict[str, Any]:
    return MessageToDict(Struct.FromString(write_decision_metadata(decision, 345)))


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (an_allow(), WHOLE),
        (an_allow(id="2"), WHOLE | {"decision_id": "2"}),
        (an_allow(limits=(a_status(3), a_status(5))), {"limits": ["Gold"] * 2, "remaining": 3}),
        (
            an_allow(limits=(a_status(0, exceeded=True, enforced=False),)),
            {"exceeded_unenforced": ["Gold"], "remaining": 0},
        ),
        (an_allow(tier="Silver"), WHOLE | {"tier": "Silver"}),
        (
            Deny(id="3", denial=Denial(reason=Reason.API_NOT_FOUND)),
            {"decision_id": "3", "reason": "api_not_found"},
        ),
        (
            Deny(
                id="4",
                denial=Denial(reason=Reason.RATE_LIMITED, level=LimitLevel.API, rule="Gold"),
                route=ROUTE,
                identity=ALICE,
            ),
            {"reason": "rate_limited", "level": "api", "rule": "Gold", "application": "mobile"},
        ),
    ],
)
def test_a_decision_is_described_the_first_and_every_other_time(
    decision: Decision, expected: dict[str, Any]
) -> None:
    first, again = read(decision), read(decision)

    assert first == again
    assert first | expected == first


def test_what_is_not_known_is_left_out() -> None:
    assert read(Deny(id="3", denial=Denial(reason=Reason.API_NOT_FOUND))).keys() == {
        "decision_id",
        "decision_us",
        "reason",
    }


def test_a_user_and_a_consumer_key_are_not_taken_for_each_other() -> None:
    user = Identity(scheme=SecurityScheme.JWT, user="same")
    key = Identity(scheme=SecurityScheme.JWT, consumer_key="same")

    assert read(an_allow(identity=user))["user"] == "same"
    assert "user" not in read(an_allow(identity=key))
    assert read(an_allow(identity=key))["consumer_key"] == "same"
