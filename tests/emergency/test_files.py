"""Blocks in a file: when it is read, and what becomes of those in force when it is not good."""

# ruff: noqa: ASYNC240  # small files of a test's own

from __future__ import annotations

import asyncio
import json
import os
import stat
from pathlib import Path

import pytest
import yaml

from extauthz.emergency import files
from extauthz.emergency.files import MAX_BYTES, EmergencyFile
from extauthz.errors import ConfigError
from tests.emergency.stores import a_block, by_id

WEB = a_block(application="web")
MOBILE = a_block(application="mobile")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "blocks.yaml"


async def settle(file: EmergencyFile) -> tuple[set[str], list[str]]:
    """Ids and problems after as many looks as a change needs; there is one."""
    found = None
    for _ in range(30):
        found = await file.look() or found
    assert found is not None
    return set(found.entries), [str(problem) for problem in found.problems]


async def opened(path: Path, text: str) -> EmergencyFile:
    path.write_text(text)
    file = EmergencyFile(path)
    assert await file.look() is not None
    return file


TWO = "deny:\n- {application: web}\n- {application: mobile}\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("deny: [\n", "blocks.yaml:2: is not YAML"),
        ("", "takes nothing back; write `deny: []`"),
        ("# only a comment\n", "takes nothing back; write `deny: []`"),
        ("{}\n", "takes nothing back; write `deny: []`"),
        ("just text\n", "must have keys and values"),
        ("- a list\n", "must have keys and values"),
        ("deny: all\n", "blocks.yaml:1: deny: must be a list"),
        ("denied: []\n", "blocks.yaml:1: denied: unknown key 'denied'"),
        ("deny:\n- {}\n", "blocks.yaml:2: deny[0]: has no condition"),
        ("deny:\n- all\n", "blocks.yaml:2: deny[0]: must be a mapping"),
        (
            "deny:\n- {application: web, invert: true}\n",
            "blocks.yaml:2: deny[0].invert: unknown key",
        ),
        ("deny:\n- {application: web}\n- {user: }\n", "blocks.yaml:3: deny[1]: has no condition"),
        ("deny: []\ndeny: []\n", "stands twice"),
    ],
)
async def test_a_file_that_is_wrong_takes_nothing_back(text: str, told: str, path: Path) -> None:
    file = await opened(path, TWO)
    path.write_text(text)
    ids, problems = await settle(file)
    assert ids == {WEB.id, MOBILE.id}
    assert any(told in problem for problem in problems), problems


async def test_a_file_that_is_wrong_still_adds(path: Path) -> None:
    file = await opened(path, "deny:\n- {application: web}\n")
    path.write_text("deny:\n- {application: mobile}\n- {aplication: other}\n")
    ids, problems = await settle(file)
    assert ids == {WEB.id, MOBILE.id} and len(problems) == 1
    # Mended, it says again all that there is.
    path.write_text("deny:\n- {application: mobile}\n")
    assert await settle(file) == ({MOBILE.id}, [])


@pytest.mark.parametrize("text", ["deny: []\n", "revoked: []\n", "deny:\n"])
async def test_a_file_that_says_there_is_nothing_takes_all_back(text: str, path: Path) -> None:
    file = await opened(path, TWO)
    path.write_text(text)
    assert await settle(file) == (set(), [])


async def test_a_file_that_is_being_written_is_not_read_before_its_end(path: Path) -> None:
    file = await opened(path, TWO)
    path.write_text("deny: []\n")
    assert await file.look() is None
    # The writer goes on.
    path.write_text("deny: []\nrevoked: [{jti: t}]\n")
    assert await file.look() is None
    reading = await file.look()
    assert reading is not None and [it.section for it in reading.entries.values()] == ["revoked"]


async def test_a_file_that_never_stands_still_is_read_all_the_same(path: Path) -> None:
    file = await opened(path, "deny: []\n")
    looks = 0
    while True:
        path.write_text(f"deny:\n- {{application: web}}\n# {'x' * looks}\n")
        looks += 1
        if await file.look() is not None:
            break
    assert looks <= 5


async def test_a_file_that_was_swapped_by_a_link_is_read(tmp_path: Path) -> None:
    for name, application in (("a", "web"), ("b", "mobile")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "blocks.yaml").write_text(f"deny: [{{application: {application}}}]\n")
    (tmp_path / "now").symlink_to("a")
    file = EmergencyFile(tmp_path / "now" / "blocks.yaml")
    first = await file.look()
    assert first is not None and set(first.entries) == {WEB.id}
    (tmp_path / "next").symlink_to("b")
    (tmp_path / "next").replace(tmp_path / "now")
    assert await settle(file) == ({MOBILE.id}, [])


async def test_at_the_start_a_file_that_cannot_be_read_is_an_error(path: Path) -> None:
    path.write_text("deny: [\n")
    with pytest.raises(ConfigError, match="is not YAML"):
        await EmergencyFile(path).look()
    path.unlink()
    first = await EmergencyFile(path).look()
    assert first is not None and not first.entries and not first.problems


async def test_a_file_that_is_too_large_is_told(path: Path) -> None:
    file = await opened(path, TWO)
    path.write_text("#" * (MAX_BYTES + 1))
    ids, (problem,) = await settle(file)
    assert ids == {WEB.id, MOBILE.id} and "is larger than" in problem


async def test_a_fifo_holds_nobody_up(path: Path) -> None:
    file = await opened(path, TWO)
    path.unlink()
    os.mkfifo(path)
    ids, (problem,) = await settle(file)
    assert ids == {WEB.id, MOBILE.id} and "is no regular file" in problem


async def test_writers_at_once_lose_nothing(path: Path) -> None:
    blocks = [a_block(user=f"u{number}") for number in range(20)]
    await asyncio.gather(*(EmergencyFile(path).write(by_id(block)) for block in blocks))
    found = await EmergencyFile(path).look()
    assert found is not None and set(found.entries) == {block.id for block in blocks}


async def test_a_write_keeps_the_file_s_mode_and_leaves_nothing_beside_it(path: Path) -> None:
    path.write_text("deny: []\n")
    path.chmod(0o640)
    await EmergencyFile(path).write(by_id(WEB))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert {it.name for it in path.parent.iterdir()} == {"blocks.yaml", ".blocks.yaml.lock"}


async def test_a_write_keeps_the_file_s_owner_or_leaves_the_file_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the service could not read any more what it is told of."""
    path.write_text("deny: []\n")
    path.chmod(0o640)
    given: list[tuple[int, int]] = []
    before = path.stat()
    theirs = os.stat_result((*before[:4], before.st_uid + 1, *before[5:]))
    stat_file = Path.stat
    place = path.resolve()
    monkeypatch.setattr(
        Path,
        "stat",
        lambda self, **more: theirs if self == place else stat_file(self, **more),
    )
    monkeypatch.setattr(os, "fchown", lambda _, uid, gid: given.append((uid, gid)))
    await EmergencyFile(path).write(by_id(WEB))
    assert given == [(before.st_uid + 1, before.st_gid)]

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    written = path.read_text()
    monkeypatch.setattr(os, "fchown", refuse)
    with pytest.raises(ConfigError, match="could not be written"):
        await EmergencyFile(path).write(by_id(MOBILE))
    assert path.read_text() == written
    # What everybody may read, the service may still read.
    theirs = os.stat_result((before.st_mode | 0o004, *theirs[1:]))
    await EmergencyFile(path).write(by_id(MOBILE))
    assert "mobile" in path.read_text()


@pytest.mark.parametrize("suffix", ["yaml", "json"])
async def test_a_file_does_not_grow_beyond_what_is_read(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MAX_BYTES", 4000)
    path, long = tmp_path / f"blocks.{suffix}", "x" * 500
    ended = [{"user": f"{n}", "reason": long, "until": "2020-01-01T00:00:00Z"} for n in range(3)]
    path.write_text(json.dumps({"deny": [*ended, {"user": "kept", "reason": long}]}))
    await EmergencyFile(path).write(by_id(*(a_block(user=f"a{n}", reason=long) for n in range(4))))
    found = await EmergencyFile(path).look()
    assert found is not None and not found.problems
    users = [entry.document.conditions["user"] for entry in found.entries.values()]
    assert users == ["kept", "a0", "a1", "a2", "a3"]
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="would be larger than 4000 bytes"):
        await EmergencyFile(path).write(
            by_id(*(a_block(user=f"b{n}", reason=long) for n in range(4)))
        )
    assert path.read_bytes() == before


async def test_a_write_goes_through_a_link(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.yaml").write_text("deny: []\n")
    path.symlink_to("elsewhere.yaml")
    await EmergencyFile(path).write(by_id(WEB))
    assert path.is_symlink()
    assert yaml.safe_load((tmp_path / "elsewhere.yaml").read_text())["deny"]


async def test_a_place_that_cannot_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="could not be written: does not exist"):
        await EmergencyFile(tmp_path / "absent" / "blocks.yaml").write(by_id(WEB))


async def test_words_that_yaml_would_change_come_back_as_they_were(path: Path) -> None:
    names = [
        "yes",
        "null",
        "1.10",
        "0x1f",
        "~",
        "2026-11-30",
        "a: b",
        "#x",
        "ü",
        "'",
        '"',
        "=",
        "<<",
    ]
    await EmergencyFile(path).write(by_id(*(a_block(user=name) for name in names)))
    found = await EmergencyFile(path).look()
    assert found is not None and found.problems == ()
    assert [it.document.conditions["user"] for it in found.entries.values()] == names
