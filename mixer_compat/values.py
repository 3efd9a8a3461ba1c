"""Converts Mixer's typed values (istio.policy.v1beta1.Value) to text, numbers and times.

A value of an unexpected type is converted when that is meaningful, and otherwise counts as absent.
No value makes a function of this module raise; only too many of them do (`check_count`).
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
"""The end of the year 9999, the latest time of a Timestamp, in Unix seconds."""


MAX_VALUES: Final = 256
"""The most values of one instance. Manifests list them one by one, so real ones have far fewer."""


def check_count(*values: Values) -> None:
    """Checks that the maps of an instance are small enough to be read quickly.

    Raises:
        MalformedRequest: they have more than `MAX_VALUES` values together.
    """
    if sum(map(len, values)) > MAX_VALUES:
        raise MalformedRequest(f"the instance has more than {MAX_VALUES} properties")


def read_text(value: Value) -> str:
    """The value as text; empty for a type that has no text.

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
    """The IP address as text; empty for the unspecified address and for other numbers of bytes.

    IPv4 is sent in 4 bytes, or mapped into IPv6 in 16. The unspecified address is the default of
    Mixer's expressions for a missing one: ``source.ip | ip("0.0.0.0")``.
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
    """The time in microseconds since the Unix epoch; 0 for an earlier or an invalid time."""
    if not 0 <= time.seconds <= _LAST_S or not 0 <= time.nanos < _S * _NS_PER_US:
        return 0
    return time.seconds * _S + time.nanos // _NS_PER_US


def _read_duration_us(duration: Duration) -> int:
    if not 0 <= duration.seconds <= _LAST_S or not 0 <= duration.nanos < _S * _NS_PER_US:
        return 0
    return duration.seconds * _S + duration.nanos // _NS_PER_US


def put_duration(duration: Duration, us: int) -> None:
    """Sets a duration to `us` microseconds."""
    duration.seconds, rest_us = divmod(us, _S)
    duration.nanos = rest_us * _NS_PER_US


def _write_seconds(us: int) -> str:
    seconds, rest_us = divmod(us, _S)
    return f"{seconds}.{rest_us:06d}".rstrip("0") if rest_us else str(seconds)


def find_text(values: Values, name: str) -> str:
    """The named value as text; empty when it is not there."""
    # Reading a missing key of a protobuf map adds an entry for it.
    return read_text(values[name]) if name in values else ""


def strip_quotes(operation: str) -> str:
    """Removes one pair of quotes, with which WSO2's Publisher wrote ``api.operation``."""
    is_quoted = len(operation) >= 2 and operation[0] == operation[-1] == '"'
    return operation[1:-1] if is_quoted else operation


def find_number(values: Values, name: str, absent: int) -> int:
    """The named value as a whole number; `absent` when it is missing or not a number."""
    text = find_text(values, name)
    digits = text.removeprefix("-")
    # Mixer's integers have 64 bits, so a longer text is not one of them.
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 19):
        return absent
    return int(text)


def find_time_us(values: Values, name: str) -> int:
    """The named time in microseconds since the Unix epoch; 0 when it is missing or not a time."""
    if name not in values or values[name].WhichOneof("value") != "timestamp_value":
        return 0
    return read_time_us(values[name].timestamp_value.value)


def find_duration_us(values: Values, name: str) -> int:
    """The named duration in microseconds; -1 when it is missing or not a duration."""
    if name not in values or values[name].WhichOneof("value") != "duration_value":
        return -1
    return _read_duration_us(values[name].duration_value.value)
