"""When the shared store is asked, left alone, and asked again: the breaker in front of it."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from extauthz.counters.outage.breaker import BreakerState
from extauthz.errors import CounterStoreError
from extauthz.ports import Deadline
from tests.counters.outage.outages import Health, Outage, a_charge

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@pytest.mark.parametrize("health", [Health.HANGS, Health.LOSES_ANSWERS], ids=lambda h: h.value)
async def test_a_hanging_store_costs_three_timeouts_in_all(health: Health) -> None:
    async with Outage() as outage:
        outage.primary.health = health
        began_s = outage.time.monotonic_s
        for _ in range(1000):
            await outage.take(a_charge(10_000))
        assert outage.time.monotonic_s - began_s == pytest.approx(3 * 0.05)
        assert len(outage.primary.calls) == 3


async def test_a_probe_takes_nothing_and_nobody_waits_for_it() -> None:
    async with Outage() as outage:
        await outage.begin(Health.HANGS)
        await outage.take(a_charge(key="{recent}"))
        outage.primary.health = Health.GATED
        await outage.time.advance(0.25)
        assert outage.breaker is HALF_OPEN
        assert [await outage.take(a_charge(3)) for _ in range(4)] == [True] * 3 + [False]
        probe = outage.primary.calls[-1]
        assert len(outage.primary.calls) == 4
        assert [(charge.key, charge.cost) for charge in probe.charges] == [("{recent}", 0)]
        outage.primary.gate.set()
        await outage.time.advance(0)
        assert outage.breaker is CLOSED


async def test_probes_one_at_a_time_at_growing_distances() -> None:
    async with Outage() as outage:
        await outage.begin()
        probes = []
        for _ in range(300):
            before = len(outage.primary.calls)
            await outage.time.advance(0.05)
            await outage.take(a_charge(10_000))
            if len(outage.primary.calls) > before:
                assert len(outage.primary.calls) == before + 1
                probes.append(outage.time.monotonic_s)
        waits = [later - former for former, later in pairwise(probes)]
        assert waits == pytest.approx([0.5, 1, 2, 4, 5], abs=0.06)


async def test_replicas_do_not_probe_together() -> None:
    async with Outage(random=0.0) as outage:
        await outage.begin()
        await outage.time.advance(0.124)
        assert len(outage.primary.calls) == 3
        await outage.time.advance(0.002)
        assert len(outage.primary.calls) == 4


async def test_comes_back_without_any_traffic() -> None:
    async with Outage() as outage:
        await outage.begin()
        assert await outage.take(a_charge())
        await outage.end()
        assert await outage.counted(a_charge()) == 1
        assert outage.time.sleepers == []


async def test_asks_the_primary_again_after_it_came_back() -> None:
    async with Outage(share=0.1) as outage:
        await outage.begin()
        await outage.end()
        calls = len(outage.primary.calls)
        assert [await outage.take(a_charge(4)) for _ in range(5)] == [True] * 4 + [False]
        assert len(outage.primary.calls) == calls + 5


async def test_a_store_that_answers_probes_alone_is_left_alone_again_after_one_failure() -> None:
    async with Outage() as outage:
        await outage.begin()
        await outage.end()
        outage.primary.health = Health.HANGS
        await outage.take(a_charge())
        assert outage.breaker is OPEN


async def test_a_refusal_proves_no_answer() -> None:
    async with Outage() as outage:
        full = a_charge(0)
        for _ in range(3):
            outage.primary.health = Health.REFUSES
            await outage.take(a_charge())
            outage.primary.health = Health.UP
            assert not await outage.take(full)
        assert outage.breaker is OPEN


async def test_a_success_between_failures_keeps_it_closed() -> None:
    async with Outage() as outage:
        for _ in range(5):
            outage.primary.health = Health.REFUSES
            await outage.take(a_charge(100))
            await outage.take(a_charge(100))
            outage.primary.health = Health.UP
            assert await outage.take(a_charge(100))
        assert outage.breaker is CLOSED


async def test_a_caller_in_a_hurry_does_not_open_it() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.HANGS
        for _ in range(10):
            deadline = Deadline(outage.time.monotonic_s + 0.005)
            with pytest.raises(CounterStoreError):
                await outage.store.take([a_charge()], deadline=deadline)
        assert outage.breaker is CLOSED
        assert outage.store.state.failures == 0


async def test_waits_no_longer_than_the_caller() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.HANGS
        began_s = outage.time.monotonic_s
        with pytest.raises(CounterStoreError, match="no answer"):
            await outage.store.take([a_charge()], deadline=Deadline(began_s + 0.02))
        assert outage.time.monotonic_s - began_s == pytest.approx(0.02)
        # Nobody waits any more, so nothing was counted for it.
        assert len(outage.local) == 0
        assert outage.store.state.failures == 1


async def test_has_time_left_to_answer_here() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.HANGS
        deadline = Deadline(outage.time.monotonic_s + 0.2)
        assert (await outage.store.take([a_charge()], deadline=deadline)).charged


async def test_a_defect_of_the_primary_is_no_outage() -> None:
    class Defect(Exception):
        pass

    async with Outage() as outage:

        async def fail(*_: object, **__: object) -> None:
            raise Defect

        outage.primary.take = fail  # type: ignore[assignment, method-assign]
        with pytest.raises(Defect):
            await outage.take(a_charge())
        assert len(outage.local) == 0


async def test_a_hanging_store_costs_three_timeouts_however_many_wait_for_it() -> None:
    async with Outage() as outage:
        charge = a_charge(2000)
        admitted, asked = 0, []
        for _ in range(5):
            before = len(outage.primary.calls)
            outage.primary.health = Health.GATED
            outage.primary.gate.clear()
            waiting = [asyncio.create_task(outage.take(charge)) for _ in range(1000)]
            await outage.time.advance(0.05)
            outage.primary.health = Health.HANGS
            outage.primary.gate.set()
            admitted += sum(await asyncio.gather(*waiting))
            asked.append(len(outage.primary.calls) - before)
        assert asked == [1000, 1000, 1000, 0, 0]
        assert admitted == 2000
        assert outage.breaker is OPEN


async def test_calls_that_fail_together_are_one_failure() -> None:
    async with Outage() as outage:
        for _ in range(5):
            outage.primary.health = Health.GATED
            outage.primary.gate.clear()
            waiting = [asyncio.create_task(outage.take(a_charge(10**6))) for _ in range(32)]
            await outage.time.advance(0.001)
            outage.primary.health = Health.REFUSES
            outage.primary.broken = frozenset({"{a}1"})
            outage.primary.gate.set()
            assert all(await asyncio.gather(*waiting))
            outage.primary.broken = frozenset()
            outage.primary.health = Health.UP
            assert await outage.take(a_charge(10**6))
        assert outage.store.state.failures == 5 * 32
        assert outage.seen == []
