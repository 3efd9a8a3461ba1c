"""A sink of usage: lines of JSON in a file, with rotation. The file belongs to this process alone.

- A batch is written as a whole or not at all: what a failed write left is cut off.
- When the file has its full size, it gets the time as a suffix, and a new one begins. Of the older
  files the newest `keep` stay. A file that something else has moved is made again, too.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from extauthz.errors import ConfigError, Problem
from extauthz.ports import Clock
from extauthz.telemetry.decision_log.appended_file import AppendedFile
from extauthz.telemetry.decision_log.sinks import AT_ONCE, Entry, SinkAway
from extauthz.usage.marks import Marks

_log = logging.getLogger(__name__)

_SUFFIX: Final = re.compile(r"\.\d{8}T\d{6}\.\d{6}Z(?:\.gz)?")


class UsageFile:
    """A `Sink` that appends to a file.

    Args:
        marks: count what is written. They are closed with the file.
        max_bytes: after a batch that makes the file as long as this, a new file begins.
        keep: older files that stay.
    """

    at_once: Final = AT_ONCE

    def __init__(
        self, path: Path, clock: Clock, marks: Marks, *, max_bytes: int, keep: int
    ) -> None:
        """Opens the file for appending.

        Raises:
            OSError: it cannot be written.
        """
        self._clock = clock
        self._marks = marks
        self._max_bytes = max_bytes
        self._keep = keep
        self._appended = AppendedFile(path)

    def write(self, entries: Sequence[Entry]) -> None:
        """See `Sink.write`."""
        try:
            self._append([entry.line for entry in entries])
        except OSError as exc:
            raise SinkAway(exc.strerror) from exc
        self._marks.write(len(entries))

    def _append(self, lines: Sequence[bytes]) -> None:
        self._appended.open_in_place()
        file = self._appended.file
        size = os.fstat(file.fileno()).st_size
        rest = memoryview(b"".join([b"%b\n" % line for line in lines]))
        end = size + len(rest)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with suppress(OSError):
                file.truncate(size)
            raise
        if end >= self._max_bytes:
            self._rotate()

    def close(self) -> None:
        """See `Sink.close`."""
        self._marks.close()
        self._appended.close()

    def _rotate(self) -> None:
        """Renames the file; the next batch makes a new one."""
        at = datetime.fromtimestamp(self._clock.now_us() / 1e6, UTC)
        path = self._appended.path
        name = f"{path.name}.{at:%Y%m%dT%H%M%S.%fZ}"
        try:
            path.rename(path.with_name(name))
            for old in list_rotated(path)[: -self._keep or None]:
                old.unlink(missing_ok=True)
        except OSError as exc:
            # Lines go on into the same file, which is better than losing them.
            _log.error("%s cannot be rotated: %s", path, exc.strerror)


def list_rotated(path: Path) -> list[Path]:
    """The files that were rotated away from a path, the oldest first; gzipped ones, too."""
    beginning = path.name
    return sorted(
        file
        for file in path.parent.iterdir()
        if file.name.startswith(beginning) and _SUFFIX.fullmatch(file.name[len(beginning) :])
    )


def name_worker_file(path: Path, worker: int) -> Path:
    """The file of one of several workers: ``usage.jsonl`` becomes ``usage.2.jsonl``."""
    return path.with_name(f"{path.stem}.{worker}{path.suffix}") if worker else path


def open_usage_file(
    path: Path, clock: Clock, *, max_bytes: int, keep: int
) -> tuple[UsageFile, Marks]:
    """Opens the file of usage and its marks, ``.NAME.marks`` beside it.

    Raises:
        ConfigError: one of them cannot be written, or another process writes to it.
    """
    try:
        marks = Marks(path.with_name(f".{path.name}.marks"))
        try:
            file = UsageFile(path, clock, marks, max_bytes=max_bytes, keep=keep)
        except OSError:
            marks.close()
            raise
    except BlockingIOError as exc:
        message = "another process writes its usage there; give each a file of its own"
        raise ConfigError([Problem(file=str(path), message=message)]) from exc
    except OSError as exc:
        message = f"cannot be written: {exc.strerror}; name a file in a folder that is there"
        raise ConfigError([Problem(file=str(path), message=message)]) from exc
    return file, marks
