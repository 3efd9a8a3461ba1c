"""Gives lines of usage to sinks: a bounded queue and a thread for each sink.

A sink that is slow or away neither delays a decision nor another sink. Its lines wait; when
`MAX_WAITING` of them do, new ones are dropped and counted. A batch that could not be written is
tried again until it can be, with pauses, so that a sink which was away for a short time gets
everything. At a stop, the lines that wait have `CLOSE_S` to be written.

The thread wakes up for a batch, and not for each line: it would take the interpreter from the
decisions each time.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from threading import Event, Thread
from typing import ClassVar, Final

from extauthz.errors import ExtauthzError
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.ports import Clock, UsageSink
from extauthz.usage.marks import Marks
from extauthz.usage.record import write_loss

_log = logging.getLogger(__name__)


class UsageNotWrittenError(ExtauthzError):
    """A sink did not take lines of usage; they are tried again."""

    code: ClassVar[str] = "usage_not_written"


MAX_WAITING: Final = 100_000
"""Lines that may wait for one sink, some 60 MB."""
BATCH: Final = 500
FLUSH_S: Final = 1.0
"""How long a line waits for a batch to fill."""
CLOSE_S: Final = 3.0
"""How long a stop waits for a sink."""
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0


class SinkQueue:
    """The lines that wait for one sink, and the thread that writes them. One thread puts."""

    def __init__(
        self,
        name: str,
        sink: UsageSink,
        clock: Clock,
        *,
        marks: Marks | None = None,
        max_waiting: int = MAX_WAITING,
        flush_s: float = FLUSH_S,
    ) -> None:
        self.name: Final = name
        self.written = 0
        """Lines that the sink has taken, since the start."""
        self.refused = 0
        """Lines that were dropped because too many waited, since the start."""
        self.failures = 0
        """Batches that could not be written at the first try, since the start."""
        self._left = 0
        self._sink = sink
        self._clock = clock
        self._marks = marks
        self._told = 0
        self._not_written = RepeatedWarnings(_log, "lines of usage wait")
        self.max_waiting: Final = max_waiting
        self._flush_s = flush_s
        self._lines: deque[bytes] = deque()
        self._wake = Event()
        self._is_closing = False
        # A sink that hangs must not keep the process from ending.
        self._thread = Thread(target=self._write_all, name=f"usage {name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Lines that are not written yet."""
        return len(self._lines)

    @property
    def dropped(self) -> int:
        """Lines that were never written: too many waited, or the stop came."""
        return self.refused + self._left

    def put(self, line: bytes) -> None:
        """Adds a line, or drops it when too many wait."""
        waiting = len(self._lines)
        if waiting >= self.max_waiting:
            self.refused += 1
            return
        if self._marks is not None:
            self._marks.accept()
        self._lines.append(line)
        if waiting + 1 == BATCH:
            self._wake.set()

    def close(self, within_s: float = CLOSE_S) -> None:
        """Writes the lines that wait; those that take longer are dropped."""
        self._is_closing = True
        self._wake.set()
        self._thread.join(within_s)
        self._left = len(self._lines)
        if self._left:
            _log.error(
                "%d lines of usage could not be written to %s before the stop",
                self._left,
                self.name,
            )
        if self._marks is not None and not self._thread.is_alive():
            self._marks.close()

    def _write_all(self) -> None:
        while True:
            if len(self._lines) < BATCH and not self._is_closing:
                self._wake.wait(self._flush_s)
                self._wake.clear()
            is_last = self._is_closing
            while self._lines and self._write_batch():
                pass
            if is_last:
                self._sink.close()
                return

    def _write_batch(self) -> bool:
        """Writes the first lines that wait; False when the stop came before that."""
        lines, size = self._lines, min(len(self._lines), BATCH)
        batch = [lines[number] for number in range(size)]
        refused = self.refused
        if refused > self._told:
            batch.append(write_loss(refused - self._told, self._clock.now_us()))
        pause_s = _FIRST_PAUSE_S
        while not self._try(batch, is_first=pause_s == _FIRST_PAUSE_S):
            if self._is_closing:
                return False
            self._wake.wait(pause_s)
            self._wake.clear()
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        for _ in range(size):
            lines.popleft()
        self._told = refused
        self.written += size
        if self._marks is not None:
            self._marks.write(size)
        return True

    def _try(self, batch: Sequence[bytes], *, is_first: bool) -> bool:
        try:
            self._sink.write(batch)
        except Exception as error:  # noqa: BLE001  (a vendor's sink may raise anything)
            if is_first:
                self.failures += 1
                self._not_written.warn(UsageNotWrittenError(f"{self.name}: {error!r}"))
            return False
        return True
