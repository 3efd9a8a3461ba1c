"""What clients are told about their limits."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from extauthz.answers.limit_headers import LimitHeaderStyle, retry_after_s, write_limit_headers
from extauthz.model.limits import (
    Algorithm,
    CalendarUnit,
    Limit,
    LimitLevel,
    LimitStatus,
    QuotaUnit,
    Reading,
)
from tests.builders import S, a_limit

IETF, X = LimitHeaderStyle.IETF, LimitHeaderStyle.X


def a_status(
    level: LimitLevel = LimitLevel.SUBSCRIPTION,
    limit: Limit | None = None,
    *,
    remaining: int = 50,
    reset_us: int = 30 * S,
    retry_after_us: int = 0,
    enforced: bool = True,
) -> LimitStatus:
    reading = Reading(retry_after_us > 0, remaining, reset_us, retry_after_us)
    return LimitStatus(level, "Customer Gold", limit or a_limit(100), reading, enforced)


BYTES = a_limit(65_535, quota_unit=QuotaUnit.BYTES)
BURST = a_status(LimitLevel.BURST, a_limit(10, per_s=1), remaining=9, reset_us=100_000)


@pytest.mark.parametrize(
    ("statuses", "policy", "service"),
    [
        ([a_status()], '"subscription";q=100;w=60', '"subscription";r=50;t=30'),
        (
            [a_status(), BURST],
            '"subscription";q=100;w=60, "burst";q=10;w=1',
            '"subscription";r=50;t=30, "burst";r=9;t=1',
        ),
        (
            [a_status(), BURST, a_status(limit=a_limit(7, per_s=3600))],
            '"subscription-1";q=100;w=60, "burst";q=10;w=1, "subscription-2";q=7;w=3600',
            '"subscription-1";r=50;t=30, "burst";r=9;t=1, "subscription-2";r=50;t=30',
        ),
        # Only the limit that refused tells a time: Retry-After must not be before it.
        (
            [a_status(), a_status(LimitLevel.BURST, remaining=0, retry_after_us=1_000_001)],
            '"subscription";q=100;w=60, "burst";q=100;w=60',
            '"subscription";r=50, "burst";r=0;t=2',
        ),
        ([a_status(limit=a_limit(5, per_s=0.5))], '"subscription";q=5', '"subscription";r=50;t=30'),
        ([a_status(reset_us=0)], '"subscription";q=100;w=60', '"subscription";r=50;t=0'),
        (
            [a_status(), a_status(limit=BYTES, remaining=1_000)],
            '"subscription-1";q=100;w=60, "subscription-2";q=65535;qu="content-bytes";w=60',
            '"subscription-1";r=50;t=30, "subscription-2";r=1000;t=30',
        ),
        (
            [a_status(limit=a_limit(10**18), remaining=10**17, reset_us=10**24)],
            '"subscription";q=999999999999999;w=60',
            '"subscription";r=999999999999999;t=999999999999999',
        ),
    ],
)
def test_writes_the_fields_of_the_ietf_draft(
    statuses: list[LimitStatus], policy: str, service: str
) -> None:
    assert write_limit_headers(statuses, IETF) == (
        ("RateLimit-Policy", policy),
        ("RateLimit", service),
    )


@pytest.mark.parametrize(
    ("unit", "window"),
    [
        (CalendarUnit.DAY, ";w=86400"),
        (CalendarUnit.WEEK, ";w=604800"),
        (CalendarUnit.MONTH, ""),
        (CalendarUnit.YEAR, ""),
    ],
)
def test_tells_a_calendar_window_only_when_it_has_one_length(
    unit: CalendarUnit, window: str
) -> None:
    limit = Limit(
        algorithm=Algorithm.CALENDAR,
        requests=9,
        window_us=31 * 86_400 * S,
        unit=unit,
        timezone=ZoneInfo("UTC"),
    )
    fields = dict(write_limit_headers([a_status(limit=limit)], IETF))
    assert fields["RateLimit-Policy"] == f'"subscription";q=9{window}'


@pytest.mark.parametrize(
    ("statuses", "values"),
    [
        ([a_status()], ("100", "50", "30")),
        ([a_status(), BURST], ("10", "9", "1")),
        (
            [a_status(remaining=3, reset_us=5 * S), a_status(remaining=3, reset_us=9 * S)],
            ("100", "3", "9"),
        ),
        # A limit that refused a cost is tighter than one with less room for what fits.
        ([BURST, a_status(remaining=20, retry_after_us=9 * S)], ("100", "20", "9")),
        (
            [
                a_status(LimitLevel.BURST, a_limit(1), remaining=0, retry_after_us=S),
                a_status(remaining=2, retry_after_us=9 * S),
            ],
            ("100", "2", "9"),
        ),
    ],
)
def test_writes_the_tightest_limit_in_x_fields(
    statuses: list[LimitStatus], values: tuple[str, str, str]
) -> None:
    names = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
    assert write_limit_headers(statuses, X) == tuple(zip(names, values, strict=True))


def test_leaves_bytes_out_of_x_fields() -> None:
    spent = a_status(limit=BYTES, remaining=0, retry_after_us=9 * S)
    assert write_limit_headers([spent, a_status()], X) == write_limit_headers([a_status()], X)
    assert write_limit_headers([spent], X) == ()


def test_writes_both_or_none_as_asked() -> None:
    both = write_limit_headers([a_status()], LimitHeaderStyle.BOTH)
    assert both == write_limit_headers([a_status()], IETF) + write_limit_headers([a_status()], X)
    assert write_limit_headers([a_status()], LimitHeaderStyle.NONE) == ()


@pytest.mark.parametrize("style", LimitHeaderStyle)
def test_shows_no_limit_that_cannot_deny(style: LimitHeaderStyle) -> None:
    shadow = a_status(LimitLevel.API, remaining=0, retry_after_us=S, enforced=False)
    assert write_limit_headers([shadow], style) == ()
    assert write_limit_headers([shadow, a_status()], style) == write_limit_headers(
        [a_status()], style
    )


@pytest.mark.parametrize("style", LimitHeaderStyle)
def test_shows_no_name_of_a_customer(style: LimitHeaderStyle) -> None:
    assert "Gold" not in str(write_limit_headers([a_status(), BURST], style))


@pytest.mark.parametrize(
    ("us", "seconds"), [(0, 1), (1, 1), (S, 1), (S + 1, 2), (59_999_999, 60), (90 * S, 90)]
)
def test_retry_after_is_never_early(us: int, seconds: int) -> None:
    assert retry_after_s(us) == seconds
