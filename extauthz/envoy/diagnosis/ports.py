"""Compares Envoy's clusters with the protocols that were seen on their hosts' ports."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from extauthz.envoy.diagnosis.clusters import Figures
from extauthz.envoy.diagnosis.findings import Finding, Weight


class Protocol(Enum):
    """The protocol of a port. The value is its description in findings."""

    NOBODY = "nobody answers"
    UNKNOWN = "it speaks neither HTTP/2 nor TLS"
    HTTP1 = "it speaks HTTP/1"
    HTTP2 = "it speaks HTTP/2 without TLS"
    TLS = "it speaks TLS"
    MUTUAL_TLS = "it speaks TLS and asks for a client certificate"


class Health(Enum):
    """The status of envoy.service.auth.v3.Authorization in grpc.health.v1."""

    SERVING = "serving"
    NOT_SERVING = "not serving"
    ABSENT = "not there"


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """What was seen on a port; `health` is None when it could not be asked."""

    protocol: Protocol
    health: Health | None = None


_IS_TLS: Final = frozenset({Protocol.TLS, Protocol.MUTUAL_TLS})


def find_wrong_ports(figures: Figures, ports: Mapping[str, Port]) -> Iterator[Finding]:
    """Finds the differences between a cluster's configuration and its hosts' ports."""
    for host in figures.hosts:
        port = ports.get(host.address)
        found = None if port is None else _judge(figures, port)
        if port is None or found is None:
            continue
        code, weight, why, todo = found
        health = "" if port.health is None else f", grpc.health.v1: {port.health.value}"
        yield Finding(
            weight=weight,
            code=code,
            seen=f"cluster {figures.name!r} speaks {'TLS' if figures.speaks_tls else 'plain text'} "
            f"with {host.address}, and from here {port.protocol.value}{health}; "
            f"{figures.count('upstream_cx_connect_fail')} connections of Envoy's failed, "
            f"{figures.answered} calls were answered",
            why=why,
            todo=todo,
        )


def _judge(figures: Figures, port: Port) -> tuple[str, Weight, str, str] | None:
    """The code, weight, reason and advice of a finding; None when port and cluster agree."""
    match port.protocol:
        case Protocol.NOBODY:
            # On Envoy's own machine the address may lead to another server.
            if figures.count("upstream_cx_active"):
                return None
            is_sure = figures.count("upstream_cx_connect_fail") > 0
            return (
                "nobody_listens",
                Weight.ERROR if is_sure else Weight.WARNING,
                "nobody listens there, or a firewall or network policy is in between",
                "compare the address with `listen.grpc` of the settings (127.0.0.1 is "
                "this container's own), and make sure that extauthz runs",
            )
        case Protocol.HTTP1 | Protocol.UNKNOWN:
            return (
                "not_grpc",
                Weight.ERROR,
                "this is not the port of `listen.grpc`; it may be the admin listener, or an "
                "upstream",
                "write the address of `listen.grpc` into the cluster",
            )
        case _ if port.protocol in _IS_TLS and not figures.speaks_tls:
            return (
                "tls_wanted",
                Weight.ERROR,
                "server.tls is set, and Envoy does not speak TLS: every check fails",
                "give the cluster a transport_socket, as `extauthz envoy-config --ca FILE "
                "--server-name NAME` prints it",
            )
        case Protocol.HTTP2 if figures.speaks_tls:
            return (
                "tls_not_spoken",
                Weight.ERROR,
                "server.tls is not set, and Envoy speaks TLS: every check fails",
                ("set server.tls in the settings, or remove transport_socket from the cluster"),
            )
        case Protocol.MUTUAL_TLS if not figures.shows_certificate:
            return (
                "certificate_wanted",
                Weight.ERROR,
                "server.tls.client_ca is set, and the cluster has no certificate to show",
                "give Envoy one (`extauthz envoy-config --cert FILE --key FILE`), or "
                "remove client_ca from the settings",
            )
    match port.health:
        case Health.NOT_SERVING:
            return (
                "not_serving",
                Weight.ERROR,
                "extauthz has no catalog yet, or is stopping",
                "its log and /readyz of its admin listener say why",
            )
        case Health.ABSENT:
            return (
                "not_extauthz",
                Weight.ERROR,
                "a gRPC server answers there whose health service does not know "
                "envoy.service.auth.v3.Authorization",
                "write the address of `listen.grpc` into the cluster (Mixer's door has another)",
            )
        case Health.SERVING | None:
            return None
