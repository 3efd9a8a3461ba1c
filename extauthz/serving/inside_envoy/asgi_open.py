"""Keeps the open calls of one ASGI application, with one timer for all of them.

A timer for each call would be one of its largest costs, and hardly any would ever expire. So there
is a single timer for the earliest call. When it expires, all open calls are searched for those that
are due; a host has a few thousand at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from math import inf
from typing import Final, Generic, Protocol, TypeVar

_SHORTEST_S: Final = 0.001
"""The shortest timer: uvloop counts in whole milliseconds, and may be one early."""


class Timed(Protocol):
    """An open call.

    Attributes:
        due_s: the time of `time.monotonic` at which `tick` is called; infinite for never.
    """

    due_s: float

    def tick(self, now_s: float) -> None:
        """Is called at `due_s`, and must set it to a later time."""


T = TypeVar("T", bound=Timed)


class OpenCalls(Generic[T]):
    """A set of open calls with a timer. One event loop uses it."""

    def __init__(self) -> None:
        self._open: set[T] = set()
        self._rings_s = inf
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[T]:
        """Iterates over the calls that are open now."""
        return iter(tuple(self._open))

    def add(self, call: T) -> None:
        """Adds a call. Its time counts once `hasten` was called with it."""
        self._open.add(call)

    def discard(self, call: T) -> None:
        """Removes a call."""
        self._open.discard(call)

    def hasten(self, due_s: float) -> None:
        """Must be called whenever a call's `due_s` was set to an earlier time."""
        if due_s < self._rings_s:
            self._set(due_s)

    def _set(self, due_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._rings_s = due_s
        wait_s = max(due_s - time.monotonic(), _SHORTEST_S)
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._ring)

    def _ring(self) -> None:
        self._timer, self._rings_s = None, inf
        now_s = time.monotonic()
        for call in self:
            if call.due_s <= now_s:
                call.tick(now_s)
        next_s = min((call.due_s for call in self._open), default=inf)
        if next_s < self._rings_s:
            self._set(next_s)
