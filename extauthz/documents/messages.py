"""Writes messages for pydantic's errors: what is wrong in a document, and what to do.

A message never shows a value, which may be a secret in the wrong place. It shows keys and the
choices of a model.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from extauthz.documents.lines import NodePath

_MAX_NAME: Final = 64
_NOTHING: Final = object()

_BY_TYPE: Final[Mapping[str, str]] = {
    "list_type": "must be a list, like [a, b]",
    "tuple_type": "must be a list, like [a, b]",
    "set_type": "must be a list, like [a, b]",
    "frozen_set_type": "must be a list, like [a, b]",
    "dict_type": "must be a mapping of keys to values",
    "mapping_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "dataclass_type": "must be a mapping of keys to values",
    "path_type": "must be the name of a file, as text",
    "string_too_short": "must not be empty",
    "string_unicode": "must be text without lone surrogates",
    "too_short": "must not be empty",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false, without quotes",
    "timezone_aware": "must say its time zone, like 2030-01-31T12:00:00Z",
    "datetime_type": "must be a time, like 2030-01-31T12:00:00Z",
    "datetime_parsing": "must be a time, like 2030-01-31T12:00:00Z",
    "datetime_from_date_parsing": "must be a time, like 2030-01-31T12:00:00Z",
    "datetime_object_invalid": "must be a time, like 2030-01-31T12:00:00Z",
}


def show_name(name: str) -> str:
    """A name in quotes, shortened, and safe for one line of a terminal."""
    return ascii(name if len(name) <= _MAX_NAME else name[:_MAX_NAME] + "…")


def suggest(word: str, known: list[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known word, or the known words when few."""
    by_folded = {name.casefold(): name for name in known}
    near = _find_near(word, by_folded)
    if near:
        return f"; did you mean {show_name(by_folded[near[0]])}?"
    if not known:
        return ""
    listed = ", ".join(sorted(known)[:20])
    return f"; known are: {listed}" + (", …" if len(known) > 20 else "")


def is_meant(word: str, known: str) -> bool:
    """Whether a word is probably a misspelling of a known one."""
    return bool(_find_near(word, {known.casefold(): known}))


def _find_near(word: str, by_folded: Mapping[str, str]) -> list[str]:
    return get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.6)


def say_what_is_wrong(
    details: ErrorDetails, below: NodePath, tree: Any, model: type[BaseModel]
) -> tuple[NodePath, str]:
    """The node that is wrong, and the message for it."""
    kind = details["type"]
    context: Mapping[str, Any] = details.get("ctx", {})
    if kind in ("missing", "missing_keyword_only_argument"):
        path = _existing((*below, *details["loc"][:-1]), tree)
        name = str(details["loc"][-1])
        described = _schema_at(model, path).get("properties", {}).get(name, {})
        # Its first sentence, in one line.
        what = " ".join(described.get("description", "").split()).partition(". ")[0].rstrip(".")
        return path, f"{name} is missing; add it" + (f" ({what})" if what else "")
    path = _existing((*below, *details["loc"]), tree)
    value = _value_at(path, tree)
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        known = list(_schema_at(model, path[:-1]).get("properties", {}))
        return path, f"unknown key {show_name(str(path[-1]))}" + suggest(str(path[-1]), known)
    if kind in ("enum", "literal_error"):
        # pydantic's text of the choices: 'a', 'b' or 'c'
        choices = [
            word for word in context["expected"].split("'") if word not in (", ", " or ", "")
        ]
        hint = suggest(value, choices) if isinstance(value, str) else ""
        hint = hint if hint.startswith("; did") else ""
        return path, f"must be one of {', '.join(choices)}{hint}"
    if kind == "value_error":
        return path, str(context["error"])
    if kind == "string_type":
        is_number = isinstance(value, int | float)
        return path, "must be text" + ("; put it in quotes" if is_number else "")
    for word, limit in (
        ("greater than", "gt"), ("at least", "ge"), ("less than", "lt"), ("at most", "le"),
    ):  # fmt: skip
        if limit in context:
            return path, f"must be {word} {context[limit]}"
    if kind in ("string_too_long", "too_long"):
        return path, f"is too long; at most {context['max_length']}"
    return path, _BY_TYPE.get(kind, details["msg"])


def _existing(path: NodePath, tree: Any) -> NodePath:
    """The part of a path that leads somewhere: pydantic adds names of its own at the end."""
    for depth, part in enumerate(path):
        tree = _step(tree, part)
        if tree is _NOTHING:
            return path[:depth]
    return path


def _value_at(path: NodePath, tree: Any) -> Any:
    for part in path:
        tree = _step(tree, part)
    return tree


def _step(tree: Any, part: str | int) -> Any:
    if isinstance(tree, Mapping):
        return tree.get(part, _NOTHING)
    if isinstance(tree, list) and isinstance(part, int) and 0 <= part < len(tree):
        return tree[part]
    return _NOTHING


@lru_cache(maxsize=8)
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _schema_at(model: type[BaseModel], path: NodePath) -> Mapping[str, Any]:
    """The JSON Schema of the node at a path; empty when it has none."""
    root = _schema_of(model)
    schema = root
    for part in path:
        found = schema.get("items" if isinstance(part, int) else "properties", {})
        if not isinstance(part, int):
            found = found.get(part) or schema.get("additionalProperties", {})
        schema = _resolve(root, found if isinstance(found, dict) else {})
    return schema


def _resolve(root: Mapping[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Follows a reference, and takes the part of an optional that has keys or items."""
    for choice in schema.get("anyOf", ()):
        resolved = _resolve(root, choice)
        if "properties" in resolved or "items" in resolved or "additionalProperties" in resolved:
            return resolved
    reference = schema.get("$ref")
    if reference is not None:
        found: dict[str, Any] = root["$defs"][reference.removeprefix("#/$defs/")]
        return found
    return schema
