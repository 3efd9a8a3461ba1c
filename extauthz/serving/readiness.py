"""Whether this replica should get traffic, and what is not as it should be.

Degraded is not dead: while the counter store is away, every replica would otherwise leave at
once, and nobody would decide at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum


class ReadyState(Enum):
    """How ready something is. The value is what ``/readyz`` says."""

    READY = "ready"
    DEGRADED = "degraded"
    """It works, with less than it should have."""
    NOT_READY = "not ready"
    """No traffic should come here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadyCheck:
    """One thing that readiness rests on. `facts` hold no secret."""

    name: str
    state: ReadyState
    facts: Mapping[str, str | int | float | bool | None] = field(default_factory=dict)


_WORST_FIRST = (ReadyState.NOT_READY, ReadyState.DEGRADED, ReadyState.READY)


def judge_readiness(checks: Sequence[ReadyCheck]) -> ReadyState:
    """The worst of all."""
    states = {check.state for check in checks}
    return next(state for state in _WORST_FIRST if state in states or state is ReadyState.READY)
