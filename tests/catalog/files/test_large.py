"""Catalogs that a process of its own reads, and what is left of one that was replaced."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import re
import signal
import threading
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from subprocess import Popen
from typing import IO

import pytest

from extauthz.catalog.files import child
from extauthz.catalog.files.hand_over import Receiver, read_frame
from extauthz.catalog.files.reader_process import Task
from extauthz.catalog.files.source import FileCatalogSource
from extauthz.catalog.refresh import CatalogRefresher
from extauthz.errors import CatalogError, ConfigError
from extauthz.model.catalog import Catalog
from extauthz.model.subscriptions import SubscriptionState
from tests.builders import FakeClock, sha256

APIS, APPLICATIONS, EACH = 200, 2_000, 10
GOOD = Path(__file__).parents[1] / "good"
"""Between them its files hold every key."""


def write_catalog(folder: Path, *, requests: int = 1, last_api: str = "api0") -> None:
    """20,000 subscriptions, and a tier that tells one catalog from another."""
    folder.mkdir(exist_ok=True)
    documents: dict[str, dict[str, object]] = {
        "apis": {
            "apis": [
                {
                    "name": f"api{number}",
                    "version": "1.0.0",
                    "context": f"/api{number}",
                    "resources": [
                        {"methods": ["GET"], "path": "/a", "scopes": ["read"], "tier": "Gold"},
                        {"methods": ["GET"], "path": "/b/{id}"},
                    ],
                }
                for number in range(APIS)
            ]
        },
        "applications": {
            "applications": [
                {
                    "name": f"app{number}",
                    "tier": "Gold",
                    "api_keys": [{"sha256": sha256(f"key{number}").hex()}],
                    "consumer_keys": [{"id": f"client{number}", "issuer": "*"}],
                    "certificates": [{"principal": f"spiffe://example/{number}"}],
                }
                for number in range(APPLICATIONS)
            ]
        },
        "subscriptions": {
            "subscriptions": [
                {"application": f"app{number}", "api": f"api{(number + turn) % APIS}",
                 "version": "1.0.0", "tier": "Gold", "state": "BLOCKED" if turn else "UNBLOCKED"}
                for number in range(APPLICATIONS - 1)
                for turn in range(EACH)
            ]
            + [{"application": f"app{APPLICATIONS - 1}", "api": last_api, "version": "1.0.0"}]
        },
        "tiers": {"tiers": {"Gold": {"limits": [{"requests": requests, "per": "1m"}]}}},
    }  # fmt: skip
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps(document, indent=0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_catalog(tmp_path / "catalog")
    return tmp_path / "catalog"


@pytest.fixture(autouse=True)
def the_collector_is_left_as_it_was() -> Iterator[None]:
    before = gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()
    yield
    assert (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()) == before


async def test_the_loop_is_served_while_a_large_catalog_is_read_and_taken_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[tuple[int, int]] = []
    turns = 0
    take = Receiver.take

    def note_take(self: Receiver, message: object) -> None:
        taken.append((threading.get_ident(), turns))
        take(self, message)  # type: ignore[arg-type]

    monkeypatch.setattr(Receiver, "take", note_take)
    loading = asyncio.ensure_future(FileCatalogSource([folder]).load())
    while not loading.done():
        await asyncio.sleep(0)
        turns += 1
    catalog = loading.result()
    assert (len(catalog.apis), len(catalog.applications)) == (APIS, APPLICATIONS)
    # Put together where decisions are made, so no lock is needed, and none holds another up.
    assert {thread for thread, _ in taken} == {threading.get_ident()}
    seen = [when for _, when in taken]
    # Twenty pieces and more, and the loop went round between each two of them.
    assert len(seen) > 20 and all(late > early for early, late in pairwise(seen))
    assert seen[0] > 20  # it also did while the child read


MANY = 2_000
LARGEST_PIECE = 96 * 1024
"""Bytes; a message of so many takes a few milliseconds to take."""


def write_much_of_everything(folder: Path) -> None:
    numbers = range(MANY)
    documents: dict[str, object] = {
        "tiers": {f"T{n}": {"limits": [{"requests": n + 1, "per": "1m"}]} for n in numbers},
        "issuers": [
            {"issuer": f"https://{n}.example", "audiences": ["a"], "jwks_url": "https://k.example"}
            for n in numbers
        ],
        "deny": [
            *({"ip": f"10.0.{n >> 8}.{n & 255}"} for n in numbers),
            *({"user": f"user{n}"} for n in numbers),
            *({"application": f"nobody{n}"} for n in numbers),
        ],
        "custom_limits": [{"name": f"l{n}", "key": "$clientIp", "tier": f"T{n}"} for n in numbers],
        "revoked_tokens": [{"jti": f"token{n}"} for n in numbers],
        "applications": [
            *({"name": f"app{n}"} for n in numbers),
            {
                "name": "many",
                "api_keys": [{"sha256": f"{n:064x}"} for n in numbers],
                "consumer_keys": [{"id": f"{n}", "issuer": "*"} for n in numbers],
                "certificates": [{"principal": f"spiffe://example/{n}"} for n in numbers],
            },
        ],
        "apis": [
            {
                "name": f"api{n}",
                "version": "v1",
                "context": f"/api{n}",
                "resources": [{"methods": ["GET"], "path": "/"}],
            }
            for n in numbers
        ],
        "subscriptions": [
            {"application": f"app{n}", "api": f"api{n}", "version": "v1", "tier": f"T{n}"}
            for n in numbers
        ],
    }
    for name, document in documents.items():
        (folder / f"{name}.json").write_text(json.dumps({name: document}))


async def test_no_message_brings_much_whatever_a_catalog_has_many_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_much_of_everything(tmp_path)
    sizes: list[int] = []

    def note_size(stream: IO[bytes]) -> bytes | None:
        frame = read_frame(stream)
        sizes.append(len(frame or b""))
        return frame

    monkeypatch.setattr(child, "read_frame", note_size)
    apart = await FileCatalogSource([tmp_path]).load()
    assert len(sizes) > MANY // 50 and max(sizes) < LARGEST_PIECE
    here = await FileCatalogSource([tmp_path], large=1 << 30).load()
    for name in (
        "tiers", "issuers", "revoked", "applications", "api_keys", "consumer_keys", "certificates",
        "apis", "subscriptions", "warnings",
    ):  # fmt: skip
        assert list(getattr(apart, name)) == list(getattr(here, name)) != [], name
    limits = [(limit.name, limit.tier.name) for limit in here.custom_limits]
    assert [(limit.name, limit.tier.name) for limit in apart.custom_limits] == limits
    assert all(limit.tier is apart.tiers[limit.tier.name] for limit in apart.custom_limits)
    assert apart.deny_rules.find_for_client("10.0.0.7", "api1", "v1") is not None
    assert apart.deny_rules.find_for_caller("", "api1", "v1", "", "user7") is not None


async def test_a_large_catalog_is_the_same_as_a_small_one(folder: Path) -> None:
    apart = await FileCatalogSource([folder]).load()
    here = await FileCatalogSource([folder], large=1 << 30).load()
    assert apart.revision == here.revision
    assert list(apart.apis) == list(here.apis)
    assert list(apart.subscriptions) == list(here.subscriptions)
    assert dict(apart.subscriptions) == dict(here.subscriptions)
    assert list(apart.api_keys) == list(here.api_keys)
    assert list(apart.consumer_keys) == list(here.consumer_keys)
    assert list(apart.certificates) == list(here.certificates)
    api = apart.apis["api7", "1.0.0"]
    assert apart.routes.find_api("any", ["api7", "1.0.0", "a"]) == (
        api, apart.routes.resources_of(api), 2,
    )  # fmt: skip


def write(value: object) -> str:
    """All that a value holds, its sets in order: theirs is another in each process."""
    return re.sub(
        r"frozenset\({(.*?)}\)", lambda found: str(sorted(found[1].split(", "))), repr(value)
    )


async def test_every_key_of_a_catalog_comes_through_the_hand_over() -> None:
    apart = await FileCatalogSource([GOOD], large=0).load()
    here = await FileCatalogSource([GOOD]).load()
    for name in (
        "apis", "default_versions", "applications", "api_keys", "consumer_keys", "certificates",
        "issuers", "custom_limits", "revoked", "tiers", "unauthenticated_tier", "opaque_issuers",
        "api_key_signers", "applications_by_uuid", "takes_internal_keys",
        "revision",
    ):  # fmt: skip
        found = getattr(here, name)
        assert found or name == "unauthenticated_tier", name
        assert write(getattr(apart, name)) == write(found), name
    assert dict(apart.subscriptions) == dict(here.subscriptions) != {}
    assert not apart.deny_rules.is_empty


async def test_what_was_one_object_before_the_hand_over_is_one_after(folder: Path) -> None:
    catalog = await FileCatalogSource([folder]).load()
    gold, app = catalog.tiers["Gold"], catalog.applications["app3"]
    assert app.tier is gold
    assert catalog.apis["api9", "1.0.0"].resources[0].tier is gold
    assert catalog.api_keys[sha256("key3")].application is app
    assert catalog.consumer_keys["", "client3"].application is app
    assert catalog.certificates["spiffe://example/3"].application is app
    subscription = catalog.subscriptions["app3", "api4", "1.0.0"]
    assert subscription.tier is gold and subscription.state is SubscriptionState.BLOCKED


async def test_the_child_imports_nothing_from_where_the_process_happens_to_be(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    assert len((await FileCatalogSource([folder]).load()).apis) == APIS


async def test_every_problem_of_a_large_catalog_is_told_with_its_line(folder: Path) -> None:
    write_catalog(folder, last_api="nowhere")
    (folder / "wrong.yaml").write_text("deny:\n  - {api: unknown}\n")
    with pytest.raises(ConfigError) as caught:
        await FileCatalogSource([folder]).load()
    first, second = sorted(caught.value.problems, key=lambda problem: problem.file)
    assert Path(first.file).name == "subscriptions.json" and first.line > 10_000
    assert "there is no API 'nowhere'" in first.message
    assert (Path(second.file).name, second.line) == ("wrong.yaml", 2)


async def test_a_large_catalog_with_the_same_bytes_is_not_sent_again(folder: Path) -> None:
    source = FileCatalogSource([folder])
    first = await source.load()
    os.utime(folder / "apis.json", (1, 1))
    assert await source.load() is first
    assert not source._has_changed()
    write_catalog(folder, requests=2)
    assert source._has_changed()
    assert (await source.load()).revision != first.revision


async def test_what_the_child_would_log_is_logged_here(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "both.yaml").write_text(
        "apis: [{name: both, version: v1, context: /both, tier: Gold, "
        "resources: [{methods: [GET], path: /, tier: Gold}]}]\n"
    )
    await FileCatalogSource([folder]).load()
    (record,) = caplog.records
    assert (record.name, record.levelno) == (
        "extauthz.catalog.documents.build_apis",
        logging.WARNING,
    )
    assert "API both v1 has a tier" in record.getMessage()


def kill_when_it_runs(monkeypatch: pytest.MonkeyPatch, how: signal.Signals) -> None:
    start = child._start

    def start_and_kill(task: Task) -> Popen[bytes]:
        process = start(task)
        process.send_signal(how)
        return process

    monkeypatch.setattr(child, "_start", start_and_kill)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_child_that_is_killed_is_an_error_and_the_last_good_catalog_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    refresher = CatalogRefresher(FileCatalogSource([folder]), FakeClock())
    await refresher.start()
    good = refresher.catalog
    write_catalog(folder, requests=2)
    kill_when_it_runs(monkeypatch, how)
    assert not await refresher.reload()
    assert refresher.catalog is good
    assert isinstance(refresher.last_error, CatalogError)
    assert f"ended too early, with signal {how.value}" in str(refresher.last_error)
    monkeypatch.undo()
    assert await refresher.reload() and refresher.catalog is not good


async def test_a_child_that_dies_half_way_through_the_hand_over_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = 0

    def read_some(stream: IO[bytes]) -> bytes | None:
        nonlocal frames
        frames += 1
        return read_frame(stream) if frames < 5 else None

    monkeypatch.setattr(child, "read_frame", read_some)
    with pytest.raises(CatalogError, match="ended too early"):
        await FileCatalogSource([folder]).load()


async def test_a_child_that_cannot_be_started_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "find_interpreter", lambda: str(folder / "no-python"))
    with pytest.raises(CatalogError, match="no process could be started"):
        await FileCatalogSource([folder]).load()


async def test_a_load_that_is_cancelled_leaves_no_child(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: asyncio.Queue[int] = asyncio.Queue()
    start = child._start

    def start_and_tell(task: Task) -> Popen[bytes]:
        process = start(task)
        started.put_nowait(process.pid)
        return process

    monkeypatch.setattr(child, "_start", start_and_tell)
    loading = asyncio.ensure_future(FileCatalogSource([folder]).load())
    pid = await started.get()
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_child_ends_with_the_process_that_asked(folder: Path) -> None:
    task = Task(paths=(str(folder),), has_pepper=True, known_revision="")
    with child._start(task) as process:
        assert process.stdin is not None and process.stdout is not None
        # Nobody reads, so it stands at a full pipe, and would for ever.
        assert read_frame(process.stdout) is not None
        process.stdin.close()
        assert process.wait(timeout=60) == 1


async def test_the_old_catalog_is_let_go_of_once_nobody_decides_by_it(folder: Path) -> None:
    refresher = CatalogRefresher(FileCatalogSource([folder]), FakeClock())
    await refresher.start()
    in_use: list[Catalog] = [refresher.catalog]
    subscriptions, routes = in_use[0].subscriptions, in_use[0].routes
    old = weakref.ref(in_use[0])
    write_catalog(folder, requests=2)
    assert await refresher.reload()
    (letting_go,) = refresher._letting_go
    for _ in range(1_000):
        await asyncio.sleep(0)
    # A decision that began before the change sees all of what it began with.
    assert not letting_go.done()
    assert in_use[0].subscriptions.get(("app3", "api4", "1.0.0")) is not None
    in_use.clear()
    assert old() is None
    await letting_go
    assert len(subscriptions) == 0
    assert routes.find_api("any", ["api7", "1.0.0", "a"]) is None
    assert not refresher._letting_go
    assert len(refresher.catalog.subscriptions) > 0
