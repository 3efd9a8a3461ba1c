"""Uses the admin interface of the Envoy that hosts the doors, over its Unix socket."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp

from extauthz.serving.inside_envoy.http import STAT_PREFIX

_ACTIVE: Final = f"http.{STAT_PREFIX}.downstream_rq_active"
_REFUSED: Final = f"http.{STAT_PREFIX}.adaptive_concurrency.gradient_controller.rq_blocked"
_UNREADABLE: Final = "http2.rx_messaging_error"
_HELD: Final = r"tcp\..*\.downstream_cx_tx_bytes_buffered"
_LOOK_S: Final = 0.02
_IDLE_LOOKS: Final = 2
_TIMEOUT: Final = aiohttp.ClientTimeout(total=10)


class EnvoyAdmin:
    """A client of the admin interface. It must be made in a running event loop."""

    def __init__(self, path: Path) -> None:
        connector = aiohttp.UnixConnector(str(path))
        self._http = aiohttp.ClientSession("http://admin", connector=connector, timeout=_TIMEOUT)

    async def close(self) -> None:
        """Closes the client's connections."""
        await self._http.close()

    async def wait_ready(self) -> dict[str, list[int]]:
        """Waits until all listeners accept connections. When Envoy has died, it never returns.

        Returns:
            The ports of each listener in the order of its addresses; 0 for Unix sockets.
        """
        while True:
            with suppress(OSError, aiohttp.ClientError):
                async with self._http.get("/ready") as answer:
                    if answer.ok:
                        break
            await asyncio.sleep(_LOOK_S)
        async with self._http.get("/listeners?format=json") as answer:
            statuses = (await answer.json(content_type=None))["listener_statuses"]
        return {status["name"]: _read_ports(status) for status in statuses}

    async def close_listeners(self) -> None:
        """Closes the listeners, and sends GOAWAY on open connections.

        Raises:
            OSError, aiohttp.ClientError: Envoy does not answer.
        """
        # Only with both: the first sends GOAWAY but keeps listening, the second only closes.
        for path in ("/drain_listeners?graceful&skip_exit", "/drain_listeners"):
            async with self._http.post(path) as answer:
                answer.raise_for_status()

    async def wait_idle(self, at_most_s: float) -> bool:
        """Waits until every call has ended and its last byte was written.

        Args:
            at_most_s: the longest time to wait, in seconds.

        Returns:
            False when the time is over and calls are still open.

        Raises:
            OSError, aiohttp.ClientError: Envoy does not answer.
        """
        until_s = time.monotonic() + at_most_s
        idle_looks = 0
        # A call's last bytes may be between two listeners, so one look is not enough.
        while idle_looks < _IDLE_LOOKS:
            idle_looks = 0 if await self._count_unfinished() else idle_looks + 1
            if time.monotonic() >= until_s:
                return idle_looks > 0
            await asyncio.sleep(_LOOK_S)
        return True

    async def count_refused(self) -> int:
        """The number of calls since the start that were refused because too many were in flight.

        Raises:
            OSError, aiohttp.ClientError: Envoy does not answer.
        """
        return await self._sum(_REFUSED)

    async def count_unreadable(self) -> int:
        """The number of calls with invalid HTTP/2 headers, like an authority that is not a host.

        Raises:
            OSError, aiohttp.ClientError: Envoy does not answer.
        """
        return await self._sum(_UNREADABLE)

    async def _count_unfinished(self) -> int:
        """The number of open calls, plus the bytes that a listener in front has not written yet."""
        return await self._sum(f"{_ACTIVE}|{_HELD}")

    async def _sum(self, names: str) -> int:
        query = {"filter": f"^({names})$", "format": "json"}
        async with self._http.get("/stats", params=query) as answer:
            stats: list[dict[str, Any]] = (await answer.json(content_type=None))["stats"]
        return sum(stat["value"] for stat in stats)


def _read_ports(status: dict[str, Any]) -> list[int]:
    addresses = (status["local_address"], *status.get("additional_local_addresses", []))
    return [int(address.get("socket_address", {}).get("port_value", 0)) for address in addresses]
