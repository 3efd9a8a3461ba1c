"""Serves doors in a Python process of its own.

That process opens the doors and a host. It is started and stopped here, and controlled through
`extauthz.serving.workers.control`. It ends when this process ends.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from extauthz.process.interpreter import write_import_path
from extauthz.serving.door import DoorListener, check_listeners
from extauthz.serving.listen import ListenAddress
from extauthz.serving.workers.control import CONTROL_FD, Control, ControlEnded, HostFailed
from extauthz.serving.workers.steered_process import SteeredProcess, write_exit

STOP: Final = "stop"
"""The question that stops the process; answered once every call has ended. Its argument is the
grace in seconds."""

_CANCEL_S: Final = 5.0
"""How long a stop may take after its grace."""
_EXIT_S: Final = 10.0


class ProcessHost(SteeredProcess):
    """One process with all listeners. Can be started once.

    Args:
        module: what is run, as ``python -m module``. It takes SIGKILL alone as a signal to end.
        listeners: with actual ports; the process opens them.
        parameters: the first line that the process gets; values that JSON can hold.
    """

    def __init__(
        self, module: str, listeners: Sequence[DoorListener], *, parameters: object = None
    ) -> None:
        super().__init__()
        self._module = module
        self._listeners = check_listeners(listeners)
        self._parameters = parameters
        self._is_open = False

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens; empty before the start."""
        if not self._is_open:
            return ()
        return tuple(address for listener in self._listeners for address in listener.addresses)

    async def start(self) -> None:
        """Starts the process, and waits until every listener takes calls.

        Raises:
            ConfigError: the settings, or the files that they name, cannot be used.
            HostFailed: it could not start; the text says why.
        """
        if self._control is not None:
            raise RuntimeError("this host was started before")
        self._control = Control()
        try:
            await self._start(self._control)
        except BaseException:
            await self._end(wait_s=0)
            raise

    async def _start(self, control: Control) -> None:
        try:
            await control.start()
            self._process = await asyncio.create_subprocess_exec(
                # -P: it imports what this process can, and nothing from the folder it is in.
                *(sys.executable, "-P", "-m", self._module),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(control.descriptor,),
                env={
                    **os.environ,
                    "PYTHONPATH": write_import_path(),
                    CONTROL_FD: str(control.descriptor),
                },
                # Signals of a terminal reach the whole group; this process passes them on.
                start_new_session=True,
            )
        finally:
            control.leave_to_started()
        try:
            await control.open({"parameters": self._parameters})
        except ControlEnded as exc:
            code = await self._process.wait()
            raise HostFailed(f"it did not start: it ended with {write_exit(code)}") from exc
        self._is_open = True

    async def stop(self, grace_s: float) -> None:
        """Drains every door, takes no new calls, and cancels what is left after the grace."""
        self._stopping = True
        if self._is_open and self._control is not None and self._is_running:
            with suppress(HostFailed):  # it may die meanwhile
                await self._control.ask(STOP, grace_s, within_s=grace_s + _CANCEL_S)
        await self._end(wait_s=_EXIT_S)

    async def _end(self, *, wait_s: float) -> None:
        """Ends the process, if it runs."""
        self._stopping = True
        if self._control is not None:
            self._control.close()
        if self._process is None:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait_s):
                await self._process.wait()
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
