"""Writes a line for each reported request, and gives it to every sink."""

from __future__ import annotations

from collections.abc import Sequence

from extauthz.model.usage import UsageRecord
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.usage.queues import SinkQueue
from extauthz.usage.record import write_line


class UsageLog:
    """A `UsageObserver`. The line is written once, masked, for all sinks."""

    def __init__(self, queues: Sequence[SinkQueue], masks: Masks) -> None:
        self.queues = tuple(queues)
        self._masks = masks

    def observe_usage(self, record: UsageRecord) -> None:
        """See `UsageObserver.observe_usage`."""
        if self.queues:
            line = write_line(record, self._masks)
            for queue in self.queues:
                queue.put(line)
