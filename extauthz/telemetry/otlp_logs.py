"""Sends log records to a collector by OTLP: lines of the service's own log, and decisions.

As with spans (`extauthz.telemetry.otlp`), a collector that is away, slow or refuses costs records
and nothing else: at most ``OTEL_BLRP_MAX_QUEUE_SIZE`` records wait, the oldest are dropped first,
and a stop takes at most `CLOSE_S`. The SDK and the exporters read the variables OTEL_*.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from opentelemetry._logs import Logger, LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider, ReadableLogRecord, ReadWriteLogRecord
from opentelemetry.sdk._logs.export import (
    BatchLogRecordProcessor,
    LogRecordExporter,
    LogRecordExportResult,
)
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from extauthz.telemetry.current_trace import CurrentTrace, find_trace
from extauthz.telemetry.decision_log.sinks import AT_ONCE, Entry
from extauthz.telemetry.log_lines import read_attributes, read_body, read_severity, write_text
from extauthz.telemetry.otlp import CLOSE_S, make_resource, shut_down

_log = logging.getLogger(__name__)

DECISION: Final = "extauthz.decision"
"""The event's name of a decision."""
USAGE: Final = "extauthz.usage"
"""The event's name of a finished request."""

_OWN: Final = ("opentelemetry", "grpc", "requests", "urllib3")
"""Loggers of what sends. A line about a failure to send must not be sent."""
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_RENAMED: Final = {"version": "extauthz.api.version"}
_LEFT_OUT: Final = frozenset({"time", "trace_id"})
"""Fields of a record that a log record has itself."""


def make_log_exporter(protocol: str, endpoint: str | None) -> LogRecordExporter:
    """Makes an exporter; as `extauthz.telemetry.otlp.make_exporter`."""
    if protocol == "http":
        from opentelemetry.exporter.otlp.proto.http import _log_exporter as http

        return http.OTLPLogExporter(endpoint and f"{endpoint.rstrip('/')}/v1/logs")
    from opentelemetry.exporter.otlp.proto.grpc import _log_exporter as grpc

    return grpc.OTLPLogExporter(endpoint)


class LogSender:
    """Has a provider of loggers, and sends all of their records. It starts a thread."""

    def __init__(self, exporter: LogRecordExporter) -> None:
        self._counts = _Counts()
        self._exporter = _CountingExporter(exporter, self._counts)
        self._batches = _CountingProcessor(self._exporter, self._counts)
        self._provider = LoggerProvider(make_resource(), shutdown_on_exit=False)
        self._provider.add_log_record_processor(self._batches)
        self._is_closed = False

    def count_lost(self) -> int:
        """Records that were dropped, or that the collector has not taken; it never falls."""
        counts = self._counts
        if self._is_closed:
            return counts.emitted - counts.sent
        return counts.failed + counts.overflowed

    def find_logger(self, name: str) -> Logger:
        """The logger of this name."""
        return self._provider.get_logger(name)

    def close(self, within_s: float = CLOSE_S) -> bool:
        """Sends the records that wait; False when that takes longer, and they are lost."""
        is_sent = shut_down(self._provider.shutdown, within_s)
        if not is_sent:
            self._exporter.shutdown()
        self._is_closed = True
        return is_sent


@dataclass(slots=True)
class _Counts:
    """What became of records. `taken` ones have left the queue."""

    emitted: int = 0
    taken: int = 0
    sent: int = 0
    failed: int = 0
    overflowed: int = 0


class _CountingProcessor(BatchLogRecordProcessor):
    def __init__(self, exporter: _CountingExporter, counts: _Counts) -> None:
        super().__init__(exporter)
        self._counts = counts
        # The SDK shows the number of records that wait only to meters of its own.
        exporter.queue = self._batch_processor._queue  # noqa: SLF001

    def on_emit(self, log_record: ReadWriteLogRecord) -> None:
        super().on_emit(log_record)
        self._counts.emitted += 1


class _CountingExporter(LogRecordExporter):
    def __init__(self, exporter: LogRecordExporter, counts: _Counts) -> None:
        self._exporter = exporter
        self._counts = counts
        self._is_shut = False
        self.queue: Collection[ReadableLogRecord] = ()

    def export(self, batch: Sequence[ReadableLogRecord]) -> LogRecordExportResult:
        counts = self._counts
        counts.taken += len(batch)
        # Here no records leave the queue. Those that are emitted just now make it less, not more.
        dropped = counts.emitted - counts.taken - len(self.queue)
        counts.overflowed = max(counts.overflowed, dropped)
        result = LogRecordExportResult.FAILURE
        try:
            result = self._exporter.export(batch)
        finally:
            if result is LogRecordExportResult.SUCCESS:
                counts.sent += len(batch)
            else:
                counts.failed += len(batch)
        return result

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self) -> None:
        if not self._is_shut:
            self._is_shut = True
            self._exporter.shutdown()  # type: ignore[no-untyped-call]


class OtlpHandler(logging.Handler):
    """Sends lines of the log. `worker` is as for `extauthz.telemetry.log_lines.JsonFormatter`."""

    def __init__(self, sender: LogSender, worker: int = 0) -> None:
        super().__init__()
        self._sender = sender
        self._worker = worker
        self.addFilter(_is_not_own)

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        try:
            number, text = read_severity(record)
            sent = LogRecord(
                timestamp=int(record.created * 1e9),
                context=_write_context(find_trace()),
                severity_text=text,
                severity_number=SeverityNumber(number),
                body=read_body(record),
                attributes=read_attributes(record, self._worker),
            )
            self._sender.find_logger(record.name).emit(sent)
        except Exception:  # noqa: BLE001  (as every handler)
            self.handleError(record)


def _is_not_own(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] not in _OWN


def _write_context(trace: CurrentTrace | None) -> Context:
    context = Context()
    if trace is None:
        return context
    flags = TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT)
    span = SpanContext(trace.trace_id, trace.span_id, is_remote=False, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(span), context)


class OtlpEvents:
    """A `Sink` that sends each entry as an event of this name."""

    at_once: Final = AT_ONCE

    def __init__(self, sender: LogSender, name: str) -> None:
        self._sender = sender
        self._name = name
        self._logger = sender.find_logger("extauthz")

    def write(self, entries: Sequence[Entry]) -> None:
        """See `Sink.write`."""
        for entry in entries:
            record = entry.record
            trace_id = _read_trace_id(str(record.get("trace_id", "")))
            self._logger.emit(
                LogRecord(
                    timestamp=max(0, entry.time_ns),
                    context=_write_context(CurrentTrace(trace_id, 0, sampled=False)),
                    severity_text="INFO",
                    severity_number=SeverityNumber.INFO,
                    body=record.get("reason") or record["outcome"],
                    attributes=write_decision_attributes(record),
                    event_name=self._name,
                )
            )

    def close(self) -> None:
        """See `Sink.close`."""
        if not self._sender.close():
            _log.error("the last events could not be sent: the collector takes too long")


def _read_trace_id(text: str) -> int:
    """The number of a trace id; 0 for anything else."""
    return int(text, 16) if _TRACE_ID.fullmatch(text) else 0


def write_decision_attributes(record: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a record as attributes; those without a value are left out."""
    attributes: dict[str, Any] = {}
    for name, value in record.items():
        if name not in _LEFT_OUT and value not in ("", []):
            attributes[_RENAMED.get(name, f"extauthz.{name}")] = _write_value(value)
    return attributes


def _write_value(value: Any) -> Any:
    if isinstance(value, str):
        return write_text(value)
    if isinstance(value, list):
        return [_write_value(item) for item in value]
    if isinstance(value, dict):
        return {name: _write_value(item) for name, item in value.items()}
    return value
