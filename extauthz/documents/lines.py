"""Finds the lines of nodes in a YAML or JSON text.

YAML is read once by the parser's events. In JSON only the parents of wanted nodes are read, and the
parser skips the rest. Only wanted nodes are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from enum import Enum
from typing import Final

import yaml

NodePath = tuple[str | int, ...]
"""From the top of a document: keys of mappings and positions in sequences."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_BETWEEN: Final = re.compile(r"[\s,:]*")
"""The characters between keys and values of a JSON text."""
_PLAIN_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")


class _Kind(Enum):
    SCALAR = 1
    MAPPING = 2
    SEQUENCE = 3
    END = 4


_Mark = tuple[_Kind, str, int]
"""Kind, a scalar's text, line from 1."""


def write_path(path: NodePath) -> str:
    """A path as people read it: ``apis[2].resources[0].path``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_KEY.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!a}]"
    return text


def find_lines(text: str, paths: Sequence[NodePath], *, is_json: bool) -> list[int]:
    """For each path the line of its node, or of its nearest parent that exists; 1 at least.

    The text must have been read without problems before.
    """
    wanted = {path[:depth] for path in paths for depth in range(1, len(path) + 1)}
    if not wanted:
        return [1 for _ in paths]
    found = _find_in_json(text, wanted) if is_json else _find(_marks_of_yaml(text), wanted)
    return [
        next((found[path[:depth]] for depth in range(len(path), 0, -1) if path[:depth] in found), 1)
        for path in paths
    ]


def _find(marks: Iterable[_Mark], wanted: set[NodePath]) -> dict[NodePath, int]:
    found: dict[NodePath, int] = {}
    paths: list[NodePath] = []
    keys: list[str | int | None] = []
    """For each open collection: a sequence's next position, a mapping's key or None before it."""
    for kind, value, line in marks:
        if kind is _Kind.END:
            paths.pop()
            keys.pop()
            continue
        path: NodePath = ()
        if paths:
            key = keys[-1]
            if key is None:
                keys[-1] = value
                path = (*paths[-1], value)
                if path in wanted:
                    found.setdefault(path, line)
                continue
            path = (*paths[-1], key)
            if isinstance(key, int):
                keys[-1] = key + 1
                if path in wanted:
                    found[path] = line
            else:
                keys[-1] = None
        if kind is not _Kind.SCALAR:
            paths.append(path)
            keys.append(0 if kind is _Kind.SEQUENCE else None)
    return found


def _marks_of_yaml(text: str) -> Iterator[_Mark]:
    for event in yaml.parse(text, Loader=_LOADER):
        mark = event.start_mark
        line = mark.line + 1 if mark is not None else 1
        match event:
            case yaml.ScalarEvent():
                yield _Kind.SCALAR, event.value, line
            case yaml.AliasEvent():
                yield _Kind.SCALAR, "", line
            case yaml.MappingStartEvent():
                yield _Kind.MAPPING, "", line
            case yaml.SequenceStartEvent():
                yield _Kind.SEQUENCE, "", line
            case yaml.MappingEndEvent() | yaml.SequenceEndEvent():
                yield _Kind.END, "", line
            case _:
                pass


def _find_in_json(text: str, wanted: set[NodePath]) -> dict[NodePath, int]:
    """As `_find`. The C scanner passes over what leads to no node that is wanted."""
    found: dict[NodePath, int] = {}
    open_paths: list[NodePath] = []
    positions: list[int | None] = []
    """For each open collection: a sequence's next position; None for a mapping."""
    read = json.JSONDecoder(strict=False).raw_decode
    line, counted = 1, 0
    path: NodePath = ()
    at = _skip(text, 0)
    while True:
        end = None
        if text[at] not in "{[" or (open_paths and path not in wanted):
            # What is nested too deeply for the scanner is walked through, too.
            with suppress(RecursionError):
                end = read(text, at)[1]
        if end is None:
            open_paths.append(path)
            positions.append(0 if text[at] == "[" else None)
            end = at + 1
        at = _skip(text, end)
        while open_paths and text[at] in "}]":
            open_paths.pop()
            positions.pop()
            at = _skip(text, at + 1)
        if not open_paths:
            return found
        start, position = at, positions[-1]
        if position is None:
            key, at = read(text, at)
            at = _skip(text, at)
            path = (*open_paths[-1], key)
        else:
            path = (*open_paths[-1], position)
            positions[-1] = position + 1
        if path in wanted:
            line += text.count("\n", counted, start)
            counted = start
            found.setdefault(path, line)


def _skip(text: str, at: int) -> int:
    """The place of the next key, value or end."""
    between = _BETWEEN.match(text, at)
    return at if between is None else between.end()
