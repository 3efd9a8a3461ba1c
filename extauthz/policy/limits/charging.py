"""Step 5, rate limits: takes the planned charges, and gives them back when the request is refused.

`extauthz.policy.limits.planning` plans the charges, and `extauthz.policy.limits.answers` judges the
store's answer.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from extauthz.errors import BackendError
from extauthz.model.catalog import Catalog
from extauthz.model.decision import UNAVAILABLE, Denial
from extauthz.model.limits import Charge, LimitStatus, OutageMode, Taking
from extauthz.model.values import request_value
from extauthz.policy.limits.answers import judge
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.policy.limits.most_used import MostUsed
from extauthz.policy.limits.peek import judge_peek
from extauthz.policy.limits.planning import RateLimitPlanner
from extauthz.policy.limits.quota import QuotaAsk, UsedBytes, take_quota
from extauthz.policy.limits.tier_limits import PlannedLimit
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.policy.request.client_address import ADDRESS_NOT_KNOWN
from extauthz.ports import Clock, CounterStore, Deadline

_log = logging.getLogger(__name__)


@request_value(frozen=True, slots=True, kw_only=True)
class ChargeMode:
    """What is taken from the limits of a request.

    Attributes:
        takes: False takes nothing, and finds out whether there would be room.
        ask: an amount instead of the request's cost.
        used: the bytes of an answered request. Nothing else is taken then, and nothing is
            refused.
    """

    takes: bool = True
    ask: QuotaAsk | None = None
    used: UsedBytes | None = None


CHARGE: Final = ChargeMode()
"""Takes the request's cost."""
PEEK: Final = ChargeMode(takes=False)
"""Takes nothing, and finds out whether there would be room for the request's cost."""


@request_value(frozen=True, slots=True)
class Limited:
    """The result of a request's limits.

    Attributes:
        denial: None when all limits have room.
        granted: how much of the requested amount is granted; 0 when it is denied.
    """

    denial: Denial | None = None
    limits: tuple[LimitStatus, ...] = ()
    granted: int = 0


_NOT_LIMITED = Limited()


class LimitCharger:
    """Charges requests.

    Args:
        on_outage: the outage mode of tiers that have none of their own.
        most_used: is told what each taking found.
    """

    def __init__(
        self, counters: CounterStore, clock: Clock, on_outage: OutageMode, most_used: MostUsed
    ) -> None:
        self._counters = counters
        self._most_used = most_used
        self._clock = clock
        self._on_outage = on_outage
        self._planner: tuple[Catalog, RateLimitPlanner] | None = None
        self._not_given_back = RepeatedWarnings(_log, "the charge of a refused request stays")

    async def charge(
        self, catalog: Catalog, limited: LimitedRequest, mode: ChargeMode, deadline: Deadline
    ) -> Limited:
        """Takes from all limits of a request, or from none.

        Raises:
            BackendError: the store gave no answer.
            MalformedRequest: the request has more values for the limits than can be read.
        """
        planner = self._find_planner(catalog)
        if mode.used is not None:
            return await self._charge_usage(planner, limited, mode.used, deadline)
        if not limited.client_address and planner.asks_address(limited):
            return Limited(ADDRESS_NOT_KNOWN)
        ask = mode.ask
        amount = None if ask is None else max(0, ask.amount)
        planned = planner.plan_charges(limited, self._clock.now_us(), cost=amount)
        if not planned:
            return _NOT_LIMITED if amount is None else Limited(granted=amount)
        if has_passed(deadline):
            # The caller no longer waits, so the request is refused and not charged.
            return Limited(UNAVAILABLE)
        if not mode.takes:
            return await self._look(planned, amount or 0, deadline)
        if ask is None:
            taking = await self._counters.take([one.charge for one in planned], deadline=deadline)
            self._note(limited, planned, taking)
            return await self._conclude(planned, taking, 0, None, deadline)
        taken = await take_quota(self._counters, planned, ask, deadline)
        self._note(limited, taken.planned, taken.taking)
        return await self._conclude(
            taken.planned, taken.taking, taken.amount, taken.dedup_id, deadline
        )

    async def _charge_usage(
        self,
        planner: RateLimitPlanner,
        limited: LimitedRequest,
        used: UsedBytes,
        deadline: Deadline,
    ) -> Limited:
        usage = planner.plan_usage_charges(limited, self._clock.now_us(), used)
        if usage:
            taking = await self._counters.take([one.charge for one in usage], deadline=deadline)
            self._note(limited, usage, taking)
        return _NOT_LIMITED

    def _note(
        self, limited: LimitedRequest, planned: Sequence[PlannedLimit], taking: Taking
    ) -> None:
        readings = taking.readings
        if len(readings) == len(planned):  # else `judge` refuses the answer
            self._most_used.note(limited, planned, readings, taking.at_us)

    async def _look(
        self, planned: tuple[PlannedLimit, ...], amount: int, deadline: Deadline
    ) -> Limited:
        charges = [replace(one.charge, cost=0) for one in planned]
        taking = await self._counters.take(charges, deadline=deadline)
        limits, denial = judge(planned, judge_peek(planned, taking))
        return Limited(denial, limits, amount)

    async def _conclude(
        self,
        planned: tuple[PlannedLimit, ...],
        taking: Taking,
        amount: int,
        dedup_id: str | None,
        deadline: Deadline,
    ) -> Limited:
        limits, denial = judge(planned, taking)
        if taking.charged:
            if denial is None and has_passed(deadline):
                denial = UNAVAILABLE
            if denial is not None:
                # Too late, or refused by a limit in bytes, which a store does not judge.
                await self._give_back([one.charge for one in planned], taking, dedup_id)
        return Limited(denial, limits, amount)

    async def _give_back(
        self, charges: Sequence[Charge], taking: Taking, dedup_id: str | None
    ) -> None:
        """Gives back the charges of a refused request. A failure is logged, and they then stay."""
        if dedup_id is None:
            # A taking remembered under an id is found by all of its charges.
            charges = [charge for charge in charges if charge.cost]
        if not charges:
            return
        try:
            await self._counters.give_back(charges, at_us=taking.at_us, dedup_id=dedup_id)
        except BackendError as error:
            self._not_given_back.warn(error)

    def _find_planner(self, catalog: Catalog) -> RateLimitPlanner:
        if self._planner is None or self._planner[0] is not catalog:
            self._planner = (catalog, RateLimitPlanner(catalog, on_outage=self._on_outage))
        return self._planner[1]


def has_passed(deadline: Deadline) -> bool:
    """Whether the caller no longer waits for an answer."""
    return deadline.monotonic_s is not None and time.monotonic() >= deadline.monotonic_s
