"""Leases of hot counters: what the store is asked, what is paid without it, and what never is."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace

import pytest

from extauthz.counters.leases.store import LeaseRules, LeasingCounterStore
from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.outage.breaker import BreakerState
from extauthz.counters.outage.fallback import FallbackCounterStore
from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, Taking
from extauthz.ports import NO_DEADLINE, Deadline
from tests.builders import S
from tests.counters.outage.outages import (
    FIRST_US,
    FakeTime,
    Health,
    ScriptedPrimary,
    W,
    a_charge,
    settle,
)
from tests.redis_server import find_shared

BOUNDS = (FIRST_US - W, FIRST_US, FIRST_US + W, FIRST_US + 2 * W)
LEASED = (Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW, Algorithm.CALENDAR)
EVERY_LEASED = pytest.mark.parametrize("algorithm", LEASED)
EVERY_WITH_AN_EDGE = pytest.mark.parametrize(
    "algorithm", [Algorithm.FIXED_WINDOW, Algorithm.CALENDAR]
)
HOLD_S = 10
"""Of the sliding window in here, of 320 s. So long a block may be spent."""


class Leasing:
    """A store of leases over a scripted primary. Every counter is hot, unless a test says not."""

    def __init__(
        self,
        shared: MemoryCounterStore | None = None,
        primary: type[ScriptedPrimary] = ScriptedPrimary,
        **rules: float,
    ) -> None:
        self.time = FakeTime()
        self.primary = primary(self.time, shared)
        fields = {"size": 10, "max_share": 0.5, "hot_per_s": 0, **rules}
        self.rules = LeaseRules(**fields)  # type: ignore[arg-type]  # each is of its own type
        self.store = LeasingCounterStore(
            self.primary, lambda: round(self.time.monotonic_s * 1e6), rules=self.rules
        )

    async def take(self, *charges: Charge, times: int = 1) -> list[bool]:
        return [(await self.store.take(charges)).charged for _ in range(times)]

    @property
    def asked(self) -> list[tuple[int, ...]]:
        """The costs of each call to the primary."""
        return [tuple(charge.cost for charge in call.charges) for call in self.primary.calls]

    async def counted(self, charge: Charge) -> int:
        look = replace(charge, cost=0, limit=10**6)
        return 10**6 - (await self.primary.store.take([look])).readings[0].remaining


def of(algorithm: Algorithm, limit: int = 1000) -> Charge:
    bounds = BOUNDS if algorithm is Algorithm.CALENDAR else ()
    window_us = 32 * HOLD_S * S if algorithm is Algorithm.SLIDING_WINDOW else W
    return a_charge(limit, algorithm=algorithm, bounds=bounds, window_us=window_us)


# What the primary is asked


@EVERY_LEASED
async def test_a_hot_counter_is_asked_for_a_block_and_paid_from_it(algorithm: Algorithm) -> None:
    leasing = Leasing()
    assert all(await leasing.take(of(algorithm), times=23))
    assert leasing.asked == [(1,), (11,), (11,)]
    assert await leasing.counted(of(algorithm)) == 23


async def test_a_counter_is_hot_above_so_many_takings_in_a_second() -> None:
    leasing = Leasing(hot_per_s=5)
    for _ in range(3):
        await leasing.take(a_charge(1000), times=5)
        await leasing.time.advance(2)
    assert leasing.asked == [(1,)] * 15
    await leasing.take(a_charge(1000), times=8)
    assert leasing.asked[15:] == [(1,)] * 5 + [(11,)]


async def test_a_counter_stays_hot_at_the_beginning_of_the_next_second() -> None:
    leasing = Leasing(hot_per_s=5)
    await leasing.take(a_charge(1000), times=6)
    assert leasing.asked[-1] == (11,)
    await leasing.take(a_charge(1000), times=10)
    await leasing.time.advance(1)
    await leasing.take(a_charge(1000))
    assert leasing.asked[-1] == (11,)


async def test_blocks_shrink_as_the_limit_comes_near_and_none_of_it_is_lost() -> None:
    leasing = Leasing()
    assert await leasing.take(a_charge(30), times=31) == [True] * 30 + [False]
    assert leasing.asked == [(1,), (11,), (9,), (5,), (2,), (1,), (1,), (1,)]
    assert await leasing.counted(a_charge(30)) == 30


async def test_a_block_that_does_not_fit_is_not_charged_and_the_decision_asks_for_itself() -> None:
    shared = MemoryCounterStore(FakeTime().clock)
    one, other = Leasing(shared, max_share=1), Leasing(shared, max_share=1)
    await one.take(a_charge(12))
    await other.take(a_charge(12), times=5)
    assert other.asked == [(1,), (10,)]
    assert await one.take(a_charge(12)) == [False]
    assert one.asked == [(1,), (11,), (1,)]
    # It has learned how little remains.
    assert await one.take(a_charge(12)) == [False]
    assert one.asked == [(1,), (11,), (1,), (1,)]
    assert await other.take(a_charge(12), times=7) == [True] * 6 + [False]


async def test_every_charge_of_a_decision_is_paid_from_a_lease_or_none() -> None:
    leasing = Leasing()
    wide, narrow = a_charge(1000, key="{a}wide"), a_charge(6, key="{a}narrow")
    assert await leasing.take(wide, narrow, times=8) == [True] * 6 + [False] * 2
    # When the narrow one's is used up, both ask. The wide one's is there for whom it suffices.
    assert leasing.asked == [(1, 1), (11, 3), *[(1, 1)] * 4]
    assert await leasing.counted(narrow) == 6
    assert await leasing.counted(wide) == 6 + 8
    assert await leasing.take(wide, times=8) == [True] * 8
    assert len(leasing.asked) == 6


async def test_a_block_fills_the_other_leases_of_a_decision_up() -> None:
    leasing = Leasing()
    wide, narrow = a_charge(1000, key="{a}wide"), a_charge(12, key="{a}narrow")
    assert all(await leasing.take(wide, narrow, times=8))
    assert leasing.asked == [(1, 1), (11, 6), (6, 3)]
    assert await leasing.counted(wide) == 8 + leasing.rules.size


@pytest.mark.parametrize(
    "other",
    [
        replace(a_charge(10**4, key="{a}o", algorithm=Algorithm.BURST)),
        a_charge(10**4, key="{a}o", enforced=False),
        a_charge(10**4, key="{a}o", cost=0),
    ],
    ids=["a burst", "not enforced", "a look"],
)
async def test_what_is_not_leased_makes_the_whole_decision_ask(other: Charge) -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), other, times=20)
    assert leasing.asked == [(1, other.cost)] * 20


async def test_a_deduplicated_taking_asks_and_is_charged_once() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=3)
    first = await leasing.store.take([a_charge(1000)], dedup_id="x")
    assert await leasing.store.take([a_charge(1000)], dedup_id="x") == first
    assert leasing.asked[2:] == [(1,), (1,)]
    assert await leasing.counted(a_charge(1000)) == 1 + 11 + 1


async def test_the_same_key_twice_is_refused_also_when_it_is_leased() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=3)
    with pytest.raises(ValueError, match="twice"):
        await leasing.take(a_charge(1000), a_charge(1000))


async def test_a_cost_above_the_lease_is_asked_for() -> None:
    leasing = Leasing()
    assert await leasing.take(a_charge(1000, cost=11), times=3) == [True] * 3
    assert leasing.asked == [(11,)] * 3


# Readings


@EVERY_WITH_AN_EDGE
async def test_readings_of_one_process_are_those_of_the_store_alone(algorithm: Algorithm) -> None:
    leasing, alone = Leasing(), ScriptedPrimary(FakeTime())
    for _ in range(40):
        expected = (await alone.take([of(algorithm, 30)])).readings
        assert (await leasing.store.take([of(algorithm, 30)])).readings == expected
        await leasing.time.advance(0.25)
        alone.time.pass_by(0.25)


async def test_readings_of_a_sliding_window_tell_what_remains() -> None:
    leasing = Leasing()
    for number in range(30):
        (reading,) = (await leasing.store.take([of(Algorithm.SLIDING_WINDOW, 30)])).readings
        assert reading.remaining == 29 - number
        # What was leased counts for longer.
        assert 0 <= reading.reset_us - 32 * HOLD_S * S <= HOLD_S * S


# Windows


@EVERY_WITH_AN_EDGE
async def test_a_lease_ends_before_its_window(algorithm: Algorithm) -> None:
    leasing = Leasing()
    await leasing.take(of(algorithm), times=3)
    await leasing.time.advance(W / S - 0.07)
    await leasing.take(of(algorithm))
    assert len(leasing.asked) == 2
    # A thousandth of a minute, and a millisecond.
    await leasing.time.advance(0.01)
    await leasing.take(of(algorithm))
    assert leasing.asked[2:] == [(1,)]
    await leasing.time.advance(0.07)
    assert await leasing.counted(of(Algorithm.FIXED_WINDOW)) == 0
    await leasing.take(of(algorithm), times=2)
    assert leasing.asked[3:] == [(1,), (11,)]


SLIDING = of(Algorithm.SLIDING_WINDOW)


async def test_a_lease_on_a_sliding_window_ends_before_its_hold() -> None:
    leasing = Leasing()
    assert all(await leasing.take(SLIDING, times=3))
    # A thousandth of ten seconds, and a millisecond.
    await leasing.time.advance(HOLD_S - 0.012)
    assert all(await leasing.take(SLIDING))
    assert leasing.asked == [(1,), (11,)]
    await leasing.time.advance(0.001)
    assert all(await leasing.take(SLIDING))
    # Eight are lost, so only two may be held beside them.
    assert leasing.asked[2:] == [(3,)]


async def test_what_is_paid_from_a_lease_counts_for_a_window_from_then() -> None:
    leasing = Leasing()
    await leasing.take(SLIDING, times=3)
    await leasing.time.advance(HOLD_S - 0.012)
    assert all(await leasing.take(SLIDING))
    # The first one counts no more, the block does until what was spent last would not.
    await leasing.time.advance(31 * HOLD_S + 0.012)
    assert await leasing.counted(SLIDING) == 11
    await leasing.time.advance(HOLD_S - 0.000_001)
    assert await leasing.counted(SLIDING) == 11
    await leasing.time.advance(0.000_001)
    assert await leasing.counted(SLIDING) == 0


async def test_a_block_of_a_sliding_window_is_no_more_than_is_taken_in_its_hold() -> None:
    leasing = Leasing(size=100)
    charge = a_charge(1000, algorithm=Algorithm.SLIDING_WINDOW, window_us=32 * S)
    await leasing.take(charge, times=12)
    assert leasing.asked == [(1,), (3,), (6,), (12,)]


async def test_a_lease_on_a_sliding_window_ends_as_early_when_its_answer_comes_late() -> None:
    leasing = Leasing(primary=SlowToAnswer)
    assert isinstance(leasing.primary, SlowToAnswer)
    await leasing.take(SLIDING)
    leasing.primary.answer_s = 4.0
    await leasing.take(SLIDING)
    leasing.primary.answer_s = 0.0
    await leasing.time.advance(HOLD_S - 4.012)
    await leasing.take(SLIDING)
    assert leasing.asked == [(1,), (11,)]
    await leasing.time.advance(0.001)
    await leasing.take(SLIDING)
    assert len(leasing.asked) == 3


async def test_a_block_of_a_sliding_window_whose_answer_is_lost_is_not_asked_for_again() -> None:
    leasing = Leasing()
    await leasing.take(SLIDING)
    for _ in range(5):
        leasing.primary.health = Health.LOSES_ANSWERS
        with pytest.raises(CounterStoreError):
            await leasing.store.take([SLIDING], deadline=Deadline(leasing.time.monotonic_s))
        leasing.primary.health = Health.UP
        await leasing.take(SLIDING)
        await leasing.time.advance(31 * HOLD_S / 5)
    assert leasing.asked == [(1,), (11,), *[(1,)] * 9]


async def test_what_one_block_of_a_sliding_window_paid_does_not_go_back_to_the_next() -> None:
    leasing = Leasing()
    await leasing.take(SLIDING, times=11)
    taking = await leasing.store.take([SLIDING])
    await leasing.time.advance(HOLD_S / 2)
    await leasing.take(SLIDING, times=3)
    assert leasing.asked == [(1,), (11,), (11,)]
    await leasing.store.give_back([SLIDING], at_us=taking.at_us)
    assert await leasing.counted(SLIDING) == 1 + 11 + 11 - 1
    assert all(await leasing.take(SLIDING, times=8))
    assert len(leasing.asked) == 3


async def test_what_is_lost_of_a_sliding_window_is_not_leased_again_while_it_counts() -> None:
    leasing = Leasing()
    for _ in range(5):
        await leasing.take(SLIDING, times=2)
        await leasing.time.advance(HOLD_S)
    # One block was spent on nobody; the others could ask for no more.
    assert leasing.asked == [(1,), (11,), *[(1,)] * 8]
    await leasing.time.advance(27.9 * HOLD_S)
    assert await leasing.counted(SLIDING) == 19
    await leasing.take(SLIDING, times=2)
    assert leasing.asked[-2:] == [(1,), (1,)]
    await leasing.time.advance(3 * HOLD_S)
    await leasing.take(SLIDING, times=2)
    assert leasing.asked[-2:] == [(1,), (11,)]


async def test_what_is_left_for_another_cost_is_lost_with_the_next_block() -> None:
    leasing = Leasing()
    big = replace(SLIDING, cost=4)
    await leasing.take(SLIDING)
    assert all(await leasing.take(big, times=4))
    assert leasing.asked == [(1,), (14,), (12,)]
    assert all(await leasing.take(big, times=2))
    assert len(leasing.asked) == 3


async def test_a_block_fills_no_lease_on_a_sliding_window_that_still_pays() -> None:
    leasing = Leasing()
    narrow = a_charge(8, key="{a}narrow")
    assert all(await leasing.take(SLIDING, narrow, times=8))
    assert [costs[0] for costs in leasing.asked] == [1, 11, 1, 1]


async def test_what_a_lease_on_a_sliding_window_paid_goes_back_with_its_hold() -> None:
    leasing = Leasing()
    await leasing.take(SLIDING, times=2)
    taking = await leasing.store.take([SLIDING])
    await leasing.time.advance(HOLD_S)
    await leasing.take(SLIDING)
    await leasing.store.give_back([SLIDING], at_us=taking.at_us)
    assert leasing.asked == [(1,), (11,), (2,)]
    assert await leasing.counted(SLIDING) == 13
    for seconds, counted in ((31 * HOLD_S, 12), (HOLD_S - 0.000_001, 12), (0.000_001, 2)):
        await leasing.time.advance(seconds)
        assert await leasing.counted(SLIDING) == counted


async def test_a_wall_clock_of_this_host_that_is_wrong_does_not_matter() -> None:
    leasing = Leasing()
    leasing.time.clock.us = FIRST_US + W - 2 * S
    leasing.time.monotonic_s = 5.0
    await leasing.take(a_charge(1000), times=3)
    await leasing.time.advance(2)
    await leasing.take(a_charge(1000))
    assert leasing.asked == [(1,), (11,), (1,)]


async def test_time_that_the_answer_took_shortens_the_lease() -> None:
    leasing = Leasing()
    leasing.time.clock.us = FIRST_US + W - 2 * S
    await leasing.take(a_charge(1000))
    leasing.primary.health = Health.GATED
    block = asyncio.create_task(leasing.take(a_charge(1000)))
    await leasing.time.advance(1.5)
    leasing.primary.gate.set()
    assert await block == [True]
    # The store charged it half a second before its edge. So much is told, not so much is known.
    await leasing.take(a_charge(1000), times=2)
    assert leasing.asked == [(1,), (11,)]
    await leasing.time.advance(0.5)
    await leasing.take(a_charge(1000))
    assert leasing.asked[2:] == [(1,)]


class SlowToAnswer(ScriptedPrimary):
    """Charges at once, and answers later."""

    answer_s = 0.0

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        taking = await super().take(charges, dedup_id=dedup_id, deadline=deadline)
        self.time.pass_by(self.answer_s)
        return taking


async def test_a_lease_ends_as_early_when_its_answer_comes_late() -> None:
    leasing = Leasing(primary=SlowToAnswer)
    assert isinstance(leasing.primary, SlowToAnswer)
    leasing.time.clock.us = FIRST_US + W - 2 * S
    await leasing.take(a_charge(1000))
    leasing.primary.answer_s = 1.0
    await leasing.take(a_charge(1000))
    leasing.primary.answer_s = 0.0
    await leasing.take(a_charge(1000))
    assert leasing.asked == [(1,), (11,)]
    await leasing.time.advance(1.5)
    await leasing.take(a_charge(1000))
    assert leasing.asked[2:] == [(1,)]


async def test_what_a_lease_held_at_its_end_is_not_leased_again_in_that_window() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=3)
    await leasing.time.advance(W / S - 0.05)
    # Less is left of the window, so its end is known better, and the lease could live on.
    await leasing.take(a_charge(1000), times=2)
    assert leasing.asked == [(1,), (11,), (1,), (2,)]
    assert await leasing.counted(a_charge(1000)) == 5 + leasing.rules.size


# Limits that change


@pytest.mark.parametrize("changed", [5, 2000], ids=["lowered", "raised"])
async def test_a_lease_is_for_one_number_of_the_limit(changed: int) -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=3)
    assert await leasing.take(a_charge(changed)) == [changed > 12]
    assert leasing.asked[2:] == [(1,)]


async def test_limits_that_take_turns_waste_one_lease_and_no_more() -> None:
    leasing = Leasing()
    for _ in range(50):
        await leasing.take(a_charge(1000), times=2)
        await leasing.take(a_charge(2000), times=2)
    assert await leasing.counted(a_charge()) <= 200 + leasing.rules.size


# Giving back


@EVERY_LEASED
async def test_what_was_leased_goes_back_to_its_lease(algorithm: Algorithm) -> None:
    leasing = Leasing()
    await leasing.take(of(algorithm), times=2)
    taking = await leasing.store.take([of(algorithm)])
    await leasing.store.give_back([of(algorithm)], at_us=taking.at_us)
    assert await leasing.counted(of(algorithm)) == 12
    assert all(await leasing.take(of(algorithm), times=10))
    assert leasing.asked == [(1,), (11,)]


@EVERY_WITH_AN_EDGE
async def test_what_was_leased_goes_back_to_the_store_when_the_lease_is_over(
    algorithm: Algorithm,
) -> None:
    leasing = Leasing()
    await leasing.take(of(algorithm), times=2)
    taking = await leasing.store.take([of(algorithm)])
    await leasing.time.advance(W / S - 0.01)
    await leasing.store.give_back([of(algorithm)], at_us=taking.at_us)
    assert await leasing.counted(of(algorithm)) == 11


async def test_nothing_goes_back_to_a_later_window() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=2)
    taking = await leasing.store.take([a_charge(1000)])
    await leasing.time.advance(W / S)
    await leasing.take(a_charge(1000), times=3)
    await leasing.store.give_back([a_charge(1000)], at_us=taking.at_us)
    assert await leasing.counted(a_charge(1000)) == 12
    assert leasing.asked[-2:] == [(1,), (11,)]


async def test_a_lease_never_holds_more_than_its_size() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=2)
    takings = [await leasing.store.take([a_charge(1000)]) for _ in range(11)]
    assert leasing.asked[-1] == (11,)
    for taking in takings:
        await leasing.store.give_back([a_charge(1000)], at_us=taking.at_us)
    # Of 23 charged 12 are used or held; one was given back as it was taken.
    assert await leasing.counted(a_charge(1000)) == 12


async def test_what_was_leased_goes_back_to_the_store_while_a_block_is_on_its_way() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=11)
    taking = await leasing.store.take([a_charge(1000)])
    leasing.primary.health = Health.GATED
    block = asyncio.create_task(leasing.take(a_charge(1000)))
    await settle()
    leasing.primary.health = Health.UP
    await leasing.store.give_back([a_charge(1000)], at_us=taking.at_us)
    leasing.primary.gate.set()
    assert await block == [True]
    assert await leasing.counted(a_charge(1000)) == 12 + leasing.rules.size


async def test_what_was_leased_under_another_limit_goes_back_to_the_store() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=2)
    taking = await leasing.store.take([a_charge(1000)])
    await leasing.take(a_charge(2000))
    await leasing.store.give_back([a_charge(1000)], at_us=taking.at_us)
    assert await leasing.counted(a_charge(1000)) == 1 + 11 + 1 - 1


async def test_closing_gives_back_what_is_left() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=5)
    await leasing.store.close()
    assert await leasing.counted(a_charge(1000)) == 5
    assert leasing.primary.is_closed


async def test_closing_does_not_wait_for_a_store_that_is_away() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=5)
    leasing.primary.health = Health.REFUSES
    await leasing.store.close()
    assert leasing.primary.is_closed


# Errors


@pytest.mark.parametrize("health", [Health.REFUSES, Health.LOSES_ANSWERS], ids=lambda h: h.value)
async def test_an_answer_that_is_lost_costs_one_lease_and_no_more(health: Health) -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000))
    failed = 0
    for _ in range(20):
        leasing.primary.health = health
        with pytest.raises(CounterStoreError):
            await leasing.store.take([a_charge(1000)], deadline=Deadline(leasing.time.monotonic_s))
        failed += 1
        leasing.primary.health = Health.UP
        await leasing.take(a_charge(1000))
    counted = await leasing.counted(a_charge(1000))
    assert counted <= 1 + 20 + failed + leasing.rules.size


async def test_leases_rest_after_an_error_until_the_store_answers() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000), times=3)
    leasing.primary.health = Health.REFUSES
    for _ in range(2):
        with pytest.raises(CounterStoreError):
            await leasing.take(a_charge(1000, key="{b}"))
        with pytest.raises(CounterStoreError):
            await leasing.take(a_charge(1000))
    leasing.primary.health = Health.UP
    await leasing.take(a_charge(1000, key="{b}"))
    calls = len(leasing.asked)
    assert await leasing.take(a_charge(1000), times=9) == [True] * 9
    assert len(leasing.asked) == calls


async def test_an_outage_is_noticed_behind_leases() -> None:
    leasing = Leasing()
    local = MemoryCounterStore(leasing.time.clock)
    store = FallbackCounterStore(
        leasing.store,
        local,
        leasing.time.clock,
        share=1,
        monotonic=leasing.time.monotonic,
        sleep=leasing.time.sleep,
    )
    for _ in range(3):
        await store.take([a_charge(1000)])
    leasing.primary.health = Health.REFUSES
    for _ in range(3):
        await store.take([a_charge(1000, key="{b}")])
        await store.take([a_charge(1000)])
    assert store.state.breaker is BreakerState.OPEN
    await store.close()


# Many at once


async def test_others_ask_for_themselves_while_a_block_is_on_its_way() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000))
    leasing.primary.health = Health.GATED
    tasks = [asyncio.create_task(leasing.take(a_charge(1000))) for _ in range(5)]
    await settle()
    assert leasing.asked == [(1,), (11,), (1,), (1,), (1,), (1,)]
    leasing.primary.gate.set()
    assert await asyncio.gather(*tasks) == [[True]] * 5
    assert await leasing.take(a_charge(1000), times=10) == [True] * 10
    assert len(leasing.asked) == 6


async def test_a_caller_that_goes_away_leaves_no_block_on_its_way() -> None:
    leasing = Leasing()
    await leasing.take(a_charge(1000))
    leasing.primary.health = Health.GATED
    task = asyncio.create_task(leasing.take(a_charge(1000)))
    await settle()
    task.cancel()
    await asyncio.wait([task])
    leasing.primary.health = Health.UP
    await leasing.time.advance(W / S)
    await leasing.take(a_charge(1000), times=2)
    await leasing.time.advance(W / S)
    await leasing.take(a_charge(1000), times=2)
    assert leasing.asked[-1] == (11,)


# Memory


async def test_remembers_so_many_counters_and_forgets_no_lease() -> None:
    leasing = Leasing(max_keys=3)
    leased = a_charge(1000, key="leased")
    await leasing.take(leased, times=2)
    for number in range(20):
        assert await leasing.take(a_charge(1000, key=f"{number}")) == [True]
    assert len(leasing.store) <= 3
    calls = len(leasing.asked)
    assert await leasing.take(leased, times=10) == [True] * 10
    assert len(leasing.asked) == calls


async def test_what_cannot_be_remembered_is_asked_for() -> None:
    leasing = Leasing(max_keys=1)
    await leasing.take(a_charge(1000, key="leased"), times=2)
    assert await leasing.take(a_charge(3, key="other"), times=4) == [True] * 3 + [False]


@pytest.mark.parametrize(
    "rules",
    [{"size": 0}, {"max_share": 0}, {"max_share": 1.1}, {"hot_per_s": -1}, {"max_keys": 0}],
    ids=str,
)
def test_rules_out_of_range_are_refused(rules: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"at least|at most"):
        LeaseRules(**rules)


# Over Redis


async def _offer(url: str, algorithm: Algorithm, size: int, times: int) -> int:
    """Eight tasks of one process; how many were admitted."""
    redis = RedisCounterStore(
        RedisSettings(address=read_redis_url(url), timeout_s=20, connect_timeout_s=20)
    )
    store = LeasingCounterStore(redis, rules=LeaseRules(size=size, max_share=1, hot_per_s=0))
    charge = Charge("{a}hot", algorithm, 400, 36_500 * 86_400 * S)

    async def take(number: int) -> list[Taking]:
        return [await store.take([charge]) for _ in range(number)]

    takings = await asyncio.gather(*[take(times // 8) for _ in range(8)])
    # Not closed as a process is: what is left of the lease stays charged, as in the worst case.
    await redis.close()
    return sum(taking.charged for taken in takings for taking in taken)


def _offer_in_a_process(url: str, algorithm: Algorithm, size: int) -> int:
    return asyncio.run(_offer(url, algorithm, size, 200))


@pytest.mark.parametrize("algorithm", [Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW])
def test_processes_admit_the_limit_less_their_leases_at_most(algorithm: Algorithm) -> None:
    deployment = find_shared("redis")
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=4, mp_context=context) as processes:
        offers = [
            processes.submit(_offer_in_a_process, deployment.url, algorithm, 20) for _ in range(4)
        ]
        admitted = sum(offer.result() for offer in offers)
    assert 400 - 4 * 20 <= admitted <= 400
    value = deployment.primary.ask("GET", "extauthz:{a}hot")
    is_log = algorithm is Algorithm.SLIDING_WINDOW
    counted = int.from_bytes(value[:7], "little") if is_log else int(value.split()[1])
    assert admitted <= counted <= 400
