"""Reads the entries of Envoy's gRPC access log (ALS v3) into usage records.

Who called, and what was decided, is read from the dynamic metadata that the decision left
(`extauthz.envoy.decision_metadata`): only filters can write it, so a client cannot. What clients do
choose, like the user agent, is cut to `MAX_TEXT` characters, and metadata to what a decision writes:
whoever reaches the listener may send entries, and many records wait in memory. Neither the path nor
the query is read: clients put secrets into both.

Source: envoy/data/accesslog/v3/accesslog.proto. What Envoy fills, and when, is listed in
docs/reference/usage.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct

from extauthz.envoy.check_response import MAX_METADATA_CHARACTERS, MAX_METADATA_ITEMS
from extauthz.envoy.decision_metadata import BYTE_LIMITS, NAMESPACE
from extauthz.envoy.proto.access_log_pb2 import (
    AccessLogCommon,
    HTTPAccessLogEntry,
    ResponseFlags,
    TLSProperties,
)
from extauthz.errors import MalformedRequest
from extauthz.model.decision import Reason
from extauthz.model.request import ApiRequest, Headers, Peer, read_field_value
from extauthz.model.routing.authority import read_host
from extauthz.model.usage import UNKNOWN, UsageOutcome, UsageRecord, UsageSource
from extauthz.policy.request.client_address import read_client_address

MAX_TEXT: Final = 256

_ALLOWED: Final = "allowed"
_UNDECIDED: Final = "ext_authz_error"
"""Envoy's detail of a response when it had no decision, and refused the request for that."""
_WHOLE_REQUESTS: Final = frozenset({0, 6})
"""AccessLogType NotSet (Envoy up to 1.25) and DownstreamEnd; others tell of parts of a request."""
_METHODS: Final = (
    "", "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
)  # fmt: skip
"""RequestMethod, by its numbers. Envoy reports any other method as 0."""
_PROTOCOLS: Final = ("", "HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3")
"""HTTPVersion, by its numbers; as in `extauthz.model.request.ApiRequest.protocol`."""
_FLAGS: Final = {
    "failed_local_healthcheck": "LH",
    "no_healthy_upstream": "UH",
    "upstream_request_timeout": "UT",
    "local_reset": "LR",
    "upstream_remote_reset": "UR",
    "upstream_connection_failure": "UF",
    "upstream_connection_termination": "UC",
    "upstream_overflow": "UO",
    "no_route_found": "NR",
    "delay_injected": "DI",
    "fault_injected": "FI",
    "rate_limited": "RL",
    "unauthorized_details": "UAEX",
    "rate_limit_service_error": "RLSE",
    "downstream_connection_termination": "DC",
    "upstream_retry_limit_exceeded": "URX",
    "stream_idle_timeout": "SI",
    "invalid_envoy_request_headers": "IH",
    "downstream_protocol_error": "DPE",
    "upstream_max_stream_duration_reached": "UMSDR",
    "response_from_cache_filter": "RFCF",
    "no_filter_config_found": "NFCF",
    "duration_timeout": "DT",
    "upstream_protocol_error": "UPE",
    "no_cluster_found": "NC",
    "overload_manager": "OM",
    "dns_resolution_failure": "DF",
    "downstream_remote_reset": "DR",
}
"""ResponseFlags, and the words of %RESPONSE_FLAGS% in text access logs."""
_MAX_CACHED_FLAGS: Final = 64
_MOST: Final = 2**53
"""No number of a request is larger; collectors take none of more than 63 bits."""
_YEAR_10000_S: Final = 253_402_300_800
"""The end of what RFC 3339, and a protobuf Timestamp, can say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """See `extauthz.policy.request.client_address.read_client_address`."""

    trusted_hops: int = 0
    use_remote_address: bool | None = None


def find_record(data: bytes, proxy: str, rules: AddressRules) -> UsageRecord | None:
    """Reads a serialised envoy.data.accesslog.v3.HTTPAccessLogEntry.

    Args:
        data: the entry.
        proxy: the Envoy that reports.
        rules: how the client's address is found.

    Returns:
        The record; None when the entry is not about a whole request: Envoy can also report a new
        request, one that still runs, or an attempt at an upstream.

    Raises:
        MalformedRequest: the bytes are no such entry, or do not say when the request began.
    """
    try:
        entry = HTTPAccessLogEntry.FromString(data)
        common = entry.common_properties
        if common.intermediate_log_entry or common.access_log_type not in _WHOLE_REQUESTS:
            return None
        decided = Struct.FromString(common.metadata.filter_metadata.get(NAMESPACE, b""))
        flags = _find_flags(common.response_flags)
    except DecodeError as exc:
        raise MalformedRequest("the entry is not an HTTPAccessLogEntry (ALS v3)") from exc
    began_s = common.start_time.seconds
    if not 0 < began_s < _YEAR_10000_S or not 0 <= common.start_time.nanos < 1_000_000_000:
        raise MalformedRequest("the entry does not say when its request began")
    request, response, told = entry.request, entry.response, _Decided(decided)
    details = _read_text(response.response_code_details)
    outcome, reason = _judge(told.find_text("reason"), details)
    return UsageRecord(
        source=UsageSource.ENVOY_ACCESS_LOG,
        at_us=began_s * 1_000_000 + common.start_time.nanos // 1000,
        duration_us=_find_duration_us(common),
        decision_us=told.find_number("decision_us"),
        upstream_us=_find_upstream_us(common),
        proxy=proxy,
        api=told.find_text("api"),
        version=told.find_text("version"),
        resource=told.find_text("resource"),
        method=_find_word(_METHODS, request.request_method),
        host=read_host(_read_text(request.authority)) or "",
        protocol=_find_word(_PROTOCOLS, entry.protocol_version),
        application=told.find_text("application"),
        consumer_key=told.find_text("consumer_key"),
        user=told.find_text("user"),
        tier=told.find_text("tier"),
        key_type=told.find_text("key_type"),
        client_address=told.find_text("client_address")
        or _find_client_address(common, request.forwarded_for, rules),
        user_agent=_read_text(request.user_agent),
        caller=_find_caller(common.tls_properties) if common.HasField("tls_properties") else "",
        destination=_read_text(common.upstream_cluster),
        response_code=response.response_code.value,
        flags=flags,
        details=details,
        request_bytes=_read_number(request.request_body_bytes),
        response_bytes=_read_number(response.response_body_bytes),
        outcome=outcome,
        reason=reason,
        level=told.find_text("level"),
        rule=told.find_text("rule"),
        decision_id=told.find_text("decision_id"),
        request_id=_read_text(request.request_id),
        byte_limits=told.find_texts(BYTE_LIMITS) if outcome is UsageOutcome.ALLOW else (),
    )


class _Decided:
    """What a decision left in the request's metadata."""

    __slots__ = ("_fields",)

    def __init__(self, decided: Struct) -> None:
        self._fields = decided.fields

    def find_text(self, name: str) -> str:
        value = self._fields.get(name)
        return "" if value is None else value.string_value[:MAX_METADATA_CHARACTERS]

    def find_texts(self, name: str) -> tuple[str, ...]:
        value = self._fields.get(name)
        if value is None:
            return ()
        values = value.list_value.values[:MAX_METADATA_ITEMS]
        return tuple(value.string_value[:MAX_METADATA_CHARACTERS] for value in values)

    def find_number(self, name: str) -> int:
        value = self._fields.get(name)
        if value is None:
            return UNKNOWN
        number = value.number_value
        return int(number) if 0 <= number <= _MOST else UNKNOWN


def _judge(reason: str, details: str) -> tuple[UsageOutcome, str]:
    if reason == _ALLOWED:
        return UsageOutcome.ALLOW, ""
    if reason:
        return UsageOutcome.DENY, reason
    if details == _UNDECIDED:
        return UsageOutcome.DENY, Reason.UNAVAILABLE.value
    return UsageOutcome.UNKNOWN, ""


def _find_duration_us(common: AccessLogCommon) -> int:
    if common.HasField("duration"):
        return _read_us(common.duration)
    if common.HasField("time_to_last_downstream_tx_byte"):
        return _read_us(common.time_to_last_downstream_tx_byte)
    return UNKNOWN


def _find_upstream_us(common: AccessLogCommon) -> int:
    first, last = "time_to_first_upstream_tx_byte", "time_to_last_upstream_rx_byte"
    if not (common.HasField(first) and common.HasField(last)):
        return UNKNOWN
    took_us = _read_us(common.time_to_last_upstream_rx_byte) - _read_us(
        common.time_to_first_upstream_tx_byte
    )
    return _read_number(took_us)


def _read_us(duration: Duration) -> int:
    return _read_number(duration.seconds * 1_000_000 + duration.nanos // 1000)


def _read_number(number: int) -> int:
    return number if 0 <= number <= _MOST else UNKNOWN


def _find_client_address(common: AccessLogCommon, forwarded_for: bytes, rules: AddressRules) -> str:
    address = common.downstream_remote_address
    peer = Peer(
        address=address.socket_address.address,
        is_local=address.WhichOneof("address") in {"pipe", "envoy_internal_address"},
    )
    headers = Headers([("x-forwarded-for", read_field_value(forwarded_for))])
    return read_client_address(
        ApiRequest(method="", host="", path="", headers=headers, source=peer),
        rules.trusted_hops,
        use_remote_address=rules.use_remote_address,
    )


def _find_caller(tls: TLSProperties) -> str:
    """The principal in the client's certificate, chosen as in CheckRequests."""
    certificate = tls.peer_certificate_properties
    names = certificate.subject_alt_name
    uri = next((name.uri for name in names if name.uri), b"")
    dns = next((name.dns for name in names if name.dns), b"")
    return _read_text(uri or dns or certificate.subject)


def _read_flags(data: bytes) -> tuple[str, ...]:
    told = ResponseFlags.FromString(data).ListFields()
    return tuple(_FLAGS[field.name] for field, _ in told)


_cached_flags = lru_cache(maxsize=256)(_read_flags)


def _find_flags(data: bytes) -> tuple[str, ...]:
    if not data:
        return ()
    return _cached_flags(data) if len(data) <= _MAX_CACHED_FLAGS else _read_flags(data)


def _find_word(words: tuple[str, ...], number: int) -> str:
    return words[number] if 0 <= number < len(words) else ""


def _read_text(value: bytes) -> str:
    return read_field_value(value[: 4 * MAX_TEXT])[:MAX_TEXT]
