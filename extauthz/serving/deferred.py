"""Work that is left until later: what a method has received is read beside the decisions."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod


class DeferredWork(ABC):
    """Does what waits, whenever something has come. One event loop uses it.

    The code that opens the door must run `run`.
    """

    def __init__(self) -> None:
        self._came = asyncio.Event()
        self._is_ending = False

    def _wake(self) -> None:
        """Something has come, and waits."""
        self._came.set()

    async def run(self) -> None:
        """Does what waits until `end` is called; when it is cancelled, what waits is lost."""
        while True:
            await self._came.wait()
            self._came.clear()
            await self.finish()
            if self._is_ending:
                return

    def end(self) -> None:
        """Lets `run` return after it has done what waits."""
        self._is_ending = True
        self._came.set()

    @abstractmethod
    async def finish(self) -> None:
        """Does what waits now."""
