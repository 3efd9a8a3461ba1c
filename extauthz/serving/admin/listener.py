"""The admin listener: ``/healthz``, ``/readyz`` and ``/metrics`` for probes, the API and its page.

The three are open to everybody who can connect: they show sums and states, no request, no
credential, no customer. Who may use the API is judged in `extauthz.serving.admin.access`, and
`extauthz.serving.admin.http` handles everything else that may be sent here.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from aiohttp import web

from extauthz.serving.admin.http import AdminServer, Api, in_pieces
from extauthz.serving.admin.page.files import PAGE_HEADERS, PageFile, read_page
from extauthz.serving.admin.readiness import (
    ReadyCheck,
    ReadyState,
    judge_readiness,
    write_readiness,
)
from extauthz.serving.listen import ListenAddress, ListenError

HANDSHAKE_S: Final = 5.0
"""The time for a TLS handshake; a connection is counted once it is done."""
_NO_STORE: Final = {"cache-control": "no-store"}


class AdminListener:
    """Serves the admin paths until it is stopped.

    Args:
        checks: asked at each ``/readyz``.
        metrics: gives the text of ``/metrics`` and its content type.
        api: what answers below ``/api``; None: nothing is there.
        tls: for HTTPS; None: plain HTTP.
    """

    def __init__(
        self,
        address: ListenAddress,
        *,
        checks: Callable[[], Awaitable[Sequence[ReadyCheck]]],
        metrics: Callable[[], Awaitable[tuple[bytes, str]]],
        api: Api | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = address
        self._checks = checks
        self._metrics = metrics
        self._api = api
        self._tls = tls
        self._server: AdminServer | None = None
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
        paths = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._serve_metrics,
        }
        if self._api is not None:
            paths |= {path: partial(_serve_file, file) for path, file in read_page().items()}
        self._server = AdminServer(paths, self._api)
        self._runner = runner = web.ServerRunner(self._server)
        await runner.setup()
        try:
            self._listening = await self._listen(self._server)
        except OSError as exc:
            await runner.cleanup()
            raise ListenError(
                f"{self._address}: cannot be listened on ({exc.strerror}); choose another "
                "listen.admin"
            ) from exc

    async def stop(self) -> None:
        """Closes the listener and its connections."""
        if self._listening is not None:
            self._listening.close()
        if self._server is not None:
            self._server.end_streams()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _listen(self, server: AdminServer) -> asyncio.Server:
        # A site of aiohttp's would wait a minute for a handshake.
        tls: dict[str, Any] = {"ssl": self._tls}
        if self._tls is not None:
            tls["ssl_handshake_timeout"] = HANDSHAKE_S
        loop, address = asyncio.get_running_loop(), self._address
        if address.path:
            return await loop.create_unix_server(server, address.path, **tls)
        return await loop.create_server(server, address.host, address.port, **tls)

    async def _healthz(self) -> web.Response:
        return web.Response(text="alive\n", headers=_NO_STORE)

    async def _readyz(self) -> web.Response:
        checks = await self._checks()
        return web.Response(
            status=503 if judge_readiness(checks) is ReadyState.NOT_READY else 200,
            text=json.dumps(write_readiness(checks), indent=2) + "\n",
            content_type="application/json",
            headers=_NO_STORE,
        )

    async def _serve_metrics(self) -> web.Response:
        text, content_type = await self._metrics()
        headers = {"content-type": content_type, **_NO_STORE}
        return web.Response(body=in_pieces(text), headers=headers)


async def _serve_file(file: PageFile) -> web.Response:
    headers = {"content-type": file.content_type, **PAGE_HEADERS}
    return web.Response(body=file.body, headers=headers)
