"""What every `CounterStore` must do with several limits, repetitions and what is given back."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extauthz.model.limits import Algorithm
from tests.contracts.counter_stores import (
    DAY_END_US,
    EVERY,
    FIRST_US,
    Store,
    a_charge,
    shadow,
)

# Several limits at once


async def test_takes_nothing_of_nothing(store: Store) -> None:
    assert await store.take() == (True,)


@EVERY
async def test_a_refusal_charges_no_other_limit(store: Store, algorithm: Algorithm) -> None:
    full, roomy = a_charge(algorithm, 1, key="{a}full"), a_charge(algorithm, 5, key="{a}roomy")
    await store.take(full)
    for _ in range(3):
        assert await store.take(roomy, shadow(roomy), full) == (False, True, True, False)
    assert await store.remaining(roomy) == 5
    assert await store.remaining(shadow(roomy)) == 5


@EVERY
async def test_every_limit_is_charged_when_all_have_room(
    store: Store, algorithm: Algorithm
) -> None:
    one, other = a_charge(algorithm, 5, key="{a}one"), a_charge(algorithm, 9, key="{a}other")
    assert await store.take(one, other) == (True, True, True)
    assert (await store.remaining(one), await store.remaining(other)) == (4, 8)


@EVERY
async def test_an_unenforced_limit_counts_and_tells_but_never_refuses(
    store: Store, algorithm: Algorithm
) -> None:
    enforced, watching = a_charge(algorithm, 3), shadow(a_charge(algorithm, 1))
    assert [await store.take(enforced, watching) for _ in range(4)] == [
        (True, True, True),
        (True, True, False),
        (True, True, False),
        (False, False, False),
    ]


async def test_an_unenforced_window_counts_beyond_its_limit(store: Store) -> None:
    watching = shadow(a_charge(limit=1))
    for _ in range(5):
        await store.take(watching)
    assert await store.remaining(replace(watching, limit=7)) == 2


async def test_refuses_the_same_key_twice(store: Store) -> None:
    with pytest.raises(ValueError, match="twice"):
        await store.take(a_charge(), a_charge())


async def test_refuses_a_negative_cost(store: Store) -> None:
    with pytest.raises(ValueError, match="negative"):
        await store.take(a_charge(cost=-1))


# Repetitions


@EVERY
async def test_a_repetition_is_answered_as_before_and_charged_once(
    store: Store, algorithm: Algorithm
) -> None:
    charge = a_charge(algorithm)
    first = await store.counters.take([charge], dedup_id="once")
    store.clock.advance(2)
    assert await store.counters.take([charge], dedup_id="once") == first
    assert first.at_us == FIRST_US
    store.clock.advance(-2)
    assert await store.remaining(charge) == 2


async def test_a_repeated_refusal_stays_a_refusal(store: Store) -> None:
    charge = a_charge(limit=1)
    await store.take(charge)
    assert await store.take(charge, dedup_id="again") == (False, False)
    store.clock.advance(30)
    assert await store.take(charge, dedup_id="again") == (False, False)


async def test_another_id_or_other_keys_are_another_taking(store: Store) -> None:
    one, other = a_charge(key="{a}one"), a_charge(key="{a}other")
    await store.take(one, dedup_id="1")
    await store.take(one, dedup_id="2")
    await store.take(other, dedup_id="1")
    assert (await store.remaining(one), await store.remaining(other)) == (1, 2)


# Giving back


@EVERY
async def test_what_is_given_back_can_be_taken_again(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm)
    for _ in range(3):
        await store.take(charge)
    await store.counters.give_back([charge])
    assert [await store.take(charge) for _ in range(2)] == [(True, True), (False, False)]


@EVERY
async def test_giving_back_never_makes_more_room_than_the_limit(
    store: Store, algorithm: Algorithm
) -> None:
    charge = a_charge(algorithm)
    await store.take(charge)
    await store.counters.give_back([replace(charge, cost=9)])
    assert await store.remaining(charge) == 3
    await store.counters.give_back([a_charge(algorithm, key="{a}never-seen")])
    assert await store.remaining(a_charge(algorithm, key="{a}never-seen")) == 3


@EVERY
async def test_gives_nothing_back_to_a_later_window(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm)
    taking = await store.counters.take([replace(charge, cost=3)])
    store.clock.us = DAY_END_US + 1
    await store.take(replace(charge, cost=3))
    await store.counters.give_back([replace(charge, cost=3)], at_us=taking.at_us)
    assert await store.remaining(charge) == 0


@pytest.mark.parametrize("limit", [10, 100])
async def test_gives_back_what_was_taken_when_to_a_sliding_window(store: Store, limit: int) -> None:
    charge = shadow(a_charge(Algorithm.SLIDING_WINDOW, limit))  # so that nothing of it is leased
    taking = await store.counters.take([replace(charge, cost=6)])
    store.clock.advance(30)
    await store.take(replace(charge, cost=3))
    await store.counters.give_back([replace(charge, cost=4)], at_us=taking.at_us)
    assert await store.remaining(charge) == limit - 5
    store.clock.advance(29.999_999)
    assert await store.remaining(charge) == limit - 5
    store.clock.us += 1
    assert await store.remaining(charge) == limit - 3
    # It counts no more, and nothing of the later taking is given back for it.
    await store.counters.give_back([replace(charge, cost=2)], at_us=taking.at_us)
    assert await store.remaining(charge) == limit - 3


async def test_an_unenforced_burst_that_was_full_has_no_more_room_when_it_is_given_back(
    store: Store,
) -> None:
    charge = shadow(a_charge(Algorithm.BURST, 10))
    await store.take(replace(charge, cost=10))
    store.clock.advance(6)
    taking = await store.counters.take([replace(charge, cost=8)])
    await store.counters.give_back([replace(charge, cost=8)], at_us=taking.at_us)
    assert await store.remaining(charge) == 0
    store.clock.advance(12)
    taking = await store.counters.take([replace(charge, cost=1)])
    await store.counters.give_back([replace(charge, cost=1)], at_us=taking.at_us)
    assert await store.remaining(charge) == 2


async def test_gives_back_only_what_has_not_drained_from_a_burst(store: Store) -> None:
    charge = a_charge(Algorithm.BURST, 10)
    taking = await store.counters.take([replace(charge, cost=10)])
    store.clock.advance(54)
    await store.take(replace(charge, cost=5))
    await store.counters.give_back([replace(charge, cost=10)], at_us=taking.at_us)
    assert await store.remaining(charge) == 5


@EVERY
async def test_undoes_a_remembered_taking_once(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm)
    await store.take(charge)
    await store.take(charge, dedup_id="mine")
    for _ in range(3):
        await store.counters.give_back([charge], dedup_id="mine")
    assert await store.remaining(charge) == 2
    # It is forgotten, so the same id takes anew.
    await store.take(charge, dedup_id="mine")
    assert await store.remaining(charge) == 1


async def test_gives_nothing_back_of_a_refused_taking(store: Store) -> None:
    charge = a_charge(limit=1)
    await store.take(charge)
    await store.take(charge, dedup_id="refused")
    await store.counters.give_back([charge], dedup_id="refused")
    assert await store.take(charge) == (False, False)


# Defects that other rate limiters were seen to have


async def test_refused_requests_do_not_use_up_the_limit(store: Store) -> None:
    taken = [await store.take(a_charge(limit=5)) for _ in range(20)]
    assert sum(charged for charged, _ in taken) == 5
    assert await store.remaining(a_charge(limit=20)) == 15


async def test_a_key_with_an_underscore_begins_anew_in_the_next_window(store: Store) -> None:
    charge = a_charge(limit=10, key="{a}my_key")
    for _ in range(12):
        await store.take(charge)
    store.clock.advance(60)
    assert await store.take(charge) == (True, True)
