"""Loads catalogs from files and folders, and notices when they change.

`extauthz.catalog.files.reading` says which files belong to a catalog. A change is a new time, size
or inode of a file (symbolic links are followed, so the swap of a Kubernetes ConfigMap is one), or a
new or missing file; files that are referred to count, too. The files are checked after the
operating system's notices, and every `poll_s` for file systems that send none.

Small catalogs are read in a thread, large ones by a process of their own
(`extauthz.catalog.files.child`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final

from watchfiles import awatch

from extauthz.catalog.files.child import read_apart
from extauthz.catalog.files.reader_process import Task
from extauthz.catalog.files.reading import (
    CatalogReader,
    Stamp,
    TooLarge,
    list_files,
    stamp_file,
    walk_folders,
)
from extauthz.catalog.parts import index_catalog
from extauthz.errors import CatalogError, ConfigError
from extauthz.model.catalog import Catalog

_log = logging.getLogger(__name__)

LARGE: Final = 256 * 1024
"""Bytes of all files together. Up to this size no step in a thread takes 20 ms."""
POLL_S: Final = 5.0
SETTLE_S: Final = 0.5
"""How long files must be unchanged before they are read."""
_MOST_LOOKS: Final = 20
"""After this time they are read although they still change."""
_DEBOUNCE_MS: Final = 200
_STEP_MS: Final = 50


class FileCatalogSource:
    """A `CatalogSource` of files and folders. The same bytes give the same catalog object.

    Args:
        poll_s: how often the files are checked without a notice of the system.
        has_pepper: whether the settings hold the secret that hmac_sha256 keys need.
        large: number of bytes above which a process of its own reads them.
        sleep: waits for a number of seconds.
    """

    def __init__(
        self,
        paths: Iterable[Path | str],
        *,
        poll_s: float = POLL_S,
        has_pepper: bool = True,
        large: int = LARGE,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._paths = tuple(Path(path) for path in paths)
        self._has_pepper = has_pepper
        self._large = large
        self._sleep = sleep
        self._is_deaf = False
        self._poll_s = poll_s
        self._stamps: dict[Path, Stamp] | None = None
        """Of all that the last load looked at; None before the first."""
        self._last: Catalog | None = None

    async def load(self) -> Catalog:
        """Loads a new catalog without blocking the event loop for long.

        Raises:
            ConfigError: a file is missing, unreadable or wrong; every problem is named.
            CatalogError: the process that read the files failed.
        """
        try:
            catalog = await asyncio.to_thread(self._load_small)
        except TooLarge:
            catalog = await self._load_large()
        self._last = catalog
        return catalog

    async def wait_for_change(self) -> None:
        """Returns when the files differ from those of the last `load`, and no longer change.

        A file that is being written may be read without its end, where there may be deny rules. So
        files must be unchanged for a moment. Programs that write more slowly than that should write
        another file and rename it.
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
                        (
                            "the system does not report changes of the catalog's files (%s); "
                            "they are checked every %g s"
                        ),
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
        """Returns after a notice of a change near the files, or after `poll_s`."""
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
                # The first step sets the watch up; from then on no change is missed.
                await asyncio.sleep(0)
                if not await asyncio.to_thread(self._has_changed):
                    await notice
            finally:
                notice.cancel()
                await asyncio.wait([notice])

    def _load_small(self) -> Catalog:
        reader = CatalogReader(self._paths, has_pepper=self._has_pepper, max_bytes=self._large)
        try:
            parts = reader.read()
        finally:
            self._stamps = reader.stamps
        if self._last is not None and self._last.revision == reader.revision:
            return self._last
        return index_catalog(parts, reader.revision)

    async def _load_large(self) -> Catalog:
        last = self._last
        task = Task(
            paths=tuple(map(str, self._paths)),
            has_pepper=self._has_pepper,
            known_revision="" if last is None else last.revision,
        )
        try:
            outcome = await read_apart(task)
        except (ConfigError, CatalogError):
            # What the child saw is not known. The next change is one from now on.
            self._stamps = await asyncio.to_thread(self._look)
            raise
        self._stamps = outcome.stamps
        if outcome.problems:
            raise ConfigError(outcome.problems)
        catalog = outcome.catalog or last
        assert catalog is not None  # only what is known can be unchanged
        return catalog

    def _has_changed(self) -> bool:
        return self._look() != self._stamps

    def _look(self) -> dict[Path, Stamp]:
        """The current states of the files of the last load, and of new files."""
        paths = [*(self._stamps or ()), *(path for path, _ in list_files(self._paths, []))]
        return {path: stamp_file(path) for path in paths}

    def _list_watched(self) -> Sequence[Path]:
        """The folders in which a change would be noticed."""
        folders: set[Path] = set()
        for path in (*self._paths, *(self._stamps or ())):
            for place in (path, path.parent.resolve(), path.resolve().parent):
                while not place.is_dir():
                    place = place.parent
                folders.add(place)
            if path.is_dir():
                folders.update(Path(folder) for folder, _ in walk_folders(path, []))
        return sorted(folders)
