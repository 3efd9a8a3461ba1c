"""Looks at the shared store: how it does is known also when nobody calls."""

from __future__ import annotations

import asyncio
import logging

import pytest

from extauthz.counters.outage.breaker import BreakerState
from extauthz.model.limits import Taking
from tests.counters.outage.outages import Health, Outage

CLOSED, OPEN = BreakerState.CLOSED, BreakerState.OPEN
PATIENCE_S = 20


async def test_a_look_shows_a_store_that_is_away_though_nobody_calls() -> None:
    async with Outage() as outage:
        await outage.store.look(PATIENCE_S)
        assert not outage.store.state.degraded
        outage.primary.health = Health.REFUSES
        await outage.store.look(PATIENCE_S)
        state = outage.store.state
        assert state.degraded and state.breaker is CLOSED and "no answer" in state.detail
        await outage.store.look(PATIENCE_S)
        await outage.store.look(PATIENCE_S)
        assert outage.breaker is OPEN
        # From then on recovery looks, and nobody else.
        asked = len(outage.primary.calls)
        await outage.store.look(PATIENCE_S)
        assert len(outage.primary.calls) == asked
        await outage.end()
        assert not outage.store.state.degraded
        assert (outage.store.state.charged_back, outage.store.state.admitted_locally) == (0, 0)


async def test_one_answer_ends_what_a_failed_look_had_shown() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.REFUSES
        await outage.store.look(PATIENCE_S)
        outage.primary.health = Health.UP
        assert outage.store.state.degraded
        await outage.store.look(PATIENCE_S)
        assert not outage.store.state.degraded and outage.seen == []


async def test_a_look_is_waited_for_a_limited_time_and_is_not_repeated_meanwhile() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.GATED
        for _ in range(3):
            await outage.store.look(0.001)
        assert len(outage.primary.calls) == 1
        assert not outage.store.state.degraded
        # What became of it is noted all the same.
        outage.primary.health = Health.REFUSES
        outage.primary.gate.set()
        await outage.store.look(PATIENCE_S)
        assert len(outage.primary.calls) == 1
        assert outage.store.state.degraded


async def test_a_look_that_is_under_way_ends_with_the_store() -> None:
    async with Outage() as outage:
        outage.primary.health = Health.GATED
        await outage.store.look(0.001)
    assert outage.primary.is_closed
    assert [it for it in asyncio.all_tasks() if it is not asyncio.current_task()] == []


async def test_a_defect_in_a_look_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> Taking:
        raise RuntimeError("a defect")

    async with Outage() as outage:
        with monkeypatch.context() as patch, caplog.at_level(logging.ERROR):
            patch.setattr(outage.primary, "take", fail)
            await outage.store.look(PATIENCE_S)
        assert [record.levelname for record in caplog.records] == ["ERROR"]
        assert not outage.store.state.degraded
