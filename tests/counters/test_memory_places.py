"""A full memory: whoever fills it keeps nobody else from being counted, or gets in twice."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, OutageMode
from tests.builders import START_US, FakeClock, S

W = 60 * S


def of_caller(number: int, **fields: object) -> Charge:
    """The limit of an address, of which a /48 has more than there are places."""
    charge = Charge(
        f"{{c6-{number:x}}}|fixed_window-{W}", Algorithm.FIXED_WINDOW, 5, W, origin="6-1"
    )
    return replace(charge, **fields)  # type: ignore[arg-type]


def of_application(number: int, **fields: object) -> Charge:
    charge = Charge(f"{{a{number}}}a|fixed_window-{W}", Algorithm.FIXED_WINDOW, 5, W)
    return replace(charge, **fields)  # type: ignore[arg-type]


async def flood(store: MemoryCounterStore, times: int = 5000) -> None:
    for number in range(times):
        await store.take([of_caller(number)])


@pytest.mark.parametrize("mode", OutageMode)
async def test_a_flood_of_addresses_leaves_half_of_the_places_to_applications(
    mode: OutageMode,
) -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=1000)
    await flood(store)
    for number in range(400):
        charge = of_application(number, on_outage=mode)
        admitted = [(await store.take([charge])).charged for _ in range(6)]
        assert admitted == [True] * 5 + [False]
    assert len(store) <= 1000


async def test_a_newcomer_is_counted_with_others_when_memory_is_full() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=1600)
    await flood(store, 800)
    # A limit that the flood has not used up in any counter: who comes now passes, and is counted.
    newcomer = of_caller(-1, limit=1000, key=f"{{c6-new}}|fixed_window-{W // 2}", window_us=W // 2)
    readings = [(await store.take([newcomer])).readings[0] for _ in range(3)]
    assert [reading.remaining for reading in readings] == [999, 998, 997]
    assert len(store) <= 1600


async def test_who_fills_memory_uses_up_no_counter_of_callers_from_elsewhere() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=100_000)
    await flood(store, 60_000)
    assert not (await store.take([of_caller(-1)])).charged
    served = 0
    for number in range(200):
        elsewhere = of_caller(0, key=f"{{c4-{number:x}}}|fixed_window-{W}", origin=f"4-{number:x}")
        served += (await store.take([elsewhere])).charged
    # One in 1562 shares the counter of the flood.
    assert served > 190


async def test_a_limit_that_allows_in_an_outage_is_not_counted_when_memory_is_full() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=100)
    await flood(store, 200)
    held = len(store)
    charge = of_caller(-1, on_outage=OutageMode.ALLOW)
    takings = [await store.take([charge]) for _ in range(20)]
    for taking in takings:
        assert taking.charged
        assert taking.readings[0].remaining == 5
    await store.give_back([charge], at_us=takings[0].at_us)
    assert len(store) == held


async def test_a_limit_that_denies_in_an_outage_is_unavailable_when_memory_is_full() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=100)
    await flood(store, 200)
    with pytest.raises(CounterStoreError, match="max_keys") as caught:
        await store.take([of_application(1), of_caller(-1, on_outage=OutageMode.DENY)])
    assert caught.value.charged_nothing
    # Nothing was charged, a limit that does not refuse never does, and who is counted goes on.
    assert (await store.take([of_application(1)])).readings[0].remaining == 4
    shadow = of_caller(-1, on_outage=OutageMode.DENY, enforced=False)
    assert (await store.take([shadow])).charged
    assert (await store.take([of_caller(0, on_outage=OutageMode.DENY)])).charged


def of_tenant(name: str, origin: str, **fields: object) -> Charge:
    """The limit of a header's value, which may come from any network."""
    charge = Charge(f"{{k{name}}}|fixed_window-{W}", Algorithm.FIXED_WINDOW, 3, W)
    return replace(charge, origin=origin, roams=True, **fields)  # type: ignore[arg-type]


async def test_what_comes_from_many_networks_is_counted_as_one_when_memory_is_full() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=1600)
    for number in range(2000):
        await store.take([of_tenant(f"made up {number}", "4-1")])
    admitted = 0
    for network in range(40):
        for _ in range(4):
            admitted += (await store.take([of_tenant("victim", f"4-{network:x}")])).charged
    assert admitted <= 3


async def test_who_makes_up_keys_that_roam_uses_up_the_counter_of_his_network() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=16_000)
    made_up = [
        (await store.take([of_tenant(f"made up {number}", "4-1")])).charged
        for number in range(10_000)
    ]
    assert made_up[7003:] == [False] * 2997
    served = [
        (await store.take([of_tenant(f"victim {number}", f"4-{number + 2:x}")])).charged
        for number in range(100)
    ]
    # Few of them share a counter with each other.
    assert sum(served) > 90
    victim = of_tenant("victim 1000", "4-1000")
    taking = await store.take([victim])
    await store.give_back([victim], at_us=taking.at_us)
    assert (await store.take([victim])).readings == taking.readings


async def test_every_rule_has_shared_counters_however_many_networks_come() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=1600)
    for number in range(2000):
        for rule in range(12):
            window_us = W + rule
            key = f"{{c6-{number:x}}}|fixed_window-{window_us}"
            await store.take(
                [of_caller(number, key=key, window_us=window_us, origin=f"6-{number:x}")]
            )
    assert len(store) <= 1600


@pytest.mark.parametrize("level", ["k", "a"])
async def test_limits_of_another_algorithm_or_level_share_no_counter(level: str) -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=100)
    await flood(store, 200)
    for algorithm in Algorithm:
        # The second of a kind in its tier.
        key = f"{{{level}new}}|{algorithm.value}-{W}|2"
        charge = of_caller(0, key=key, algorithm=algorithm, limit=3)
        if algorithm is Algorithm.CALENDAR:
            begin = START_US - START_US % W
            charge = replace(charge, bounds=(begin - W, begin, begin + W, begin + 2 * W))
        admitted = [(await store.take([charge])).charged for _ in range(5)]
        assert admitted == [True] * 3 + [False] * 2, algorithm


async def test_the_first_to_be_counted_with_others_by_two_limits_gets_no_more_of_either() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=1600)
    for number in range(700):
        await store.take([of_tenant(f"{number}", "4-1")])
    both = [
        of_tenant("victim", "4-2"),
        of_tenant("victim", "4-2", key="{kvictim}|other", window_us=2 * W),
    ]
    admitted = [(await store.take(both)).charged for _ in range(5)]
    assert admitted == [True] * 3 + [False] * 2


@given(
    algorithm=st.sampled_from([a for a in Algorithm if a is not Algorithm.CALENDAR]),
    offers=st.lists(
        st.tuples(st.integers(0, 30), st.integers(1, 2), st.integers(0, 20)), max_size=200
    ),
    max_keys=st.integers(8, 40),
)
def test_nobody_gets_more_than_the_limit_however_full_memory_is(
    algorithm: Algorithm, offers: list[tuple[int, int, int]], max_keys: int
) -> None:
    """What the full store admits, a store without bounds admits as well."""

    async def compare() -> None:
        clock = FakeClock(START_US)
        full = MemoryCounterStore(clock, max_keys=max_keys)
        exact = MemoryCounterStore(clock)
        for who, cost, seconds in offers:
            clock.advance(seconds / 10)
            origins = ("", False), ("6-1", False), (f"6-{seconds % 3}", True)
            charge = Charge(f"{{c{who}}}|x", algorithm, 3, 10 * S, cost)
            charge = replace(charge, origin=origins[who % 3][0], roams=origins[who % 3][1])
            if (await full.take([charge])).charged:
                assert (await exact.take([charge])).charged
            assert len(full) <= max_keys

    asyncio.run(compare())


async def test_who_was_counted_with_others_has_no_fresh_counter_when_there_is_room_again() -> None:
    clock = FakeClock(START_US - START_US % W)
    store = MemoryCounterStore(clock, max_keys=16)
    short = [Charge(f"{{a{n}}}|short", Algorithm.FIXED_WINDOW, 5, 10 * S) for n in range(20)]
    for charge in short:
        await store.take([charge])
    newcomer = of_application(1)
    assert (await store.take([newcomer])).readings[0].remaining == 4
    clock.advance(10)  # the short windows are over, and there is room
    admitted = [(await store.take([newcomer])).charged for _ in range(6)]
    assert admitted == [True] * 4 + [False] * 2
    clock.advance(50)
    assert (await store.take([newcomer])).readings[0].remaining == 4


async def test_what_was_counted_with_others_can_be_given_back() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=16)
    await flood(store, 8)
    newcomer = of_caller(-1, key="{c-new}|other")
    taking = await store.take([newcomer])
    await store.give_back([newcomer], at_us=taking.at_us)
    assert (await store.take([newcomer])).readings[0].remaining == 4


async def test_two_limits_of_one_request_may_share_a_counter() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=16)
    await flood(store, 8)
    both = [of_caller(-1, key="{c-new}1|r"), of_caller(-1, key="{c-new}2|r", limit=3)]
    remaining = [
        [reading.remaining for reading in (await store.take(both)).readings] for _ in range(3)
    ]
    assert remaining == [[2, 2], [1, 1], [0, 0]]
    assert not (await store.take(both)).charged


async def test_says_once_that_memory_is_full_and_shows_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock(START_US)
    store = MemoryCounterStore(clock, max_keys=100)
    assert store.occupancy.full == ()
    await flood(store, 500)
    occupancy = store.occupancy
    assert occupancy.full == ("caller",)
    assert occupancy.crowded > 400
    assert sum(occupancy.held.values()) == len(store)
    warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "counters.max_keys (100)" in warnings[0].getMessage()
    clock.advance(121)
    await store.take([of_caller(0)])
    assert store.occupancy.full == ()


async def test_newcomers_are_spread_over_the_shared_counters() -> None:
    store = MemoryCounterStore(FakeClock(START_US), max_keys=100_000)
    charges = [of_caller(number, origin=f"6-{number:x}") for number in range(50_000)]
    names = Counter([store._places.name_shared(charge) for charge in charges])
    assert len(names) > 300
    assert max(names.values()) < 400
