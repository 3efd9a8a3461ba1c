"""Keeps the tokens of the API, and reads their file again when it changes.

So a token is replaced without a restart: write the new one beside the old, then take the old one
out. A file that cannot be used is reported once, and the last good tokens stay.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from extauthz.errors import ConfigError
from extauthz.model.identity import Secret

_log = logging.getLogger(__name__)


class TokenFile:
    """The tokens of a file.

    Args:
        path: the file.
        read: reads it; a ConfigError says why it cannot be used.

    Raises:
        ConfigError: as `read` does.
    """

    def __init__(self, path: Path, read: Callable[[], Sequence[Secret]]) -> None:
        self._path = path
        self._read = read
        self._stamp = self._look()
        self._tokens = read()

    def find_current(self) -> Sequence[Secret]:
        """The tokens that are taken now."""
        stamp = self._look()
        if stamp != self._stamp:
            # Looked at before it is read: a change meanwhile is seen the next time.
            self._stamp = stamp
            try:
                self._tokens = self._read()
            except ConfigError as exc:
                _log.error("the new tokens cannot be used, the old ones stay: %s", exc)
            else:
                _log.info("the tokens of the admin API were read again: %s", self._path)
        return self._tokens

    def _look(self) -> tuple[int, int, int] | None:
        try:
            seen = self._path.stat()  # follows links: Kubernetes renews a secret by moving one
        except OSError:
            return None
        return seen.st_ino, seen.st_size, seen.st_mtime_ns
