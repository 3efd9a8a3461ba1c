"""Catalogs from files and folders, and the news that they changed.

A file that is named is read as a catalog. Of a folder, and the folders in it, every ``*.yaml``,
``*.yml`` and ``*.json`` is read, in the order of the names, but not:

- hidden files and folders (a leading dot: editors' and Kubernetes' own);
- a file whose top level has ``openapi``, ``swagger`` or ``keys``: an OpenAPI document or a
  JWK Set that lies beside the catalog which refers to it.

Everything else in a folder must be a catalog, so a misspelled one cannot go unnoticed.

A change is a file's new time, size or inode (seen through symbolic links, so the swap of a
Kubernetes ConfigMap is one), a file more or less, and the same for files that are referred to.
The operating system's notices wake the look; one in `poll_s` is made without a notice, for
file systems that send none.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

from watchfiles import awatch

from extauthz.catalog.build import build_catalog, read_catalog_file
from extauthz.catalog.faults import CatalogFile
from extauthz.document import decode_source, read_file, read_mapping, say_why_unreadable
from extauthz.errors import ConfigError, Problem
from extauthz.model.catalog import Catalog

_log = logging.getLogger(__name__)

SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_FILES: Final = 10_000
POLL_S: Final = 5.0
SETTLE_S: Final = 0.5
"""How long files must have stood still before they are read."""
_MOST_LOOKS: Final = 20
"""After that they are read although somebody goes on writing."""
_DEBOUNCE_MS: Final = 200
_STEP_MS: Final = 50
_OTHER_DOCUMENTS: Final = frozenset({"openapi", "swagger", "keys"})

_Stamp = tuple[int, int, int, int] | None
"""Device, inode, size, time of change; None when there is no such file."""


class FileCatalogSource:
    """A `CatalogSource` of files and folders. The same bytes give the same catalog object.

    Args:
        poll_s: how often the files are looked at when the system says nothing of them.
        has_pepper: whether the settings hold the secret that hmac_sha256 keys need.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        paths: Iterable[Path | str],
        *,
        poll_s: float = POLL_S,
        has_pepper: bool = True,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._paths = tuple(Path(path) for path in paths)
        self._has_pepper = has_pepper
        self._sleep = sleep
        self._is_deaf = False
        self._poll_s = poll_s
        self._stamps: dict[Path, _Stamp] | None = None
        """Of all that the last load looked at; None before the first."""
        self._last: Catalog | None = None

    async def load(self) -> Catalog:
        """A whole new catalog. Reads and checks in a thread.

        Raises:
            ConfigError: a file is missing, unreadable or wrong; every problem is named.
        """
        return await asyncio.to_thread(self._load)

    async def wait_for_change(self) -> None:
        """Returns when the files are not as the last `load` found them, and stand still.

        A file that is being written reads like a whole one that lacks its end: deny rules may
        stand there. So files must have been left alone for a moment; who writes slower than
        that writes beside them and renames.
        """
        if self._stamps is None:
            return
        while not await asyncio.to_thread(self._has_changed):
            try:
                await self._wait_for_notice()
            except (OSError, RuntimeError) as exc:
                # As when the system has no inotify watches left.
                if not self._is_deaf:
                    _log.warning(
                        "changes of the catalog's files are not told (%s); looking every %g s",
                        exc,
                        self._poll_s,
                    )
                self._is_deaf = True
                await self._sleep(self._poll_s)
        seen = await asyncio.to_thread(self._look)
        for _ in range(_MOST_LOOKS):
            await self._sleep(SETTLE_S)
            before, seen = seen, await asyncio.to_thread(self._look)
            if seen == before:
                return

    async def _wait_for_notice(self) -> None:
        """Returns when something moved near the files, or after `poll_s`."""
        notices = awatch(
            *await asyncio.to_thread(self._list_watched),
            watch_filter=None,
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            rust_timeout=max(1, round(self._poll_s * 1000)),
            yield_on_timeout=True,
            recursive=False,
            ignore_permission_denied=True,
        )
        async with aclosing(notices):
            notice = asyncio.ensure_future(anext(notices))
            try:
                # The first step sets the watch up. Only then can no change slip by unseen.
                await asyncio.sleep(0)
                if not await asyncio.to_thread(self._has_changed):
                    await notice
            finally:
                notice.cancel()
                await asyncio.wait([notice])

    def _load(self) -> Catalog:
        stamps: dict[Path, _Stamp] = {}
        self._stamps = stamps
        digest = hashlib.sha256()

        def read(path: Path) -> bytes:
            stamps[path] = _stamp(path)
            content = read_file(path)
            digest.update(f"{len(content)}:".encode())
            digest.update(content)
            return content

        problems: list[Problem] = []
        files: list[CatalogFile] = []
        for path, is_named in self._list_files(problems):
            try:
                file = _read_catalog(path, read(path), is_named=is_named)
            except ConfigError as exc:
                problems.extend(exc.problems)
            else:
                files += [] if file is None else [file]
        if not files and not problems:
            names = ", ".join(map(str, self._paths)) or "no path"
            problems.append(Problem(message=f"no catalog in {names}; write one, like catalog.yaml"))
        if problems:
            raise ConfigError(problems)
        catalog = build_catalog(files, read=read, has_pepper=self._has_pepper)
        # Only now are all bytes known; nobody else has the catalog yet.
        catalog.revision = digest.hexdigest()
        if self._last is not None and self._last.revision == catalog.revision:
            return self._last
        self._last = catalog
        return catalog

    def _list_files(self, problems: list[Problem]) -> Iterator[tuple[Path, bool]]:
        """Every file to read, once; whether it was named itself."""
        seen: set[Path] = set()
        for path in self._paths:
            for file in _walk(path, problems) if path.is_dir() else (path,):
                if file not in seen:
                    seen.add(file)
                    yield file, file == path
                if len(seen) > MAX_FILES:
                    message = f"holds more than {MAX_FILES} files; split the catalog"
                    problems.append(Problem(file=str(path), message=message))
                    return

    def _has_changed(self) -> bool:
        return self._look() != self._stamps

    def _look(self) -> dict[Path, _Stamp]:
        """How the files stand now that the last load read, and those that it did not know."""
        paths = [*(self._stamps or ()), *(path for path, _ in self._list_files([]))]
        return {path: _stamp(path) for path in paths}

    def _list_watched(self) -> Sequence[Path]:
        """The folders in which a change would show."""
        folders: set[Path] = set()
        for path in (*self._paths, *(self._stamps or ())):
            for place in (path, path.parent.resolve(), path.resolve().parent):
                while not place.is_dir():
                    place = place.parent
                folders.add(place)
            if path.is_dir():
                folders.update(Path(folder) for folder, _ in _walk_folders(path, []))
        return sorted(folders)


def _walk(folder: Path, problems: list[Problem]) -> Iterator[Path]:
    for name, files in _walk_folders(folder, problems):
        for file in files:
            if file.endswith(SUFFIXES) and not file.startswith("."):
                yield Path(name, file)


def _walk_folders(folder: Path, problems: list[Problem]) -> Iterator[tuple[str, list[str]]]:
    def note(exc: OSError) -> None:
        problems.append(Problem(file=str(exc.filename), message=say_why_unreadable(exc)))

    for name, folders, files in os.walk(folder, onerror=note):
        folders[:] = sorted(it for it in folders if not it.startswith("."))
        yield name, sorted(files)


def _read_catalog(path: Path, content: bytes, *, is_named: bool) -> CatalogFile | None:
    """One file of a catalog; None for another kind of document in a folder."""
    source = decode_source(str(path), content)
    tree = read_mapping(source)
    if not is_named and not _OTHER_DOCUMENTS.isdisjoint(tree):
        return None
    return read_catalog_file(source, path.parent, tree)


def _stamp(path: Path) -> _Stamp:
    try:
        seen = path.stat()
    except (OSError, ValueError):
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns
