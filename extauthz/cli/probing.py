"""Finds the protocols of the ports that Envoy asks, by one or two short connections to each."""

from __future__ import annotations

import socket
import ssl
from typing import Final

import grpc

from extauthz.envoy.authorization import SERVICE
from extauthz.envoy.diagnosis.ports import Health, Port, Protocol
from extauthz.serving.health import HEALTH_SERVICE, HealthStatus
from extauthz.serving.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse

TIMEOUT_S: Final = 2.0
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""The connection preface of an HTTP/2 client, with empty SETTINGS (RFC 9113 section 3.4)."""
_SETTINGS: Final = 4
_TLS_ALERT: Final = b"\x15\x03"


def probe(address: str, timeout_s: float = TIMEOUT_S) -> Port:
    """Finds the protocol of a port, and asks for its health when it speaks gRPC.

    Args:
        address: ``host:port`` or ``unix:/path``.
        timeout_s: the longest time for each step, in seconds.
    """
    try:
        with _connect(address, timeout_s) as wire:
            wire.sendall(_PREFACE)
            begin = _read(wire)
    except ConnectionError:
        begin = b""
        if not _is_there(address, timeout_s):
            return Port(protocol=Protocol.NOBODY)
    except OSError:
        return Port(protocol=Protocol.NOBODY)
    if begin[3:4] == bytes((_SETTINGS,)):
        return Port(protocol=Protocol.HTTP2, health=_ask_health(address, timeout_s))
    if begin.startswith(b"HTTP/1"):
        return Port(protocol=Protocol.HTTP1)
    return Port(protocol=_speak_tls(address, timeout_s))


def _connect(address: str, timeout_s: float) -> socket.socket:
    if address.startswith("unix:"):
        wire = socket.socket(socket.AF_UNIX)
        wire.settimeout(timeout_s)
        try:
            wire.connect(address.removeprefix("unix:"))
        except OSError:
            wire.close()
            raise
        return wire
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout_s)


def _is_there(address: str, timeout_s: float) -> bool:
    """Whether the port still accepts connections, after it has closed one without an answer."""
    try:
        _connect(address, timeout_s).close()
    except OSError:
        return False
    return True


def _read(wire: socket.socket) -> bytes:
    """Reads up to the length of a frame header; less when the peer closes or sends nothing."""
    begin = b""
    try:
        while len(begin) < 9 and (more := wire.recv(9 - len(begin))):
            begin += more
    except TimeoutError:
        pass
    return begin


def _speak_tls(address: str, timeout_s: float) -> Protocol:
    context = ssl.create_default_context()
    # The certificate is not verified: nothing secret is sent, and only the protocol is examined.
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            _connect(address, timeout_s) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as wire,
        ):
            wire.sendall(_PREFACE)
            # With TLS 1.3, a client without a certificate sees the refusal only when it reads.
            return Protocol.TLS if _read(wire) else Protocol.MUTUAL_TLS
    except ssl.SSLError as exc:
        said = str(exc).upper()
        wanted = "CERTIFICATE_REQUIRED" in said or "HANDSHAKE_FAILURE" in said
        return Protocol.MUTUAL_TLS if wanted else Protocol.UNKNOWN
    except OSError:
        return Protocol.UNKNOWN


def _ask_health(address: str, timeout_s: float) -> Health | None:
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        check = channel.unary_unary(
            f"/{HEALTH_SERVICE}/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        try:
            answer = check(HealthCheckRequest(service=SERVICE), timeout=timeout_s)
        except grpc.RpcError as exc:
            absent = (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND)
            return Health.ABSENT if exc.code() in absent else None
    is_serving = int(answer.status) == int(HealthStatus.SERVING)
    return Health.SERVING if is_serving else Health.NOT_SERVING
