"""Defines the line of JSON that a usage record is written as, the same for every sink.

What a line shows of a value depends on the value's type
(`extauthz.telemetry.decision_log.masking`). A line holds no credential, no user, no path and no
query. What was not reported is left out. docs/reference/usage.md describes the fields.
"""

from __future__ import annotations

import json
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
    list_fields,
    write_fields,
)


class UsageLine(NamedTuple):
    """What is written of one record, in the order in which it is written."""

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


class _Loss(NamedTuple):
    """What is written where lines are missing."""

    time: Instant
    lost: int


_FIELDS: Final = list_fields(UsageLine)
_LOSS_FIELDS: Final = list_fields(_Loss)
_WRITE: Final = json.JSONEncoder(separators=(",", ":")).encode


def write_line(record: UsageRecord, masks: Masks) -> bytes:
    """Writes a record as one line of JSON, without the end of the line."""
    line = UsageLine(
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
    shown = write_fields(line, _FIELDS, masks)
    if record.at_us == UNKNOWN:
        del shown["time"]
    return _WRITE(
        {name: value for name, value in shown.items() if value not in (UNKNOWN, "", [])}
    ).encode()


def write_loss(lines: int, now_us: int) -> bytes:
    """Writes a line that says how many lines are missing at most, without the end of the line."""
    loss = _Loss(Instant(now_us * 1000), lines)
    return _WRITE(write_fields(loss, _LOSS_FIELDS, Masks())).encode()
