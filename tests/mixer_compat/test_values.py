"""Mixer's typed values, read as text, numbers and times."""

from __future__ import annotations

import pytest
from google.protobuf.duration_pb2 import Duration as WireDuration
from google.protobuf.timestamp_pb2 import Timestamp

from mixer_compat.proto.policy_pb2 import (
    DNSName,
    Duration,
    EmailAddress,
    IPAddress,
    StringMap,
    TimeStamp,
    Uri,
    Value,
)
from mixer_compat.values import (
    find_duration_us,
    find_number,
    find_text,
    find_time_us,
    read_address,
    read_text,
)
from tests.builders import S


def a_time(seconds: int, nanos: int = 0) -> Value:
    stamp = Timestamp(seconds=seconds, nanos=nanos)
    return Value(timestamp_value=TimeStamp(value=stamp))


def a_duration(seconds: int, nanos: int = 0) -> Value:
    return Value(duration_value=Duration(value=WireDuration(seconds=seconds, nanos=nanos)))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Value(), ""),
        (Value(string_value="a b"), "a b"),
        (Value(int64_value=-7), "-7"),
        (Value(double_value=2.5), "2.5"),
        (Value(bool_value=True), "true"),
        (Value(bool_value=False), "false"),
        (Value(ip_address_value=IPAddress(value=bytes([10, 0, 0, 1]))), "10.0.0.1"),
        (a_time(1_577_934_245), "1577934245"),
        (a_time(1, 250_000_000), "1.25"),
        (a_duration(5), "5"),
        (a_duration(0, 1_000_000), "0.001"),
        (Value(email_address_value=EmailAddress(value="a@b.example")), "a@b.example"),
        (Value(dns_name_value=DNSName(value="a.example")), "a.example"),
        (Value(uri_value=Uri(value="http://a/b")), "http://a/b"),
        (Value(string_map_value=StringMap(value={"a": "b"})), ""),
    ],
)
def test_a_value_is_text(value: Value, text: str) -> None:
    assert read_text(value) == text
    assert find_text({"n": value}, "n") == text
    assert find_text({"n": value}, "other") == ""


@pytest.mark.parametrize(
    ("octets", "address"),
    [
        (bytes([192, 0, 2, 1]), "192.0.2.1"),
        (bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1]), "192.0.2.1"),
        (bytes([0x20, 0x01, 0x0D, 0xB8]) + bytes(11) + b"\x01", "2001:db8::1"),
        (bytes(4), ""),
        (bytes(10) + b"\xff\xff" + bytes(4), ""),
        (bytes(16), ""),
        (b"", ""),
        (b"\x01\x02\x03", ""),
        (bytes(17), ""),
    ],
)
def test_an_address_has_4_or_16_bytes(octets: bytes, address: str) -> None:
    assert read_address(octets) == address


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (Value(int64_value=200), 200),
        (Value(int64_value=-5), -5),
        (Value(string_value="404"), 404),
        (Value(string_value=""), -1),
        (Value(string_value="9" * 20), -1),
        (Value(string_value="\u0661"), -1),
        (Value(double_value=2.5), -1),
        (Value(bool_value=True), -1),
    ],
)
def test_a_number_is_a_whole_one(value: Value, number: int) -> None:
    assert find_number({"n": value}, "n", -1) == number


@pytest.mark.parametrize(
    ("value", "us"),
    [
        (a_time(1, 2_000), 1 * S + 2),
        (a_time(-1), 0),
        (a_time(2**40), 0),
        (a_time(1, -1), 0),
        (a_time(1, 2_000_000_000), 0),
        (Value(string_value="1"), 0),
        (a_duration(1), 0),
    ],
)
def test_a_time_is_after_the_epoch(value: Value, us: int) -> None:
    assert find_time_us({"n": value}, "n") == us


@pytest.mark.parametrize(
    ("value", "us"),
    [(a_duration(1, 2_000), 1 * S + 2), (a_duration(-1), 0), (a_time(1), -1), (Value(), -1)],
)
def test_a_duration_is_not_negative(value: Value, us: int) -> None:
    assert find_duration_us({"n": value}, "n") == us
