"""A histogram of durations in plain numbers, written in Prometheus's text format.

The buckets are the same for everything that is measured, from 50 µs to 5 s, so that durations can
be compared, and those of several processes added up.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

BOUNDS_US: Final = (
    50, 100, 200, 500,
    1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000, 5_000_000,
)  # fmt: skip
"""The inclusive upper bounds of the buckets, in µs; a last bucket has no bound."""
_LE: Final = (*(f"{bound / 1_000_000:g}" for bound in BOUNDS_US), "+Inf")


class Histogram:
    """Durations by bucket, with their sum."""

    __slots__ = ("buckets", "total_us")

    def __init__(self) -> None:
        self.buckets = [0] * len(_LE)
        self.total_us = 0

    def observe(self, duration_us: int) -> None:
        """Counts a duration."""
        self.buckets[bisect_left(BOUNDS_US, duration_us)] += 1
        self.total_us += duration_us

    def write(self, name: str, labels: str) -> str:
        """Writes the samples of this histogram, a line each.

        Args:
            name: the metric's name in Prometheus's form, with its unit.
            labels: as Prometheus writes them, like ``door="envoy"``.
        """
        lines = []
        so_far = 0
        for bound, count in zip(_LE, self.buckets, strict=True):
            so_far += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {so_far}\n')
        lines.append(f"{name}_count{{{labels}}} {so_far}\n")
        lines.append(f"{name}_sum{{{labels}}} {self.total_us / 1_000_000}\n")
        return "".join(lines)


def find_quantile_us(buckets: Sequence[int], quantile: float) -> float | None:
    """Estimates the duration that this share of the durations does not exceed.

    It lies within the bucket that holds it, at the place that it has among the bucket's durations,
    as in Prometheus's histogram_quantile. In the last bucket it is that bucket's lower bound.

    Args:
        buckets: how many durations there are by bucket, as in `Histogram.buckets`.
        quantile: above 0, at most 1.

    Returns:
        Microseconds; None when there are no durations.
    """
    total = sum(buckets)
    if not total:
        return None
    rank = quantile * total
    so_far, lower_us = 0, 0
    for bound_us, count in zip(BOUNDS_US, buckets, strict=False):
        if so_far + count >= rank:
            return lower_us + (bound_us - lower_us) * (rank - so_far) / count if count else lower_us
        so_far, lower_us = so_far + count, bound_us
    return float(lower_us)
