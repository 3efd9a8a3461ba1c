"""What is found in a message of Envoy's access log, as an independent codec writes it, and when."""

from __future__ import annotations

import contextlib

import pytest
from envoy_data_plane.envoy.config.core.v3 import Node
from envoy_data_plane.envoy.data.accesslog.v3 import (
    HttpAccessLogEntry,
    HttpRequestProperties,
    TcpAccessLogEntry,
)
from envoy_data_plane.envoy.service.accesslog.v3 import (
    StreamAccessLogsMessage,
    StreamAccessLogsMessageHttpAccessLogEntries,
    StreamAccessLogsMessageIdentifier,
    StreamAccessLogsMessageTcpAccessLogEntries,
)
from hypothesis import given
from hypothesis import strategies as st

from extauthz.envoy import access_log_messages
from extauthz.envoy.access_log_messages import MAX_FIELDS, MAX_IDENTIFIER_BYTES, LogMessage
from extauthz.envoy.proto.access_log_pb2 import StreamAccessLogsMessage as OwnMessage
from extauthz.errors import MalformedRequest


def a_message(*entries: bytes) -> bytes:
    message = OwnMessage()
    message.http_logs.log_entry.extend(entries)
    return message.SerializeToString()


def test_a_message_has_its_entries_and_its_envoy() -> None:
    message = StreamAccessLogsMessage(
        identifier=StreamAccessLogsMessageIdentifier(node=Node(id="gateway-1"), log_name="x"),
        http_logs=StreamAccessLogsMessageHttpAccessLogEntries(
            log_entry=[HttpAccessLogEntry(), HttpAccessLogEntry(request=HttpRequestProperties())]
        ),
    )
    read = LogMessage(bytes(message))
    assert (read.proxy, list(read.entries()), len(read)) == (
        "gateway-1",
        [b"", b"\x1a\x00"],
        len(bytes(message)),
    )
    connections = StreamAccessLogsMessage(
        tcp_logs=StreamAccessLogsMessageTcpAccessLogEntries(log_entry=[TcpAccessLogEntry()] * 3)
    )
    read = LogMessage(bytes(connections))
    assert (read.proxy, list(read.entries())) == ("", [None] * 3)


@given(entries=st.lists(st.binary(max_size=40_000), max_size=5), proxy=st.text(max_size=300))
def test_entries_of_any_size_are_found(entries: list[bytes], proxy: str) -> None:
    message = OwnMessage()
    message.identifier.node.id = proxy.encode()
    message.http_logs.log_entry.extend(entries)
    assert list(LogMessage(message.SerializeToString()).entries()) == entries


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_message_or_refused(data: bytes) -> None:
    with contextlib.suppress(MalformedRequest):
        list(LogMessage(data).entries())


def test_what_a_later_envoy_may_add_is_skipped() -> None:
    fields = b"\x30\x96\x01" + b"\x39" + b"8" * 8 + b"\x45" + b"4444" + b"\x52\x03new"
    entry = b"\x0a\x02\x1a\x00"
    inside = b"\x12" + bytes([len(fields) + len(entry)]) + fields + entry
    read = LogMessage(fields + inside)
    assert list(read.entries()) == [None, None, None, None, b"\x1a\x00"]


@pytest.mark.parametrize(
    "data",
    [
        b"\xff",
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\x02\xff\xff",
        b"\x0b",  # a group
        b"\x02\x00",  # field 0
        b"\x39" + b"8" * 7,
        b"\x0a" + b"\xff" * 10 + b"\x01",
        a_message() * (MAX_FIELDS // 2) + b"\x12\x00" * (MAX_FIELDS + 1),
        b"\x0a" + b"\x81\x80\x10" + b"\x00" * (MAX_IDENTIFIER_BYTES + 1),
    ],
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        LogMessage(data)


def test_entries_that_are_cut_off_are_refused_when_it_is_their_turn() -> None:
    entries = LogMessage(b"\x12\x08" + b"\x0a\x02\x1a\x00" + b"\x0a\x09\x1a\x00").entries()
    assert next(entries) == b"\x1a\x00"
    with pytest.raises(MalformedRequest):
        next(entries)


def test_a_message_of_many_entries_is_not_taken_apart_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2,000,000 entries fit into 4 MiB."""
    read, numbers = access_log_messages._read_varint, 0

    def count(data: bytes, at: int, end: int) -> tuple[int, int]:
        nonlocal numbers
        numbers += 1
        return read(data, at, end)

    monkeypatch.setattr(access_log_messages, "_read_varint", count)
    entries = LogMessage(a_message(*[b""] * 100_000)).entries()
    assert numbers == 2
    assert next(entries) == b""
    assert numbers == 4
