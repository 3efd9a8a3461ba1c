"""The child process that reads a large catalog.

It is ``python -m extauthz.catalog.files.reader_process``, and its only argument is a `Task` in
JSON. It writes the messages of `extauthz.catalog.files.hand_over` to its standard output, and ends.
It ends at once when its standard input is closed, because its parent has then ended. When memory
runs out, the kernel ends this process first, and it runs at a low priority.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from extauthz.catalog.files.hand_over import Failed, Logged, Refused, Sender, Unchanged
from extauthz.catalog.files.reading import CatalogReader
from extauthz.errors import ConfigError

NICENESS: Final = 5
"""The niceness, which gives a quarter of the processor when another process could use all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What to read. A catalog with `known_revision` is not sent again; empty for none."""

    paths: tuple[str, ...]
    has_pepper: bool
    known_revision: str

    def write(self) -> str:
        """As an argument of the process."""
        return json.dumps(asdict(self))


class _SendingHandler(logging.Handler):
    """Sends log records to the parent, which logs them."""

    def __init__(self, sender: Sender) -> None:
        super().__init__(logging.WARNING)
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        self._sender.send(Logged(record.name, record.levelno, record.getMessage()))


def main() -> None:
    """Reads the catalog, sends it, and ends."""
    task = Task(**json.loads(sys.argv[1]))
    # What is printed by mistake must not get between the messages.
    with os.fdopen(os.dup(1), "wb") as stream:
        os.dup2(2, 1)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        _stand_back(are_deciding=task.known_revision != "")
        # It lives for one catalog and makes no cycles worth looking for.
        gc.disable()
        sender = Sender(stream)
        logging.getLogger().addHandler(_SendingHandler(sender))
        with suppress(BrokenPipeError):
            _read(task, sender)
            stream.flush()
        # Without taking a million values apart one by one.
        os._exit(0)


def _read(task: Task, sender: Sender) -> None:
    reader = CatalogReader([Path(path) for path in task.paths], has_pepper=task.has_pepper)
    try:
        parts = reader.read()
    except ConfigError as exc:
        sender.send(Refused(exc.problems, reader.stamps))
    except MemoryError:
        sender.send(Failed("there is not enough memory to read it"))
    else:
        if reader.revision == task.known_revision:
            sender.send(Unchanged(reader.stamps))
        else:
            sender.send_parts(parts, reader.revision, reader.stamps)


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os._exit(1)


def _stand_back(*, are_deciding: bool) -> None:
    if are_deciding:
        os.nice(NICENESS)
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text("1000")


if __name__ == "__main__":
    main()
