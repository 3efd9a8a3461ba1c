"""Judges whether this replica should get traffic.

A degraded replica stays ready: while the counter store is away, all replicas would otherwise leave
at once, and no decision would be made at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class ReadyState(Enum):
    """How ready something is. The value is what ``/readyz`` says."""

    READY = "ready"
    DEGRADED = "degraded"
    """It works, but not with everything that it needs."""
    NOT_READY = "not ready"
    """It should get no traffic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyCheck:
    """One check of readiness. `facts` hold no secret."""

    name: str
    state: ReadyState
    facts: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


def write_check(check: ReadyCheck) -> dict[str, Any]:
    """The check as values that JSON can hold; see `read_check`."""
    return {"name": check.name, "state": check.state.value, "facts": dict(check.facts)}


def read_check(written: Mapping[str, Any]) -> ReadyCheck:
    """What `write_check` was given."""
    return ReadyCheck(
        name=written["name"], state=ReadyState(written["state"]), facts=written["facts"]
    )


def write_readiness(checks: Sequence[ReadyCheck]) -> dict[str, Any]:
    """What ``/readyz`` says: the worst state, and each check with its facts."""
    return {
        "status": judge_readiness(checks).value,
        "checks": {check.name: {"status": check.state.value, **check.facts} for check in checks},
    }


_WORST_FIRST = (ReadyState.NOT_READY, ReadyState.DEGRADED, ReadyState.READY)


def find_worst(checks: Sequence[ReadyCheck]) -> ReadyCheck:
    """The first of the checks that are in the worst state; there must be one at least."""
    return min(checks, key=lambda check: _WORST_FIRST.index(check.state))


def judge_readiness(checks: Sequence[ReadyCheck]) -> ReadyState:
    """The worst state of all checks."""
    states = {check.state for check in checks}
    return next(state for state in _WORST_FIRST if state in states or state is ReadyState.READY)
