"""An OpenAPI document: its nodes with their positions, its references, and the problems found.

References are followed wherever a document may say something about access, within the document and
into other files. Only files below one folder are read; nothing is fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from extauthz.catalog.openapi.grammar import (
    EXTENSIONS,
    HARMLESS_BESIDE_A_REFERENCE,
    METHODS,
    reads_like_access,
)
from extauthz.documents.document import Fault, locate
from extauthz.documents.lines import NodePath
from extauthz.documents.messages import show_name, suggest
from extauthz.documents.values import SourceText, read_values
from extauthz.errors import ConfigError, Problem
from extauthz.model.field_names import FIELD_NAME

MAX_REFERENCES: Final = 16
"""Length of the longest chain of references."""
MAX_FILES: Final = 10_000
MAX_REFERRED: Final = 5_000_000
"""Most values that all references together may expand to, as with aliases of YAML."""
_DEPTH_OF_ACCESS: Final = 4
"""How far below an operation the scopes of its security stand."""
_MAX_WARNINGS: Final = 100

ReadText = Callable[[Path], SourceText]
"""A file's text. Raises ConfigError when it cannot be read."""


@dataclass(frozen=True, slots=True, eq=False)
class OpenApiFile:
    """One file of a document, and the plain values that it holds."""

    path: Path
    source: SourceText
    tree: Any


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """A value of a document with its position. The value is None when there is none."""

    file: OpenApiFile
    path: NodePath
    value: Any

    def below(self, key: str | int) -> Node:
        """A field of a mapping, or an item of a list."""
        value: Any = None
        if isinstance(self.value, Mapping):
            value = self.value.get(key)
        elif isinstance(self.value, list) and isinstance(key, int) and key < len(self.value):
            value = self.value[key]
        return Node(self.file, (*self.path, key), value)

    def has(self, key: str) -> bool:
        """Whether it is a mapping with such a field, be it null."""
        return isinstance(self.value, Mapping) and key in self.value

    def items(self) -> Iterator[tuple[str, Node]]:
        """The fields of a mapping."""
        for key in self.value:
            yield key, self.below(key)


class MergedNode:
    """The fields of a mapping, together with those of the mappings it refers to."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._fields: dict[str, Node] = {}

    def add(self, name: str, field: Node) -> None:
        """Adds a field. The first of a name counts."""
        self._fields.setdefault(name, field)

    def names(self) -> list[str]:
        """The names of its fields, in their order."""
        return list(self._fields)

    def below(self, key: str) -> Node:
        """A field, as `Node.below` gives it."""
        return self._fields.get(key) or self._node.below(key)

    def has(self, key: str) -> bool:
        """Whether there is such a field, be it null."""
        return key in self._fields


class OpenApiDocument:
    """A document, its files, and every problem and warning that was found so far.

    Args:
        folder: references lead to files in here, and below, alone.
        read: reads such a file.
    """

    def __init__(
        self, source: SourceText, tree: Mapping[str, Any], *, folder: Path, read: ReadText
    ) -> None:
        path = _normalise(Path(source.file))
        self._read = read
        self._folder = _normalise(folder)
        if not path.is_relative_to(self._folder):
            self._folder = path.parent
        file = OpenApiFile(path, source, tree)
        self.root = Node(file, (), tree)
        self._files: dict[Path, OpenApiFile | None] = {path: file}
        self._faults: dict[OpenApiFile, list[Fault]] = {}
        self._elsewhere: list[Problem] = []
        self._warnings: dict[str, list[Node]] = {}
        self._referred = 0
        self.problem_count = 0

    # What was found

    def report(self, node: Node, message: str) -> None:
        """Notes that a node is wrong."""
        self.problem_count += 1
        self._faults.setdefault(node.file, []).append(Fault(path=node.path, message=message))

    def warn(self, node: Node, message: str) -> None:
        """Adds a warning about what may be read differently than its author meant, once."""
        self._warnings.setdefault(message, []).append(node)

    def list_problems(self) -> tuple[Problem, ...]:
        """Every problem, with file and line."""
        found = [
            problem
            for file, faults in self._faults.items()
            for problem in locate(file.source, faults)
        ]
        return (*found, *self._elsewhere)

    def list_warnings(self) -> tuple[Problem, ...]:
        """Every warning, with the file and line of the first node that it is about."""
        of_file: dict[OpenApiFile, list[Fault]] = {}
        for message, nodes in list(self._warnings.items())[:_MAX_WARNINGS]:
            more = f" (the first of {len(nodes)} places)" if len(nodes) > 1 else ""
            fault = Fault(path=nodes[0].path, message=message + more)
            of_file.setdefault(nodes[0].file, []).append(fault)
        listed = [
            warning for file, faults in of_file.items() for warning in locate(file.source, faults)
        ]
        unlisted = len(self._warnings) - _MAX_WARNINGS
        if unlisted > 0:
            message = f"{unlisted} more warnings are not listed"
            listed.append(Problem(file=self.root.file.source.file, message=message))
        return tuple(listed)

    def check_keys(self, node: Node, known: Collection[str], *, is_referred: bool = False) -> None:
        """Warns of keys that are not read. A key that may be meant to restrict access is a problem.

        Args:
            is_referred: whether a reference led to the node, and may have led to the wrong kind:
                each unknown key is a problem then.
        """
        for key, field in node.items():
            if key in known or key in EXTENSIONS:
                continue
            if key.startswith("x-"):
                self.check_extension(key, field)
            elif reads_like_access(key):
                self.report(
                    field,
                    f"unknown key {show_name(key)} in a place where access is said"
                    f"{suggest(key, sorted(known))}",
                )
            elif is_referred:
                self.report(
                    field, f"unknown key {show_name(key)}: the reference leads to it by mistake"
                )
            else:
                self.warn(field, f"unknown key {show_name(key)} is passed over")

    def check_extension(self, name: str, field: Node) -> None:
        """Warns of an extension that may say something about access, and is not read."""
        if name not in EXTENSIONS and reads_like_access(name):
            self.warn(field, f"extension {show_name(name)} is not read: it changes nothing here")

    # Values by kind

    def read_mapping(self, parent: Node, name: str) -> Node | None:
        """A field that is a mapping, itself or by reference; None when it is not there."""
        node: Node | None = parent.below(name)
        if node is None or node.value is None:
            return None
        node = self.resolve(node)
        if node is None or isinstance(node.value, Mapping):
            return node
        self.report(node, "a mapping stands here")
        return None

    def read_flag(self, parent: Node | MergedNode, name: str) -> bool | None:
        """A field that is true or false; None when it is not there."""
        node = parent.below(name)
        if node.value is None or isinstance(node.value, bool):
            return node.value
        self.report(node, f"write true or false, not {node.value!r}")
        return None

    def read_header_name(self, node: Node) -> str | None:
        """A header's name in lower case; None when there is none."""
        if node.value is None:
            return None
        if not isinstance(node.value, str) or not FIELD_NAME.fullmatch(node.value):
            self.report(node, f"{node.value!r} cannot name a header")
            return None
        return node.value.lower()

    # References

    def resolve(self, node: Node) -> Node | None:
        """The node itself, or the node that its reference leads to, through further references.

        None, with a problem, when the reference leads nowhere, out of the folder or in a circle, or
        when there are other keys with it, which would be lost.
        """
        start = node
        for _ in range(MAX_REFERENCES + 1):
            if not node.has("$ref"):
                return node
            for name, beside in node.items():
                if name not in HARMLESS_BESIDE_A_REFERENCE and (
                    not name.startswith("x-") or reads_like_access(name)
                ):
                    self.report(
                        beside,
                        f"readers differ on {show_name(name)} beside a $ref: write it where the "
                        "reference leads to, or write out what it leads to here",
                    )
                    return None
            target = self.follow(node.below("$ref"))
            if target is None:
                return None
            node = target
        self.report(start, "references lead in a circle, or through too many others")
        return None

    def merge(self, node: Node) -> MergedNode | None:
        """A path item's fields, and those of what its reference leads to.

        When both say something about access, that is a problem: OpenAPI 3.1.1 (section 4.8.9.1)
        does not define which counts.
        """
        merged = MergedNode(node)
        step: Node | None = node
        for _ in range(MAX_REFERENCES + 1):
            if step is None:
                return None
            if not isinstance(step.value, Mapping):
                self.report(step, "a path item is a mapping from methods to operations")
                return None
            for name, field in step.items():
                if merged.has(name) and (name in METHODS or reads_like_access(name)):
                    self.report(
                        merged.below(name),
                        f"{show_name(name)} stands here and in what the $ref beside it leads to, "
                        "and readers differ on which counts: remove one",
                    )
                    return None
                if name != "$ref":
                    merged.add(name, field)
            if not step.has("$ref"):
                return merged
            step = self.follow(step.below("$ref"))
        self.report(node.below("$ref"), "references lead in a circle, or through too many others")
        return None

    def follow(self, reference: Node) -> Node | None:
        """The node that the text of a ``$ref`` names: one step (RFC 3986, RFC 6901)."""
        text = reference.value
        if not isinstance(text, str):
            self.report(reference, "a reference is text, like '#/components/pathItems/pet'")
            return None
        name, _, fragment = text.partition("#")
        file = self._find_file(reference, name) if name else reference.file
        if file is None:
            return None
        pointer = unquote(fragment)
        if pointer and not pointer.startswith("/"):
            self.report(reference, f"{text!r} is not read: behind the # stands a path, like #/a/b")
            return None
        node = Node(file, (), file.tree)
        for token in pointer.split("/")[1:]:
            key: str | int = token.replace("~1", "/").replace("~0", "~")
            if isinstance(node.value, list) and token.isascii() and token.isdecimal():
                key = int(token[:9])
            node = node.below(key)
        if node.value is None:
            where = "in this document" if file is self.root.file else "in that file"
            self.report(reference, f"{text!r} leads nowhere {where}")
            return None
        self._referred += _count(node.value, _DEPTH_OF_ACCESS)
        if self._referred > MAX_REFERRED:
            self.report(
                self.root,
                f"references stand for more than {MAX_REFERRED} values; split the document",
            )
            return None
        return node

    def _find_file(self, reference: Node, name: str) -> OpenApiFile | None:
        try:
            parts = urlsplit(name)
        except ValueError:
            self.report(reference, f"{name!r} is no reference")
            return None
        if parts.scheme or parts.netloc or parts.query:
            self.report(
                reference,
                f"{name!r} is not fetched; put the file beside the document and name it, "
                "or bundle all into one document",
            )
            return None
        path = _normalise(reference.file.path.parent / unquote(parts.path))
        if not path.is_relative_to(self._folder):
            self.report(
                reference,
                f"{name!r} leads out of the folder {self._folder}, below which files are read; "
                "put it there, or bundle all into one document",
            )
            return None
        if path not in self._files:
            self._files[path] = self._open(reference, path)
        elif self._files[path] is None:
            # What is wrong with it was told where it was named first.
            self.problem_count += 1
        return self._files[path]

    def _open(self, reference: Node, path: Path) -> OpenApiFile | None:
        if len(self._files) > MAX_FILES:
            self.report(reference, f"the document has more than {MAX_FILES} files; bundle it")
            return None
        try:
            source = self._read(path)
        except ConfigError as exc:
            for problem in exc.problems:
                self.report(reference, f"{problem.file} {problem.message}")
            return None
        try:
            return OpenApiFile(path, source, read_values(source))
        except ConfigError as exc:
            self.problem_count += 1
            self._elsewhere += exc.problems
            return None


def _count(value: Any, depth: int) -> int:
    """The number of values in a value, down to a depth."""
    if depth == 0 or not isinstance(value, Mapping | list):
        return 1
    below = value.values() if isinstance(value, Mapping) else value
    return 1 + sum(_count(each, depth - 1) for each in below)


def _normalise(path: Path) -> Path:
    """Makes a path absolute, without dots. Links are kept: they may lead out of the folder."""
    return Path(os.path.abspath(path))  # noqa: PTH100  # which keeps links, and takes out dots
