"""Makes metrics: they are counted in plain numbers, and read by OpenTelemetry in a scrape.

A call of the SDK costs microseconds, an addition almost nothing: observable instruments read the
sums when Prometheus scrapes. Decisions are counted by `extauthz.telemetry.decision_counts`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

Number = int | float


class Metrics:
    """A meter whose instruments read callables, and the text that Prometheus scrapes."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(
            disable_target_info=True, scope_info_enabled=False, registry=self._registry
        )
        self._provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
        self._meter = self._provider.get_meter("extauthz")

    def count(self, name: str, description: str, read: Callable[[], Number]) -> None:
        """Adds a counter, whose value never falls."""
        self._meter.create_observable_counter(name, [_observer(read)], description=description)

    def gauge(self, name: str, description: str, read: Callable[[], Number]) -> None:
        """Adds a gauge, whose value may rise and fall."""
        self._meter.create_observable_gauge(name, [_observer(read)], description=description)

    def write(self) -> bytes:
        """Everything, in Prometheus's text format (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Closes the reader."""
        self._provider.shutdown()


def _observer(
    read: Callable[[], Number],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(read())]

    return observe
