"""Counts decisions by their labels, and writes the counts as Prometheus reads them.

There may be many: 10,000 APIs by reason are 50,000 series and more. They are written here, and not
by OpenTelemetry's SDK, for two reasons. The SDK folds all label sets from the 2,000th on into one,
and then adds a label to all the others (1.45.2; 1.45.0 did not). And it takes 20 µs for each
series, which blocks decisions, where writing the text takes 1 µs; the text is written in pieces,
and decisions are made in between.

The number of series is bounded, as names come from a catalog that may always change. Further
decisions are counted under `FOLDED` instead of their API and rule, and in `folded`.
"""

from __future__ import annotations

import asyncio
import io
import json
from typing import Final, NamedTuple

from extauthz.model.decision import Allow, Decision
from extauthz.model.request import ApiRequest
from extauthz.telemetry import names

MAX_SERIES: Final = 100_000
MAX_LABEL_BYTES: Final = 8 * 1024 * 1024
"""The most characters of the labels of all series together, written as JSON."""
FOLDED: Final = "(folded)"
"""Replaces the API and the rule of decisions that have no series of their own."""
_LINES_AT_ONCE: Final = 1_000
"""Series that are written in one step, which takes about a millisecond."""
_HEAD: Final = (
    f"# HELP {names.DECISIONS_SHOWN} Decisions that were made.\n"
    f"# TYPE {names.DECISIONS_SHOWN} counter\n"
).encode()


class _Labels(NamedTuple):
    """The labels of a series, in the order of the text."""

    api: str
    level: str
    outcome: str
    reason: str
    rule: str


class DecisionCounts:
    """A `DecisionObserver` that counts decisions by API, outcome, reason, level and rule."""

    def __init__(
        self, max_series: int = MAX_SERIES, max_label_bytes: int = MAX_LABEL_BYTES
    ) -> None:
        self._counts: dict[_Labels, int] = {}
        self._max_series = max_series
        self._free_bytes = max_label_bytes
        self.folded = 0
        """Number of decisions that were counted under `FOLDED`."""

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        api = "" if decision.route is None else decision.route.api.name
        outcome = names.name_outcome(decision)
        if isinstance(decision, Allow):
            labels = _Labels(api, "", outcome, "", "")
        else:
            denial = decision.denial
            level = "" if denial.level is None else denial.level.value
            labels = _Labels(api, level, outcome, denial.reason.value, denial.rule)
        counts = self._counts
        if labels in counts:
            counts[labels] += 1
        else:
            self._begin(labels)

    def _begin(self, labels: _Labels) -> None:
        size = len(json.dumps(labels))
        if len(self._counts) < self._max_series and size <= self._free_bytes:
            self._free_bytes -= size
        else:
            self.folded += 1
            labels = labels._replace(api=FOLDED, rule=FOLDED if labels.rule else "")
        self._counts[labels] = self._counts.get(labels, 0) + 1

    async def write(self, before: bytes = b"") -> bytes:
        """The counts since the start, in Prometheus's text format, behind another text.

        No step copies the whole text, nor makes an object for each series, which would start the
        garbage collector: with 50,000 of them, that alone took 20 ms.
        """
        text = io.BytesIO()
        text.write(before)
        text.write(_HEAD)
        counts = self._counts
        series = list(counts)
        for start in range(0, len(series), _LINES_AT_ONCE):
            lines = [
                _write_line(one, counts[one]) for one in series[start : start + _LINES_AT_ONCE]
            ]
            text.write("".join(lines).encode("utf-8", "replace"))
            await asyncio.sleep(0)
        return text.getvalue()  # returns the buffer without a copy


def _write_line(labels: _Labels, count: int) -> str:
    api, level, outcome, reason, rule = labels
    return (
        f'{names.DECISIONS_SHOWN}{{{names.API}="{escape_label(api)}",{names.LEVEL}="{level}",'
        f'{names.OUTCOME}="{outcome}",{names.REASON}="{reason}",{names.RULE}="{escape_label(rule)}"}} '
        f"{count}\n"
    )


def escape_label(text: str) -> str:
    """The value of a label as Prometheus's text format has it, without the quotes."""
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
