"""Takes Envoy's gRPC access logs (ALS v3), and tells an observer of each finished request.

A stream lasts as long as its Envoy, and brings a message of some dozens of entries each second or
so. Decisions on the same event loop must not wait for them: a message is only put into a queue when
it arrives, and its entries are found and read `ENTRIES_AT_ONCE` in a turn of the loop, and no more
than `TURN_BYTES` of them but one, those of all streams together. Bytes of requests are charged to limits in bytes then, too, once for each decision. When too
many bytes wait, no further message is read from any stream. Envoy then buffers
what it can, drops the rest, and counts it (`access_logs.grpc_access_log.logs_dropped`).

A stream that brings anything but entries is ended with INVALID_ARGUMENT, and counted.

Source: envoy/service/accesslog/v3/als.proto.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

from extauthz.envoy.access_log_entries import AddressRules, find_record
from extauthz.envoy.access_log_messages import LogMessage
from extauthz.errors import BackendError, MalformedRequest
from extauthz.model.usage import UsageRecord
from extauthz.policy.limits.byte_charges import ByteCharger
from extauthz.policy.limits.quota import UsedBytes
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.ports import UsageObserver
from extauthz.serving.deferred import DeferredWork
from extauthz.serving.methods import Call, ClientStreamMethod, RpcCode, RpcFailure

_log = logging.getLogger(__name__)

ACCESS_LOG_SERVICE: Final = "envoy.service.accesslog.v3.AccessLogService"
ACCESS_LOG_PATH: Final = f"/{ACCESS_LOG_SERVICE}/StreamAccessLogs"
ENTRIES_AT_ONCE: Final = 4
"""An entry takes some 50 µs, about as long as a decision."""
MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
"""Of messages that were received and not read yet."""
TURN_BYTES: Final = 65_536
MAX_ENTRY_BYTES: Final = 65_536
"""A larger entry is not read: what it may hold takes milliseconds. Envoy's have about 1 KB."""
_STEPS_AT_ONCE: Final = 64
"""With what is no entry of HTTP, and is only counted."""
_MESSAGE_BYTES: Final = 512
"""What a message that waits takes in memory besides its bytes."""


@dataclass(slots=True)
class _Stream:
    """An open stream: its Envoy, and what was wrong in it."""

    proxy: str = ""
    fault: MalformedRequest | None = None


class AccessLogs(DeferredWork):
    """The method `StreamAccessLogs`, and the queue behind it."""

    def __init__(
        self,
        rules: AddressRules,
        observer: UsageObserver,
        charger: ByteCharger,
        *,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        super().__init__()
        self._rules = rules
        self._observer = observer
        self._charger = charger
        self._uncharged = RepeatedWarnings(_log, "bytes of a request could not be charged")
        self.max_waiting_bytes: Final = max_waiting_bytes
        self._queue: deque[tuple[_Stream, LogMessage]] = deque()
        self._waiting_bytes = 0
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._unread = RepeatedWarnings(_log, "an entry of an access log cannot be read")
        self.records = 0
        """Finished requests that were reported, since the start."""
        self.skipped = 0
        """Entries that are not about a finished request, since the start."""
        self.unreadable = 0
        """Messages and entries that could not be read, since the start."""
        self.uncharged = 0
        """Requests whose bytes could not be charged to limits in bytes, since the start."""
        self.streams = 0
        """Streams that are open now."""

    @property
    def waiting_bytes(self) -> int:
        """Bytes that were received and not read yet."""
        return self._waiting_bytes

    def method(self) -> ClientStreamMethod[bytes, bytes]:
        """The row of the method table."""
        return ClientStreamMethod(
            path=ACCESS_LOG_PATH, decode=bytes, handle=self.receive, encode=bytes
        )

    async def receive(self, messages: AsyncIterator[bytes], _call: Call) -> bytes:
        """StreamAccessLogsMessages in, StreamAccessLogsResponse out, all serialised.

        Raises:
            RpcFailure: INVALID_ARGUMENT, when a message or an entry of the stream is none.
        """
        stream = _Stream()
        self.streams += 1
        try:
            async for data in messages:
                await self._put(stream, data)
        except MalformedRequest as error:
            self.unreadable += 1
            self._unread.warn(error)
            raise RpcFailure(RpcCode.INVALID_ARGUMENT, str(error)) from error
        finally:
            self.streams -= 1
        return b""

    async def _put(self, stream: _Stream, data: bytes) -> None:
        if stream.fault is not None:
            # It was counted when it was found.
            raise RpcFailure(RpcCode.INVALID_ARGUMENT, str(stream.fault))
        while not self._has_room.is_set():
            await self._has_room.wait()
        message = LogMessage(data)
        stream.proxy = message.proxy or stream.proxy
        self._queue.append((stream, message))
        self._waiting_bytes += len(message) + _MESSAGE_BYTES
        if self._waiting_bytes >= self.max_waiting_bytes:
            self._has_room.clear()
        self._wake()

    async def finish(self) -> None:
        """Reads the entries that wait now."""
        while self._queue:
            stream, message = self._queue.popleft()
            entries = message.entries()
            has_more = True
            while has_more:
                to_charge, has_more = self._read_some(stream, entries)
                if to_charge:
                    await asyncio.gather(*map(self._charge, to_charge))
                await asyncio.sleep(0)
            self._waiting_bytes -= len(message) + _MESSAGE_BYTES
            if self._waiting_bytes < self.max_waiting_bytes:
                self._has_room.set()

    def _read_some(
        self, stream: _Stream, entries: Iterator[bytes | None]
    ) -> tuple[list[UsageRecord], bool]:
        """Reads what fits into a turn; gives what is to be charged, and whether there may be more."""
        to_charge, read, size = list[UsageRecord](), 0, 0
        try:
            for steps, entry in enumerate(entries, 1):
                if entry is None:
                    self.skipped += 1
                else:
                    read, size = read + 1, size + len(entry)
                    record = self._find(stream, entry)
                    if record is not None and record.byte_limits:
                        to_charge.append(record)
                if read == ENTRIES_AT_ONCE or size >= TURN_BYTES or steps == _STEPS_AT_ONCE:
                    return to_charge, True
        except MalformedRequest as error:
            self._refuse(stream, error)
        return to_charge, False

    def _find(self, stream: _Stream, entry: bytes) -> UsageRecord | None:
        """Reads an entry, and tells of it; gives the record when it is one."""
        if len(entry) > MAX_ENTRY_BYTES:
            self.unreadable += 1
            self._unread.warn(MalformedRequest(f"it has more than {MAX_ENTRY_BYTES} bytes"))
            return None
        try:
            record = find_record(entry, stream.proxy, self._rules)
            if record is None:
                self.skipped += 1
            else:
                self.records += 1
                self._observer.observe_usage(record)
                return record
        except MalformedRequest as error:
            self._refuse(stream, error)
        except Exception:  # noqa: BLE001  (the next entry is none the worse)
            self.unreadable += 1
            _log.exception("an entry of an access log could not be handled because of a defect")
        return None

    def _refuse(self, stream: _Stream, error: MalformedRequest) -> None:
        self.unreadable += 1
        self._unread.warn(error)
        stream.fault = error

    async def _charge(self, record: UsageRecord) -> None:
        used = UsedBytes(request_bytes=record.request_bytes, response_bytes=record.response_bytes)
        try:
            await self._charger.charge(record.byte_limits, used, record.decision_id)
        except (BackendError, MalformedRequest) as error:
            self.uncharged += 1
            self._uncharged.warn(error)
        except Exception:  # noqa: BLE001  (the next entry is none the worse)
            self.uncharged += 1
            _log.exception("bytes could not be charged because of a defect")
