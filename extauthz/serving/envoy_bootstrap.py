"""The configuration of an Envoy that carries Python: its listeners, limits, TLS and admin.

One listener has every address, because each filter configuration would load the application a
second time. TLS material comes in files that Envoy watches (`write_secrets`), so that what it
shows has been checked before. The admin interface is a socket in a private folder.

Sources: Envoy's v3 API reference, by the names of the fields; pyvoy's `get_envoy_config`.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from pyvoy import PyvoyServer

from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import ListenAddress
from extauthz.serving.tls import TlsMaterial

STAT_PREFIX: Final = "grpc"

_TYPE: Final = "type.googleapis.com/"
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3."
_CERTIFICATE: Final = "certificate"
_CLIENT_CA: Final = "client_ca"
_MIB: Final = 1024 * 1024


def write_bootstrap(
    *,
    app: str,
    listen: Sequence[ListenAddress],
    folder: Path,
    limits: HostLimits,
    tls: TlsMaterial | None,
) -> dict[str, Any]:
    """The bootstrap, to be given to Envoy as JSON.

    Args:
        app: the ASGI application, as ``package.module:name``.
        listen: hosts are numeric addresses.
        folder: private; holds the admin socket, and the files of `write_secrets` when there is TLS.
        tls: only tells whether there is TLS, and whether it is mutual.
    """
    first, *more = [{"address": _write_address(address, limits)} for address in listen]
    chain: dict[str, Any] = {"filters": [_write_http_filter(app, limits)]}
    if tls is not None:
        chain["transport_socket"] = _write_tls(folder, is_mutual=tls.client_ca_pem is not None)
        chain["transport_socket_connect_timeout"] = _seconds(limits.handshake_timeout_s)
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
                {
                    "name": "grpc",
                    **first,
                    "additional_addresses": more,
                    # Envoy turns it on by default, and a second process would silently take
                    # half the calls.
                    "enable_reuse_port": limits.reuse_port,
                    # What was read and not yet taken. A stream's window is smaller, so that
                    # its caller waits before Envoy would have to refuse it.
                    "per_connection_buffer_limit_bytes": limits.max_receive_bytes + _MIB,
                    "filter_chains": [chain],
                }
            ]
        },
    }


def _write_address(address: ListenAddress, limits: HostLimits) -> dict[str, Any]:
    if address.path:
        return {"pipe": {"path": address.path, "mode": limits.unix_mode}}
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _write_http_filter(app: str, limits: HostLimits) -> dict[str, Any]:
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
    return http_filter


def _write_tls(folder: Path, *, is_mutual: bool) -> dict[str, Any]:
    common: dict[str, Any] = {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
        "tls_certificate_sds_secret_configs": [_write_secret_source(_CERTIFICATE, folder)],
    }
    if is_mutual:
        common["validation_context_sds_secret_config"] = _write_secret_source(_CLIENT_CA, folder)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPE}{_TLS}DownstreamTlsContext",
            "require_client_certificate": is_mutual,
            "common_tls_context": common,
        },
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


def write_secrets(tls: TlsMaterial) -> dict[str, dict[str, Any]]:
    """What Envoy reads of each file, by the file's name. One of them holds the private key."""
    certificate = {
        "certificate_chain": _inline(tls.cert_pem),
        "private_key": _inline(tls.key_pem),
    }
    secrets: dict[str, dict[str, Any]] = {_CERTIFICATE: {"tls_certificate": certificate}}
    if tls.client_ca_pem is not None:
        context = {"trusted_ca": _inline(tls.client_ca_pem)}
        secrets[_CLIENT_CA] = {"validation_context": context}
    return {
        f"{name}.json": {"resources": [{"@type": f"{_TYPE}{_TLS}Secret", "name": name, **secret}]}
        for name, secret in secrets.items()
    }


def _inline(pem: bytes) -> dict[str, str]:
    return {"inline_bytes": base64.b64encode(pem).decode()}


def _seconds(duration_s: float) -> str:
    return f"{duration_s:.3f}s"
