"""A shared store that goes away when a test says so, and time that passes when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, Self

from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.outage.breaker import BreakerState
from extauthz.counters.outage.fallback import FallbackCounterStore
from extauthz.counters.outage.mode import FallbackState
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge, OutageMode, Taking
from extauthz.ports import NO_DEADLINE, CounterStore, Deadline
from tests.builders import START_US, FakeClock, S

W = 60 * S
FIRST_US = START_US - START_US % W + W
"""A window begins here, and every test."""


class FakeTime:
    """Wall clock, monotonic clock and sleeping, all moved by `advance`."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock(FIRST_US)
        self.monotonic_s = 1000.0
        self.sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def monotonic(self) -> float:
        return self.monotonic_s

    async def sleep(self, seconds: float) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.monotonic_s + seconds, waiter))
        await waiter

    async def advance(self, seconds: float) -> None:
        """Lets time pass, and all that was waiting for it happen."""
        await settle()
        self.pass_by(seconds)
        await settle()

    def pass_by(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.clock.advance(seconds)
        due = [waiter for until_s, waiter in self.sleepers if until_s <= self.monotonic_s]
        self.sleepers = [one for one in self.sleepers if one[1] not in due]
        for waiter in due:
            if not waiter.done():
                waiter.set_result(None)


async def settle() -> None:
    """Runs everything that can run now. Enough turns for what a test starts at once."""
    for _ in range(200):
        await asyncio.sleep(0)


class Health(Enum):
    """How the primary answers."""

    UP = "up"
    REFUSES = "refuses"
    """It fails at once, with nothing charged."""
    HANGS = "hangs"
    """It fails at the deadline, with nothing charged."""
    LOSES_ANSWERS = "loses answers"
    """It charges, and fails at the deadline all the same."""
    GATED = "gated"
    """It waits until the test opens the gate, then charges and answers."""


@dataclass
class Call:
    """One taking that reached the primary."""

    charges: tuple[Charge, ...]
    dedup_id: str | None
    charged: bool = False


class ScriptedPrimary:
    """A `CounterStore` over a `MemoryCounterStore`; several replicas may share that one."""

    def __init__(self, time: FakeTime, store: MemoryCounterStore | None = None) -> None:
        self.time = time
        self.store = MemoryCounterStore(time.clock) if store is None else store
        self.health = Health.UP
        self.error = CounterStoreError("no answer")
        self.broken: frozenset[str] = frozenset()
        """Keys for which it fails even when it is up."""
        self.on_payment: Callable[[], Awaitable[None]] | None = None
        """Called when what was admitted in an outage is about to be charged."""
        self.after_payment: Callable[[], Awaitable[None]] | None = None
        self.gives_back = True
        self.calls: list[Call] = []
        self.gate = asyncio.Event()
        self.is_closed = False

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        call = Call(tuple(charges), dedup_id)
        self.calls.append(call)
        if self.health is Health.GATED:
            await self.gate.wait()
        taking = None
        is_payment = dedup_id is not None and dedup_id.startswith("owed-")
        if is_payment and self.on_payment is not None:
            await self.on_payment()
        if any(charge.key in self.broken for charge in charges):
            raise self.error
        if self.health in (Health.UP, Health.GATED, Health.LOSES_ANSWERS):
            taking = await self.store.take(charges, dedup_id=dedup_id)
            call.charged = taking.charged
        if is_payment and self.after_payment is not None:
            await self.after_payment()
        return (
            taking if taking and self.health is not Health.LOSES_ANSWERS else self._fail(deadline)
        )

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        if self.health is not Health.UP or not self.gives_back:
            raise self.error
        await self.store.give_back(charges, at_us=at_us, dedup_id=dedup_id)

    async def close(self) -> None:
        self.is_closed = True

    def _fail(self, deadline: Deadline) -> Taking:
        if self.health is not Health.REFUSES:
            assert deadline.monotonic_s is not None, "the primary may be waited for without end"
            self.time.pass_by(max(0.0, deadline.monotonic_s - self.time.monotonic_s))
        raise self.error


class Outage:
    """A fallback store over a scripted primary, with time in hand."""

    def __init__(
        self,
        *,
        share: float = 1,
        time: FakeTime | None = None,
        shared: MemoryCounterStore | None = None,
        max_keys: int = 1000,
        random: float = 1.0,
        **options: Any,
    ) -> None:
        self.time = time or FakeTime()
        self.primary = ScriptedPrimary(self.time, shared)
        self.local = MemoryCounterStore(self.time.clock, max_keys)
        self.seen: list[FallbackState] = []
        self.store = FallbackCounterStore(
            self.primary,
            self.local,
            self.time.clock,
            share=share,
            observe=self.seen.append,
            monotonic=self.time.monotonic,
            sleep=self.time.sleep,
            random=lambda: random,
            **options,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.store.close()

    @property
    def breaker(self) -> BreakerState:
        return self.store.state.breaker

    async def begin(self, health: Health = Health.REFUSES) -> None:
        """The primary goes away, and the breaker has seen it."""
        self.primary.health = health
        for number in range(3):
            await self.store.take([a_charge(key=f"{{opens}}{number}")])
        assert self.breaker is BreakerState.OPEN

    async def end(self) -> None:
        """The primary is back, and so is the store."""
        self.primary.health = Health.UP
        await self.time.advance(5)
        assert self.breaker is BreakerState.CLOSED

    async def take(self, *charges: Charge, dedup_id: str | None = None) -> bool:
        return (await self.store.take(charges, dedup_id=dedup_id)).charged

    @property
    def payments(self) -> list[Call]:
        """The calls that charged, or tried to, what was admitted in an outage."""
        calls = self.primary.calls
        return [call for call in calls if call.dedup_id and call.dedup_id.startswith("owed-")]

    async def counted(self, charge: Charge) -> int:
        """How much of a window the primary has counted; a limit too large to reach."""
        look = replace(charge, cost=0, limit=10**6)
        return 10**6 - (await self.primary.store.take([look])).readings[0].remaining


def a_charge(
    limit: int = 10,
    *,
    key: str = "{a}1",
    cost: int = 1,
    mode: OutageMode = OutageMode.LOCAL,
    algorithm: Algorithm = Algorithm.FIXED_WINDOW,
    enforced: bool = True,
    window_us: int = W,
    bounds: tuple[int, ...] = (),
) -> Charge:
    return Charge(key, algorithm, limit, window_us, cost, enforced, bounds, mode)


async def make_fallback(clock: FakeClock) -> CounterStore:
    """For the contract: over a primary that is well."""
    return Outage(share=0.5, time=FakeTime(clock)).store


async def make_fallback_in_outage(clock: FakeClock) -> CounterStore:
    """For the contract: in an outage without end, the only replica."""
    outage = Outage(time=FakeTime(clock))
    await outage.begin()
    return outage.store
