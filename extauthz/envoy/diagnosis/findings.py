"""What a diagnosis comes to: findings, the weightiest first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Weight(Enum):
    """How much a finding matters. The value is what is printed."""

    ERROR = "error"
    """Requests are not decided on, or pass undecided."""
    WARNING = "warning"
    """Some requests are, or will be, treated otherwise than one would expect."""
    NOTE = "note"
    """Good to know; nothing need be wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        code: stable, for programs: ``not_in_chain``.
        seen: what was seen and where, with figures.
        why: what follows from it.
        todo: what to do about it.
    """

    weight: Weight
    code: str
    seen: str
    why: str
    todo: str


_ORDER = tuple(Weight)


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each once, by weight; those of one weight stay in their order."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda one: _ORDER.index(one.weight)))
