"""Plans the limits of one tier for one subject: each with its charge and its counter's key.

The limits come first, then the burst, at level BURST. When a request fits condition groups of the
tier, those replace the tier's own limits; each group is counted separately, under its own name. So
a request never escapes all limits of a tier because it fits a group.
"""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.model.limits import (
    Algorithm,
    Charge,
    ConditionGroup,
    Limit,
    LimitLevel,
    OutageMode,
    QuotaUnit,
    Tier,
)
from extauthz.policy.limits.calendar_windows import plan_calendar_bounds
from extauthz.policy.limits.keys import write_parts


@dataclass(frozen=True, slots=True)
class PlannedLimit:
    """One limit of a request, and its charge.

    Attributes:
        name: the tier's or custom limit's name, followed by a slash and the condition group's name
            when there is one.
        counted: what is counted separately: for a burst the level of its tier, else `level`.
    """

    level: LimitLevel
    name: str
    limit: Limit
    charge: Charge
    counted: LimitLevel


def take_instead(planned: PlannedLimit, cost: int) -> PlannedLimit:
    """The same limit at another cost. A limit in bytes stays at 0: the bytes are not known yet."""
    if planned.limit.quota_unit is QuotaUnit.BYTES:
        return planned
    was = planned.charge
    # Not `replace`, which takes more than twice as long.
    charge = Charge(
        was.key,
        was.algorithm,
        was.limit,
        was.window_us,
        cost,
        was.enforced,
        was.bounds,
        was.on_outage,
        origin=was.origin,
        roams=was.roams,
    )
    return PlannedLimit(planned.level, planned.name, planned.limit, charge, planned.counted)


class TierPlanner:
    """Plans the limits of tiers, and caches the current calendar windows.

    Args:
        on_outage: the outage mode of tiers that have none of their own.
    """

    __slots__ = ("_bounds", "_on_outage")

    def __init__(self, on_outage: OutageMode) -> None:
        self._on_outage = on_outage
        self._bounds: dict[str, tuple[int, int, int, int]] = {}
        """By `Limit.rule`."""

    def plan(
        self,
        level: LimitLevel,
        tier: Tier,
        subject: str,
        cost: int,
        now_us: int,
        *,
        name: str = "",
        fitting: tuple[ConditionGroup, ...] = (),
        origin: str = "",
        roams: bool = False,
    ) -> list[PlannedLimit]:
        """The limits of the groups that fit, or the tier's own when none does.

        Args:
            subject: the subject that is counted; the beginning of the counter's key.
            name: used instead of the tier's.
            fitting: the tier's condition groups that the request fits.
            origin, roams: as in `Charge`, when the caller chooses the subject.
        """
        name = name or tier.name
        holders: list[tuple[str, str, Tier | ConditionGroup]] = [
            (f"{name}/{group.name}", f"{subject}g{write_parts(group.name)}", group)
            for group in fitting
        ] or [(name, subject, tier)]
        planned: list[PlannedLimit] = []
        for shown, counted, holder in holders:
            ruled = [(level, limit) for limit in holder.limits]
            if holder.burst is not None:
                ruled.append((LimitLevel.BURST, holder.burst))
            seen: dict[str, int] = {}
            for at_level, limit in ruled:
                rule = limit.rule
                nth = seen[rule] = seen.get(rule, 0) + 1
                # A tier may hold a rule twice, as with a shadow limit beside the one that denies.
                key = f"{counted}|{rule}" if nth == 1 else f"{counted}|{rule}|{nth}"
                charge = Charge(
                    key,
                    limit.algorithm,
                    limit.requests,
                    limit.window_us,
                    0 if limit.quota_unit is QuotaUnit.BYTES else cost,
                    tier.stop_on_quota_reach and not limit.shadow,
                    self._bounds_of(limit, now_us),
                    tier.on_outage or self._on_outage,
                    origin=origin,
                    roams=roams,
                )
                planned.append(PlannedLimit(at_level, shown, limit, charge, level))
        return planned

    def _bounds_of(self, limit: Limit, now_us: int) -> tuple[int, ...]:
        if limit.algorithm is not Algorithm.CALENDAR:
            return ()
        assert limit.unit is not None and limit.timezone is not None
        rule = limit.rule
        bounds = self._bounds.get(rule)
        if bounds is None or not bounds[1] <= now_us < bounds[2]:
            bounds = plan_calendar_bounds(limit.unit, limit.timezone, now_us)
            self._bounds[rule] = bounds
        return bounds
