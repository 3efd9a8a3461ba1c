"""Reads the files of a catalog into its parts, and notes the state of each file.

A file that is named is read as a catalog. Of a folder, and the folders in it, every ``*.yaml``,
``*.yml`` and ``*.json`` is read, in the order of the names, but not:

- hidden files and folders (a leading dot: editors' and Kubernetes' own);
- a file whose top level has ``openapi``, ``swagger`` or ``keys``: an OpenAPI document or a
  JWK Set that lies beside the catalog which refers to it;
- a file that is no catalog, and that an OpenAPI document of the catalog refers to, or a file that
  such a file refers to.

Everything else in a folder must be a catalog, so a misspelled one cannot go unnoticed.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from extauthz.catalog.documents.build import build_parts, read_catalog_file
from extauthz.catalog.documents.faults import CatalogFile
from extauthz.catalog.parts import CatalogParts
from extauthz.documents.document import decode_source, read_file, read_mapping, say_why_unreadable
from extauthz.errors import ConfigError, Problem

SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_FILES: Final = 10_000
_OTHER_DOCUMENTS: Final = frozenset({"openapi", "swagger", "keys"})
_REFERENCE: Final = re.compile(rb"""\$ref["']?\s*:\s*["']?([^"'#\s,}]+)""")

Stamp = tuple[int, int, int, int] | None
"""Device, inode, size, time of change; None when there is no such file."""


class TooLarge(Exception):
    """The files hold more than may be read in this way."""


class CatalogReader:
    """Reads once.

    Args:
        has_pepper: whether the settings hold the secret that hmac_sha256 keys need.
        max_bytes: of all files together; None for no bound.

    Attributes:
        stamps: of every file that was looked at, from the moment before it was read.
    """

    def __init__(
        self, paths: Sequence[Path], *, has_pepper: bool = True, max_bytes: int | None = None
    ) -> None:
        self._paths = paths
        self._has_pepper = has_pepper
        self._left = max_bytes
        self._digest = hashlib.sha256()
        self.stamps: dict[Path, Stamp] = {}

    def read(self) -> CatalogParts:
        """All parts.

        Raises:
            ConfigError: a file is missing, unreadable or wrong; every problem is named.
            TooLarge: there are more than `max_bytes`.
        """
        problems: list[Problem] = []
        files: list[CatalogFile] = []
        others: dict[str, ConfigError] = {}
        """Files that are no catalog, by absolute name: an OpenAPI document may refer to them."""
        is_hopeless = False
        for path, is_named in list_files(self._paths, problems):
            try:
                file = _read_catalog(path, self._read(path), is_named=is_named)
            except ConfigError as exc:
                others[os.path.abspath(path)] = exc  # noqa: PTH100  # links stay, dots go
                is_hopeless = is_hopeless or is_named
            else:
                files += [] if file is None else [file]
        if not files and not problems and not others:
            problems += self._say_that_nothing_is_there()
        if problems or is_hopeless or not files:
            raise ConfigError([*problems, *_gather(others.values())])
        referring: list[tuple[Path, bytes]] = []

        def read(path: Path) -> bytes:
            content = self._read(path)
            others.pop(os.path.abspath(path), None)  # noqa: PTH100  # as above
            referring.append((path, content))
            return content

        try:
            parts = build_parts(files, read=read, has_pepper=self._has_pepper)
        except ConfigError as exc:
            _leave_out_fragments(others, referring)
            # What the others refer to may be in a file that is no catalog yet.
            problems += _gather(others.values()) if others else exc.problems
            raise ConfigError(problems) from None
        _leave_out_fragments(others, referring)
        if others:
            raise ConfigError(_gather(others.values()))
        return parts

    def _say_that_nothing_is_there(self) -> Iterator[Problem]:
        if not self._paths:
            yield Problem(message="no catalog is named; write one, like catalog.yaml")
        for path in self._paths:
            yield Problem(file=str(path), message="holds no catalog; write one, like catalog.yaml")

    @property
    def revision(self) -> str:
        """A digest of all that was read."""
        return self._digest.hexdigest()

    def _read(self, path: Path) -> bytes:
        stamp = self.stamps[path] = stamp_file(path)
        if self._left is not None and stamp is not None:
            self._left -= stamp[2]
            if self._left < 0:
                raise TooLarge
        content = read_file(path)
        self._digest.update(f"{len(content)}:".encode())
        self._digest.update(content)
        return content


def _leave_out_fragments(
    others: dict[str, ConfigError], referring: list[tuple[Path, bytes]]
) -> None:
    """Removes the files that OpenAPI documents refer to, also for responses and schemas."""
    while others and referring:
        path, content = referring.pop()
        for found in _REFERENCE.finditer(content):
            name = unquote(found[1].decode(errors="replace"))
            target = os.path.abspath(path.parent / name)  # noqa: PTH100  # links stay, dots go
            if others.pop(target, None) is not None:
                with suppress(ConfigError):  # gone meanwhile
                    referring.append((Path(target), read_file(Path(target))))


def _gather(errors: Iterable[ConfigError]) -> Iterator[Problem]:
    for error in errors:
        yield from error.problems


def _read_catalog(path: Path, content: bytes, *, is_named: bool) -> CatalogFile | None:
    """One file of a catalog; None for another kind of document in a folder."""
    source = decode_source(str(path), content)
    tree = read_mapping(source)
    if not is_named and not _OTHER_DOCUMENTS.isdisjoint(tree):
        return None
    return read_catalog_file(source, path.parent, tree)


def list_files(paths: Sequence[Path], problems: list[Problem]) -> Iterator[tuple[Path, bool]]:
    """Every file to read, once; whether it was named itself."""
    seen: set[Path] = set()
    for path in paths:
        for file in _walk(path, problems) if path.is_dir() else (path,):
            if file not in seen:
                seen.add(file)
                yield file, file == path
            if len(seen) > MAX_FILES:
                message = f"holds more than {MAX_FILES} files; split the catalog"
                problems.append(Problem(file=str(path), message=message))
                return


def _walk(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    for name, files in walk_folders(folder, problems):
        for file in files:
            if file.endswith(SUFFIXES) and not file.startswith("."):
                yield Path(name, file)


def walk_folders(folder: Path, problems: list[Problem]) -> Iterator[tuple[str, list[str]]]:
    """Each folder that is not hidden, and the names of its files."""

    def note(exc: OSError) -> None:
        problems.append(Problem(file=str(exc.filename), message=say_why_unreadable(exc)))

    for name, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(it for it in folders if not it.startswith("."))
        yield name, sorted(files)


def stamp_file(path: Path) -> Stamp:
    """The current state of a file; symbolic links are followed."""
    try:
        seen = path.stat()
    except (OSError, ValueError):
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns
