"""Tracks a counter's window and the leased units in it; see `extauthz.counters.leases.store`.

All times are of the monotonic clock, except `at_us`.

FIXED_WINDOW, CALENDAR: an answer of the store says when the window ends. That time is counted from
the call, which is before the answer was made, so it is never late. An answer whose edge is more
than half a window away from the known one belongs to another window.

SLIDING_WINDOW: it has no windows with an edge. Each block has a `LeaseWindow` of its own, which
ends one hold after the call: the store counts the block as taken that much later. What is left
then is lost, until the store no longer counts it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from extauthz.counters.formulas import find_quantum_us
from extauthz.model.limits import US_PER_S, Algorithm, Charge, Reading, Taking

_SLIDING: Final = Algorithm.SLIDING_WINDOW
_MARGIN_US: Final = 1_000
_MARGIN_PART: Final = 1_000
"""A thousandth of the time, for two clocks that NTP adjusts by its maximum of 500 ppm each."""


def find_hold_us(charge: Charge) -> int:
    """The hold of a block: how much later than charged its units may be spent; 0 for no bound."""
    return find_quantum_us(charge.window_us) if charge.algorithm is _SLIDING else 0


class LeaseWindow:
    """What is known of a counter's current window, and what this process holds of it.

    A plain class, because it changes with each decision.

    Attributes:
        charge: a charge that the window was read with; the lease is valid for its limit.
        resets_us: when the full limit is available again by the reading, or earlier.
        until_us: units that are left may be spent before this time.
        at_us: a time of the store's clock within the window; for a block, when it was charged.
        remaining: as in the store's last answer.
        left: units that are charged and not spent yet.
        lost: units that are charged, or may be, and will not be spent; for blocks see
            `WatchedKey.spoilt`.
        hold_us: for a block, how much longer the store counts it.
        gone_us: for a block, when the store certainly no longer counts it.
    """

    __slots__ = (
        "at_us",
        "charge",
        "gone_us",
        "hold_us",
        "left",
        "lost",
        "remaining",
        "resets_us",
        "until_us",
    )

    def __init__(self, charge: Charge, resets_us: int, until_us: int, lost: int) -> None:
        self.charge = charge
        self.resets_us = resets_us
        self.until_us = until_us
        self.lost = lost
        self.left = self.remaining = self.at_us = self.hold_us = self.gone_us = 0


class WatchedKey:
    """A counter that is watched.

    Attributes:
        since_us, count: takings since that time.
        before: takings in the second before.
        is_fetching: a block is being requested.
        in_doubt: units lost with a failed call; they count in the window of the call and the next.
        spoilt: lost units of blocks: until when they count, and how many; not sorted.
    """

    __slots__ = ("before", "count", "in_doubt", "is_fetching", "since_us", "spoilt", "window")

    def __init__(self, now_us: int) -> None:
        self.since_us = now_us
        self.count = self.before = self.in_doubt = 0
        self.is_fetching = False
        self.window: LeaseWindow | None = None
        self.spoilt: deque[tuple[int, int]] = deque()

    def count_taking(self, now_us: int) -> None:
        """Counts one more taking."""
        elapsed_us = now_us - self.since_us
        if elapsed_us >= US_PER_S:
            self.before = self.count if elapsed_us < 2 * US_PER_S else 0
            self.count, self.since_us = 0, now_us
        self.count += 1

    def is_held(self, now_us: int) -> bool:
        """Whether dropping it would let this process hold more than it may."""
        window = self.window
        if self.is_fetching or window is None:
            return self.is_fetching
        if window.charge.algorithm is _SLIDING:
            return window.left + self.count_lost(now_us) > 0
        return window.left + window.lost > 0 and now_us < window.until_us

    def count_lost(self, now_us: int) -> int:
        """Units that are charged, or may be, will not be spent, and still count at the store."""
        window = self.window
        if window is None or window.charge.algorithm is not _SLIDING:
            return 0 if window is None else window.lost
        if window.left and now_us >= window.until_us:
            self._spoil(window)
        for _ in range(len(self.spoilt)):
            gone_us, lost = self.spoilt.popleft()
            if now_us < gone_us:
                self.spoilt.append((gone_us, lost))
        return sum([lost for _, lost in self.spoilt])

    def find_extra(self, charge: Charge, now_us: int, size: int, max_share: float) -> int | None:
        """How much to charge in advance together with `charge`; None when that is of no use."""
        window = self.window
        if window is None or self.is_fetching or window.charge.limit != charge.limit:
            return None
        is_sliding = charge.algorithm is _SLIDING
        if now_us >= window.until_us and not is_sliding:
            return None
        lost = self.count_lost(now_us)
        left = window.left
        most = min(int((window.remaining - charge.cost) * max_share), size - lost)
        if is_sliding:
            if left >= charge.cost:
                return 0
            # A block is valid for its hold, and the rest of the one before is lost with it. Units
            # beyond what is taken in that time would be lost, too.
            takings = max(self.count, self.before) * find_quantum_us(charge.window_us) // US_PER_S
            most = min(most - left, takings * charge.cost)
            left = 0
        extra = max(0, most - left)
        return None if left + extra < charge.cost else extra

    def lose(self, charge: Charge, extra: int, now_us: int) -> None:
        """Notes a failed call that may have charged this much for the lease, or still may."""
        if not extra:
            return
        if charge.algorithm is _SLIDING:
            gone_us = now_us + 2 * charge.window_us + find_quantum_us(charge.window_us)
            self.spoilt.append((gone_us + 2 * charge.window_us // _MARGIN_PART, extra))
            return
        self.in_doubt += extra
        if self.window is not None:
            self.window.lost += extra

    def note_answer(
        self, charge: Charge, reading: Reading, at_us: int, asked_us: int, now_us: int, extra: int
    ) -> None:
        """Updates the window from an answer that charged; `extra` units go into the lease."""
        if charge.algorithm is _SLIDING:
            self._note_sliding(charge, reading, at_us, asked_us, now_us, extra)
            return
        resets_us = asked_us + reading.reset_us
        until_us = asked_us + reading.reset_us - _MARGIN_US - reading.reset_us // _MARGIN_PART
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
            # It may be the next window by now, even when the edges are close.
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

    def _note_sliding(
        self, charge: Charge, reading: Reading, at_us: int, asked_us: int, now_us: int, extra: int
    ) -> None:
        window = self.window
        if window is None or extra or window.charge.limit != charge.limit:
            if window is not None:
                self._spoil(window)
            window = self.window = LeaseWindow(charge, 0, 0, 0)
        window.resets_us = max(window.resets_us, asked_us + reading.reset_us)
        window.remaining = reading.remaining
        if extra:
            window.at_us = at_us
            window.hold_us = find_quantum_us(charge.window_us)
            window.until_us = asked_us + window.hold_us
            window.until_us -= _MARGIN_US + window.hold_us // _MARGIN_PART
            # Its entry ends at the reading's reset, or less than a quantum later.
            gone_us = reading.reset_us + window.hold_us
            window.gone_us = now_us + gone_us + _MARGIN_US + gone_us // _MARGIN_PART
            window.left = extra

    def _spoil(self, window: LeaseWindow) -> None:
        if window.left:
            self.spoilt.append((window.gone_us, window.left))
            window.left = 0


class LeasedTime(int):
    """The time of a taking that was paid from leases; `give_back` recognises it by its type."""

    windows: tuple[tuple[LeaseWindow, int], ...]
    """The windows that paid, each with a time of the store's clock within it."""


def pay_from_leases(
    charges: Sequence[Charge], keys: Sequence[WatchedKey], now_us: int
) -> Taking | None:
    """Takes from leases when every charge can be paid; else None. Atomic, as it awaits nothing."""
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
    # The latest time lies in the current window of each counter, as none has ended.
    leased_at_us = LeasedTime(at_us)
    leased_at_us.windows = tuple([(window, window.at_us) for window in windows])
    return Taking(True, tuple(readings), leased_at_us)
