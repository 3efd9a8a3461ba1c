"""Logs warnings that would repeat with every request of an outage, at most one in ten seconds.

The first of a kind is logged at once. Those that follow within the next seconds are only counted;
the next one after that is logged with their number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from extauthz.errors import ExtauthzError

EVERY_S: Final = 10.0


class RepeatedWarnings:
    """Logs one line in ten seconds for each kind of error.

    Args:
        message: begins every line.
        monotonic: seconds, of a clock that never goes back.
    """

    def __init__(
        self,
        log: logging.Logger,
        message: str,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._message = message
        self._monotonic = monotonic
        self._said: dict[str, tuple[float, int]] = {}
        """By error code: when it was last logged, and how many have come since."""

    def warn(self, error: ExtauthzError) -> None:
        """Logs the error, or counts it."""
        now_s = self._monotonic()
        said = self._said.get(error.code)
        if said is not None and now_s < said[0] + EVERY_S:
            self._said[error.code] = (said[0], said[1] + 1)
            return
        self._said[error.code] = (now_s, 0)
        left_out = said[1] if said is not None else 0
        self._log.warning(
            "%s: %s: %s%s",
            self._message,
            error.code,
            error,
            f" (and {left_out} more since the last such line)" if left_out else "",
            extra={"code": error.code},
        )
