"""The metrics of several processes as those of one.

Counters and histograms are added up. What a process had counted before it ended stays in the
sums, as far as it was ever asked: a sum that fell would look like a restart of the whole. Gauges
are added up too, but for those that only make sense for the worst of all (`_LEAST`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from extauthz.telemetry import names

_LEAST: Final = frozenset(
    name.replace(".", "_") for name in (names.CATALOG_LOADED, names.COUNTERS_UP)
)
"""Gauges of which the least is shown: the oldest catalog, a counter store that one cannot reach."""

_Labels: TypeAlias = tuple[tuple[str, str], ...]


@dataclass(slots=True)
class _Family:
    """A metric with its samples, by their names and labels."""

    name: str
    documentation: str
    kind: str
    samples: dict[tuple[str, _Labels], float] = field(default_factory=dict)

    def add(self, other: _Family) -> None:
        is_least = self.kind == "gauge" and self.name.startswith(tuple(_LEAST))
        for key, value in other.samples.items():
            if key not in self.samples:
                self.samples[key] = value
            elif is_least:
                self.samples[key] = min(self.samples[key], value)
            else:
                self.samples[key] += value

    def copy(self) -> _Family:
        return _Family(self.name, self.documentation, self.kind, dict(self.samples))


class SummedMetrics:
    """Keeps what each process said last, by its serial number."""

    def __init__(self) -> None:
        self._last: dict[int, list[_Family]] = {}
        self._ended: dict[str, _Family] = {}

    def update(self, answers: Mapping[int, str], alive: Iterable[int]) -> None:
        """Takes what processes said now; those that are not alive any more are counted as ended.

        Args:
            answers: Prometheus's text by serial number.
        """
        for serial, text in answers.items():
            self._last[serial] = list(_read(text))
        for serial in self._last.keys() - set(alive):
            counted = [family for family in self._last.pop(serial) if family.kind != "gauge"]
            _add(self._ended, counted)

    def write(self) -> bytes:
        """Prometheus's text of all together."""
        total = {name: family.copy() for name, family in self._ended.items()}
        for serial in sorted(self._last):
            _add(total, self._last[serial])
        registry = CollectorRegistry()
        registry.register(_Collector(total.values()))
        return generate_latest(registry)


def _add(total: dict[str, _Family], families: Iterable[_Family]) -> None:
    for family in families:
        if family.name in total:
            total[family.name].add(family)
        else:
            total[family.name] = family.copy()


def _read(text: str) -> Iterable[_Family]:
    for metric in text_string_to_metric_families(text):
        family = _Family(metric.name, metric.documentation, metric.type)
        for sample in metric.samples:
            family.samples[sample.name, tuple(sorted(sample.labels.items()))] = sample.value
        yield family


class _Collector(Collector):
    def __init__(self, families: Iterable[_Family]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.documentation, family.kind)
            for (name, labels), value in family.samples.items():
                metric.add_sample(name, dict(labels), value)
            yield metric
