"""Serves HTTP/1 without authentication, within bounds that hold for every client.

- Bytes that are no HTTP request get 400 and a fixed text, and no line in the log: they come from
  scanners.
- A connection is closed after `CONNECTION_S`, busy or not. With `MAX_CONNECTIONS` open, each new
  one closes the oldest: a client that holds many open cannot keep a probe out.
- Bodies are not read, and nothing is decompressed.

A handler that fails is answered with 500, and logged with its traceback, as everywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, TypeAlias

from aiohttp import web

Handle: TypeAlias = Callable[[], Awaitable[web.Response]]

CONNECTION_S: Final = 30.0
"""Longer than a scrape takes."""
MAX_CONNECTIONS: Final = 100
_READ: Final = ("GET", "HEAD")


class AdminServer(web.Server):
    """Answers GET and HEAD for a few paths; made when the loop runs.

    Args:
        paths: what answers for each path.
        connection_s, max_connections: see the module.
    """

    def __init__(
        self,
        paths: Mapping[str, Handle],
        *,
        connection_s: float = CONNECTION_S,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        super().__init__(self._answer)
        self._paths = paths
        self._connection_s = connection_s
        self._max_connections = max_connections
        self._closers: dict[web.RequestHandler, _Closer] = {}
        """For each open connection, the oldest first."""

    def __call__(self) -> web.RequestHandler:
        """Makes the handler of one connection."""
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # what the documentation says for "none"
            auto_decompress=False,
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
        closer = self._closers.pop(handler, None)
        if closer is not None:
            closer.cancel()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        handle = self._paths.get(request.path)
        if handle is None:
            return web.Response(status=404, text="there is nothing here\n")
        if request.method not in _READ:
            allow = {"allow": ", ".join(_READ)}
            return web.Response(status=405, text="this can only be read\n", headers=allow)
        return await handle()


class _Closer:
    """Closes a connection when its time is up, even when its other end does not read."""

    def __init__(self, transport: asyncio.Transport, within_s: float) -> None:
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(within_s, transport.abort)

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
