"""What one source of blocks and revocations holds, read entry by entry.

One wrong entry is told, and loses no other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from pydantic import ValidationError

from extauthz.documents.document import Fault, list_problems, locate
from extauthz.documents.messages import show_name, suggest
from extauthz.documents.values import SourceText
from extauthz.emergency.entries import SECTIONS, EmergencyDocument, Entry, make_entry
from extauthz.errors import Problem


@dataclass(frozen=True, slots=True)
class Reading:
    """What a source holds.

    Attributes:
        entries: by id; of two with one id the later one.
        problems: what could not be taken.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class EmergencyStore(Protocol):
    """Where blocks and revocations are kept. Every implementation passes one contract suite."""

    @property
    def name(self) -> str:
        """For messages and `Entry.source`."""

    async def look(self) -> Reading | None:
        """What is in force by this source, when that may have changed; None when it has not.

        What was in force stays so until the source says plainly that it is gone: a source that
        is away, or holds what cannot be read, takes nothing back.

        Raises:
            ConfigError, BackendError: it could not be read. What it said last stays in force.
        """

    async def write(self, entries: Mapping[str, Entry | None]) -> str:
        """Puts entries in their places by id, all of them or none; None takes one out.

        Returns:
            The revision that processes confirm once they have it; empty where none is counted.

        Raises:
            ConfigError, BackendError: it could not be done, or is not known to be.
        """

    async def list_confirmed(self) -> Mapping[str, str]:
        """Processes that are alive, and the revision that each has in force.

        Raises:
            BackendError: it could not be read.
        """

    async def confirm(self) -> None:
        """Is told that what `look` gave last is in force in this process.

        Raises:
            BackendError: it could not be passed on.
        """

    async def close(self) -> None:
        """Lets go of connections."""


def read_entries(source: SourceText, tree: Any) -> Reading:
    """The entries of a document with `SECTIONS`; `tree` is what `read_values` gave for it."""
    if not isinstance(tree, dict):
        message = "must have keys and values at its top level; write it like `deny: [...]`"
        return Reading(problems=(Problem(file=source.file, line=1, message=message),))
    problems: list[Problem] = []
    faults: list[Fault] = []
    entries: dict[str, Entry] = {}
    for key, listed in tree.items():
        if key not in SECTIONS:
            message = f"unknown key {show_name(key)}{suggest(key, list(SECTIONS))}"
            faults.append(Fault(path=(key,), message=message))
        elif isinstance(listed, list):
            for position, written in enumerate(listed):
                path = (key, position)
                try:
                    entry = read_entry(key, written, source.file)
                except ValidationError as exc:
                    problems += list_problems(exc, source, tree, EmergencyDocument, below=path)
                    continue
                entries[entry.id] = entry
        elif listed is not None:
            faults.append(Fault(path=(key,), message="must be a list of entries"))
    problems += locate(source, faults)
    return Reading(entries, tuple(problems))


def read_entry(section: str, written: Any, source: str) -> Entry:
    """One entry of a section.

    Raises:
        ValidationError: it is not usable.
    """
    return make_entry(section, SECTIONS[section].model_validate(written), source)
