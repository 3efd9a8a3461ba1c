"""Laws of counting through outages: nothing twice, nothing that the modes forbid, and the bound."""

from __future__ import annotations

import asyncio
from math import ceil

from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.outage.breaker import BreakerState
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, OutageMode
from tests.counters.outage.outages import FakeTime, Health, Outage, W, a_charge

ALLOW, DENY, LOCAL = OutageMode.ALLOW, OutageMode.DENY, OutageMode.LOCAL
KEYS = 3
SICK = [Health.REFUSES, Health.HANGS, Health.LOSES_ANSWERS]

asked = st.tuples(
    st.just("take"),
    st.sets(st.integers(0, KEYS - 1), min_size=1),
    st.integers(1, 3),
    st.sampled_from([None, "a", "b"]),
)
health = st.tuples(st.just("health"), st.sampled_from([Health.UP, *SICK]))
wait = st.tuples(st.just("wait"), st.sampled_from([0.01, 0.3, 1.0]))
Step = tuple[object, ...]


def name(number: int) -> str:
    return f"{{{number}}}"


async def heal(outage: Outage) -> None:
    outage.primary.health = Health.UP
    for _ in range(5):
        await outage.time.advance(5)
    assert outage.breaker is BreakerState.CLOSED
    assert outage.store.state.debts == 0
    assert outage.time.sleepers == []


@given(
    steps=st.lists(st.one_of(asked, asked, asked, health, wait), max_size=40),
    modes=st.lists(st.sampled_from(OutageMode), min_size=KEYS, max_size=KEYS),
    share=st.sampled_from([1, 0.5, 0.1]),
)
@settings(max_examples=150, deadline=None)
def test_the_primary_ends_up_with_what_was_admitted_and_each_request_once(
    steps: list[Step], modes: list[OutageMode], share: float
) -> None:
    async def run() -> None:
        limit = 20
        # One window holds all of it, however long the outages are.
        window_us = 24 * 3600 * 1_000_000
        async with Outage(share=share) as outage:
            due: dict[str, int] = dict.fromkeys(map(name, range(KEYS)), 0)
            answered: dict[tuple[object, ...], object] = {}
            for step in steps:
                if step[0] == "health":
                    outage.primary.health = step[1]  # type: ignore[assignment]
                elif step[0] == "wait":
                    await outage.time.advance(step[1])  # type: ignore[arg-type]
                else:
                    _, keys, cost, dedup_id = step
                    charges = [
                        a_charge(
                            limit,
                            key=name(number),
                            cost=cost,  # type: ignore[arg-type]
                            mode=modes[number],
                            window_us=window_us,
                        )
                        for number in sorted(keys)  # type: ignore[call-overload]
                    ]
                    await take_and_note(outage, charges, dedup_id, due, answered)  # type: ignore[arg-type]
            await heal(outage)
            for key, expected in due.items():
                charge = a_charge(key=key, window_us=window_us)
                assert await outage.counted(charge) == expected
            assert outage.store.state.given_up == 0

    asyncio.run(run())


async def take_and_note(
    outage: Outage,
    charges: list[Charge],
    dedup_id: str | None,
    due: dict[str, int],
    answered: dict[tuple[object, ...], object],
) -> None:
    """Takes, checks what came of it against the modes, and notes what the primary must count."""
    was_asked = outage.breaker is BreakerState.CLOSED
    before = len(outage.primary.calls)
    again = (dedup_id, *[charge.key for charge in charges])
    denies = any(charge.on_outage is DENY for charge in charges)
    try:
        taking = await outage.store.take(charges, dedup_id=dedup_id)
    except CounterStoreError:
        assert denies
        assert outage.primary.health is not Health.UP or not was_asked
        taking = None
    calls = outage.primary.calls[before:]
    charged_there = any(call.charged for call in calls)
    if dedup_id is not None and again in answered:
        if taking is not None:
            assert taking == answered[again]
        return
    if dedup_id is not None and taking is not None:
        answered[again] = taking
    if charged_there:
        if dedup_id is not None and taking is None:
            # The primary remembers it: the repetition is answered from there, uncharged.
            answered[again] = await outage.primary.store.take(charges, dedup_id=dedup_id)
        for charge in charges:
            due[charge.key] += charge.cost
    elif taking is not None and taking.charged and not calls:
        # Admitted here, and never sent to the primary: that is what is owed.
        assert not denies
        for charge in charges:
            if charge.on_outage is LOCAL:
                due[charge.key] += charge.cost
    if calls and outage.primary.health is not Health.UP and taking is not None:
        assert not denies


@given(
    limit=st.integers(1, 12),
    replicas=st.integers(1, 4),
    share=st.sampled_from([None, 1, 0.5, 0.05]),
    algorithm=st.sampled_from([Algorithm.FIXED_WINDOW, Algorithm.SLIDING_WINDOW, Algorithm.BURST]),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("offer"), st.integers(0, 3), st.integers(1, 30)),
            st.tuples(st.just("health"), st.integers(0, 3), st.sampled_from([Health.UP, *SICK])),
            st.tuples(st.just("wait"), st.integers(0, 3), st.integers(0, 20)),
        ),
        max_size=30,
    ),
)
@settings(max_examples=150, deadline=None)
def test_no_window_admits_more_than_its_limit_and_every_replicas_share(
    limit: int,
    replicas: int,
    share: float | None,
    algorithm: Algorithm,
    steps: list[tuple[str, int, int | Health]],
) -> None:
    async def run() -> None:
        time = FakeTime()
        shared = MemoryCounterStore(time.clock)
        of_each = share or 1 / replicas
        outages = [Outage(share=of_each, time=time, shared=shared) for _ in range(replicas)]
        charge = a_charge(limit, algorithm=algorithm)
        admitted: list[int] = []
        for what, number, value in steps:
            outage = outages[number % replicas]
            if what == "health":
                assert isinstance(value, Health)
                outage.primary.health = value
            elif what == "wait":
                assert isinstance(value, int)
                await time.advance(value)
            else:
                assert isinstance(value, int)
                taken = sum([await outage.take(charge) for _ in range(value)])
                admitted += [time.clock.us] * taken
        for outage in outages:
            await outage.store.close()
        local = ceil(round(of_each * limit, 6))
        if algorithm is Algorithm.SLIDING_WINDOW:
            for from_us in admitted:
                total = sum(from_us <= at_us < from_us + W for at_us in admitted)
                assert total <= limit + replicas * local
            return
        if algorithm is Algorithm.FIXED_WINDOW:
            windows: dict[int, int] = {}
            for at_us in admitted:
                windows[at_us // W] = windows.get(at_us // W, 0) + 1
            assert all(count <= limit + replicas * local for count in windows.values())
            return
        # In any stretch of time: what each counter holds at once, and what drains from it.
        for first, from_us in enumerate(admitted):
            for total, until_us in enumerate(admitted[first:], 1):
                stretch = 1 + (until_us - from_us) / W
                assert total <= (limit + replicas * local) * stretch + 1e-6

    asyncio.run(run())


@given(
    limit=st.integers(1, 40),
    replicas=st.integers(1, 5),
    used=st.integers(0, 40),
    offered=st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_one_outage_of_all_replicas_admits_exactly_what_the_bound_says(
    limit: int, replicas: int, used: int, offered: int
) -> None:
    async def run() -> None:
        time = FakeTime()
        shared = MemoryCounterStore(time.clock)
        outages = [
            Outage(share=1 / replicas, time=time, shared=shared, max_keys=100)
            for _ in range(replicas)
        ]
        charge = a_charge(limit, window_us=3600 * 1_000_000)
        before = sum([await outages[0].take(charge) for _ in range(used)])
        assert before == min(used, limit)
        for outage in outages:
            await outage.begin()
        here = 0
        for outage in outages:
            here += sum([await outage.take(charge) for _ in range(offered)])
        assert here == replicas * min(offered, ceil(limit / replicas))
        for outage in outages:
            outage.primary.health = Health.UP
        await time.advance(5)
        after = 0
        for outage in outages:
            after += sum([await outage.take(charge) for _ in range(limit)])
        # Back again, the primary knows of all of it, and lets in only what is left.
        assert after == max(0, limit - before - here)
        assert before + here + after <= limit + replicas * ceil(limit / replicas)
        assert before + here + after <= 2 * limit + replicas - 1
        for outage in outages:
            await outage.store.close()

    asyncio.run(run())
