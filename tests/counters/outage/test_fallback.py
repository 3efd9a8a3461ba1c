"""Decisions while the shared store is away: modes, shares, bounds, repetitions."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from fractions import Fraction

import pytest

from extauthz.counters.outage.breaker import BreakerRules, BreakerState
from extauthz.counters.outage.mode import FallbackRules
from extauthz.counters.outage.remembered import RememberedTakings, name_taking
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, OutageMode, Reading, Taking
from tests.builders import S
from tests.counters.outage.outages import FIRST_US, Health, Outage, a_charge

ALLOW, DENY, LOCAL = OutageMode.ALLOW, OutageMode.DENY, OutageMode.LOCAL
CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
EVERY_FAILURE = pytest.mark.parametrize(
    "health", [Health.REFUSES, Health.HANGS, Health.LOSES_ANSWERS], ids=lambda h: h.value
)

# Modes


@EVERY_FAILURE
async def test_local_limits_go_on_in_memory(health: Health) -> None:
    async with Outage() as outage:
        outage.primary.health = health
        taken = [await outage.take(a_charge(4)) for _ in range(6)]
        assert taken == [True] * 4 + [False] * 2


@EVERY_FAILURE
async def test_a_limit_that_denies_makes_the_request_unavailable(health: Health) -> None:
    async with Outage() as outage:
        outage.primary.health = health
        for _ in range(5):
            with pytest.raises(CounterStoreError):
                await outage.take(a_charge(key="{a}local"), a_charge(mode=DENY))
        assert outage.breaker is OPEN
        # Nothing was counted for what was not decided.
        assert len(outage.local) == 0


async def test_says_that_the_limit_denies_and_why_the_store_failed() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.REFUSES
        with pytest.raises(CounterStoreError, match="on_outage: deny") as caught:
            await outage.take(a_charge(mode=DENY))
        assert caught.value.__cause__ is outage.primary.error


@EVERY_FAILURE
async def test_a_limit_that_allows_is_not_counted(health: Health) -> None:
    async with Outage() as outage:
        outage.primary.health = health
        charge = a_charge(2, mode=ALLOW)
        for _ in range(5):
            taking = await outage.store.take([charge])
            assert taking.charged
            assert taking.readings == (Reading(False, 2, 0, 0),)
        assert len(outage.local) == 0 and outage.store.state.admitted_locally == 0


async def test_each_charge_follows_its_own_mode_and_keeps_its_place() -> None:
    async with Outage() as outage:
        await outage.begin()
        charges = [
            a_charge(9, key="{a}free", mode=ALLOW),
            a_charge(2, key="{a}local"),
            a_charge(8, key="{a}other", mode=ALLOW),
            a_charge(1, key="{a}shadow", mode=DENY, enforced=False),
        ]
        takings = [await outage.store.take(charges) for _ in range(3)]
        assert [taking.charged for taking in takings] == [True, True, False]
        assert [[reading.remaining for reading in taking.readings] for taking in takings] == [
            [9, 1, 8, 0],
            [9, 0, 8, 0],
            [9, 0, 8, 0],
        ]
        assert [reading.exceeded for reading in takings[1].readings] == [False, False, False, True]


async def test_a_local_refusal_charges_nothing_here_and_owes_nothing() -> None:
    async with Outage() as outage:
        await outage.begin()
        full, roomy = a_charge(1, key="{a}full"), a_charge(5, key="{a}roomy")
        assert await outage.take(full)
        for _ in range(3):
            assert not await outage.take(roomy, full)
        await outage.end()
        assert await outage.counted(roomy) == 0
        assert await outage.counted(full) == 1


@pytest.mark.parametrize("mode", OutageMode)
async def test_an_unenforced_limit_never_refuses(mode: OutageMode) -> None:
    async with Outage() as outage:
        await outage.begin()
        shadow = a_charge(1, mode=mode, enforced=False)
        assert [await outage.take(shadow) for _ in range(4)] == [True] * 4
        await outage.end()
        assert await outage.counted(shadow) == (0 if mode is ALLOW else 4)


async def test_a_request_without_limits_passes() -> None:
    async with Outage() as outage:
        await outage.begin()
        assert await outage.take()


@pytest.mark.parametrize("mode", [ALLOW, LOCAL])
async def test_refuses_charges_that_no_store_takes(mode: OutageMode) -> None:
    async with Outage() as outage:
        await outage.begin()
        with pytest.raises(ValueError, match="twice"):
            await outage.take(a_charge(mode=ALLOW), a_charge(mode=mode))
        with pytest.raises(ValueError, match="negative"):
            await outage.take(a_charge(cost=-1, mode=mode))


# Shares


@pytest.mark.parametrize(
    ("share", "limit", "admitted"),
    [
        (1, 10, 10),
        (0.5, 10, 5),
        (0.5, 9, 5),
        (0.25, 10, 3),
        (1 / 3, 9, 3),
        (0.07, 100, 7),  # 0.07 * 100 is a little more than 7 in doubles
        (Fraction(2, 7), 7, 2),
        (0.01, 5, 1),
        (0.01, 0, 0),
    ],
)
@pytest.mark.parametrize("algorithm", [a for a in Algorithm if a is not Algorithm.CALENDAR])
async def test_admits_its_share_of_a_limit_rounded_up(
    share: float, limit: int, admitted: int, algorithm: Algorithm
) -> None:
    async with Outage(share=share) as outage:
        await outage.begin()
        charge = a_charge(limit, algorithm=algorithm)
        assert sum([await outage.take(charge) for _ in range(limit + 2)]) == admitted


@pytest.mark.parametrize("share", [0, -1, 1.5, 1e-9])
def test_refuses_a_share_that_is_none(share: float) -> None:
    with pytest.raises(ValueError, match="share"):
        Outage(share=share)


async def test_a_second_outage_in_a_window_has_no_second_share() -> None:
    async with Outage(share=0.5) as outage:
        charge = a_charge(10)
        await outage.begin()
        assert sum([await outage.take(charge) for _ in range(9)]) == 5
        await outage.end()
        await outage.begin()
        assert not await outage.take(charge)


async def test_a_new_window_has_its_share_anew() -> None:
    async with Outage(share=0.5) as outage:
        charge = a_charge(10)
        await outage.begin()
        for _ in range(2):
            assert sum([await outage.take(charge) for _ in range(9)]) == 5
            await outage.time.advance(60)


# Bounds


async def test_when_the_local_store_is_full_newcomers_share_a_counter() -> None:
    async with Outage(max_keys=7) as outage:
        await outage.begin()
        # Three counters are in use already, and two places are kept for shared ones.
        assert await outage.take(a_charge(key="{a}4"))
        assert await outage.take(a_charge(key="{a}5"))
        limit = a_charge().limit
        newcomers = [a_charge(key=f"{{a}}{number}") for number in range(6, 6 + 3 * limit)]
        assert sum([await outage.take(charge) for charge in newcomers]) == limit
        assert await outage.take(a_charge(key="{a}4"))


async def test_when_too_much_is_owed_what_is_beyond_is_given_up() -> None:
    async with Outage(rules=FallbackRules(max_debts=2)) as outage:
        await outage.begin()
        assert await outage.take(a_charge(key="{a}1"), a_charge(key="{a}2"))
        assert outage.store.state.given_up == 0
        assert await outage.take(a_charge(key="{a}3"))
        assert await outage.take(a_charge(key="{a}1"))
        assert await outage.take(a_charge(key="{a}3", cost=0))
        assert (outage.store.state.debts, outage.store.state.given_up) == (2, 1)
        # What time has settled makes way.
        await outage.time.advance(60)
        assert await outage.take(a_charge(key="{a}3"))
        assert outage.store.state.given_up == 1


async def test_what_callers_make_up_takes_half_of_what_can_be_owed() -> None:
    async with Outage(rules=FallbackRules(max_debts=6)) as outage:
        await outage.begin()
        for number in range(20):
            await outage.take(replace(a_charge(key=f"{{c{number}}}"), origin="6-1"))
        assert outage.store.state.debts == 3
        for number in range(3):
            await outage.take(a_charge(key=f"{{a{number}}}"))
        assert outage.store.state.debts == 6


async def test_what_is_owed_stays_bounded_over_many_windows() -> None:
    async with Outage() as outage:
        await outage.begin()
        for number in range(500):
            await outage.take(a_charge(key=f"{{{number}}}", window_us=S))
            outage.time.pass_by(0.5)
        assert outage.store.state.debts <= 8


# What is seen of it


async def test_shows_how_it_stands() -> None:
    async with Outage() as outage:
        assert not outage.store.state.degraded and outage.store.state.detail == ""
        await outage.time.advance(1)
        await outage.begin()
        await outage.take(a_charge(cost=3))
        state = outage.store.state
        assert state.degraded and state.breaker is OPEN
        assert state.since_us == FIRST_US + S
        assert state.detail == (
            "degraded: the counter store is away (no answer); each limit follows its outage mode"
        )
        assert (state.failures, state.admitted_locally, state.debts) == (3, 4, 1)
        await outage.end()
        state = outage.store.state
        assert not state.degraded
        assert (state.charged_back, state.debts, state.given_up) == (3, 0, 0)


async def test_tells_its_observer_of_each_change_once() -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.time.advance(0.25)
        await outage.end()
        assert [state.breaker for state in outage.seen] == [
            OPEN,
            HALF_OPEN,
            OPEN,
            HALF_OPEN,
            CLOSED,
        ]


async def test_logs_the_beginning_and_the_end_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with Outage() as outage:
        await outage.begin()
        for _ in range(20):
            await outage.take(a_charge(cost=2))
            await outage.time.advance(0.5)
        await outage.end()
    assert [(record.levelname, record.__dict__["code"]) for record in caplog.records] == [
        ("WARNING", "counter_store_failed"),
        ("INFO", "counter_store_failed"),
    ]
    assert "no answer" in caplog.messages[0]
    assert "back after 15.0 s; 10 that were admitted" in caplog.messages[1]


async def test_an_observer_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with Outage() as outage:

        def fail(_: object) -> None:
            raise RuntimeError("observer")

        outage.store._observe = fail
        await outage.begin()
        await outage.end()
    assert any("observer" in message for message in caplog.messages)


# Repetitions


async def test_a_repetition_is_answered_as_here_before_also_when_the_primary_is_back() -> None:
    async with Outage() as outage:
        await outage.begin()
        first = await outage.store.take([a_charge()], dedup_id="once")
        assert await outage.store.take([a_charge()], dedup_id="once") == first
        await outage.end()
        assert await outage.store.take([a_charge()], dedup_id="once") == first
        assert await outage.counted(a_charge()) == 1


async def test_a_repetition_is_answered_as_by_the_primary_before_it_went_away() -> None:
    async with Outage() as outage:
        first = await outage.store.take([a_charge()], dedup_id="once")
        outage.primary.health = Health.REFUSES
        assert await outage.store.take([a_charge()], dedup_id="once") == first
        await outage.begin()
        assert await outage.store.take([a_charge()], dedup_id="once") == first
        await outage.end()
        assert await outage.counted(a_charge()) == 1


async def test_a_repeated_refusal_of_here_stays_one() -> None:
    async with Outage() as outage:
        await outage.begin()
        assert await outage.take(a_charge(1))
        assert not await outage.take(a_charge(1), dedup_id="refused")
        await outage.time.advance(30)
        await outage.end()
        assert not await outage.take(a_charge(5), dedup_id="refused")


async def test_answers_are_forgotten_after_their_time_and_when_there_are_too_many() -> None:
    rules = FallbackRules(max_ids=2, ids_remembered_us=10 * S)
    async with Outage(rules=rules) as outage:
        await outage.begin()
        charge = a_charge(key="{a}ids")
        for dedup_id in ("a", "b", "b", "c", "a"):
            await outage.take(charge, dedup_id=dedup_id)
        assert (await outage.store.take([charge])).readings[0].remaining == 10 - 5
        await outage.time.advance(10)
        assert len(outage.store._answers) == 2
        await outage.take(charge, dedup_id="a")
        assert (await outage.store.take([charge])).readings[0].remaining == 10 - 7


def test_the_first_answer_is_the_one_that_is_remembered() -> None:
    remembered = RememberedTakings(ttl_us=10, most=5)
    name = name_taking("once", [a_charge()])
    first = Taking(True, ())
    remembered.add(name, first, 0)
    remembered.add(name, Taking(False, ()), 5)
    assert remembered.find(name, 9) is first
    assert remembered.find(name, 10) is None


async def test_a_lost_answer_is_found_again_by_its_id() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.LOSES_ANSWERS
        with pytest.raises(CounterStoreError):
            await outage.take(a_charge(mode=DENY), dedup_id="once")
        outage.primary.health = Health.UP
        assert await outage.take(a_charge(mode=DENY), dedup_id="once")
        assert await outage.counted(a_charge()) == 1


async def test_repetitions_that_fail_together_are_counted_here_once() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.GATED
        waiting = [
            asyncio.create_task(outage.store.take([a_charge()], dedup_id="once")) for _ in range(5)
        ]
        await outage.time.advance(0.05)
        outage.primary.health = Health.HANGS
        outage.primary.gate.set()
        answers = await asyncio.gather(*waiting)
        assert all(answer == answers[0] for answer in answers)
        assert (await outage.store.take([a_charge(cost=0)])).readings[0].remaining == 9


# Giving back


@pytest.mark.parametrize("algorithm", [a for a in Algorithm if a is not Algorithm.CALENDAR])
@pytest.mark.parametrize("dedup_id", [None, "mine"])
async def test_what_was_taken_here_is_given_back_here_and_owed_no_more(
    algorithm: Algorithm, dedup_id: str | None
) -> None:
    async with Outage() as outage:
        await outage.begin()
        charge = a_charge(2, algorithm=algorithm)
        free = a_charge(key="{a}free", mode=ALLOW)
        assert await outage.take(charge)
        taking = await outage.store.take([charge, free], dedup_id=dedup_id)
        assert not await outage.take(charge)
        await outage.store.give_back([charge, free], at_us=taking.at_us, dedup_id=dedup_id)
        assert (await outage.store.take([replace(charge, cost=0)])).readings[0].remaining == 1
        await outage.end()
        assert [[one.cost for one in call.charges] for call in outage.payments] == [[1]]


async def test_what_is_taken_here_is_given_back_here_also_when_the_primary_is_back() -> None:
    async with Outage() as outage:
        await outage.begin()
        taking = await outage.store.take([a_charge()])
        await outage.end()
        assert await outage.take(a_charge())
        await outage.store.give_back([a_charge()], at_us=taking.at_us)
        # It was charged there since, and stays charged: stricter, never looser.
        assert await outage.counted(a_charge()) == 2


async def test_giving_back_what_was_charged_since_takes_nothing_from_others() -> None:
    async with Outage() as outage:
        await outage.begin()
        taking = await outage.store.take([a_charge()])
        await outage.end()
        await outage.time.advance(1)
        await outage.begin()
        assert await outage.take(a_charge())
        await outage.store.give_back([a_charge()], at_us=taking.at_us)
        await outage.end()
        assert await outage.counted(a_charge()) == 2


async def test_giving_back_a_request_that_may_be_charged_there_forgives_no_other() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.LOSES_ANSWERS
        unsure = await outage.store.take([a_charge()])
        await outage.begin()
        assert await outage.take(a_charge())
        await outage.store.give_back([a_charge()], at_us=unsure.at_us)
        await outage.end()
        assert await outage.counted(a_charge()) == 2


async def test_giving_back_just_now_goes_to_who_counts_now() -> None:
    async with Outage() as outage:
        await outage.take(a_charge())
        await outage.store.give_back([a_charge()])
        assert await outage.counted(a_charge()) == 0
        await outage.begin()
        await outage.take(a_charge())
        await outage.store.give_back([a_charge()])
        await outage.end()
        assert await outage.counted(a_charge()) == 0


async def test_what_was_taken_there_cannot_be_given_back_in_an_outage() -> None:
    async with Outage() as outage:
        taking = await outage.store.take([a_charge()])
        outage.primary.health = Health.REFUSES
        for _ in range(3):
            with pytest.raises(CounterStoreError, match="no answer"):
                await outage.store.give_back([a_charge()], at_us=taking.at_us)
        with pytest.raises(CounterStoreError, match="stays charged"):
            await outage.store.give_back([a_charge()], at_us=taking.at_us)
        await outage.end()
        await outage.store.give_back([a_charge()], at_us=taking.at_us)
        assert await outage.counted(a_charge()) == 0


async def test_gives_nothing_back_of_a_refusal_of_here() -> None:
    async with Outage() as outage:
        await outage.begin()
        assert await outage.take(a_charge(1))
        assert not await outage.take(a_charge(1), dedup_id="refused")
        await outage.store.give_back([a_charge(1)], dedup_id="refused")
        assert not await outage.take(a_charge(1))


# Cancelling


async def test_a_cancelled_request_is_counted_nowhere_else() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.GATED
        waiting = asyncio.create_task(outage.take(a_charge()))
        await outage.time.advance(0.001)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert len(outage.local) == 0
        assert outage.store.state.failures == 0


async def test_callers_that_leave_a_hanging_store_open_the_breaker() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.GATED
        for dedup_id in (None, "a", None):
            waiting = asyncio.create_task(outage.take(a_charge(), dedup_id=dedup_id))
            await outage.time.advance(0.03)
            waiting.cancel()
            await outage.time.advance(0)
            assert waiting.cancelled()
        assert outage.breaker is OPEN
        assert "gave up" in outage.store.state.last_error


async def test_closing_ends_the_recovery_and_closes_both_stores() -> None:
    outage = Outage()
    await outage.begin()
    await outage.store.close()
    assert outage.primary.is_closed and len(outage.local) == 0
    outage.primary.health = Health.UP
    before = len(outage.primary.calls)
    await outage.time.advance(60)
    assert len(outage.primary.calls) == before


@pytest.mark.parametrize("after_s", [0.0, 0.25])
async def test_closing_in_the_midst_of_a_probe_leaves_nothing_running(after_s: float) -> None:
    outage = Outage(rules=FallbackRules(breaker=BreakerRules(failures=1)))
    outage.primary.health = Health.REFUSES
    await outage.take(a_charge())
    outage.primary.health = Health.GATED
    await outage.time.advance(after_s)
    await outage.store.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_closed_store_starts_no_recovery() -> None:
    outage = Outage()
    await outage.store.close()
    await outage.begin()
    assert outage.time.sleepers == [] and asyncio.all_tasks() == {asyncio.current_task()}
