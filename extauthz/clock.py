"""The system's clock."""

from __future__ import annotations

import time


class SystemClock:
    """Wall-clock time of this machine."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return time.time_ns() // 1000
