"""The calls that are open on one ASGI application, and one timer for all of them.

A timer for each call would cost more than most of the rest of it, and almost none ever rings.
Here the event loop has one, for whatever is due first; what is due is then found by looking at
every open call, of which a host has a few thousand at most.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from math import inf
from typing import Final, Generic, Protocol, TypeVar

_SHORTEST_S: Final = 0.001
"""uvloop counts in whole milliseconds, and may be early by one."""


class Timed(Protocol):
    """What is open.

    Attributes:
        due_s: by `time.monotonic`, when `tick` is to be called; infinite for never.
    """

    due_s: float

    def tick(self, now_s: float) -> None:
        """It is due. Sets `due_s` anew."""


T = TypeVar("T", bound=Timed)


class OpenCalls(Generic[T]):
    """A set of what is open. One event loop uses it."""

    def __init__(self) -> None:
        self._open: set[T] = set()
        self._rings_s = inf
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[T]:
        """Those that are open now."""
        return iter(tuple(self._open))

    def add(self, call: T) -> None:
        """It is open from now on, and ticks as soon as `hasten` told when."""
        self._open.add(call)

    def discard(self, call: T) -> None:
        """It is open no more."""
        self._open.discard(call)

    def hasten(self, due_s: float) -> None:
        """To be told whenever a `due_s` was set to an earlier time."""
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
