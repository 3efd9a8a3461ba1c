"""Measures how long decisions take, as a histogram in Prometheus's text format.

The duration is from the end of reading a request to the decision, so it is what the service adds to
a request, without reading and writing messages. It is counted in plain numbers, and written for
each scrape. Labels have values from closed sets, so there are few series for any catalog.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from extauthz.model.decision import Allow, Decision
from extauthz.model.request import ApiRequest
from extauthz.telemetry import names
from extauthz.telemetry.measures.histogram import Histogram

_HEAD: Final = (
    f"# HELP {names.DURATION_SHOWN} How long decisions took, without reading and writing "
    f"messages.\n# TYPE {names.DURATION_SHOWN} histogram\n"
)


class _Labels(NamedTuple):
    door: str
    outcome: str
    reason: str


class DecisionDurations:
    """A `DecisionObserver` that counts durations by door, outcome and reason."""

    def __init__(self) -> None:
        self._durations: dict[_Labels, Histogram] = {}

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        reason = "" if isinstance(decision, Allow) else decision.denial.reason.value
        labels = _Labels(request.door, names.name_outcome(decision), reason)
        durations = self._durations.get(labels)
        if durations is None:
            durations = self._durations[labels] = Histogram()
        durations.observe(duration_us)

    def write(self) -> bytes:
        """Writes the durations since the start, in Prometheus's text format."""
        lines = [_HEAD]
        for labels, durations in self._durations.items():
            door, outcome, reason = labels
            shown = f'{names.DOOR}="{door}",{names.OUTCOME}="{outcome}",{names.REASON}="{reason}"'
            lines.append(durations.write(names.DURATION_SHOWN, shown))
        return "".join(lines).encode()
