"""Blocks and revocations come into force from all sources, and stay while one is away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from extauthz.app.emergency import check_ready
from extauthz.emergency.entries import make_rules
from extauthz.emergency.reading import Reading
from extauthz.emergency.watch import EmergencyWatch
from extauthz.errors import EmergencyError, Problem
from extauthz.model.applications import Application
from extauthz.model.catalog import Catalog
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.blocks import Blocks
from extauthz.serving.admin.readiness import ReadyState
from tests.builders import START_US, FakeClock, S
from tests.emergency.stores import a_block, a_revocation, by_id

WEB = a_block(application="web", reason="leaked")
SOON_OVER = a_block(application="mobile", until="2023-11-14T22:13:30Z")
"""Ten seconds after a FakeClock's start."""
TOKEN = a_revocation(jti="t-1")


class FakeStore:
    """Passes on what a test says. It can be away."""

    def __init__(self, name: str = "fake") -> None:
        self.name = name
        self.reading: Reading | None = None
        self.error: EmergencyError | None = None
        self.confirmed = 0
        self.confirm_error: EmergencyError | None = None
        self.was_closed = False

    def say(self, *entries: object, problems: tuple[Problem, ...] = ()) -> None:
        self.reading = Reading(by_id(*entries), problems)  # type: ignore[arg-type]

    async def look(self) -> Reading | None:
        if self.error is not None:
            raise self.error
        reading, self.reading = self.reading, None
        return reading

    async def write(self, entries: object) -> str:
        raise NotImplementedError

    async def list_confirmed(self) -> dict[str, str]:
        raise NotImplementedError

    async def confirm(self) -> None:
        self.confirmed += 1
        if self.confirm_error is not None:
            raise self.confirm_error

    async def close(self) -> None:
        self.was_closed = True


class Watching:
    """A watch over stores, and what decisions go by."""

    def __init__(self, *stores: FakeStore, is_required: bool = False) -> None:
        self.clock = FakeClock()
        self.blocks, self.revocations = Blocks(self.clock), Revocations(self.clock)
        self.catalog = Catalog(applications=[Application(name="web"), Application(name="mobile")])
        self.watch = EmergencyWatch(
            stores,
            blocks=self.blocks,
            revocations=self.revocations,
            clock=self.clock,
            catalog=lambda: self.catalog,
            is_required=is_required,
            sleep=lambda _: asyncio.sleep(0),
        )

    def refuses(self, application: str) -> bool:
        return self.blocks.find_for_name(self.catalog, application) is not None

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.watch.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not happened():  # noqa: ASYNC110 - several things may happen
            await asyncio.sleep(0)


async def test_entries_of_all_sources_are_in_force_together() -> None:
    first, second = FakeStore("first"), FakeStore("second")
    first.say(WEB)
    second.say(SOON_OVER, TOKEN)
    watching = Watching(first, second)
    await watching.watch.start()
    assert watching.refuses("web") and watching.refuses("mobile")
    assert watching.revocations.judge(token_id="t-1")
    rule = watching.blocks.find_for_name(watching.catalog, "web")
    assert rule is not None and rule.name == WEB.id
    assert watching.watch.count() == 3


async def test_an_entry_ends_when_its_time_is_over() -> None:
    store = FakeStore()
    store.say(SOON_OVER, a_revocation(jti="t-1", until="2023-11-14T22:13:30Z"))
    watching = Watching(store)
    await watching.watch.start()
    watching.clock.us = START_US + 10 * S - 1
    assert watching.refuses("mobile") and watching.revocations.judge(token_id="t-1")
    watching.clock.us = START_US + 10 * S
    assert not watching.refuses("mobile")
    assert watching.revocations.judge(token_id="t-1") is None
    assert watching.watch.count() == 0


async def test_news_come_into_force_and_are_confirmed() -> None:
    store = FakeStore()
    store.say()
    watching = Watching(store)
    await watching.watch.start()
    async with watching.running():
        await until(lambda: store.confirmed == 1)
        store.say(WEB)
        await until(lambda: watching.refuses("web"))
        await until(lambda: store.confirmed == 2)
        store.say(TOKEN)
        await until(lambda: not watching.refuses("web"))
        assert watching.revocations.judge(token_id="t-1")


async def test_a_source_that_goes_away_leaves_in_force_what_it_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, other = FakeStore(), FakeStore("other")
    store.say(WEB)
    other.say()
    watching = Watching(store, other)
    await watching.watch.start()
    assert check_ready(watching.watch).state is ReadyState.READY
    async with watching.running():
        store.error = EmergencyError("it is away")
        await until(lambda: not watching.watch.is_good)
        assert watching.refuses("web")
        ready = check_ready(watching.watch)
        assert ready.state is ReadyState.DEGRADED
        assert ready.facts == {
            "in_force": 1, "problems": 0, "unread_sources": 1, "last_error": "it is away",
        }  # fmt: skip
        # The other one is not held up.
        other.say(TOKEN)
        await until(lambda: watching.revocations.judge(token_id="t-1") is not None)
        store.error = None
        await until(lambda: watching.watch.is_good)
        assert watching.refuses("web")
    told = [record.getMessage() for record in caplog.records if "it is away" in record.message]
    assert told == [
        "emergency_failed: fake cannot be read: it is away; what was in force stays in force"
    ]


async def test_problems_are_told_once_and_shown_while_they_last(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FakeStore()
    problem = Problem(file="blocks.yaml", line=3, message="is wrong")
    store.say(WEB, problems=(problem,))
    watching = Watching(store)
    await watching.watch.start()
    assert watching.refuses("web")
    ready = check_ready(watching.watch)
    assert ready.state is ReadyState.DEGRADED
    assert ready.facts["last_error"] == "blocks.yaml:3: is wrong"
    assert (
        "emergency_failed: blocks.yaml:3: is wrong; what was in force stays in force" in caplog.text
    )
    async with watching.running():
        store.say(WEB)
        await until(lambda: watching.watch.is_good)
    assert caplog.text.count("is wrong") == 1


async def test_a_source_that_is_required_keeps_a_process_from_starting() -> None:
    store = FakeStore()
    store.error = EmergencyError("it is away")
    with pytest.raises(EmergencyError, match=r"it is away \(emergency.required is true\)"):
        await Watching(store, is_required=True).watch.start()
    watching = Watching(store)
    await watching.watch.start()
    assert not watching.watch.is_good and not watching.refuses("web")
    await watching.watch.close()
    assert store.was_closed


async def test_a_name_that_fits_nothing_is_warned_of_also_when_the_catalog_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FakeStore()
    store.say(WEB, a_block(application="Mobile", id="typo"))
    watching = Watching(store)
    await watching.watch.start()
    expected = "typo of : application 'Mobile' fits nothing in the catalog; did you mean 'mobile'?"
    assert [it.getMessage() for it in caplog.records if it.levelno == logging.WARNING] == [expected]
    caplog.clear()
    async with watching.running():
        watching.catalog = Catalog(applications=[Application(name="mobile")], revision="2")
        await until(lambda: "application 'web' fits nothing" in caplog.text)
    assert "typo" not in caplog.text


async def test_who_lifts_and_blocks_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    store = FakeStore()
    store.say(WEB)
    watching = Watching(store)
    await watching.watch.start()
    async with watching.running():
        store.say()
        await until(lambda: not watching.refuses("web"))
    assert f"{WEB.id} of  is in force: application web" in caplog.text
    assert f"{WEB.id} of  is no longer in force: application web" in caplog.text


async def test_a_defect_of_one_source_does_not_end_the_watch(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FakeStore()
    store.say()
    watching = Watching(store)
    await watching.watch.start()
    async with watching.running():
        store.reading = 7  # type: ignore[assignment]
        await until(lambda: "it is tried again" in caplog.text)
        store.say(WEB)
        await until(lambda: watching.refuses("web"))


async def test_a_source_that_takes_no_confirmation_is_read_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = FakeStore()
    store.say()
    store.confirm_error = EmergencyError("no permission")
    watching = Watching(store)
    await watching.watch.start()
    async with watching.running():
        await until(lambda: store.confirmed == 1)
        store.say(WEB)
        await until(lambda: watching.refuses("web"))
        await until(lambda: store.confirmed == 2)
        assert watching.watch.is_good
    assert caplog.text.count("no permission") == 1


async def test_what_could_not_be_put_in_force_is_put_there_with_the_next_look(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = FakeStore()
    store.say()
    watching = Watching(store)
    await watching.watch.start()
    name = "extauthz.emergency.watch.make_rules"

    def fail(_: object) -> None:
        monkeypatch.setattr(name, make_rules)
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(name, fail)
    async with watching.running():
        store.say(WEB)
        await until(lambda: watching.refuses("web"))
    assert "it is tried again" in caplog.text
