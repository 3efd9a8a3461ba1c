"""Serves doors with grpcio's asyncio server, on asyncio's own event loop or uvloop's.

Each door has a server of its own. Messages are passed as bytes; there are no generated servicers.
The names in client certificates are not checked in the handshake, but with each call of a listener
with `client_uri_sans` (`extauthz.serving.grpcio.calls`).
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import (
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import replace

import grpc

from extauthz.errors import ExtauthzError
from extauthz.serving.door import Door, DoorListener, check_listeners
from extauthz.serving.grpcio.calls import BoundedMethods, MethodHandlers
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import (
    ListenAddress,
    ListenError,
    remove_sockets,
    remove_stale_socket,
)
from extauthz.serving.tls import TlsMaterial, TlsReloader

_log = logging.getLogger(__name__)
_MS = 1000
_STRANGER = "the client certificate has no URI SAN that is let in here"
_STATUS = {code.value[0]: code for code in grpc.StatusCode}
_MAX_WAITING, _SURELY_REFUSED = 100, 200
"""Calls that wait before Python. 200 of them take 80 ms at 2,500 decisions a second."""


class GrpcioHost:
    """One grpcio server for each listener. Can be started once."""

    def __init__(
        self,
        doors: Mapping[str, Door],
        listeners: Sequence[DoorListener],
        *,
        limits: HostLimits | None = None,
    ) -> None:
        self._listeners = check_listeners(listeners)
        self._doors = {listener.door: doors[listener.door] for listener in listeners}
        self._limits = limits or HostLimits()
        self._servers: list[grpc.aio.Server] = []
        self._addresses: tuple[ListenAddress, ...] = ()

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens, with the actual port in place of port 0; empty before the start."""
        return self._addresses

    async def start(self) -> None:
        """Opens every listener and begins to serve.

        Raises:
            ListenError: an address cannot be listened on.
            ConfigError: the TLS files cannot be used.
        """
        if self._servers:
            raise RuntimeError("this host was started before")
        servers: list[grpc.aio.Server] = []
        bound: list[ListenAddress] = []
        try:
            for listener in self._listeners:
                servers.append(server := self._make_server(listener))
                for address in listener.addresses:
                    bound.append(self._bind(server, address, listener))
                    written = "with TLS" if listener.tls else "without TLS"
                    _log.info("%s: listening on %s %s", listener.door, bound[-1], written)
        except ExtauthzError:
            remove_sockets(bound)
            raise
        self._servers = servers
        self._addresses = tuple(bound)
        for server in servers:
            await server.start()

    async def wait_ended(self) -> None:
        """Waits until it no longer serves."""
        await asyncio.gather(*(server.wait_for_termination() for server in self._servers))

    async def stop(self, grace_s: float) -> None:
        """Drains every door, takes no new calls, and cancels what is left after the grace."""
        for door in self._doors.values():
            door.drain()
        await asyncio.gather(*(server.stop(grace_s) for server in self._servers))
        remove_sockets(self._addresses)

    def _make_server(self, listener: DoorListener) -> grpc.aio.Server:
        door = self._doors[listener.door]
        uris = frozenset(listener.tls.client_uri_sans if listener.tls else ())
        handlers = MethodHandlers(door, uris, self._limits.message_timeout_s)
        server = grpc.aio.server(
            handlers=[BoundedMethods(handlers)], options=_options(self._limits)
        )
        for method in door.table:
            if method.exempt:  # a registered method has a queue of its own
                _, service, name = method.path.split("/")
                server.add_registered_method_handlers(
                    service, {name: handlers.find_handler(method)}
                )
        return server

    def _bind(
        self, server: grpc.aio.Server, address: ListenAddress, listener: DoorListener
    ) -> ListenAddress:
        # One reloader for each address, as each must get a change itself.
        credentials = _credentials(TlsReloader(listener.tls)) if listener.tls else None
        if address.path:
            remove_stale_socket(address.path)
        try:
            with _socket_mode(self._limits.unix_mode if address.path else None):
                if credentials is None:
                    port = server.add_insecure_port(str(address))
                else:
                    port = server.add_secure_port(str(address), credentials)
        except RuntimeError as exc:
            raise ListenError(
                f"{address}: cannot be listened on; is the address this machine's, the port "
                "free, and may this user take it?"
            ) from exc
        return address if address.path else replace(address, port=port)


def _credentials(reloader: TlsReloader) -> grpc.ServerCredentials:
    def find_change() -> grpc.ServerCertificateConfiguration | None:
        material = reloader.find_change()
        return None if material is None else _configuration(material)

    # TLS 1.2 is the lowest that gRPC's core speaks unless told otherwise.
    return grpc.dynamic_ssl_server_credentials(
        _configuration(reloader.current),
        find_change,  # type: ignore[arg-type]  # None means "no change", which the stub forgets
        require_client_authentication=reloader.current.client_ca_pem is not None,
    )


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(material.key_pem, material.cert_pem)], root_certificates=material.client_ca_pem
    )


def _options(limits: HostLimits) -> list[tuple[str, int]]:
    return [
        ("grpc.max_receive_message_length", limits.max_receive_bytes),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.max_concurrent_streams", limits.max_concurrent_streams),
        ("grpc.max_connection_age_ms", round(limits.max_connection_age_s * _MS)),
        ("grpc.max_connection_age_grace_ms", round(limits.max_connection_age_grace_s * _MS)),
        ("grpc.keepalive_time_ms", round(limits.keepalive_time_s * _MS)),
        ("grpc.keepalive_timeout_ms", round(limits.keepalive_timeout_s * _MS)),
        ("grpc.keepalive_permit_without_calls", 1),
        (
            "grpc.http2.min_ping_interval_without_data_ms",
            round(limits.min_ping_interval_s * _MS),
        ),
        ("grpc.server_handshake_timeout_ms", round(limits.handshake_timeout_s * _MS)),
        # gRPC turns it on by default, and a second process would silently take half the calls.
        ("grpc.so_reuseport", int(limits.reuse_port)),
        # Above the first value, gRPC's core refuses a growing part of the calls that Python has not
        # taken yet, and at the second all of them: RST_STREAM, which callers read as CANCELLED.
        ("grpc.server.max_pending_requests", _MAX_WAITING),
        ("grpc.server.max_pending_requests_hard_limit", _SURELY_REFUSED),
        # Identity alone. The bound on a message's size is held against its compressed bytes.
        ("grpc.compression_enabled_algorithms_bitset", 1),
    ]


@contextmanager
def _socket_mode(mode: int | None) -> Iterator[None]:
    """Sets the permissions of a socket while it is made: a chmod afterwards would be too late."""
    if mode is None:
        yield
        return
    before = os.umask(0o777 & ~mode)
    try:
        yield
    finally:
        os.umask(before)
