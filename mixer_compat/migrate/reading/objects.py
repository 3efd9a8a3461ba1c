"""Reads Kubernetes objects from files, and keeps track of which of their fields were read.

A file has YAML documents or one JSON document; a ``List`` is replaced by its items. Each document
is parsed separately, so a broken one does not hide the others. At first all leaves of an object
(scalars, and empty lists and mappings) are unread; reading a `Part` marks them as read. The unread
ones are reported at the end, so no field can be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from extauthz.documents.document import decode_source, read_file, say_why_unreadable
from extauthz.documents.lines import NodePath
from extauthz.documents.messages import show_name
from extauthz.documents.values import SourceText, read_values
from extauthz.errors import ConfigError
from mixer_compat.migrate.report import Document, Outcome, Report

MAX_FILES: Final = 20_000
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_TOTAL_BYTES: Final = 512 * 1024 * 1024
MAX_OBJECTS: Final = 100_000
SUFFIXES: Final = (".yaml", ".yml", ".json")

_GROUP: Final = "config.istio.io/"
_DOCUMENT_START: Final = re.compile(r"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_MADE_BY_CLUSTER: Final = frozenset(
    {"uid", "resourceVersion", "generation", "creationTimestamp", "selfLink", "managedFields"}
)
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

Progress = Callable[[int, int], None]
"""Called with the number of files that have been read, and of all files."""


class Part:
    """A mapping, list or scalar of an object. Values that it returns count as read.

    Keys are found in snake_case and in camelCase, as in Mixer.
    """

    __slots__ = ("_object", "path", "value")

    def __init__(self, of: MixerObject, path: NodePath, value: Any) -> None:
        self._object, self.path, self.value = of, path, value

    def find(self, key: str) -> Part | None:
        """The value of a key; None when there is none."""
        if not isinstance(self.value, dict):
            return None
        folded = _fold(key)
        for written, value in self.value.items():
            if _fold(written) == folded and value is not None:
                return Part(self._object, (*self.path, written), value)
        return None

    def list_parts(self, key: str) -> list[Part]:
        """The items of the list at a key; empty when there is none."""
        found = self.find(key)
        return [] if found is None else found.items()

    def items(self) -> list[Part]:
        """The items, when this is a list."""
        if not isinstance(self.value, list):
            return []
        return [
            Part(self._object, (*self.path, position), value)
            for position, value in enumerate(self.value)
        ]

    def entries(self) -> list[tuple[str, Part]]:
        """Keys and values, when this is a mapping."""
        if not isinstance(self.value, dict):
            return []
        return [
            (key, Part(self._object, (*self.path, key), value)) for key, value in self.value.items()
        ]

    def entries_of(self, key: str) -> list[tuple[str, Part]]:
        """Keys and values of the mapping at a key; empty when there is none."""
        found = self.find(key)
        return [] if found is None else found.entries()

    def text(self, key: str) -> str:
        """The scalar at a key, as text; empty when there is none."""
        found = self.find(key)
        return "" if found is None else found.read()

    def read(self) -> str:
        """This scalar as text; empty for a list or mapping, which stays unread."""
        match self.value:
            case bool():
                text = "true" if self.value else "false"
            case str() | int() | float():
                text = str(self.value)
            case _:
                return ""
        self._object.mark(self.path)
        return text

    def mark(self) -> None:
        """Marks this and everything below it as read."""
        self._object.mark(self.path)

    def tell(self, outcome: Outcome, message: str) -> None:
        """Reports the outcome of this part, and marks it and everything below it as read."""
        self._object.tell(outcome, self.path, message)

    def remark(self, outcome: Outcome, message: str) -> None:
        """Reports something about this part, and leaves everything below it unread."""
        self._object.remark(outcome, self.path, message)


class MixerObject:
    """One object, with its unread fields."""

    def __init__(
        self, document: Document, at: NodePath, tree: dict[str, Any], report: Report
    ) -> None:
        metadata = tree.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        self.kind = str(tree.get("kind", ""))
        self.name = str(metadata.get("name", ""))
        self.namespace = str(metadata.get("namespace") or "default")
        self._document, self._at, self._report = document, at, report
        self._tree = tree
        self._unread = dict.fromkeys(_leaves(tree, ()))
        for path in (("apiVersion",), ("kind",), ("metadata", "name"), ("metadata", "namespace")):
            self.mark(path)
        self._take_out_what_the_cluster_made()

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"

    @property
    def spec(self) -> Part:
        """The content of the object."""
        return Part(self, ("spec",), self._tree.get("spec"))

    @property
    def is_of_mixer(self) -> bool:
        """Whether it belongs to Mixer's configuration."""
        return str(self._tree.get("apiVersion", "")).startswith(_GROUP)

    def mark(self, path: NodePath) -> None:
        """Marks a field and everything below it as read."""
        if self._unread.pop(path, self) is None:
            return
        for leaf in [leaf for leaf in self._unread if leaf[: len(path)] == path]:
            del self._unread[leaf]

    def tell(self, outcome: Outcome, path: NodePath, message: str) -> None:
        """Reports the outcome of a field, and marks it and everything below it as read."""
        self.mark(path)
        self.remark(outcome, path, message)

    def remark(self, outcome: Outcome, path: NodePath, message: str) -> None:
        """Reports something about a field, and leaves everything below it unread."""
        self._report.add(
            outcome,
            self._document,
            (*self._at, *path),
            message,
            what=str(self),
            below=len(self._at),
        )

    def list_unread(self) -> list[NodePath]:
        """The unread fields; of a subtree that is wholly unread, only the topmost field."""
        unread = self._unread
        read = {
            leaf[:depth]
            for leaf in _leaves(self._tree, ())
            if leaf not in unread
            for depth in range(len(leaf) + 1)
        }
        highest: dict[NodePath, None] = {}
        for leaf in unread:
            depth = next(
                (depth for depth in range(1, len(leaf)) if leaf[:depth] not in read), len(leaf)
            )
            highest[leaf[:depth]] = None
        return list(highest)

    def _take_out_what_the_cluster_made(self) -> None:
        made = [("status",), ("metadata", "annotations", _LAST_APPLIED)]
        made += [("metadata", name) for name in _MADE_BY_CLUSTER]
        before = len(self._unread)
        for path in made:
            self.mark(path)
        self._report.made_by_cluster += before - len(self._unread)


def read_objects(
    paths: Iterable[Path],
    report: Report,
    progress: Progress = lambda _done, _all: None,
    *,
    but: Path | None = None,
) -> list[MixerObject]:
    """Reads the Mixer-era objects of files and folders.

    Args:
        paths: files and folders.
        report: gets everything that is not such an object, or cannot be read.
        progress: called after each file.
        but: a folder within them that is left out, because an earlier run has written its files.
    """
    files = list(dict.fromkeys(_list_files(paths, report)))
    if but is not None:
        files = [file for file in files if not file.absolute().is_relative_to(but.absolute())]
    if len(files) > MAX_FILES:
        report.add_at(
            Outcome.UNREADABLE,
            str(files[MAX_FILES]),
            0,
            f"is one of more than {MAX_FILES} files; migrate in parts",
        )
        files = files[:MAX_FILES]
    objects: list[MixerObject] = []
    seen: dict[tuple[str, str, str], MixerObject] = {}
    left = MAX_TOTAL_BYTES
    for number, file in enumerate(files, 1):
        source = _read_source(file, left, report)
        left -= 0 if source is None else len(source.text)
        for found in () if source is None else _read_documents(source, report):
            if not found.is_of_mixer:
                found.tell(Outcome.IGNORED, (), "is not a Mixer object")
                continue
            key = (found.kind, found.namespace, found.name)
            if key in seen:
                found.tell(
                    Outcome.LOST, (), "was there before, in an earlier place; the first one is used"
                )
                continue
            if len(objects) >= MAX_OBJECTS:
                found.tell(
                    Outcome.UNREADABLE,
                    (),
                    f"is one of more than {MAX_OBJECTS} objects; migrate in parts",
                )
                continue
            seen[key] = found
            objects.append(found)
        progress(number, len(files))
    return objects


def _list_files(paths: Iterable[Path], report: Report) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        try:
            inside = sorted(
                found
                for found in path.rglob("*")
                if found.suffix in SUFFIXES
                and found.is_file()
                and not any(part.startswith(".") for part in found.relative_to(path).parts)
            )
        except OSError as exc:
            report.add_at(Outcome.UNREADABLE, str(path), 0, say_why_unreadable(exc))
            continue
        if not inside:
            report.add_at(
                Outcome.UNREADABLE, str(path), 0, f"contains no {', '.join(SUFFIXES)} file"
            )
        yield from inside


def _read_source(path: Path, left: int, report: Report) -> SourceText | None:
    """Reads a file; None, with an entry in the report, when it cannot be read.

    Args:
        left: the bytes that may still be read.
    """
    try:
        return decode_source(str(path), read_file(path, max_bytes=min(MAX_FILE_BYTES, left)))
    except ConfigError as exc:
        _tell_problems(exc, 0, report)
        return None


def _read_documents(source: SourceText, report: Report) -> Iterator[MixerObject]:
    for document in _split(source):
        try:
            tree = read_values(document.source)
        except ConfigError as exc:
            _tell_problems(exc, document.first_line, report)
            continue
        if tree is not None:
            yield from _read_tree(document, (), tree, report)


def _tell_problems(error: ConfigError, first_line: int, report: Report) -> None:
    """Reports the problems of a document; `first_line` is 0 for those of a whole file."""
    for problem in error.problems:
        line = problem.line + max(first_line, 1) - 1 if problem.line else first_line
        report.add_at(Outcome.UNREADABLE, problem.file, line, problem.message)


def _split(source: SourceText) -> Iterator[Document]:
    """Splits a file into documents. Every line that begins with --- begins a new one."""
    if source.is_json:
        yield Document(source=source)
        return
    starts = [0, *(found.start() for found in _DOCUMENT_START.finditer(source.text))]
    line = counted = 0
    for start, end in zip(starts, [*starts[1:], len(source.text)], strict=True):
        line += source.text.count("\n", counted, start)
        counted = start
        text = source.text[start:end]
        if text.strip():
            yield Document(source=SourceText(file=source.file, text=text), first_line=line + 1)


def _read_tree(
    document: Document, at: NodePath, tree: Any, report: Report
) -> Iterator[MixerObject]:
    if not isinstance(tree, dict) or not tree.get("kind") or not tree.get("apiVersion"):
        report.add(
            Outcome.UNREADABLE,
            document,
            at,
            "is not a Kubernetes object: kind or apiVersion is missing",
        )
        return
    items = tree.get("items")
    if str(tree["kind"]).endswith("List") and isinstance(items, list):
        for position, item in enumerate(items):
            yield from _read_tree(document, (*at, "items", position), item, report)
        return
    found = MixerObject(document, at, tree, report)
    if found.is_of_mixer and not found.name:
        report.add(Outcome.UNREADABLE, document, at, f"{show_name(found.kind)} has no name")
        return
    yield found


def _leaves(tree: Any, path: NodePath) -> Iterator[NodePath]:
    inside: Iterable[tuple[str | int, Any]] = ()
    if isinstance(tree, dict):
        inside = tree.items()
    elif isinstance(tree, list):
        inside = enumerate(tree)
    if not tree or not inside:
        if tree is not None:  # a key without a value counts as absent
            yield path
        return
    for key, value in inside:
        yield from _leaves(value, (*path, key))


def _fold(key: str) -> str:
    return key.replace("_", "").lower()
