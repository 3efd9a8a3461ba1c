"""Workers as one host: what becomes of them when one ends, or cannot start."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from extauthz.errors import ConfigError, Problem
from extauthz.serving.listen import ListenAddress, read_listen_address
from extauthz.serving.workers.control import HostFailed
from extauthz.serving.workers.workers import MAX_FAILED_STARTS, Workers

PATIENCE_S = 20
ADDRESS = read_listen_address("127.0.0.1:1234")


class Scripted:
    """A worker without a process, which ends when a test wants it to."""

    def __init__(self, number: int, *, failure: Exception | None = None) -> None:
        self.number = number
        self.said: list[str] = []
        self.stopped_with_s: list[float] = []
        self.silent = False
        self._failure = failure
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        return (ADDRESS,)

    @property
    def process_id(self) -> int | None:
        return 1000 + self.number

    async def start(self) -> None:
        if self._failure is not None:
            raise self._failure

    def tell(self, word: str) -> None:
        self.said.append(word)

    async def ask(self, question: str, of: object = None, *, within_s: float) -> Any:
        if self.silent:
            raise HostFailed(f"no answer within {within_s:g} s")
        return f"{question} {self.number}"

    async def wait_ended(self) -> None:
        await asyncio.shield(self._ended)

    async def stop(self, grace_s: float) -> None:
        self.stopped_with_s.append(grace_s)
        if not self._ended.done():
            self._ended.set_result(None)

    def die(self) -> None:
        self._ended.set_exception(HostFailed("it ended by itself (signal 9)"))


class Stage:
    """Makes workers, and keeps all that were made."""

    def __init__(self, count: int) -> None:
        self.made: list[Scripted] = []
        self.failures: list[Exception | None] = []
        """Of the starts to come; then they succeed."""
        self.changed = asyncio.Event()
        self.workers = Workers(self.make, count, first_pause_s=0.001)

    def make(self, number: int) -> Scripted:
        failure = self.failures.pop(0) if self.failures else None
        worker = Scripted(number, failure=failure)
        self.made.append(worker)
        self.changed.set()
        return worker

    async def wait_until(self, happened: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not happened():  # noqa: ASYNC110 - several things may happen
                await asyncio.sleep(0)


Make: TypeAlias = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def make_stage() -> AsyncIterator[Make]:
    stages: list[Stage] = []

    async def make(count: int = 2) -> Stage:
        stages.append(stage := Stage(count))
        await stage.workers.start()
        return stage

    yield make
    for stage in stages:
        await stage.workers.stop(0)


async def test_all_workers_are_one_host(make_stage: Make) -> None:
    stage = await make_stage(3)
    assert sorted(worker.number for worker in stage.made) == [1, 2, 3]
    assert stage.workers.addresses == (ADDRESS,)
    assert len(stage.workers.process_ids) == 3
    stage.workers.tell("serve")
    assert [worker.said for worker in stage.made] == [["serve"]] * 3
    await stage.workers.stop(1.5)
    assert [worker.stopped_with_s for worker in stage.made] == [[1.5]] * 3
    await asyncio.wait_for(stage.workers.wait_ended(), PATIENCE_S)


async def test_a_start_that_fails_ends_those_that_serve() -> None:
    stage = Stage(3)
    stage.failures = [None, None, ConfigError([Problem(message="is not good")])]
    with pytest.raises(ConfigError, match="is not good"):
        await stage.workers.start()
    assert stage.workers.addresses == ()
    assert all(worker.stopped_with_s == [0] for worker in stage.made[:2])


async def test_what_is_wrong_with_every_worker_is_said_by_the_first_alone() -> None:
    stage = Stage(3)
    stage.failures = [HostFailed("first")]
    with pytest.raises(HostFailed, match="first"):
        await stage.workers.start()
    assert len(stage.made) == 1


async def test_a_worker_that_ends_is_replaced_and_told_what_holds(
    make_stage: Make, caplog: pytest.LogCaptureFixture
) -> None:
    stage = await make_stage()
    stage.workers.tell("serve")
    stage.workers.tell("reload")
    before = stage.workers.serials
    stage.made[1].die()
    await stage.wait_until(lambda: stage.workers.restarts == 1)
    replaced = stage.made[2]
    assert replaced.number == stage.made[1].number
    assert replaced.said == ["serve"]
    assert stage.made[1].stopped_with_s == [0]
    assert len(stage.workers.serials) == 2 and len(stage.workers.serials & before) == 1
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage() == (
        "worker 2: it ended by itself (signal 9); it is started again in 0 s"
    )


async def test_a_worker_that_cannot_be_replaced_is_tried_again_while_another_serves(
    make_stage: Make, caplog: pytest.LogCaptureFixture
) -> None:
    stage = await make_stage()
    stage.failures = [HostFailed("not now")] * (MAX_FAILED_STARTS + 2)
    ending = asyncio.create_task(stage.workers.wait_ended())
    stage.made[0].die()
    await stage.wait_until(lambda: stage.workers.restarts == 1)
    assert not ending.done()
    pauses = [
        record.getMessage().rpartition(" in ")[2]
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]
    assert pauses == [
        *("0 s", "0.001 s", "0.002 s", "0.004 s", "0.008 s", "0.016 s", "0.032 s", "0.064 s")
    ]
    assert "could not be started: not now" in caplog.text
    ending.cancel()


@pytest.mark.parametrize(
    ("failure", "says"),
    [(OSError("no more processes"), "no more processes"), (ValueError("odd"), "a defect")],
)
async def test_gives_up_when_nobody_serves_and_nobody_can_be_started(
    make_stage: Make, failure: Exception, says: str
) -> None:
    stage = await make_stage(1)
    stage.failures = [failure] * 100
    stage.made[0].die()
    with pytest.raises(HostFailed, match=f"no worker serves any more; .*{says}"):
        await asyncio.wait_for(stage.workers.wait_ended(), PATIENCE_S)
    assert len(stage.made) == 1 + MAX_FAILED_STARTS


async def test_answers_are_of_those_that_gave_one(make_stage: Make) -> None:
    stage = await make_stage()
    first, second = sorted(stage.workers.serials)
    answers = await stage.workers.ask("who", within_s=1)
    assert answers == {first: "who 1", second: "who 2"}
    stage.made[0].silent = True
    assert await stage.workers.ask("who", within_s=1) == {second: "who 2"}


async def test_a_stop_starts_nobody_again(make_stage: Make) -> None:
    stage = await make_stage()
    await stage.workers.stop(0)
    await stage.workers.stop(0)
    assert len(stage.made) == 2 and stage.workers.restarts == 0


async def test_starts_once(make_stage: Make) -> None:
    stage = await make_stage()
    with pytest.raises(RuntimeError, match="started before"):
        await stage.workers.start()


def test_needs_one_worker() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Workers(Scripted, 0)
