"""Takes an amount from a request's limits at once, as Istio Mixer's quota asks for it.

A proxy behind Mixer asks in advance for requests to come, and may accept a part of the amount
(best effort). What is granted was charged; what is not granted was not. The counters are those of
single requests, so both ways of counting share one limit.

A repeated call is charged once: the deduplication id of every step is made of the call's id and
the step's amount, and a store answers a repeated id as before, refusals included.
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
"""Steps of one call. After the first, each asks for what remained, which others may take first."""


@request_value(frozen=True, slots=True, kw_only=True)
class QuotaAsk:
    """A request for an amount.

    Attributes:
        best_effort: a part of the amount may be granted.
        dedup_id: identifies the call and its arguments; None when it cannot be repeated.
    """

    amount: int
    best_effort: bool = False
    dedup_id: str | None = None


@request_value(frozen=True, slots=True, kw_only=True)
class UsedBytes:
    """Bytes of an answered request's content, without headers; negative when not known."""

    request_bytes: int
    response_bytes: int


@request_value(frozen=True, slots=True)
class Grant:
    """How much was granted, and the decision; 0 when that is a denial."""

    decision: Decision
    amount: int


@request_value(frozen=True, slots=True)
class QuotaTaking:
    """The last step of taking an amount: what was planned for it, and the store's answer.

    Attributes:
        amount: what the step asked for; granted when it was charged.
        dedup_id: the step's deduplication id at the store.
    """

    amount: int
    planned: tuple[PlannedLimit, ...]
    taking: Taking
    dedup_id: str | None


async def take_quota(
    counters: CounterStore, planned: tuple[PlannedLimit, ...], ask: QuotaAsk, deadline: Deadline
) -> QuotaTaking:
    """Takes the planned charges, or with best effort as much of them as there is room for.

    Args:
        planned: the limits, with the amount as their cost.

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
