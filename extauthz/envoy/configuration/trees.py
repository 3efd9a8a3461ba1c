"""Reads values from trees of mappings and lists that have no guaranteed shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from extauthz.documents.lines import NodePath

Tree = dict[str, Any]


def find_value(tree: Any, *keys: str | int) -> Any:
    """The value at a path of keys and indexes; None when it does not exist."""
    for key in keys:
        if isinstance(tree, dict) and isinstance(key, str):
            tree = tree.get(key)
        elif isinstance(tree, list) and isinstance(key, int) and key < len(tree):
            tree = tree[key]
        else:
            return None
    return tree


def list_mappings(value: Any) -> list[Tree]:
    """The mappings of a list; empty when the value is not a list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def walk(tree: Any, path: NodePath = ()) -> Iterator[tuple[NodePath, Tree]]:
    """Yields every mapping with its path, from the top down. The tree must have a bounded depth."""
    if isinstance(tree, dict):
        yield path, tree
        for key, value in tree.items():
            yield from walk(value, (*path, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from walk(value, (*path, number))


def read_type(config: Any) -> str:
    """The name of a typed configuration's message, without the URL before it."""
    return str(find_value(config, "@type") or "").rpartition("/")[2]
