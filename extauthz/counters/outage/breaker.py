"""A circuit breaker: decides whether a dependency is called. It is closed, open or half open.

While it is closed, every call is made. After some failures in a row it opens, and no call is made
until a cool-down is over. Then it is half open: one probe is made, and still no other calls. A
probe that fails opens it again, for longer; one that succeeds closes it on trial: the next failure
opens it at once, and the next success ends the trial and makes cool-downs short again.

Calls that are under way together fail together: a lost connection or a pause of the server is one
failure, however many calls were waiting. Therefore a caller reads `moment` before its call and
reports it with a failure, which counts only when none has been counted since. An answer that
arrives while the breaker is not closed belongs to an old call and changes nothing.

There is no clock and no waiting here: the prober waits for `next_cooldown_s`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    """State of a breaker. The value is what metrics and readiness show."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens, and how long it stays open.

    Attributes:
        failures: number of failures in a row that open it. By default three, since a single slow
            call is no outage; when the dependency hangs, that takes three timeouts.
        cooldown_s, max_cooldown_s: the first wait before a probe; each further one is twice as
            long, up to the maximum. A random part between half and all of it is waited, so that
            replicas do not probe together.

    Raises:
        ValueError: a number is out of range.
    """

    failures: int = 3
    cooldown_s: float = 0.25
    max_cooldown_s: float = 5.0

    def __post_init__(self) -> None:
        if self.failures < 1:
            raise ValueError(f"failures is {self.failures}; it takes one at least to open")
        if not 0 < self.cooldown_s <= self.max_cooldown_s:
            raise ValueError(
                f"cool-downs from {self.cooldown_s} s to {self.max_cooldown_s} s; "
                "they must be above 0 and the second not shorter"
            )


class CircuitBreaker:
    """A breaker, closed at first. One event loop uses it.

    Attributes:
        is_closed: whether calls are made. A plain attribute, because every request reads it.
        is_suspect: there are failures to forget; only then a success needs `note_success`.
        is_failing: the last call that counts had no answer.
        moment: a number that grows with each failure that counts.
    """

    def __init__(
        self,
        rules: BreakerRules,
        *,
        random: Callable[[], float],
        on_change: Callable[[BreakerState], None],
    ) -> None:
        """`random` gives numbers from 0 to below 1; `on_change` is called after each change."""
        self._rules = rules
        self._random = random
        self._on_change = on_change
        self._in_a_row = 0
        self._cooldown_s = rules.cooldown_s
        self.state = BreakerState.CLOSED
        self.is_closed = True
        self.is_suspect = False
        self.is_failing = False
        self.moment = 0

    def note_success(self) -> None:
        """Notes that a call was answered."""
        if self.is_closed:
            self._in_a_row = 0
            self._cooldown_s = self._rules.cooldown_s
            self.is_suspect = False
            self.is_failing = False

    def note_failure(self, asked_at: int) -> None:
        """Notes the failure of a call made at `asked_at`; enough of them open the breaker."""
        if not self.is_closed or asked_at != self.moment:
            return
        self.moment += 1
        self._in_a_row += 1
        self.is_suspect = True
        self.is_failing = True
        if self._in_a_row >= self._rules.failures:
            self._become(BreakerState.OPEN)

    def next_cooldown_s(self) -> float:
        """Seconds to wait before the next probe; each call makes the next wait longer."""
        whole_s = self._cooldown_s
        self._cooldown_s = min(2 * whole_s, self._rules.max_cooldown_s)
        return whole_s * (1 + self._random()) / 2

    def begin_probe(self) -> None:
        """Becomes half open, for the caller's probe."""
        self._become(BreakerState.HALF_OPEN)

    def end_probe(self, *, answered: bool) -> None:
        """Closes on trial when the probe was answered, else opens again."""
        if answered:
            self._in_a_row = self._rules.failures - 1
            self.is_suspect = True
            self.is_failing = False
        self._become(BreakerState.CLOSED if answered else BreakerState.OPEN)

    def _become(self, state: BreakerState) -> None:
        self.state = state
        self.is_closed = state is BreakerState.CLOSED
        self._on_change(state)
