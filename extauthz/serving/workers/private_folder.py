"""Makes a private folder for a process's secrets, and removes those of processes that were killed.

The process that made a folder holds a lock on it, which the kernel releases when the process ends.
The next process that makes one removes folders without a lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

_PREFIX: Final = "extauthz-host-"


class PrivateFolder:
    """A folder that only this user may enter; empty when it is made."""

    def __init__(self) -> None:
        _remove_orphans()
        self.path, self._lock = _make_locked()

    def remove(self) -> None:
        """Removes it with its content. Calling it again does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _make_locked() -> tuple[Path, int | None]:
    while True:
        path = Path(tempfile.mkdtemp(prefix=_PREFIX))  # made for this user alone
        lock = _find_lock(path)
        if lock is not None and path.is_dir():
            return path, lock
        # Another process took it for an orphan before it was locked.
        if lock is not None:
            os.close(lock)


def _find_lock(path: Path) -> int | None:
    """The lock of the folder, or None when it is held, gone, or another user's."""
    try:
        lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        return None
    return lock


def _remove_orphans() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        lock = _find_lock(path)
        if lock is None:
            continue
        try:
            if os.fstat(lock).st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True)
        finally:
            os.close(lock)
