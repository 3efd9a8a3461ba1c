"""Computes when calendar days, weeks, months and years begin and end in a time zone.

A period begins when the zone's clocks first show its first day. So a day may have 23 or 25
hours, and a period may begin at 01:00 where clocks are set forward at midnight.
A week begins on Monday (ISO 8601).
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import assert_never
from zoneinfo import ZoneInfo

from extauthz.model.limits import US_PER_S, CalendarUnit

_ONE_DAY = timedelta(days=1)
_ONE_US = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=ZoneInfo("UTC"))


def plan_calendar_bounds(
    unit: CalendarUnit, timezone: ZoneInfo, now_us: int
) -> tuple[int, int, int, int]:
    """The edges of three windows, the middle one being now's: clocks may differ by a whole window.

    They are microseconds since the epoch, ascending: start of the window before, start and end of
    the current window, end of the window after.
    """
    day = datetime.fromtimestamp(now_us // US_PER_S, timezone).date()
    first = _first_day(unit, day)
    # The zone's clocks may skip the start; then the time belongs to the neighbouring window.
    while _begin_us(first, timezone) > now_us:
        first = _first_day(unit, first - _ONE_DAY)
    following = _next_first_day(unit, first)
    while _begin_us(following, timezone) <= now_us:
        first, following = following, _next_first_day(unit, following)
    start_us, end_us = _begin_us(first, timezone), _begin_us(following, timezone)
    # A zone that crosses the date line skips a day: that window is empty and is left out.
    previous_us = next_end_us = start_us
    while previous_us >= start_us:
        first = _first_day(unit, first - _ONE_DAY)
        previous_us = _begin_us(first, timezone)
    while next_end_us <= end_us:
        following = _next_first_day(unit, following)
        next_end_us = _begin_us(following, timezone)
    return previous_us, start_us, end_us, next_end_us


def _first_day(unit: CalendarUnit, day: date) -> date:
    """The first day of the period that contains a day."""
    match unit:
        case CalendarUnit.DAY:
            return day
        case CalendarUnit.WEEK:
            return day - timedelta(days=day.weekday())
        case CalendarUnit.MONTH:
            return day.replace(day=1)
        case CalendarUnit.YEAR:
            return day.replace(month=1, day=1)
        case _:
            assert_never(unit)


def _next_first_day(unit: CalendarUnit, first: date) -> date:
    longest_days = {
        CalendarUnit.DAY: 1,
        CalendarUnit.WEEK: 7,
        CalendarUnit.MONTH: 31,
        CalendarUnit.YEAR: 366,
    }[unit]
    return _first_day(unit, first + timedelta(days=longest_days))


def _begin_us(day: date, timezone: ZoneInfo) -> int:
    # fold=0: the first of two midnights; in a gap, the offset before it, which gives the
    # instant at which the clocks were set forward.
    midnight = datetime.combine(day, time(), timezone)
    return (midnight - _EPOCH) // _ONE_US
