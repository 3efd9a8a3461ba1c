"""The doors behind one ASGI server, and which of them a call came to.

With one door, every call is its own. With several, a call belongs to the door whose address it
came to, which the server writes into `ADDRESS_HEADER`; the server drops what a caller wrote
there. A call that came to an address of no door is refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Final

from extauthz.serving.door import Door
from extauthz.serving.inside_envoy.grpc_asgi import GrpcApp, Receive, Scope, Send
from extauthz.serving.limits import HostLimits

ADDRESS_HEADER: Final = "extauthz-local-address"
"""Holds ``host:port``, ``[v6]:port`` or the path of a Unix socket."""

_HEADER: Final = ADDRESS_HEADER.encode()
_ANY_HOSTS: Final = (b"0.0.0.0", b"[::]")


class AsgiDoors:
    """An application for each door, and the way to it. One event loop uses it."""

    def __init__(self, doors: Mapping[str, Door], limits: HostLimits) -> None:
        self._doors = tuple(doors.values())
        self._apps = {name: GrpcApp(door, limits=limits) for name, door in doors.items()}
        self._only = next(iter(self._apps.values())) if len(self._apps) == 1 else None
        self._by_address: dict[bytes, GrpcApp] = {}

    def route(self, doors: Mapping[str, str]) -> None:
        """From now on, calls go to the doors that are named by address.

        An address ``0.0.0.0:port`` or ``[::]:port`` stands for every address of that port.
        """
        self._by_address = {address.encode(): self._apps[name] for address, name in doors.items()}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answers one call, as the door that it came to."""
        app = self._only or self._find(scope["headers"])
        return _refuse(send) if app is None else app(scope, receive, send)

    def count_refused(self, calls: int) -> None:
        """Takes down how many calls the server has refused by itself since its start.

        It cannot tell for which door they were: the first one counts them.
        """
        self._doors[0].load.refused_before = calls

    def drain(self) -> None:
        """Drains every door; from now on, new calls end in UNAVAILABLE."""
        for door in self._doors:
            door.drain()
        for app in self._apps.values():
            app.refuse_new()

    def cancel_all(self) -> None:
        """Cancels every call; the callers read UNAVAILABLE."""
        for app in self._apps.values():
            app.cancel_all()

    def _find(self, headers: Sequence[tuple[bytes, bytes]]) -> GrpcApp | None:
        # The server's is the last.
        address = next((value for name, value in reversed(headers) if name == _HEADER), b"")
        app = self._by_address.get(address)
        if app is None:
            host, _, port = address.rpartition(b":")
            any_host = _ANY_HOSTS[host.startswith(b"[")]
            app = self._by_address.get(any_host + b":" + port)
        return app


async def _refuse(send: Send) -> None:
    await send({"type": "http.response.start", "status": 503, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
