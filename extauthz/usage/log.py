"""Notes each reported request, and hands it to the sinks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from extauthz.model.usage import UsageRecord
from extauthz.ports import Clock
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.decision_log.sinks import CLOSE_S, Entry, SinkThread
from extauthz.usage.marks import Marks
from extauthz.usage.record import note_loss, note_usage

FILE: Final = "file"
"""The name of the sink whose entries the marks count."""


class UsageLog:
    """A `UsageObserver` that writes requests to sinks.

    Args:
        sinks: open until `close`.
        masks: how values are masked, the same for all sinks.
        marks: count what the file has to write; None when there is no file.
    """

    def __init__(
        self, sinks: Sequence[SinkThread], masks: Masks, clock: Clock, marks: Marks | None = None
    ) -> None:
        self.sinks: Final = tuple(sinks)
        self.lost: Final = 0 if marks is None else marks.lost
        """Lines that the process before this one perhaps did not write to the file."""
        self._masks = masks
        self._clock = clock
        self._marks = marks
        self._missing = self.lost
        """Lines that the file does not have, and does not say so yet."""

    def observe_usage(self, record: UsageRecord) -> None:
        """See `UsageObserver.observe_usage`."""
        if not self.sinks:
            return
        entry = Entry(note_usage(record), self._masks)
        for sink in self.sinks:
            if sink.name == FILE:
                self._put(sink, entry)
            else:
                sink.put(entry)

    def _put(self, file: SinkThread, entry: Entry) -> None:
        """Puts an entry for the file, and before it how many are missing there."""
        has_room_for_both = file.waiting <= file.max_waiting - 2
        if self._missing and has_room_for_both and self._put_marked(file, self._note_missing()):
            self._missing = 0
        if not self._put_marked(file, entry):
            self._missing += 1

    def _put_marked(self, file: SinkThread, entry: Entry) -> bool:
        was_put = file.put(entry)
        if was_put and self._marks is not None:
            self._marks.accept()
        return was_put

    def _note_missing(self) -> Entry:
        return Entry(note_loss(self._missing, self._clock.now_us()), self._masks)

    def close(self, within_s: float = CLOSE_S) -> None:
        """Writes the requests that wait, and ends the sinks; what takes longer is dropped."""
        until_s = time.monotonic() + within_s
        for sink in self.sinks:
            sink.end()
        for sink in self.sinks:
            sink.join(until_s)
