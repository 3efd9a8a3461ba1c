"""Decides whether a dependency is asked at all: closed, open, half open.

Closed, everything is asked. After some failures in a row it opens, and nobody asks until a
cool-down is over. Calls that are under way together fail together: one lost connection, or one
moment of silence, is one failure, however many were waiting. Who asks reads `moment` first, and
says it when the call fails; a failure counts when none has been counted since. Then it is half open: one probe asks, everybody else still does not. A probe
that fails opens it again, for longer; one that succeeds closes it on trial: the next failure
opens it at once, the next success ends the trial and makes cool-downs short again. An answer
that arrives while it is not closed was asked for long ago and changes nothing.

No clock and no waiting in here: who probes waits for `next_cooldown_s`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class BreakerState(Enum):
    """The value is what metrics and readiness show."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerRules:
    """When a breaker opens, and how long it stays open.

    Attributes:
        failures: in a row, that open it. Three: a single slow call is no outage. When the
            dependency hangs, they take three timeouts.
        cooldown_s, max_cooldown_s: the first wait before a probe; each further one is twice as
            long, up to the maximum. Between half and all of it is waited, at random, so that
            replicas do not probe together.

    Raises:
        ValueError: a number makes no sense.
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
        is_closed: whether to ask. A plain attribute, because every request reads it.
        is_suspect: a success is worth a call of `note_success`; while it is False nothing is
            to be forgotten.
        is_failing: the last call that counts went unanswered.
        moment: grows with each failure that counts.
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
        """An answer came."""
        if self.is_closed:
            self._in_a_row = 0
            self._cooldown_s = self._rules.cooldown_s
            self.is_suspect = False
            self.is_failing = False

    def note_failure(self, asked_at: int) -> None:
        """A call that was made at the moment `asked_at` has failed. Opens when that is enough."""
        if not self.is_closed or asked_at != self.moment:
            return
        self.moment += 1
        self._in_a_row += 1
        self.is_suspect = True
        self.is_failing = True
        if self._in_a_row >= self._rules.failures:
            self._become(BreakerState.OPEN)

    def next_cooldown_s(self) -> float:
        """How long to wait before the next probe; each call makes the one after it longer."""
        whole_s = self._cooldown_s
        self._cooldown_s = min(2 * whole_s, self._rules.max_cooldown_s)
        return whole_s * (1 + self._random()) / 2

    def begin_probe(self) -> None:
        """The cool-down is over: half open, for the one who calls."""
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
