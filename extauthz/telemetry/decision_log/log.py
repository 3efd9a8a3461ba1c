"""Notes each decision, and hands it to the sinks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from extauthz.model.decision import Decision
from extauthz.model.request import ApiRequest
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.decision_log.record import note_decision
from extauthz.telemetry.decision_log.sampling import DecisionSampling
from extauthz.telemetry.decision_log.sinks import CLOSE_S, Entry, SinkThread


class DecisionLog:
    """A `DecisionObserver` that writes decisions to sinks.

    Args:
        sinks: open until `close`.
        masks: how values are masked, the same for all sinks.
        sampling: which decisions are written, the same for all sinks.
    """

    def __init__(
        self, sinks: Sequence[SinkThread], masks: Masks, sampling: DecisionSampling
    ) -> None:
        self.sinks: Final = tuple(sinks)
        self._masks = masks
        self._sampling = sampling

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        ratio = self._sampling.find_ratio(decision)
        if not ratio:
            return
        noted = note_decision(request, decision, duration_us)
        if not self._sampling.takes(noted, ratio):
            return
        entry = Entry(noted, self._masks)
        for sink in self.sinks:
            sink.put(entry)

    def close(self, within_s: float = CLOSE_S) -> None:
        """Writes the decisions that wait, and ends the sinks; what takes longer is dropped."""
        until_s = time.monotonic() + within_s
        for sink in self.sinks:
            sink.end()
        for sink in self.sinks:
            sink.join(until_s)
