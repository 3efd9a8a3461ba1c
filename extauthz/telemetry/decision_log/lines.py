"""Sinks that write a line of JSON for each decision: to a file, and to standard output.

Each line is one write, so that several workers can use the same file or pipe. A file that was moved
is created again, so that logrotate may simply rename it. After a full disk, the line after one that
was cut off may be damaged when another worker wrote it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from extauthz.telemetry.decision_log.appended_file import AppendedFile
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
        self._appended = AppendedFile(path)
        self._is_torn = False

    def write(self, entries: Sequence[Entry]) -> None:
        """See `Sink.write`."""
        if self._appended.open_in_place():
            self._is_torn = False
        for entry in entries:
            rest = b"%b\n" % entry.line
            if self._is_torn:
                rest = b"\n" + rest
            while rest:
                rest = rest[self._appended.file.write(rest) :]
                self._is_torn = bool(rest)

    def close(self) -> None:
        """See `Sink.close`."""
        self._appended.close()


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
