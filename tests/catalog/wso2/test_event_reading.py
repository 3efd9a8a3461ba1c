"""What is read from the messages of an API Manager's event hub, and from anything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.catalog.wso2.events.reading import (
    MAX_BYTES,
    NOTIFICATION,
    REVOCATION,
    THROTTLE,
    TOPICS,
    UNREADABLE,
    Changed,
    Event,
    Ignored,
    TokenRevoked,
    read_event,
)


def a_message(**payload: Any) -> bytes:
    return json.dumps({"event": {"payloadData": payload}}).encode()


@pytest.mark.parametrize(
    ("topic", "payload", "event"),
    [
        (REVOCATION, {"revokedToken": "a", "expiryTime": 1764503600000, "type": "JWT"},
         TokenRevoked("a", 1764503600000)),
        (REVOCATION, {"revokedToken": "a", "expiryTime": 1.7645036e12},
         TokenRevoked("a", 1764503600000)),
        (REVOCATION, {"revokedToken": "a", "expiryTime": "1764503600000"},
         TokenRevoked("a", 1764503600000)),
        (REVOCATION, {"revokedToken": "a", "type": "API_KEY"}, TokenRevoked("a")),
        (REVOCATION, {"revokedToken": "a", "expiryTime": -1}, TokenRevoked("a")),
        (REVOCATION, {"revokedToken": "", "type": "JWT"}, UNREADABLE),
        (REVOCATION, {"revokedToken": "a\nb"}, UNREADABLE),
        (REVOCATION, {"revokedToken": "a" * 2000}, UNREADABLE),
        (REVOCATION, {"type": "CONSUMER_APP_REVOCATION_EVENT", "consumerKey": "k"},
         Changed("revocation_of_all")),
        (NOTIFICATION, {"eventType": "DEPLOY_API_IN_GATEWAY", "event": "not base64"}, Changed("api")),
        (NOTIFICATION, {"eventType": "API_LIFECYCLE_CHANGE"}, Changed("api")),
        (NOTIFICATION, {"eventType": "API_KEY_CREATE"}, Changed("api_key")),
        (NOTIFICATION, {"eventType": "REMOVE_APPLICATION_KEYMAPPING"}, Changed("application")),
        (NOTIFICATION, {"eventType": "SUBSCRIPTIONS_UPDATE", "timeStamp": 1.7e12},
         Changed("subscription")),
        (NOTIFICATION, {"eventType": "POLICY_UPDATE"}, Changed("policy")),
        (NOTIFICATION, {"eventType": "SOMETHING_NEW"}, Changed("other")),
        (NOTIFICATION, {"eventType": "SCOPE_CREATE"}, Ignored("notification")),
        (NOTIFICATION, {"eventType": "HEALTH_CHECK"}, Ignored("notification")),
        (NOTIFICATION, {"eventType": 3}, UNREADABLE),
        ("keyManager", {"event_type": "key_manager_configuration"}, Changed("key_manager")),
        ("keymanager", {"event_type": "key_manager_configuration"}, Changed("key_manager")),
        (THROTTLE, {"blockingCondition": "IP", "conditionValue": "{}"}, Changed("block")),
        (THROTTLE, {"blockingCondition": "SUBSCRIPTION"}, Ignored("subscription_block")),
        (THROTTLE, {"keyTemplateValue": "$userId", "keyTemplateState": "add"},
         Changed("key_template")),
        (THROTTLE, {"throttleKey": "k", "isThrottled": True}, Ignored("throttle_decision")),
        ("cacheInvalidation", {"any": "thing"}, Ignored("other_topic")),
    ],
    ids=str,
)  # fmt: skip
def test_an_event_is_read(topic: str, payload: dict[str, Any], event: Event) -> None:
    assert read_event(topic, a_message(**payload)) == event


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"[]", b"null", b"\xff", b'{"event": {}}', b"[" * 100_000, b" " * (MAX_BYTES + 1)],
    ids=["empty", "no event", "list", "null", "bytes", "no payload", "deep", "large"],
)
def test_what_is_no_event_is_unreadable(body: bytes) -> None:
    assert read_event(NOTIFICATION, body) is UNREADABLE


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_NAMES = st.sampled_from(
    ["eventType", "event", "type", "revokedToken", "expiryTime", "blockingCondition", "timeStamp"]
)


@given(topic=st.sampled_from(TOPICS), payload=st.dictionaries(_NAMES, _JSON))
def test_any_payload_is_read(topic: str, payload: dict[str, Any]) -> None:
    event = read_event(topic, a_message(**payload))
    if isinstance(event, TokenRevoked):
        assert event.token_id == payload["revokedToken"]


@given(topic=st.text(max_size=20), body=st.binary(max_size=200))
def test_any_bytes_are_read(topic: str, body: bytes) -> None:
    read_event(topic, body)
