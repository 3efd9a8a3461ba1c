"""Writes a line of JSON for each decision to a file: for audits, and for `extauthz compare`.

Lines are written by a thread of their own, from a bounded queue: a slow disk loses lines, which are
counted, and never delays a decision, nor a stop by more than `CLOSE_S`. A file that was moved is
created again, so that logrotate may simply rename it. Each line is one write, so that several
workers can use the same file; after a full disk, the line after one that was cut off may be damaged
when another worker wrote it. What is in a line is in `extauthz.telemetry.decision_log.record`.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import time
from contextlib import closing, suppress
from io import FileIO
from pathlib import Path
from threading import Thread
from typing import Final

from extauthz.errors import ConfigError, Problem
from extauthz.model.decision import Decision
from extauthz.model.request import ApiRequest
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.decision_log.record import LoggedDecision, note_decision

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Lines that may wait to be written; further ones are dropped and counted."""
_DEFAULT_MASKS: Final = Masks()
CLOSE_S: Final = 3.0
"""How long a stop waits for the disk."""


class DecisionLog:
    """A `DecisionObserver` that writes each decision to a file."""

    def __init__(self, file: Path, masks: Masks = _DEFAULT_MASKS) -> None:
        """Opens the file for appending.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            self._file = _AppendedFile(file)
        except OSError as exc:
            message = f"cannot be written: {exc.strerror}; name a file in a folder that is there"
            raise ConfigError([Problem(file=str(file), message=message)]) from exc
        self._path = file
        self._masks = masks
        self._waiting: queue.Queue[LoggedDecision | None] = queue.Queue(MAX_WAITING)
        self._refused = self._taken = self._written = self._failed = self._left = 0
        # A disk that hangs must not keep the process from ending.
        self._thread = Thread(target=self._write_all, name="decision log", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Lines that were not written: too many waited, or writing failed."""
        return self._refused + self._failed + self._left

    @property
    def waiting(self) -> int:
        """Lines that wait to be written."""
        return self._waiting.qsize()

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        try:
            self._waiting.put_nowait(note_decision(request, decision, duration_us))
        except queue.Full:
            self._refused += 1
        else:
            self._taken += 1

    def close(self, within_s: float = CLOSE_S) -> None:
        """Writes the lines that wait, and closes the file; lines that are too late are dropped."""
        end_s = time.monotonic() + within_s
        with suppress(queue.Full):
            self._waiting.put(None, timeout=within_s)
        self._thread.join(max(0.0, end_s - time.monotonic()))
        if self._thread.is_alive():
            self._give_up()

    def _give_up(self) -> None:
        """Drops the lines that wait. The thread ends when the write of its line returns."""
        with suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        self._waiting.put_nowait(None)
        self._left = self._taken - self._written - self._failed
        if self._left:
            _log.error(
                "%d decisions could not be written to %s: it takes too long", self._left, self._path
            )

    def _write_all(self) -> None:
        with closing(self._file) as file:
            while (noted := self._waiting.get()) is not None:
                try:
                    file.append(f"{json.dumps(noted.write(self._masks))}\n".encode())
                except Exception:  # noqa: BLE001  (whatever it is, the lines after it are taken)
                    if not self._failed:
                        _log.exception("a decision could not be written to %s", self._path)
                    self._failed += 1
                else:
                    self._written += 1


class _AppendedFile:
    """A file that is appended to, and created again after it was moved."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._opened = self._open()
        self._is_torn = False

    def append(self, line: bytes) -> None:
        """Writes a line.

        Raises:
            OSError: not all of it was written.
        """
        if not self._is_in_place():
            anew = self._open()
            self.close()
            self._opened, self._is_torn = anew, False
        rest = b"\n" + line if self._is_torn else line
        while rest:
            rest = rest[self._opened.write(rest) :]
            self._is_torn = bool(rest)

    def close(self) -> None:
        with suppress(OSError):  # failed writes have been reported already
            self._opened.close()

    def _open(self) -> FileIO:
        return self._path.open("ab", buffering=0)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._opened.fileno()))
        except FileNotFoundError:
            return False
