"""The admin listener: ``/healthz``, ``/readyz`` and ``/metrics``, for probes and operators.

Plain HTTP without authentication, so it listens on loopback unless told otherwise. It shows
sums and states: no request, no credential, no customer.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

from extauthz.serving.listen import ListenAddress, ListenError
from extauthz.serving.readiness import ReadyCheck, ReadyState, judge_readiness

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
        app = web.Application()
        app.add_routes(
            [
                web.get("/healthz", self._healthz),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._serve_metrics),
            ]
        )
        # Nothing that a probe sends is worth a log line.
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)

    @property
    def port(self) -> int:
        """The TCP port that it really has; 0 for a Unix socket."""
        return 0 if self._address.path else int(self._runner.addresses[0][1])

    async def start(self) -> None:
        """Opens the listener.

        Raises:
            ListenError: the address cannot be listened on.
        """
        await self._runner.setup()
        address = self._address
        site: web.BaseSite
        if address.path:
            site = web.UnixSite(self._runner, address.path)
        else:
            site = web.TCPSite(self._runner, address.host, address.port)
        try:
            await site.start()
        except OSError as exc:
            await self._runner.cleanup()
            raise ListenError(
                f"{address}: cannot be listened on ({exc.strerror}); choose another listen.admin"
            ) from exc

    async def stop(self) -> None:
        """Closes the listener and its connections."""
        await self._runner.cleanup()

    async def _healthz(self, _: web.Request) -> web.Response:
        return web.Response(text="alive\n", headers=_NO_STORE)

    async def _readyz(self, _: web.Request) -> web.Response:
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

    async def _serve_metrics(self, _: web.Request) -> web.Response:
        text, content_type = await self._metrics()
        return web.Response(body=text, headers={"content-type": content_type, **_NO_STORE})
