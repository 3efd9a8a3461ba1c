"""Makes the whole diagnosis of a running Envoy: what was examined, and what was found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from extauthz.envoy.diagnosis.answering import find_unanswered
from extauthz.envoy.diagnosis.asking import (
    count_requests,
    find_rejected,
    find_unasked,
    list_askers,
    read_counts,
)
from extauthz.envoy.diagnosis.clusters import Asked, Figures, list_asked
from extauthz.envoy.diagnosis.configured import find_unsafe
from extauthz.envoy.diagnosis.findings import Finding, Weight
from extauthz.envoy.diagnosis.ports import Port
from extauthz.envoy.diagnosis.service import ServiceState, find_in_service, say_service
from extauthz.envoy.diagnosis.state import EnvoyState, Manager, Rejected

_OLDEST: Final = (1, 36)


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was examined, as sentences, and the findings, unsorted."""

    looked_at: tuple[str, ...]
    findings: tuple[Finding, ...]


def diagnose(
    state: EnvoyState,
    listener: str = "",
    ports: Mapping[str, Port] = MappingProxyType({}),
    service: ServiceState | None = None,
) -> Diagnosis:
    """Diagnoses an Envoy.

    Args:
        state: what its admin interface says.
        listener: the name of the only listener to examine; all when empty.
        ports: the ports that somebody connected to, by address.
        service: what extauthz itself says; None when it was not asked.
    """
    managers = [
        one for one in state.managers if not listener or one.listener.partition(" (")[0] == listener
    ]
    asked = list_asked(managers, state.version)
    findings = [
        *_find_envoy(state),
        *find_rejected(_choose_rejected(state, listener, asked)),
        *find_unasked(state, managers),
        *find_unanswered(state, asked, ports),
        *find_unsafe(state, managers),
    ]
    if service is not None:
        findings += find_in_service(service, _count_answers(state, managers))
    if not any(one.weight is Weight.ERROR for one in findings):
        findings += _find_unexplained(state, managers)
    return Diagnosis(
        looked_at=(
            *_say_managers(state, managers),
            *_say_clusters(state, asked, ports),
            *(() if service is None else (say_service(service),)),
        ),
        findings=tuple(findings),
    )


def list_addresses(state: EnvoyState, listener: str = "") -> tuple[str, ...]:
    """Lists the hosts that are asked, as ``host:port`` or ``unix:/path``, without duplicates."""
    asked = list_asked(_choose(state, listener), state.version)
    hosts = (host.address for one in asked for host in state.hosts.get(one.cluster, ()))
    return tuple(dict.fromkeys(address for address in hosts if address))


def _choose(state: EnvoyState, listener: str) -> list[Manager]:
    return [
        one for one in state.managers if not listener or one.listener.partition(" (")[0] == listener
    ]


def _count_answers(state: EnvoyState, managers: Sequence[Manager]) -> int:
    counts = [read_counts(state, one, asker) for one in managers for asker in list_askers(one)]
    return sum((one.ok or 0) + (one.denied or 0) for one in counts)


def _choose_rejected(
    state: EnvoyState, listener: str, asked: Sequence[Asked]
) -> tuple[Rejected, ...]:
    """All rejected parts; for one listener, only those of it and of the clusters that it asks."""
    clusters = {one.cluster for one in asked}
    return tuple(
        one
        for one in state.rejected
        if not listener
        or (one.kind == "listener" and one.name == listener)
        or (one.kind == "cluster" and one.name in clusters)
    )


def _find_envoy(state: EnvoyState) -> Iterator[Finding]:
    if state.version and state.version[:2] < _OLDEST:
        yield Finding(
            weight=Weight.WARNING,
            code="envoy_too_old",
            seen=f"this is Envoy {'.'.join(map(str, state.version))}",
            why="extauthz is tested with Envoy 1.36 and newer",
            todo="use a newer Envoy",
        )
    if state.state not in ("LIVE", ""):
        yield Finding(
            weight=Weight.WARNING,
            code="envoy_not_live",
            seen=f"Envoy says that it is {state.state}",
            why="its listeners do not take requests yet, or take no more",
            todo="wait, and look at the clusters that it waits for; DRAINING follows a stop "
            "or /healthcheck/fail",
        )


def _find_unexplained(state: EnvoyState, managers: Sequence[Manager]) -> Iterator[Finding]:
    for manager in managers:
        for asker in list_askers(manager):
            counts = read_counts(state, manager, asker)
            if counts.error:
                yield Finding(
                    weight=Weight.WARNING,
                    code="unanswered",
                    seen=f"listener {manager.listener!r}: {counts.error} checks were not answered, "
                    f"{(counts.ok or 0) + (counts.denied or 0)} were",
                    why="they got status_on_error, or passed with failure_mode_allow; "
                    "nothing in the configuration explains it, so extauthz itself could "
                    "not decide, or did not run",
                    todo="look at its errors in /metrics, at its log, and at /readyz",
                )


def _say_managers(state: EnvoyState, managers: Sequence[Manager]) -> Iterator[str]:
    for manager in managers:
        chain = ", ".join(one.short_name for one in manager.filters) or "none"
        came = count_requests(state, manager)
        words = f"listener {manager.listener!r}: filters {chain}"
        words += "; requests are not counted" if came is None else f"; {came} requests"
        for asker in list_askers(manager):
            counts = read_counts(state, manager, asker)
            if counts.asked is not None:
                words += (
                    f", {counts.ok} allowed, {counts.denied} denied, {counts.error} not answered"
                )
        yield words


def _say_clusters(
    state: EnvoyState, asked: Sequence[Asked], ports: Mapping[str, Port]
) -> Iterator[str]:
    for name in dict.fromkeys(one.cluster for one in asked if one.cluster in state.clusters):
        figures = Figures(name=name, cluster=state.clusters[name], state=state)
        healthy = sum(not one.problems for one in figures.hosts)
        yield (
            f"cluster {name!r}: {'TLS' if figures.speaks_tls else 'plain text'}, {healthy} of "
            f"{len(figures.hosts)} hosts healthy, {figures.count('upstream_cx_active')} "
            f"connections open, {figures.answered} answers"
        )
        for host in figures.hosts:
            port = ports.get(host.address)
            if port is not None:
                health = "" if port.health is None else f", grpc.health.v1: {port.health.value}"
                yield f"{host.address}, from here: {port.protocol.value}{health}"
