"""When a breaker opens, probes and closes."""

from __future__ import annotations

import pytest

from extauthz.counters.outage.breaker import BreakerRules, BreakerState, CircuitBreaker

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


class Watched:
    """A breaker and the changes that it told of."""

    def __init__(self, random: float = 1.0, **rules: float) -> None:
        self.changes: list[BreakerState] = []
        self.breaker = CircuitBreaker(
            BreakerRules(**rules),  # type: ignore[arg-type]  # numbers by name
            random=lambda: random,
            on_change=self.changes.append,
        )

    def fail(self, times: int) -> None:
        for _ in range(times):
            self.breaker.note_failure(self.breaker.moment)

    def probe(self, *, answered: bool) -> float:
        waited_s = self.breaker.next_cooldown_s()
        self.breaker.begin_probe()
        self.breaker.end_probe(answered=answered)
        return waited_s


def test_opens_after_some_failures_in_a_row() -> None:
    watched = Watched()
    watched.fail(2)
    assert watched.breaker.is_closed and watched.changes == []
    watched.fail(1)
    assert not watched.breaker.is_closed and watched.changes == [OPEN]


def test_calls_that_were_under_way_together_fail_once() -> None:
    watched = Watched()
    for number in range(1, 4):
        asked_at = watched.breaker.moment
        for _ in range(32):
            watched.breaker.note_failure(asked_at)
        assert watched.breaker.state is (OPEN if number == 3 else CLOSED)
    assert watched.changes == [OPEN]


def test_a_call_of_before_the_outage_does_not_end_the_trial() -> None:
    watched = Watched()
    watched.fail(2)
    asked_at = watched.breaker.moment
    watched.fail(1)
    watched.probe(answered=True)
    watched.breaker.note_failure(asked_at)
    assert watched.breaker.is_closed
    watched.fail(1)
    assert watched.breaker.state is OPEN


def test_a_success_does_not_make_two_failures_of_one() -> None:
    watched = Watched(failures=2)
    asked_at = watched.breaker.moment
    for _ in range(3):
        watched.breaker.note_failure(asked_at)
        watched.breaker.note_success()
    assert watched.breaker.is_closed and not watched.breaker.is_suspect


def test_a_success_begins_the_row_anew() -> None:
    watched = Watched()
    for _ in range(5):
        watched.fail(2)
        assert watched.breaker.is_suspect
        watched.breaker.note_success()
        assert not watched.breaker.is_suspect
    assert watched.changes == []


def test_tells_of_each_change_once() -> None:
    watched = Watched()
    watched.fail(100)
    watched.probe(answered=False)
    watched.probe(answered=True)
    assert watched.changes == [OPEN, HALF_OPEN, OPEN, HALF_OPEN, CLOSED]


def test_answers_of_before_change_nothing_while_it_is_open() -> None:
    watched = Watched()
    watched.fail(3)
    watched.breaker.note_success()
    assert watched.breaker.state is OPEN
    watched.breaker.begin_probe()
    watched.breaker.note_success()
    watched.breaker.note_failure(watched.breaker.moment)
    assert watched.breaker.state is HALF_OPEN


def test_closes_on_trial() -> None:
    watched = Watched()
    watched.fail(3)
    watched.probe(answered=True)
    watched.fail(1)
    assert watched.breaker.state is OPEN


def test_a_success_ends_the_trial() -> None:
    watched = Watched()
    watched.fail(3)
    watched.probe(answered=True)
    assert watched.breaker.is_suspect
    watched.breaker.note_success()
    watched.fail(2)
    assert watched.breaker.is_closed


def test_cool_downs_grow_to_a_maximum_and_shrink_after_a_success() -> None:
    watched = Watched(cooldown_s=0.25, max_cooldown_s=2)
    watched.fail(3)
    assert [watched.probe(answered=False) for _ in range(5)] == [0.25, 0.5, 1, 2, 2]
    # Closing alone proves little: a store that only answers probes is left alone ever longer.
    assert watched.probe(answered=True) == 2
    watched.fail(1)
    assert watched.probe(answered=True) == 2
    watched.breaker.note_success()
    watched.fail(3)
    assert watched.probe(answered=True) == 0.25


@pytest.mark.parametrize(("random", "waited_s"), [(0.0, 0.125), (0.5, 0.1875), (1.0, 0.25)])
def test_waits_between_half_and_all_of_a_cool_down(random: float, waited_s: float) -> None:
    watched = Watched(random=random)
    watched.fail(3)
    assert watched.probe(answered=True) == waited_s


@pytest.mark.parametrize(
    "rules",
    [
        {"failures": 0},
        {"cooldown_s": 0.0},
        {"cooldown_s": -1.0},
        {"cooldown_s": 2.0, "max_cooldown_s": 1.0},
    ],
    ids=str,
)
def test_refuses_rules_that_make_no_sense(rules: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"failures|cool-downs"):
        Watched(**rules)


def test_opens_at_once_when_one_failure_is_enough() -> None:
    watched = Watched(failures=1)
    for _ in range(2):
        watched.fail(1)
        assert watched.probe(answered=True) == 0.25
        assert watched.breaker.is_closed
        watched.breaker.note_success()
