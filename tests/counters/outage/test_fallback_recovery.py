"""What was admitted in an outage is charged when the store is back: all that matters, and once."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.outage.breaker import BreakerState
from extauthz.counters.outage.recovery import COUNTERS_AT_ONCE, MAX_UNANSWERED
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge
from extauthz.ports import NO_DEADLINE, Deadline
from tests.builders import FakeClock, S
from tests.counters.outage.outages import FIRST_US, Call, Health, Outage, a_charge

CLOSED, OPEN = BreakerState.CLOSED, BreakerState.OPEN
EDGES = (FIRST_US - 3600 * S, FIRST_US, FIRST_US + 3600 * S, FIRST_US + 7200 * S)


def costs_of(calls: list[Call]) -> list[list[int]]:
    return [[charge.cost for charge in call.charges] for call in calls]


# What is charged


async def test_charges_the_sum_of_each_counter_in_one_go() -> None:
    async with Outage() as outage:
        await outage.begin()
        for _ in range(3):
            await outage.take(a_charge(key="{a}1"), a_charge(key="{a}2", cost=2))
        await outage.take(a_charge(key="{b}1"))
        await outage.end()
        assert sorted(costs_of(outage.payments)) == [[1], [3, 6]]
        assert not any(charge.enforced for call in outage.payments for charge in call.charges)


async def test_charges_before_it_hands_out_room_again() -> None:
    async with Outage(share=0.5) as outage:
        charge = a_charge(10)
        for _ in range(6):
            assert await outage.take(charge)
        await outage.begin()
        assert sum([await outage.take(charge) for _ in range(9)]) == 5
        await outage.end()
        # 6 and 5 are more than 10 already.
        assert not await outage.take(charge)
        assert await outage.counted(charge) == 11


async def test_what_comes_in_while_it_is_charged_is_charged_next() -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.take(a_charge())
        seen: list[BreakerState] = []

        async def take_meanwhile() -> None:
            seen.append(outage.breaker)
            if len(seen) == 1:
                assert await outage.take(a_charge())

        outage.primary.on_payment = take_meanwhile
        await outage.end()
        assert seen == [BreakerState.HALF_OPEN, CLOSED]
        assert costs_of(outage.payments) == [[1], [1]]
        assert await outage.counted(a_charge()) == 2


@pytest.mark.parametrize(
    "algorithm", [Algorithm.FIXED_WINDOW, Algorithm.CALENDAR], ids=lambda a: a.value
)
async def test_a_window_that_is_over_is_not_charged(algorithm: Algorithm) -> None:
    bounds = EDGES if algorithm is Algorithm.CALENDAR else ()
    charge = a_charge(algorithm=algorithm, bounds=bounds)
    async with Outage() as outage:
        await outage.begin()
        assert await outage.take(charge)
        # Beyond the last of the bounds, too: nobody asks which window that would be.
        outage.time.pass_by(3 * 3600)
        await outage.end()
        assert outage.payments == []


async def test_only_the_current_window_is_charged() -> None:
    async with Outage() as outage:
        await outage.begin()
        for _ in range(5):
            await outage.take(a_charge())
        outage.time.pass_by(60)
        for _ in range(2):
            await outage.take(a_charge())
        await outage.end()
        assert costs_of(outage.payments) == [[2]]


async def test_what_still_counts_in_a_sliding_window_is_charged() -> None:
    async with Outage() as outage:
        await outage.begin()
        charge = a_charge(100, algorithm=Algorithm.SLIDING_WINDOW)
        await outage.take(replace(charge, cost=40))
        outage.time.pass_by(30)
        await outage.take(replace(charge, cost=7))
        outage.time.pass_by(20)
        await outage.take(replace(charge, cost=2))
        outage.time.pass_by(15)
        await outage.end()
        # The first are more than a minute old.
        assert costs_of(outage.payments) == [[9]]


async def test_what_has_drained_from_a_burst_is_not_charged() -> None:
    async with Outage() as outage:
        await outage.begin()
        charge = a_charge(60, algorithm=Algorithm.BURST)
        await outage.take(replace(charge, cost=30))
        outage.time.pass_by(10.5)
        await outage.end()
        # 15.5 seconds have passed, one request drains each second, a part counts as a whole.
        assert costs_of(outage.payments) == [[15]]


async def test_counters_that_have_drained_are_not_charged() -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.take(a_charge(60, algorithm=Algorithm.BURST, cost=3))
        await outage.end()
        assert outage.payments == []
        assert outage.store.state.debts == 0


async def test_a_burst_is_charged_against_the_whole_limit_not_the_share() -> None:
    async with Outage(share=0.1) as outage:
        await outage.begin()
        charge = a_charge(100, algorithm=Algorithm.BURST, window_us=3600 * S)
        assert sum([await outage.take(charge) for _ in range(12)]) == 10
        await outage.end()
        assert costs_of(outage.payments) == [[10]]


async def test_a_limit_that_changes_meanwhile_is_charged_as_it_is_now() -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.take(a_charge(5))
        await outage.take(a_charge(50))
        await outage.end()
        (payment,) = outage.payments
        assert (payment.charges[0].cost, payment.charges[0].limit) == (2, 50)


def arrive_late(outage: Outage) -> None:
    """Lets a second pass while a payment is under way."""

    async def pass_a_second() -> None:
        outage.time.pass_by(1)

    outage.primary.on_payment = pass_a_second


async def test_a_payment_that_arrives_in_the_next_window_is_given_back() -> None:
    async with Outage() as outage:
        await outage.begin()
        sliding = a_charge(key="{a}2", algorithm=Algorithm.SLIDING_WINDOW)
        await outage.take(a_charge(), sliding)
        outage.time.pass_by(59)
        outage.primary.health = Health.UP
        arrive_late(outage)
        await outage.time.advance(0.5)
        assert outage.breaker is CLOSED
        assert costs_of(outage.payments) == [[1, 1]]
        assert await outage.counted(a_charge()) == 0
        # In a sliding window it counts from then on.
        assert await outage.counted(sliding) == 1


async def test_what_cannot_be_given_back_stays_charged() -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.take(a_charge())
        outage.time.pass_by(59)
        outage.primary.health = Health.UP
        arrive_late(outage)
        outage.primary.gives_back = False
        await outage.time.advance(0.5)
        assert outage.breaker is CLOSED
        assert await outage.counted(a_charge()) == 1


async def test_a_clock_set_back_in_an_outage_loses_nothing() -> None:
    shared = MemoryCounterStore(FakeClock(FIRST_US))
    async with Outage(shared=shared) as outage:
        await outage.begin()
        await outage.take(a_charge(algorithm=Algorithm.CALENDAR, bounds=EDGES))
        outage.time.clock.us -= 2 * 3600 * S
        await outage.end()
        assert costs_of(outage.payments) == [[1]]


async def test_an_old_request_is_good_enough_for_a_probe() -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.take(a_charge(algorithm=Algorithm.CALENDAR, bounds=EDGES))
        outage.time.pass_by(86_400)
        await outage.end()


# Once


async def test_a_payment_whose_answer_is_lost_is_charged_once() -> None:
    async with Outage() as outage:
        await outage.begin()
        for _ in range(4):
            await outage.take(a_charge())
        lost = 0

        async def lose_two() -> None:
            nonlocal lost
            lost += 1
            if lost <= 2:
                raise outage.primary.error

        outage.primary.after_payment = lose_two
        outage.primary.health = Health.UP
        await outage.time.advance(0.25)
        assert outage.breaker is OPEN
        # More comes in for the same counter; it is another payment.
        await outage.take(a_charge())
        await outage.time.advance(5)
        await outage.time.advance(5)
        assert outage.breaker is CLOSED
        assert len({call.dedup_id for call in outage.payments}) == 2
        assert len(outage.payments) > 2
        assert await outage.counted(a_charge()) == 5
        assert outage.store.state.charged_back == 5


async def test_a_payment_is_given_up_when_its_id_may_be_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.take(a_charge(key="{bad}", cost=3, window_us=3600 * S))
        await outage.take(a_charge(key="{asked}", cost=0))
        outage.primary.broken = frozenset({"{bad}"})
        outage.primary.health = Health.UP
        for _ in range(40):
            await outage.time.advance(1)
        state = outage.store.state
        assert state.breaker is CLOSED
        assert (state.given_up, state.charged_back, state.debts) == (3, 0, 0)
        assert outage.payments[-1].dedup_id == outage.payments[0].dedup_id
        tries = len(outage.payments)
        outage.primary.broken = frozenset()
        await outage.time.advance(60)
        assert len(outage.payments) == tries
        assert outage.time.sleepers == []
    assert any("3 admitted during an outage may never be" in text for text in caplog.messages)


async def test_a_payment_that_can_never_be_charged_is_given_up_at_once() -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.take(a_charge(key="{bad}"))
        await outage.take(a_charge(key="{good}"))
        outage.primary.error = CounterStoreError("holds no counter", transient=False)
        outage.primary.broken = frozenset({"{bad}"})
        await outage.end()
        assert outage.store.state.given_up == 1
        assert await outage.counted(a_charge(key="{good}")) == 1


async def test_one_payment_that_fails_keeps_nothing_else_from_being_charged() -> None:
    async with Outage() as outage:
        await outage.begin()
        for number in range(200):
            await outage.take(a_charge(key=f"{{{number}}}"))
        outage.primary.broken = frozenset({"{7}"})
        outage.primary.health = Health.UP
        await outage.time.advance(0.25)
        assert outage.breaker is CLOSED
        assert outage.store.state.charged_back == 199
        outage.primary.broken = frozenset()
        await outage.time.advance(5)
        assert outage.store.state.charged_back == 200
        assert await outage.counted(a_charge(key="{7}")) == 1


async def test_a_payment_that_fails_alone_does_not_keep_the_store_away() -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.take(a_charge(key="{bad}"))
        await outage.take(a_charge(key="{asked}"))
        outage.primary.broken = frozenset({"{bad}"})
        outage.primary.health = Health.UP
        await outage.time.advance(0.25)
        await outage.time.advance(0.5)
        assert outage.breaker is CLOSED


# What was surely not charged

SURE = CounterStoreError("refused", charged_nothing=True)


async def test_who_finds_out_is_charged_too_when_the_store_surely_charged_nothing() -> None:
    async with Outage() as outage:
        outage.primary.error = SURE
        await outage.begin()
        assert await outage.take(a_charge(key="{opens}0"))
        await outage.end()
        assert [await outage.counted(a_charge(key=f"{{opens}}{n}")) for n in range(3)] == [2, 1, 1]
        assert outage.store.state.charged_back == 4


async def test_one_failure_that_opens_nothing_is_charged_after_a_pause() -> None:
    async with Outage() as outage:
        outage.primary.error = SURE
        outage.primary.health = Health.REFUSES
        assert await outage.take(a_charge())
        outage.primary.health = Health.UP
        assert await outage.counted(a_charge()) == 0
        await outage.time.advance(0.25)
        assert await outage.counted(a_charge()) == 1
        assert outage.breaker is CLOSED and outage.seen == []
        assert outage.time.sleepers == []


async def test_a_store_that_stays_away_is_found_out_by_what_is_to_be_charged() -> None:
    async with Outage() as outage:
        outage.primary.error = SURE
        outage.primary.health = Health.REFUSES
        assert await outage.take(a_charge())
        # Two cool-downs, the second twice as long, and nothing is drawn meanwhile.
        await outage.time.advance(0.25)
        assert outage.breaker is CLOSED
        await outage.time.advance(0.5)
        assert outage.breaker is OPEN
        assert outage.payments == []
        await outage.end()
        assert await outage.counted(a_charge()) == 1


async def test_what_was_surely_not_charged_is_owed_when_it_has_an_id_too() -> None:
    async with Outage() as outage:
        outage.primary.error = SURE
        outage.primary.health = Health.REFUSES
        admitted = [
            await outage.take(a_charge(3), dedup_id=dedup_id)
            for dedup_id in ("a", "b", "b", "c", "d")
        ]
        assert admitted == [True, True, True, True, False]
        outage.primary.health = Health.UP
        await outage.time.advance(5)
        assert await outage.counted(a_charge(3)) == 3
        assert not await outage.take(a_charge(3), dedup_id="e")


async def test_a_repetition_that_was_surely_not_charged_may_have_been_before() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.LOSES_ANSWERS
        deadline = Deadline(outage.time.monotonic_s + 0.02)
        with pytest.raises(CounterStoreError):
            await outage.store.take([a_charge()], dedup_id="once", deadline=deadline)
        assert await outage.counted(a_charge()) == 1
        outage.primary.error = SURE
        outage.primary.health = Health.REFUSES
        assert await outage.take(a_charge(), dedup_id="once")
        outage.primary.health = Health.UP
        await outage.time.advance(5)
        assert await outage.counted(a_charge()) == 1


async def test_what_was_surely_not_charged_and_is_given_back_is_not_charged_later() -> None:
    async with Outage() as outage:
        outage.primary.error = SURE
        outage.primary.health = Health.REFUSES
        taking = await outage.store.take([a_charge()])
        await outage.store.give_back([a_charge()], at_us=taking.at_us)
        outage.primary.health = Health.UP
        await outage.time.advance(1)
        assert outage.payments == []


# How


async def test_charges_a_bounded_number_of_counters_at_once() -> None:
    async with Outage(max_keys=5000) as outage:
        await outage.begin()
        for number in range(1000):
            await outage.take(a_charge(key=f"{{{number}}}"))
        waiting, most = 0, 0

        async def wait() -> None:
            nonlocal waiting, most
            waiting += 1
            most = max(most, waiting)
            await outage.time.sleep(0.001)
            waiting -= 1

        outage.primary.on_payment = wait
        outage.primary.health = Health.UP
        for _ in range(30):
            await outage.time.advance(0.1)
        assert outage.store.state.charged_back == 1000
        assert most == COUNTERS_AT_ONCE
        tags = [
            {charge.key.partition("}")[0] for charge in call.charges} for call in outage.payments
        ]
        assert all(len(tag) == 1 for tag in tags)


async def test_stops_at_once_when_the_store_goes_away_again() -> None:
    async with Outage() as outage:
        await outage.begin()
        for number in range(500):
            await outage.take(a_charge(key=f"{{{number}}}"))
        outage.primary.broken = frozenset(f"{{{number}}}" for number in range(499))
        outage.primary.health = Health.UP
        await outage.time.advance(0.25)
        assert outage.breaker is OPEN
        assert len(outage.payments) == COUNTERS_AT_ONCE
        outage.primary.broken = frozenset()
        await outage.end()
        assert outage.store.state.charged_back == 500


async def test_keeps_a_bounded_number_of_payments_without_an_answer() -> None:
    async with Outage(max_keys=5000) as outage:
        await outage.begin()
        keys = [f"{{{number}}}" for number in range(3000)]
        for key in keys:
            await outage.take(a_charge(key=key))
        outage.primary.broken = frozenset(keys[::2])
        outage.primary.health = Health.UP
        await outage.time.advance(0.25)
        assert outage.breaker is CLOSED
        unanswered = len(outage.store._recovery._unanswered)
        assert MAX_UNANSWERED <= unanswered <= MAX_UNANSWERED + COUNTERS_AT_ONCE


async def test_a_second_pass_that_fails_opens_the_breaker_again() -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.take(a_charge())

        async def take_meanwhile() -> None:
            outage.primary.on_payment = fail
            await outage.take(a_charge())

        async def fail() -> None:
            raise outage.primary.error

        outage.primary.on_payment = take_meanwhile
        outage.primary.health = Health.UP
        await outage.time.advance(0.25)
        assert [state.breaker for state in outage.seen][-2:] == [CLOSED, OPEN]
        outage.primary.on_payment = None
        await outage.end()
        assert await outage.counted(a_charge()) == 2


@pytest.mark.parametrize("only_payments", [False, True])
async def test_a_defect_does_not_end_the_recovery(
    only_payments: bool,  # noqa: FBT001  (a parameter of the test)
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.take(a_charge())
        healthy = outage.primary.take

        async def fail(
            charges: list[Charge], *, dedup_id: str | None = None, deadline: Deadline = NO_DEADLINE
        ) -> object:
            if dedup_id is None and only_payments:
                return await healthy(charges, deadline=deadline)
            raise RuntimeError("a defect")

        outage.primary.health = Health.UP
        outage.primary.take = fail  # type: ignore[assignment, method-assign]
        await outage.time.advance(0.25)
        outage.primary.take = healthy  # type: ignore[method-assign]
        await outage.time.advance(5)
        assert outage.breaker is CLOSED
        assert outage.store.state.given_up == (1 if only_payments else 0)
    assert any(record.levelno == logging.ERROR for record in caplog.records)


async def test_closing_in_the_midst_of_a_payment_leaves_nothing_running() -> None:
    outage = Outage()
    await outage.begin()
    for number in range(3):
        await outage.take(a_charge(key=f"{{{number}}}"))

    async def wait_for_ever() -> None:
        await asyncio.Event().wait()

    outage.primary.on_payment = wait_for_ever
    outage.primary.health = Health.UP
    await outage.time.advance(0.25)
    assert len(outage.payments) == 3
    await outage.store.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


# Defects that other rate limiters were seen to have


async def test_a_slow_store_counts_each_request_once() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.LOSES_ANSWERS
        assert [await outage.take(a_charge(20)) for _ in range(10)] == [True] * 10
        await outage.end()
        assert await outage.counted(a_charge()) == 10


async def test_decisions_go_on_through_a_long_outage_with_ever_new_consumers() -> None:
    async with Outage() as outage:
        await outage.begin()
        for second in range(20):
            began_s = outage.time.monotonic_s
            for number in range(200):
                assert await outage.take(a_charge(10**6, key=f"{{{number % 20}}}"))
            assert await outage.take(a_charge(key=f"{{new{second}}}"))
            assert outage.time.monotonic_s == began_s
            await outage.time.advance(1)
        await outage.end()
        assert outage.store.state.charged_back == 20 * 201
