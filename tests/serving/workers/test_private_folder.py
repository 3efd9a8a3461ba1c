"""Folders for secrets go with their processes, however these end."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from extauthz.serving.workers.private_folder import PrivateFolder

MAKE_AND_DIE = """
import os, signal
from extauthz.serving.workers.private_folder import PrivateFolder
folder = PrivateFolder()
(folder.path / "key").write_text("secret")
print(folder.path, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def make_and_die() -> Path:
    done = subprocess.run(
        [sys.executable, "-c", MAKE_AND_DIE], capture_output=True, text=True, check=False
    )
    return Path(done.stdout.strip())


def test_it_is_for_its_user_alone_and_goes_when_it_is_told() -> None:
    folder = PrivateFolder()
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    (folder.path / "key").write_text("secret")
    folder.remove()
    folder.remove()
    assert not folder.path.exists()


def test_what_a_killed_process_left_goes_with_the_next_start() -> None:
    orphan = make_and_die()
    assert (orphan / "key").exists()
    folder = PrivateFolder()
    assert not orphan.exists()
    folder.remove()


def test_what_a_process_holds_stays() -> None:
    first, second = PrivateFolder(), PrivateFolder()
    assert first.path.is_dir() and second.path.is_dir()
    first.remove()
    second.remove()


def test_what_is_no_folder_of_ours_stays(home: Path) -> None:
    other, link = home / "extauthz-other", home / "extauthz-host-link"
    other.mkdir()
    (other / "kept").touch()
    link.symlink_to(other)
    folder = PrivateFolder()
    assert (other / "kept").exists() and link.is_symlink()
    folder.remove()
