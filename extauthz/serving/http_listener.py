"""Listens for checks over HTTP/1.1, within bounds that hold for every client.

- A question is answered from its head alone: no body is read. Some proxies announce a body and
  send none (nginx without ``proxy_pass_request_body off``), so a body is never waited for; the
  connection is closed after the answer.
- A head must arrive within `HostLimits.handshake_timeout_s` of its first byte.
- With `HostLimits.max_connections` open, new ones are closed at once. A connection is closed after
  `HostLimits.max_connection_age_s`, once it has answered what it was asked.
- Bytes that are no HTTP request get 400 and a fixed text, which every proxy takes for a refusal.

Whatever fails is 503: no failure becomes an answer that lets a request pass.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from extauthz.serving.http_messages import NOT_DECIDED, Question, Reply
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import (
    ListenAddress,
    ListenError,
    remove_sockets,
    remove_stale_socket,
)
from extauthz.serving.load import Load
from extauthz.serving.methods import RpcFailure

_log = logging.getLogger(__name__)
_MAX_LINE_BYTES: Final = 65_536
"""Of the request line, and of each field. All of a request's head has 60 KiB at Envoy at most."""
_MAX_FIELDS: Final = 256
_BACKLOG: Final = 1024
_NAME: Final = "extauthz"
_UNREADABLE: Final = "this is not a request that can be read\n"


class HttpListener:
    """Serves checks until it is stopped.

    Args:
        answer: the door's answer to a question. May raise anything.
        load: bounds the questions in flight, together with the other doors.
        grace_s: how long questions in flight may take to be answered once it is stopped.
        tls: the listener's certificates; with a client CA, clients must show one. None: plain HTTP.
    """

    def __init__(
        self,
        address: ListenAddress,
        answer: Callable[[Question], Awaitable[Reply]],
        *,
        load: Load,
        limits: HostLimits,
        grace_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._grace_s = grace_s
        self._address = address
        self._answer = answer
        self._load = load
        self._limits = limits
        self._tls = tls
        self._runner: web.ServerRunner | None = None
        self._listening: asyncio.Server | None = None

    @property
    def port(self) -> int:
        """The actual TCP port; 0 for a Unix socket, and before the start."""
        if self._address.path or self._listening is None:
            return 0
        return int(self._listening.sockets[0].getsockname()[1])

    async def start(self) -> None:
        """Opens the listener.

        Raises:
            ListenError: the address cannot be listened on.
        """
        if self._address.path:
            remove_stale_socket(self._address.path)
        server = _Server(self._reply, self._limits)
        self._runner = web.ServerRunner(server, shutdown_timeout=self._grace_s)
        await self._runner.setup()
        try:
            self._listening = await self._listen(server)
        except OSError as exc:
            await self._runner.cleanup()
            raise ListenError(
                f"{self._address}: cannot be listened on ({exc.strerror}); choose another "
                "listen.http"
            ) from exc
        written = "without TLS" if self._tls is None else "with TLS"
        _log.info("http: listening on %s %s", self._address, written)

    async def stop(self) -> None:
        """Takes no new connections; questions in flight have the grace to be answered."""
        if self._listening is not None:
            self._listening.close()
            remove_sockets([self._address])
        if self._runner is not None:
            await self._runner.cleanup()

    async def _listen(self, server: _Server) -> asyncio.Server:
        tls: dict[str, Any] = {"ssl": self._tls}
        if self._tls is not None:
            tls["ssl_handshake_timeout"] = self._limits.handshake_timeout_s
        loop, address = asyncio.get_running_loop(), self._address
        if not address.path:
            return await loop.create_server(
                server,
                address.host,
                address.port,
                backlog=_BACKLOG,
                reuse_port=self._limits.reuse_port or None,
                **tls,
            )
        before = os.umask(0o777 & ~self._limits.unix_mode)
        try:
            made = socket.socket(socket.AF_UNIX)
            made.bind(address.path)
        finally:
            os.umask(before)
        return await loop.create_unix_server(server, sock=made, backlog=_BACKLOG, **tls)

    async def _reply(self, request: web.BaseRequest) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, _Connection)
        connection.note_head()
        question = Question(request.method, request.raw_path, request.raw_headers)
        try:
            with self._load.calls:
                reply = await self._answer(question)
        except RpcFailure:  # there is no place for it
            reply = NOT_DECIDED
        except Exception:  # noqa: BLE001  (no failure may become an allow)
            _log.exception("a check over HTTP failed")
            reply = NOT_DECIDED
        response = web.Response(status=reply.status, body=reply.body.encode())
        # A body of nothing said would be called application/octet-stream.
        response.content_type, response.charset = "text/plain", "utf-8"
        response.headers["server"] = _NAME  # else aiohttp would tell clients its version
        for name, value in reply.fields:
            if name == "content-type":
                response.headers[name] = value
            else:
                response.headers.add(name, value)
        if request.can_read_body or connection.is_old:
            response.force_close()
        return response


class _Server(web.Server):
    """Makes the connections, and bounds their number."""

    def __init__(
        self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], limits: HostLimits
    ) -> None:
        super().__init__(answer)
        self._limits = limits

    def __call__(self) -> web.RequestHandler:
        """Makes the handler of one connection."""
        return _Connection(
            self,
            self._limits,
            loop=asyncio.get_running_loop(),
            access_log=None,  # what the documentation says for "none"
            auto_decompress=False,
            lingering_time=0,
            keepalive_timeout=self._limits.keepalive_time_s,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_LINE_BYTES,
            max_headers=_MAX_FIELDS,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """A connection was opened."""
        super().connection_made(handler, transport)
        if len(self.connections) > self._limits.max_connections:
            transport.abort()


class _Connection(web.RequestHandler):
    def __init__(self, server: _Server, limits: HostLimits, **options: Any) -> None:
        super().__init__(server, **options)
        self._head_s = limits.handshake_timeout_s
        self._old_s = self._loop.time() + limits.max_connection_age_s
        self._head_timer: asyncio.TimerHandle | None = None

    @property
    def is_old(self) -> bool:
        """Whether it should not be used for another question."""
        return self._loop.time() > self._old_s

    def note_head(self) -> None:
        """A whole head has arrived."""
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def data_received(self, data: bytes) -> None:
        if self._head_timer is None and self.transport is not None:
            self._head_timer = self._loop.call_later(self._head_s, self.transport.abort)
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.note_head()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if status >= 500:
            return super().handle_error(request, status, exc, message)
        self.note_head()
        answer = web.Response(status=status, text=_UNREADABLE, headers={"server": _NAME})
        answer.force_close()
        return answer
