"""Finds the lines that nodes of a YAML or JSON text stand on.

Both kinds of text become one stream of marks (a scalar, a mapping or sequence that begins, one
that ends), and one walk follows it. Only the nodes that are asked for are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from enum import Enum
from typing import Final

import yaml

NodePath = tuple[str | int, ...]
"""From the top of a document: keys of mappings and positions in sequences."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_JSON_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\]]|[^\s{}\[\],:"]+')
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
    found = _find(_marks_of_json(text) if is_json else _marks_of_yaml(text), wanted)
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


def _marks_of_json(text: str) -> Iterator[_Mark]:
    line, counted = 1, 0
    for token in _JSON_TOKEN.finditer(text):
        line += text.count("\n", counted, token.start())
        counted = token.start()
        word = token[0]
        match word[0]:
            case "{":
                yield _Kind.MAPPING, "", line
            case "[":
                yield _Kind.SEQUENCE, "", line
            case "}" | "]":
                yield _Kind.END, "", line
            case '"':
                yield _Kind.SCALAR, json.loads(word, strict=False), line
            case _:
                yield _Kind.SCALAR, word, line
