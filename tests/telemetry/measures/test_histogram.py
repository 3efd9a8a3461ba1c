"""Durations by bucket, and what is read off them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.telemetry.measures.histogram import BOUNDS_US, Histogram, find_quantile_us


def a_histogram(*durations_us: int) -> Histogram:
    histogram = Histogram()
    for duration_us in durations_us:
        histogram.observe(duration_us)
    return histogram


@pytest.mark.parametrize(
    ("durations_us", "quantile", "found_us"),
    [
        ((), 0.5, None),
        ((70,), 0.5, 75.0),
        ((70, 70, 70, 70), 0.5, 75.0),
        ((10, 10, 10, 150), 0.99, 196.0),
        ((10, 150), 0.5, 50.0),
        ((9_000_000,), 0.5, 5_000_000.0),
    ],
)
def test_a_quantile_is_placed_within_its_bucket(
    durations_us: tuple[int, ...], quantile: float, found_us: float | None
) -> None:
    assert find_quantile_us(a_histogram(*durations_us).buckets, quantile) == pytest.approx(found_us)


@given(st.lists(st.integers(0, BOUNDS_US[-1]), min_size=1), st.floats(0.01, 1.0, exclude_min=True))
def test_a_quantile_lies_in_the_bucket_of_the_duration_that_it_estimates(
    durations_us: list[int], quantile: float
) -> None:
    found_us = find_quantile_us(a_histogram(*durations_us).buckets, quantile)
    assert found_us is not None
    rank = quantile * len(durations_us)
    true_us = next(one for place, one in enumerate(sorted(durations_us), start=1) if place >= rank)
    upper_us = next(bound for bound in BOUNDS_US if true_us <= bound)
    lower_us = max((bound for bound in BOUNDS_US if bound < true_us), default=0)
    assert lower_us <= found_us <= upper_us
