"""Counts the lines that a process accepted and the lines that it wrote, where both survive it.

The counts are in memory that is shared with a file: the system keeps it when the process is killed.
So the next start knows how many lines were lost at most. After a crash of the machine, the file may
be older than the lines. A lock on the file keeps a second process away.
"""

from __future__ import annotations

import fcntl
import struct
from mmap import mmap
from pathlib import Path
from typing import Final

_LAYOUT: Final = struct.Struct("<8sQQQ")
"""What it is, lines accepted, lines written, and 1 after an orderly stop."""
_NUMBER: Final = struct.Struct("<Q")
_MAGIC: Final = b"usage-01"
_ACCEPTED, _WRITTEN, _STOPPED = 8, 16, 24


class Marks:
    """The counts of this process. One thread accepts, and one writes.

    Attributes:
        lost: how many lines the process before this one accepted and perhaps did not write.
    """

    def __init__(self, file: Path) -> None:
        """Opens and locks the file.

        Raises:
            BlockingIOError: another process has it.
            OSError: it cannot be made or opened.
        """
        self._file = file.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.seek(0)
            self.lost = _find_lost(self._file.read(_LAYOUT.size))
            self._file.truncate(_LAYOUT.size)
            self._memory = mmap(self._file.fileno(), _LAYOUT.size)
        except BaseException:
            self._file.close()
            raise
        self._accepted = self._written = 0
        _LAYOUT.pack_into(self._memory, 0, _MAGIC, 0, 0, 0)

    def accept(self) -> None:
        """Counts a line that is to be written."""
        self._accepted += 1
        _NUMBER.pack_into(self._memory, _ACCEPTED, self._accepted)

    def write(self, lines: int) -> None:
        """Counts lines that were written."""
        self._written += lines
        _NUMBER.pack_into(self._memory, _WRITTEN, self._written)

    def close(self) -> None:
        """Notes an orderly stop: whatever was not written then was counted and logged."""
        _NUMBER.pack_into(self._memory, _STOPPED, 1)
        self._memory.close()
        self._file.close()


def _find_lost(data: bytes) -> int:
    if len(data) < _LAYOUT.size:
        return 0
    magic, accepted, written, was_stopped = _LAYOUT.unpack(data)
    return 0 if magic != _MAGIC or was_stopped else max(0, accepted - written)
