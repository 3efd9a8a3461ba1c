"""Finds the files and folders that settings name, by their type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from extauthz.documents.document import StrictModel
from extauthz.documents.lines import NodePath

_Model = TypeVar("_Model", bound=StrictModel)


def list_files(part: object, path: NodePath = ()) -> Iterator[tuple[NodePath, Path]]:
    """The files and folders that a part of the settings names, with their keys below `path`."""
    if isinstance(part, Path):
        yield path, part
    elif isinstance(part, StrictModel):
        for name in type(part).model_fields:
            yield from list_files(getattr(part, name), (*path, name))
    elif isinstance(part, dict):
        for key, item in part.items():
            yield from list_files(item, (*path, key))
    elif isinstance(part, tuple | list):
        for position, item in enumerate(part):
            yield from list_files(item, (*path, position))


def with_files(settings: _Model, locate: Callable[[Path], Path]) -> _Model:
    """The same settings, with `locate` applied to the name of every file."""
    located: _Model = _locate(settings, locate)
    return located


def _locate(part: Any, locate: Callable[[Path], Path]) -> Any:
    if isinstance(part, Path):
        return locate(part)
    if isinstance(part, StrictModel):
        changes = {name: _locate(getattr(part, name), locate) for name in type(part).model_fields}
        return part.model_copy(update=changes)
    if isinstance(part, dict):
        return {key: _locate(item, locate) for key, item in part.items()}
    if isinstance(part, tuple | list):
        return type(part)(_locate(item, locate) for item in part)
    return part
