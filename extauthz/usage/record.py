"""Defines the line of JSON that a usage record is written as, the same for every sink.

What a line shows of a value depends on the value's type
(`extauthz.telemetry.decision_log.masking`). A line holds no credential, no user, no path and no
query. What was not reported is left out. docs/reference/usage.md describes the fields.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from extauthz.model.usage import UNKNOWN, UsageRecord
from extauthz.telemetry.decision_log.masking import (
    ClientAddress,
    ClientText,
    ConsumerKey,
    Digest,
    Instant,
    Masks,
    Name,
    Shown,
    list_fields,
    write_fields,
    write_known_fields,
)


class UsageLine(NamedTuple):
    """What is known of a finished request, in the order in which it is written."""

    time: Instant
    source: Name
    proxy: Name
    decision: Digest
    request: ClientText
    trace_id: ClientText
    outcome: Name
    reason: Name
    level: Name
    rule: Name
    api: Name
    version: Name
    resource: Name
    application: Name
    consumer_key: ConsumerKey
    tier: Name
    key_type: Name
    method: ClientText
    host: ClientText
    protocol: ClientText
    status: int
    flags: tuple[Name, ...]
    details: ClientText
    request_bytes: int
    response_bytes: int
    duration_us: int
    decision_us: int
    upstream_us: int
    user_agent: ClientText
    client_address: ClientAddress
    caller: Name
    destination: Name

    def write(self, masks: Masks) -> dict[str, Shown]:
        """The record, masked, without what is not known."""
        shown = write_known_fields(self, _FIELDS, masks, _NOT_KNOWN)
        if self.time < 0:
            del shown["time"]
        return shown


class UsageLoss(NamedTuple):
    """Where lines are missing, and how many at most."""

    time: Instant
    lost: int

    def write(self, masks: Masks) -> dict[str, Shown]:
        """The record."""
        return write_fields(self, _LOSS_FIELDS, masks)


_FIELDS: Final = list_fields(UsageLine)
_NOT_KNOWN: Final[frozenset[object]] = frozenset({UNKNOWN, "", ()})
_LOSS_FIELDS: Final = list_fields(UsageLoss)


def note_usage(record: UsageRecord) -> UsageLine:
    """Keeps what is written of a record."""
    return UsageLine(
        time=Instant(record.at_us * 1000),
        source=Name(record.source.value),
        proxy=Name(record.proxy),
        decision=Digest(record.decision_id),
        request=ClientText(record.request_id),
        trace_id=ClientText(record.trace_id),
        outcome=Name(record.outcome.value),
        reason=Name(record.reason),
        level=Name(record.level),
        rule=Name(record.rule),
        api=Name(record.api),
        version=Name(record.version),
        resource=Name(record.resource),
        application=Name(record.application),
        consumer_key=ConsumerKey(record.consumer_key),
        tier=Name(record.tier),
        key_type=Name(record.key_type),
        method=ClientText(record.method),
        host=ClientText(record.host),
        protocol=ClientText(record.protocol),
        status=record.response_code,
        flags=tuple(map(Name, record.flags)),
        details=ClientText(record.details),
        request_bytes=record.request_bytes,
        response_bytes=record.response_bytes,
        duration_us=record.duration_us,
        decision_us=record.decision_us,
        upstream_us=record.upstream_us,
        user_agent=ClientText(record.user_agent),
        client_address=ClientAddress(record.client_address),
        caller=Name(record.caller),
        destination=Name(record.destination),
    )


def note_loss(lines: int, now_us: int) -> UsageLoss:
    """Notes that up to so many lines are missing."""
    return UsageLoss(Instant(now_us * 1000), lines)
