"""Takes Envoy's gRPC access logs (ALS v3), and tells an observer of each finished request.

A stream lasts as long as its Envoy, and brings a message of some dozens of entries each second or
so. Decisions on the same event loop must not wait for them: a message is only put into a queue when
it arrives, and its entries are read `ENTRIES_AT_ONCE` in a turn of the loop, those of all streams
together. Bytes of requests are charged to limits in bytes then, too, once for each decision. When too
many bytes wait, no further message is read from any stream. Envoy then buffers
what it can, drops the rest, and counts it (`access_logs.grpc_access_log.logs_dropped`).

A stream that brings anything but entries is ended with INVALID_ARGUMENT, and counted.

Source: envoy/service/accesslog/v3/als.proto.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from extauthz.envoy.access_log_entries import AddressRules, find_record, read_log_message
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
_ENTRY_BYTES: Final = 64
"""What an entry that waits takes in memory besides its content: a message may have a million."""


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
        self._queue: deque[tuple[_Stream, list[bytes], int]] = deque()
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
        # Before the message is taken apart: its entries take many times its bytes.
        while not self._has_room.is_set():
            await self._has_room.wait()
        message = read_log_message(data)
        stream.proxy = message.proxy or stream.proxy
        self.skipped += message.tcp_entries
        size = len(data) + _ENTRY_BYTES * len(message.entries)
        self._queue.append((stream, message.entries, size))
        self._waiting_bytes += size
        if self._waiting_bytes >= self.max_waiting_bytes:
            self._has_room.clear()
        self._wake()

    async def finish(self) -> None:
        """Reads the entries that wait now."""
        while self._queue:
            stream, entries, size = self._queue.popleft()
            for first in range(0, len(entries), ENTRIES_AT_ONCE):
                now = entries[first : first + ENTRIES_AT_ONCE]
                to_charge = [
                    record
                    for record in (self._find(stream, entry) for entry in now)
                    if record is not None and record.byte_limits
                ]
                if to_charge:
                    await asyncio.gather(*map(self._charge, to_charge))
                await asyncio.sleep(0)
            self._waiting_bytes -= size
            if self._waiting_bytes < self.max_waiting_bytes:
                self._has_room.set()

    def _find(self, stream: _Stream, entry: bytes) -> UsageRecord | None:
        """Reads an entry, and tells of it; gives the record when it is one."""
        try:
            record = find_record(entry, stream.proxy, self._rules)
            if record is None:
                self.skipped += 1
            else:
                self.records += 1
                self._observer.observe_usage(record)
                return record
        except MalformedRequest as error:
            self.unreadable += 1
            self._unread.warn(error)
            stream.fault = error
        except Exception:  # noqa: BLE001  (the next entry is none the worse)
            self.unreadable += 1
            _log.exception("an entry of an access log could not be handled because of a defect")
        return None

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
