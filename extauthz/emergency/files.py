"""Keeps blocks and revocations in a file, which is read independently of the catalog.

The file is checked ten times a second, because it is small and urgent. It is read when two checks
have found it in the same state: a file that is being written lacks its end.

While anything in the file is wrong, entries are only added: those in force stay in force, because
the wrong entry may be one of them. The same applies to a file that is missing, empty, or cannot be
parsed. To remove all entries, write ``deny: []``.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from extauthz.catalog.files.reading import Stamp, stamp_file
from extauthz.documents.document import (
    Fault,
    decode_source,
    locate,
    read_file,
    read_mapping,
    say_why_unreadable,
)
from extauthz.documents.values import read_values
from extauthz.emergency.entries import KEPT_AFTER_END_US, SECTIONS, Entry, write_tree
from extauthz.emergency.names import CatalogNames
from extauthz.emergency.reading import Reading, read_entries, read_entry
from extauthz.errors import ConfigError, Problem
from extauthz.model.catalog import Catalog

MAX_BYTES: Final = 2 * 1024 * 1024
"""Bytes of a file; up to this size no step of reading JSON takes 20 ms."""
_MOST_LOOKS: Final = 4
"""After this time a file is read although it still changes."""
_LOOKS_AT_WRONG_FILE: Final = 20
_HEAD: Final = (
    "# Blocks and revocations; `extauthz block`, `unblock` and `revoke` rewrite this file.\n"
)


class EmergencyFile:
    """An `EmergencyStore` of one file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._reading = Reading()
        self._read_at: Stamp | str = "never"
        self._seen: Stamp | str = "never"
        self._looks = 0

    @property
    def name(self) -> str:
        """The file's name."""
        return str(self._path)

    async def look(self) -> Reading | None:
        """See `EmergencyStore.look`. The first look reads at once."""
        stamp = await asyncio.to_thread(stamp_file, self._path)
        before, self._seen = self._seen, stamp
        self._looks += 1
        is_first = self._read_at == "never"
        if stamp == self._read_at:
            # The reason why it could not be read may be gone without a change of the file.
            if not self._reading.problems or self._looks < _LOOKS_AT_WRONG_FILE:
                return None
        elif not is_first and stamp != before and self._looks < _MOST_LOOKS:
            return None
        self._looks = 0
        self._read_at = stamp
        self._reading = await asyncio.to_thread(self._read, self._reading, is_first=is_first)
        return self._reading

    async def write(self, entries: Mapping[str, Entry | None]) -> str:
        """See `EmergencyStore.write`. Entries that are wrong stay as they are; comments are lost.

        Raises:
            ConfigError: the file cannot be parsed or written; nothing was changed.
        """
        await asyncio.to_thread(_change, self._path, entries)
        return ""

    async def list_confirmed(self) -> Mapping[str, str]:
        """Empty: processes cannot confirm what they have read from a file."""
        return {}

    def _read(self, last: Reading, *, is_first: bool) -> Reading:
        try:
            reading, is_plain = read_blocks_file(self._path)
        except ConfigError as exc:
            # At the start there is nothing to keep, so the error must be reported.
            if is_first:
                raise
            return replace(last, problems=exc.problems)
        problems = reading.problems
        if not problems and last.entries and not is_plain:
            message = "is gone or empty, and takes nothing back; write `deny: []` to do so"
            problems = (Problem(file=str(self._path), message=message),)
        if not problems:
            return reading
        return Reading({**last.entries, **reading.entries}, problems)

    async def confirm(self) -> None:
        """Does nothing; see `list_confirmed`."""

    async def close(self) -> None:
        """Does nothing: no file stays open."""


def read_blocks_file(path: Path) -> tuple[Reading, bool]:
    """The entries of a file, and whether the file defines them: a missing or empty one does not.

    Raises:
        ConfigError: it cannot be read or parsed.
    """
    source = decode_source(str(path), _read_text(path))
    tree = read_values(source)
    if tree is None:
        return Reading(), False
    return read_entries(source, tree), isinstance(tree, dict) and not SECTIONS.keys().isdisjoint(
        tree
    )


def list_misfits(path: Path, catalog: Catalog) -> Iterator[Problem]:
    """Names in a valid file that are not in a catalog, each with its line."""
    source = decode_source(str(path), _read_text(path))
    tree, names = read_values(source) or {}, CatalogNames(catalog)
    faults = [
        Fault(path=(section, position), message=misfit)
        for section in SECTIONS
        for position, written in enumerate(tree.get(section) or ())
        for misfit in names.list_misfits(read_entry(section, written, source.file).document)
    ]
    yield from locate(source, faults)


def _read_text(path: Path) -> bytes:
    try:
        path.stat()
    except FileNotFoundError:
        return b""
    except (OSError, ValueError):
        pass  # told by what follows
    return read_file(path, max_bytes=MAX_BYTES)


def _change(path: Path, entries: Mapping[str, Entry | None]) -> None:
    try:
        with _locked(path):
            source = decode_source(str(path), _read_text(path))
            tree = {} if read_values(source) is None else read_mapping(source)
            _put(tree, entries)
            text = _write_text(tree, is_json=source.is_json)
            if len(text) > MAX_BYTES:
                _drop_what_is_over(tree)
                text = _write_text(tree, is_json=source.is_json)
            if len(text) > MAX_BYTES:
                message = (
                    f"would be larger than {MAX_BYTES} bytes; lift some with `extauthz unblock`"
                )
                raise ConfigError([Problem(file=str(path), message=message)])
            _write(path, text)
    except OSError as exc:
        message = f"could not be written: {say_why_unreadable(exc)}"
        raise ConfigError([Problem(file=str(path), message=message)]) from exc


def _put(tree: dict[str, Any], entries: Mapping[str, Entry | None]) -> None:
    """Changes the entries of a file. A section that is no list is left as it is."""
    for section in SECTIONS:
        listed = tree.get(section)
        kept = [one for one in listed or () if _find_id(section, one) not in entries]
        kept += [
            write_tree(entry.document)
            for entry in entries.values()
            if entry is not None and entry.section == section
        ]
        if isinstance(listed, list) or kept or listed is None:
            tree[section] = kept


def _drop_what_is_over(tree: dict[str, Any]) -> None:
    """Removes entries that ended more than an hour ago, so that clocks may differ."""
    ended_us = time.time_ns() // 1000 - KEPT_AFTER_END_US
    for section in SECTIONS:
        listed = tree[section]
        if isinstance(listed, list):
            tree[section] = [one for one in listed if not _is_over(section, one, ended_us)]


def _is_over(section: str, written: Any, now_us: int) -> bool:
    try:
        return read_entry(section, written, "").is_over(now_us)
    except ValidationError:
        return False


def _find_id(section: str, written: Any) -> str:
    """The id of an entry, as far as it can be read."""
    try:
        return read_entry(section, written, "").id
    except ValidationError:
        return str(written.get("id", "")) if isinstance(written, dict) else ""


def _write_text(tree: dict[str, Any], *, is_json: bool) -> bytes:
    if is_json:
        return (json.dumps(tree, separators=(",\n", ": ")) + "\n").encode()
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=100)
    return (_HEAD + text).encode()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Locks a file for one writer; the lock ends with its process."""
    with path.with_name(f".{path.name}.lock").open("a", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _give_access(descriptor: int, place: Path) -> None:
    """The mode and owner of the file that is replaced: the service must be able to read it."""
    try:
        before = place.stat()
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    os.fchmod(descriptor, before.st_mode & 0o777)
    try:
        os.fchown(descriptor, before.st_uid, before.st_gid)
    except PermissionError:
        now = os.fstat(descriptor)
        is_lost = (before.st_uid != now.st_uid and before.st_mode & 0o400) or (
            before.st_gid != now.st_gid and before.st_mode & 0o040
        )
        if is_lost and not before.st_mode & 0o004:
            raise  # processes that could read the file no longer could


def _write(path: Path, text: bytes) -> None:
    place = path.resolve()
    with tempfile.NamedTemporaryFile(
        dir=place.parent, prefix=f".{place.name}.", delete=False
    ) as beside:
        try:
            beside.write(text)
            beside.flush()
            _give_access(beside.fileno(), place)
            os.fsync(beside.fileno())
            Path(beside.name).replace(place)
        except BaseException:
            Path(beside.name).unlink()
            raise
    folder = os.open(place.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
