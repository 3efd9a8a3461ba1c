"""What filters and routes ask, and what Envoy knows and counts of the clusters behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from extauthz.envoy.configuration.trees import Tree, find_value, list_mappings, read_type
from extauthz.envoy.diagnosis.asking import list_askers, list_route_settings
from extauthz.envoy.diagnosis.state import EnvoyState, Host, Manager, clean_stat

ENVOYS_BOUND: Final = 1024
"""Envoy's default for each threshold of a circuit breaker but retries."""
_UPSTREAM: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
_TLS: Final = "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"
_DEFAULT_MS: Final = 200.0
"""What Envoy waits where nothing is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A service that filters or routes of a listener ask, and how long they wait for it.

    Attributes:
        cluster: empty where Envoy asks with Google's client, outside of its clusters.
        timeout_ms: None where it waits for ever.
    """

    listener: str
    cluster: str
    timeout_ms: float | None


def list_asked(managers: Sequence[Manager], version: tuple[int, ...]) -> tuple[Asked, ...]:
    """Each once."""
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
    """A protobuf duration as JSON has it, ``0.200s``; None for what is none."""
    text = str(duration)
    try:
        return float(text.removesuffix("s")) * 1000 if text.endswith("s") else None
    except ValueError:
        return None


def _read_timeout(duration: object, version: tuple[int, ...]) -> float | None:
    timeout_ms = read_ms(duration)
    if timeout_ms is None:
        return _DEFAULT_MS
    # From 1.38 on 0 means to wait for ever; before, to give up at once.
    return None if timeout_ms == 0 and version >= (1, 38) else timeout_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """A cluster, with what Envoy counts of it."""

    name: str
    cluster: Tree
    state: EnvoyState

    def count(self, statistic: str) -> int:
        """A counter or gauge of the cluster; 0 where Envoy keeps none."""
        return self.state.stats.get(f"cluster.{self.stat_name}.{statistic}", 0)

    @property
    def stat_name(self) -> str:
        return clean_stat(str(self.cluster.get("alt_stat_name") or self.name))

    @property
    def hosts(self) -> tuple[Host, ...]:
        return self.state.hosts.get(self.name, ())

    @property
    def answered(self) -> int:
        """Calls that got an answer: a gRPC answer has the status 200."""
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
        """Whether Envoy has a certificate of its own to show."""
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
    """Whether Envoy speaks HTTP/2 with the cluster, or may by ALPN."""
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
    """Those of the default priority, which is that of checks."""
    found: dict[str, Any] = {}
    for one in list_mappings(find_value(cluster, "circuit_breakers", "thresholds")):
        if one.get("priority", "DEFAULT") == "DEFAULT":
            found = one
    return {
        key: value if isinstance(value := found.get(key, ENVOYS_BOUND), int) else ENVOYS_BOUND
        for key in ("max_requests", "max_pending_requests")
    }
