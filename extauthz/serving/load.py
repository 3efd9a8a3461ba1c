"""Bounds the calls in flight, and ends long streams when the service stops.

There is no queue here: a call above the bound is refused at once with UNAVAILABLE, which costs its
caller little and keeps the admitted calls fast. Hosts keep the queue before them short. Unary calls
and streams are counted separately, because an access-log stream stays open for hours and must not
take the place of a decision. One event loop uses a Load; it is not safe across threads.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType

from extauthz.serving.methods import RpcCode, RpcFailure

DEFAULT_MAX_IN_FLIGHT = 1000
DEFAULT_MAX_STREAMS = 1000


class Bound:
    """A bounded number of places. `with bound:` takes one and frees it at the end.

    Raises:
        RpcFailure: on entering, UNAVAILABLE when every place is taken.
    """

    def __init__(self, limit: int, refusal: str) -> None:
        if limit < 1:
            raise ValueError(f"a bound of {limit} lets nothing through; give at least 1")
        self.limit = limit
        self.held = 0
        self.refused = 0
        """Number of refusals since the start."""
        self._refusal = refusal

    def __enter__(self) -> None:
        if self.held >= self.limit:
            self.refused += 1
            raise RpcFailure(RpcCode.UNAVAILABLE, self._refusal)
        self.held += 1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.held -= 1


class Load:
    """The calls and streams in flight, for all doors that share one bound."""

    def __init__(
        self,
        *,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        max_streams: int = DEFAULT_MAX_STREAMS,
    ) -> None:
        self.calls = Bound(max_in_flight, "too many calls in flight")
        self.streams = Bound(max_streams, "too many open streams")
        self.refused_before = 0
        """Calls that the server in front refused since the start, so that no door saw them."""
        self._draining = False
        self._reads: set[asyncio.Timeout] = set()

    @property
    def in_flight(self) -> int:
        """Unary calls that are being handled now."""
        return self.calls.held

    @property
    def open_streams(self) -> int:
        """Streams that are open now; those of the health service are not counted."""
        return self.streams.held

    @property
    def shed(self) -> int:
        """Calls and streams that were refused since the start."""
        return self.calls.refused + self.streams.refused + self.refused_before

    @property
    def draining(self) -> bool:
        """Whether `drain` was called."""
        return self._draining

    def drain(self) -> None:
        """Ends every wait for a caller's next message. Calling it again does nothing."""
        self._draining = True
        now_s = asyncio.get_running_loop().time()
        for read in self._reads:
            read.reschedule(now_s)

    async def find_next(self, messages: AsyncIterator[bytes]) -> bytes | None:
        """The caller's next message; None when it has no more, or when the service drains.

        Messages that were not read before the drain are lost.
        """
        if self._draining:
            return None
        read = asyncio.timeout(None)
        try:
            async with read:
                self._reads.add(read)
                try:
                    return await anext(messages, None)
                finally:
                    self._reads.discard(read)
        except TimeoutError:
            if read.expired():
                return None
            raise
