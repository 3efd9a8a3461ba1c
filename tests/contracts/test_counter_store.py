"""What every `CounterStore` must do with one limit; see `counter_stores`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Reading
from tests.builders import S
from tests.contracts.counter_stores import (
    BOUNDS,
    DAY_END_US,
    EVERY,
    FIRST_US,
    Store,
    W,
    a_charge,
    shadow,
)

# One limit


@EVERY
async def test_admits_up_to_the_limit_and_no_further(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm)
    taken = [await store.take(charge) for _ in range(5)]
    assert taken == [(True, True)] * 3 + [(False, False)] * 2


@EVERY
async def test_counts_down_what_remains(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm)
    assert [(await store.read(charge)).remaining for _ in range(4)] == [2, 1, 0, 0]


@EVERY
async def test_takes_a_cost_whole_or_not_at_all(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm, 10, cost=4)
    assert [await store.take(charge) for _ in range(3)] == [
        (True, True),
        (True, True),
        (False, False),
    ]
    assert await store.take(replace(charge, cost=2)) == (True, True)


@EVERY
async def test_a_cost_above_the_limit_never_fits(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm, cost=4)
    reading = await store.read(charge)
    assert (reading.exceeded, reading.remaining) == (True, 3)
    assert reading.retry_after_us == (
        DAY_END_US - FIRST_US if algorithm is Algorithm.CALENDAR else W
    )
    store.clock.us += reading.retry_after_us - 1
    assert await store.take(charge) == (False, False)


@EVERY
async def test_a_limit_of_nothing_admits_nothing(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm, 0)
    reading = await store.read(charge)
    assert reading.exceeded and reading.retry_after_us > 0
    assert await store.take(replace(charge, cost=0)) == (True, True)
    assert (await store.read(shadow(charge))).exceeded


@EVERY
async def test_cost_nought_only_looks(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm, 1)
    peek = replace(charge, cost=0)
    assert (await store.read(peek)).remaining == 1
    assert (await store.read(peek)).remaining == 1
    await store.take(charge)
    reading = await store.read(peek)
    assert (reading.exceeded, reading.remaining, reading.retry_after_us) == (False, 0, 0)


@EVERY
async def test_retry_after_is_the_earliest_time_at_which_the_cost_fits(
    store: Store, algorithm: Algorithm
) -> None:
    charge = a_charge(algorithm, 7, cost=3)
    store.clock.advance(13.000_007)
    await store.take(replace(charge, cost=6))
    store.clock.advance(1.1)
    reading = await store.read(charge)
    assert reading.exceeded
    store.clock.us += reading.retry_after_us - 1
    assert await store.take(charge) == (False, False)
    store.clock.us += 1
    assert await store.take(charge) == (True, True)


@EVERY
async def test_the_full_limit_is_there_again_after_the_reset(
    store: Store, algorithm: Algorithm
) -> None:
    charge = a_charge(algorithm)
    store.clock.advance(5)
    for _ in range(3):
        await store.take(charge)
    store.clock.us += (await store.read(charge)).reset_us
    assert await store.remaining(charge) == 3


@EVERY
async def test_keys_are_counted_apart(store: Store, algorithm: Algorithm) -> None:
    one, other = a_charge(algorithm, 1, key="{a}1"), a_charge(algorithm, 1, key="{b}1")
    assert await store.take(one) == (True, True)
    assert await store.take(other) == (True, True)
    assert await store.take(one) == (False, False)


@EVERY
async def test_a_raised_limit_keeps_what_was_counted(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm, 4)
    for _ in range(4):
        await store.take(charge)
    raised = replace(charge, limit=8)
    # A burst keeps the share that was used: all of it.
    assert await store.remaining(raised) == (0 if algorithm is Algorithm.BURST else 4)


@EVERY
async def test_a_lowered_limit_leaves_nothing_and_never_less(
    store: Store, algorithm: Algorithm
) -> None:
    charge = a_charge(algorithm, 4)
    for _ in range(4):
        await store.take(charge)
    lowered = replace(charge, limit=2)
    reading = await store.read(lowered)
    assert (reading.exceeded, reading.remaining) == (True, 0)
    store.clock.us += (await store.read(lowered)).reset_us
    assert await store.remaining(lowered) == 2


@EVERY
async def test_a_clock_that_goes_back_admits_no_more(store: Store, algorithm: Algorithm) -> None:
    charge = a_charge(algorithm)
    store.clock.advance(1)
    for _ in range(3):
        await store.take(charge)
    for seconds in (-0.5, -3600, -7200):
        store.clock.us = FIRST_US + round(seconds * S)
        assert await store.take(replace(charge, bounds=(0, *charge.bounds))) == (False, False)


@EVERY
async def test_concurrent_takings_admit_exactly_the_limit(
    store: Store, algorithm: Algorithm
) -> None:
    charge = a_charge(algorithm, 100)
    taken = await asyncio.gather(*[store.take(charge) for _ in range(400)])
    assert sum(charged for charged, _ in taken) == 100


# Each algorithm


async def test_a_fixed_window_begins_anew_at_its_edge(store: Store) -> None:
    charge = a_charge(limit=1)
    store.clock.advance(59.999_999)
    assert await store.read(charge) == Reading(
        exceeded=False, remaining=0, reset_us=1, retry_after_us=0
    )
    assert await store.take(charge) == (False, False)
    store.clock.us += 1
    assert await store.take(charge) == (True, True)


async def test_a_sliding_window_has_no_edge(store: Store) -> None:
    charge = a_charge(Algorithm.SLIDING_WINDOW, 10)
    store.clock.advance(50)
    assert await store.take(replace(charge, cost=6)) == (True, True)
    store.clock.advance(9)
    assert await store.take(replace(charge, cost=4)) == (True, True)
    store.clock.advance(50.999_999)
    refused = await store.read(replace(charge, cost=7))
    assert refused == Reading(
        exceeded=True, remaining=0, reset_us=9 * S + 1, retry_after_us=9 * S + 1
    )
    assert await store.take(charge) == (False, False)
    store.clock.us += 1
    assert await store.remaining(charge) == 6
    store.clock.advance(9)
    assert await store.remaining(charge) == 10


@pytest.mark.parametrize("limit", [32, 33, 1000])
async def test_a_sliding_window_holds_no_more_than_its_limit_in_any_stretch(
    store: Store, limit: int
) -> None:
    charge = a_charge(Algorithm.SLIDING_WINDOW, limit, cost=max(1, limit // 100))
    admitted: list[int] = []
    for number in range(400):
        if (await store.take(charge))[0]:
            admitted.append(store.clock.us)
            recent = [at_us for at_us in admitted if at_us > store.clock.us - W]
            assert len(recent) * charge.cost <= limit
        # Slowly, then in haste: about 130 s in all.
        store.clock.us += 700_007 if number % 100 < 40 else 3
    assert len(admitted) * charge.cost > limit


async def test_a_limit_of_many_a_window_is_there_again_a_32nd_late_at_most(store: Store) -> None:
    charge = shadow(a_charge(Algorithm.SLIDING_WINDOW, 100))  # so that nothing of it is leased
    for _ in range(100):
        assert await store.take(charge) == (True, True)
        store.clock.us += 15_000
    # 1.5 s later: they may have met in one quantum, which is 1.875 s long.
    store.clock.us = FIRST_US + W + W // 32
    assert await store.remaining(charge) == 100


async def test_a_burst_refills_one_by_one(store: Store) -> None:
    charge = a_charge(Algorithm.BURST)
    for _ in range(3):
        await store.take(charge)
    refused = await store.read(charge)
    assert (refused.retry_after_us, refused.reset_us) == (20 * S, 60 * S)
    for _ in range(5):
        store.clock.advance(20)
        assert await store.take(charge) == (True, True)
        assert await store.take(charge) == (False, False)


async def test_a_burst_does_not_drift_when_the_rate_is_no_whole_microsecond(store: Store) -> None:
    charge = replace(a_charge(Algorithm.BURST, 7), window_us=1_000_000)
    for _ in range(7):
        await store.take(charge)
    for _ in range(700):
        reading = await store.read(charge)
        assert reading.exceeded
        store.clock.us += reading.retry_after_us
        assert await store.take(charge) == (True, True)
    # 700 at 7 a second are 100 s, and never more than the last rounding beyond.
    assert 0 <= store.clock.us - FIRST_US - 100 * S <= 1


async def test_an_unenforced_burst_is_filled_and_not_overfilled(store: Store) -> None:
    charge = shadow(a_charge(Algorithm.BURST))
    for _ in range(10):
        await store.take(charge)
    assert (await store.read(charge)).retry_after_us == 20 * S


async def test_a_calendar_window_ends_at_its_bound(store: Store) -> None:
    charge = a_charge(Algorithm.CALENDAR, 1)
    assert (await store.read(charge)).reset_us == 3600 * S
    store.clock.us = DAY_END_US - 1
    assert await store.take(charge) == (False, False)
    store.clock.us = DAY_END_US
    assert await store.take(charge) == (True, True)
    assert (await store.read(charge)).reset_us == 86_400 * S


async def test_a_calendar_window_is_the_same_for_a_replica_with_other_bounds(store: Store) -> None:
    ahead = replace(a_charge(Algorithm.CALENDAR, 1), bounds=(*BOUNDS[1:], DAY_END_US + W * 9999))
    assert await store.take(a_charge(Algorithm.CALENDAR, 1)) == (True, True)
    assert await store.take(ahead) == (False, False)


@pytest.mark.parametrize(
    "bounds", [(), (FIRST_US - 2, FIRST_US), (FIRST_US + 1, FIRST_US + 2)], ids=str
)
async def test_cannot_count_in_calendar_windows_that_are_not_now(
    store: Store, bounds: tuple[int, ...]
) -> None:
    with pytest.raises(CounterStoreError):
        await store.take(replace(a_charge(Algorithm.CALENDAR), bounds=bounds))
