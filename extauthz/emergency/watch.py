"""Puts the blocks and revocations of all sources in force while the service runs.

Each source is polled by a task of its own, so that one that is away does not delay the others. The
last entries of a source stay in force while it cannot be read. Problems are logged when they are
new, and shown by readiness and metrics as long as they last.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from extauthz.emergency.entries import Entry, make_rules
from extauthz.emergency.files import EmergencyFile
from extauthz.emergency.names import CatalogNames
from extauthz.emergency.reading import EmergencyStore, Reading
from extauthz.errors import BackendError, ConfigError, EmergencyError, Problem
from extauthz.model.catalog import Catalog
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.blocks import Blocks
from extauthz.ports import Clock

_log = logging.getLogger(__name__)

LOOK_AT_FILE_S: Final = 0.1
LOOK_AT_REDIS_S: Final = 0.25
_MOST_TOLD: Final = 20


@dataclass(slots=True)
class _Watched:
    """A source and its state. `error` says why it could not be read; None when it could."""

    source: EmergencyStore
    reading: Reading = field(default_factory=Reading)
    error: BackendError | ConfigError | None = None
    was_read: bool = False


class EmergencyWatch:
    """Watches the sources. Call `start` once, then run `run` in a task, then call `close`.

    Args:
        is_required: refuse to start while a source cannot be read.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        sources: Sequence[EmergencyStore],
        *,
        blocks: Blocks,
        revocations: Revocations,
        clock: Clock,
        catalog: Callable[[], Catalog],
        is_required: bool = False,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._watched = [_Watched(source) for source in sources]
        self._blocks = blocks
        self._revocations = revocations
        self._clock = clock
        self._catalog = catalog
        self._is_required = is_required
        self._sleep = sleep
        self._putting = asyncio.Lock()
        self._told: frozenset[str] = frozenset()
        self._misfits: frozenset[str] = frozenset()
        self._unconfirmed = ""
        """Why it could not be told last what is in force."""
        self._revision = ""
        """Of the catalog that names were last looked for in."""
        self.entries: tuple[Entry, ...] = ()

    async def start(self) -> None:
        """Reads every source for the first time.

        Raises:
            ConfigError: a file cannot be read, and there is nothing of it to keep.
            EmergencyError: a source that is required does not answer.
        """
        for watched in self._watched:
            await self._look(watched)
            error = watched.error
            if isinstance(error, ConfigError):
                raise error
            if error is not None and self._is_required:
                raise EmergencyError(f"{error} (emergency.required is true)") from error
        await self._put_in_force()

    async def run(self) -> None:
        """Polls the sources until it is cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for watched in self._watched:
                tasks.create_task(self._run(watched))

    async def close(self) -> None:
        """Closes connections."""
        for watched in self._watched:
            await watched.source.close()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """The entries that cannot be used, of sources that could be read."""
        return tuple(problem for it in self._watched for problem in it.reading.problems)

    @property
    def errors(self) -> Mapping[str, str]:
        """Sources that cannot be read, and why."""
        return {it.source.name: str(it.error) for it in self._watched if it.error is not None}

    @property
    def is_good(self) -> bool:
        """Whether every source was read last time, and all of it was good."""
        return not self.problems and not self.errors

    def count(self) -> int:
        """Blocks and revocations in force now."""
        now_us = self._clock.now_us()
        return sum(not entry.is_over(now_us) for entry in self.entries)

    async def _run(self, watched: _Watched) -> None:
        is_file = isinstance(watched.source, EmergencyFile)
        pause_s = LOOK_AT_FILE_S if is_file else LOOK_AT_REDIS_S
        is_new, is_confirmed = False, False
        while True:
            try:
                is_new = await self._look(watched) or is_new
                if is_new:
                    await self._put_in_force()
                    is_new, is_confirmed = False, False
                elif self._catalog().revision != self._revision:
                    await self._tell_misfits()
                if watched.was_read and watched.error is None and not is_confirmed:
                    is_confirmed = True
                    await self._confirm(watched.source)
            except Exception as exc:  # noqa: BLE001  # whatever it was, later orders must be seen
                error = EmergencyError(f"a defect: {type(exc).__name__}")
                if str(error) != str(watched.error):
                    _log.exception("looking for blocks and revocations failed; it is tried again")
                watched.error = error
            await self._sleep(pause_s)

    async def _confirm(self, source: EmergencyStore) -> None:
        """Tells that it is in force. Where that fails it is in force all the same."""
        try:
            await source.confirm()
        except BackendError as exc:
            if str(exc) != self._unconfirmed:
                _log.warning(
                    "could not write to %s which entries are in force: %s", source.name, exc
                )
            self._unconfirmed = str(exc)

    async def _look(self, watched: _Watched) -> bool:
        """Whether there may be something new."""
        try:
            reading = await watched.source.look()
        except (BackendError, ConfigError) as exc:
            watched.error = exc
            self._tell()
            return False
        was_bad, watched.error = watched.error is not None, None
        if reading is not None:
            watched.reading, watched.was_read = reading, True
        if was_bad or reading is not None:
            self._tell()
        return reading is not None

    async def _put_in_force(self) -> None:
        async with self._putting:
            entries = tuple(entry for it in self._watched for entry in it.reading.entries.values())
            if len(entries) == len(self.entries) and entries == self.entries:
                return
            # Thousands of them take a while; meanwhile decisions go on.
            rules, orders = await asyncio.to_thread(make_rules, entries)
            before, self.entries = self.entries, entries
            self._blocks.rules, self._revocations.standing = rules, orders
            _tell_changes(before, entries)
        await self._tell_misfits()

    def _tell(self) -> None:
        """Logs what is newly wrong, and that all is good again."""
        told = {str(problem) for problem in self.problems}
        told |= {f"{name} cannot be read: {error}" for name, error in self.errors.items()}
        new = sorted(told - self._told)
        for text in new[:_MOST_TOLD]:
            _log.error("%s: %s; what was in force stays in force", EmergencyError.code, text)
        if len(new) > _MOST_TOLD:
            _log.error("%s: and %d more", EmergencyError.code, len(new) - _MOST_TOLD)
        if self._told and not told:
            _log.info("blocks and revocations can be read again, and are valid")
        self._told = frozenset(told)

    async def _tell_misfits(self) -> None:
        """Warns of names that nothing in the catalog has, once each."""
        catalog = self._catalog()
        self._revision = catalog.revision
        misfits: frozenset[str] = frozenset()
        if self.entries:
            misfits = await asyncio.to_thread(_list_misfits, self.entries, catalog)
        for text in sorted(misfits - self._misfits)[:_MOST_TOLD]:
            _log.warning("%s", text)
        self._misfits = misfits


def _list_misfits(entries: Iterable[Entry], catalog: Catalog) -> frozenset[str]:
    names = CatalogNames(catalog)
    return frozenset(
        f"{entry.id} of {entry.source}: {misfit}"
        for entry in entries
        for misfit in names.list_misfits(entry.document)
    )


def _tell_changes(before: Iterable[Entry], after: Iterable[Entry]) -> None:
    """Logs what came into force and what was lifted; of many, the number."""
    old = {entry.id: entry for entry in before}
    new = {entry.id: entry for entry in after}
    changes = [
        ("in force", [entry for key, entry in new.items() if old.get(key) != entry]),
        ("no longer in force", [entry for key, entry in old.items() if key not in new]),
    ]
    for what, entries in changes:
        if len(entries) > _MOST_TOLD:
            _log.info("%d blocks and revocations %s", len(entries), what)
            continue
        for entry in entries:
            conditions = ", ".join(
                f"{key} {text}" for key, text in entry.document.conditions.items()
            )
            _log.info("%s of %s is %s: %s", entry.id, entry.source, what, conditions)
