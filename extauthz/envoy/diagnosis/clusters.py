"""Lists the services that filters and routes ask, and the state and statistics of clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from extauthz.envoy.configuration.trees import Tree, find_value, list_mappings, read_type
from extauthz.envoy.diagnosis.asking import list_askers, list_route_settings
from extauthz.envoy.diagnosis.state import EnvoyState, Host, Manager, clean_stat

ENVOYS_BOUND: Final = 1024
"""Envoy's default for all thresholds of a circuit breaker except retries."""
_UPSTREAM: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_DEFAULT_MS: Final = 200.0
"""Envoy's default timeout for a gRPC check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A service that filters or routes of a listener ask.

    Attributes:
        cluster: its cluster; empty when Envoy uses Google's gRPC client, which has none.
        timeout_ms: how long Envoy waits for an answer; None for no limit.
    """

    listener: str
    cluster: str
    timeout_ms: float | None


def list_asked(managers: Sequence[Manager], version: tuple[int, ...]) -> tuple[Asked, ...]:
    """Lists the services that these managers ask, without duplicates.

    Args:
        managers: the connection managers.
        version: that of Envoy, which determines the meaning of a timeout of 0.
    """
    found: dict[Asked, None] = {}
    for manager in managers:
        services = [one.config.get("grpc_service") for one in list_askers(manager)]
        services += [
            find_value(one, "check_settings", "grpc_service")
            for one in (list_route_settings(manager) if services else ())
        ]
        for service in list_mappings(services):
            name = find_value(service, "envoy_grpc", "cluster_name")
            asked = Asked(
                listener=manager.listener,
                cluster=str(name or ""),
                timeout_ms=_read_timeout(service.get("timeout"), version),
            )
            found[asked] = None
    return tuple(found)


def read_ms(duration: object) -> float | None:
    """Reads a protobuf duration in JSON (``0.200s``) as milliseconds; None for anything else."""
    text = str(duration)
    try:
        return float(text.removesuffix("s")) * 1000 if text.endswith("s") else None
    except ValueError:
        return None


def _read_timeout(duration: object, version: tuple[int, ...]) -> float | None:
    timeout_ms = read_ms(duration)
    if timeout_ms is None:
        return _DEFAULT_MS
    # Since 1.38, 0 means no timeout; before, the call failed at once.
    return None if timeout_ms == 0 and version >= (1, 38) else timeout_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A cluster, with its hosts and statistics."""

    name: str
    cluster: Tree
    state: EnvoyState

    def count(self, statistic: str) -> int:
        """A counter or gauge of the cluster; 0 when Envoy does not have it."""
        return self.state.stats.get(f"cluster.{self.stat_name}.{statistic}", 0)

    @property
    def stat_name(self) -> str:
        return clean_stat(str(self.cluster.get("alt_stat_name") or self.name))

    @property
    def hosts(self) -> tuple[Host, ...]:
        return self.state.hosts.get(self.name, ())

    @property
    def answered(self) -> int:
        """The number of calls that were answered: every gRPC answer has the HTTP status 200."""
        return self.count("upstream_rq_200")

    @property
    def speaks_tls(self) -> bool:
        sockets = [self.cluster.get("transport_socket")]
        sockets += [
            one.get("transport_socket")
            for one in list_mappings(self.cluster.get("transport_socket_matches"))
        ]
        return any(read_type(find_value(one, "typed_config")) == _TLS for one in sockets)

    @property
    def shows_certificate(self) -> bool:
        """Whether Envoy is configured with a client certificate for this cluster."""
        context = find_value(self.cluster, "transport_socket", "typed_config", "common_tls_context")
        return any(
            bool(find_value(context, key))
            for key in (
                "tls_certificates",
                "tls_certificate_sds_secret_configs",
                "tls_certificate_provider_instance",
                "custom_tls_certificate_selector",
            )
        )


def speaks_http2(cluster: Tree) -> bool:
    """Whether Envoy uses HTTP/2 for the cluster, always or by ALPN."""
    if "http2_protocol_options" in cluster or cluster.get("protocol_selection") == (
        "USE_DOWNSTREAM_PROTOCOL"
    ):
        return True
    options = cluster.get("typed_extension_protocol_options")
    for one in options.values() if isinstance(options, dict) else ():
        if read_type(one) == _UPSTREAM:
            return "auto_config" in one or (
                find_value(one, "explicit_http_config", "http2_protocol_options") is not None
            )
    return False


def read_bounds(cluster: Tree) -> dict[str, int]:
    """The circuit breaker's bounds on requests at the default priority, which checks have."""
    found: dict[str, Any] = {}
    for one in list_mappings(find_value(cluster, "circuit_breakers", "thresholds")):
        if one.get("priority", "DEFAULT") == "DEFAULT":
            found = one
    return {
        key: value if isinstance(value := found.get(key, ENVOYS_BOUND), int) else ENVOYS_BOUND
        for key in ("max_requests", "max_pending_requests")
    }
