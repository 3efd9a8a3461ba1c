"""A parsed OpenAPI document as its readers go through it: values by kind, references, problems."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from extauthz.model.field_names import FIELD_NAME

MAX_REFERENCES: Final = 16
"""Most references that may lead from one to the next."""


class OpenApiDocument:
    """The tree, and every problem that was found in it so far: (place, message)."""

    def __init__(self, tree: Mapping[str, Any]) -> None:
        self.tree = tree
        self.problems: list[tuple[str, str]] = []

    def report(self, place: str, message: str) -> None:
        self.problems.append((place, message))

    def read_mapping(self, node: Mapping[str, Any], name: str, place: str) -> Mapping[str, Any]:
        """A field that is a mapping; empty when it is not there."""
        value = node.get(name)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            self.report(place, "a mapping stands here")
            return {}
        return value

    def read_flag(self, node: Mapping[str, Any], name: str, place: str) -> bool | None:
        value = node.get(name)
        if value is None or isinstance(value, bool):
            return value
        self.report(below(place, name), f"write true or false, not {value!r}")
        return None

    def resolve(self, node: Mapping[str, Any], place: str) -> Mapping[str, Any] | None:
        """What a local reference leads to (RFC 6901), through further references."""
        for _ in range(MAX_REFERENCES):
            pointer = node["$ref"]
            if not isinstance(pointer, str) or not pointer.startswith("#/"):
                self.report(
                    f"{place}.$ref",
                    f"{pointer!r} is not in this document; bundle it into one document",
                )
                return None
            target: Any = self.tree
            for token in unquote(pointer[2:]).split("/"):
                key = token.replace("~1", "/").replace("~0", "~")
                target = target.get(key) if isinstance(target, Mapping) else None
            if not isinstance(target, Mapping):
                self.report(f"{place}.$ref", f"{pointer!r} leads nowhere in this document")
                return None
            if "$ref" not in target:
                return target
            node = target
        self.report(f"{place}.$ref", "references lead in a circle, or through too many others")
        return None

    def read_header_name(self, name: Any, place: str) -> str | None:
        """A header's name in lower case; None when there is none."""
        if name is None:
            return None
        if not isinstance(name, str) or not FIELD_NAME.fullmatch(name):
            self.report(place, f"{name!r} cannot name a header")
            return None
        return name.lower()


def below(place: str, name: str) -> str:
    """The place of a field in a mapping at a place; the document itself has none."""
    return f"{place}.{name}" if place else name
