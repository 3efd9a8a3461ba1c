"""Reads the answers of Envoy's admin interface into plain values.

The configuration stays a tree, with the names of Envoy's API in snake case. It may hold secrets, so
findings quote only the names of listeners, filters and clusters, and addresses.
Source: envoy/admin/v3/config_dump_shared.proto, clusters.proto, and docs of the admin interface.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from extauthz.envoy.configuration.trees import Tree, find_value, list_mappings, read_type

EXT_AUTHZ: Final = "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz"
MANAGER: Final = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """An HTTP filter of a chain, with its configuration, also when that came by ECDS."""

    name: str
    config: Tree
    is_disabled: bool = False

    @property
    def type_name(self) -> str:
        """The full name of its message: ``envoy.extensions.filters.http.router.v3.Router``."""
        return read_type(self.config)

    @property
    def short_name(self) -> str:
        """The usual short name: ``router``."""
        return _SHORT.sub(r"\1", self.type_name) if _SHORT.fullmatch(self.type_name) else self.name


_SHORT: Final = re.compile(r"envoy\.extensions\.filters\.http\.(\w+)\..*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Manager:
    """An HTTP connection manager. Its configuration includes the routes, also those of RDS."""

    listener: str
    config: Tree
    filters: tuple[Filter, ...]

    @property
    def stat_prefix(self) -> str:
        return clean_stat(str(self.config.get("stat_prefix", "")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A host of a cluster. `problems` are the reasons why Envoy sends nothing to it."""

    address: str
    problems: tuple[str, ...] = ()
    connect_failures: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A listener, cluster or the like that Envoy received and rejected."""

    kind: str
    name: str
    details: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvoyState:
    """Everything that a diagnosis uses.

    Attributes:
        version: like (1, 39, 3); empty when it is not known.
        state: ``LIVE``, or another state of the server.
        hosts: by cluster; a cluster that Envoy does not report is absent.
        stats: counters and gauges by name; those that are disabled in Envoy are absent.
    """

    version: tuple[int, ...] = ()
    state: str = "LIVE"
    uptime: str = ""
    managers: tuple[Manager, ...] = ()
    clusters: Mapping[str, Tree] = field(default_factory=dict)
    warming: frozenset[str] = frozenset()
    rejected: tuple[Rejected, ...] = ()
    hosts: Mapping[str, tuple[Host, ...]] = field(default_factory=dict)
    stats: Mapping[str, int] = field(default_factory=dict)


def clean_stat(name: str) -> str:
    """A name as in Envoy's statistics, which replace ``:`` by ``_``."""
    return name.replace("://", "_").replace(":/", "_").replace(":", "_")


def read_state(
    server_info: Tree, config_dump: Tree, clusters: Tree, stats: Mapping[str, int]
) -> EnvoyState:
    """Reads the state of an Envoy.

    Args:
        server_info, config_dump, clusters: the JSON of these paths of the admin interface.
        stats: counters and gauges by name.
    """
    dumps = list_mappings(config_dump.get("configs"))
    by_kind: dict[str, Tree] = {read_type(one).rpartition(".")[2]: one for one in dumps}
    listeners = by_kind.get("ListenersConfigDump", {})
    found = by_kind.get("ClustersConfigDump", {})
    warming = [_named(one) for one in list_mappings(found.get("dynamic_warming_clusters"))]
    active = [
        _named(one)
        for key in ("static_clusters", "dynamic_active_clusters")
        for one in list_mappings(found.get(key))
    ]
    version = re.search(r"/(\d+)\.(\d+)\.(\d+)", str(server_info.get("version")))
    return EnvoyState(
        version=() if version is None else tuple(map(int, version.groups())),
        state=str(server_info.get("state", "")),
        uptime=str(server_info.get("uptime_current_epoch", "")),
        managers=tuple(_list_managers(listeners, by_kind)),
        clusters={str(one.get("name")): one for one in (*warming, *active)},
        warming=frozenset(str(one.get("name")) for one in warming if one not in active),
        rejected=tuple(_list_rejected(by_kind)),
        hosts={
            str(one.get("name")): tuple(map(_read_host, list_mappings(one.get("host_statuses"))))
            for one in list_mappings(clusters.get("cluster_statuses"))
        },
        stats=stats,
    )


def _named(entry: Tree) -> Tree:
    """The cluster in an entry of the configuration dump."""
    cluster = entry.get("cluster")
    return cluster if isinstance(cluster, dict) else {}


def _list_managers(listeners: Tree, by_kind: Mapping[str, Tree]) -> Iterator[Manager]:
    routes = _routes_by_name(by_kind.get("RoutesConfigDump", {}))
    discovered: dict[str, Any] = {
        str(find_value(one, "ecds_filter", "name")): find_value(one, "ecds_filter", "typed_config")
        for one in list_mappings(by_kind.get("EcdsConfigDump", {}).get("ecds_filters"))
    }
    active = [one.get("listener") for one in list_mappings(listeners.get("static_listeners"))]
    active += [
        find_value(one, "active_state", "listener")
        for one in list_mappings(listeners.get("dynamic_listeners"))
    ]
    for listener in list_mappings(active):
        chains = list_mappings(listener.get("filter_chains"))
        chains += list_mappings([listener.get("default_filter_chain")])
        for number, chain in enumerate(chains):
            for one in list_mappings(chain.get("filters")):
                config = one.get("typed_config")
                if not isinstance(config, dict) or read_type(config) != MANAGER:
                    continue
                name = str(listener.get("name") or write_address(listener.get("address")))
                if len(chains) > 1:
                    name += f" (filter chain {chain.get('name') or number})"
                wanted = find_value(config, "rds", "route_config_name")
                if wanted in routes and "route_config" not in config:
                    config = {**config, "route_config": routes[str(wanted)]}
                yield Manager(
                    listener=name,
                    config=config,
                    filters=tuple(_list_filters(config, discovered)),
                )


def _list_filters(config: Tree, discovered: Mapping[str, Any]) -> Iterator[Filter]:
    for one in list_mappings(config.get("http_filters")):
        name = str(one.get("name", ""))
        typed = one.get("typed_config") or discovered.get(name)
        yield Filter(
            name=name,
            config=typed if isinstance(typed, dict) else {},
            is_disabled=one.get("disabled") is True,
        )


def _routes_by_name(dump: Tree) -> dict[str, Tree]:
    found = [
        one.get("route_config")
        for key in ("static_route_configs", "dynamic_route_configs")
        for one in list_mappings(dump.get(key))
    ]
    return {str(one.get("name")): one for one in list_mappings(found)}


_REJECTABLE: Final = (
    ("ListenersConfigDump", "dynamic_listeners", "listener", ("name",)),
    ("ClustersConfigDump", "dynamic_active_clusters", "cluster", ("cluster", "name")),
    ("ClustersConfigDump", "dynamic_warming_clusters", "cluster", ("cluster", "name")),
    ("RoutesConfigDump", "dynamic_route_configs", "route configuration", ("route_config", "name")),
)


def _list_rejected(by_kind: Mapping[str, Tree]) -> Iterator[Rejected]:
    for dump, key, kind, name in _REJECTABLE:
        for one in list_mappings(by_kind.get(dump, {}).get(key)):
            if isinstance(one.get("error_state"), dict):
                yield Rejected(
                    kind=kind,
                    # If no version was ever accepted, only the rejected one has the name.
                    name=str(
                        find_value(one, *name)
                        or find_value(one, "error_state", "failed_configuration", name[-1])
                        or ""
                    ),
                    details=str(find_value(one, "error_state", "details") or ""),
                )


def _read_host(status: Tree) -> Host:
    health = status.get("health_status")
    problems = [
        words
        for key, words in _HEALTH_PROBLEMS.items()
        if isinstance(health, dict) and health.get(key) is True
    ]
    announced = find_value(health, "eds_health_status")
    if announced not in (None, "HEALTHY", "UNKNOWN", "DEGRADED"):
        problems.append(f"announced as {announced}")
    counted = {one.get("name"): one.get("value") for one in list_mappings(status.get("stats"))}
    return Host(
        address=write_address(status.get("address")),
        problems=tuple(problems),
        connect_failures=read_count(counted.get("cx_connect_fail")),
    )


_HEALTH_PROBLEMS: Final = {
    "failed_active_health_check": "its health check fails",
    "failed_outlier_check": "ejected as an outlier",
    "failed_active_degraded_check": "degraded by its health check",
    "pending_dynamic_removal": "being removed",
    "pending_active_hc": "not health checked yet",
    "excluded_via_immediate_hc_fail": "said itself that it is failing",
}


def read_count(value: object) -> int:
    """Reads a number, which JSON has as text for 64 bits; 0 for anything else."""
    return int(value) if isinstance(value, int | str) and str(value).isdecimal() else 0


def write_address(address: Any) -> str:
    """Writes an address as ``host:port`` or ``unix:/path``; empty for other kinds of addresses."""
    path = find_value(address, "pipe", "path")
    if path is not None:
        return f"unix:{path}"
    where = find_value(address, "socket_address")
    if not isinstance(where, dict):
        return ""
    host = str(where.get("address", ""))
    return f"{f'[{host}]' if ':' in host else host}:{where.get('port_value', '')}"
