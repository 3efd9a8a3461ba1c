"""The metrics of several processes as those of one.

Counters and histograms are added up. What a process had counted before it ended stays in the
sums, as far as it was ever asked: a sum that fell would look like a restart of the whole. Gauges
are added up too, but for those that only make sense for the worst of all (`_LEAST`).

All processes run the same code, so what stands in front of a value names the same series in each:
it is not taken apart, which would take 40 µs for each of what may be 100,000 lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from extauthz.telemetry import names

_LEAST: Final = frozenset(
    name.replace(".", "_")
    for name in (
        names.CATALOG_LOADED,
        names.COUNTERS_UP,
        names.EMERGENCY_IN_FORCE,
        names.EMERGENCY_UP,
    )
)
"""Gauges of which the least is shown: the oldest catalog, a counter store that one cannot reach."""


@dataclass(slots=True)
class _Family:
    """A metric: its comments, its kind, and its samples by what stands in front of the value."""

    comments: tuple[str, ...] = ()
    kind: str = ""
    samples: dict[str, float] = field(default_factory=dict)

    def add(self, other: _Family, *, is_least: bool) -> None:
        samples = self.samples
        for series, value in other.samples.items():
            if series not in samples:
                samples[series] = value
            elif is_least:
                samples[series] = min(samples[series], value)
            else:
                samples[series] += value


_Families = dict[str, _Family]


class SummedMetrics:
    """Keeps what each process said last, by its serial number."""

    def __init__(self) -> None:
        self._last: dict[int, _Families] = {}
        self._ended: _Families = {}

    def update(self, answers: Mapping[int, bytes], alive: Iterable[int]) -> None:
        """Takes what processes said now; those that are not alive any more are counted as ended.

        Args:
            answers: Prometheus's text by serial number, each family below its ``# TYPE``.
        """
        for serial, text in answers.items():
            self._last[serial] = _read(text.decode())
        for serial in self._last.keys() - set(alive):
            families = self._last.pop(serial)
            _add(
                self._ended,
                {name: family for name, family in families.items() if family.kind != "gauge"},
            )

    def write(self) -> bytes:
        """Prometheus's text of all together."""
        total: _Families = {}
        for families in (self._ended, *(self._last[serial] for serial in sorted(self._last))):
            _add(total, families)
        lines: list[str] = []
        for family in total.values():
            lines += family.comments
            lines += [f"{series} {value!r}" for series, value in family.samples.items()]
        return "".join(f"{line}\n" for line in lines).encode()


def _add(total: _Families, families: _Families) -> None:
    for name, family in families.items():
        if name not in total:
            total[name] = _Family(family.comments, family.kind)
        total[name].add(family, is_least=family.kind == "gauge" and name in _LEAST)


def _read(text: str) -> _Families:
    families: _Families = {}
    family = _Family()
    for line in text.removesuffix("\n").split("\n"):  # a label may hold what else ends a line
        if line.startswith("# "):
            _, what, name, said = line.split(" ", 3)
            family = families.setdefault(name, _Family())
            family.comments += (line,)
            if what == "TYPE":
                family.kind = said
        else:
            series, _, value = line.rpartition(" ")
            family.samples[series] = float(value)
    return families
