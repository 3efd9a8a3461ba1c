"""Compares what extauthz says on its admin listener with Envoy's statistics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from extauthz.envoy.configuration.trees import Tree, find_value
from extauthz.envoy.diagnosis.findings import Finding, Weight

_SAMPLE: Final = re.compile(r"^(extauthz_\w+)(?:\{.*\})? (\d[\d.]*(?:e[+-]?\d+)?)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceState:
    """What a replica, or its supervisor, says.

    Attributes:
        state: that of ``/readyz``: ready, degraded or not ready.
        unready: the names of checks that are not ready.
        metrics: sums of the ``extauthz_*`` samples over all their labels.
    """

    state: str
    unready: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


def read_service(readyz: Tree, metrics: str) -> ServiceState:
    """Reads the state from the JSON of ``/readyz`` and the text of ``/metrics``."""
    sums: dict[str, float] = {}
    for name, value in _SAMPLE.findall(metrics):
        sums[name] = sums.get(name, 0.0) + float(value)
    checks = readyz.get("checks")
    statuses = {
        name: find_value(one, "status")
        for name, one in (checks.items() if isinstance(checks, dict) else ())
    }
    return ServiceState(
        state=str(readyz.get("status", "")),
        unready=tuple(f"{name}: {one}" for name, one in statuses.items() if one != "ready"),
        metrics=sums,
    )


def say_service(service: ServiceState) -> str:
    """Describes what was examined."""
    decided = service.metrics.get("extauthz_decisions_total", 0)
    shed = service.metrics.get("extauthz_calls_shed_total", 0)
    return f"extauthz: {service.state}, {decided:.0f} decisions, {shed:.0f} calls shed"


def find_in_service(service: ServiceState, answered: int) -> Iterator[Finding]:
    """Finds reasons why the service does not decide as expected.

    Args:
        service: what it says.
        answered: the number of answers that Envoy counted.
    """
    if service.state != "ready":
        yield Finding(
            weight=Weight.WARNING if service.state == "degraded" else Weight.ERROR,
            code="service_not_ready",
            seen=f"extauthz says that it is {service.state} ({', '.join(service.unready)})",
            why="when it is degraded, it decides with an old catalog or without Redis; when "
            "it is not ready, it refuses all calls",
            todo="its log says what is wrong; docs/reference/metrics.md has each check",
        )
    shed = service.metrics.get("extauthz_calls_shed_total", 0)
    if shed:
        yield Finding(
            weight=Weight.WARNING,
            code="calls_shed",
            seen=(f"extauthz refused {shed:.0f} calls because of load (extauthz_calls_shed_total)"),
            why="Envoy answered these requests with status_on_error, or let them pass with "
            "failure_mode_allow",
            todo="run more replicas or workers; see docs/reference/serving.md on overload",
        )
    if answered and not service.metrics.get("extauthz_decisions_total"):
        yield Finding(
            weight=Weight.WARNING,
            code="another_answers",
            seen=f"Envoy received {answered} decisions, but this extauthz has made none",
            why="another replica or another authorizer answers Envoy, or this one was "
            "restarted since",
            todo="compare the cluster's hosts with `listen.grpc` of this extauthz; ask every "
            "replica's admin listener",
        )
