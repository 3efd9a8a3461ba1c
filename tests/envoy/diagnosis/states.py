"""What an Envoy says of itself: builders that default everything but the point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from extauthz.envoy.configuration.trees import Tree
from extauthz.envoy.diagnosis.state import EXT_AUTHZ, MANAGER, EnvoyState, read_state

TYPES: Final = "type.googleapis.com/"
ADMIN: Final = f"{TYPES}envoy.admin.v3."
ROUTER: Final[Tree] = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": f"{TYPES}envoy.extensions.filters.http.router.v3.Router"},
}
SERVER_INFO: Final[Tree] = {
    "version": "abc/1.39.3/Clean/RELEASE/BoringSSL",
    "state": "LIVE",
    "hot_restart_version": "11.104",
    "uptime_current_epoch": "4s",
}


def an_ext_authz(**fields: Any) -> Tree:
    """A filter as the printed bootstrap has it."""
    return {
        "@type": f"{TYPES}{EXT_AUTHZ}",
        "grpc_service": {"envoy_grpc": {"cluster_name": "extauthz"}, "timeout": "0.200s"},
        "transport_api_version": "V3",
        "status_on_error": {"code": "ServiceUnavailable"},
        "validate_mutations": True,
        "encode_raw_headers": True,
        **fields,
    }


def a_filter(config: Tree, **fields: Any) -> Tree:
    """An entry of http_filters."""
    return {"name": "envoy.filters.http.ext_authz", "typed_config": config, **fields}


def a_listener(*filters: Tree, name: str = "ingress", **manager: Any) -> Tree:
    """A listener with one manager, whose filters end with the router."""
    config = {
        "@type": f"{TYPES}{MANAGER}",
        "stat_prefix": "in",
        "normalize_path": True,
        "merge_slashes": True,
        "use_remote_address": True,
        "strip_trailing_host_dot": True,
        "strip_any_host_port": True,
        "http_filters": [*filters, ROUTER],
        **manager,
    }
    http = {"name": "http", "typed_config": config}
    return {"name": name, "filter_chains": [{"filters": [http]}]}


def a_cluster(**fields: Any) -> Tree:
    """A cluster that speaks HTTP/2, for which Envoy's bound holds."""
    return {"name": "extauthz", "http2_protocol_options": {}, **fields}


def a_host(port: int = 9001, **health: Any) -> Tree:
    """A host as /clusters has it."""
    return {
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "health_status": {"eds_health_status": "HEALTHY", **health},
    }


def a_state(
    *listeners: Tree,
    clusters: Sequence[Tree] = (a_cluster(),),
    hosts: Sequence[Tree] = (a_host(),),
    stats: Mapping[str, int] | None = None,
    dumps: Sequence[Tree] = (),
    info: Tree | None = None,
) -> EnvoyState:
    """An Envoy with these static listeners and clusters; `hosts` are those of the first cluster."""
    dump = {
        "configs": [
            {
                "@type": f"{ADMIN}ListenersConfigDump",
                "static_listeners": [{"listener": one} for one in listeners],
            },
            {
                "@type": f"{ADMIN}ClustersConfigDump",
                "static_clusters": [{"cluster": one} for one in clusters],
            },
            *dumps,
        ]
    }
    status = [{"name": one["name"], "host_statuses": list(hosts)} for one in clusters[:1]]
    return read_state(
        {**SERVER_INFO, **(info or {})}, dump, {"cluster_statuses": status}, stats or {}
    )
