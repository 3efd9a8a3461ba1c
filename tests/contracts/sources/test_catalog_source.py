"""What every source of catalogs does: a file, a folder, and what a process of its own reads."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from extauthz.catalog.files.source import FileCatalogSource
from extauthz.errors import ConfigError
from extauthz.model.catalog import Catalog
from extauthz.ports import CatalogSource
from tests.catalog.files.test_source import api_text

WAIT_S: Final = 60


@dataclass(frozen=True)
class Kept:
    """A source, and the file with its catalog."""

    source: CatalogSource
    file: Path

    def put_api(self, name: str) -> None:
        self.file.write_text(api_text(name))

    def put_mistake(self) -> None:
        self.file.write_text("apis: [{nmae: typo}]")


async def _look_at_once(_: float) -> None:
    """In the place of waiting for files that still change."""


def keep_file(folder: Path) -> Kept:
    file = folder / "catalog.yaml"
    return Kept(FileCatalogSource([file], sleep=_look_at_once), file)


def keep_folder(folder: Path) -> Kept:
    return Kept(FileCatalogSource([folder], sleep=_look_at_once), folder / "apis.yaml")


def keep_large(folder: Path) -> Kept:
    file = folder / "catalog.yaml"
    return Kept(FileCatalogSource([file], large=0, sleep=_look_at_once), file)


KEEPERS: Final = {"file": keep_file, "folder": keep_folder, "read by a process": keep_large}


@pytest.fixture(params=KEEPERS)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Kept:
    made = KEEPERS[request.param](tmp_path)
    made.put_api("one")
    return made


def names_of(catalog: Catalog) -> list[str]:
    return [name for name, _ in catalog.apis]


async def test_each_load_gives_what_is_there_then_and_leaves_the_last_catalog_alone(
    kept: Kept,
) -> None:
    first = await kept.source.load()
    kept.put_api("two")
    second = await kept.source.load()
    assert (names_of(first), names_of(second)) == (["one"], ["two"])


async def test_a_mistake_is_named_and_what_comes_after_it_is_loaded(kept: Kept) -> None:
    kept.put_mistake()
    with pytest.raises(ConfigError) as caught:
        await kept.source.load()
    assert any("nmae" in str(problem) for problem in caught.value.problems)
    kept.put_api("two")
    assert names_of(await kept.source.load()) == ["two"]


@pytest.mark.parametrize("is_good", [True, False])
async def test_waiting_ends_with_a_change_whatever_the_last_load_brought(
    kept: Kept, *, is_good: bool
) -> None:
    if is_good:
        await kept.source.load()
    else:
        kept.put_mistake()
        with pytest.raises(ConfigError):
            await kept.source.load()
    async with asyncio.timeout(WAIT_S):
        waiting = asyncio.create_task(kept.source.wait_for_change())
        kept.put_api("another")
        await waiting
    assert names_of(await kept.source.load()) == ["another"]
