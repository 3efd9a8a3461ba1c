"""The catalog in force, while its source changes, breaks and heals."""

# ruff: noqa: ASYNC240  # small files of a test's own
from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from extauthz.catalog.files.source import FileCatalogSource
from extauthz.catalog.refresh import CatalogRefresher
from extauthz.errors import CatalogError, ConfigError
from extauthz.model.catalog import Catalog
from tests.builders import START_US, FakeClock, S, a_catalog, an_api
from tests.catalog.files.test_source import api_text


@pytest.fixture(name="path")
def make_path(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text(api_text("one"))
    return path


def a_refresher(path: Path, clock: FakeClock | None = None) -> CatalogRefresher:
    return CatalogRefresher(FileCatalogSource([path]), clock or FakeClock())


def names_of(catalog: Catalog) -> list[str]:
    return [name for name, _ in catalog.apis]


@contextlib.asynccontextmanager
async def running(refresher: CatalogRefresher) -> AsyncIterator[asyncio.Queue[Catalog]]:
    """Runs a refresher; gives the catalogs that come into force."""
    catalogs: asyncio.Queue[Catalog] = asyncio.Queue()
    refresher.subscribe(catalogs.put_nowait)
    task = asyncio.ensure_future(refresher.run())
    try:
        async with asyncio.timeout(30):
            yield catalogs
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_starts_with_what_the_source_has(path: Path) -> None:
    refresher = a_refresher(path)
    with pytest.raises(RuntimeError, match="await start"):
        _ = refresher.catalog
    await refresher.start()
    assert names_of(refresher.catalog) == ["one"]
    assert (refresher.loaded_at_us, refresher.swaps, refresher.last_error) == (START_US, 1, None)
    assert refresher.problems == 0


async def test_does_not_start_with_a_bad_catalog(path: Path) -> None:
    path.write_text("apis: 5\n")
    with pytest.raises(ConfigError, match="must be a list"):
        await a_refresher(path).start()


async def test_a_changed_file_comes_into_force(path: Path) -> None:
    refresher = a_refresher(path)
    await refresher.start()
    async with running(refresher) as catalogs:
        path.write_text(api_text("three"))
        assert names_of(await catalogs.get()) == ["three"]
        # An editor's way: a new file takes the place of the old one.
        new = path.with_suffix(".tmp")
        new.write_text(api_text("two"))
        new.rename(path)
        catalog = await catalogs.get()
        assert names_of(catalog) == ["two"]
        assert refresher.catalog is catalog


async def test_a_bad_reload_keeps_the_last_good_catalog(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    refresher = a_refresher(path, clock)
    await refresher.start()
    good = refresher.catalog
    path.write_text("apis: 5\ntiers: 6\n")
    clock.advance(60)
    assert not await refresher.reload()
    assert not await refresher.reload()
    assert refresher.catalog is good
    assert refresher.loaded_at_us == START_US
    assert isinstance(refresher.last_error, ConfigError)
    assert (refresher.failures, refresher.problems) == (2, 2)
    errors = [it.getMessage() for it in caplog.records if it.levelno == logging.ERROR]
    assert [message.partition(":")[0] for message in errors] == ["config_invalid"] * 3
    assert f"{path}:1: apis: must be a list" in errors[0]
    assert f"{path}:2: tiers: must be a mapping" in errors[1]
    assert "the last good catalog stays" in errors[2]


async def test_a_reload_says_that_nothing_has_changed(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refresher = a_refresher(path)
    await refresher.start()
    caplog.set_level(logging.INFO)
    caplog.clear()
    assert await refresher.reload()
    assert caplog.messages == ["catalog read again: nothing has changed"]


async def test_a_repaired_catalog_comes_into_force(path: Path) -> None:
    refresher = a_refresher(path)
    await refresher.start()
    async with running(refresher) as catalogs:
        path.write_text("apis: 5\n")
        await refresher.reload()
        assert refresher.last_error is not None
        path.write_text(api_text("two"))
        assert names_of(await catalogs.get()) == ["two"]
        assert refresher.last_error is None


async def test_the_old_catalog_put_back_is_good_again_without_a_swap(path: Path) -> None:
    clock = FakeClock()
    refresher = a_refresher(path, clock)
    await refresher.start()
    good = refresher.catalog
    path.write_text("apis: 5\n")
    assert not await refresher.reload()
    path.write_text(api_text("one"))
    clock.advance(60)
    assert await refresher.reload()
    assert refresher.catalog is good and refresher.last_error is None and refresher.swaps == 1
    assert refresher.loaded_at_us == START_US
    assert refresher.checked_at_us == START_US + 60 * S


async def test_a_subscriber_that_fails_stops_neither_the_others_nor_the_swap(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    refresher = a_refresher(path)
    seen: list[Catalog] = []

    def fail(_: Catalog) -> None:
        raise ValueError

    refresher.subscribe(fail)
    unsubscribe = refresher.subscribe(seen.append)
    await refresher.start()
    assert seen == [refresher.catalog]
    assert "a subscriber to catalogs failed" in caplog.text
    unsubscribe()
    path.write_text(api_text("two"))
    await refresher.reload()
    assert len(seen) == 1


async def test_no_full_collection_begins_until_a_new_catalog_was_put_aside(path: Path) -> None:
    refresher = a_refresher(path)
    before = gc.get_threshold()
    seen: list[tuple[int, int, int]] = []
    refresher.subscribe(lambda _: seen.append(gc.get_threshold()))
    await refresher.start()
    path.write_text(api_text("two"))
    assert await refresher.reload()
    assert len(seen) == 2 and min(full for _, _, full in seen) > 1_000_000
    assert gc.get_threshold() == before


class FlakySource:
    """Gives catalogs and errors in turn, and never has news."""

    def __init__(self, *turns: Catalog | CatalogError) -> None:
        self._turns = list(turns)

    async def load(self) -> Catalog:
        turn = self._turns.pop(0)
        if isinstance(turn, CatalogError):
            raise turn
        return turn

    async def wait_for_change(self) -> None:
        await asyncio.Event().wait()


async def test_a_source_that_could_not_be_read_is_asked_again_without_news() -> None:
    first, second = a_catalog(an_api(name="one")), a_catalog(an_api(name="two"))
    source = FlakySource(first, CatalogError("away"), CatalogError("away"), second)
    refresher = CatalogRefresher(source, FakeClock(), retry_s=0.01)
    await refresher.start()
    assert not await refresher.reload()
    async with running(refresher) as catalogs:
        assert await catalogs.get() is second
    assert refresher.failures == 2
