"""Catalogs from real files and folders."""

# ruff: noqa: ASYNC240  # small files of a test's own
from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import NoReturn

import pytest

from extauthz.catalog.files.source import SETTLE_S, FileCatalogSource
from extauthz.errors import ConfigError
from extauthz.model.identity import SecurityScheme

API = "apis: [{name: %s, version: v1, context: /%s, resources: [{methods: [GET], path: /}]}]\n"


def api_text(name: str) -> str:
    return API % (name, name)


async def load_names(*paths: Path | str) -> list[str]:
    catalog = await FileCatalogSource(paths).load()
    return [name for name, _ in catalog.apis]


async def test_reads_yaml_and_json_of_a_folder_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(api_text("b"))
    (tmp_path / "a.yml").write_text(api_text("a"))
    (tmp_path / "c.json").write_text('{"apis": []}')
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "d.yaml").write_text(api_text("d"))
    assert await load_names(tmp_path) == ["a", "b", "d"]


async def test_leaves_out_what_is_no_catalog_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(api_text("a"))
    (tmp_path / "README.md").write_text("no catalog")
    (tmp_path / ".a.yaml").write_text("an: editor's")
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "x.yaml").write_text("seen: twice")
    (tmp_path / "pets.yaml").write_text("openapi: 3.0.3\npaths: {}\n")
    (tmp_path / "old.json").write_text('{"swagger": "2.0"}')
    (tmp_path / "jwks.json").write_text('{"keys": []}')
    assert await load_names(tmp_path) == ["a"]


async def test_a_misspelled_file_in_a_folder_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(api_text("a"))
    (tmp_path / "b.yaml").write_text("aplications: []\n")
    with pytest.raises(ConfigError, match="did you mean 'applications'"):
        await load_names(tmp_path)


async def test_what_refers_to_a_misspelled_file_is_no_further_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(api_text("a").replace("apis", "apies", 1))
    (tmp_path / "b.yaml").write_text(
        "applications: [{name: mobile}]\n"
        "subscriptions: [{application: mobile, api: a, version: v1}]\n"
        "deny: [{api: a}]\n"
    )
    with pytest.raises(ConfigError) as failure:
        await load_names(tmp_path)
    assert [problem.file for problem in failure.value.problems] == [str(tmp_path / "a.yaml")]


async def test_a_file_that_an_openapi_document_refers_to_need_be_no_catalog(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apis: [{name: A, version: v1, openapi: specs/pets.yaml}]\n")
    (tmp_path / "specs" / "ops").mkdir(parents=True)
    (tmp_path / "specs" / "pets.yaml").write_text(
        "openapi: 3.0.3\npaths:\n  /a: {get: {$ref: ops/../ops/get.yaml}}\n"
    )
    (tmp_path / "specs" / "ops" / "get.yaml").write_text(
        "security: []\nresponses: {'200': {$ref: ../answers/my%20pets.yaml#/all}}\n"
    )
    (tmp_path / "specs" / "answers").mkdir()
    # Nobody reads them: they say nothing about access.
    (tmp_path / "specs" / "answers" / "my pets.yaml").write_text('all: {"$ref": "pet.json"}\n')
    (tmp_path / "specs" / "answers" / "pet.json").write_text("[]")
    source = FileCatalogSource([tmp_path])
    (api,) = (await source.load()).apis.values()
    assert api.resources[0].security == (SecurityScheme.NONE,)
    # It is watched as the catalog is.
    text = (tmp_path / "specs" / "ops" / "get.yaml").read_text()
    (tmp_path / "specs" / "ops" / "get.yaml").write_text(text.replace("security: []\n", ""))
    (api,) = (await source.load()).apis.values()
    assert SecurityScheme.NONE not in api.resources[0].security
    (tmp_path / "specs" / "ops" / "put.yaml").write_text("{responses: {}}\n")
    with pytest.raises(ConfigError, match=r"put\.yaml:1: responses: unknown key"):
        await source.load()


async def test_names_every_problem_of_every_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apis: {}\n")
    (tmp_path / "b.yaml").write_text("tiers: []\n")
    with pytest.raises(ConfigError) as caught:
        await load_names(tmp_path, tmp_path / "nowhere.yaml")
    assert [Path(it.file).name for it in caught.value.problems] == [
        "a.yaml", "b.yaml", "nowhere.yaml",
    ]  # fmt: skip


async def test_a_folder_without_catalogs_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no catalog"):
        await load_names(tmp_path)


async def test_a_file_that_is_no_utf_8_is_a_problem_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"apis: []\n# \xff\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:2: is not UTF-8 text"):
        await load_names(tmp_path / "a.yaml")


async def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(api_text("a"))
    assert await load_names(tmp_path / "a.yaml", tmp_path) == ["a"]


async def test_the_same_bytes_give_the_same_catalog(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(api_text("a"))
    source = FileCatalogSource([tmp_path])
    first = await source.load()
    (tmp_path / "a.yaml").write_text(api_text("a"))
    assert await source.load() is first
    other = await FileCatalogSource([tmp_path]).load()
    assert other.revision == first.revision != ""
    (tmp_path / "a.yaml").write_text(api_text("b"))
    assert (await source.load()).revision != first.revision


async def test_another_key_file_gives_another_revision(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "issuers: [{issuer: a, allow_any_audience: true, hmac_secret_file: secret}]\n"
    )
    (tmp_path / "secret").write_text("0123456789abcdef0123456789abcdef")
    source = FileCatalogSource([tmp_path])
    first = await source.load()
    (tmp_path / "secret").write_text("another-9abcdef0123456789abcdef0")
    assert (await source.load()).revision != first.revision


async def test_returns_at_once_before_the_first_load(tmp_path: Path) -> None:
    await FileCatalogSource([tmp_path]).wait_for_change()


async def wait_while(source: FileCatalogSource, change: Path, text: str | None) -> None:
    """Waits for a change that is made while the wait is on."""
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(source.wait_for_change())
        await asyncio.sleep(0)
        if text is None:
            change.unlink()
        else:
            await asyncio.to_thread(change.write_text, text)


async def test_sees_a_changed_a_new_and_a_removed_file(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(api_text("a"))
    source = FileCatalogSource([tmp_path])
    await source.load()
    await wait_while(source, tmp_path / "a.yaml", api_text("changed"))
    assert [name for name, _ in (await source.load()).apis] == ["changed"]
    await wait_while(source, tmp_path / "b.yaml", api_text("b"))
    assert [name for name, _ in (await source.load()).apis] == ["changed", "b"]
    await wait_while(source, tmp_path / "a.yaml", None)
    assert [name for name, _ in (await source.load()).apis] == ["b"]


async def test_sees_a_changed_key_file_in_another_folder(tmp_path: Path) -> None:
    for folder in ("catalog", "keys"):
        (tmp_path / folder).mkdir()
    (tmp_path / "catalog" / "a.yaml").write_text(
        "issuers: [{issuer: a, allow_any_audience: true, hmac_secret_file: ../keys/secret}]\n"
    )
    secret = tmp_path / "keys" / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef")
    source = FileCatalogSource([tmp_path / "catalog"])
    await source.load()
    await wait_while(source, secret, "a-longer-secret-0123456789abcdef0123456789abcdef")


async def test_sees_a_file_that_was_missing(tmp_path: Path) -> None:
    path = tmp_path / "not-yet" / "a.yaml"
    source = FileCatalogSource([path], poll_s=0.05)
    with pytest.raises(ConfigError, match="does not exist"):
        await source.load()
    path.parent.mkdir()
    await wait_while(source, path, api_text("a"))
    assert [name for name, _ in (await source.load()).apis] == ["a"]


async def test_sees_the_swap_of_a_kubernetes_config_map(tmp_path: Path) -> None:
    def publish(version: str) -> None:
        folder = tmp_path / f"..{version}"
        folder.mkdir()
        (folder / "a.yaml").write_text(api_text(version))
        (tmp_path / "..data_tmp").symlink_to(folder.name)
        os.rename(tmp_path / "..data_tmp", tmp_path / "..data")  # noqa: PTH104  # as the kubelet does

    publish("one")
    (tmp_path / "a.yaml").symlink_to("..data/a.yaml")
    source = FileCatalogSource([tmp_path / "a.yaml"])
    assert [name for name, _ in (await source.load()).apis] == ["one"]
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        tasks.create_task(source.wait_for_change())
        await asyncio.sleep(0)
        await asyncio.to_thread(publish, "two")
    assert [name for name, _ in (await source.load()).apis] == ["two"]


async def test_an_unrelated_file_is_no_change(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(api_text("a"))
    source = FileCatalogSource([tmp_path])
    await source.load()
    (tmp_path / "notes.txt").write_text("unrelated")
    assert not source._has_changed()
    (tmp_path / "b.yaml").write_text(api_text("b"))
    assert source._has_changed()


async def test_a_wait_that_is_cancelled_ends(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(api_text("a"))
    source = FileCatalogSource([tmp_path], poll_s=60)
    await source.load()
    waiting = asyncio.ensure_future(source.wait_for_change())
    await asyncio.sleep(0)
    waiting.cancel()
    async with asyncio.timeout(20):
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_waits_until_a_file_is_written_to_its_end(tmp_path: Path) -> None:
    """A half-written catalog may lack just its deny rules."""
    path = tmp_path / "catalog.yaml"
    path.write_text(api_text("one"))
    waits: list[float] = []

    async def write_the_rest(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 1:
            path.write_text(api_text("three") + "deny:\n  - {application: rogue}\n")

    source = FileCatalogSource([path], sleep=write_the_rest)
    await source.load()
    path.write_text(api_text("three"))
    async with asyncio.timeout(30):
        await source.wait_for_change()
    assert waits == [SETTLE_S, SETTLE_S]
    assert not (await source.load()).deny_rules.is_empty


async def test_a_file_that_is_written_to_for_ever_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text(api_text("one"))
    waits: list[float] = []

    async def write_on(seconds: float) -> None:
        waits.append(seconds)
        path.write_text(api_text("one") + "#" * len(waits))

    source = FileCatalogSource([path], sleep=write_on)
    await source.load()
    path.write_text(api_text("three"))
    async with asyncio.timeout(30):
        await source.wait_for_change()
    assert len(waits) == 20


async def test_looks_itself_when_the_system_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As with no inotify instances left. The operating system is made to fail here."""
    path = tmp_path / "catalog.yaml"
    path.write_text(api_text("one"))
    waits: list[float] = []

    async def change_at_the_third(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            path.write_text(api_text("three"))

    def fail(*_: object, **__: object) -> NoReturn:
        raise OSError("no inotify instances left")

    monkeypatch.setattr("extauthz.catalog.files.source.awatch", fail)
    source = FileCatalogSource([path], poll_s=7, sleep=change_at_the_third)
    await source.load()
    async with asyncio.timeout(30):
        await source.wait_for_change()
    assert waits == [7, 7, 7, SETTLE_S]
    assert [record.getMessage() for record in caplog.records] == [
        "the system does not report changes of the catalog's files (no inotify instances left); "
        "they are checked every 7 s"
    ]


async def test_a_fifo_is_a_problem_and_holds_nothing_up(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    os.mkfifo(path)
    async with asyncio.timeout(10):
        with pytest.raises(ConfigError, match="is no regular file"):
            await FileCatalogSource([path]).load()
