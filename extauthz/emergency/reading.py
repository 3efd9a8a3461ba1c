"""Reads the entries of one source of blocks and revocations, and defines the sources' port.

A wrong entry is reported, and does not affect the others.
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
        problems: entries that cannot be used.
    """

    entries: Mapping[str, Entry] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()


class EmergencyStore(Protocol):
    """Where blocks and revocations are kept. Every implementation passes one contract suite."""

    @property
    def name(self) -> str:
        """For messages and `Entry.source`."""

    async def look(self) -> Reading | None:
        """The source's entries in force, when they may have changed; None when they have not.

        An entry stays in force until the source clearly no longer has it: a source that is away, or
        that cannot be read, removes nothing.

        Raises:
            ConfigError, BackendError: it could not be read. Its last entries stay in force.
        """

    async def write(self, entries: Mapping[str, Entry | None]) -> str:
        """Writes entries by id, all of them or none; None removes one.

        Returns:
            The revision that processes confirm once they have it; empty when there are none.

        Raises:
            ConfigError, BackendError: it was not written, or it is not known whether it was.
        """

    async def list_confirmed(self) -> Mapping[str, str]:
        """Processes that are alive, and the revision that each has in force.

        Raises:
            BackendError: it could not be read.
        """

    async def confirm(self) -> None:
        """Confirms that the last result of `look` is in force in this process.

        Raises:
            BackendError: the confirmation could not be stored.
        """

    async def close(self) -> None:
        """Closes connections."""


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
