"""Looks through large tables without holding up decisions, which share the event loop.

Whoever looks gives the loop back after each millisecond, for as long as that took: decisions get
half of the time at least.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

SLICE_S: Final = 0.001
LOOK: Final = 64
"""Values between two readings of the clock. Comparing one takes a few microseconds at most."""


class Turn:
    """A turn of the event loop. Ask `is_over` after each `LOOK` values, then await `pass_on`."""

    def __init__(self) -> None:
        self._began_s = time.perf_counter()

    @property
    def is_over(self) -> bool:
        """Whether it has lasted for `SLICE_S`."""
        return time.perf_counter() - self._began_s > SLICE_S

    async def pass_on(self) -> None:
        """Lets others run for as long as this turn took, and begins the next one."""
        await asyncio.sleep(time.perf_counter() - self._began_s)
        self._began_s = time.perf_counter()
