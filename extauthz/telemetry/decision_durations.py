"""Measures how long decisions take, as a histogram in Prometheus's text format.

The duration is from the end of reading a request to the decision, so it is what the service adds to
a request, without reading and writing messages. It is counted in plain numbers, and written for
each scrape. Labels have values from closed sets, so there are few series for any catalog.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from extauthz.model.decision import Allow, Decision
from extauthz.model.request import ApiRequest
from extauthz.telemetry import names

BOUNDS_US: Final = (
    50, 100, 200, 500,
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
)  # fmt: skip
"""The inclusive upper bounds of the buckets, in µs; a last bucket has no bound."""
_LE: Final = (*(f"{bound / 1_000_000:g}" for bound in BOUNDS_US), "+Inf")
_HEAD: Final = (
    f"# HELP {names.DURATION_SHOWN} How long decisions took, without reading and writing "
    f"messages.\n# TYPE {names.DURATION_SHOWN} histogram\n"
)


class _Labels(NamedTuple):
    door: str
    outcome: str
    reason: str


@dataclass(slots=True)
class _Durations:
    """The number of decisions in each bucket, and the sum of their durations."""

    buckets: list[int] = field(default_factory=lambda: [0] * len(_LE))
    total_us: int = 0


class DecisionDurations:
    """A `DecisionObserver` that counts durations by door, outcome and reason."""

    def __init__(self) -> None:
        self._durations: dict[_Labels, _Durations] = {}

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        reason = "" if isinstance(decision, Allow) else decision.denial.reason.value
        labels = _Labels(request.door, names.name_outcome(decision), reason)
        durations = self._durations.get(labels)
        if durations is None:
            durations = self._durations[labels] = _Durations()
        durations.buckets[bisect_left(BOUNDS_US, duration_us)] += 1
        durations.total_us += duration_us

    def write(self) -> bytes:
        """Writes the durations since the start, in Prometheus's text format."""
        lines = [_HEAD]
        for labels, durations in self._durations.items():
            door, outcome, reason = labels
            shown = f'{names.DOOR}="{door}",{names.OUTCOME}="{outcome}",{names.REASON}="{reason}"'
            so_far = 0
            for bound, count in zip(_LE, durations.buckets, strict=True):
                so_far += count
                lines.append(f'{names.DURATION_SHOWN}_bucket{{{shown},le="{bound}"}} {so_far}\n')
            lines.append(f"{names.DURATION_SHOWN}_count{{{shown}}} {so_far}\n")
            total_s = durations.total_us / 1_000_000
            lines.append(f"{names.DURATION_SHOWN}_sum{{{shown}}} {total_s}\n")
        return "".join(lines).encode()
