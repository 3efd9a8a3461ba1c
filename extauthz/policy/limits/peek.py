"""Judges a peek: what taking would have answered, from readings taken at cost 0."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from extauthz.model.limits import Taking
from extauthz.policy.limits.tier_limits import PlannedLimit


def judge_peek(planned: Sequence[PlannedLimit], taking: Taking) -> Taking:
    """Gives the answer that taking `planned` would have had, from the answer at cost 0."""
    readings = tuple(
        replace(reading, exceeded=True, retry_after_us=reading.reset_us)
        if reading.remaining < one.charge.cost
        else reading
        for one, reading in zip(planned, taking.readings, strict=True)
    )
    refused = any(
        reading.exceeded and one.charge.enforced
        for one, reading in zip(planned, readings, strict=True)
    )
    return Taking(not refused, readings)
