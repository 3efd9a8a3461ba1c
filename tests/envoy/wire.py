"""Envoy's messages built and read by another codec: `envoy-data-plane`, made by betterproto2."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    HeaderMap,
    HeaderValue,
    SocketAddress,
)
from envoy_data_plane.envoy.service.auth.v3 import (
    AttributeContext,
    AttributeContextHttpRequest,
    AttributeContextPeer,
    AttributeContextRequest,
    CheckRequest,
)


def a_check(*, raw: Iterable[tuple[str, bytes]] = (), **http: Any) -> bytes:
    """A CheckRequest with defaults for all but the point of a test."""
    http.setdefault("method", "GET")
    http.setdefault("path", "/")
    http.setdefault("host", "api.example.com")
    entries = [HeaderValue(key=name, raw_value=value) for name, value in raw]
    if entries:
        http["header_map"] = HeaderMap(headers=entries)
    return a_check_of(
        AttributeContext(request=AttributeContextRequest(http=AttributeContextHttpRequest(**http)))
    )


def a_check_of(attributes: AttributeContext) -> bytes:
    return bytes(CheckRequest(attributes=attributes))


def a_check_from(source: AttributeContextPeer) -> bytes:
    return a_check_of(
        AttributeContext(
            source=source,
            request=AttributeContextRequest(
                http=AttributeContextHttpRequest(method="GET", path="/", host="a")
            ),
        )
    )


def an_address(ip: str) -> Address:
    return Address(socket_address=SocketAddress(address=ip, port_value=12345))
