"""A process that was started to open doors: what is said to it, and its end.

Both hosts that serve in another process are made of it; how they start and stop is their own.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from extauthz.serving.workers.control import Control, HostFailed


class SteeredProcess:
    """The process of a host, and the end of the pair through which it is steered."""

    NAME: ClassVar[str] = "it"
    MORE: ClassVar[str] = ""
    """What an unwanted end is told with, behind how it ended."""

    def __init__(self) -> None:
        self._process: asyncio.subprocess.Process | None = None
        self._control: Control | None = None
        self._stopping = False

    @property
    def process_id(self) -> int | None:
        """For those who measure it; None before the start."""
        return None if self._process is None else self._process.pid

    @property
    def _is_running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    def tell(self, word: str) -> None:
        """Says a word to the owner of the doors. Nothing happens when the process has ended."""
        if self._control is not None:
            self._control.tell(word)

    async def ask(self, question: str, of: object = None, *, within_s: float) -> Any:
        """The answer of the owner of the doors.

        Raises:
            HostFailed: there is none.
        """
        if self._control is None:
            raise HostFailed(f"{self.NAME} was not started")
        return await self._control.ask(question, of, within_s=within_s)

    async def wait_ended(self) -> None:
        """Waits until the process has ended, whoever ended it.

        Raises:
            HostFailed: it was not told to.
        """
        if self._process is None:
            return
        code = await self._process.wait()
        if not self._stopping:
            raise HostFailed(f"{self.NAME} ended by itself ({write_exit(code)}){self.MORE}")


def write_exit(code: int) -> str:
    """How a process ended, from its return code."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
