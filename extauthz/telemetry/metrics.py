"""Makes metrics from plain numbers, which are read when Prometheus scrapes.

Each part of the service counts in a number of its own, and registers a callable here that returns
it. What has more labels or buckets is written by the part itself: decisions
(`extauthz.telemetry.decision_counts`, `extauthz.telemetry.decision_durations`) and what they depend
on (`extauthz.telemetry.measures`).

OpenTelemetry's SDK is not used for metrics: ``OTEL_SDK_DISABLED`` and other variables, which users
set for traces, would empty or change the page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

Number = int | float
Read = Callable[[], Number | None]
"""Returns the value now; None to show none."""


class CountedCache(Protocol):
    """A cache that counts its look-ups, since the start."""

    @property
    def hits(self) -> int:
        """Look-ups that the cache had the answer for."""

    @property
    def misses(self) -> int:
        """Look-ups that it had none for."""


class Metrics:
    """Numbers by their names, and the text that Prometheus scrapes."""

    def __init__(self) -> None:
        self._numbers = _Numbers()
        self._texts: list[Callable[[], bytes]] = []
        self._registry = CollectorRegistry()
        self._registry.register(self._numbers)

    def count(self, name: str, description: str, read: Read, **labels: str) -> None:
        """Adds a counter, whose value never falls. Each set of labels is added by itself."""
        self._numbers.add(CounterMetricFamily, name, description, read, labels)

    def gauge(self, name: str, description: str, read: Read, **labels: str) -> None:
        """Adds a gauge, whose value may rise and fall. Each set of labels is added by itself."""
        self._numbers.add(GaugeMetricFamily, name, description, read, labels)

    def show_process(self) -> None:
        """Adds what the system says of this process: memory, CPU time, open files (Linux only)."""
        ProcessCollector(registry=self._registry)

    def add_text(self, write: Callable[[], bytes]) -> None:
        """Adds metrics that a part writes itself, in Prometheus's text format."""
        self._texts.append(write)

    def write(self) -> bytes:
        """Writes all metrics in Prometheus's text format (`CONTENT_TYPE`)."""
        return b"".join([generate_latest(self._registry), *(write() for write in self._texts)])


_Kind = type[CounterMetricFamily] | type[GaugeMetricFamily]


@dataclass(slots=True)
class _Family:
    """A metric: what reads its values, with the labels of each."""

    kind: _Kind
    description: str
    label_names: tuple[str, ...]
    rows: list[tuple[tuple[str, ...], Read]] = field(default_factory=list)


class _Numbers(Collector):
    """The metrics of a scrape, in the order in which they were added."""

    def __init__(self) -> None:
        self._families: dict[str, _Family] = {}

    def add(
        self, kind: _Kind, name: str, description: str, read: Read, labels: Mapping[str, str]
    ) -> None:
        family = self._families.setdefault(
            write_name(name), _Family(kind, description, tuple(labels))
        )
        family.rows.append((tuple(labels.values()), read))

    def collect(self) -> Iterator[Metric]:
        for name, family in self._families.items():
            shown = family.kind(name, family.description, labels=family.label_names)
            for labels, read in family.rows:
                value = read()
                if value is not None:
                    shown.add_metric(labels, value)
            yield shown


def write_name(name: str) -> str:
    """Converts a name of `extauthz.telemetry.names` to Prometheus's form."""
    return name.replace(".", "_")
