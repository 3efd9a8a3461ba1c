"""Blocks and revocations in Redis, where every replica looks for news four times a second.

Looking is one small call. Everything is read when the revision is another one, so whoever was
away has caught up with the first answer. Nothing is pushed: no message can be missed.

What is in force ends only with a newer revision. Where Redis is found with an older one, or with
fewer entries under the same (it was restarted empty, a failover lost the last writes, memory ran
out), whoever notices first writes back what it knows: a block may come back that was just
lifted, but none is lost. Of an entry that cannot be read the last good state stays in force.
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

from extauthz.counters.redis_connect import RedisSettings
from extauthz.document import list_problems
from extauthz.document_messages import show_name
from extauthz.document_values import SourceText
from extauthz.emergency import redis_scripts as scripts
from extauthz.emergency.entries import MAX_ID, SECTIONS, Entry, make_entry, write_tree
from extauthz.emergency.reading import Reading
from extauthz.emergency.redis_calls import RedisCalls
from extauthz.errors import EmergencyError, Problem

NAME: Final = "redis"
MAX_ENTRIES: Final = 20_000
_MAX_VALUE: Final = 16_384
_AT_ONCE: Final = 500
"""Entries in one call."""
_SAID_EVERY_S: Final = 5.0
REMEMBERED_S: Final = 15
"""How long after its last word a process is taken to be alive."""

_Raw = dict[str, bytes]
_Parsed = tuple[dict[str, Entry], dict[str, tuple[Problem, ...]]]


class RedisEmergency:
    """An `EmergencyStore` in Redis, and what writes to it."""

    def __init__(self, settings: RedisSettings, *, max_entries: int = MAX_ENTRIES) -> None:
        self._calls = RedisCalls(settings)
        self._max_entries = max_entries
        self._process = f"{socket.gethostname()}/{os.getpid()}"
        self._revision: str | None = None
        self._count = 0
        self._raw: _Raw = {}
        self._entries: dict[str, Entry] = {}
        self._problems: dict[str, tuple[Problem, ...]] = {}
        self._confirms = False
        self._said_s = 0.0

    @property
    def name(self) -> str:
        """As in `Entry.source`."""
        return NAME

    async def look(self) -> Reading | None:
        """See `EmergencyStore.look`."""
        revision, count = await self._look()
        if self._confirms and time.monotonic() - self._said_s > _SAID_EVERY_S:
            with suppress(EmergencyError):  # who waits for it sees that; what is read counts
                await self.confirm()
        if (revision, count) == (self._revision, self._count):
            return None
        known = self._revision
        if known is not None and self._raw:
            older = find_counter(revision) <= find_counter(known) and revision != known
            if older or (revision == known and count < self._count):
                await self._restore(find_counter(known))
                revision, count = await self._look()
        raw, is_all = await self._scan()
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
        """Tells that what was read last is in force in this process."""
        self._confirms = True
        self._said_s = time.monotonic()
        args = (self._process, self._revision or "0-", REMEMBERED_S * 4)
        await self._calls.call(scripts.CONFIRM, *args)

    async def write(self, entries: Mapping[str, Entry | None]) -> str:
        """Puts entries in, in one step; None takes one out. Gives the new revision.

        Raises:
            EmergencyError: Redis did not answer; whether it was done is then not known.
        """
        args = [
            part
            for entry_id, entry in entries.items()
            for part in (entry_id, b"" if entry is None else write_value(entry))
        ]
        return _text(await self._calls.call(scripts.WRITE, secrets.token_hex(4), *args))

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
        """Writes back what Redis has lost."""
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
    """Turns what a reply of another form leads to into the error that it is."""
    try:
        yield
    except (ValueError, TypeError) as exc:
        raise EmergencyError("Redis replied what the script cannot have returned") from exc


def _cut(raw: _Raw) -> Iterator[list[str | bytes]]:
    items = [item for item in raw.items() if item[1]]
    for start in range(0, len(items), _AT_ONCE):
        yield [part for item in items[start : start + _AT_ONCE] for part in item]


def find_counter(revision: str) -> int:
    """How new a revision is; 0 for what is none."""
    digits = revision.partition("-")[0]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
