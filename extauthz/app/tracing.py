"""Sets up traces when the settings or the environment turn them on.

OpenTelemetry's packages are imported only then, because they are an extra. Settings take precedence
over variables of the same meaning, and variables that turn traces off over everything else.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from extauthz.errors import ConfigError, Problem
from extauthz.serving.methods import Call, RpcCode, RpcFailure, TextNames, UnaryMethod
from extauthz.settings.telemetry import TelemetrySettings
from extauthz.telemetry.current_trace import read_told
from extauthz.telemetry.otel_variables import (
    Signal,
    find_collector,
    is_off,
    read_propagators,
    read_protocol,
    read_sampling,
)
from extauthz.telemetry.trace_context import FIELDS

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

    from extauthz.telemetry.otlp import SpanSender
    from extauthz.telemetry.tracing import CallSpan, CallTracer

Req = TypeVar("Req")
Res = TypeVar("Res")
Exporter = TypeVar("Exporter")

_FIELDS: Final = TextNames(FIELDS)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tracing:
    """The part that begins spans, and the part that sends them."""

    tracer: CallTracer
    sender: SpanSender


@asynccontextmanager
async def open_tracing(
    settings: TelemetrySettings, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[Tracing | None]:
    """Opens tracing for the block, and sends the last spans at its end.

    Args:
        settings: the settings of telemetry.
        environment: the environment's variables.

    Yields:
        The tracing; None when nothing turns it on.

    Raises:
        ConfigError: spans cannot be sent with these settings or variables.
    """
    exporter = _make_exporter(settings, environment)
    if exporter is None:
        yield None
        return
    from extauthz.telemetry.otlp import SpanSender
    from extauthz.telemetry.tracing import CallTracer

    sampling = read_sampling(environment, settings.trace_ratio)
    try:
        sender = SpanSender(exporter, sampling)
    except ValueError as exc:  # an invalid OTEL_BSP_* or OTEL_SPAN_*
        message = f"a variable OTEL_* is not usable: {exc}"
        raise ConfigError([Problem(path="telemetry.otlp", message=message)]) from exc
    tracer = CallTracer(
        sender.provider,
        sampling,
        read_propagators(environment),
        request_context=settings.request_context,
    )
    try:
        yield Tracing(tracer, sender)
    finally:
        await sender.close()


def check_tracing(settings: TelemetrySettings, environment: Mapping[str, str] = os.environ) -> None:
    """Checks whether spans could be sent, without a connection to a collector.

    Args:
        settings: the settings of telemetry.
        environment: the environment's variables.

    Raises:
        ConfigError: they could not be sent.
    """
    exporter = _make_exporter(settings, environment)
    if exporter is not None:
        exporter.shutdown()


def _make_exporter(
    settings: TelemetrySettings, environment: Mapping[str, str]
) -> SpanExporter | None:
    """Makes the exporter of spans; None when traces are not turned on, or are turned off."""

    def make(protocol: str, endpoint: str | None) -> SpanExporter:
        from extauthz.telemetry.otlp import make_exporter

        return make_exporter(protocol, endpoint)

    asked_by = "" if settings.otlp is None else "telemetry.otlp"
    return make_otlp_exporter(settings, environment, "TRACES", make, asked_by=asked_by)


def make_otlp_exporter(
    settings: TelemetrySettings,
    environment: Mapping[str, str],
    signal: Signal,
    make: Callable[[str, str | None], Exporter],
    *,
    asked_by: str,
) -> Exporter | None:
    """Makes an exporter of OpenTelemetry's.

    Args:
        make: makes it for a protocol and an endpoint, which is None to read it from the
            environment.
        asked_by: the setting that turns the signal on; empty when none does.

    Returns:
        The exporter; None when the signal is not turned on, or is turned off.

    Raises:
        ConfigError: there can be none with these settings or variables.
    """
    if is_off(environment, signal):
        return None
    variable = find_collector(environment, signal)
    if not asked_by and not variable:
        return None
    endpoint = protocol = None
    if settings.otlp is not None:
        endpoint, protocol = settings.otlp.endpoint, settings.otlp.protocol
    try:
        return make(protocol or read_protocol(environment, signal), endpoint)
    except ModuleNotFoundError as exc:
        if not asked_by:
            # The variable may be set for other programs.
            _log.warning(
                "%s asks for %s, which need extauthz[otlp]: none are sent", variable, signal.lower()
            )
            return None
        message = (
            f"needs OpenTelemetry ({exc.name} is missing): install extauthz[otlp], or remove it"
        )
        raise ConfigError([Problem(path=asked_by, message=message)]) from exc
    except (ValueError, OSError) as exc:
        message = f"a variable OTEL_EXPORTER_OTLP_* is not usable: {exc}"
        raise ConfigError([Problem(path=asked_by or variable, message=message)]) from exc


def trace_method(
    method: UnaryMethod[Req, Res],
    tracer: CallTracer | None,
    read_fields: Callable[[Req, Collection[str]], Mapping[str, str]] | None = None,
) -> UnaryMethod[Req, Res]:
    """Wraps a method: each of its traced calls becomes a span, and the log knows each call's trace.

    Args:
        tracer: None when no spans are made.
        read_fields: reads fields by their names from the request that a call is about; None for
            methods whose calls have none.
    """

    def handle(request: Req, call: Call) -> Awaitable[Res]:
        read_told.set(partial(call.caller.read_texts, _FIELDS))
        if tracer is None:
            return method.handle(request, call)
        told = call.caller.read_texts(_FIELDS)
        if read_fields is None:
            span = tracer.begin(method.path, told)
        else:
            span = tracer.begin(method.path, told, lambda: read_fields(request, FIELDS))
        return method.handle(request, call) if span is None else answer(request, call, span)

    async def answer(request: Req, call: Call, span: CallSpan) -> Res:
        held, status = span.hold(), method.failure_code
        try:
            response = await method.handle(request, call)
            status = RpcCode.OK
        except RpcFailure as failure:
            status = failure.code
            raise
        except asyncio.CancelledError:
            status = RpcCode.CANCELLED
            raise
        finally:
            span.end(held, status.name)
        return response

    return replace(method, handle=handle)
