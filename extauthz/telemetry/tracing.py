"""Makes spans: one for each traced call, and one for each request that the call waits for.

Whether a call is traced is decided once, when it begins (`CallTracer.begin`). Most calls are not
traced, and OpenTelemetry's SDK is never called for these. Spans have only the attributes that
docs/how-to/tracing.md lists. Their values are names from the catalog and fixed words, and never
anything that a client sent.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar, Token
from typing import Any, Final, Literal, NamedTuple, TypeVar

from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TracerProvider,
    TraceState,
    set_span_in_context,
)

from extauthz.errors import ExtauthzError
from extauthz.model.decision import Allow, Decision, Denial
from extauthz.model.identity import Secret
from extauthz.model.issuers import ApiCall, Issuer
from extauthz.model.limits import Charge, Taking
from extauthz.model.request import ApiRequest
from extauthz.ports import (
    NO_DEADLINE,
    CounterStore,
    Deadline,
    KeySource,
    TokenIntrospector,
    VerificationKey,
)
from extauthz.telemetry import names
from extauthz.telemetry.current_trace import CurrentTrace, current_trace
from extauthz.telemetry.trace_context import (
    TRACEPARENT,
    ReadParent,
    Sampling,
    find_parent,
    read_state,
    read_traceparent,
)

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"
"""The version of the semantic conventions, whose names attributes of RPCs and databases have."""
MAX_TRACED_PER_S: Final = 1_000
"""The most calls that are traced in a second, also when callers ask for more: a client whose proxy
forwards its `traceparent` could otherwise double the cost of each of its calls."""

RequestContext = Literal["ignore", "join", "follow"]
"""What the trace context of a checked request is good for: nothing; to be the parent of the calls
that are traced anyway; or, like a caller's, also to say whether a call is traced."""

_SERVER_ERRORS: Final = frozenset(
    {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "503"}
)
"""The statuses that are errors of a server (semantic conventions for gRPC and for HTTP)."""

_current: ContextVar[Span | None] = ContextVar("extauthz_span", default=None)
"""The span of the call in this task; None when it is not traced."""

_T = TypeVar("_T")

_log = logging.getLogger(__name__)


class _Held(NamedTuple):
    span: Token[Span | None]
    trace: Token[CurrentTrace | None]


class CallSpan:
    """The span of one call."""

    def __init__(self, span: Span, *, is_http: bool = False) -> None:
        self._span = span
        self._is_http = is_http

    def hold(self) -> _Held:
        """Makes this the span of the current task, until `end` gets the returned tokens."""
        context = self._span.get_span_context()
        trace = CurrentTrace(context.trace_id, context.span_id, context.trace_flags.sampled)
        return _Held(_current.set(self._span), current_trace.set(trace))

    def end(self, held: _Held, status: str) -> None:
        """Ends the span.

        Args:
            held: the tokens of `hold`.
            status: the name of the gRPC status code, like ``OK``; for HTTP the status as text.
        """
        _current.reset(held.span)
        current_trace.reset(held.trace)
        span = self._span
        if self._is_http:
            span.set_attribute(names.HTTP_STATUS, int(status))
        else:
            span.set_attribute(names.RPC_STATUS, status)
        if status in _SERVER_ERRORS:
            span.set_attribute(names.ERROR_TYPE, status)
            span.set_status(StatusCode.ERROR)
        _end(span)


class CallTracer:
    """Begins spans. As a `DecisionObserver`, it adds the decision to the call's span.

    Args:
        provider: its sampler must sample every span.
        sampling: which calls are traced.
        readers: read the caller's context; the first one that finds a context is used.
        request_context: what the context that the checked request brings along is good for, when
            the caller sends none. A client may write it.
        monotonic_s: a clock in seconds, for `MAX_TRACED_PER_S`.
    """

    def __init__(
        self,
        provider: TracerProvider,
        sampling: Sampling,
        readers: Sequence[ReadParent],
        *,
        request_context: RequestContext = "ignore",
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._monotonic_s = monotonic_s
        self._tracer = provider.get_tracer("extauthz", schema_url=SCHEMA_URL)
        self._sampling = sampling
        self._readers = tuple(readers)
        self._request_context = request_context
        self._heeds_no = sampling.follows_parent and self._readers[:1] == (read_traceparent,)
        self._second = self._in_second = 0
        self.skipped = 0
        """The number of calls that were not traced because of `MAX_TRACED_PER_S`."""

    def begin(
        self,
        path: str,
        fields: Mapping[str, str],
        read_request: Callable[[], Mapping[str, str]] = dict,
        *,
        http_method: str = "",
    ) -> CallSpan | None:
        """Begins the span of a call.

        Args:
            path: the method's path, like ``/package.Service/Method``; over HTTP the route's.
            http_method: the method of a call over HTTP; empty for gRPC.
            fields: those of `trace_context.FIELDS` that the caller sent.
            read_request: reads those that the checked request has; raises nothing.

        Returns:
            The span; None when the call is not traced.
        """
        # The usual value of a mesh that traces a share of its calls: parsing the rest takes 1 µs.
        if self._heeds_no and fields.get(TRACEPARENT, "").endswith("-00"):
            return None
        parent = find_parent(fields, self._readers) if fields else None
        is_left_to_request = parent is None
        if is_left_to_request and self._request_context == "follow":
            parent = find_parent(read_request(), self._readers)
        if not self._sampling.takes(parent) or not self._has_room():
            return None
        if is_left_to_request and self._request_context == "join":
            # After the decision: a client that chooses its trace id or flag must not make it.
            parent = find_parent(read_request(), self._readers)
        context = Context()
        if parent is not None and parent.trace_id:
            told = SpanContext(
                parent.trace_id,
                parent.span_id,
                is_remote=True,
                trace_flags=TraceFlags(TraceFlags.SAMPLED),
                trace_state=TraceState(read_state(parent.state)),
            )
            context = set_span_in_context(NonRecordingSpan(told), context)
        if http_method:
            name = f"{http_method} {path}"
            attributes = {names.HTTP_METHOD: http_method, names.HTTP_ROUTE: path}
        else:
            name = path.removeprefix("/")
            attributes = {names.RPC_SYSTEM: "grpc", names.RPC_METHOD: name}
        span = self._start(name, context, SpanKind.SERVER, attributes)
        return None if span is None else CallSpan(span, is_http=bool(http_method))

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        span = _current.get()
        if span is not None:
            span.set_attributes(_describe(request, decision))

    def watch_counters(self, store: CounterStore) -> CounterStore:
        """Wraps the counter store, which is Redis: each of its calls becomes a span."""
        return _TracedCounterStore(store, self)

    def watch_keys(self, keys: KeySource) -> KeySource:
        """Wraps the key source: each of its calls becomes a span."""
        return _TracedKeySource(keys, self)

    def watch_introspector(self, introspector: TokenIntrospector) -> TokenIntrospector:
        """Wraps the introspector: each of its calls becomes a span."""
        return _TracedIntrospector(introspector, self)

    async def wait(
        self, name: str, awaitable: Awaitable[_T], kind: SpanKind, attributes: Mapping[str, str]
    ) -> _T:
        """Awaits, and makes a span for that when the current call is traced.

        Args:
            name: the span's name.
            awaitable: what is awaited; its result is returned, and its errors are raised.
            kind: the span's kind.
            attributes: the span's attributes.
        """
        call = _current.get()
        # Work that continues after the call was answered is not part of it.
        if call is None or not call.is_recording():
            return await awaitable
        span = self._start(name, set_span_in_context(call, Context()), kind, attributes)
        if span is None:
            return await awaitable
        try:
            return await awaitable
        except Exception as error:
            # The error's text is only for the log, which hides secrets; it is not put into spans.
            code = error.code if isinstance(error, ExtauthzError) else type(error).__name__
            span.set_attribute(names.ERROR_TYPE, code)
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            _end(span)

    def _start(
        self, name: str, context: Context, kind: SpanKind, attributes: Mapping[str, str]
    ) -> Span | None:
        try:
            return self._tracer.start_span(name, context, kind, attributes)
        except Exception:  # noqa: BLE001  (telemetry must not change decisions)
            _log.exception("a span could not be begun")
            return None

    def _has_room(self) -> bool:
        second = int(self._monotonic_s())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second <= MAX_TRACED_PER_S:
            return True
        self.skipped += 1
        return False


def _end(span: Span) -> None:
    try:
        span.end()
    except Exception:  # noqa: BLE001  (telemetry must not change decisions)
        _log.exception("a span could not be ended")


def _describe(request: ApiRequest, decision: Decision) -> dict[str, str]:
    told = {
        names.SPAN_DECISION: decision.id,
        names.SPAN_DOOR: request.door,
        names.SPAN_OUTCOME: names.name_outcome(decision),
    }
    route = decision.route
    if route is not None:
        told[names.SPAN_API] = route.api.name
        told[names.SPAN_API_VERSION] = route.api.version
        told[names.SPAN_RESOURCE] = route.resource.template
    if not isinstance(decision, Allow):
        told[names.SPAN_REASON] = decision.denial.reason.value
        if decision.denial.level is not None:
            told[names.SPAN_LEVEL] = decision.denial.level.value
    return told


_REDIS: Final = {names.DB_SYSTEM: "redis"}


class _TracedCounterStore:
    def __init__(self, store: CounterStore, tracer: CallTracer) -> None:
        self._store = store
        self._tracer = tracer

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        """See `CounterStore.take`."""
        taking = self._store.take(charges, dedup_id=dedup_id, deadline=deadline)
        return await self._tracer.wait(names.SPAN_TAKE, taking, SpanKind.CLIENT, _REDIS)

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        """See `CounterStore.give_back`."""
        giving = self._store.give_back(charges, at_us=at_us, dedup_id=dedup_id)
        await self._tracer.wait(names.SPAN_GIVE_BACK, giving, SpanKind.CLIENT, _REDIS)

    async def close(self) -> None:
        """See `CounterStore.close`."""
        await self._store.close()


class _TracedKeySource:
    def __init__(self, keys: KeySource, tracer: CallTracer) -> None:
        self._keys = keys
        self._tracer = tracer

    async def find_keys(
        self, issuer: Issuer, key_id: str | None, *, deadline: Deadline = NO_DEADLINE
    ) -> Sequence[VerificationKey]:
        """See `KeySource.find_keys`."""
        finding = self._keys.find_keys(issuer, key_id, deadline=deadline)
        return await self._wait(issuer, finding)

    async def find_newer_keys(
        self,
        issuer: Issuer,
        key_id: str | None,
        than: Sequence[VerificationKey],
        *,
        deadline: Deadline = NO_DEADLINE,
    ) -> Sequence[VerificationKey]:
        """See `KeySource.find_newer_keys`."""
        finding = self._keys.find_newer_keys(issuer, key_id, than, deadline=deadline)
        return await self._wait(issuer, finding)

    async def _wait(
        self, issuer: Issuer, finding: Awaitable[Sequence[VerificationKey]]
    ) -> Sequence[VerificationKey]:
        attributes = {names.SPAN_ISSUER: issuer.issuer}
        return await self._tracer.wait(names.SPAN_KEYS, finding, SpanKind.INTERNAL, attributes)


class _TracedIntrospector:
    def __init__(self, introspector: TokenIntrospector, tracer: CallTracer) -> None:
        self._introspector = introspector
        self._tracer = tracer

    async def introspect(
        self,
        issuer: Issuer,
        token: Secret,
        *,
        call: ApiCall | None = None,
        deadline: Deadline = NO_DEADLINE,
        client: str = "",
    ) -> Mapping[str, Any] | Denial | None:
        """See `TokenIntrospector.introspect`."""
        asking = self._introspector.introspect(
            issuer, token, call=call, deadline=deadline, client=client
        )
        attributes = {names.SPAN_ISSUER: issuer.issuer}
        return await self._tracer.wait(names.SPAN_INTROSPECT, asking, SpanKind.INTERNAL, attributes)
