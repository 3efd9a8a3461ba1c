"""Defines the bounds on connections, calls and messages, the same for every host."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.serving.load import DEFAULT_MAX_IN_FLIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class HostLimits:
    """Bounds on connections and messages.

    Attributes:
        max_receive_bytes: a longer request ends in RESOURCE_EXHAUSTED. Envoy sends a whole
            body here when `with_request_body` asks for it.
        max_connections: on one listener; more are closed at once.
        max_concurrent_streams: calls on one connection; more wait at the caller.
        max_in_flight: calls of all connections; more end in UNAVAILABLE. The Envoy host refuses
            them before they reach Python; with grpcio only the queue is bounded before Python.
        max_connection_age_s: after this, the caller is asked to connect again, so that new
            replicas get their share. The grpcio host spreads it by 10 % either way.
        max_connection_age_grace_s: how long calls may continue on a connection that is too old.
            The Envoy host does not bound this.
        keepalive_time_s: interval of keep-alive pings on a silent connection.
        keepalive_timeout_s: a connection without an answer to a ping is closed after this.
        min_ping_interval_s: callers that ping more often than this are disconnected. The Envoy
            host bounds floods of pings in its own way.
        handshake_timeout_s: within this a connection must have finished TLS and HTTP/2 set-up.
        message_timeout_s: within this the message of a unary call must have arrived. Until then
            the call does not count as in flight.
        reuse_port: lets several processes listen on one TCP port.
        unix_mode: permissions of a unix socket's file.
    """

    max_receive_bytes: int = 4 * 1024 * 1024
    max_connections: int = 10_000
    max_concurrent_streams: int = 1000
    max_in_flight: int = DEFAULT_MAX_IN_FLIGHT
    max_connection_age_s: float = 1800
    max_connection_age_grace_s: float = 60
    keepalive_time_s: float = 60
    keepalive_timeout_s: float = 20
    min_ping_interval_s: float = 10
    handshake_timeout_s: float = 20
    message_timeout_s: float = 5
    reuse_port: bool = False
    unix_mode: int = 0o660

    @property
    def busy_in_flight(self) -> int:
        """The lowest bound on calls in flight that the Envoy host sets while calls take long."""
        return max(1, self.max_in_flight // 5)
