"""The line that is written of a record: masked, complete, and without what is not known."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.usage import UsageOutcome, UsageRecord, UsageSource
from extauthz.telemetry.decision_log.masking import AddressMask, Masks
from extauthz.telemetry.decision_log.sinks import Entry
from extauthz.usage.record import note_loss, note_usage

RECORD: Final = UsageRecord(
    source=UsageSource.ENVOY_ACCESS_LOG,
    at_us=1_767_323_045_678_901,
    duration_us=1,
    decision_us=2,
    upstream_us=3,
    proxy="gateway-1",
    api="HttpbinAPI",
    version="1.0.0",
    resource="/ip",
    method="GET",
    host="api.example.com",
    path="/a-secret-path",
    protocol="HTTP/2",
    application="mobile",
    consumer_key="a-consumer-key",
    user="a-user",
    tier="Gold",
    key_type="PRODUCTION",
    client_address="192.0.2.9",
    user_agent="curl/8",
    caller="spiffe://a/b",
    destination="httpbin",
    response_code=429,
    flags=("UAEX", "DC"),
    details="ext_authz_denied",
    request_bytes=4,
    response_bytes=5,
    outcome=UsageOutcome.DENY,
    reason="rate_limited",
    level="subscription",
    rule="Gold",
    decision_id="d-1",
    request_id="r-1",
    trace_id="t-1",
)


def write_line(record: UsageRecord, masks: Masks) -> bytes:
    return Entry(note_usage(record), masks).line


def test_a_line_has_every_field_and_masks_it() -> None:
    line = write_line(RECORD, Masks())
    shown = json.loads(line)
    assert len(shown.pop("consumer_key")) == 16
    assert shown == {
        "time": "2026-01-02T03:04:05.678901+00:00",
        "source": "envoy_access_log",
        "proxy": "gateway-1",
        "decision": "d-1",
        "request": "r-1",
        "trace_id": "t-1",
        "outcome": "deny",
        "reason": "rate_limited",
        "level": "subscription",
        "rule": "Gold",
        "api": "HttpbinAPI",
        "version": "1.0.0",
        "resource": "/ip",
        "application": "mobile",
        "tier": "Gold",
        "key_type": "PRODUCTION",
        "method": "GET",
        "host": "api.example.com",
        "protocol": "HTTP/2",
        "status": 429,
        "flags": ["UAEX", "DC"],
        "details": "ext_authz_denied",
        "request_bytes": 4,
        "response_bytes": 5,
        "duration_us": 1,
        "decision_us": 2,
        "upstream_us": 3,
        "user_agent": "curl/8",
        "client_address": "192.0.2.0/24",
        "caller": "spiffe://a/b",
        "destination": "httpbin",
    }
    for hidden in (b"a-secret-path", b"a-user", b"a-consumer-key"):
        assert hidden not in line


def test_what_is_not_known_is_left_out() -> None:
    line = write_line(UsageRecord(source=UsageSource.MIXER_EDGE), Masks())
    assert json.loads(line) == {"source": "mixer_edge", "outcome": "unknown"}


def test_a_zero_is_known() -> None:
    record = UsageRecord(source=UsageSource.MIXER_EDGE, response_code=0, request_bytes=0)
    shown = json.loads(write_line(record, Masks()))
    assert (shown["status"], shown["request_bytes"]) == (0, 0)


@pytest.mark.parametrize("mask", list(AddressMask))
def test_an_address_is_masked_as_the_settings_say(mask: AddressMask) -> None:
    line = write_line(RECORD, Masks(client_address=mask))
    assert (b"192.0.2.9" in line) == (mask is AddressMask.FULL)


@given(text=st.text(max_size=300))
def test_what_a_client_chose_is_never_more_than_a_part_of_one_line(text: str) -> None:
    record = replace(RECORD, user_agent=text, request_id=text, host=text, method=text)
    line = write_line(record, Masks())
    assert b"\n" not in line and line.isascii()
    assert json.loads(line)["source"] == "envoy_access_log"


def test_a_loss_is_a_line_of_its_own() -> None:
    assert note_loss(12, RECORD.at_us).write(Masks()) == {
        "time": "2026-01-02T03:04:05.678901+00:00",
        "lost": 12,
    }
