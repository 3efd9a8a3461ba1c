"""What is known of a counter's window, and what this process holds of it; see `leases`.

All times are of the monotonic clock, but for `at_us`. An answer of the store says when the window
ends. As it was made some time after it was asked for, counting from the asking is never late. An
answer whose edge is more than half a window away from the known one is of another window.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from extauthz.model.limits import US_PER_S, Algorithm, Charge, Reading, Taking

_SLIDING: Final = Algorithm.SLIDING_WINDOW
_MARGIN_US: Final = 1_000
_MARGIN_PART: Final = 1_000
"""A thousandth of the time: two clocks that are steered at the most that NTP does, 500 ppm each."""


class LeaseWindow:
    """What is known of a counter's current window, and what this process holds of it.

    Times are of the monotonic clock. A plain class, because it changes with each decision.

    Attributes:
        charge: a charge that it was read with; its limit is the one that the lease is for.
        resets_us: when the reading said that the full limit is there again, or earlier.
        until_us: the window has surely not ended before.
        at_us: the store's time at a moment of the window.
        remaining: as the store last said.
        left: charged, and still to be spent.
        lost: charged, or maybe so, and never to be spent.
    """

    __slots__ = ("at_us", "charge", "left", "lost", "remaining", "resets_us", "until_us")

    def __init__(self, charge: Charge, resets_us: int, until_us: int, lost: int) -> None:
        self.charge = charge
        self.resets_us = resets_us
        self.until_us = until_us
        self.lost = lost
        self.left = self.remaining = self.at_us = 0


class WatchedKey:
    """A counter that is watched.

    Attributes:
        since_us, count, before: takings since then; and in the second before.
        is_fetching: a block is on its way.
        in_doubt: lost with a call that failed: counts in the window of then and in the next.
    """

    __slots__ = ("before", "count", "in_doubt", "is_fetching", "since_us", "window")

    def __init__(self, now_us: int) -> None:
        self.since_us = now_us
        self.count = self.before = self.in_doubt = 0
        self.is_fetching = False
        self.window: LeaseWindow | None = None

    def count_taking(self, now_us: int) -> None:
        """One more."""
        elapsed_us = now_us - self.since_us
        if elapsed_us >= US_PER_S:
            self.before = self.count if elapsed_us < 2 * US_PER_S else 0
            self.count, self.since_us = 0, now_us
        self.count += 1

    def is_held(self, now_us: int) -> bool:
        """Whether forgetting it would let this process hold more than it may."""
        window = self.window
        return self.is_fetching or (
            window is not None and window.left + window.lost > 0 and now_us < window.until_us
        )

    def lose(self, extra: int) -> None:
        """A call failed that may have charged this much for the lease."""
        self.in_doubt += extra
        if self.window is not None:
            self.window.lost += extra

    def note_answer(
        self, charge: Charge, reading: Reading, at_us: int, asked_us: int, now_us: int, extra: int
    ) -> None:
        """Learns from an answer that charged; `extra` of it goes into the lease."""
        resets_us = asked_us + reading.reset_us
        left_us = reading.reset_us - charge.window_us * (charge.algorithm is _SLIDING)
        until_us = asked_us + left_us - _MARGIN_US - left_us // _MARGIN_PART
        window = self.window
        moved_us = 0 if window is None else resets_us - window.resets_us
        if window is not None and moved_us < -charge.window_us // 2:
            return  # An answer that was overtaken by one of the next window.
        if window is None or moved_us > charge.window_us // 2:
            window = LeaseWindow(charge, resets_us, until_us, self.in_doubt)
            self.in_doubt = 0
        elif window.charge.limit != charge.limit:
            window = LeaseWindow(charge, resets_us, until_us, window.lost + window.left)
        elif now_us >= window.until_us:
            # It may be the next window by now, however close the edges seem.
            window.lost += window.left
            window.left = 0
        self.window = window
        window.resets_us = max(window.resets_us, resets_us)
        window.until_us = max(window.until_us, until_us)
        window.remaining = reading.remaining
        if now_us < until_us:
            window.at_us = at_us
        if now_us < window.until_us:
            window.left += extra
        else:
            window.lost += extra


class LeasedTime(int):
    """The time of a taking that was paid from leases. Giving back finds its way by it."""

    windows: tuple[tuple[LeaseWindow, int], ...]
    """What paid, with the store's time at a moment of the window then."""


def pay_from_leases(
    charges: Sequence[Charge], keys: Sequence[WatchedKey], now_us: int
) -> Taking | None:
    """Takes from leases, when every charge can be. Awaits nothing, so it is whole by itself."""
    windows = []
    for charge, key in zip(charges, keys, strict=True):
        window = key.window
        if (
            window is None
            or window.left < charge.cost
            or now_us >= window.until_us
            or window.charge.limit != charge.limit
        ):
            return None
        windows.append(window)
    readings = []
    at_us = 0
    for charge, window in zip(charges, windows, strict=True):
        window.left -= charge.cost
        remaining = min(charge.limit, window.remaining + window.left)
        readings.append(Reading(False, remaining, window.resets_us - now_us, 0))
        at_us = max(at_us, window.at_us)
    # The latest of them lies in the current window of each: they all still run.
    leased_at_us = LeasedTime(at_us)
    leased_at_us.windows = tuple([(window, window.at_us) for window in windows])
    return Taking(True, tuple(readings), leased_at_us)
