"""Reads the messages of API Manager's event hub.

Events are delivered at most once, in any order, and without what a catalog needs of a policy. So most
of them only say that something is to be read again (`Changed`). A revocation is complete, and must
not wait for a reading (`TokenRevoked`).

Nothing in here raises an error, whatever the bytes. A payload may hold passwords and keys, so it is never
quoted.

Source: wso2/product-apim-tooling, apim-apk-agent, and wso2/product-microgateway v1.2.0, pkg/messaging and
adapter/internal/messaging (topics, payloads); wso2/carbon-apimgt, APIConstants (event types).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

NOTIFICATION: Final = "notification"
REVOCATION: Final = "tokenRevocation"
THROTTLE: Final = "throttleData"
TOPICS: Final = (
    NOTIFICATION,
    "keymanager",
    "keyManager",
    REVOCATION,
    THROTTLE,
    "cacheInvalidation",
)
"""Routing keys. Releases spell the topic of key managers in two ways."""
MAX_BYTES: Final = 1024 * 1024
MAX_TOKEN_ID: Final = 1024
_IGNORED: Final = ("SCOPE_", "HEALTH_CHECK", "LLM_", "TENANT_", "CORRELATION", "GA_CONFIG")
_REVOKING: Final = frozenset({"CONSUMER_APP_REVOCATION_EVENT", "SUBJECT_ENTITY_REVOCATION_EVENT"})
_LATEST_MS: Final = 253_402_300_799_000
"""The end of the year 9999."""


@dataclass(frozen=True, slots=True)
class Changed:
    """Something is to be read again. `kind` says what, for the log and for metrics."""

    kind: str


@dataclass(frozen=True, slots=True)
class TokenRevoked:
    """A token was taken back.

    Attributes:
        token_id: its ``jti``; an opaque token is itself its id.
        expires_ms: when it would have expired, in milliseconds of Unix time; 0 when that is not told.
    """

    token_id: str
    expires_ms: int = 0


@dataclass(frozen=True, slots=True)
class Ignored:
    """Nothing follows from it. `kind` says why, for metrics."""

    kind: str


Event: TypeAlias = Changed | TokenRevoked | Ignored
UNREADABLE: Final = Ignored("unreadable")


def read_event(topic: str, body: bytes) -> Event:
    """The event of a message."""
    if len(body) > MAX_BYTES:
        return UNREADABLE
    try:
        tree = json.loads(body)
    except (ValueError, RecursionError):
        return UNREADABLE
    payload = _find(tree, "event", "payloadData")
    if payload is None:
        return UNREADABLE
    if topic == REVOCATION:
        return _read_revocation(payload)
    if topic == THROTTLE:
        return _read_throttle(payload)
    if topic == NOTIFICATION:
        return _read_notification(payload)
    if topic.lower() == "keymanager":
        return Changed("key_manager")
    return Ignored("other_topic")


def _find(tree: object, *names: str) -> Mapping[str, Any] | None:
    for name in names:
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree if isinstance(tree, dict) else None


def _read_notification(payload: Mapping[str, Any]) -> Event:
    kind = payload.get("eventType")
    if not isinstance(kind, str) or not kind:
        return UNREADABLE
    if kind.startswith(_IGNORED):
        return Ignored("notification")
    # What it says of the row is not used: it may be older than what is read next.
    return Changed(_name_kind(kind))


_KINDS: Final = {
    "API_KEY": "api_key",
    "DEPLOY_API": "api",
    "REMOVE_API": "api",
    "API_": "api",
    "APPLICATION": "application",
    "REMOVE_APPLICATION": "application",
    "SUBSCRIPTIONS": "subscription",
    "POLICY": "policy",
}


def _name_kind(kind: str) -> str:
    """One of a few names, as metrics have no label of a sender's."""
    return next((name for start, name in _KINDS.items() if kind.startswith(start)), "other")


def _read_revocation(payload: Mapping[str, Any]) -> Event:
    kinds = (payload.get("type"), payload.get("eventType"))
    if any(isinstance(kind, str) and kind in _REVOKING for kind in kinds):
        return Changed("revocation_of_all")
    token_id = payload.get("revokedToken")
    if not isinstance(token_id, str) or not 0 < len(token_id) <= MAX_TOKEN_ID:
        return UNREADABLE
    if not token_id.isprintable():
        return UNREADABLE
    return TokenRevoked(token_id, _read_ms(payload.get("expiryTime")))


def _read_ms(value: object) -> int:
    """Milliseconds, also as text or as ``1.7645E12``; 0 when it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return 0
    try:
        number = int(float(value))
    except (ValueError, OverflowError):
        return 0
    return number if 0 < number < _LATEST_MS else 0


def _read_throttle(payload: Mapping[str, Any]) -> Event:
    if "blockingCondition" in payload:
        # CC-style gateways ignore the blocks of subscriptions: their state says it.
        return (
            Ignored("subscription_block")
            if payload.get("blockingCondition") == "SUBSCRIPTION"
            else Changed("block")
        )
    if "keyTemplateValue" in payload:
        return Changed("key_template")
    return Ignored("throttle_decision") if "throttleKey" in payload else UNREADABLE
