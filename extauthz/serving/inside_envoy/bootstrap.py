"""The configuration of an Envoy that carries Python: its listeners, limits, TLS and admin.

Every filter configuration would load the application once more, with a thread of its own, so one
listener leads to it, the shared one. It has the addresses of all doors when they show the same
certificates. When they do not, it has the addresses of doors without TLS; each other door gets a
listener in front, which ends its TLS and hands on its bytes through a private socket.

Which door a call came to is told by the address that it came to: Envoy writes it into a header
(`ADDRESS_HEADER`), and drops whatever a caller wrote there. TLS material comes in files that Envoy watches (`write_secrets`), so that what it
shows has been checked before. The admin interface is a socket in a private folder.

How calls are taken on it is `extauthz.serving.inside_envoy.http`'s to say.

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
"""Name of the listener behind which the application is."""

_TYPE: Final = "type.googleapis.com/"
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3."
_CERTIFICATE: Final = "certificate"
_CLIENT_CA: Final = "client_ca"
_TURN_BYTES: Final = 32 * 1024
_NO_BOUND: Final = 2**32 - 1


def write_bootstrap(
    *, app: str, listeners: Sequence[DoorListener], folder: Path, limits: HostLimits
) -> dict[str, Any]:
    """The bootstrap, to be given to Envoy as JSON.

    Args:
        app: the ASGI application, as ``package.module:name``.
        listeners: hosts are numeric addresses.
        folder: private; holds the admin socket, those that lead from a door's own listener to the
            shared one, and the files of `write_secrets`.
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
        # Whoever connects and says nothing is let go of; with TLS, its handshake sees to that.
        shared |= {
            "listener_filters": [_write_first_bytes()],
            "listener_filters_timeout": write_seconds(limits.handshake_timeout_s),
        }
    # What is read of a connection before the others, and Python's answers, have their turn. With
    # more, a flood is read for so long that few calls are decided.
    shared["per_connection_buffer_limit_bytes"] = _TURN_BYTES
    return {
        "node": {"id": "extauthz", "cluster": "extauthz"},  # secrets are not read without
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
    """The certificates of the listener that all doors share: those of all, or none."""
    first = listeners[0].tls
    return first if all(listener.tls == first for listener in listeners) else None


def list_shared_addresses(
    listener: DoorListener, shared_tls: TlsFiles | None, folder: Path
) -> tuple[ListenAddress, ...]:
    """Where the door is reached on the shared listener."""
    if listener.tls == shared_tls:
        return listener.addresses
    return (ListenAddress(path=str(_way_in(listener.door, folder))),)


def _way_in(door: str, folder: Path) -> Path:
    return folder / f"{door}.sock"


def _write_front(
    listener: DoorListener, listeners: Sequence[DoorListener], folder: Path, limits: HostLimits
) -> dict[str, Any]:
    """A door's own listener: ends its TLS, and hands its bytes to the shared listener."""
    chain = {
        "filters": [
            {
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": f"{_TYPE}envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": listener.door,
                    "cluster": listener.door,
                    "idle_timeout": "0s",  # as the shared listener judges
                },
            }
        ],
        **_write_chain_tls(listener.tls, listeners, folder, limits),
    }
    written = _write_listener(listener.door, listener.addresses, chain, limits)
    # The connection behind it is counted.
    return {**written, "ignore_global_conn_limit": True}


def _write_way_in(door: str, folder: Path) -> dict[str, Any]:
    endpoint = {"address": {"pipe": {"path": str(_way_in(door, folder))}}}
    return {
        "name": door,
        "type": "STATIC",
        "connect_timeout": "5s",
        # As many as the listeners let in; the default of 1024 is for servers elsewhere.
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
    """Waits until a connection has said how it speaks."""
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
    """The name of these certificates: that of the first door that shows them."""
    return next(listener.door for listener in listeners if listener.tls == tls)


def write_secrets(name: str, tls: TlsMaterial) -> dict[str, dict[str, Any]]:
    """What Envoy reads of each file, by the file's name. One of them holds the private key.

    Args:
        name: what `find_secrets_name` gave.
    """
    certificate = {
        "certificate_chain": _inline(tls.cert_pem),
        "private_key": _inline(tls.key_pem),
    }
    secrets: dict[str, dict[str, Any]] = {_CERTIFICATE: {"tls_certificate": certificate}}
    if tls.client_ca_pem is not None:
        context: dict[str, Any] = {"trusted_ca": _inline(tls.client_ca_pem)}
        if tls.client_uri_sans:
            # Any of them; Envoy ends a handshake with none.
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
