"""Tells clients about their limits: RateLimit fields, X-RateLimit fields, Retry-After seconds.

`ietf` is draft-ietf-httpapi-ratelimit-headers-11 (May 2026): two lists of structured fields
(RFC 9651), one item for each limit. `x` is what was usual before: one limit, the tightest.
A limit in bytes says so by the draft's quota unit, `qu="content-bytes"`; the X fields have no
word for it, and leave it out.

Only limits that can deny are shown. Names are the limit's level, with a number behind it where
a level has several; nothing of the catalog's or the customer's names is in them. When something
was refused, `t` stands only with the limits that refused: the draft (section 6) asks that
Retry-After is not before the end of any effective window that is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import Enum
from typing import Final

from extauthz.model.limits import US_PER_S, Algorithm, CalendarUnit, Limit, LimitStatus, QuotaUnit

MAX_SF_INTEGER: Final = 999_999_999_999_999
"""Largest Integer of structured fields (RFC 9651 section 3.3.1)."""

_CALENDAR_S: Final = {CalendarUnit.DAY: 86_400, CalendarUnit.WEEK: 604_800}
"""Months and years have no one length, so their window is left out; `t` still tells its end."""


class LimitHeaderStyle(Enum):
    """Which fields clients get. The value is the word used in settings."""

    IETF = "ietf"
    X = "x"
    BOTH = "both"
    NONE = "none"


def write_limit_headers(
    statuses: Iterable[LimitStatus], style: LimitHeaderStyle
) -> tuple[tuple[str, str], ...]:
    """Header fields for a response; none when there is no limit that can deny.

    >>> write_limit_headers(statuses, LimitHeaderStyle.IETF)
    (('RateLimit-Policy', '"subscription";q=100;w=60'), ('RateLimit', '"subscription";r=50;t=30'))
    """
    if style is LimitHeaderStyle.NONE:
        return ()
    shown = [status for status in statuses if status.enforced]
    if not shown:
        return ()
    fields: tuple[tuple[str, str], ...] = ()
    if style is not LimitHeaderStyle.X:
        fields = _write_ietf(shown)
    if style is not LimitHeaderStyle.IETF:
        fields += _write_x(shown)
    return fields


def retry_after_s(us: int) -> int:
    """Whole seconds for Retry-After (RFC 9110 section 10.2.3): never early, at least 1."""
    return max(1, _round_up_s(us))


def _write_ietf(shown: list[LimitStatus]) -> tuple[tuple[str, str], ...]:
    refused = any(status.reading.exceeded for status in shown)
    policies, services = [], []
    for name, status in zip(_name_policies(shown), shown, strict=True):
        reading = status.reading
        policy = f'"{name}";q={_clamp(status.limit.requests)}'
        if status.limit.quota_unit is QuotaUnit.BYTES:
            policy += ';qu="content-bytes"'
        window_s = _find_window_s(status.limit)
        policies.append(policy if window_s is None else f"{policy};w={window_s}")
        service = f'"{name}";r={_clamp(reading.remaining)}'
        if reading.exceeded or not refused:
            service += f";t={_clamp(_effective_s(status))}"
        services.append(service)
    return (("RateLimit-Policy", ", ".join(policies)), ("RateLimit", ", ".join(services)))


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
            -_effective_s(status),
        ),
    )
    return (
        ("X-RateLimit-Limit", str(tightest.limit.requests)),
        ("X-RateLimit-Remaining", str(tightest.reading.remaining)),
        ("X-RateLimit-Reset", str(_effective_s(tightest))),
    )


def _name_policies(shown: list[LimitStatus]) -> list[str]:
    """``subscription``, or ``subscription-1``, ``subscription-2`` where there are several."""
    several = Counter(status.level for status in shown)
    seen: Counter[object] = Counter()
    names = []
    for status in shown:
        seen[status.level] += 1
        name = status.level.value
        names.append(f"{name}-{seen[status.level]}" if several[status.level] > 1 else name)
    return names


def _find_window_s(limit: Limit) -> int | None:
    """The window in whole seconds; None when it has none, as `w` knows no part of a second."""
    if limit.algorithm is Algorithm.CALENDAR:
        return None if limit.unit is None else _CALENDAR_S.get(limit.unit)
    whole_s, rest_us = divmod(limit.window_us, US_PER_S)
    return None if rest_us or not whole_s else _clamp(whole_s)


def _effective_s(status: LimitStatus) -> int:
    """Until when no more than what remains can be used."""
    reading = status.reading
    if reading.exceeded:
        return retry_after_s(reading.retry_after_us)
    return _round_up_s(reading.reset_us)


def _round_up_s(us: int) -> int:
    return -(-us // US_PER_S)


def _clamp(number: int) -> int:
    return min(number, MAX_SF_INTEGER)
