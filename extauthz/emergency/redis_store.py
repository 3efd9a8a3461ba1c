"""Keeps blocks and revocations in Redis, which every replica polls four times a second.

A poll is one small call. All entries are read when the revision has changed, so a replica that was
away is up to date with the first answer. Nothing is pushed, so no message can be missed.

Entries are removed only by a revision that follows the known one: it has a higher counter, and the
known one's nonce among its last ones. When Redis has another revision, or fewer entries under the
same one (it was restarted empty, a failover lost the last writes, memory ran out), the first
replica that notices writes back the entries that it knows: a block that was just lifted may come
back, but none is lost. When an entry cannot be read, its last valid state stays in force.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError

from extauthz.counters.redis.calls import RedisCalls
from extauthz.counters.redis.settings import RedisSettings
from extauthz.documents.document import list_problems
from extauthz.documents.messages import show_name
from extauthz.documents.values import SourceText
from extauthz.emergency import redis_scripts as scripts
from extauthz.emergency.entries import (
    KEPT_AFTER_END_US,
    MAX_ID,
    SECTIONS,
    Entry,
    make_entry,
    write_tree,
)
from extauthz.emergency.reading import Reading
from extauthz.errors import EmergencyError, Problem
from extauthz.telemetry.measures.dependencies import CallMeasure

NAME: Final = "redis"
MAX_ENTRIES: Final = 20_000
_MAX_VALUE: Final = 16_384
_AT_ONCE: Final = 500
"""Entries in one call."""
_SAID_EVERY_S: Final = 5.0
REMEMBERED_S: Final = 15
"""How long after its last confirmation a process counts as alive."""

_Raw = dict[str, bytes]
_Parsed = tuple[dict[str, Entry], dict[str, tuple[Problem, ...]]]


class RedisEmergency:
    """An `EmergencyStore` in Redis, and what writes to it."""

    def __init__(
        self,
        settings: RedisSettings,
        *,
        max_entries: int = MAX_ENTRIES,
        measure: CallMeasure | None = None,
    ) -> None:
        tag = f"{settings.prefix}{{blocks}}"
        keys = (tag, f"{tag}:revision", f"{tag}:confirmed")
        self._calls = RedisCalls(settings, keys, EmergencyError, measure)
        self._max_entries = max_entries
        self._process = f"{socket.gethostname()}/{os.getpid()}"
        self._revision: str | None = None
        self._count = 0
        self._raw: _Raw = {}
        self._entries: dict[str, Entry] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._confirmed = ""
        """The revision that is in force in this process."""
        self._said_s = 0.0

    @property
    def name(self) -> str:
        """As in `Entry.source`."""
        return NAME

    async def look(self) -> Reading | None:
        """See `EmergencyStore.look`."""
        revision, count = await self._look()
        if self._confirmed and time.monotonic() - self._said_s > _SAID_EVERY_S:
            with suppress(EmergencyError):  # who waits for it sees that; what is read counts
                await self._say_confirmed()
        if (revision, count) == (self._revision, self._count):
            return None
        known = self._revision
        if known is not None and self._raw and self._has_lost(known, self._count, revision, count):
            await self._restore(scripts.read_revision(known)[0])
            revision, count = await self._look()
        raw, is_all = await self._scan()
        if self._has_lost(revision, count, *await self._look()):
            raise EmergencyError("Redis lost entries while they were read")
        if not is_all:
            raw = {**self._raw, **raw}
        parsed = await asyncio.to_thread(self._parse, raw)
        self._raw, self._revision, self._count = raw, revision, count
        self._entries, self._problems = parsed
        problems = [problem for told in self._problems.values() for problem in told]
        if not is_all:
            message = f"holds more than {self._max_entries} entries; the rest is not in force"
            problems.insert(0, Problem(file=NAME, message=message))
        return Reading(dict(self._entries), tuple(problems))

    async def confirm(self) -> None:
        """Confirms that the entries read last are in force in this process."""
        self._confirmed = self._revision or "0-"
        await self._say_confirmed()

    async def _say_confirmed(self) -> None:
        self._said_s = time.monotonic()
        args = (self._process, self._confirmed, REMEMBERED_S * 4)
        await self._calls.call(scripts.CONFIRM, *args)

    async def write(self, entries: Mapping[str, Entry | None]) -> str:
        """Writes entries in one step; None removes one. Gives the new revision.

        Ended entries are removed to make room.

        Raises:
            EmergencyError: there is no room; or Redis did not answer, and it is not known whether
                they
                were written.
        """
        values = {it: b"" if entry is None else write_value(entry) for it, entry in entries.items()}
        revision = await self._write(values)
        if not revision:
            over = await self._list_over()
            revision = await self._write({**dict.fromkeys(over, b""), **values}) if over else ""
        if not revision:
            raise EmergencyError(
                f"Redis holds {self._max_entries} blocks and revocations, and no more are taken; "
                "lift some with `extauthz unblock`"
            )
        return revision

    async def _write(self, values: Mapping[str, bytes]) -> str:
        args = [part for item in values.items() for part in item]
        nonce = secrets.token_hex(4)
        return _text(await self._calls.call(scripts.WRITE, nonce, self._max_entries, *args))

    async def _list_over(self) -> list[str]:
        """Some entries that ended more than an hour ago, so that clocks may differ."""
        raw, _ = await self._scan()
        ended_us = time.time_ns() // 1000 - KEPT_AFTER_END_US
        read = {it: read_value(it, value) for it, value in raw.items()}
        over = [
            it for it, entry in read.items() if isinstance(entry, Entry) and entry.is_over(ended_us)
        ]
        return over[:_AT_ONCE]

    async def list_confirmed(self) -> dict[str, str]:
        """Processes that are alive, and the revision that each has in force.

        Raises:
            EmergencyError: Redis did not answer.
        """
        reply = await self._calls.call(scripts.CONFIRMED)
        confirmed = {}
        with _making_sense():
            (now_s, _), said = reply
            for process, word in zip(said[::2], said[1::2], strict=True):
                revision, _, at_s = _text(word).partition(" ")
                if at_s.isdecimal() and int(now_s) - int(at_s) <= REMEMBERED_S:
                    confirmed[_text(process)] = revision
        return confirmed

    async def close(self) -> None:
        """Closes the connection."""
        await self._calls.close()

    async def _look(self) -> tuple[str, int]:
        reply = await self._calls.call(scripts.LOOK)
        with _making_sense():
            revision, count = reply
            return _text(revision), int(count)

    @staticmethod
    def _has_lost(known: str, known_count: int, revision: str, count: int) -> bool:
        """Whether a revision that Redis has now does not follow a known one."""
        if revision == known:
            return count < known_count
        counter, nonces = scripts.read_revision(revision)
        known_counter, known_nonces = scripts.read_revision(known)
        behind = counter - known_counter
        return behind <= 0 or (
            behind < len(nonces) and nonces[behind : behind + 1] != known_nonces[:1]
        )

    async def _scan(self) -> tuple[_Raw, bool]:
        """Ids and values, and whether these are all."""
        raw: _Raw = {}
        cursor: Any = b"0"
        while True:
            reply = await self._calls.call(scripts.SCAN, cursor, _AT_ONCE, MAX_ID, _MAX_VALUE)
            with _making_sense():
                cursor, found = reply
                raw.update(zip(map(_text, found[::2]), map(bytes, found[1::2]), strict=True))
            if len(raw) > self._max_entries:
                return dict(list(raw.items())[: self._max_entries]), False
            if cursor == b"0":
                return raw, True

    async def _restore(self, counter: int) -> None:
        """Writes back the entries that Redis has lost."""
        for args in _cut(self._raw):
            await self._calls.call(scripts.RESTORE, secrets.token_hex(4), counter, *args)

    def _parse(self, raw: _Raw) -> _Parsed:
        """Entries, and what is wrong with the others; only what has changed is read."""
        entries: dict[str, Entry] = {}
        problems: dict[str, tuple[Problem, ...]] = {}
        for entry_id, value in raw.items():
            last = self._entries.get(entry_id)
            if self._raw.get(entry_id) == value:
                told = self._problems.get(entry_id, ())
            else:
                read = read_value(entry_id, value)
                last, told = (read, ()) if isinstance(read, Entry) else (last, read)
            if last is not None:
                entries[entry_id] = last
            if told:
                problems[entry_id] = told
        return entries, problems


def write_value(entry: Entry) -> bytes:
    """An entry as Redis holds it."""
    tree = write_tree(entry.document)
    tree.pop("id", None)
    return json.dumps({entry.section: tree}).encode()


def read_value(entry_id: str, value: bytes) -> Entry | tuple[Problem, ...]:
    """An entry, or what is wrong with it."""
    place = f"entry {show_name(entry_id)}"
    if not value:
        text = f"is larger than {_MAX_VALUE} bytes, or its id is longer than {MAX_ID}"
        return (Problem(file=NAME, path=place, message=text),)
    try:
        tree = json.loads(value)
        ((section, written),) = tree.items()
        model = SECTIONS[section]
        written = {**written, "id": entry_id}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        text = 'is no JSON of the form {"deny": {...}} or {"revoked": {...}}; see `extauthz block`'
        return (Problem(file=NAME, path=place, message=text),)
    try:
        document = model.model_validate(written)
    except ValidationError as exc:
        source = SourceText(file=NAME, text="")
        return tuple(
            replace(problem, line=0, path=f"{place}, {problem.path}" if problem.path else place)
            for problem in list_problems(exc, source, written, model)
        )
    return make_entry(section, document, NAME)


@contextmanager
def _making_sense() -> Iterator[None]:
    """Turns errors from a reply of an unexpected form into an `EmergencyError`."""
    try:
        yield
    except (ValueError, TypeError) as exc:
        raise EmergencyError("Redis replied what the script cannot have returned") from exc


def _cut(raw: _Raw) -> Iterator[list[str | bytes]]:
    items = [item for item in raw.items() if item[1]]
    for start in range(0, len(items), _AT_ONCE):
        yield [part for item in items[start : start + _AT_ONCE] for part in item]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
