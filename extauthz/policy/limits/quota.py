"""Takes an amount from a request's limits at once, as Istio Mixer asks for it.

A proxy behind Mixer asks ahead for the requests to come, and may be content with a part of what
it asks for (best effort). Whatever is granted was charged; what is not granted was not. The
counters are those of single requests, so that both ways of asking share one limit.

A repeated call is charged once: every step of it is named by the call's id and the step's own
amount, and a store answers a repeated name as before, refusals included.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from extauthz.model.decision import Decision
from extauthz.model.limits import QuotaUnit, Taking
from extauthz.model.values import request_value
from extauthz.policy.limits.tier_limits import PlannedLimit, take_instead
from extauthz.ports import CounterStore, Deadline

_MOST_STEPS: Final = 4
"""Each but the first asks for what the one before said was left; others may have been quicker."""


@request_value(frozen=True, slots=True, kw_only=True)
class QuotaAsk:
    """An amount that is asked for.

    Attributes:
        best_effort: a part of it is better than nothing.
        dedup_id: names the call and all that it asks for; None when it cannot be repeated.
    """

    amount: int
    best_effort: bool = False
    dedup_id: str | None = None


@request_value(frozen=True, slots=True, kw_only=True)
class UsedBytes:
    """Content of an answered request, without headers; what is negative is not known."""

    request_bytes: int
    response_bytes: int


@request_value(frozen=True, slots=True)
class Grant:
    """How much was granted, and the decision behind it; nothing where that is a denial."""

    decision: Decision
    amount: int


@request_value(frozen=True, slots=True)
class QuotaTaking:
    """The last step of taking an amount: what was planned for it, and the store's answer.

    Attributes:
        amount: what the step asked for; granted when it was charged.
        dedup_id: what the store knows the step by.
    """

    amount: int
    planned: tuple[PlannedLimit, ...]
    taking: Taking
    dedup_id: str | None


async def take_quota(
    counters: CounterStore, planned: tuple[PlannedLimit, ...], ask: QuotaAsk, deadline: Deadline
) -> QuotaTaking:
    """Takes what `planned` says, or with best effort as much of it as there is room for.

    planned: at the cost that is asked for.

    Raises:
        CounterStoreError: as `CounterStore.take` does.
    """
    amount, steps = ask.amount, 0
    while True:
        dedup_id = None if ask.dedup_id is None else f"{ask.dedup_id}#{amount}"
        charges = [one.charge for one in planned]
        taking = await counters.take(charges, dedup_id=dedup_id, deadline=deadline)
        steps += 1
        left = 0 if taking.charged else _find_room(planned, taking)
        if not ask.best_effort or not 0 < left < amount or steps == _MOST_STEPS:
            return QuotaTaking(amount, planned, taking, dedup_id)
        amount = left
        planned = tuple(take_instead(one, amount) for one in planned)


def _find_room(planned: Sequence[PlannedLimit], taking: Taking) -> int:
    """The most that every limit that can refuse had room for."""
    return min(
        (
            reading.remaining
            for one, reading in zip(planned, taking.readings, strict=True)
            if one.charge.enforced and one.limit.quota_unit is QuotaUnit.REQUESTS
        ),
        default=0,
    )


async def take_used_bytes(
    counters: CounterStore, planned: Sequence[PlannedLimit], deadline: Deadline
) -> None:
    """Charges what `RateLimitPlanner.plan_usage_charges` planned; raises as `take_quota` does."""
    if planned:
        await counters.take([one.charge for one in planned], deadline=deadline)
