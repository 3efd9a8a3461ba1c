"""Runs ``extauthz migrate`` on objects, and decides by the catalog that it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from extauthz.catalog.files.source import FileCatalogSource
from extauthz.cli import main
from tests.deciding import Deciding

FIXTURES = Path(__file__).parent / "fixtures"
VENDORS = ("wso2", "apigee", "threescale", "quota", "lists")


@dataclass(frozen=True, slots=True)
class Migrated:
    """What a run of the command wrote and said."""

    code: int
    out: Path
    report: dict[str, Any]
    said: str

    def text(self, name: str) -> str:
        """A file that was written."""
        return (self.out / name).read_text()

    def told(self, outcome: str) -> list[str]:
        """``file:line: object: field: message`` of one outcome, without the files' folders."""
        return [
            f"{Path(one['file']).name}:{one['line']}: {one['object']}: {one['field']}: "
            f"{one['message']}"
            for one in self.report["findings"]
            if one["outcome"] == outcome
        ]

    async def decide_by(self, *, added: str = "") -> Deciding:
        """The real pipeline with the written catalog, and what an operator adds to it."""
        files = [self.out / "catalog"]
        if added:
            path = self.out / "added.yaml"
            path.write_text(added)
            files.append(path)
        return Deciding(await FileCatalogSource(files).load())


Migrate = Callable[..., Migrated]


@pytest.fixture
def migrate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Migrate:
    """Migrates files, or texts of objects; checks that what was written is good."""

    def run(*given: Path | str, readable: bool = True) -> Migrated:
        paths: list[Path] = []
        for number, one in enumerate(given):
            if isinstance(one, Path):
                paths.append(one)
                continue
            paths.append(tmp_path / f"given-{number}.yaml")
            paths[-1].write_text(one)
        out = tmp_path / "out"
        capsys.readouterr()
        code = main(["migrate", *map(str, paths), "--out", str(out), "--json"])
        said = capsys.readouterr()
        with ThreadPoolExecutor(1) as apart:  # a loop of its own, as tests have one already
            validated = apart.submit(main, ["validate", str(out / "extauthz.yaml")]).result()
        assert validated == 0, capsys.readouterr().err
        assert not said.err
        migrated = Migrated(code, out, json.loads(said.out), said.out)
        assert bool(migrated.told("unreadable")) is not readable
        return migrated

    return run
