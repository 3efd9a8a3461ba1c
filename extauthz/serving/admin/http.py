"""Serves HTTP/1 within bounds that hold for every client.

- Bytes that are no HTTP request get 400 and a fixed text, and no line in the log: they come from
  scanners.
- A connection is closed after `CONNECTION_S`, busy or not. With `MAX_CONNECTIONS` open, each new
  one closes the oldest: a client that holds many open cannot keep a probe out.
- A connection with a stream of the API is held for `STREAM_S` at most. There are `MAX_STREAMS` of
  these at most, which are counted apart: they keep no probe out, and no other connection ends them.
- For the fixed paths, bodies are not read. Nothing is ever decompressed. An expectation other than
  ``100-continue`` is refused with 417.

A handler that fails is answered with 500, and logged with its traceback, as everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final, Protocol, TypeAlias

from aiohttp import web

Handle: TypeAlias = Callable[[], Awaitable[web.Response]]
Hold: TypeAlias = Callable[[], AbstractContextManager[None]]
"""Holds a connection open for a stream, as long as the block lasts; see `AdminServer`."""

API: Final = "/api"
CONNECTION_S: Final = 30.0
"""Longer than a scrape takes."""
MAX_CONNECTIONS: Final = 100
LINGER_S: Final = 1.0
"""What is left of a body that was not read is taken for so long: without it, the client's system
could throw the answer away."""
STREAM_S: Final = 900.0
MAX_STREAMS: Final = 10
_PIECE_BYTES: Final = 131_072
_READ: Final = ("GET", "HEAD")


class TooManyStreams(Exception):
    """`MAX_STREAMS` are open."""


class Api(Protocol):
    """Answers every request whose path is `API`, or below it."""

    async def answer(self, request: web.BaseRequest, hold: Hold) -> web.StreamResponse:
        """The answer. A stream is sent within `hold`, which may raise `TooManyStreams`."""


class AdminServer(web.Server):
    """Answers GET and HEAD for a few paths, and hands the others to the API.

    Made when the loop runs.

    Args:
        paths: what answers for each path.
        api: what answers below `API`; None: nothing is there.
        connection_s, max_connections, linger_s, stream_s, max_streams: see the module.
    """

    def __init__(
        self,
        paths: Mapping[str, Handle],
        api: Api | None = None,
        *,
        connection_s: float = CONNECTION_S,
        max_connections: int = MAX_CONNECTIONS,
        linger_s: float = LINGER_S,
        stream_s: float = STREAM_S,
        max_streams: int = MAX_STREAMS,
    ) -> None:
        super().__init__(self._answer)
        self._paths = paths
        self._api = api
        self._connection_s = connection_s
        self._max_connections = max_connections
        self._linger_s = linger_s
        self._stream_s = stream_s
        self._max_streams = max_streams
        self._closers: dict[web.RequestHandler, _Closer] = {}
        """For each open connection without a stream, the oldest first."""
        self._streams: dict[web.RequestHandler, _Closer] = {}
        """For each connection with a stream."""

    def __call__(self) -> web.RequestHandler:
        """Makes the handler of one connection."""
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # what the documentation says for "none"
            auto_decompress=False,
            lingering_time=self._linger_s,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """A connection was opened."""
        super().connection_made(handler, transport)
        if len(self._closers) >= self._max_connections:
            self._closers.pop(next(iter(self._closers))).close()
        self._closers[handler] = _Closer(transport, self._connection_s)

    def connection_lost(
        self, handler: web.RequestHandler, exc: BaseException | None = None
    ) -> None:
        """A connection has ended."""
        super().connection_lost(handler, exc)
        for closers in (self._closers, self._streams):
            closer = closers.pop(handler, None)
            if closer is not None:
                closer.cancel()

    def end_streams(self) -> None:
        """Closes every connection with a stream, before a stop."""
        for closer in self._streams.values():
            closer.close()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if not _meets_expectations(request):
            text = "nothing but 100-continue can be expected here\n"
            response: web.StreamResponse = web.Response(status=417, text=text)
        else:
            response = await self._route(request)
        if "expect" in request.headers and not request.content.is_eof():
            # Whether the client still sends its body is not known.
            response.force_close()
        return response

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if self._api is not None and (path == API or path.startswith(f"{API}/")):
            response = await self._api.answer(request, partial(self._hold, request))
            closer = self._closers.get(request.protocol)
            if closer is not None and closer.is_half_over:
                # Else a browser's next request could meet the end of its connection.
                response.force_close()
            return response
        handle = self._paths.get(path)
        if handle is None:
            return web.Response(status=404, text="there is nothing here\n")
        if request.method not in _READ:
            allow = {"allow": ", ".join(_READ)}
            return web.Response(status=405, text="this can only be read\n", headers=allow)
        return await handle()

    @contextmanager
    def _hold(self, request: web.BaseRequest) -> Iterator[None]:
        if len(self._streams) >= self._max_streams:
            raise TooManyStreams
        handler, transport = request.protocol, request.transport
        closer = self._closers.pop(handler, None)
        # A connection that was closed meanwhile is no stream, and ends at its first write.
        if closer is not None and transport is not None:
            closer.cancel()
            self._streams[handler] = _Closer(transport, self._stream_s)
        try:
            yield
        finally:
            closer = self._streams.pop(handler, None)
            if closer is not None:
                # Not among the others again: its client opens a new one for what comes next.
                closer.close()


def _meets_expectations(request: web.BaseRequest) -> bool:
    """Whether all that a request expects can be met (RFC 9110 10.1.1)."""
    expected = ",".join(request.headers.getall("expect", []))
    return all(it.strip().lower() in ("", "100-continue") for it in expected.split(","))


async def in_pieces(text: bytes) -> AsyncIterator[bytes]:
    """Splits a text, since sending megabytes in one step would block the loop for milliseconds."""
    for start in range(0, len(text), _PIECE_BYTES):
        yield text[start : start + _PIECE_BYTES]
        await asyncio.sleep(0)


class _Closer:
    """Closes a connection when its time is up, even when its other end does not read."""

    def __init__(self, transport: asyncio.Transport, within_s: float) -> None:
        self._transport = transport
        loop = asyncio.get_running_loop()
        self._half_s = loop.time() + within_s / 2
        self._timer = loop.call_later(within_s, transport.abort)

    @property
    def is_half_over(self) -> bool:
        """Whether more than half of its time has passed."""
        return asyncio.get_running_loop().time() > self._half_s

    def close(self) -> None:
        """Closes it now."""
        self.cancel()
        self._transport.abort()

    def cancel(self) -> None:
        """Leaves it as it is."""
        self._timer.cancel()


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        answer = web.Response(status=status, text="this is not a request that can be read\n")
        answer.force_close()
        return answer
