"""What a record has of an entry of Envoy's access log, as an independent codec writes it."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from envoy_data_plane.envoy.config.core.v3 import Address, Metadata, Pipe, RequestMethod
from envoy_data_plane.envoy.data.accesslog.v3 import (
    AccessLogCommon,
    AccessLogType,
    HttpAccessLogEntry,
    HttpAccessLogEntryHttpVersion,
    HttpRequestProperties,
    HttpResponseProperties,
    ResponseFlags,
    ResponseFlagsUnauthorized,
    TlsProperties,
    TlsPropertiesCertificateProperties,
    TlsPropertiesCertificatePropertiesSubjectAltName,
)
from envoy_data_plane.google.protobuf import Struct
from google.protobuf.struct_pb2 import Struct as StructMessage
from hypothesis import given
from hypothesis import strategies as st

from extauthz.envoy.access_log_entries import (
    _FLAGS,
    MAX_TEXT,
    AddressRules,
    find_record,
)
from extauthz.envoy.check_response import MAX_METADATA_CHARACTERS, MAX_METADATA_ITEMS
from extauthz.envoy.decision_metadata import BYTE_LIMITS, NAMESPACE, write_decision_metadata
from extauthz.envoy.proto.access_log_pb2 import ResponseFlags as OwnResponseFlags
from extauthz.errors import MalformedRequest
from extauthz.model.applications import Application
from extauthz.model.decision import Allow, Decision, Denial, Deny, Reason
from extauthz.model.identity import Identity, KeyType, SecurityScheme
from extauthz.model.limits import LimitLevel
from extauthz.model.routing.routes import Route
from extauthz.model.usage import UNKNOWN, UsageOutcome, UsageRecord, UsageSource
from tests.builders import a_resource, an_api
from tests.envoy.wire import an_address

START: Final = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)
RULES: Final = AddressRules()
RESOURCE = a_resource("/ip")
ROUTE = Route(an_api(RESOURCE), RESOURCE)
IDENTITY = Identity(
    scheme=SecurityScheme.JWT,
    application=Application(name="mobile"),
    user="alice",
    consumer_key="abc123",
    key_type=KeyType.SANDBOX,
)
ALLOW = Allow(id="d-1", route=ROUTE, identity=IDENTITY, tier="Gold", client_address="192.0.2.9")


def metadata_of(decision: Decision) -> Metadata:
    written = write_decision_metadata(decision, 345)
    return Metadata(filter_metadata={NAMESPACE: Struct.parse(written), "other": Struct()})


def an_entry(*, raw_agent: bytes = b"", **common: Any) -> bytes:
    """An entry with defaults for all but the point of a test."""
    common.setdefault("start_time", START)
    return bytes(HttpAccessLogEntry(common_properties=AccessLogCommon(**common))) + (
        bytes([0x1A, len(raw_agent) + 2, 0x32, len(raw_agent)]) + raw_agent if raw_agent else b""
    )


def read(data: bytes, rules: AddressRules = RULES) -> UsageRecord:
    record = find_record(data, "gateway-1", rules)
    assert record is not None
    return record


def test_every_field_is_read() -> None:
    entry = HttpAccessLogEntry(
        common_properties=AccessLogCommon(
            start_time=START,
            duration=timedelta(microseconds=900),
            time_to_first_upstream_tx_byte=timedelta(microseconds=100),
            time_to_last_upstream_rx_byte=timedelta(microseconds=700),
            time_to_last_downstream_tx_byte=timedelta(microseconds=800),
            downstream_remote_address=an_address("192.0.2.1"),
            upstream_cluster="httpbin",
            response_flags=ResponseFlags(
                upstream_request_timeout=True, downstream_connection_termination=True
            ),
            metadata=metadata_of(ALLOW),
            access_log_type=AccessLogType.DownstreamEnd,
            tls_properties=TlsProperties(
                peer_certificate_properties=TlsPropertiesCertificateProperties(
                    subject_alt_name=[
                        TlsPropertiesCertificatePropertiesSubjectAltName(dns="a.example"),
                        TlsPropertiesCertificatePropertiesSubjectAltName(uri="spiffe://a/b"),
                    ],
                    subject="CN=a",
                )
            ),
        ),
        protocol_version=HttpAccessLogEntryHttpVersion.HTTP2,
        request=HttpRequestProperties(
            request_method=RequestMethod.PATCH,
            authority="API.example.com:443",
            path="/secret?apikey=secret",
            user_agent="curl/8",
            request_id="r-1",
            request_headers_bytes=1,
            request_body_bytes=20,
        ),
        response=HttpResponseProperties(
            response_code=504, response_body_bytes=30, response_code_details="response_timeout"
        ),
    )
    assert read(bytes(entry)) == UsageRecord(
        source=UsageSource.ENVOY_ACCESS_LOG,
        at_us=round(START.timestamp() * 1e6),
        duration_us=900,
        decision_us=345,
        upstream_us=600,
        proxy="gateway-1",
        api="HttpbinAPI",
        version="1.0.0",
        resource="/ip",
        method="PATCH",
        host="api.example.com",
        protocol="HTTP/2",
        application="mobile",
        consumer_key="abc123",
        user="alice",
        tier="Gold",
        key_type="SANDBOX",
        client_address="192.0.2.9",
        user_agent="curl/8",
        caller="spiffe://a/b",
        destination="httpbin",
        response_code=504,
        flags=("UT", "DC"),
        details="response_timeout",
        request_bytes=20,
        response_bytes=30,
        outcome=UsageOutcome.ALLOW,
        decision_id="d-1",
        request_id="r-1",
    )


def test_what_envoy_does_not_fill_is_not_guessed() -> None:
    record = read(an_entry())
    assert record == UsageRecord(
        source=UsageSource.ENVOY_ACCESS_LOG,
        at_us=round(START.timestamp() * 1e6),
        proxy="gateway-1",
        response_code=0,
        request_bytes=0,
        response_bytes=0,
    )


@pytest.mark.parametrize("level", [None, *LimitLevel])
@pytest.mark.parametrize("reason", list(Reason))
def test_a_denial_is_read_with_its_reason(reason: Reason, level: LimitLevel | None) -> None:
    denial = Denial(reason=reason, level=level, rule="some-rule")
    record = read(an_entry(metadata=metadata_of(Deny(id="2", denial=denial))))
    assert (record.outcome, record.reason) == (UsageOutcome.DENY, reason.value)
    assert record.level == ("" if level is None else level.value)
    assert record.rule == "some-rule"


@pytest.mark.parametrize(
    ("details", "outcome", "reason"),
    [
        ("ext_authz_error", UsageOutcome.DENY, "unavailable"),
        ("via_upstream", UsageOutcome.UNKNOWN, ""),
        ("route_not_found", UsageOutcome.UNKNOWN, ""),
        ("", UsageOutcome.UNKNOWN, ""),
    ],
)
def test_a_request_without_a_decision_is_told_apart(
    details: str, outcome: UsageOutcome, reason: str
) -> None:
    entry = HttpAccessLogEntry(
        common_properties=AccessLogCommon(start_time=START),
        response=HttpResponseProperties(response_code_details=details),
    )
    record = read(bytes(entry))
    assert (record.outcome, record.reason) == (outcome, reason)


@pytest.mark.parametrize("kind", list(AccessLogType))
def test_only_an_entry_of_a_whole_request_is_a_record(kind: AccessLogType) -> None:
    is_whole = kind in {AccessLogType.NotSet, AccessLogType.DownstreamEnd}
    found = find_record(an_entry(access_log_type=kind), "", RULES)
    assert (found is not None) == is_whole
    with pytest.warns(DeprecationWarning, match="intermediate_log_entry"):  # older Envoys fill it
        intermediate = an_entry(access_log_type=kind, intermediate_log_entry=True)
    assert find_record(intermediate, "", RULES) is None


def test_every_flag_of_the_api_has_its_word() -> None:
    of_the_api = {name for name in ResponseFlags.__dataclass_fields__ if name != "_unknown_fields"}
    assert set(_FLAGS) == of_the_api == set(OwnResponseFlags.DESCRIPTOR.fields_by_name)
    assert len(set(_FLAGS.values())) == len(_FLAGS)
    for name, word in _FLAGS.items():
        value: Any = ResponseFlagsUnauthorized() if name == "unauthorized_details" else True
        entry = an_entry(response_flags=ResponseFlags(**{name: value}))
        assert read(entry).flags == (word,), name


@pytest.mark.parametrize(
    ("hops", "use", "forwarded_for", "expected"),
    [
        (0, None, "", "192.0.2.1"),
        (0, None, "198.51.100.7", "192.0.2.1"),
        (1, None, "198.51.100.7,192.0.2.1", "198.51.100.7"),
        (1, False, "198.51.100.7", "198.51.100.7"),
        (1, None, "", ""),
    ],
)
def test_an_address_that_no_decision_told_is_found_by_the_same_rules(
    hops: int,
    use: bool | None,  # noqa: FBT001 - a case of the table
    forwarded_for: str,
    expected: str,
) -> None:
    entry = HttpAccessLogEntry(
        common_properties=AccessLogCommon(
            start_time=START, downstream_remote_address=an_address("192.0.2.1")
        ),
        request=HttpRequestProperties(forwarded_for=forwarded_for),
    )
    rules = AddressRules(trusted_hops=hops, use_remote_address=use)
    assert read(bytes(entry), rules).client_address == expected


def test_a_pipe_has_no_address() -> None:
    address = Address(pipe=Pipe(path="/run/a.sock"))
    assert read(an_entry(downstream_remote_address=address)).client_address == ""


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (b"\xff\xfe", "ÿþ"),
        ("ß".encode(), "ß"),
        (b"x" * 120, "x" * 120),
    ],
)
def test_a_user_agent_of_any_bytes_is_read(agent: bytes, expected: str) -> None:
    assert read(an_entry(raw_agent=agent)).user_agent == expected


def test_a_long_text_of_a_client_is_cut() -> None:
    entry = HttpAccessLogEntry(
        common_properties=AccessLogCommon(start_time=START),
        request=HttpRequestProperties(user_agent="é" * 10_000, request_id="r" * 10_000),
    )
    record = read(bytes(entry))
    assert (record.user_agent, record.request_id) == ("é" * MAX_TEXT, "r" * MAX_TEXT)


def test_metadata_that_no_decision_left_is_cut_to_what_one_may_leave() -> None:
    texts = dict.fromkeys(("api", "application", "client_address", "rule"), "a" * 10_000)
    told = StructMessage()
    told.update({**texts, "reason": "allowed", BYTE_LIMITS: ["n" * 10_000] * 1_000})
    metadata = Metadata(filter_metadata={NAMESPACE: Struct.parse(told.SerializeToString())})
    record = read(an_entry(metadata=metadata))
    most = "a" * MAX_METADATA_CHARACTERS
    assert (record.api, record.application, record.rule) == (most, most, most)
    assert record.client_address == most
    assert record.byte_limits == ("n" * MAX_METADATA_CHARACTERS,) * MAX_METADATA_ITEMS


def test_a_number_that_no_request_can_have_is_not_known() -> None:
    entry = HttpAccessLogEntry(
        common_properties=AccessLogCommon(start_time=START, duration=timedelta(days=200_000)),
        request=HttpRequestProperties(request_body_bytes=2**53 + 1),
        response=HttpResponseProperties(response_body_bytes=2**64 - 1),
    )
    record = read(bytes(entry))
    assert (record.request_bytes, record.response_bytes) == (UNKNOWN, UNKNOWN)
    assert record.duration_us == UNKNOWN


@pytest.mark.parametrize("data", [b"", b"\x0a\x00", b"\xff", b"\x0a\x05\x8a\x01\x02\x0a\xff"])
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        find_record(data, "", RULES)


@given(data=st.binary(max_size=200))
def test_any_bytes_are_an_entry_or_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedRequest):
        find_record(data, "", RULES)


@given(start=st.integers(min_value=-(2**63), max_value=2**63 - 1), nanos=st.integers(0, 2**31 - 1))
def test_any_time_can_be_written_or_is_refused(start: int, nanos: int) -> None:
    from extauthz.envoy.proto.access_log_pb2 import HTTPAccessLogEntry

    entry = HTTPAccessLogEntry()
    entry.common_properties.start_time.seconds = start
    entry.common_properties.start_time.nanos = nanos
    try:
        record = find_record(entry.SerializeToString(), "", RULES)
    except MalformedRequest:
        return
    assert record is not None and record.at_us >= 0
