"""Decides whether a call is traced, by its caller's trace context or by a share of all calls.

The context is read from a call's metadata before any code of OpenTelemetry runs: most calls are not
traced, and each of these takes only a few look-ups. Therefore the three forms are parsed here and
not by OpenTelemetry's propagators. The propagator for B3 also ignores ``b3: 0``, by which a mesh
says that a call is not traced. A malformed field counts as absent; nothing that a caller sends
raises an error or is logged.

Sources: W3C Trace Context, section 3.2 (https://www.w3.org/TR/trace-context/);
https://github.com/openzipkin/b3-propagation; OpenTelemetry specification, trace SDK, built-in
samplers.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
FIELDS: Final = (
    TRACEPARENT,
    TRACESTATE,
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-b3-flags",
)
"""The names of the fields in a call's metadata, in lower case."""
MAX_STATE_MEMBERS: Final = 32
MAX_STATE_CHARACTERS: Final = 2_048
"""Of a longer ``tracestate`` nothing is kept; the specification asks for 512 at least."""

_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_B3: Final = re.compile(
    r"([0-9a-f]{16}|[0-9a-f]{32})-([0-9a-f]{16})(?:-([01d])(?:-[0-9a-f]{16})?)?"
)
_B3_TRACE_ID: Final = re.compile(r"[0-9a-f]{16}|[0-9a-f]{32}")
_B3_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")
_B3_STATES: Final = {"0": False, "1": True, "d": True}
_B3_SAMPLED: Final = {"0": False, "1": True, "false": False, "true": True}
_STATE_MEMBER: Final = re.compile(
    r"([a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})"
    r"=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
_LOW_64: Final = (1 << 64) - 1


class Parent(NamedTuple):
    """The trace context of a caller.

    Attributes:
        trace_id: 128 bits; 0 when the caller sent only `sampled`.
        span_id: 64 bits; 0 when the caller sent only `sampled`.
        sampled: whether the caller's span is sampled; None when it leaves the decision to us.
        state: ``tracestate``, as it came; empty in B3's forms.
    """

    trace_id: int
    span_id: int
    sampled: bool | None
    state: str = ""


def read_traceparent(fields: Mapping[str, str]) -> Parent | None:
    """Reads the form of W3C Trace Context; None when it is absent or malformed."""
    seen = _TRACEPARENT.fullmatch(fields.get(TRACEPARENT, ""))
    if seen is None or (seen[1] == "00" and seen[5] is not None):
        return None
    parent = _make_parent(seen[2], seen[3], sampled=bool(int(seen[4], 16) & 1))
    state = fields.get(TRACESTATE, "")
    return parent._replace(state=state) if parent is not None and state else parent


def read_state(state: str) -> list[tuple[str, str]]:
    """Reads ``tracestate``: keys of tracing systems, with what each has to say.

    OpenTelemetry's own reader logs a malformed one, whatever stands in it.

    Returns:
        The members; none of them when one is malformed, or when they are too many or too long.
    """
    if len(state) > MAX_STATE_CHARACTERS:
        return []
    members: dict[str, str] = {}
    for text in filter(None, (part.strip(" \t") for part in state.split(","))):
        seen = _STATE_MEMBER.fullmatch(text)
        if seen is None or seen[1] in members:
            return []
        members[seen[1]] = seen[2]
    return list(members.items()) if len(members) <= MAX_STATE_MEMBERS else []


def read_b3(fields: Mapping[str, str]) -> Parent | None:
    """Reads B3's form with a single field; None when it is absent or malformed."""
    field = fields.get("b3", "")
    if field in _B3_STATES:
        return Parent(0, 0, _B3_STATES[field])
    seen = _B3.fullmatch(field)
    if seen is None:
        return None
    return _make_parent(seen[1], seen[2], sampled=_B3_STATES.get(seen[3] or ""))


def read_b3_fields(fields: Mapping[str, str]) -> Parent | None:
    """Reads B3's form with several fields; None when they are absent or malformed."""
    sampled = _B3_SAMPLED.get(fields.get("x-b3-sampled", ""))
    if fields.get("x-b3-flags") == "1":
        sampled = True
    trace_id, span_id = fields.get("x-b3-traceid", ""), fields.get("x-b3-spanid", "")
    if _B3_TRACE_ID.fullmatch(trace_id) and _B3_SPAN_ID.fullmatch(span_id):
        return _make_parent(trace_id, span_id, sampled=sampled)
    return None if sampled is None else Parent(0, 0, sampled)


def _make_parent(trace_id: str, span_id: str, *, sampled: bool | None) -> Parent | None:
    parent = Parent(int(trace_id, 16), int(span_id, 16), sampled)
    return parent if parent.trace_id and parent.span_id else None


ReadParent = Callable[[Mapping[str, str]], Parent | None]

PROPAGATORS: Final[Mapping[str, ReadParent]] = {
    "tracecontext": read_traceparent,
    "b3": read_b3,
    "b3multi": read_b3_fields,
}
"""The readers, by their names in ``OTEL_PROPAGATORS``."""


def find_parent(fields: Mapping[str, str], readers: Iterable[ReadParent]) -> Parent | None:
    """Returns the result of the first reader that finds a context; None when none does."""
    for read in readers:
        parent = read(fields)
        if parent is not None:
            return parent
    return None


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which calls are traced.

    Attributes:
        ratio: the share, from 0 to 1, of calls about which no caller has decided. It is applied to
            trace ids, so all services with the same ratio sample the same traces.
        follows_parent: whether a caller's decision is followed.
    """

    ratio: float
    follows_parent: bool = True

    @property
    def bound(self) -> int:
        """A trace is sampled when the lower 64 bits of its id are below this bound."""
        return round(self.ratio * (1 << 64))

    def takes(self, parent: Parent | None) -> bool:
        """Whether a call is traced. `parent` is the caller's context, if it sent one."""
        if parent is not None:
            if self.follows_parent and parent.sampled is not None:
                return parent.sampled
            if parent.trace_id:
                return parent.trace_id & _LOW_64 < self.bound
        return random.random() < self.ratio  # noqa: S311  (no secret)

    def make_trace_id(self) -> int:
        """Makes a random id for a new trace, which the ratio samples."""
        return random.getrandbits(64) << 64 | random.randrange(1, max(2, self.bound))  # noqa: S311
