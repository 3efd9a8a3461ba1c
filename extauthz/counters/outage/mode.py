"""Defines the rules of counting in an outage, and the state that is reported of it.

These are values only; `fallback` follows the rules and gives the state.
"""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.counters.outage.breaker import BreakerRules, BreakerState


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackRules:
    """How long calls wait for the primary, and how much is remembered in an outage.

    Attributes:
        timeout_s: the longest time that a decision waits for the primary.
        hasty_s: a call that its caller gives up within this time does not count as a failure.
        ids_remembered_us: how long the primary remembers a deduplication id; its answers are
            remembered here for the same time.
        max_ids: answers that are remembered here.
        max_debts: counters that may have a debt at the same time; further debts are given up.
        breaker: when the breaker opens, and when it probes.
    """

    timeout_s: float = 0.05
    hasty_s: float = 0.01
    ids_remembered_us: int = 60_000_000
    max_ids: int = 100_000
    max_debts: int = 1_000_000
    breaker: BreakerRules = BreakerRules()


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackState:
    """The state of counting, for readiness, metrics and the live page.

    Attributes:
        breaker: CLOSED when the primary counts.
        since_us: when the breaker came to this state.
        is_failing: the last call to the primary had no answer.
        failures: calls to the primary without an answer, since the start.
        last_error: the error of the last of them; empty when there was none.
        admitted_locally: requests admitted here and charged to the local store.
        debts: counters whose debt to the primary is not paid.
        charged_back: costs of debts that were paid, since the start.
        given_up: costs that were never charged at the primary, or are not known to have been.
    """

    breaker: BreakerState
    since_us: int
    is_failing: bool
    failures: int
    last_error: str
    admitted_locally: int
    debts: int
    charged_back: int
    given_up: int

    @property
    def degraded(self) -> bool:
        """Whether limits are not counted across replicas now. Such a replica still serves."""
        return self.is_failing or self.breaker is not BreakerState.CLOSED

    @property
    def detail(self) -> str:
        """One line for readiness; empty when nothing is wrong."""
        if not self.degraded:
            return ""
        return f"degraded: the counter store is away ({self.last_error}); each limit follows its outage mode"
