"""The log of a sliding window, by example: how exact it is, how long, and what giving back does.

Its laws are in `tests.properties.test_counters`.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from extauthz.counters.formulas import (
    EMPTY_LOG,
    QUANTA,
    State,
    add_cost,
    find_quantum_us,
    read_state,
    room_in,
    take_back,
    wait_us,
)
from extauthz.model.limits import Algorithm, Charge
from tests.builders import START_US

W = 3200
Q = W // QUANTA
BEGIN_US = START_US - START_US % Q
"""A quantum begins here."""


def a_charge(limit: int, cost: int = 1, *, hold_us: int = 0, enforced: bool = True) -> Charge:
    return Charge("k", Algorithm.SLIDING_WINDOW, limit, W, cost, enforced=enforced, hold_us=hold_us)


def take_at(charge: Charge, *offsets_us: int, state: State | None = None) -> State:
    """The log after a taking at each of these times."""
    for offset_us in offsets_us:
        now_us = BEGIN_US + offset_us
        state = add_cost(charge, read_state(charge, state, now_us), now_us)
    assert state is not None
    return state


def entries_of(state: State) -> list[tuple[int, int]]:
    """Ends, from `BEGIN_US` on, and counts, oldest first."""
    _, edge_us, _, extra, older = state
    flat = [*older, edge_us, extra]
    return [(flat[i] - BEGIN_US, flat[i + 1]) for i in range(0, len(flat), 2)]


def test_a_quantum_is_a_32nd_of_the_window_rounded_up() -> None:
    assert [find_quantum_us(us) for us in (1, 32, 33, 60_000_000)] == [1, 1, 2, 1_875_000]


def test_up_to_a_limit_of_32_every_microsecond_has_an_entry_of_its_own() -> None:
    state = take_at(a_charge(32), 0, 0, 1, 5)
    assert entries_of(state) == [(0, 2), (1, 1), (5, 1)]


def test_above_a_limit_of_32_an_entry_ends_with_the_last_taking_of_its_quantum() -> None:
    state = take_at(a_charge(33), 0, 1, Q - 1, Q, 2 * Q - 2)
    assert entries_of(state) == [(Q - 1, 3), (2 * Q - 2, 2)]
    charge = a_charge(33, cost=31)
    assert wait_us(charge, state, BEGIN_US + 2 * Q - 2) == W + Q - 1 - (2 * Q - 2)


def test_what_comes_at_once_may_come_again_a_window_later_to_the_microsecond() -> None:
    charge = a_charge(1000, cost=1000)
    state = take_at(charge, 7)
    for now_us, room in ((BEGIN_US + 7 + W - 1, 0), (BEGIN_US + 7 + W, 1000)):
        assert room_in(charge, read_state(charge, state, now_us), now_us) == room


def test_a_changed_limit_keeps_every_entry() -> None:
    state = take_at(a_charge(32), 0, 1, 2)
    state = take_at(a_charge(1000), 3, 50, state=state)
    assert entries_of(state) == [(0, 1), (1, 1), (50, 3)]
    state = take_at(a_charge(32), 51, state=state)
    assert entries_of(state) == [(0, 1), (1, 1), (50, 3), (51, 1)]


def test_a_clock_that_went_back_adds_to_the_newest_entry() -> None:
    state = take_at(a_charge(10), 500, 0, -(10**9))
    assert entries_of(state) == [(500, 3)]


def test_a_hold_moves_the_end() -> None:
    held = a_charge(1000, 10, hold_us=Q)
    state = take_at(held, 5)
    assert entries_of(state) == [(Q + 5, 10)]
    # Whoever comes meanwhile counts as long.
    state = take_at(a_charge(1000), 6, state=state)
    assert entries_of(state) == [(Q + 5, 11)]
    assert entries_of(take_at(held, Q + 5, state=state)) == [(Q + 5, 11), (2 * Q + 5, 10)]


@pytest.mark.parametrize(
    ("limits", "enforced", "most"),
    [
        ((32,), True, 32),
        ((1000,), True, QUANTA + 2),
        ((1000,), False, QUANTA + 2),
        ((32,), False, 2 * QUANTA + 2),
        ((32, 1000), True, 2 * QUANTA + 2),
        ((1, 8, 32, 33, 5000), False, 2 * QUANTA + 2),
    ],
    ids=str,
)
def test_the_log_stays_short_however_it_is_used(
    limits: tuple[int, ...],
    enforced: bool,  # noqa: FBT001  (a table's column)
    most: int,
) -> None:
    random_numbers = random.Random(7)
    state: State | None = None
    now_us, longest = BEGIN_US, 0
    for _ in range(8000):
        now_us += random_numbers.choice((0, 1, 1, 3, 40))
        charge = a_charge(
            random_numbers.choice(limits),
            hold_us=random_numbers.choice((0, 0, Q)),
            enforced=enforced,
        )
        state = read_state(charge, state, now_us)
        if not enforced or room_in(charge, state, now_us):
            state = add_cost(charge, state, now_us)
            longest = max(longest, len(entries_of(state)))
    assert 20 < longest <= most


# Giving back


def give_back(state: State, taken_us: int | None, now_us: int, cost: int = 1) -> State:
    at_us = None if taken_us is None else BEGIN_US + taken_us
    return take_back(a_charge(32, cost), state, at_us, BEGIN_US + now_us)


@pytest.mark.parametrize(
    ("taken_us", "cost", "left"),
    [
        (0, 1, [(0, 1), (10, 1), (20, 2)]),
        (0, 9, [(10, 1), (20, 2)]),
        (10, 1, [(0, 2), (20, 2)]),
        (20, 1, [(0, 2), (10, 1), (20, 1)]),
        (20, 2, [(0, 2), (10, 1)]),
        # Of another node's clock, a little behind: never from an entry that lasts longer.
        (5, 1, [(0, 2), (20, 2)]),
        (21, 1, [(0, 2), (10, 1), (20, 2)]),
        (None, 1, [(0, 1), (10, 1), (20, 2)]),
    ],
)
def test_a_cost_goes_back_to_the_entry_it_was_taken_into(
    taken_us: int | None, cost: int, left: list[tuple[int, int]]
) -> None:
    state = take_at(a_charge(32), 0, 0, 10, 20, 20)
    after = give_back(state, taken_us, 25, cost)
    assert entries_of(after) == left
    assert after[2] == sum(count for _, count in left)


def test_the_last_that_goes_back_leaves_nothing() -> None:
    assert give_back(take_at(a_charge(32), 4), 4, 5) == EMPTY_LOG


def test_nothing_goes_back_that_counts_no_more() -> None:
    state = take_at(a_charge(32), 0, 10)
    assert entries_of(give_back(state, 0, W + 5)) == [(10, 1)]
    # It counts a little longer when others came in its quantum, and stays till then.
    state = take_at(a_charge(1000), 0, 10)
    assert entries_of(give_back(state, 0, W + 5)) == [(10, 2)]


def test_nothing_goes_back_to_what_came_much_later_when_counts_were_lost() -> None:
    state = take_at(a_charge(32), 2 * Q)
    assert give_back(state, 0, 2 * Q) == state
    assert give_back(state, 1, 2 * Q) == EMPTY_LOG


def test_what_was_held_goes_back_by_the_end_of_its_hold() -> None:
    held = a_charge(1000, 10, hold_us=Q)
    state = take_at(held, 5)
    state = take_at(held, 150, state=take_at(a_charge(1000), 140, state=state))
    assert entries_of(state) == [(140, 11), (250, 10)]
    after = take_back(replace(held, cost=4), state, BEGIN_US + 5, BEGIN_US + 160)
    assert entries_of(after) == [(140, 7), (250, 10)]
    after = take_back(held, after, BEGIN_US + 150, BEGIN_US + 160)
    assert entries_of(after) == [(140, 7)]
