"""Holds the current catalog, and replaces it when its source has a new one.

A reload that fails changes nothing: the last valid catalog stays, and the error is logged once and
kept for readiness (`last_error`).

The catalog that was replaced is freed in small steps (`extauthz.catalog.letting_go`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from extauthz.catalog.letting_go import let_go
from extauthz.errors import CatalogError, ConfigError, ExtauthzError
from extauthz.model.catalog import Catalog
from extauthz.ports import CatalogSource, Clock
from extauthz.process.collector import without_full_collections

_LOG = logging.getLogger(__name__)

RETRY_S: Final = 5.0


class CatalogRefresher:
    """Holds the current catalog. Call `start` once, then run `run` in a task.

    Attributes:
        last_error: why the last load failed; None when it did not.
        checked_at_us: when the source was last loaded without an error; 0 before.
        loaded_at_us: when the current catalog was put in force; 0 before.
        swaps, failures: number of catalogs put in force, and of failed loads.
    """

    def __init__(self, source: CatalogSource, clock: Clock, *, retry_s: float = RETRY_S) -> None:
        """Makes a refresher; `retry_s` is the wait before a source that failed is tried again."""
        self._source = source
        self._clock = clock
        self._retry_s = retry_s
        self._catalog: Catalog | None = None
        self._callbacks: list[Callable[[Catalog], None]] = []
        self._loading = asyncio.Lock()
        self._letting_go: set[asyncio.Task[None]] = set()
        self.last_error: ExtauthzError | None = None
        self.checked_at_us = 0
        self.loaded_at_us = 0
        self.swaps = 0
        self.failures = 0

    @property
    def catalog(self) -> Catalog:
        """The current catalog. There is one after `start`."""
        if self._catalog is None:
            raise RuntimeError("no catalog yet: await start() first")
        return self._catalog

    @property
    def problems(self) -> int:
        """How much is wrong in a catalog that was refused; 0 after one that was not."""
        error = self.last_error
        if isinstance(error, ConfigError):
            return len(error.problems)
        return int(error is not None)

    def subscribe(self, callback: Callable[[Catalog], None]) -> Callable[[], None]:
        """Calls back with each catalog that is put in force; returns a function that ends this.

        Called in the event loop, and must be quick. An exception is logged, and stops nothing.
        """
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    async def start(self) -> None:
        """The first load.

        Raises:
            ConfigError, CatalogError: there is no valid catalog.
        """
        async with self._loading:
            await self._load()

    async def run(self) -> None:
        """Reloads whenever the source has changed. Ends only when it is cancelled."""
        while True:
            try:
                # A source that could not be read is asked again without news.
                wait_s = self._retry_s if isinstance(self.last_error, CatalogError) else None
                async with asyncio.timeout(wait_s):
                    await self._source.wait_for_change()
            except TimeoutError:
                pass
            except (ConfigError, CatalogError) as exc:
                self._note_failure(exc)
                await asyncio.sleep(self._retry_s)
            except Exception:  # noqa: BLE001  # whatever it was, later changes must be seen
                _LOG.exception("waiting for changes of the catalog failed; it is tried again")
                await asyncio.sleep(self._retry_s)
            await self.reload()

    async def reload(self) -> bool:
        """Loads again now (SIGHUP). False when that failed and the last valid catalog stays."""
        async with self._loading:
            try:
                await self._load()
            except (ConfigError, CatalogError) as exc:
                self._note_failure(exc)
                return False
            except Exception as exc:  # noqa: BLE001  # whatever it was, decisions go on
                # A defect; the last valid catalog stays.
                _LOG.exception("loading the catalog failed because of a defect")
                self._note_failure(CatalogError(f"a defect: {type(exc).__name__}"))
                return False
            return True

    async def _load(self) -> None:
        # Until a subscriber has put the new catalog aside: a full collection that begins before
        # would look at all of it.
        with without_full_collections():
            self._replace(await self._source.load())

    def _replace(self, catalog: Catalog) -> None:
        self.checked_at_us = self._clock.now_us()
        was_bad, self.last_error = self.last_error is not None, None
        if was_bad:
            _LOG.info("the catalog is valid again")
        old = self._catalog
        if old is not None and (
            old is catalog or (catalog.revision and old.revision == catalog.revision)
        ):
            if not was_bad:
                _LOG.info("catalog read again: nothing has changed")
            return
        self._catalog = catalog
        self.loaded_at_us = self.checked_at_us
        self.swaps += 1
        _LOG.info("catalog in force: revision %.12s, %d APIs", catalog.revision, len(catalog.apis))
        for warning in catalog.warnings:
            _LOG.warning("%s", warning)
        for callback in tuple(self._callbacks):
            try:
                callback(catalog)
            except Exception:  # noqa: BLE001  # one subscriber's bug must not end reloading
                _LOG.exception("a subscriber to catalogs failed")
        if old is not None:
            task = asyncio.create_task(let_go(old))
            self._letting_go.add(task)
            task.add_done_callback(self._letting_go.discard)

    def _note_failure(self, error: ConfigError | CatalogError) -> None:
        """Remembers and logs a failure; a repeated one is only counted."""
        self.failures += 1
        repeated = type(error) is type(self.last_error) and str(error) == str(self.last_error)
        self.last_error = error
        if repeated:
            return
        problems = error.problems if isinstance(error, ConfigError) else (error,)
        for problem in problems:
            _LOG.error("%s: %s", error.code, problem, extra={"code": error.code})
        if self._catalog is not None:
            _LOG.error("%s: the last good catalog stays in force", error.code)
