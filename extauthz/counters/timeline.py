"""The time that counters in memory go by: it passes as time does, whatever becomes of the clocks.

What is counted is told in a time of its own, which begins as the wall clock's and never goes back.
A reading up to a minute before the latest one counts as the latest. One that is further back says
that the clock was set: the time goes on from the latest.

Where fixed and calendar windows begin and end is the wall clock's business. When that is set (it
was wrong as the service started), it is ahead of this time, or behind it, from then on; what it
differs by is noticed when it is more than a minute. Whoever sets a clock so neither opens a limit
nor closes it: a window that is under way lasts as long as it would have (a calendar's no longer than
the clock's own), and the next one is the clock's.
"""

from __future__ import annotations

from typing import Final

from extauthz.model.limits import US_PER_S
from extauthz.ports import Clock

_SET_US: Final = 60 * US_PER_S


class Timeline:
    """One time from two clocks, which may be the same.

    Attributes:
        latest_us: the last reading.
        ahead_us: what is to be added for the time that the wall clock shows.
    """

    def __init__(self, wall: Clock, steady: Clock) -> None:
        """`steady` is never set, at best; `wall` may be."""
        self._wall = wall
        self._steady = steady
        self._behind_us = 0
        """By how much the steady clock was set back, in all."""
        self._compare_at_us = 0
        self.latest_us = 0
        self.ahead_us = 0

    def now_us(self) -> int:
        """Now, not before any reading."""
        now_us = self._steady.now_us() + self._behind_us
        latest_us = self.latest_us
        if now_us < latest_us:
            if latest_us - now_us <= _SET_US:
                return latest_us
            self._behind_us += latest_us - now_us
            self._compare_at_us = now_us = latest_us
        self.latest_us = now_us
        if now_us >= self._compare_at_us:
            self.compare(now_us)
        return now_us

    def compare(self, now_us: int) -> int:
        """`ahead_us`, as it is at this moment; otherwise it is looked after once in a second."""
        ahead_us = self._wall.now_us() - now_us
        if not -_SET_US <= ahead_us - self.ahead_us <= _SET_US:
            self.ahead_us = ahead_us
        self._compare_at_us = now_us + US_PER_S
        return self.ahead_us
