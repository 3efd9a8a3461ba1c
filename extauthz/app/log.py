"""The log, on standard error, and the log of decisions, in a file."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from extauthz.errors import ConfigError, Problem
from extauthz.plain_text import write_plain_lines
from extauthz.settings.tree import LogSettings
from extauthz.telemetry.decision_log.log import DecisionLog


class PlainFormatter(logging.Formatter):
    """Writes records so that nothing in them acts on a terminal or passes for another record."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (logging's name)
        """The record without its traceback."""
        return write_plain_lines(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """The traceback."""
        return write_plain_lines(super().formatException(ei))


def start_log(settings: LogSettings, *, worker: int = 0) -> None:
    """Starts to write the log of this process, with the number of the worker."""
    who = f" [worker {worker}]" if worker else ""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(PlainFormatter(f"%(asctime)s %(levelname)s{who} %(name)s: %(message)s"))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler])
    # They log each request's URL, and each change of a file, at INFO.
    for name in ("httpx2", "httpcore2", "watchfiles"):
        logging.getLogger(name).setLevel(logging.WARNING)


def check_decision_log(settings: LogSettings) -> None:
    """Checks that the file of decisions can be written, without making it.

    Raises:
        ConfigError: it cannot be written.
    """
    file = settings.decisions
    if file is None:
        return
    there = file if file.exists() else file.parent
    why = ""
    if not file.parent.is_dir():
        why = "No such file or directory"
    elif file.is_dir():
        why = "Is a directory"
    elif not os.access(there, os.W_OK):
        why = "Permission denied"
    if why:
        message = f"cannot be written: {why}; name a file in a folder that is there"
        raise ConfigError([Problem(file=str(file), message=message)])


@contextmanager
def open_decision_log(settings: LogSettings) -> Iterator[DecisionLog | None]:
    """Opens the log of decisions; None when the settings name no file.

    Raises:
        ConfigError: the file cannot be written.
    """
    if settings.decisions is None:
        yield None
        return
    log = DecisionLog(settings.decisions)
    try:
        yield log
    finally:
        log.close()
