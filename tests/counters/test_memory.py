"""The memory store's own promises: it stays bounded, and never by admitting more."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import MAX_BURST, Algorithm, Charge
from tests.builders import START_US, FakeClock, S

W = 10 * S


def a_charge(key: str, algorithm: Algorithm = Algorithm.FIXED_WINDOW, limit: int = 2) -> Charge:
    return Charge(key, algorithm, limit, W)


async def test_drops_counters_that_say_nothing_any_more() -> None:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock)
    for number in range(50):
        await store.take([a_charge(f"k{number}", list(Algorithm)[number % 2])])
    assert len(store) == 50
    clock.advance(20)
    for _ in range(20):
        await store.take([])
    assert len(store) == 0


async def test_keeps_a_burst_counter_that_is_extended_again_and_again() -> None:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock)
    charge = a_charge("k", Algorithm.BURST)
    for _ in range(30):
        assert (await store.take([charge])).charged
        clock.advance(5)
    assert len(store) == 1


async def test_expired_counters_make_way_for_new_ones() -> None:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock, max_keys=10)
    for batch in range(3):
        for number in range(6):
            assert (await store.take([a_charge(f"{batch}-{number}")])).charged
        clock.advance(10)
    assert len(store) <= 10


async def test_one_taking_may_fill_the_store_where_its_own_counter_has_expired() -> None:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock, max_keys=10)  # four of them are kept for shared counters
    old = [a_charge(f"old{number}") for number in range(6)]
    await store.take(old)
    clock.advance(10)
    taking = await store.take([old[5], *[a_charge(f"new{number}") for number in range(5)]])
    assert taking.charged and len(store) == 6
    assert [reading.remaining for reading in taking.readings] == [1] * 6
    clock.advance(10)
    await store.take([])
    await store.take([])
    assert len(store) == 0


async def test_when_full_says_so_and_leaves_every_live_counter_as_it_is() -> None:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock, max_keys=2)
    old = a_charge("old")
    await store.take([old])
    await store.take([a_charge("other")])
    with pytest.raises(CounterStoreError, match="max_keys"):
        await store.take([old, a_charge("new")])
    taking = await store.take([old])
    assert taking.charged and taking.readings[0].remaining == 0
    assert not (await store.take([old])).charged
    # Looking, and being refused, need no place.
    assert (await store.take([replace(a_charge("new"), cost=0)])).charged
    assert not (await store.take([old, a_charge("new")])).charged


async def test_a_clock_set_back_does_not_revive_a_window_whose_counter_was_dropped() -> None:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock)
    charge = a_charge("k", limit=1)
    await store.take([charge])
    clock.advance(10)
    await store.take([a_charge("sweeps")])
    assert len(store) == 1
    clock.us = START_US
    # It counts for the later window, which therefore has no more room when it comes.
    assert (await store.take([charge])).charged
    clock.advance(10)
    assert not (await store.take([charge])).charged


async def test_a_burst_whose_limit_changes_rounds_up_to_the_next_microsecond() -> None:
    store = MemoryCounterStore(FakeClock(START_US))
    slow = Charge("k", Algorithm.BURST, 1, S)
    await store.take([replace(slow, limit=7)])
    assert (await store.take([slow])).readings[0].retry_after_us == 142_858


async def test_forgets_answers_after_their_time() -> None:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock, dedup_ttl_us=2 * S)
    charge = a_charge("k", limit=9)
    await store.take([charge], dedup_id="a")
    clock.us += 2 * S - 1
    await store.take([charge], dedup_id="a")
    clock.us += 1
    assert (await store.take([charge], dedup_id="a")).readings[0].remaining == 7


async def test_forgets_the_oldest_answers_when_there_are_too_many() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_dedup_ids=2)
    charge = a_charge("k", limit=9)
    for dedup_id in ("a", "b", "c", "c", "b"):
        await store.take([charge], dedup_id=dedup_id)
    assert (await store.take([charge], dedup_id="a")).readings[0].remaining == 5


@pytest.mark.parametrize("limit", [-1, MAX_BURST + 1])
async def test_refuses_a_burst_that_cannot_be_counted_exactly(limit: int) -> None:
    store = MemoryCounterStore(FakeClock(START_US))
    with pytest.raises(ValueError, match="burst"):
        await store.take([a_charge("k", Algorithm.BURST, limit)])


async def test_an_error_charges_nothing() -> None:
    store = MemoryCounterStore(FakeClock(START_US))
    bad = Charge("bad", Algorithm.CALENDAR, 1, 0, bounds=(1, 2))
    with pytest.raises(CounterStoreError):
        await store.take([a_charge("k"), bad])
    assert len(store) == 0


async def test_refuses_to_give_back_the_same_key_twice() -> None:
    store = MemoryCounterStore(FakeClock(START_US))
    with pytest.raises(ValueError, match="twice"):
        await store.give_back([a_charge("k"), a_charge("k")])
