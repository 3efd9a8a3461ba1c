"""The configuration of an Envoy that carries Python: its listeners, limits, TLS and admin.

Every filter configuration would load the application once more, with a thread of its own, so one
listener leads to it, the shared one. It has the addresses of all doors when they show the same
certificates. When they do not, it has the addresses of doors without TLS; each other door gets a
listener in front, which ends its TLS and hands on its bytes through a private socket.

Which door a call came to is told by the address that it came to: Envoy writes it into a header
(`ADDRESS_HEADER`), and drops whatever a caller wrote there. TLS material comes in files that Envoy watches (`write_secrets`), so that what it
shows has been checked before. The admin interface is a socket in a private folder.

Sources: Envoy's v3 API reference, by the names of the fields; pyvoy's `get_envoy_config`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pyvoy import PyvoyServer

from extauthz.serving.asgi_doors import ADDRESS_HEADER
from extauthz.serving.door import DoorListener
from extauthz.serving.health import HEALTH_SERVICE
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import ListenAddress
from extauthz.serving.tls import TlsFiles, TlsMaterial

STAT_PREFIX: Final = "grpc"
SHARED: Final = "shared"
"""Name of the listener behind which the application is."""

_TYPE: Final = "type.googleapis.com/"
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3."
_BOUND: Final = "envoy.filters.http.adaptive_concurrency"
_QUICK: Final = "0.025s"
_CERTIFICATE: Final = "certificate"
_CLIENT_CA: Final = "client_ca"
_MIB: Final = 1024 * 1024
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
    chain = {
        "filters": [_write_http_filter(app, limits, names_address=len(listeners) > 1)],
        **_write_chain_tls(shared_tls, listeners, folder, limits),
    }
    shared = _write_listener(SHARED, addresses, chain, limits)
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


def _write_http_filter(app: str, limits: HostLimits, *, names_address: bool) -> dict[str, Any]:
    config = PyvoyServer(app, lifespan=True, loop="uvloop").get_envoy_config()
    (chain,) = config["static_resources"]["listeners"][0]["filter_chains"]
    http_filter: dict[str, Any] = chain["filters"][-1]
    http_filter["typed_config"] |= {
        "codec_type": "HTTP2",
        "stat_prefix": STAT_PREFIX,
        "server_header_transformation": "PASS_THROUGH",
        "request_headers_timeout": _seconds(limits.handshake_timeout_s),
        "stream_idle_timeout": "0s",  # access logs and health watches are silent for hours
        "common_http_protocol_options": {
            "max_connection_duration": _seconds(limits.max_connection_age_s),
        },
        "http2_protocol_options": {
            "max_concurrent_streams": limits.max_concurrent_streams,
            "initial_stream_window_size": _MIB,
            "initial_connection_window_size": 4 * _MIB,
            "connection_keepalive": {
                "interval": _seconds(limits.keepalive_time_s),
                "timeout": _seconds(limits.keepalive_timeout_s),
            },
        },
    }
    http_filter["typed_config"]["http_filters"].insert(0, _write_in_flight_bound(limits))
    (virtual_host,) = http_filter["typed_config"]["route_config"]["virtual_hosts"]
    virtual_host["routes"] = [_write_unbounded_route()]
    # What was read and not yet taken. A stream's window is smaller, so that its caller waits
    # before Envoy would have to refuse it.
    virtual_host["request_body_buffer_limit"] = limits.max_receive_bytes + _MIB
    if names_address:
        http_filter["typed_config"]["early_header_mutation_extensions"] = [_write_address_header()]
    return http_filter


def _write_in_flight_bound(limits: HostLimits) -> dict[str, Any]:
    """Refuses calls before Python spends time on them.

    The bound lies between `HostLimits.busy_in_flight` and `max_in_flight`, by how long the
    calls of the last tenth of a second took: the more than `_QUICK`, the lower it is.
    """
    return {
        "name": _BOUND,
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.filters.http.adaptive_concurrency.v3."
            "AdaptiveConcurrency",
            "gradient_controller_config": {
                "concurrency_limit_params": {
                    "max_concurrency_limit": limits.max_in_flight,
                    "concurrency_update_interval": "0.1s",
                },
                "min_rtt_calc_params": {
                    # Not measured, as Envoy would refuse all but a few calls meanwhile.
                    "fixed_value": _QUICK,
                    "min_concurrency": limits.busy_in_flight,
                },
            },
            "concurrency_limit_exceeded_status": {"code": "ServiceUnavailable"},
        },
    }


def _write_unbounded_route() -> dict[str, Any]:
    """Health is asked for most when there is too much to do, and its watches last for hours.

    Other methods that stream for long would need a route like this, too.
    """
    return {
        "match": {"prefix": f"/{HEALTH_SERVICE}/"},
        "non_forwarding_action": {},
        "typed_per_filter_config": {
            _BOUND: {"@type": f"{_TYPE}envoy.config.route.v3.FilterConfig", "disabled": True}
        },
    }


def _write_address_header() -> dict[str, Any]:
    header = {"key": ADDRESS_HEADER, "value": "%DOWNSTREAM_LOCAL_ADDRESS%"}
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": f"{_TYPE}envoy.extensions.http.early_header_mutation.header_mutation.v3."
            "HeaderMutation",
            "mutations": [{"remove": ADDRESS_HEADER}, {"append": {"header": header}}],
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
        "transport_socket_connect_timeout": _seconds(limits.handshake_timeout_s),
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


def _seconds(duration_s: float) -> str:
    return f"{duration_s:.3f}s"
