"""Takes Mixer's reports: metric, logentry, tracespan, edge and reportnothing.

A report is answered before it is read, so that it never delays a proxy. The queue is bounded; new
reports are dropped and counted when it is full. Each instance becomes a usage record for the
observers. A metric also charges its request's bytes to the limits in bytes, so bind only one metric
instance to the handler. The other templates charge nothing.

Bytes of a request that was refused are not charged, and its credential is not checked again: it
would otherwise count as a second failed attempt.

Mixer's deduplication ids of reports are not unique, so they are not used.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import DecodeError

from extauthz.errors import MalformedRequest
from extauthz.model.usage import UsageRecord
from extauthz.policy.limits.quota import UsedBytes
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.ports import UsageObserver
from extauthz.serving.deferred import DeferredWork
from extauthz.serving.methods import Call, UnaryMethod
from mixer_compat.callers import check_caller
from mixer_compat.door import Handler, MixerDoor, make_row
from mixer_compat.instances import read_properties
from mixer_compat.params import HandlerParams, ParamsError
from mixer_compat.proto.edge_pb2 import HandleEdgeRequest
from mixer_compat.proto.logentry_pb2 import HandleLogEntryRequest
from mixer_compat.proto.metric_pb2 import HandleMetricRequest
from mixer_compat.proto.metric_pb2 import InstanceMsg as MetricInstance
from mixer_compat.proto.tracespan_pb2 import HandleTraceSpanRequest
from mixer_compat.usage import describe, read_edge, read_logentry, read_metric, read_tracespan

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 1000
"""Calls that may wait; each may report a hundred requests and more."""
MAX_WAITING_BYTES: Final = 64 * 1024 * 1024

_REFUSED: Final = frozenset({401, 403, 429})


@dataclass(frozen=True, slots=True)
class _Kind:
    """One report template. `message` has `instances` and `adapter_config`."""

    message: Any
    read: Callable[[Any, HandlerParams], UsageRecord]


_METRIC: Final = _Kind(HandleMetricRequest, read_metric)
_KINDS: Final = {
    "metric.HandleMetricService/HandleMetric": _METRIC,
    "logentry.HandleLogEntryService/HandleLogEntry": _Kind(HandleLogEntryRequest, read_logentry),
    "tracespan.HandleTraceSpanService/HandleTraceSpan": _Kind(
        HandleTraceSpanRequest, read_tracespan
    ),
    "edge.HandleEdgeService/HandleEdge": _Kind(HandleEdgeRequest, read_edge),
}
_NOTHING: Final = "reportnothing.HandleReportNothingService/HandleReportNothing"


class Reports(DeferredWork):
    """The handlers of the report templates, and the queue behind them."""

    def __init__(
        self,
        door: MixerDoor,
        observers: Iterable[UsageObserver] = (),
        *,
        max_waiting: int = MAX_WAITING,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        super().__init__()
        self._door = door
        self._observers: Sequence[UsageObserver] = tuple(observers)
        self.max_waiting: Final = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._queue: deque[tuple[_Kind, bytes]] = deque()
        self._bytes = 0
        self._unread = RepeatedWarnings(_log, "a report of Mixer's cannot be read")
        self.records = 0
        """Requests that were reported, since the start."""
        self.dropped = 0
        """Calls that were dropped because the queue was full, since the start."""
        self.unreadable = 0
        """Calls that could not be read, and requests in them that could not be handled, since the
        start."""

    @property
    def waiting(self) -> int:
        """Calls that are answered and not yet read."""
        return len(self._queue)

    def methods(self) -> tuple[UnaryMethod[bytes, bytes], ...]:
        """The rows of the method table."""
        rows = [make_row(path, self._make_handler(kind)) for path, kind in _KINDS.items()]
        return (*rows, make_row(_NOTHING, self.nothing))

    def _make_handler(self, kind: _Kind) -> Handler:
        async def report(data: bytes, call: Call) -> bytes:
            check_caller(call, self._door.callers)
            self._put(kind, data)
            return b""

        return report

    async def nothing(self, _data: bytes, call: Call) -> bytes:
        """HandleReportNothingRequest in, ReportResult out; it has no content to read."""
        check_caller(call, self._door.callers)
        return b""

    def _put(self, kind: _Kind, data: bytes) -> None:
        is_full = len(self._queue) >= self.max_waiting
        if is_full or self._bytes + len(data) > self._max_waiting_bytes:
            self.dropped += 1
            return
        self._queue.append((kind, data))
        self._bytes += len(data)
        self._wake()

    async def finish(self) -> None:
        """Reads the reports that wait now."""
        while self._queue:
            kind, data = self._queue.popleft()
            self._bytes -= len(data)
            try:
                await self._read(kind, data)
            except DecodeError:
                self.unreadable += 1
                self._unread.warn(MalformedRequest(f"it is no {kind.message.DESCRIPTOR.name}"))
            except ParamsError as error:
                self.unreadable += 1
                self._unread.warn(error)
            except Exception:  # noqa: BLE001  (the next report is none the worse)
                self.unreadable += 1
                _log.exception("a report could not be handled because of a defect")

    async def _read(self, kind: _Kind, data: bytes) -> None:
        message = kind.message.FromString(data)
        params = self._door.params.read(message.adapter_config)
        for instance in message.instances:
            try:
                await self._read_instance(kind, instance, params)
            except Exception:  # noqa: BLE001  (the others of the batch are to be counted)
                self.unreadable += 1
                _log.exception("a report could not be handled because of a defect")
            # A batch is long; decisions are made in between.
            await asyncio.sleep(0)

    async def _read_instance(self, kind: _Kind, instance: Any, params: HandlerParams) -> None:
        record = kind.read(instance, params)
        if kind is _METRIC and record.response_code not in _REFUSED and not params.shadow:
            record = await self._charge(instance, params, record)
        self.records += 1
        for observer in self._observers:
            observer.observe_usage(record)

    async def _charge(
        self, instance: MetricInstance, params: HandlerParams, record: UsageRecord
    ) -> UsageRecord:
        """Charges the request's bytes, and completes its record from the decision."""
        try:
            request = read_properties(instance.dimensions, params)
        except MalformedRequest:
            return record
        used = UsedBytes(request_bytes=record.request_bytes, response_bytes=record.response_bytes)
        return describe(record, await self._door.pipeline.charge_usage(request, used))
