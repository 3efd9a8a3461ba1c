"""Grants amounts of a tier's limits for a set of attributes, without an API or an application.

These are the plain rate limits of a mesh (Istio's memquota and redisquota), which count requests
by some of their attributes. A tier of the catalog says the limits; each set of attributes is
counted separately, in the same store as everything else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from extauthz.model.catalog import UNLIMITED_TIER, Catalog
from extauthz.model.decision import Denial
from extauthz.model.limits import LimitLevel, LimitStatus, OutageMode
from extauthz.policy.limits.answers import judge
from extauthz.policy.limits.keys import write_parts
from extauthz.policy.limits.quota import QuotaAsk, take_quota
from extauthz.policy.limits.tier_limits import TierPlanner
from extauthz.ports import NO_DEADLINE, Clock, CounterStore, Deadline


@dataclass(frozen=True, slots=True)
class TierGrant:
    """How much of an amount a tier granted, and the status of its limits.

    `denial` is the reason when nothing was granted.
    """

    amount: int
    limits: tuple[LimitStatus, ...] = ()
    denial: Denial | None = None


class TierQuotas:
    """Grants amounts of tiers. `catalog` returns the current snapshot."""

    def __init__(
        self,
        *,
        catalog: Callable[[], Catalog],
        counters: CounterStore,
        clock: Clock,
        on_outage: OutageMode = OutageMode.LOCAL,
    ) -> None:
        self._catalog = catalog
        self._counters = counters
        self._clock = clock
        self._planner = TierPlanner(on_outage)

    async def grant(
        self,
        tier_name: str,
        quota: str,
        attributes: Mapping[str, str],
        ask: QuotaAsk,
        *,
        deadline: Deadline = NO_DEADLINE,
    ) -> TierGrant | None:
        """Takes an amount from a tier's limits; None when there is no such tier.

        Limits in bytes are not charged, and a tier's condition groups are ignored, as there is no
        request that could fit them.

        Args:
            quota: the quota's name; two quotas of one tier are counted separately.
            attributes: each different set of names and values is counted separately.

        Raises:
            CounterStoreError: as `CounterStore.take` does.
        """
        tier = self._catalog().tiers.get(tier_name)
        if tier is None:
            return TierGrant(max(0, ask.amount)) if tier_name == UNLIMITED_TIER else None
        subject = f"{{q{write_parts(quota, _digest(attributes))}}}"
        amount = max(0, ask.amount)
        now_us = self._clock.now_us()
        planned = tuple(
            self._planner.plan(LimitLevel.CUSTOM, tier, subject, amount, now_us, name=quota)
        )
        if not planned:
            return TierGrant(amount)
        taken = await take_quota(self._counters, planned, ask, deadline)
        limits, denial = judge(taken.planned, taken.taking)
        if denial is not None and taken.taking.charged:
            charges = [one.charge for one in taken.planned]
            await self._counters.give_back(
                charges, at_us=taken.taking.at_us, dedup_id=taken.dedup_id
            )
        return TierGrant(0 if denial else taken.amount, limits, denial)


def _digest(attributes: Mapping[str, str]) -> str:
    """The key of a set of attributes. It is a hash, as a credential may be among them."""
    named = [part for item in sorted(attributes.items()) for part in item]
    return hashlib.sha256(write_parts(*named).encode("utf-8", "surrogatepass")).hexdigest()[:32]
