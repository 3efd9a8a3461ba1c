"""Calendar windows through clock changes, skipped days and leap years."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.limits import CalendarUnit
from extauthz.policy.limits.calendar_windows import plan_calendar_bounds
from tests.builders import S

HOUR = 3600 * S


def us(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp()) * S


@pytest.mark.parametrize(
    ("unit", "zone", "now", "edges"),
    [
        (
            CalendarUnit.DAY,
            "UTC",
            "2024-02-29T12:00:00+00:00",
            ["2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02"],
        ),
        (
            CalendarUnit.WEEK,
            "UTC",
            "2025-01-01T00:00:00+00:00",
            ["2024-12-23", "2024-12-30", "2025-01-06", "2025-01-13"],
        ),
        (
            CalendarUnit.MONTH,
            "UTC",
            "2024-12-31T23:59:59+00:00",
            ["2024-11-01", "2024-12-01", "2025-01-01", "2025-02-01"],
        ),
        (
            CalendarUnit.YEAR,
            "UTC",
            "2024-12-31T23:59:59+00:00",
            ["2023-01-01", "2024-01-01", "2025-01-01", "2026-01-01"],
        ),
        (
            CalendarUnit.MONTH,
            "Europe/Berlin",
            "2024-03-31T22:00:00+00:00",
            ["2024-03-01T00:00+01:00", "2024-04-01T00:00+02:00", "2024-05-01T00:00+02:00",
             "2024-06-01T00:00+02:00"],
        ),
    ],
)  # fmt: skip
def test_knows_the_window_of_a_time(
    unit: CalendarUnit, zone: str, now: str, edges: list[str]
) -> None:
    expected = tuple(us(edge if "T" in edge else f"{edge}T00:00+00:00") for edge in edges)
    assert plan_calendar_bounds(unit, ZoneInfo(zone), us(now)) == expected


@pytest.mark.parametrize(
    ("zone", "noon", "hours", "begins"),
    [
        ("Europe/Berlin", "2024-03-31T12:00+02:00", 23, "2024-03-31T00:00+01:00"),
        ("Europe/Berlin", "2024-10-27T12:00+01:00", 25, "2024-10-27T00:00+02:00"),
        # Clocks went from 00:00 to 01:00, so the day begins at 01:00.
        ("America/Sao_Paulo", "2018-11-04T12:00-02:00", 23, "2018-11-04T01:00-02:00"),
        # Clocks went from 24:00 back to 23:00: the day before has 25 hours.
        ("America/Sao_Paulo", "2018-02-17T12:00-02:00", 25, "2018-02-17T00:00-02:00"),
        # Midnight comes twice; the day begins at the first.
        ("America/Havana", "2024-11-03T12:00-05:00", 25, "2024-11-03T00:00-04:00"),
        ("Australia/Lord_Howe", "2024-04-07T12:00+10:30", 24.5, "2024-04-07T00:00+11:00"),
    ],
)
def test_a_day_is_as_long_as_its_zone_says(zone: str, noon: str, hours: float, begins: str) -> None:
    _, start_us, end_us, _ = plan_calendar_bounds(CalendarUnit.DAY, ZoneInfo(zone), us(noon))
    assert (end_us - start_us, start_us) == (hours * HOUR, us(begins))


def test_passes_over_a_day_that_a_zone_skipped() -> None:
    # Samoa crossed the date line: there was no 30 December 2011.
    bounds = plan_calendar_bounds(
        CalendarUnit.DAY, ZoneInfo("Pacific/Apia"), us("2011-12-31T12:00+14:00")
    )
    assert [(b - a) / HOUR for a, b in pairwise(bounds)] == [24, 24, 24]


def test_the_first_instant_of_a_day_that_began_in_a_gap_belongs_to_a_window() -> None:
    # Toronto, 1919: clocks went from 23:30 to 00:30.
    now_us = us("1919-03-31T00:35-04:00")
    bounds = plan_calendar_bounds(CalendarUnit.DAY, ZoneInfo("America/Toronto"), now_us)
    assert bounds[1] <= now_us < bounds[2]


ZONES = ["UTC", "Europe/Berlin", "America/Havana", "Pacific/Apia", "Asia/Kathmandu",
         "America/Sao_Paulo", "Africa/Cairo", "Australia/Lord_Howe", "America/Toronto"]  # fmt: skip


@given(
    st.sampled_from(CalendarUnit),
    st.sampled_from(ZONES).map(ZoneInfo),
    st.integers(-(10**15), 4 * 10**15),
)
def test_windows_ascend_hold_now_and_meet(unit: CalendarUnit, zone: ZoneInfo, now_us: int) -> None:
    bounds = plan_calendar_bounds(unit, zone, now_us)
    assert all(earlier < later for earlier, later in pairwise(bounds))
    assert bounds[1] <= now_us < bounds[2]
    assert plan_calendar_bounds(unit, zone, bounds[1]) == bounds
    assert plan_calendar_bounds(unit, zone, bounds[2])[:3] == bounds[1:]
    assert plan_calendar_bounds(unit, zone, bounds[1] - 1)[1:] == bounds[:3]
