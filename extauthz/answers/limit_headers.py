"""Tells clients about their limits: RateLimit fields, X-RateLimit fields, Retry-After seconds.

`ietf` is draft-ietf-httpapi-ratelimit-headers-11 (May 2026): two lists of structured fields (RFC
9651), one item for each limit. `x` is the older form: only the tightest limit. A limit in bytes has
the draft's quota unit `qu="content-bytes"`; the X fields have no unit, so it is left out there.

Only limits that can deny are shown. Their names are the limit's level, followed by a number when a
level has several; names of the catalog or the customer are never shown. In a denial, `t` is given
only for the limits that refused: the draft (section 6) requires that Retry-After is not before the
end of any effective window in the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import lru_cache
from typing import Final

from extauthz.model.limits import (
    US_PER_S,
    Algorithm,
    CalendarUnit,
    Limit,
    LimitLevel,
    LimitStatus,
    QuotaUnit,
    Reading,
)

MAX_SF_INTEGER: Final = 999_999_999_999_999
"""Largest Integer of structured fields (RFC 9651 section 3.3.1)."""

_CALENDAR_S: Final = {CalendarUnit.DAY: 86_400, CalendarUnit.WEEK: 604_800}
"""Months and years have no fixed length, so their window is left out; `t` still gives its end."""


class LimitHeaderStyle(Enum):
    """Which fields clients get. The value is the word used in settings."""

    IETF = "ietf"
    X = "x"
    BOTH = "both"
    NONE = "none"


_IETF: Final = LimitHeaderStyle.IETF  # a look into an enum takes 40 ns more


def write_limit_headers(
    statuses: Iterable[LimitStatus], style: LimitHeaderStyle
) -> tuple[tuple[str, str], ...]:
    """Header fields for a response; none when there is no limit that can deny.

    >>> write_limit_headers(statuses, LimitHeaderStyle.IETF)
    (('RateLimit-Policy', '"subscription";q=100;w=60'), ('RateLimit', '"subscription";r=50;t=30'))
    """
    shown = [status for status in statuses if status.enforced]
    if not shown or style is LimitHeaderStyle.NONE:
        return ()
    if style is _IETF:
        return _write_ietf(shown)
    fields: tuple[tuple[str, str], ...] = ()
    if style is not LimitHeaderStyle.X:
        fields = _write_ietf(shown)
    return fields + _write_x(shown)


def retry_after_s(us: int) -> int:
    """Whole seconds for Retry-After (RFC 9110 section 10.2.3): never early, at least 1."""
    return max(1, -(-us // US_PER_S))


def _write_ietf(shown: list[LimitStatus]) -> tuple[tuple[str, str], ...]:
    levels, limits, readings, refused = [], [], [], False
    for status in shown:
        reading = status.reading
        levels.append(status.level)
        limits.append(status.limit)
        readings.append(reading)
        if reading.exceeded:
            refused = True
    policy, names = _write_policies(tuple(levels), tuple(limits))
    services = []
    for name, reading in zip(names, readings, strict=True):
        remaining = reading.remaining
        remaining = min(remaining, MAX_SF_INTEGER)
        if refused and not reading.exceeded:
            services.append(f"{name};r={remaining}")
        else:
            services.append(f"{name};r={remaining};t={_effective_s(reading)}")
    return policy, ("RateLimit", ", ".join(services))


# The same for all requests with the same limits; writing it again would take 6 µs.
@lru_cache(maxsize=4096)
def _write_policies(
    levels: tuple[LimitLevel, ...], limits: tuple[Limit, ...]
) -> tuple[tuple[str, str], tuple[str, ...]]:
    """RateLimit-Policy, and the quoted name of each of its items."""
    names = tuple(f'"{name}"' for name in _name_policies(levels))
    policies = []
    for name, limit in zip(names, limits, strict=True):
        policy = f"{name};q={min(limit.requests, MAX_SF_INTEGER)}"
        if limit.quota_unit is QuotaUnit.BYTES:
            policy += ';qu="content-bytes"'
        window_s = _find_window_s(limit)
        policies.append(policy if window_s is None else f"{policy};w={window_s}")
    return ("RateLimit-Policy", ", ".join(policies)), names


def _write_x(shown: list[LimitStatus]) -> tuple[tuple[str, str], ...]:
    shown = [status for status in shown if status.limit.quota_unit is QuotaUnit.REQUESTS]
    if not shown:
        return ()
    tightest = min(
        shown,
        key=lambda status: (
            not status.reading.exceeded,
            # Of those that refused, the one that refuses longest; else the least room.
            0 if status.reading.exceeded else status.reading.remaining,
            -_effective_s(status.reading),
        ),
    )
    return (
        ("X-RateLimit-Limit", str(tightest.limit.requests)),
        ("X-RateLimit-Remaining", str(tightest.reading.remaining)),
        ("X-RateLimit-Reset", str(_effective_s(tightest.reading))),
    )


def _name_policies(levels: Sequence[LimitLevel]) -> list[str]:
    """``subscription``, or ``subscription-1``, ``subscription-2`` where there are several."""
    several = Counter(levels)
    seen: Counter[LimitLevel] = Counter()
    names = []
    for level in levels:
        seen[level] += 1
        names.append(f"{level.value}-{seen[level]}" if several[level] > 1 else level.value)
    return names


def _find_window_s(limit: Limit) -> int | None:
    """The window in whole seconds; None when it has none, as `w` knows no part of a second."""
    if limit.algorithm is Algorithm.CALENDAR:
        return None if limit.unit is None else _CALENDAR_S.get(limit.unit)
    whole_s, rest_us = divmod(limit.window_us, US_PER_S)
    return None if rest_us or not whole_s else min(whole_s, MAX_SF_INTEGER)


def _effective_s(reading: Reading) -> int:
    """Seconds until more than the remaining amount can be used."""
    if reading.exceeded:
        return min(retry_after_s(reading.retry_after_us), MAX_SF_INTEGER)
    until_s = -(-reading.reset_us // US_PER_S)
    return min(until_s, MAX_SF_INTEGER)
