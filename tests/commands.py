"""Runs ``extauthz`` in processes that are forked from one that has imported it already.

The imports of a start cost more than the rest of most commands, and as much as a service does in
most tests. They are shared here, and nothing else is: each command has a process of its own, with
its folder, environment, streams and exit code. Tests about starting itself, and the demonstration,
start ``python -m extauthz``.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Final

from extauthz.cli import main

TURN_S: Final = 60.0
_CONTEXT: Final = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["uvloop", "extauthz.app.serve", "extauthz.serving.inside_envoy.host"]
    + ["extauthz.serving.admin.listener", "extauthz.counters.redis.store"]
    + [f"extauthz.cli.{command}" for command in ("explain", "serve", "validate", "emergency.block")]
)


@dataclass(frozen=True, slots=True)
class Streams:
    """Files for the standard streams of a process. What is written is appended."""

    output: Path
    errors: Path
    input: Path = Path(os.devnull)


class Command:
    """A command that runs. It has the methods of `subprocess.Popen` that tests need."""

    def __init__(
        self,
        *arguments: str,
        streams: Streams,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`folder` is this process's by default, as is the whole `environment`."""
        self.args = ("extauthz", *arguments)
        made = dict(os.environ if environment is None else environment)
        told = (arguments, streams, folder or Path.cwd(), made)
        # A daemon does not outlive this process.
        self._process = _CONTEXT.Process(target=_run, args=told, daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code. Raises TimeoutExpired while it runs, after `timeout` seconds."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            assert timeout is not None
            raise TimeoutExpired(self.args, timeout)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@contextmanager
def running_command(
    *arguments: str, log_file: Path, environment: Mapping[str, str] | None = None
) -> Iterator[Command]:
    """Runs a command while the block runs, with its output in a file.

    Args:
        environment: variables beside those of this process.
    """
    whole = {**os.environ, **(environment or {})}
    command = Command(*arguments, streams=Streams(log_file, log_file), environment=whole)
    try:
        yield command
    finally:
        command.terminate()
        try:
            command.wait(TURN_S)
        except TimeoutExpired:
            command.kill()
            command.wait()


def run_command(
    *arguments: str,
    folder: Path | None = None,
    stdin: bytes = b"",
    environment: Mapping[str, str] | None = None,
) -> CompletedProcess[bytes]:
    """Runs a command until it ends; the arguments are those of `Command`.

    Raises:
        TimeoutExpired: it takes too long.
    """
    with tempfile.TemporaryDirectory() as made:
        streams = Streams(Path(made, "output"), Path(made, "errors"), Path(made, "input"))
        streams.input.write_bytes(stdin)
        command = Command(*arguments, streams=streams, folder=folder, environment=environment)
        try:
            code = command.wait(TURN_S)
        finally:
            command.kill()
            command.wait()
        output, errors = streams.output.read_bytes(), streams.errors.read_bytes()
    return CompletedProcess(command.args, code, output, errors)


def _run(
    arguments: tuple[str, ...], streams: Streams, folder: Path, environment: Mapping[str, str]
) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    to_append = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    files = ((streams.input, os.O_RDONLY), (streams.output, to_append), (streams.errors, to_append))
    for number, (file, flags) in enumerate(files):
        opened = os.open(file, flags, 0o600)
        os.dup2(opened, number)
        os.close(opened)
    # Those of the process that was forked belong to other files.
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace", closefd=False)
    sys.exit(main(arguments))
