"""Writes the configuration of an Envoy that runs Python: its listeners, limits, TLS and admin.

Each configuration of the Python filter would load the application again, with a thread of its own.
So only one listener, the shared one, has it. When all doors have the same certificates, it has the
addresses of all. Otherwise it has the addresses of the doors without TLS, and each other door gets
a listener of its own, which terminates TLS and forwards the bytes through a private socket.

The door of a call is found by the address on which it arrived: Envoy writes that into a header
(`ADDRESS_HEADER`), and drops what a caller wrote there. TLS material is in files that Envoy watches
(`write_secrets`), so that only checked material is used. The admin interface is a socket in a
private folder.

`extauthz.serving.inside_envoy.http` writes the handling of calls on the shared listener.

Source: Envoy's v3 API reference, by the names of the fields.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from extauthz.serving.door import DoorListener
from extauthz.serving.inside_envoy.http import write_http_filter, write_seconds
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import ListenAddress
from extauthz.serving.tls import TlsFiles, TlsMaterial

SHARED: Final = "shared"
"""The name of the listener with the application."""

_TYPE: Final = "type.googleapis.com/"
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3."
_CERTIFICATE: Final = "certificate"
_CLIENT_CA: Final = "client_ca"
_TURN_BYTES: Final = 32 * 1024
_NO_BOUND: Final = 2**32 - 1


def write_bootstrap(
    *, app: str, listeners: Sequence[DoorListener], folder: Path, limits: HostLimits
) -> dict[str, Any]:
    """Writes Envoy's bootstrap, in its JSON form.

    Args:
        app: the ASGI application, as ``package.module:name``.
        listeners: the doors' listeners; their hosts are IP addresses.
        folder: a private folder for the admin socket, the sockets between a door's own listener
            and the shared one, and the files of `write_secrets`.
        limits: the host's limits.
    """
    shared_tls = find_shared_tls(listeners)
    front = [listener for listener in listeners if listener.tls != shared_tls]
    addresses = [
        address
        for listener in listeners
        for address in list_shared_addresses(listener, shared_tls, folder)
    ]
    http_filter = write_http_filter(
        app,
        limits,
        client_streams=[path for listener in listeners for path in listener.client_streams],
        names_address=len(listeners) > 1,
    )
    chain = {
        "filters": [http_filter],
        **_write_chain_tls(shared_tls, listeners, folder, limits),
    }
    shared = _write_listener(SHARED, addresses, chain, limits)
    if shared_tls is None:
        # Closes connections that send nothing; with TLS, the handshake's timeout does that.
        shared |= {
            "listener_filters": [_write_first_bytes()],
            "listener_filters_timeout": write_seconds(limits.handshake_timeout_s),
        }
    # The bytes that are read of a connection before it is the turn of others and of Python's
    # answers. With more, Envoy reads a flood for so long that few calls are decided.
    shared["per_connection_buffer_limit_bytes"] = _TURN_BYTES
    return {
        "node": {"id": "extauthz", "cluster": "extauthz"},  # required for reading secrets
        "admin": {"address": {"pipe": {"path": str(folder / "admin"), "mode": 0o600}}},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": f"{_TYPE}envoy.extensions.resource_monitors."
                        "downstream_connections.v3.DownstreamConnectionsConfig",
                        "max_active_downstream_connections": limits.max_connections,
                    },
                }
            ]
        },
        "static_resources": {
            "listeners": [
                shared,
                *(_write_front(listener, listeners, folder, limits) for listener in front),
            ],
            "clusters": [_write_way_in(listener.door, folder) for listener in front],
        },
    }


def find_shared_tls(listeners: Sequence[DoorListener]) -> TlsFiles | None:
    """The certificates of the shared listener: those of all doors if equal, otherwise none."""
    first = listeners[0].tls
    return first if all(listener.tls == first for listener in listeners) else None


def list_shared_addresses(
    listener: DoorListener, shared_tls: TlsFiles | None, folder: Path
) -> tuple[ListenAddress, ...]:
    """The addresses of a door on the shared listener: its own, or its private socket."""
    if listener.tls == shared_tls:
        return listener.addresses
    return (ListenAddress(path=str(_way_in(listener.door, folder))),)


def _way_in(door: str, folder: Path) -> Path:
    return folder / f"{door}.sock"


def _write_front(
    listener: DoorListener, listeners: Sequence[DoorListener], folder: Path, limits: HostLimits
) -> dict[str, Any]:
    """A door's own listener, which terminates TLS and forwards bytes to the shared listener."""
    chain = {
        "filters": [
            {
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": listener.door,
                    "cluster": listener.door,
                    "idle_timeout": "0s",  # the shared listener has the timeout
                },
            }
        ],
        **_write_chain_tls(listener.tls, listeners, folder, limits),
    }
    written = _write_listener(listener.door, listener.addresses, chain, limits)
    # The shared listener counts the connection already.
    return {**written, "ignore_global_conn_limit": True}


def _write_way_in(door: str, folder: Path) -> dict[str, Any]:
    endpoint = {"address": {"pipe": {"path": str(_way_in(door, folder))}}}
    return {
        "name": door,
        "type": "STATIC",
        "connect_timeout": "5s",
        # The listeners bound connections already; Envoy's default would be 1024.
        "circuit_breakers": {"thresholds": [{"max_connections": _NO_BOUND}]},
        "load_assignment": {
            "cluster_name": door,
            "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}],
        },
    }


def _write_listener(
    name: str, addresses: Sequence[ListenAddress], chain: dict[str, Any], limits: HostLimits
) -> dict[str, Any]:
    first, *more = [{"address": _write_address(address, limits)} for address in addresses]
    return {
        "name": name,
        **first,
        "additional_addresses": more,
        # Envoy turns it on by default, and a second process would silently take half the calls.
        "enable_reuse_port": limits.reuse_port,
        "filter_chains": [chain],
    }


def _write_address(address: ListenAddress, limits: HostLimits) -> dict[str, Any]:
    if address.path:
        return {"pipe": {"path": address.path, "mode": limits.unix_mode}}
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _write_first_bytes() -> dict[str, Any]:
    """A listener filter that waits for the first bytes of a connection."""
    return {
        "name": "envoy.filters.listener.http_inspector",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.filters.listener.http_inspector.v3.HttpInspector"
        },
    }


def _write_chain_tls(
    tls: TlsFiles | None, listeners: Sequence[DoorListener], folder: Path, limits: HostLimits
) -> dict[str, Any]:
    if tls is None:
        return {}
    source = find_secrets_name(tls, listeners)
    is_mutual = tls.client_ca is not None
    common: dict[str, Any] = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [
            _write_secret_source(f"{source}_{_CERTIFICATE}", folder)
        ],
    }
    if is_mutual:
        common["validation_context_sds_secret_config"] = _write_secret_source(
            f"{source}_{_CLIENT_CA}", folder
        )
    return {
        "transport_socket": {
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": f"{_TYPE}{_TLS}DownstreamTlsContext",
                "require_client_certificate": is_mutual,
                "common_tls_context": common,
            },
        },
        "transport_socket_connect_timeout": write_seconds(limits.handshake_timeout_s),
    }


def _write_secret_source(name: str, folder: Path) -> dict[str, Any]:
    return {
        "name": name,
        "sds_config": {
            "resource_api_version": "V3",
            "path_config_source": {
                "path": str(folder / f"{name}.json"),
                "watched_directory": {"path": str(folder)},
            },
        },
    }


def find_secrets_name(tls: TlsFiles, listeners: Sequence[DoorListener]) -> str:
    """The name for these certificates: that of the first door which has them."""
    return next(listener.door for listener in listeners if listener.tls == tls)


def write_secrets(name: str, tls: TlsMaterial) -> dict[str, dict[str, Any]]:
    """Writes the content of Envoy's files of TLS material. One of them has the private key.

    Args:
        name: the result of `find_secrets_name`.
        tls: the material.

    Returns:
        The content by the name of each file.
    """
    certificate = {
        "certificate_chain": _inline(tls.cert_pem),
        "private_key": _inline(tls.key_pem),
    }
    secrets: dict[str, dict[str, Any]] = {_CERTIFICATE: {"tls_certificate": certificate}}
    if tls.client_ca_pem is not None:
        context: dict[str, Any] = {"trusted_ca": _inline(tls.client_ca_pem)}
        if tls.client_uri_sans:
            # One of them is enough; Envoy refuses a handshake with none.
            context["match_typed_subject_alt_names"] = [
                {"san_type": "URI", "matcher": {"exact": uri}} for uri in tls.client_uri_sans
            ]
        secrets[_CLIENT_CA] = {"validation_context": context}
    return {
        f"{name}_{kind}.json": {
            "resources": [{"@type": f"{_TYPE}{_TLS}Secret", "name": f"{name}_{kind}", **secret}]
        }
        for kind, secret in secrets.items()
    }


def _inline(pem: bytes) -> dict[str, str]:
    return {"inline_bytes": base64.b64encode(pem).decode()}
