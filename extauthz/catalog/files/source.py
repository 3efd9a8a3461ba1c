"""Catalogs from files and folders, and the news that they changed.

Which files count is `extauthz.catalog.files.reading`'s to say. A change is a file's new time, size or
inode (seen through symbolic links, so the swap of a Kubernetes ConfigMap is one), a file more or
less, and the same for files that are referred to. The operating system's notices wake the look;
one in `poll_s` is made without a notice, for file systems that send none.

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
"""Bytes of all files together. Up to here no single step in a thread takes 20 ms."""
POLL_S: Final = 5.0
SETTLE_S: Final = 0.5
"""How long files must have stood still before they are read."""
_MOST_LOOKS: Final = 20
"""After that they are read although somebody goes on writing."""
_DEBOUNCE_MS: Final = 200
_STEP_MS: Final = 50


class FileCatalogSource:
    """A `CatalogSource` of files and folders. The same bytes give the same catalog object.

    Args:
        poll_s: how often the files are looked at when the system says nothing of them.
        has_pepper: whether the settings hold the secret that hmac_sha256 keys need.
        large: above how many bytes a process of its own reads them.
        sleep: waits for so many seconds.
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
        """A whole new catalog. Nothing of it holds up the event loop for long.

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
        """How the files stand now that the last load read, and those that it did not know."""
        paths = [*(self._stamps or ()), *(path for path, _ in list_files(self._paths, []))]
        return {path: stamp_file(path) for path in paths}

    def _list_watched(self) -> Sequence[Path]:
        """The folders in which a change would show."""
        folders: set[Path] = set()
        for path in (*self._paths, *(self._stamps or ())):
            for place in (path, path.parent.resolve(), path.resolve().parent):
                while not place.is_dir():
                    place = place.parent
                folders.add(place)
            if path.is_dir():
                folders.update(Path(folder) for folder, _ in walk_folders(path, []))
        return sorted(folders)
