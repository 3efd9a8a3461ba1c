"""Groups denials by who was denied and why, and remembers since when.

There are `MAX_GROUPS` at most. When all are taken, those without a denial in the last hour make
room; where none does, further denials are counted in one group for each reason, which says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from extauthz.telemetry.decision_log.masking import ConsumerKey
from extauthz.telemetry.decision_log.record import LoggedDecision
from extauthz.telemetry.recent.facts import Facts

MAX_GROUPS: Final = 500
IDLE_S: Final = 3_600.0
_LOOK_S: Final = 1.0
"""How often a full table is searched for groups that may go."""


@dataclass(slots=True)
class DenialGroup:
    """Denials that are alike.

    Attributes:
        facts: of all of them; of a folded group the outcome and the reason alone.
        is_folded: whether it has denials for which there was no group of their own.
        first_s, last_s: Unix time of the first and of the last of them.
        example: one of them.
    """

    facts: Facts
    is_folded: bool
    first_s: float
    last_s: float
    count: int = 0
    example: LoggedDecision | None = None


class DenialGroups:
    """The groups of this process."""

    def __init__(self, max_groups: int = MAX_GROUPS) -> None:
        self._groups: dict[Facts, DenialGroup] = {}
        self._folded: dict[Facts, DenialGroup] = {}
        self._max_groups = max_groups
        self._looked_s = 0.0

    def add(self, facts: Facts, now_s: float) -> DenialGroup:
        """Counts a denial, and gives its group."""
        group = self._groups.get(facts)
        if group is None:
            group = self._begin(facts, now_s)
        group.count += 1
        group.last_s = now_s
        return group

    def read(self) -> Iterator[DenialGroup]:
        """All groups."""
        yield from self._groups.values()
        yield from self._folded.values()

    def _begin(self, facts: Facts, now_s: float) -> DenialGroup:
        if len(self._groups) >= self._max_groups and now_s >= self._looked_s + _LOOK_S:
            self._looked_s = now_s
            idle = [key for key, it in self._groups.items() if it.last_s < now_s - IDLE_S]
            for key in idle:
                del self._groups[key]
        if len(self._groups) < self._max_groups:
            group = self._groups[facts] = DenialGroup(facts, False, now_s, now_s)
            return group
        alike = Facts(facts.outcome, facts.reason, "", "", "", "", "", ConsumerKey(""))
        folded = self._folded.get(alike)
        if folded is None:
            folded = self._folded[alike] = DenialGroup(alike, True, now_s, now_s)
        return folded
