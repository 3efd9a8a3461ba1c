"""Knows the trace that the current call belongs to, for records and lines of the log.

Nothing here needs OpenTelemetry: a call has a trace id when it is traced here, and also when its
caller traces it and we do not. What the caller sent is read only when it is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Final, NamedTuple

from extauthz.model.request import Headers
from extauthz.telemetry.trace_context import (
    PROPAGATORS,
    TRACEPARENT,
    find_parent,
    read_traceparent,
)


class CurrentTrace(NamedTuple):
    """The span of a call: of a traced call its own, else that of its caller."""

    trace_id: int
    span_id: int
    sampled: bool

    def write_trace_id(self) -> str:
        """The id of the trace in 32 hexadecimal digits."""
        return f"{self.trace_id:032x}"

    def write_span_id(self) -> str:
        """The id of the span in 16 hexadecimal digits."""
        return f"{self.span_id:016x}"


current_trace: Final[ContextVar[CurrentTrace | None]] = ContextVar("extauthz_trace", default=None)
"""The trace of the call in this task, when it is traced here."""
read_told: Final[ContextVar[Callable[[], Mapping[str, str]]]] = ContextVar(
    "extauthz_told", default=dict
)
"""Reads what the caller of the call in this task sent under the names `trace_context.FIELDS`."""


def find_trace() -> CurrentTrace | None:
    """The trace of the current call; None without a call, and when nobody traces it."""
    trace = current_trace.get()
    if trace is not None:
        return trace
    told = read_told.get()()
    parent = find_parent(told, PROPAGATORS.values()) if told else None
    if parent is None or not parent.trace_id:
        return None
    return CurrentTrace(parent.trace_id, parent.span_id, bool(parent.sampled))


def find_trace_id(headers: Headers) -> str:
    """The id of the current call's trace, else of the trace that the checked request belongs to.

    Args:
        headers: those of the checked request. A client may write them.

    Returns:
        32 hexadecimal digits; empty when there is no trace.
    """
    trace = find_trace()
    if trace is not None:
        return trace.write_trace_id()
    told = headers.get(TRACEPARENT)
    parent = None if told is None else read_traceparent({TRACEPARENT: told})
    return "" if parent is None else f"{parent.trace_id:032x}"
