"""A steady load through Envoy that notes when each answer was asked for and came."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import httpx2

from tests.e2e.running import Gateway, next_client

CALLERS: Final = 4
MAX_ANSWERS: Final = 20_000
"""The load ends by itself here: nothing that a test waits for takes so many."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer; times are of the monotonic clock."""

    status: int
    asked_s: float
    came_s: float


@dataclass(slots=True)
class Load:
    """What was answered so far, and who waits for what."""

    answers: list[Answered] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def wait_for(self, happened: Callable[[], bool], what: str) -> None:
        """Returns when something has happened; it is looked at after each answer."""
        async with self.changed:
            await self.changed.wait_for(lambda: happened() or len(self.answers) >= MAX_ANSWERS)
        assert happened(), f"{what}: did not happen within {len(self.answers)} answers"

    async def wait_for_status(self, status: int) -> None:
        """Returns when an answer that comes from now on has this status."""
        known = len(self.answers)
        await self.wait_for(
            lambda: any(answer.status == status for answer in self.answers[known:]),
            f"an answer with status {status}",
        )

    async def wait_for_more(self, count: int) -> None:
        """Returns when so many more answers have come."""
        wanted = len(self.answers) + count
        await self.wait_for(lambda: len(self.answers) >= wanted, f"{count} more answers")

    @property
    def statuses(self) -> set[int]:
        """Every status that was answered."""
        return {answer.status for answer in self.answers}


@asynccontextmanager
async def steady_load(
    gateway: Gateway, path: str, headers: Mapping[str, str]
) -> AsyncIterator[Load]:
    """Calls all the time while the block runs. A call that fails fails the test."""
    load, ended = Load(), asyncio.Event()
    url = f"http://127.0.0.1:{gateway.port}"

    async def call(client: httpx2.AsyncClient) -> None:
        while not ended.is_set() and len(load.answers) < MAX_ANSWERS:
            asked_s = time.monotonic()
            answer = await client.post(path, headers={**headers, "x-forwarded-for": next_client()})
            load.answers.append(Answered(answer.status_code, asked_s, time.monotonic()))
            async with load.changed:
                load.changed.notify_all()

    async with (
        httpx2.AsyncClient(base_url=url, timeout=60, trust_env=False) as client,
        asyncio.TaskGroup() as callers,
    ):
        for _ in range(CALLERS):
            callers.create_task(call(client))
        try:
            yield load
        finally:
            ended.set()
