"""Keeps a demonstration running during a test, as ``extauthz demo --keep`` does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

DEMO: Final = (sys.executable, "-m", "extauthz", "demo")
_LAST_LINE: Final = "Ask Envoy:"


def write_environment(folder: Path) -> dict[str, str]:
    """Temporary files go to a folder where it can be seen what is left of them."""
    return {**os.environ, "TMPDIR": str(folder), "COLUMNS": "120"}


@contextmanager
def keep_demo(
    temporary: Path, *arguments: str, cwd: Path | None = None
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A demonstration that stays up, and the lines that it has printed until then."""
    with subprocess.Popen(
        [*DEMO, "--keep", *arguments],
        env={**write_environment(temporary), "PYTHONUNBUFFERED": "1"},
        cwd=cwd,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            lines = []
            for line in process.stdout:
                lines.append(line.rstrip("\n"))
                if line.startswith(_LAST_LINE):
                    break
            yield process, lines
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
