"""Reads lines of usage and sums them, in bounded memory, whatever the files hold.

A line that is no record is a problem with its file and line; the lines after it still count. When
there are more than `MAX_GROUPS` groups, new ones are summed together.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

from extauthz.errors import ConfigError, Problem
from extauthz.model.usage import UsageSource
from extauthz.usage.record import UsageLine

MAX_GROUPS: Final = 100_000
MAX_LINE: Final = 1024 * 1024
"""Bytes of a line. Records have at most some kilobytes."""
MAX_PROBLEMS: Final = 10
"""Problems that are kept; the others are counted."""
OTHERS: Final = "(others)"
"""Stands for every value of the groups for which there was no place."""
ONE_OF_EACH: Final = frozenset({UsageSource.ENVOY_ACCESS_LOG.value, UsageSource.MIXER_METRIC.value})
"""Sources of which each request has one record at most; others report the same requests again."""

_GZIP: Final = b"\x1f\x8b"
_PERIODS: Final = {"day": 10, "hour": 13}
"""Characters of a time that say in which period it is."""
_NUMBERS: Final = ("request_bytes", "response_bytes", "duration_us")
FIELDS: Final = (
    *_PERIODS,
    *(name for name in UsageLine._fields if name not in {"time", "flags", *_NUMBERS}),
)
"""What records can be grouped by: members of a line, and `day` and `hour` of its time, in UTC."""

Key: TypeAlias = tuple[str, ...]


@dataclass(slots=True)
class Sums:
    """What the requests of one group come to."""

    requests: int = 0
    denied: int = 0
    request_bytes: int = 0
    response_bytes: int = 0
    timed: int = 0
    """Requests whose duration was reported."""
    duration_us: int = 0

    @property
    def mean_ms(self) -> float | None:
        """The mean duration in milliseconds; None when none was reported."""
        return self.duration_us / self.timed / 1000 if self.timed else None


@dataclass(slots=True)
class Summary:
    """The sums of some files.

    Attributes:
        by: names of the fields that a group's key is made of.
        groups: by key.
        other_sources: records that were left out, since others report the same requests.
        lost: lines that are missing at most, as the files say.
        problems: the first lines that are no records; one problem of a file that holds none.
        unreadable: how many lines are no records.
        unlisted: how many of them no problem tells of.
    """

    by: tuple[str, ...]
    groups: dict[Key, Sums] = field(default_factory=dict)
    other_sources: int = 0
    lost: int = 0
    problems: list[Problem] = field(default_factory=list)
    unreadable: int = 0
    unlisted: int = 0

    def add(self, record: Mapping[str, Any], sources: frozenset[str]) -> None:
        """Adds a record.

        Raises:
            ValueError: a member is not what it should be.
        """
        lost = record.get("lost")
        if lost is not None:
            self.lost += _read_number(record, "lost")
            return
        if record.get("source") not in sources:
            if not isinstance(record.get("source"), str):
                raise ValueError("has no source; is it a line of usage?")
            self.other_sources += 1
            return
        numbers = {name: _read_number(record, name) for name in _NUMBERS if name in record}
        sums = self._find(tuple([_read_value(record, name) for name in self.by]))
        sums.requests += 1
        sums.denied += record.get("outcome") == "deny"
        sums.request_bytes += numbers.get("request_bytes", 0)
        sums.response_bytes += numbers.get("response_bytes", 0)
        if "duration_us" in numbers:
            sums.timed += 1
            sums.duration_us += numbers["duration_us"]

    def list_groups(self) -> list[tuple[Key, Sums]]:
        """The groups, those with most requests first."""
        return sorted(self.groups.items(), key=lambda group: (-group[1].requests, group[0]))

    def _find(self, key: Key) -> Sums:
        found = self.groups.get(key)
        if found is None:
            if len(self.groups) >= MAX_GROUPS:
                key = (OTHERS,) * len(key)
            found = self.groups.setdefault(key, Sums())
        return found

    def note(self, problem: Problem, lines: int = 1) -> None:
        """Notes so many lines that are no records."""
        self.unreadable += lines
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(problem)
        else:
            self.unlisted += lines


def sum_files(
    files: Sequence[Path], by: Sequence[str], sources: frozenset[str] = ONE_OF_EACH
) -> Summary:
    """Sums the records of files, which may be gzipped; ``-`` is standard input.

    Raises:
        ConfigError: a file cannot be read.
    """
    summary = Summary(tuple(by))
    for file in files:
        _sum_file(file, summary, sources)
    return summary


def _sum_file(file: Path, summary: Summary, sources: frozenset[str]) -> None:
    has_records, wrong = False, 0
    first: list[Problem] = []
    for number, line in enumerate(_read_lines(file), start=1):
        if not line.strip():
            continue
        message = _add_line(line, summary, sources)
        if message:
            wrong += 1
            if len(first) < MAX_PROBLEMS:
                first.append(Problem(file=str(file), line=number, message=message))
        else:
            has_records = True
    if wrong > 1 and not has_records:  # it is another kind of file
        what = f"none of its {wrong} lines is a record of usage; name files of `usage.file`"
        summary.note(Problem(file=str(file), message=what), wrong)
        return
    for problem in first:
        summary.note(problem)
    summary.unreadable += wrong - len(first)
    summary.unlisted += wrong - len(first)


def _add_line(line: bytes, summary: Summary, sources: frozenset[str]) -> str:
    """Adds a record; says why it is none."""
    try:
        record = json.loads(line.decode("utf-8", "replace"))
        if not isinstance(record, dict):
            return "is no record: name files of `usage.file`"
        summary.add(record, sources)
    except json.JSONDecodeError as error:
        return f"is no JSON: {error.msg} at column {error.colno}"
    except RecursionError:
        return "is nested too deeply to be a record"
    except ValueError as error:
        return str(error)
    return ""


def _read_lines(file: Path) -> Iterator[bytes]:
    try:
        with ExitStack() as stack:
            raw: Any = (
                sys.stdin.buffer if str(file) == "-" else stack.enter_context(file.open("rb"))
            )
            opened: IO[bytes] | gzip.GzipFile = raw
            if isinstance(raw, BufferedReader) and raw.peek(2)[:2] == _GZIP:
                opened = stack.enter_context(gzip.GzipFile(fileobj=raw))
            while line := opened.readline(MAX_LINE):
                yield line
    except (OSError, EOFError, zlib.error) as exc:
        why = getattr(exc, "strerror", None) or str(exc)
        raise ConfigError([Problem(file=str(file), message=f"cannot be read: {why}")]) from exc


def _read_number(record: Mapping[str, Any], name: str) -> int:
    value = record[name]
    if type(value) is not int or value < 0:
        raise ValueError(f"has a {name} that is no number from 0 on")
    return value


def _read_value(record: Mapping[str, Any], name: str) -> str:
    if name in _PERIODS:
        return _read_text(record, "time")[: _PERIODS[name]]
    return _read_text(record, name)


def _read_text(record: Mapping[str, Any], name: str) -> str:
    value = record.get(name, "")
    if isinstance(value, str):
        return value[:256]
    if type(value) is int:
        return str(value)
    raise ValueError(f"has a {name} that is neither text nor a number")
