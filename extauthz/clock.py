"""The system's clocks."""

from __future__ import annotations

import time


class SteadyClock:
    """The wall clock's time at the start plus the time that has passed since; it is never set.

    For counting in memory: a clock that jumps forward and back would close windows for the length
    of the jump. Time in which the machine sleeps counts.
    """

    def __init__(self) -> None:
        self._start_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return (self._start_ns + time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1000


class SystemClock:
    """Wall-clock time of this machine."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return time.time_ns() // 1000
