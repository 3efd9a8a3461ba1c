"""The base of hosts that serve in a process of their own: its commands, and its end.

How the process is started and stopped is defined by each host.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from extauthz.serving.workers.control import Control, HostFailed


class SteeredProcess:
    """The process of a host, and the control connection to it."""

    NAME: ClassVar[str] = "it"
    MORE: ClassVar[str] = ""
    """Text that follows the exit status in the error of an unexpected end."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._control: Control | None = None
        self._stopping = False

    @property
    def process_id(self) -> int | None:
        """The process's id; None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def tell(self, word: str) -> None:
        """Sends a word to the process. Does nothing when it has ended."""
        if self._control is not None:
            self._control.tell(word)

    async def ask(self, question: str, of: object = None, *, within_s: float) -> Any:
        """Asks the process a question and gives its answer.

        Raises:
            HostFailed: there was no answer.
        """
        if self._control is None:
            raise HostFailed(f"{self.NAME} was not started")
        return await self._control.ask(question, of, within_s=within_s)

    async def wait_ended(self) -> None:
        """Waits until the process has ended.

        Raises:
            HostFailed: it ended without a call of `stop`.
        """
        if self._process is None:
            return
        code = await self._process.wait()
        if not self._stopping:
            raise HostFailed(f"{self.NAME} ended by itself ({write_exit(code)}){self.MORE}")


def write_exit(code: int) -> str:
    """How a process ended, from its return code."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
