"""Finds an API by host and base path, in steps of the path's depth.

A tree over path segments leads to the API that is served at a base path; the longest base path
wins. From there on, `extauthz.model.routing.routes` finds the resource. The number of APIs changes
only the size of dictionaries.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from extauthz.model.routing.routes import ResourceTree
from extauthz.model.routing.segments import Segments, decode

if TYPE_CHECKING:
    from extauthz.model.apis import Api


class _Base:
    """One place in the tree of base paths."""

    __slots__ = ("api", "children", "resources")

    def __init__(self) -> None:
        self.children: dict[str, _Base] = {}
        self.api: Api | None = None
        self.resources: ResourceTree | None = None


class BasePathConflict(ValueError):
    """Two APIs have the same host and base path."""

    def __init__(self, host: str, path: str, first: Api, second: Api) -> None:
        self.first, self.second = first, second
        super().__init__(
            f"{first.name} {first.version} and {second.name} {second.version} are both served "
            f"at host {host!r}, base path {path or '/'!r}; give one another context or host"
        )


Served = tuple["Api", ResourceTree, int]
"""The API that serves a path, its resources, and where the path's rest begins."""


class RouteTable:
    """Every API of a catalog, by host and base path."""

    __slots__ = ("_exact", "_trees", "_wildcard")

    def __init__(self, apis: Iterable[Api] = ()) -> None:
        self._exact: dict[str, _Base] = {}
        self._wildcard: dict[str, _Base] = {}
        """By the part after ``*``: ``.example.com``, or empty for any host."""
        self._trees: dict[tuple[str, str], ResourceTree] = {}
        for api in apis:
            self.add(api)

    def add(self, api: Api) -> None:
        """Adds one API. Only called while the table is being built."""
        tree = ResourceTree(api)
        self._trees[api.name, api.version] = tree
        for host in api.hosts:
            for base_path in api.base_paths:
                self._add(host, base_path, api, tree)

    def take_apart(self) -> Iterator[None]:
        """Empties it step by step. Only called when the table is no longer used."""
        bases = [*self._exact.values(), *self._wildcard.values()]
        self._exact.clear()
        self._wildcard.clear()
        while bases:
            base = bases.pop()
            bases += base.children.values()
            del base
            yield
        while self._trees:
            self._trees.popitem()
            yield

    def _add(self, host: str, base_path: str, api: Api, tree: ResourceTree) -> None:
        roots = self._wildcard if host.startswith("*") else self._exact
        base = roots.setdefault(host.removeprefix("*"), _Base())
        for segment in base_path.split("/")[1:]:
            base = base.children.setdefault(sys.intern(decode(segment)), _Base())
        if base.api is not None:
            raise BasePathConflict(host, base_path, base.api, api)
        base.api, base.resources = api, tree

    def find_api(self, host: str, segments: list[str]) -> Served | None:
        """The API that serves a path, its resources, and where the path's rest begins.

        The most specific host that serves the path wins; on it, the longest base path. For the
        segments, see `ResourceTree.find`.
        """
        for root in self._find_roots(host):
            found = _longest(root, segments)
            if found is not None:
                return found
        return None

    def find_apis_in_every_way(self, host: str, segments: Segments) -> list[Served]:
        """What `find_api` gives for each reading of a path, without repetitions."""
        found: list[Served] = []
        for root in self._find_roots(host):
            if _add_longest(root, segments, 0, None, found):
                break
        return list(dict.fromkeys(found))

    def _find_roots(self, host: str) -> list[_Base]:
        """The roots of what is served at a host, that of the most specific host first."""
        exact = self._exact.get(host)
        roots = [] if exact is None else [exact]
        wildcards = self._wildcard
        if wildcards:
            # From 1: the part that a "*" stands for is never empty.
            dot = host.find(".", 1)
            while dot >= 0 and len(wildcards) > ("" in wildcards):
                root = wildcards.get(host[dot:])
                if root is not None:
                    roots.append(root)
                dot = host.find(".", dot + 1)
            root = wildcards.get("")
            if root is not None:
                roots.append(root)
        return roots

    def resources_of(self, api: Api) -> ResourceTree:
        """The resources of an API of this table."""
        return self._trees[api.name, api.version]


def _longest(base: _Base, segments: list[str]) -> Served | None:
    best = None if base.api is None else (base, 0)
    for depth, segment in enumerate(segments, 1):
        child = base.children.get(segment)
        if child is None:
            break
        base = child
        if base.api is not None:
            best = (base, depth)
    return None if best is None else _serve(*best)


def _add_longest(
    base: _Base, segments: Segments, depth: int, best: Served | None, found: list[Served]
) -> bool:
    """Adds to `found` what `_longest` is in any reading; True when every reading has one.

    Args:
        best: what is served nearest above.
    """
    if base.api is not None:
        best = _serve(base, depth)
    if depth < len(segments):
        segment = segments[depth]
        child = None if segment.twice is None else base.children.get(segment.twice)
        if child is not None:
            _add_longest(child, segments, depth + 1, best, found)
        child = base.children.get(segment.text)
        if child is not None:
            ended = _add_longest(child, segments, depth + 1, best, found)
            if segment.is_sure:
                return ended
    if best is None:
        return False
    found.append(best)
    return True


def _serve(base: _Base, depth: int) -> Served:
    assert base.api is not None and base.resources is not None
    return base.api, base.resources, depth
