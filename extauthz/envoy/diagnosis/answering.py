"""Finds out whether checks reach extauthz and are answered, from clusters and their statistics."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from extauthz.envoy.diagnosis.clusters import (
    ENVOYS_BOUND,
    Asked,
    Figures,
    read_bounds,
    speaks_http2,
)
from extauthz.envoy.diagnosis.findings import Finding, Weight
from extauthz.envoy.diagnosis.ports import Port, find_wrong_ports
from extauthz.envoy.diagnosis.state import EnvoyState

SHORT_MS: Final = 20.0
LONG_MS: Final = 2_000.0


def find_unanswered(
    state: EnvoyState, asked: Sequence[Asked], ports: Mapping[str, Port]
) -> Iterator[Finding]:
    """Finds reasons why checks are not answered, or were not answered earlier.

    Args:
        state: the state of the whole Envoy.
        asked: the services that are asked.
        ports: the ports that somebody connected to, by address.
    """
    for name in dict.fromkeys(one.cluster for one in asked):
        of_cluster = [one for one in asked if one.cluster == name]
        yield from _find_in_cluster(state, name, of_cluster, ports)


def _find_in_cluster(
    state: EnvoyState, name: str, asked: Sequence[Asked], ports: Mapping[str, Port]
) -> Iterator[Finding]:
    if not name:
        yield _asked_outside(asked[0])
        return
    cluster = state.clusters.get(name)
    if cluster is None:
        yield _missing(state, name, asked[0])
        return
    figures = Figures(name=name, cluster=cluster, state=state)
    yield from _find_protocol(figures)
    if name in state.warming:
        yield _warming(figures)
        return
    yield from _find_hosts(figures)
    seen_there = list(find_wrong_ports(figures, ports))
    yield from seen_there
    if not seen_there:
        yield from _find_connections(figures)
    if not seen_there or any(figures.count(f"ssl.{one}") for one in _VERIFICATION):
        yield from _find_tls(figures)
    yield from _find_timeouts(figures, asked)
    yield from _find_breakers(figures)


# The cluster itself


def _asked_outside(asked: Asked) -> Finding:
    return Finding(
        weight=Weight.WARNING,
        code="google_grpc",
        seen=f"listener {asked.listener!r}: extauthz is asked with google_grpc",
        why="Envoy's cluster statistics do not cover that client, so this command cannot "
        "check its hosts, its TLS and its time-outs",
        todo="use envoy_grpc with a cluster, as `extauthz envoy-config` prints it",
    )


def _missing(state: EnvoyState, name: str, asked: Asked) -> Finding:
    close = difflib.get_close_matches(name, state.clusters, n=1)
    hint = f", did you mean {close[0]!r}?" if close else ""
    return Finding(
        weight=Weight.ERROR,
        code="cluster_missing",
        seen=f"listener {asked.listener!r} asks the cluster {name!r}, which Envoy does not have "
        f"(it has {len(state.clusters)}{hint})",
        why="no call can be made: every request gets status_on_error, or passes with "
        "failure_mode_allow",
        todo="write the name of the cluster that has extauthz's address into "
        "grpc_service.envoy_grpc.cluster_name, or add the cluster",
    )


def _warming(figures: Figures) -> Finding:
    return Finding(
        weight=Weight.ERROR,
        code="cluster_warming",
        seen=f"cluster {figures.name!r} is still warming",
        why="Envoy waits for its first hosts or secrets, and does not use it until then",
        todo="look at the control plane (EDS, SDS), or at the DNS name of its hosts",
    )


def _find_protocol(figures: Figures) -> Iterator[Finding]:
    if speaks_http2(figures.cluster):
        return
    errors = figures.count("upstream_cx_protocol_error")
    yield Finding(
        weight=Weight.ERROR,
        code="cluster_without_http2",
        seen=f"cluster {figures.name!r} has no HTTP/2 (no http2_protocol_options): "
        f"{figures.count('upstream_cx_http1_total')} connections with HTTP/1.1, {errors} protocol "
        f"errors, {figures.answered} answers",
        why="gRPC is HTTP/2: the port does not understand what Envoy sends, and every check fails",
        todo="add explicit_http_config.http2_protocol_options to the cluster's "
        "HttpProtocolOptions, as `extauthz envoy-config --filter` prints it; in Kubernetes name "
        "the Service's port grpc, or set its appProtocol",
    )


# Its hosts


def _find_hosts(figures: Figures) -> Iterator[Finding]:
    hosts = figures.hosts
    if not hosts:
        yield Finding(
            weight=Weight.ERROR,
            code="no_hosts",
            seen=f"cluster {figures.name!r} has no host "
            f"({figures.count('upstream_cx_none_healthy')} calls found none, "
            f"{figures.count('update_failure')} failed lookups)",
            why="no call can be made: every request gets status_on_error, or passes with "
            "failure_mode_allow",
            todo="look at the name in its endpoints (DNS), or at the Service's endpoints: are "
            "the pods ready, and does the selector match them?",
        )
        return
    sick = [one for one in hosts if one.problems]
    if sick:
        named = "; ".join(f"{one.address}: {', '.join(one.problems)}" for one in sick[:3])
        yield Finding(
            weight=Weight.WARNING if len(sick) < len(hosts) or figures.answered else Weight.ERROR,
            code="unhealthy_hosts",
            seen=f"cluster {figures.name!r}: {len(sick)} of {len(hosts)} hosts are not healthy "
            f"({named})",
            why="Envoy does not use them; when too few are left, it either uses all hosts "
            f"({figures.count('lb_healthy_panic')} times so far) or fails the call",
            todo="ask these hosts for their health (/readyz of the admin listener, "
            "grpc.health.v1), and make sure that the cluster's health check is a gRPC one",
        )


def _find_connections(figures: Figures) -> Iterator[Finding]:
    failures = figures.count("upstream_cx_connect_fail")
    if not failures or any(figures.count(f"ssl.{one}") for one in _HANDSHAKE_ERRORS):
        return
    is_up = figures.count("upstream_cx_active") > 0
    if is_up:
        why = "a host answers now, and did not for a while"
    elif figures.speaks_tls and not figures.shows_certificate:
        why = (
            "nobody listens there, or the service asks for a client certificate "
            "(server.tls.client_ca is set) and this cluster has none to show"
        )
    else:
        why = "nobody listens there, or a firewall or network policy is in between"
    todo = (
        "compare the address with `listen.grpc` of the settings (127.0.0.1 is this "
        "container's own), and make sure that extauthz runs"
    )
    if figures.speaks_tls:
        todo += (
            "; give the cluster a certificate if one is asked for (`extauthz envoy-config --cert`)"
        )
    failed = ", ".join(one.address for one in figures.hosts if one.connect_failures)
    yield Finding(
        weight=Weight.NOTE if is_up else Weight.ERROR,
        code="cannot_connect",
        seen=f"cluster {figures.name!r}: {failures} connections to {failed or 'its hosts'} failed "
        f"({figures.count('upstream_cx_connect_timeout')} of them by time-out); "
        f"{figures.count('upstream_cx_active')} are open",
        why=why,
        todo=todo,
    )


# TLS


def _find_tls(figures: Figures) -> Iterator[Finding]:
    failed = {
        words: figures.count(f"ssl.{name}")
        for name, words in _VERIFICATION.items()
        if figures.count(f"ssl.{name}")
    }
    if failed:
        yield Finding(
            weight=Weight.WARNING if figures.answered else Weight.ERROR,
            code="certificate_not_trusted",
            seen=f"cluster {figures.name!r}: Envoy refused the service's certificate "
            + ", ".join(f"{count} times, because {words}" for words, count in failed.items()),
            why="no connection is made: every request gets status_on_error, or passes with "
            "failure_mode_allow",
            todo="set trusted_ca to the authority that signed the certificate in "
            "server.tls.cert, and sni and match_typed_subject_alt_names to a name that "
            "is in it",
        )
        return
    refused = figures.count("ssl.connection_error")
    if refused:
        yield Finding(
            weight=Weight.WARNING if figures.answered else Weight.ERROR,
            code="tls_failed",
            seen=f"cluster {figures.name!r} speaks TLS: {refused} handshakes failed, "
            f"{figures.count('ssl.handshake')} were made",
            why="the port does not speak TLS (server.tls is not set), or both have no "
            "version or cipher in common",
            todo="set server.tls in the settings, or remove transport_socket from the cluster",
        )
        return
    lost = _count_lost(figures)
    if not lost or figures.answered or not speaks_http2(figures.cluster):
        return
    if not figures.speaks_tls:
        yield Finding(
            weight=Weight.ERROR,
            code="connections_closed",
            seen=f"cluster {figures.name!r} speaks plain HTTP/2: {lost} connections were closed by "
            "the host without an answer",
            why="the port requires TLS (server.tls is set), or does not speak HTTP/2",
            todo="give the cluster a transport_socket, as `extauthz envoy-config --ca FILE "
            "--server-name NAME` prints it, or use the port of listen.grpc",
        )
    elif not figures.shows_certificate:
        yield Finding(
            weight=Weight.ERROR,
            code="certificate_wanted",
            seen=f"cluster {figures.name!r} speaks TLS and has no certificate of its own: {lost} "
            "connections were closed by the host without an answer",
            why="the service asks for a client certificate (server.tls.client_ca is set)",
            todo="give Envoy one (tls_certificates; `extauthz envoy-config --cert FILE --key "
            "FILE`), or remove client_ca from the settings",
        )


_VERIFICATION: Final[Mapping[str, str]] = {
    "fail_verify_error": "no authority that Envoy trusts signed it",
    "fail_verify_san": "it does not have the expected name",
    "fail_verify_no_cert": "there was none",
    "fail_verify_cert_hash": "its hash is not the expected one",
}


_HANDSHAKE_ERRORS: Final = ("connection_error", *_VERIFICATION)


def _count_lost(figures: Figures) -> int:
    """The number of connections that the host closed, or on which it did not speak HTTP/2."""
    return max(
        figures.count("upstream_cx_destroy_remote") - figures.count("upstream_cx_connect_fail"),
        figures.count("upstream_cx_protocol_error"),
        figures.count("upstream_cx_destroy_remote_with_active_rq"),
    )


# Time-outs


def _find_timeouts(figures: Figures, asked: Sequence[Asked]) -> Iterator[Finding]:
    timed_out = figures.count("upstream_rq_timeout")
    shortest = min((one.timeout_ms for one in asked if one.timeout_ms is not None), default=None)
    if timed_out:
        yield Finding(
            weight=Weight.WARNING if figures.answered > 10 * timed_out else Weight.ERROR,
            code="timed_out",
            seen=f"cluster {figures.name!r}: {timed_out} calls were not answered in time "
            f"({_say_ms(shortest)}); {figures.answered} were",
            why="Envoy gives up, and clients get status_on_error, or pass with failure_mode_allow",
            todo="set grpc_service.timeout to 200 ms or more; if it is that long, find out "
            "what extauthz waits for: /readyz, Redis, an issuer, too little CPU",
        )
    for one in asked:
        is_long = one.timeout_ms is None or one.timeout_ms > LONG_MS
        is_short = one.timeout_ms is not None and one.timeout_ms < SHORT_MS
        if is_long or (is_short and not timed_out):
            yield Finding(
                weight=Weight.WARNING,
                code="timeout_too_long" if is_long else "timeout_too_short",
                seen=f"listener {one.listener!r} waits {_say_ms(one.timeout_ms)} for an answer "
                f"from cluster {one.cluster!r}",
                why="when extauthz hangs, all requests wait as long, and pile up in Envoy"
                if is_long
                else (
                    "a short pause of the machine, or one call to Redis or an issuer, takes longer"
                ),
                todo="set grpc_service.timeout to about 200 ms",
            )


def _say_ms(timeout_ms: float | None) -> str:
    return "without limit" if timeout_ms is None else f"{timeout_ms:g} ms"


# Circuit breakers


def _find_breakers(figures: Figures) -> Iterator[Finding]:
    bounds = read_bounds(figures.cluster)
    for code, statistics, bound in _BREAKERS:
        refused = {one: figures.count(one) for one in statistics}
        if any(refused.values()):
            counted = ", ".join(f"{name} {count}" for name, count in refused.items() if count)
            yield Finding(
                weight=Weight.ERROR,
                code=code,
                seen=f"cluster {figures.name!r}: its circuit breaker refused calls ({counted}); "
                f"{_say_bounds(bounds)}",
                why="requests beyond the limit are not checked: they get status_on_error, or "
                "pass with failure_mode_allow",
                todo=f"raise {bound} in circuit_breakers.thresholds (`extauthz envoy-config` "
                "prints 10000), and find out why answers are slow",
            )
            return
    low = {key: value for key, value in bounds.items() if value < ENVOYS_BOUND}
    if low:
        yield Finding(
            weight=Weight.WARNING,
            code="breaker_too_low",
            seen=f"cluster {figures.name!r}: {_say_bounds(low)}",
            why="Envoy allows 1024 by default; with fewer checks at once, a short pause of "
            "extauthz is enough to fail requests",
            todo="raise it in circuit_breakers.thresholds; `extauthz envoy-config` prints 10000",
        )


_BREAKERS: Final = (
    # Up to Envoy 1.37 a full max_requests increments the second one; since 1.38 it has its own.
    (
        "breaker_full",
        ("upstream_rq_active_overflow", "upstream_rq_pending_overflow"),
        "max_requests and max_pending_requests",
    ),
    ("breaker_full", ("upstream_cx_overflow",), "max_connections"),
)


def _say_bounds(bounds: Mapping[str, int]) -> str:
    return ", ".join(f"{key} is {value}" for key, value in bounds.items())
