"""Gives decisions to sinks: a bounded queue and a thread for each sink.

A sink that is slow, refuses or is away delays neither a decision nor another sink, and a stop by
`CLOSE_S` at most. When `MAX_WAITING` decisions wait for a sink, further ones are dropped for this
sink and counted.

A thread makes the records of a few decisions at a time, and then lets decisions go on: while it makes
them, no other code runs in this process. What is ready is written together.
"""

from __future__ import annotations

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event, Thread
from typing import Final, Protocol

from extauthz.telemetry.decision_log.masking import Instant, Masks, Shown

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Decisions that may wait for a sink."""
AT_ONCE: Final = 16
"""Decisions that are written together."""
MADE_AT_ONCE: Final = 4
"""Records that are made before the thread pauses; less than 0.1 ms."""
CLOSE_S: Final = 3.0
"""How long a stop waits for all sinks together."""
_PAUSE_S: Final = 0.0005
_SHORT_PAUSE_S: Final = 0.0001
_IDLE_S: Final = 0.1
"""How often an idle thread looks. To be woken for each decision would take longer."""
_FIRST_RETRY_S: Final = 0.2
_LONGEST_RETRY_S: Final = 5.0


class Noted(Protocol):
    """What is known of something that is to be written: a decision, or a finished request."""

    @property
    def time(self) -> Instant:
        """When it was."""

    def write(self, masks: Masks) -> dict[str, Shown]:
        """The record, masked."""


class Entry:
    """A decision to be written. Its record is made when the first sink needs it."""

    __slots__ = ("_line", "_masks", "_noted", "_record")

    def __init__(self, noted: Noted, masks: Masks) -> None:
        self._noted = noted
        self._masks = masks
        self._record: dict[str, Shown] | None = None
        self._line = b""

    @property
    def time_ns(self) -> int:
        """When the decision was made, in nanoseconds since the Unix epoch."""
        return self._noted.time

    @property
    def record(self) -> dict[str, Shown]:
        """The record, masked. It must not be changed."""
        self.make()
        assert self._record is not None
        return self._record

    def make(self) -> None:
        """Makes the record, so that a sink has it ready."""
        if self._record is None:
            self._record = self._noted.write(self._masks)

    @property
    def line(self) -> bytes:
        """The record as JSON, without the end of a line."""
        if not self._line:
            self._line = json.dumps(self.record).encode()
        return self._line


class SinkAway(Exception):
    """A sink takes nothing now; what it was given is tried again. The text says why."""


class Sink(Protocol):
    """Takes decisions. All calls come from the thread of its queue."""

    @property
    def at_once(self) -> int:
        """The most entries that it takes in one call."""

    def write(self, entries: Sequence[Entry]) -> None:
        """Takes all of these entries.

        Raises:
            SinkAway: it took none of them, or perhaps some; they are tried again.
            Exception: they cannot be written, and are dropped.
        """

    def close(self) -> None:
        """Releases what it holds."""


class SinkThread:
    """The queue and the thread of one sink.

    Args:
        name: of the kind of sink, for metrics.
        place: where it writes to, for the log.
        what: what is written, in the plural, for the log.
        lost: how many entries the sink has taken and lost afterwards.
    """

    def __init__(
        self,
        name: str,
        sink: Sink,
        *,
        place: str,
        what: str = "decisions",
        max_waiting: int = MAX_WAITING,
        lost: Callable[[], int] = int,
    ) -> None:
        self.name: Final = name
        self.max_waiting: Final = max_waiting
        self.written = 0
        """Entries that the sink has taken, since the start."""
        self._place = place
        self._what = what
        self._sink = sink
        self._lost = lost
        self._entries: deque[Entry] = deque()
        self._refused = self._failed = self._left = 0
        self._is_good = True
        self._is_ending = self._has_given_up = False
        self._wake = Event()
        # A sink that hangs must not keep the process from ending.
        self._thread = Thread(target=self._write_all, name=f"{what} to {name}", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Decisions that wait to be written."""
        return len(self._entries)

    @property
    def dropped(self) -> int:
        """Decisions that were not written: too many waited, the sink failed, or the stop came."""
        return self._refused + self._failed + self._left + self._lost()

    def put(self, entry: Entry) -> bool:
        """Adds an entry; drops it when too many wait, and gives False then."""
        if len(self._entries) < self.max_waiting:
            self._entries.append(entry)
            return True
        self._refused += 1
        return False

    def end(self) -> None:
        """Tells the thread to write what waits, and to end."""
        self._is_ending = True
        self._wake.set()

    def join(self, until_s: float) -> None:
        """Waits for the end, until a time of `time.monotonic`; drops what waits longer."""
        self._thread.join(max(0.0, until_s - time.monotonic()))
        if self._thread.is_alive():
            self._has_given_up = True
        self._left = len(self._entries)
        if self._left:
            _log.error(
                "%d %s could not be written to %s: it takes too long",
                self._left,
                self._what,
                self._place,
            )

    def _write_all(self) -> None:
        retry_s = _FIRST_RETRY_S
        try:
            while not self._has_given_up:
                is_ending = self._is_ending
                if not self._entries:
                    if is_ending:
                        return
                    self._wake.wait(_IDLE_S)
                elif self._write_some():
                    retry_s = _FIRST_RETRY_S
                    if not is_ending:
                        self._wake.wait(_PAUSE_S)
                elif is_ending:
                    return
                else:
                    self._wake.wait(retry_s)
                    retry_s = min(2 * retry_s, _LONGEST_RETRY_S)
        finally:
            self._sink.close()

    def _write_some(self) -> bool:
        """Writes the first decisions that wait; False when the sink is away."""
        entries, left = self._entries, min(len(self._entries), AT_ONCE)
        self._make_records(left)
        while left and not self._has_given_up:
            size = min(left, self._sink.at_once)
            if not self._write([entries[number] for number in range(size)]):
                return False
            for _ in range(size):
                entries.popleft()
            left -= size
        return True

    def _make_records(self, many: int) -> None:
        """Makes the first records that wait, unless a stop leaves no time for pauses."""
        for number in range(many):
            if self._is_ending:
                return
            if number and number % MADE_AT_ONCE == 0:
                self._wake.wait(_SHORT_PAUSE_S)
            with suppress(Exception):  # it is told of when the entry is written
                self._entries[number].make()

    def _write(self, entries: Sequence[Entry]) -> bool:
        was_good, self._is_good = self._is_good, False
        try:
            self._sink.write(entries)
        except SinkAway as away:
            if was_good:
                _log.warning("%s wait for %s: %s", self._what, self._place, away)
            return False
        except Exception:  # noqa: BLE001  (whatever it is, the decisions after it are taken)
            if was_good:
                _log.exception("%s could not be written to %s", self._what, self._place)
            self._failed += len(entries)
            return True
        self._is_good = True
        self.written += len(entries)
        return True
