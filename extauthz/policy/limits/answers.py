"""Step 5, rate limits: judges the counter store's answer for a request.

The charges were planned by `extauthz.policy.limits.planning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from extauthz.errors import CounterStoreError
from extauthz.model.decision import Denial, Reason
from extauthz.model.limits import LimitLevel, LimitStatus, QuotaUnit, Taking
from extauthz.policy.limits.tier_limits import PlannedLimit

# Module constants, because reading a member of an enum takes 40 ns longer.
_BYTES: Final = QuotaUnit.BYTES


def judge(
    planned: Sequence[PlannedLimit], taking: Taking
) -> tuple[tuple[LimitStatus, ...], Denial | None]:
    """Gives every limit's status, and the denial when one has no room.

    A limit in bytes has no room when nothing is left. The store does not refuse that, as the cost
    is still 0: the other limits may have been charged then, and must be given back.

    Raises:
        CounterStoreError: the answer does not match the charges, or contradicts itself.
    """
    readings = taking.readings
    if len(readings) != len(planned):
        raise CounterStoreError(
            f"the counter store gave {len(readings)} readings for {len(planned)} charges"
        )
    is_refused_by_store = False
    refusing: PlannedLimit | None = None
    retry_after_us = 0
    statuses = []
    for asked, reading in zip(planned, readings, strict=True):
        enforced = asked.charge.enforced
        if enforced and reading.exceeded:
            is_refused_by_store = True
        if not reading.remaining and asked.limit.quota_unit is _BYTES:
            # At the reset at the latest; a sliding window cannot say when some of it is free.
            reading = replace(reading, exceeded=True, retry_after_us=reading.reset_us)
        statuses.append(
            LimitStatus(asked.level, asked.name, asked.limit, reading, enforced, asked.charge)
        )
        if enforced and reading.exceeded:
            refusing = refusing or asked
            retry_after_us = max(retry_after_us, reading.retry_after_us)
    if taking.charged is is_refused_by_store:
        raise CounterStoreError(
            "the counter store's answer contradicts its readings; is the same version of "
            "extauthz counting everywhere?"
        )
    if refusing is None:
        return tuple(statuses), None
    return tuple(statuses), Denial(
        reason=Reason.RATE_LIMITED,
        detail=_DETAILS[refusing.level],
        level=refusing.level,
        retry_after_us=retry_after_us,
        rule=refusing.name,
    )


_DETAILS: Final = {
    LimitLevel.API: "The API has reached its rate limit.",
    LimitLevel.RESOURCE: "The resource has reached its rate limit.",
    LimitLevel.SUBSCRIPTION: "The subscription has reached its rate limit.",
    LimitLevel.BURST: "Requests come too fast one after another.",
    LimitLevel.APPLICATION: "The application has reached its rate limit.",
    LimitLevel.CUSTOM: "A rate limit is reached.",
    LimitLevel.CLIENT: "This client has reached its rate limit.",
}
