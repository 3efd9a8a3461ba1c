"""A line of JSON for each decision, in a file: for audits, and for `extauthz compare`.

Lines are written by a thread of their own, behind a bounded queue: a slow disk costs lines, which
are counted, and never holds up a decision. A file that was moved away is made anew, so that
logrotate may simply rename it. A line holds names from the catalog and no credential; of the path
only the resource's template and a hash, as clients put secrets into paths.
"""

from __future__ import annotations

import json
import logging
import queue
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import blake2b
from logging.handlers import QueueHandler, QueueListener, WatchedFileHandler
from pathlib import Path
from typing import Any, Final

from extauthz.errors import ConfigError, Problem
from extauthz.model.decision import Allow, Decision
from extauthz.model.request import ApiRequest

_log = logging.getLogger(__name__)

MAX_WAITING: Final = 10_000
"""Lines that wait to be written; what comes on top is dropped and counted."""
MAX_REQUEST_ID: Final = 128
"""Characters of a request's id that are kept: clients may choose it."""


class DecisionLog:
    """A `DecisionObserver` that writes each decision to a file."""

    def __init__(self, file: Path) -> None:
        """Opens the file for appending.

        Raises:
            ConfigError: it cannot be written.
        """
        try:
            self._writer = _Writer(file, encoding="utf-8")
        except OSError as exc:
            message = f"cannot be written: {exc.strerror}; name a file in a folder that is there"
            raise ConfigError([Problem(file=str(file), message=message)]) from exc
        self._handler = _Dropping(queue.Queue(MAX_WAITING))
        self._listener = _Listener(self._handler.queue, self._writer)
        self._listener.start()

    @property
    def dropped(self) -> int:
        """Lines that were not written: too many waited, or the disk did not take them."""
        return self._handler.dropped + self._writer.failed

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        line = write_line(request, decision, duration_us, datetime.now(UTC))
        self._handler.emit(logging.LogRecord("", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Writes what waits, and closes the file."""
        self._listener.stop()
        # What the disk did not take was counted when it was written.
        with suppress(OSError):
            self._writer.close()


class _Writer(WatchedFileHandler):
    """Counts what could not be written, and says so at the first time."""

    failed = 0

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        if not self.failed:
            _log.exception("a decision could not be written to %s", self.baseFilename)
        self.failed += 1


class _Listener(QueueListener):
    def enqueue_sentinel(self) -> None:
        # Waits for room: what is in the queue is written first.
        self.queue.put(self._sentinel)  # type: ignore[attr-defined]


class _Dropping(QueueHandler):
    """Drops and counts what the queue has no room for."""

    def __init__(self, waiting: queue.Queue[Any]) -> None:
        super().__init__(waiting)
        self.dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1


def write_line(request: ApiRequest, decision: Decision, duration_us: int, now: datetime) -> str:
    """One decision as JSON, without the line's end."""
    route, application = decision.route, decision.identity.application
    denial = None if isinstance(decision, Allow) else decision.denial
    request_id = request.headers.get("x-request-id") or request.request_id
    line = {
        "time": now.isoformat(timespec="microseconds"),
        "decision": decision.id,
        "door": request.door,
        "shadow": decision.shadow,
        "request": request_id[:MAX_REQUEST_ID],
        "method": request.method[:MAX_REQUEST_ID],
        "path_hash": _hash(request.path),
        "outcome": "allow" if denial is None else "deny",
        "reason": "" if denial is None else denial.reason.value,
        "level": "" if denial is None or denial.level is None else denial.level.value,
        "api": "" if route is None else route.api.name,
        "version": "" if route is None else route.api.version,
        "resource": "" if route is None else route.resource.template,
        "application": "" if application is None else application.name,
        "tier": decision.tier,
        "duration_us": duration_us,
    }
    return json.dumps(line)


def _hash(path: str) -> str:
    return blake2b(path.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
