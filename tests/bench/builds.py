"""Which builds of extauthz there are to measure: this one, and the compiled one beside it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from extauthz.policy import pipeline

ROOT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Build:
    """Where a build of extauthz can be run, with these benchmarks beside it."""

    logic: str
    python: str
    folder: Path


def find_logic() -> str:
    """What runs here: ``Python``, or ``compiled`` (docs/adr/0023)."""
    return "compiled" if pipeline.__file__.endswith(".so") else "Python"


def list_builds() -> list[Build]:
    """This checkout, and the compiled wheel that was built from it, if it was."""
    builds = [Build(find_logic(), sys.executable, ROOT)]
    python = ROOT / "build" / "compiled" / "venv" / "bin" / "python"
    if python.exists():
        (folder,) = (ROOT / "build" / "compiled").glob("extauthz-*/")
        builds.append(Build("compiled", str(python), folder))
    return builds
