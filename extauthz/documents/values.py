"""Plain values of a YAML or JSON text. The rules are those of `extauthz.documents.document`.

YAML is built from the parser's events, without recursion and without keeping nodes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NoReturn

import yaml

from extauthz.errors import ConfigError, Problem

MAX_ALIASED_NODES: Final = 10_000
MAX_DEPTH: Final = 100
MAX_PROBLEMS: Final = 1_000
"""More problems than anybody reads; the rest is only counted."""

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_SCALAR: Final = yaml.ScalarEvent
_MAPPING_START: Final = yaml.MappingStartEvent
_SEQUENCE_START: Final = yaml.SequenceStartEvent
_MAPPING_END: Final = yaml.MappingEndEvent
_SEQUENCE_END: Final = yaml.SequenceEndEvent
_PLAIN: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_TAGS: Final = frozenset(
    {None, "!", *(f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq"))}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceText:
    """A document as it was read: `file` is its name for problems; `.json` makes it JSON."""

    file: str
    text: str = field(repr=False)

    @property
    def is_json(self) -> bool:
        return self.file.endswith(".json")


def read_values(source: SourceText) -> Any:
    """Mappings, lists, strings, null, true and false (and JSON's numbers); None for no document.

    Raises:
        ConfigError: it cannot be parsed, or breaks the rules.
    """
    return _read_json(source) if source.is_json else _YamlReader(source).read()


def read_plain(text: str) -> str | bool | None:
    """A plain scalar, as YAML has it: null, true, false, or the text itself."""
    return _PLAIN.get(text, text)


def one_problem(file: str, line: int, message: str) -> ConfigError:
    """The error for a single problem."""
    return ConfigError([Problem(file=file, line=line, message=message)])


# JSON


class _DuplicateKey(ValueError):
    """Carries the key."""


def _pairs_to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return made


def _refuse_constant(_: str) -> NoReturn:
    raise ValueError


def _read_json(source: SourceText) -> Any:
    file, text = source.file, source.text
    if not text.strip():
        return None
    try:
        return json.loads(text, object_pairs_hook=_pairs_to_dict, parse_constant=_refuse_constant)
    except json.JSONDecodeError as exc:
        raise one_problem(file, exc.lineno, f"is not JSON: {exc.msg}") from exc
    except _DuplicateKey as exc:
        message = f"key {exc.args[0]!a} stands twice in one object; remove one"
        raise one_problem(file, _line_of_duplicate(text, exc.args[0]), message) from exc
    except RecursionError as exc:
        raise one_problem(file, 0, "is nested too deeply") from exc
    except ValueError as exc:
        message = "is not JSON: NaN, Infinity and numbers of thousands of digits are not taken"
        raise one_problem(file, 0, message) from exc


def _line_of_duplicate(text: str, key: str) -> int:
    """The line where the key stands the second time; with nested objects, a good guess."""
    places = [found.start() for found in re.finditer(re.escape(json.dumps(key)) + r"\s*:", text)]
    return text.count("\n", 0, places[1]) + 1 if len(places) > 1 else 0


# YAML


class _Frame:
    """A collection that is being read. `key` is set while a mapping waits for its value."""

    __slots__ = ("anchor", "into", "is_mapping", "key", "nodes_before")

    def __init__(self, into: dict[str, Any] | list[Any], anchor: str | None, nodes: int) -> None:
        self.into, self.anchor, self.nodes_before = into, anchor, nodes
        self.is_mapping = isinstance(into, dict)
        self.key: str | None = None


class _YamlReader:
    """Builds plain values from YAML events, without recursion."""

    def __init__(self, source: SourceText) -> None:
        self._source = source
        self._problems: list[Problem] = []
        self._frames: list[_Frame] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        """By anchor: the value, and of how many nodes it is when written out."""
        self._nodes = 0
        self._aliased = 0
        self._root: Any = None
        self._documents = 0

    def read(self) -> Any:
        try:
            for event in yaml.parse(self._source.text, Loader=_LOADER):
                self._take(event)
        except yaml.YAMLError as exc:
            mark = getattr(exc, "problem_mark", None)
            what = getattr(exc, "problem", None) or getattr(exc, "reason", None) or "cannot be read"
            line = mark.line + 1 if mark is not None else 0
            raise one_problem(self._source.file, line, f"is not YAML: {what}") from exc
        except UnicodeError as exc:
            raise one_problem(self._source.file, 0, "is not YAML: lone surrogates") from exc
        if self._problems:
            raise ConfigError(self._problems)
        return self._root

    def _take(self, event: Any) -> None:
        kind = type(event)  # tens of millions of them: a comparison costs less than `match`
        if kind is _SCALAR:
            self._take_scalar(event)
        elif kind is _MAPPING_START:
            self._begin(event, {})
        elif kind is _SEQUENCE_START:
            self._begin(event, [])
        elif kind is _MAPPING_END or kind is _SEQUENCE_END:
            frame = self._frames.pop()
            if frame.anchor is not None:
                self._anchors[frame.anchor] = (frame.into, self._nodes - frame.nodes_before)
        elif kind is yaml.AliasEvent:
            self._take_alias(event)
        elif kind is yaml.DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                self._give_up(event, "has a second document; write it into its own file")

    def _take_scalar(self, event: Any) -> None:
        frames = self._frames
        frame = frames[-1] if frames else None
        if frame is not None and frame.key is None and frame.is_mapping:
            self._take_key(frame, event)
            return
        if event.tag is not None:
            self._check_tag(event)
        value: Any = event.value
        if event.implicit[0]:  # plain: neither quoted nor tagged
            value = _PLAIN.get(value, value)
        self._nodes += 1
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._put(event, value)

    def _begin(self, event: Any, into: dict[str, Any] | list[Any]) -> None:
        self._check_tag(event)
        self._put(event, into)
        self._nodes += 1
        self._frames.append(_Frame(into, event.anchor, self._nodes - 1))
        if len(self._frames) > MAX_DEPTH:
            self._give_up(event, f"is nested more than {MAX_DEPTH} deep")

    def _take_key(self, frame: _Frame, event: Any) -> None:
        self._nodes += 1
        frame.key = event.value
        if event.value in frame.into:
            self._add(event, f"key {event.value!a} stands twice in one mapping; remove one")
        elif event.value == "<<" and event.implicit[0]:
            self._add(event, "merge keys (<<) are not taken; write the keys out")

    def _take_alias(self, event: Any) -> None:
        if event.anchor not in self._anchors:
            self._give_up(event, f"alias *{event.anchor} has no finished anchor before it")
        value, nodes = self._anchors[event.anchor]
        self._nodes += nodes
        self._aliased += nodes
        if self._aliased > MAX_ALIASED_NODES:
            self._give_up(event, f"aliases stand for more than {MAX_ALIASED_NODES} values")
        self._put(event, value)

    def _put(self, event: Any, value: Any) -> None:
        if not self._frames:
            self._root = value
            return
        frame = self._frames[-1]
        into: Any = frame.into
        if not frame.is_mapping:
            into.append(value)
        elif frame.key is None:
            self._give_up(event, "a key must be a plain word, not a list, mapping or alias")
        else:
            into[frame.key] = value
            frame.key = None

    def _check_tag(self, event: Any) -> None:
        if event.tag not in _TAGS:
            self._add(event, "tags (!…) are not taken; remove the tag")

    def _add(self, event: Any, message: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            line = event.start_mark.line + 1
            self._problems.append(Problem(file=self._source.file, line=line, message=message))

    def _give_up(self, event: Any, message: str) -> NoReturn:
        self._add(event, message)
        raise ConfigError(self._problems)
