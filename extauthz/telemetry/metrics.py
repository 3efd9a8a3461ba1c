"""Makes metrics from plain numbers, which are read when Prometheus scrapes.

Each part of the service counts in a number of its own, and registers a callable here that returns
it. What has more labels or buckets is written by the part itself: decisions
(`extauthz.telemetry.decision_counts`, `extauthz.telemetry.decision_durations`) and what they depend
on (`extauthz.telemetry.measures`).

OpenTelemetry's SDK is not used for metrics: ``OTEL_SDK_DISABLED`` and other variables, which users
set for traces, would empty or change the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

Number = int | float


class Metrics:
    """Numbers by their names, and the text that Prometheus scrapes."""

    def __init__(self) -> None:
        self._numbers = _Numbers()
        self._texts: list[Callable[[], bytes]] = []
        self._registry = CollectorRegistry()
        self._registry.register(self._numbers)

    def count(self, name: str, description: str, read: Callable[[], Number]) -> None:
        """Adds a counter, whose value never falls."""
        shown = write_name(name)
        self._numbers.makers.append(lambda: CounterMetricFamily(shown, description, read()))

    def gauge(self, name: str, description: str, read: Callable[[], Number]) -> None:
        """Adds a gauge, whose value may rise and fall."""
        shown = write_name(name)
        self._numbers.makers.append(lambda: GaugeMetricFamily(shown, description, read()))

    def add_text(self, write: Callable[[], bytes]) -> None:
        """Adds metrics that a part writes itself, in Prometheus's text format."""
        self._texts.append(write)

    def write(self) -> bytes:
        """Writes all metrics in Prometheus's text format (`CONTENT_TYPE`)."""
        return b"".join([generate_latest(self._registry), *(write() for write in self._texts)])


class _Numbers(Collector):
    """The metrics of a scrape, in the order in which they were added."""

    def __init__(self) -> None:
        self.makers: list[Callable[[], Metric]] = []

    def collect(self) -> Iterator[Metric]:
        for make in self.makers:
            yield make()


def write_name(name: str) -> str:
    """Converts a name of `extauthz.telemetry.names` to Prometheus's form."""
    return name.replace(".", "_")
