"""The log, on standard error."""

from __future__ import annotations

import logging
import sys

from extauthz.settings import LogSettings


def start_log(settings: LogSettings) -> None:
    """From now on, what is logged in this process is written."""
    logging.basicConfig(
        level=settings.level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    # They log each request's URL, and each change of a file, at INFO.
    for name in ("httpx", "httpcore", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)
