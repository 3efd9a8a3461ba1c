"""Sends spans to a collector by OTLP, with OpenTelemetry's SDK, in batches from a thread.

When a collector is away, slow or refuses spans, spans are lost, and nothing else happens: at most
``OTEL_BSP_MAX_QUEUE_SIZE`` spans wait, the oldest are dropped first, and a stop takes at most
`CLOSE_S`.

The SDK and the exporters read all further configuration from the variables OTEL_*: headers,
certificates, compression and timeouts of the exporter, sizes of batches and spans, and attributes
of the resource.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from threading import Thread
from typing import Final
from uuid import uuid4

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from extauthz.telemetry.trace_context import Sampling

CLOSE_S: Final = 2.0
"""How long a stop waits for the last spans."""

_log = logging.getLogger(__name__)


def make_exporter(protocol: str, endpoint: str | None) -> SpanExporter:
    """Makes an exporter.

    Args:
        protocol: grpc or http.
        endpoint: the collector's URL; None to read it from the environment.

    Raises:
        ModuleNotFoundError: the packages of extauthz[otlp] are missing.
        ValueError, OSError: a variable OTEL_EXPORTER_OTLP_*, or its file, cannot be used.
    """
    if protocol == "http":
        from opentelemetry.exporter.otlp.proto.http import trace_exporter as http

        return http.OTLPSpanExporter(endpoint and f"{endpoint.rstrip('/')}/v1/traces")
    from opentelemetry.exporter.otlp.proto.grpc import trace_exporter as grpc

    return grpc.OTLPSpanExporter(endpoint)


class SpanSender:
    """Has a provider of tracers, and sends all of its spans. It starts a thread."""

    def __init__(self, exporter: SpanExporter, sampling: Sampling) -> None:
        self._exporter = _CountingExporter(exporter)
        self._batches = _CountingProcessor(self._exporter)
        self.provider: Final = TracerProvider(
            sampler=ALWAYS_ON,  # only calls that are sampled begin spans
            resource=make_resource(),
            id_generator=_SampledIds(sampling),
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(self._batches)

    @property
    def spans(self) -> int:
        """The number of spans that have ended."""
        return self._batches.ended

    @property
    def sent(self) -> int:
        """The number of spans that the collector has accepted."""
        return self._exporter.sent

    @property
    def waiting(self) -> int:
        """Spans that wait to be sent."""
        return len(self._batches.queue)

    @property
    def capacity(self) -> int:
        """How many spans may wait; of more, the oldest are dropped."""
        return self._batches.queue.maxlen or 0

    async def close(self, within_s: float = CLOSE_S) -> None:
        """Sends the spans that wait; those that take longer than `within_s` seconds are lost."""
        if not await asyncio.to_thread(shut_down, self.provider.shutdown, within_s):
            _log.warning("the last spans could not be sent: the collector takes too long")
            self._exporter.shutdown()


def shut_down(provider: Callable[[], None], within_s: float) -> bool:
    """Shuts a provider of the SDK down, in a thread.

    The SDK itself would wait for half a minute before it interrupts the exporter's retries.

    Args:
        provider: its method for that, which sends what waits.
        within_s: how long it may take.

    Returns:
        False when it takes longer; then the exporter should be shut down.
    """
    thread = Thread(target=provider, name="last telemetry", daemon=True)
    thread.start()
    thread.join(within_s)
    return not thread.is_alive()


class _CountingProcessor(BatchSpanProcessor):
    def __init__(self, exporter: SpanExporter) -> None:
        super().__init__(exporter)
        self.ended = 0

    @property
    def queue(self) -> deque[ReadableSpan]:
        """The spans that wait. The SDK shows their number only to meters of its own."""
        return self._batch_processor._queue  # noqa: SLF001

    def on_end(self, span: ReadableSpan) -> None:
        self.ended += 1
        super().on_end(span)


class _CountingExporter(SpanExporter):
    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_shut = False
        self.sent = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self._exporter.export(spans)
        if result is SpanExportResult.SUCCESS:
            self.sent += len(spans)
        return result

    def shutdown(self) -> None:
        if not self._is_shut:
            self._is_shut = True
            self._exporter.shutdown()


class _SampledIds(RandomIdGenerator):
    """Gives new traces ids within the ratio, so that others with the same ratio sample them too."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling

    def generate_trace_id(self) -> int:
        return self._sampling.make_trace_id()

    def is_trace_id_random(self) -> bool:
        return False


def make_resource() -> Resource:
    """What all telemetry of this process says of where it comes from."""
    own = {
        "service.name": "extauthz",
        "service.version": version("extauthz"),
        "service.instance.id": _make_instance_id(),
    }
    told = OTELResourceDetector().detect().attributes
    return Resource.create({name: value for name, value in own.items() if name not in told})


@cache
def _make_instance_id() -> str:
    """The same for all telemetry of this process."""
    return str(uuid4())
