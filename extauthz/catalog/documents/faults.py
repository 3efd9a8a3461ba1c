"""Gathers the problems of a catalog's files, and reads the files that they refer to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from extauthz.catalog.documents.shapes import CatalogDocument
from extauthz.documents.document import Fault, decode_source, locate
from extauthz.documents.lines import NodePath
from extauthz.documents.messages import show_name, suggest
from extauthz.documents.values import SourceText
from extauthz.errors import ConfigError, Problem

ReadBytes = Callable[[Path], bytes]
"""A file's content. Raises ConfigError when it cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CatalogFile:
    """One file of a catalog. `folder` is where its references start from."""

    source: SourceText
    document: CatalogDocument
    folder: Path


class Faults:
    """The problems found so far. Their lines are found once, at the end."""

    def __init__(self, read: ReadBytes) -> None:
        self._read = read
        self._of_file: dict[CatalogFile, list[Fault]] = {}
        self._elsewhere: list[Problem] = []
        self._doubts: dict[CatalogFile, list[Fault]] = {}

    def add(self, file: CatalogFile, path: NodePath, message: str) -> None:
        """Notes that a node of a catalog file is wrong."""
        self._of_file.setdefault(file, []).append(Fault(path=path, message=message))

    def warn(self, file: CatalogFile, path: NodePath, message: str) -> None:
        """Adds a warning about what is valid but probably a mistake."""
        self._doubts.setdefault(file, []).append(Fault(path=path, message=message))

    def list_warnings(self) -> tuple[Problem, ...]:
        """All warnings, with lines."""
        return tuple(
            problem
            for file, doubts in self._doubts.items()
            for problem in locate(file.source, doubts)
        )

    def paths_of(self, file: CatalogFile) -> Iterator[NodePath]:
        """Where a file has faults so far."""
        return (fault.path for fault in self._of_file.get(file, ()))

    def add_problem(self, problem: Problem) -> None:
        """Adds a problem of a file that the catalog refers to."""
        if problem not in self._elsewhere:
            self._elsewhere.append(problem)

    def add_unknown(
        self, file: CatalogFile, path: NodePath, what: str, name: str, known: Collection[str]
    ) -> None:
        """Adds a problem for a name that is not defined, with a hint."""
        self.add(file, path, f"there is no {what} {show_name(name)}{find_hint(name, known)}")

    def read_reference(self, file: CatalogFile, path: NodePath, name: str) -> SourceText | None:
        """The text of a file that a node names; None, with a fault, when it cannot be read."""
        try:
            return self.read_text(file.folder / name)
        except ConfigError as exc:
            for problem in exc.problems:
                self.add(file, path, f"{problem.file} {problem.message}")
            return None

    def read_text(self, path: Path) -> SourceText:
        """The text of a file. Raises ConfigError when it cannot be read."""
        return decode_source(str(path), self._read(path))

    def raise_if_any(self) -> None:
        """Raises ConfigError with all problems when there is any."""
        problems = [
            problem
            for file, faults in self._of_file.items()
            for problem in locate(file.source, faults)
        ]
        problems += self._elsewhere
        if problems:
            raise ConfigError(problems)


def find_hint(name: str, known: Collection[str]) -> str:
    """A hint at the defined name that is most similar to an undefined one."""
    names = list(known) if len(known) <= 1_000 else []
    return suggest(name, names) if names else f"; there are {len(known) or 'none'}"
