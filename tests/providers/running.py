"""Starts what answers HTTP, and waits until it does."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import httpx2
import pytest

DOWNLOADS: Final = Path(__file__).resolve().parents[2] / "build" / "providers"
_START_S: Final = 240
_STOP_S: Final = 20


def need(*programs: str) -> None:
    """Fails with one line when the machine lacks a program."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        pytest.fail(f"needs {', '.join(missing)} on the PATH", pytrace=False)


@contextmanager
def run_until_answered(
    command: Sequence[str], url: str, log_file: Path, *, environment: Mapping[str, str]
) -> Iterator[None]:
    """A process that answers 200 at the URL, until the block ends."""
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            env={**os.environ, **environment}, cwd=log_file.parent,
        )  # fmt: skip
        try:
            end_s = time.monotonic() + _START_S
            while not _answers(url):
                assert process.poll() is None, log_file.read_text()[-2000:]
                assert time.monotonic() < end_s, log_file.read_text()[-2000:]
                try:
                    process.wait(0.5)
                except subprocess.TimeoutExpired:
                    continue
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url, trust_env=False, timeout=5).status_code == 200
    except httpx2.TransportError:
        return False
