"""Charges the bytes of an answered request to the limits that its decision looked at.

A decision notes each limit in bytes that it has read, in the metadata that it leaves with the proxy:
the counter's key, and what a store needs to know of the limit. The proxy's report of the finished
request brings the notes back, to whichever replica it reaches. So the counters are those of the
decision, also when the catalog has changed since, or when they depend on header fields or claims.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final
from zoneinfo import ZoneInfo

from extauthz.errors import MalformedRequest
from extauthz.model.limits import (
    Algorithm,
    CalendarUnit,
    Charge,
    Limit,
    LimitStatus,
    OutageMode,
    QuotaUnit,
)
from extauthz.policy.limits.calendar_windows import plan_calendar_bounds
from extauthz.policy.limits.planning import MAX_USAGE_BYTES
from extauthz.policy.limits.quota import UsedBytes
from extauthz.ports import Clock, CounterStore

MAX_NOTES: Final = 32
"""Notes of one request that are followed."""

_BYTES: Final = QuotaUnit.BYTES
_MAX: Final = 2**53
_NO_NOTE: Final = (
    ValueError, TypeError, LookupError, OSError, RecursionError,
    AssertionError,  # a calendar window without its unit has no rule
)  # fmt: skip
_WRONG: Final = "the entry has a limit in bytes that is none"


def list_byte_charges(limits: Sequence[LimitStatus]) -> list[str]:
    """The notes of the limits in bytes that a decision has read."""
    return [
        _write_note(status, status.charge)
        for status in limits
        if status.limit.quota_unit is _BYTES and status.charge is not None
    ]


def _write_note(status: LimitStatus, charge: Charge) -> str:
    limit = status.limit
    return json.dumps(
        [
            charge.key,
            charge.algorithm.value,
            charge.limit,
            charge.window_us,
            "" if limit.unit is None else limit.unit.value,
            "" if limit.timezone is None else limit.timezone.key,
            charge.on_outage.value,
            charge.origin,
            charge.roams,
        ],
        separators=(",", ":"),
    )


def read_byte_charge(note: str, size: int, now_us: int) -> Charge:
    """The charge of so many bytes to a noted limit; it is never refused.

    Raises:
        MalformedRequest: it is no such note.
    """
    try:
        key, algorithm, number, window_us, unit, timezone, on_outage, origin, roams = json.loads(
            note
        )
        limit = Limit(
            algorithm=Algorithm(algorithm),
            requests=number,
            window_us=window_us,
            unit=CalendarUnit(unit) if unit else None,
            timezone=ZoneInfo(timezone) if timezone else None,
            quota_unit=_BYTES,
        )
        is_good = (
            # A key belongs to one rule, and the rule says that bytes are counted.
            isinstance(key, str)
            and f"|{limit.rule}" in key
            and all(type(each) is int and 0 <= each <= _MAX for each in (number, window_us))
            # A calendar window has no length of its own.
            and (window_us > 0 or limit.algorithm is Algorithm.CALENDAR)
            and isinstance(origin, str)
            and isinstance(roams, bool)
        )
        outage = OutageMode(on_outage)
        bounds: tuple[int, ...] = ()
        if limit.unit is not None and limit.timezone is not None:
            bounds = plan_calendar_bounds(limit.unit, limit.timezone, now_us)
    except _NO_NOTE as exc:
        raise MalformedRequest(_WRONG) from exc
    if not is_good:
        raise MalformedRequest(_WRONG)
    return Charge(
        key,
        limit.algorithm,
        limit.requests,
        limit.window_us,
        size,
        enforced=False,
        bounds=bounds,
        on_outage=outage,
        origin=origin,
        roams=roams,
    )


class ByteCharger:
    """Charges what finished requests have used."""

    def __init__(self, counters: CounterStore, clock: Clock) -> None:
        self._counters = counters
        self._clock = clock

    async def charge(self, notes: Sequence[str], used: UsedBytes, decision_id: str) -> None:
        """Charges the bytes to every noted limit, once for each decision.

        Args:
            notes: of `list_byte_charges`.
            used: the bytes.
            decision_id: the decision's.

        Raises:
            MalformedRequest: there is no such note, or there are too many.
            BackendError: the store gave no answer.
        """
        size = min(max(0, used.request_bytes) + max(0, used.response_bytes), MAX_USAGE_BYTES)
        if not size:
            return
        if len(notes) > MAX_NOTES or not decision_id:
            raise MalformedRequest("the entry has too many limits in bytes, or no decision")
        now_us = self._clock.now_us()
        charges = {
            charge.key: charge
            for charge in (read_byte_charge(note, size, now_us) for note in notes)
        }
        await self._counters.take(list(charges.values()), dedup_id=f"usage:{decision_id}")
