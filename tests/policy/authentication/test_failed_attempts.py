"""Guessing costs the guesser, and nobody else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.decision import Denial, Reason
from extauthz.model.limits import Charge, LimitLevel, Taking
from extauthz.policy.authentication.failed_attempts import FailedAttempts, FailureLimit
from extauthz.ports import NO_DEADLINE, CounterStore, Deadline
from tests.builders import FakeClock, S

LIMIT = FailureLimit(requests=2, window_us=60 * S)


class Attempts:
    """Failed attempts with a clock."""

    def __init__(self, limit: FailureLimit | None = LIMIT, max_keys: int = 100) -> None:
        self.clock = FakeClock()
        self.counters = MemoryCounterStore(self.clock, max_keys=max_keys)
        self.attempts = FailedAttempts(limit, self.counters)

    async def fail(self, address: str, times: int = 1) -> None:
        for _ in range(times):
            await self.attempts.record(address, NO_DEADLINE)

    async def check(self, address: str) -> Denial | None:
        return await self.attempts.check(address, NO_DEADLINE)


async def test_refuses_an_address_that_has_failed_too_often() -> None:
    attempts = Attempts()
    await attempts.fail("192.0.2.1")
    assert await attempts.check("192.0.2.1") is None
    await attempts.fail("192.0.2.1")
    denial = await attempts.check("192.0.2.1")
    assert denial is not None
    assert (denial.reason, denial.level) == (Reason.RATE_LIMITED, LimitLevel.CLIENT)
    assert 0 < denial.retry_after_us <= 60 * S


async def test_lets_the_address_try_again_in_the_next_window() -> None:
    attempts = Attempts()
    await attempts.fail("192.0.2.1", 2)
    denial = await attempts.check("192.0.2.1")
    assert denial is not None
    attempts.clock.us += denial.retry_after_us
    assert await attempts.check("192.0.2.1") is None


async def test_looking_costs_nothing() -> None:
    attempts = Attempts()
    for _ in range(10):
        assert await attempts.check("192.0.2.1") is None
    assert len(attempts.counters) == 0


@pytest.mark.parametrize(
    ("failing", "asking", "refused"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:0:9999::", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("no address", "no address", True),
        ("x" * 64, "x" * 64 + "y", True),
        ("::", "0.0.0.0", False),
    ],
)
async def test_counts_by_address_and_ipv6_by_site(
    failing: str, asking: str, *, refused: bool
) -> None:
    attempts = Attempts()
    await attempts.fail(failing, 2)
    assert (await attempts.check(asking) is not None) is refused


async def test_clients_whose_address_is_not_known_are_counted_as_one() -> None:
    attempts = Attempts()
    await attempts.fail("", 2)
    assert await attempts.check("") is not None
    assert await attempts.check("192.0.2.1") is None


async def test_without_a_limit_nothing_is_counted() -> None:
    attempts = Attempts(limit=None)
    await attempts.fail("192.0.2.1", 5)
    assert await attempts.check("192.0.2.1") is None
    assert len(attempts.counters) == 0


async def test_a_full_store_refuses_nobody() -> None:
    attempts = Attempts(max_keys=1)
    await attempts.fail("192.0.2.1", 2)
    await attempts.fail("192.0.2.2", 2)
    assert await attempts.check("192.0.2.2") is None
    assert await attempts.check("192.0.2.1") is not None


class AwayStore:
    """A store that does not answer."""

    async def take(
        self,
        charges: Sequence[Charge],
        *,
        dedup_id: str | None = None,
        deadline: Deadline = NO_DEADLINE,
    ) -> Taking:
        raise CounterStoreError("away")

    async def give_back(
        self,
        charges: Sequence[Charge],
        *,
        at_us: int | None = None,
        dedup_id: str | None = None,
    ) -> None:
        raise CounterStoreError("away")

    async def close(self) -> None:
        pass


async def test_a_store_that_is_away_refuses_nobody() -> None:
    store: CounterStore = AwayStore()
    attempts = FailedAttempts(LIMIT, store)
    await attempts.record("192.0.2.1", NO_DEADLINE)
    assert await attempts.check("192.0.2.1", NO_DEADLINE) is None
