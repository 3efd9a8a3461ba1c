"""Writes records of Python's logging as lines of JSON.

Names are those of OpenTelemetry's log data model and semantic conventions. A record is one line,
whatever is in it: a traceback is an attribute. When a line is written while a call is decided, it
has the ids of the call's trace.

Sources: OpenTelemetry specification, "Logs Data Model" and "Trace Context in non-OTLP Log Formats";
semantic conventions for exceptions.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Any, Final

from extauthz.telemetry.current_trace import find_trace

_SEVERITIES: Final = (
    (logging.CRITICAL, 21, "FATAL"),
    (logging.ERROR, 17, "ERROR"),
    (logging.WARNING, 13, "WARN"),
    (logging.INFO, 9, "INFO"),
    (logging.DEBUG, 5, "DEBUG"),
)
_TRACE: Final = (1, "TRACE")
_PLAIN: Final = logging.Formatter()


def read_severity(record: logging.LogRecord) -> tuple[int, str]:
    """The number and the text of the severity."""
    for level, number, text in _SEVERITIES:
        if record.levelno >= level:
            return number, text
    return _TRACE


def read_body(record: logging.LogRecord) -> str:
    """The message."""
    return write_text(record.getMessage())


def read_attributes(record: logging.LogRecord, worker: int) -> dict[str, str | int]:
    """What is known of the record besides its message.

    Args:
        worker: which of several workers logs; 0 for the only one.
    """
    attributes: dict[str, str | int] = {}
    if worker:
        attributes["extauthz.worker"] = worker
    code = getattr(record, "code", None)
    if isinstance(code, str):
        attributes["error.type"] = code
    exception = record.exc_info and record.exc_info[1]
    if exception:
        kind = type(exception)
        attributes["exception.type"] = f"{kind.__module__}.{kind.__qualname__}"
        attributes["exception.message"] = write_text(str(exception))
        stacktrace = _PLAIN.formatException((kind, exception, exception.__traceback__))
        attributes["exception.stacktrace"] = write_text(stacktrace)
    if record.stack_info:
        attributes["code.stacktrace"] = write_text(record.stack_info)
    return attributes


def write_text(text: str) -> str:
    """The text, with an escape for what UTF-8 cannot encode: a name of a file may hold that.

    One such text would make the exporters of OpenTelemetry drop all records of its batch.
    """
    return text.encode("utf-8", "backslashreplace").decode()


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON, in ASCII.

    Args:
        worker: which of several workers logs; 0 for the only one.
    """

    def __init__(self, worker: int = 0) -> None:
        super().__init__()
        self._worker = worker

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC)
        number, text = read_severity(record)
        line: dict[str, Any] = {
            "timestamp": at.isoformat(timespec="microseconds"),
            "severity_text": text,
            "severity_number": number,
            "scope": record.name,
            "body": read_body(record),
        }
        trace = find_trace()
        if trace is not None:
            line["trace_id"] = trace.write_trace_id()
            line["span_id"] = trace.write_span_id()
            line["trace_flags"] = f"{trace.sampled:02x}"
        attributes = read_attributes(record, self._worker)
        if attributes:
            line["attributes"] = attributes
        return json.dumps(line)
