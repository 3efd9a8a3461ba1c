"""Knows the trace that the current call belongs to, for records and lines of the log.

Nothing here needs OpenTelemetry: a call has a trace id when it is traced here, and also when its
caller traces it and we do not.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final, NamedTuple

from extauthz.model.request import Headers
from extauthz.telemetry.trace_context import TRACEPARENT, read_traceparent


class CurrentTrace(NamedTuple):
    """The span of a call: of a traced call its own, else that of its caller."""

    trace_id: int
    span_id: int
    sampled: bool


current_trace: Final[ContextVar[CurrentTrace | None]] = ContextVar("extauthz_trace", default=None)
"""The trace of the call in this task."""


def write_trace_id(trace_id: int) -> str:
    """The id in 32 hexadecimal digits."""
    return f"{trace_id:032x}"


def find_trace_id(headers: Headers) -> str:
    """The id of the current call's trace, else of the trace that the checked request belongs to.

    Args:
        headers: those of the checked request. A client may write them.

    Returns:
        32 hexadecimal digits; empty when there is no trace.
    """
    trace = current_trace.get()
    if trace is not None:
        return write_trace_id(trace.trace_id)
    told = headers.get(TRACEPARENT)
    parent = None if told is None else read_traceparent({TRACEPARENT: told})
    return "" if parent is None else write_trace_id(parent.trace_id)
