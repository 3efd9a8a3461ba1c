"""Reads Mixer's typed values (istio.policy.v1beta1.Value) as what a request or a report needs.

A value of an unexpected kind is read as far as it makes sense, and else as if it were absent:
whoever asks treats what is absent as missing, and no value makes anything in here raise.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Final, TypeAlias

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from extauthz.errors import MalformedRequest
from mixer_compat.proto.policy_pb2 import Value

Values: TypeAlias = Mapping[str, Value]

_S: Final = 1_000_000
_NS_PER_US: Final = 1000
_LAST_S: Final = 253_402_300_799
"""The end of the year 9999, the last that a Timestamp may name."""


MAX_VALUES: Final = 256
"""Of one instance. Manifests name them one by one, so nobody has so many."""


def check_count(*values: Values) -> None:
    """Refuses what would take long to read.

    Raises:
        MalformedRequest: there are more than `MAX_VALUES`.
    """
    if sum(map(len, values)) > MAX_VALUES:
        raise MalformedRequest(f"the instance has more than {MAX_VALUES} properties")


def read_text(value: Value) -> str:
    """The value as text; empty when it is none.

    Numbers are decimal, times are seconds since the Unix epoch, durations are seconds.
    """
    kind = value.WhichOneof("value")
    match kind:
        case "string_value":
            return value.string_value
        case "int64_value":
            return str(value.int64_value)
        case "double_value":
            return repr(value.double_value)
        case "bool_value":
            return "true" if value.bool_value else "false"
        case "ip_address_value":
            return read_address(value.ip_address_value.value)
        case "timestamp_value":
            return _write_seconds(read_time_us(value.timestamp_value.value))
        case "duration_value":
            return _write_seconds(_read_duration_us(value.duration_value.value))
        case "email_address_value":
            return value.email_address_value.value
        case "dns_name_value":
            return value.dns_name_value.value
        case "uri_value":
            return value.uri_value.value
        case _:
            return ""


@lru_cache(maxsize=4096)
def read_address(octets: bytes) -> str:
    """An IP address; empty for any other number of bytes, and for one that says "unknown".

    IPv4 comes in 4 bytes, or mapped into 16. The unspecified address is what Mixer's
    expressions stand in for a missing one: ``source.ip | ip("0.0.0.0")``.
    """
    if len(octets) == 4:
        address: IPv4Address | IPv6Address = IPv4Address(octets)
    elif len(octets) == 16:
        long = IPv6Address(octets)
        address = long.ipv4_mapped or long
    else:
        return ""
    return "" if address.is_unspecified else str(address)


def read_time_us(time: Timestamp) -> int:
    """Microseconds since the Unix epoch; 0 for what is no time after it."""
    if not 0 <= time.seconds <= _LAST_S or not 0 <= time.nanos < _S * _NS_PER_US:
        return 0
    return time.seconds * _S + time.nanos // _NS_PER_US


def _read_duration_us(duration: Duration) -> int:
    if not 0 <= duration.seconds <= _LAST_S or not 0 <= duration.nanos < _S * _NS_PER_US:
        return 0
    return duration.seconds * _S + duration.nanos // _NS_PER_US


def put_duration(duration: Duration, us: int) -> None:
    """Sets a duration to so many microseconds."""
    duration.seconds, rest_us = divmod(us, _S)
    duration.nanos = rest_us * _NS_PER_US


def _write_seconds(us: int) -> str:
    seconds, rest_us = divmod(us, _S)
    return f"{seconds}.{rest_us:06d}".rstrip("0") if rest_us else str(seconds)


def find_text(values: Values, name: str) -> str:
    """The named value as text; empty when it is not there."""
    # A protobuf map makes an entry for a key that is read: ask first.
    return read_text(values[name]) if name in values else ""


def strip_quotes(operation: str) -> str:
    """Without one pair of quotes: WSO2's Publisher wrote api.operation with them."""
    is_quoted = len(operation) >= 2 and operation[0] == operation[-1] == '"'
    return operation[1:-1] if is_quoted else operation


def find_number(values: Values, name: str, absent: int) -> int:
    """The named value as a whole number; `absent` when it is none."""
    text = find_text(values, name)
    digits = text.removeprefix("-")
    # Beyond what 64 bits hold, a text is no number that Mixer sent as one.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 19):
        return absent
    return int(text)


def find_time_us(values: Values, name: str) -> int:
    """The named time in microseconds since the Unix epoch; 0 when there is none."""
    if name not in values or values[name].WhichOneof("value") != "timestamp_value":
        return 0
    return read_time_us(values[name].timestamp_value.value)


def find_duration_us(values: Values, name: str) -> int:
    """The named duration in microseconds; -1 when there is none."""
    if name not in values or values[name].WhichOneof("value") != "duration_value":
        return -1
    return _read_duration_us(values[name].duration_value.value)
