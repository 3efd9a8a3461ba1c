"""Counts how full the limits of decided requests were, by level and tier.

So it is seen which tiers come near their limits before anybody is refused. The number of series is
bounded, as tiers come from a catalog that may always change: further ones are counted as `FOLDED`.
"""

from __future__ import annotations

from typing import Final

from extauthz.model.decision import Decision
from extauthz.model.limits import LimitLevel
from extauthz.model.request import ApiRequest
from extauthz.telemetry import names
from extauthz.telemetry.decision_counts import FOLDED, escape_label

MAX_TIERS: Final = 1_000
"""Pairs of level and tier that have series of their own."""
NEAR_PARTS: Final = 5
"""A limit is near its end when at most one of so many parts is left: when 80 % is used, as with
Envoy's rate limit service."""

_STATES: Final = ("within", "near", "over")
_HEAD: Final = (
    f"# HELP {names.LIMIT_CHECKS_SHOWN} Limits of decided requests, by how full they were.\n"
    f"# TYPE {names.LIMIT_CHECKS_SHOWN} counter\n"
)


class LimitCheckCounts:
    """A `DecisionObserver` that counts the limits of decisions by level, tier and state."""

    def __init__(self, max_tiers: int = MAX_TIERS) -> None:
        self._max_tiers = max_tiers
        self._counts: dict[tuple[LimitLevel, str], list[int]] = {}
        """By state, in the order of `_STATES`."""

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        known = self._counts
        for status in decision.limits:
            key = (status.level, status.name)
            counts = known[key] if key in known else self._begin(*key)
            reading = status.reading
            if reading.exceeded:
                counts[2] += 1
            elif reading.remaining * NEAR_PARTS <= status.limit.requests:
                counts[1] += 1
            else:
                counts[0] += 1

    def _begin(self, level: LimitLevel, tier: str) -> list[int]:
        if len(self._counts) >= self._max_tiers:
            tier = FOLDED
        return self._counts.setdefault((level, tier), [0] * len(_STATES))

    def write(self) -> bytes:
        """Writes the counts since the start, in Prometheus's text format."""
        lines = [_HEAD]
        for (level, tier), counts in self._counts.items():
            shown = f'{names.LEVEL}="{level.value}",{names.TIER}="{escape_label(tier)}"'
            lines += [
                f'{names.LIMIT_CHECKS_SHOWN}{{{shown},{names.STATE}="{state}"}} {count}\n'
                for state, count in zip(_STATES, counts, strict=True)
            ]
        return "".join(lines).encode("utf-8", "replace")
