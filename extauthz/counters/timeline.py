"""Gives counters in memory a time that runs evenly, even when the system's clocks are set.

Counters use a time of their own, which starts at the wall clock's and never goes back. A reading of
the steady clock that is up to a minute before the latest one counts as the latest. One that is
further back means that the clock was set: the time continues from the latest.

The edges of fixed and calendar windows come from the wall clock. When that is set (because it was
wrong when the service started), it differs from this time from then on; a difference of more than a
minute is noticed. So setting a clock neither opens nor closes a limit: the current window lasts as
long as it would have (a calendar window at most as long as the clock's own), and the next one is
the clock's.
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
        ahead_us: the difference of the wall clock to this time.
    """

    def __init__(self, wall: Clock, steady: Clock) -> None:
        """`wall` may be set; `steady` should be a clock that is never set."""
        self._wall = wall
        self._steady = steady
        self._behind_us = 0
        """How much the steady clock was set back in total."""
        self._compare_at_us = 0
        self.latest_us = 0
        self.ahead_us = 0

    def now_us(self) -> int:
        """The current time, never before an earlier reading."""
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
        """Updates `ahead_us` and gives it; otherwise it is updated once in a second."""
        ahead_us = self._wall.now_us() - now_us
        if not -_SET_US <= ahead_us - self.ahead_us <= _SET_US:
            self.ahead_us = ahead_us
        self._compare_at_us = now_us + US_PER_S
        return self.ahead_us
