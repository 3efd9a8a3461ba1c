"""A file that is only appended to, and that something else may move away meanwhile."""

from __future__ import annotations

import os
from contextlib import suppress
from io import FileIO
from pathlib import Path


class AppendedFile:
    """An open file, unbuffered: a write is one call of the system.

    Attributes:
        path: where it is.
        file: the file that is open now.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file.

        Raises:
            OSError: it cannot be written.
        """
        self.path = path
        self.file = self._open()

    def open_in_place(self) -> bool:
        """Opens the file anew when it was moved or removed; gives whether it was.

        Raises:
            OSError: it cannot be written. The one that was open stays open.
        """
        try:
            if os.path.samestat(self.path.stat(), os.fstat(self.file.fileno())):
                return False
        except FileNotFoundError:
            pass
        anew = self._open()
        self.close()
        self.file = anew
        return True

    def close(self) -> None:
        """Closes it."""
        with suppress(OSError):  # failed writes have been reported already
            self.file.close()

    def _open(self) -> FileIO:
        return self.path.open("ab", buffering=0)
