"""Dispatches the calls of one ASGI server to its doors.

With one door, it gets every call. With several, a call belongs to the door on whose address it
arrived. The server writes that address into `ADDRESS_HEADER`, and drops what a caller wrote there.
A call on an address without a door is refused.
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
    """An application for each door, and the door of each address. One event loop uses it."""

    def __init__(self, doors: Mapping[str, Door], limits: HostLimits) -> None:
        self._doors = tuple(doors.values())
        self._apps = {name: GrpcApp(door, limits=limits) for name, door in doors.items()}
        self._only = next(iter(self._apps.values())) if len(self._apps) == 1 else None
        self._by_address: dict[bytes, GrpcApp] = {}

    def route(self, doors: Mapping[str, str]) -> None:
        """Sets the doors of addresses. Of several doors, none gets calls before that.

        Args:
            doors: names of doors by address; ``0.0.0.0:port`` and ``[::]:port`` stand for every
                address with that port.
        """
        self._by_address = {address.encode(): self._apps[name] for address, name in doors.items()}

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answers one call with the application of its door."""
        app = self._only or self._find(scope["headers"])
        return _refuse(send) if app is None else app(scope, receive, send)

    def count_refused(self, calls: int) -> None:
        """Sets the number of calls that the server itself has refused since its start.

        The server does not know their doors, so the first door counts them.
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
        # The server adds its own after those of the caller.
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
