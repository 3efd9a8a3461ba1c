"""Findings of a diagnosis, the most serious first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum


class Weight(Enum):
    """How serious a finding is. The value is the printed word."""

    ERROR = "error"
    """Requests are not decided on, or pass without a decision."""
    WARNING = "warning"
    """Some requests are treated unexpectedly, or will be."""
    NOTE = "note"
    """Useful to know; it need not be a mistake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is wrong, or may be.

    Attributes:
        code: a stable name for programs, like ``not_in_chain``.
        seen: what was seen and where, with figures.
        why: the consequence.
        todo: what to do about it.
    """

    weight: Weight
    code: str
    seen: str
    why: str
    todo: str


_ORDER = tuple(Weight)


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Sorts findings by weight, without duplicates; those of one weight keep their order."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda one: _ORDER.index(one.weight)))
