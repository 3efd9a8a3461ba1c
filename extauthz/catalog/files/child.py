"""Reads a large catalog in a child process, and takes it over in small pieces.

Parsing and checking a large catalog takes many seconds, and single steps hold Python's lock for
half a second. In a child process they do not delay decisions. The result is put together in this
event loop, a millisecond at a time, with a pause of the same length after each piece.
"""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from extauthz.catalog.files.hand_over import (
    Begin,
    End,
    Failed,
    Logged,
    Message,
    Receiver,
    Refused,
    Unchanged,
    read_frame,
)
from extauthz.catalog.files.reader_process import Task
from extauthz.catalog.files.reading import Stamp
from extauthz.errors import CatalogError, Problem
from extauthz.model.catalog import Catalog
from extauthz.process.interpreter import write_import_path

_MODULE = "extauthz.catalog.files.reader_process"


@dataclass(frozen=True, slots=True)
class ReadApart:
    """The result of reading files in a child process.

    Attributes:
        stamps: the files' states when they were read.
        catalog: None when the files have not changed, or when there are `problems`.
    """

    stamps: dict[Path, Stamp]
    catalog: Catalog | None = None
    problems: tuple[Problem, ...] = ()


async def read_apart(task: Task) -> ReadApart:
    """Reads in a child process. Cancelled, it leaves no child behind.

    Raises:
        CatalogError: the child could not be started, or ended before it was done.
        ConfigError: routes contradict each other in a way that the child did not see.
    """
    try:
        process = _start(task)
    except OSError as exc:
        message = f"no process could be started to read the catalog: {exc.strerror}"
        raise CatalogError(message) from exc
    assert process.stdout is not None
    try:
        outcome = await _take_over(process.stdout)
    finally:
        process.kill()
        status = await asyncio.shield(asyncio.to_thread(_reap, process))
    if outcome is None:
        raise CatalogError(
            f"the process that read the catalog ended too early, with {_write_status(status)}; "
            "is there enough memory?"
        )
    return outcome


def _start(task: Task) -> subprocess.Popen[bytes]:
    # This only waits until the program is there, a millisecond or two.
    return subprocess.Popen(  # noqa: S603  # our own module, our own settings
        # -P: nothing is imported from the folder that this process happens to be in.
        [find_interpreter(), "-P", "-m", _MODULE, task.write()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_write_environment(),
    )


def find_interpreter() -> str:
    """The path of the Python interpreter, also when it is embedded in another program."""
    version = ".".join(map(str, sys.version_info[:2]))
    beside = Path(sys.exec_prefix, "bin", f"python{version}")
    return str(beside) if beside.exists() else sys.executable


def _write_environment() -> dict[str, str]:
    environment = dict(os.environ, PYTHONPATH=write_import_path())
    # Set for an interpreter inside Envoy; the child is one of its own.
    for name in ("PYTHONHOME", "LD_PRELOAD"):
        environment.pop(name, None)
    return environment


def _reap(process: subprocess.Popen[bytes]) -> int:
    """Waits for its end, and gives its status. Popen closes the pipes."""
    with process:
        return process.wait()


def _write_status(status: int) -> str:
    return f"signal {-status}" if status < 0 else f"status {status}"


async def _take_over(stream: IO[bytes]) -> ReadApart | None:
    """The outcome; None when the stream ended before it."""
    receiver = Receiver()
    stamps: dict[Path, Stamp] = {}
    while True:
        frame = await asyncio.to_thread(read_frame, stream)
        if frame is None:
            return None
        began = time.perf_counter()
        message: Message = receiver.read(frame)
        match message:
            case Logged():
                logging.getLogger(message.logger).log(message.level, "%s", message.message)
            case Refused():
                return ReadApart(message.stamps, problems=message.problems)
            case Unchanged():
                return ReadApart(message.stamps)
            case Failed():
                raise CatalogError(message.message)
            case End():
                return ReadApart(stamps, receiver.catalog)
            case _:
                if isinstance(message, Begin):
                    stamps = message.stamps
                receiver.take(message)
        # As long as it took: half of the time at least is left for decisions.
        await asyncio.sleep(time.perf_counter() - began)
