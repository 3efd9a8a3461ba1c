"""Sinks that write a line of JSON for each decision: to a file, and to standard output.

Each line is one write, so that several workers can use the same file or pipe. A file that was moved
is created again, so that logrotate may simply rename it. After a full disk, the line after one that
was cut off may be damaged when another worker wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Final

from extauthz.telemetry.decision_log.sinks import Entry

_STDOUT: Final = 1


class FileLines:
    """A `Sink` that appends to a file."""

    at_once: Final = 1

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
            OSError: it cannot be written.
        """
        self._path = path
        self._opened = self._open()
        self._is_torn = False

    def write(self, entries: Sequence[Entry]) -> None:
        """See `Sink.write`."""
        if not self._is_in_place():
            anew = self._open()
            self.close()
            self._opened, self._is_torn = anew, False
        for entry in entries:
            rest = b"%b\n" % entry.line
            if self._is_torn:
                rest = b"\n" + rest
            while rest:
                rest = rest[self._opened.write(rest) :]
                self._is_torn = bool(rest)

    def close(self) -> None:
        """See `Sink.close`."""
        with suppress(OSError):  # failed writes have been reported already
            self._opened.close()

    def _open(self) -> FileIO:
        return self._path.open("ab", buffering=0)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._opened.fileno()))
        except FileNotFoundError:
            return False


class StdoutLines:
    """A `Sink` that writes to standard output, whatever it is connected to."""

    at_once: Final = 1

    def __init__(self, descriptor: int = _STDOUT) -> None:
        self._descriptor = descriptor

    def write(self, entries: Sequence[Entry]) -> None:
        """See `Sink.write`."""
        for entry in entries:
            rest = b"%b\n" % entry.line
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    def close(self) -> None:
        """See `Sink.close`. Standard output stays open."""
