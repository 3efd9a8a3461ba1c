"""The admin listener: ``/healthz``, ``/readyz`` and ``/metrics``, for probes and operators.

It is plain HTTP without authentication, so it listens on loopback unless settings say otherwise.
It shows sums and states: no request, no credential, no customer. `extauthz.serving.admin.http`
handles everything else that may be sent there.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

from extauthz.serving.admin.http import AdminServer
from extauthz.serving.admin.readiness import ReadyCheck, ReadyState, judge_readiness
from extauthz.serving.listen import ListenAddress, ListenError

_PIECE_BYTES: Final = 131_072
_NO_STORE: Final = {"cache-control": "no-store"}


class AdminListener:
    """Serves the admin paths until it is stopped.

    Args:
        checks: asked at each ``/readyz``.
        metrics: gives the text of ``/metrics`` and its content type.
    """

    def __init__(
        self,
        address: ListenAddress,
        *,
        checks: Callable[[], Awaitable[Sequence[ReadyCheck]]],
        metrics: Callable[[], Awaitable[tuple[bytes, str]]],
    ) -> None:
        self._address = address
        self._checks = checks
        self._metrics = metrics
        self._runner: web.ServerRunner | None = None

    @property
    def port(self) -> int:
        """The actual TCP port; 0 for a Unix socket, and before the start."""
        if self._address.path or self._runner is None:
            return 0
        return int(self._runner.addresses[0][1])

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
        self._runner = runner = web.ServerRunner(AdminServer(paths))
        await runner.setup()
        address = self._address
        site: web.BaseSite
        if address.path:
            site = web.UnixSite(runner, address.path)
        else:
            site = web.TCPSite(runner, address.host, address.port)
        try:
            await site.start()
        except OSError as exc:
            await runner.cleanup()
            raise ListenError(
                f"{address}: cannot be listened on ({exc.strerror}); choose another listen.admin"
            ) from exc

    async def stop(self) -> None:
        """Closes the listener and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self) -> web.Response:
        return web.Response(text="alive\n", headers=_NO_STORE)

    async def _readyz(self) -> web.Response:
        checks = await self._checks()
        state = judge_readiness(checks)
        body = {
            "status": state.value,
            "checks": {
                check.name: {"status": check.state.value, **check.facts} for check in checks
            },
        }
        return web.Response(
            status=503 if state is ReadyState.NOT_READY else 200,
            text=json.dumps(body, indent=2) + "\n",
            content_type="application/json",
            headers=_NO_STORE,
        )

    async def _serve_metrics(self) -> web.Response:
        text, content_type = await self._metrics()
        headers = {"content-type": content_type, **_NO_STORE}
        return web.Response(body=_in_pieces(text), headers=headers)


async def _in_pieces(text: bytes) -> AsyncIterator[bytes]:
    """Splits a text, since sending megabytes in one step would block the loop for milliseconds."""
    for start in range(0, len(text), _PIECE_BYTES):
        yield text[start : start + _PIECE_BYTES]
        await asyncio.sleep(0)
