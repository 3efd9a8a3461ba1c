"""Streams of access logs: read in small pieces, bounded, and closed when they bring junk."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest

from extauthz.counters.memory import MemoryCounterStore
from extauthz.envoy import access_logs
from extauthz.envoy.access_log_entries import AddressRules
from extauthz.envoy.access_log_messages import LogMessage
from extauthz.envoy.access_logs import (
    ACCESS_LOG_PATH,
    ENTRIES_AT_ONCE,
    MAX_ENTRY_BYTES,
    AccessLogs,
)
from extauthz.envoy.check_response import write_metadata
from extauthz.envoy.decision_metadata import BYTE_LIMITS, NAMESPACE
from extauthz.envoy.proto.access_log_pb2 import HTTPAccessLogEntry, StreamAccessLogsMessage
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Taking
from extauthz.model.usage import UsageRecord
from extauthz.policy.limits.byte_charges import ByteCharger
from extauthz.serving.methods import Call, RpcCode, RpcFailure
from tests.builders import FakeClock


class Told:
    """A `UsageObserver` that remembers what it is told, and may fail."""

    def __init__(self) -> None:
        self.records: list[UsageRecord] = []
        self.fails = False

    def observe_usage(self, record: UsageRecord) -> None:
        if self.fails:
            raise RuntimeError("a defect")
        self.records.append(record)


def an_entry(request_id: str = "", *, kind: int = 6) -> bytes:
    entry = HTTPAccessLogEntry()
    entry.common_properties.start_time.seconds = 1_700_000_000
    entry.common_properties.access_log_type = kind
    entry.request.request_id = request_id.encode()
    return entry.SerializeToString()


def a_message(*entries: bytes, proxy: str = "") -> bytes:
    message = StreamAccessLogsMessage()
    if proxy:
        message.identifier.node.id = proxy.encode()
    message.http_logs.log_entry.extend(entries)
    return message.SerializeToString()


async def messages(sent: Iterable[bytes]) -> AsyncIterator[bytes]:
    for message in sent:
        yield message


def some_logs(max_waiting_bytes: int = 1_000_000) -> tuple[AccessLogs, Told]:
    told = Told()
    clock = FakeClock()
    charger = ByteCharger(MemoryCounterStore(clock), clock)
    return AccessLogs(AddressRules(), told, charger, max_waiting_bytes=max_waiting_bytes), told


async def test_every_entry_of_a_stream_is_told_with_its_envoy() -> None:
    logs, told = some_logs()
    sent = [a_message(an_entry("1"), an_entry("2"), proxy="a"), a_message(an_entry("3"))]
    assert await logs.receive(messages(sent), Call()) == b""
    await logs.finish()
    assert [(record.request_id, record.proxy) for record in told.records] == [
        ("1", "a"),
        ("2", "a"),
        ("3", "a"),
    ]
    assert (logs.records, logs.streams, logs.waiting_bytes, logs.unreadable) == (3, 0, 0, 0)


async def test_what_is_no_finished_request_is_counted_and_left_out() -> None:
    logs, told = some_logs()
    connections = StreamAccessLogsMessage()
    connections.tcp_logs.log_entry.extend([b"", b""])
    sent = [a_message(an_entry(kind=4), an_entry("1")), connections.SerializeToString()]
    await logs.receive(messages(sent), Call())
    await logs.finish()
    assert [record.request_id for record in told.records] == ["1"]
    assert (logs.records, logs.skipped) == (1, 3)


async def test_only_a_few_entries_are_read_in_a_turn_of_the_loop() -> None:
    logs, told = some_logs()
    await logs.receive(messages([a_message(*[an_entry()] * 40)] * 2), Call())
    reading = asyncio.create_task(logs.finish())
    most = 0
    while not reading.done():
        before = len(told.records)
        await asyncio.sleep(0)
        most = max(most, len(told.records) - before)
    assert most == ENTRIES_AT_ONCE
    assert len(told.records) == 80


@pytest.mark.parametrize(
    "junk",
    [b"\xff", a_message(b"\xff"), a_message(b""), b"\x12\x03abc"],
    ids=["no message", "no entry", "an empty entry", "a message cut off"],
)
async def test_a_stream_of_junk_ends_with_a_status(
    junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    logs, told = some_logs()

    async def send() -> AsyncIterator[bytes]:
        yield a_message(an_entry("good"))
        yield junk
        await logs.finish()
        yield a_message(an_entry("too late"))

    with caplog.at_level(logging.WARNING), pytest.raises(RpcFailure) as failure:
        await logs.receive(send(), Call())
    await logs.finish()
    assert failure.value.code is RpcCode.INVALID_ARGUMENT
    assert [record.request_id for record in told.records] == ["good"]
    assert (logs.unreadable, logs.streams) == (1, 0)
    assert len(caplog.records) == 1


async def test_no_message_is_read_while_too_much_waits() -> None:
    message = a_message(an_entry("1"))
    logs, told = some_logs(max_waiting_bytes=len(message))
    taken = 0

    async def send() -> AsyncIterator[bytes]:
        nonlocal taken
        for _ in range(5):
            taken += 1
            yield message

    streams = [asyncio.create_task(logs.receive(send(), Call())) for _ in range(2)]
    for _ in range(20):
        await asyncio.sleep(0)
    # One message waits to be read, and each stream holds one more.
    assert (taken, logs.waiting_bytes) == (3, len(message) + access_logs._MESSAGE_BYTES)
    reading = asyncio.create_task(logs.run())
    await asyncio.gather(*streams)
    logs.end()
    await reading
    assert len(told.records) == 10


async def test_a_message_of_tiny_entries_takes_a_turn_for_each_few_of_them() -> None:
    """2,000,000 of them fit into a message; taken apart at once, they hold up every decision."""
    logs, _ = some_logs(max_waiting_bytes=8 * 1024 * 1024)
    connections = StreamAccessLogsMessage()
    connections.tcp_logs.log_entry.extend([b""] * 1_000)
    sent = [a_message(*[b""] * 1_000), connections.SerializeToString()]
    await logs.receive(messages(sent), Call())
    assert logs.waiting_bytes < sum(map(len, sent)) + 2_000, "they wait as they came"
    reading = asyncio.create_task(logs.finish())
    turns, most = 0, 0
    while not reading.done():
        before = logs.unreadable, logs.skipped
        await asyncio.sleep(0)
        turns += 1
        most = max(most, logs.unreadable - before[0], logs.skipped - before[1])
    assert (logs.unreadable, logs.skipped, logs.waiting_bytes) == (1_000, 1_000, 0)
    assert most <= 64 and turns >= 1_000 // ENTRIES_AT_ONCE


async def test_large_entries_are_read_one_in_a_turn_and_no_larger_ones() -> None:
    def large(bytes_: int) -> bytes:
        entry = HTTPAccessLogEntry()
        entry.ParseFromString(an_entry("large"))
        entry.common_properties.metadata.filter_metadata["other"] = b"x" * bytes_
        return entry.SerializeToString()

    logs, told = some_logs()
    much = large(MAX_ENTRY_BYTES // 2)
    too_much = large(MAX_ENTRY_BYTES)
    await logs.receive(messages([a_message(*[much] * 8, too_much, an_entry("last"))]), Call())
    reading = asyncio.create_task(logs.finish())
    most = 0
    while not reading.done():
        before = len(told.records)
        await asyncio.sleep(0)
        most = max(most, len(told.records) - before)
    assert most == 2
    assert (len(told.records), told.records[-1].request_id, logs.unreadable) == (9, "last", 1)
    # It is no junk: the stream goes on.
    await logs.receive(messages([a_message(an_entry("after"))]), Call())


async def test_entries_that_are_cut_off_end_the_stream() -> None:
    logs, told = some_logs()

    async def send() -> AsyncIterator[bytes]:
        yield b"\x12\x06" + b"\x0a\x09" + b"\x1a\x00" * 2
        await logs.finish()
        yield a_message(an_entry("too late"))

    with pytest.raises(RpcFailure) as failure:
        await logs.receive(send(), Call())
    assert failure.value.code is RpcCode.INVALID_ARGUMENT
    assert (told.records, logs.unreadable) == ([], 1)


async def test_a_message_that_waits_for_room_is_not_taken_apart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    logs, _ = some_logs(max_waiting_bytes=1)
    read: list[bytes] = []

    def note(data: bytes) -> LogMessage:
        read.append(data)
        return LogMessage(data)

    monkeypatch.setattr(access_logs, "LogMessage", note)
    sent = a_message(an_entry("1"))
    streams = [asyncio.create_task(logs.receive(messages([sent]), Call())) for _ in range(5)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(read) == 1
    reading = asyncio.create_task(logs.run())
    await asyncio.gather(*streams)
    assert len(read) == 5
    logs.end()
    await reading


async def test_what_waits_is_read_before_the_end() -> None:
    logs, told = some_logs()
    reading = asyncio.create_task(logs.run())
    await logs.receive(messages([a_message(*[an_entry()] * 50)]), Call())
    logs.end()
    await reading
    assert len(told.records) == 50


async def test_a_defect_of_an_observer_ends_neither_the_stream_nor_the_reading(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logs, told = some_logs()
    told.fails = True
    await logs.receive(messages([a_message(an_entry("1"))]), Call())
    await logs.finish()
    told.fails = False
    await logs.receive(messages([a_message(an_entry("2"))]), Call())
    await logs.finish()
    assert [record.request_id for record in told.records] == ["2"]
    assert logs.unreadable == 1
    assert "because of a defect" in caplog.text


def test_the_method_is_that_of_envoys_service() -> None:
    method = some_logs()[0].method()
    assert method.path == ACCESS_LOG_PATH
    assert method.path == "/envoy.service.accesslog.v3.AccessLogService/StreamAccessLogs"


def a_charged_entry(decision_id: str, note: str) -> bytes:
    entry = HTTPAccessLogEntry()
    entry.ParseFromString(an_entry(decision_id))
    metadata = write_metadata(
        {"reason": "allowed", "decision_id": decision_id, BYTE_LIMITS: [note]}
    )
    entry.common_properties.metadata.filter_metadata[NAMESPACE] = metadata
    entry.request.request_body_bytes = 300
    return entry.SerializeToString()


class Away(MemoryCounterStore):
    """A store that does not answer."""

    async def take(self, charges: Any, **how: Any) -> Taking:
        raise CounterStoreError("no answer")


NOTE = json.dumps(["s|bytes-sliding-1", "sliding_window", 9, 1, "", "", "local", "", False])


async def test_bytes_are_charged_once_for_each_decision() -> None:
    clock, told = FakeClock(), Told()
    store = MemoryCounterStore(clock)
    logs = AccessLogs(AddressRules(), told, ByteCharger(store, clock))
    entry = a_charged_entry("d-1", NOTE)
    await logs.receive(messages([a_message(entry, entry)]), Call())
    await logs.finish()
    assert (len(told.records), logs.uncharged, len(store)) == (2, 0, 1)


@pytest.mark.parametrize("note", [NOTE, "no note"])
async def test_bytes_that_cannot_be_charged_are_counted_and_the_record_stays(
    note: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, told = FakeClock(), Told()
    logs = AccessLogs(AddressRules(), told, ByteCharger(Away(clock), clock))
    with caplog.at_level(logging.WARNING):
        await logs.receive(messages([a_message(a_charged_entry("d-1", note))]), Call())
        await logs.finish()
    assert (len(told.records), logs.uncharged, logs.unreadable) == (1, 1, 0)
    assert "bytes of a request could not be charged" in caplog.text
