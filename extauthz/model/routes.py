"""Finds an API by host and base path, and a resource by template, in steps of the path's depth.

Two trees over path segments. The first leads from a base path to the API served there
(longest wins). The second, one for each API, leads through the rest of the path to a
resource: a literal segment beats a pattern (``report.{format}``), which beats ``{name}``,
which beats a trailing ``*``; the first segment that differs decides. How many APIs or
resources there are changes only the size of dictionaries.

Paths come in normalised (`extauthz.policy.match.normalise_path`), split at ``/``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from extauthz.model.catalog import Api, Resource

ANY_METHOD: Final = "*"
MAX_SEGMENTS: Final = 128


class TemplateError(ValueError):
    """A path template that cannot be matched. The text says what to write instead."""


@dataclass(frozen=True, slots=True)
class Route:
    """The API and resource that a request is for."""

    api: Api
    resource: Resource


class _Node:
    """One place in a template tree."""

    __slots__ = ("literals", "methods", "parameter", "patterns", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.patterns: list[tuple[str, str, _Node]] = []
        self.parameter: _Node | None = None
        self.methods: dict[str, Route] = {}
        """What ends here, by method."""
        self.rest: dict[str, Route] = {}
        """What takes this place and all below it, by method."""


class ResourceTree:
    """The resources of one API."""

    __slots__ = ("_root",)

    def __init__(self, api: Api) -> None:
        self._root = _Node()
        for resource in api.resources:
            self._add(resource.template, Route(api, resource))

    def _add(self, template: str, route: Route) -> None:
        segments = split_template(template)
        node = self._root
        takes_rest = bool(segments) and segments[-1] in ("*", "**")
        for segment in segments[:-1] if takes_rest else segments:
            node = _step(node, segment)
        ends = node.rest if takes_rest else node.methods
        for method in route.resource.methods:
            if method in ends:
                other = ends[method].resource.template
                raise TemplateError(
                    f"{method} {template} and {method} {other} match the same paths; remove one"
                )
            ends[method] = route

    def find(self, segments: list[str], start: int, method: str) -> Route | frozenset[str]:
        """The best resource for a path's rest, or the methods that other requests could use.

        An empty set says that no template matches the path at all.
        """
        allowed: set[str] = set()
        # The base path itself and the base path with a slash are the resource "/".
        if start == len(segments) - 1 and segments[start] == "":
            start += 1
        wanted = (method, "GET", ANY_METHOD) if method == "HEAD" else (method, ANY_METHOD)
        for ends in _matches(self._root, segments, start):
            for name in wanted:
                if name in ends:
                    return ends[name]
            allowed.update(ends)
        if "GET" in allowed:
            allowed.add("HEAD")
        return frozenset(allowed)


def split_template(template: str) -> list[str]:
    """A template's segments; ``/`` has none. Raises TemplateError for what cannot be matched."""
    if not template.startswith("/"):
        raise TemplateError(f"a path template starts with a slash: write /{template}")
    if template == "/":
        return []
    segments = template[1:].split("/")
    names: set[str] = set()
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "" and not last:
            raise TemplateError(f"{template} has an empty segment; requests never match it")
        if segment in (".", "..") or any(mark in segment for mark in "\\;?#\0"):
            raise TemplateError(
                f"segment {segment!r} of {template} can never match: requests with "
                "dot segments, backslashes, semicolons or NUL are refused"
            )
        if segment == "**" and not last:
            raise TemplateError(f"** must be the last segment of {template}")
        if "*" in segment and segment not in ("*", "**"):
            raise TemplateError(f"* must be a whole segment, not part of {segment!r}")
        _check_braces(template, segment, names)
    return segments


def _check_braces(template: str, segment: str, names: set[str]) -> None:
    opened, closed = segment.count("{"), segment.count("}")
    if opened == closed == 0:
        return
    if opened != 1 or closed != 1 or segment.index("{") > segment.index("}"):
        raise TemplateError(f"segment {segment!r} of {template} may hold one {{name}} only")
    name = segment[segment.index("{") + 1 : segment.index("}")]
    if not name:
        raise TemplateError(f"{{}} in {template} needs a name, like {{id}}")
    if name in names:
        raise TemplateError(f"{template} names {{{name}}} twice")
    names.add(name)


def _step(node: _Node, segment: str) -> _Node:
    """The child of a node that a template's segment leads to, made when it is not there."""
    if "{" not in segment and segment != "*":
        return node.literals.setdefault(segment, _Node())
    before, _, named = ("", "", "") if segment == "*" else segment.partition("{")
    after = named.partition("}")[2]
    if not before and not after:
        if node.parameter is None:
            node.parameter = _Node()
        return node.parameter
    for prefix, suffix, child in node.patterns:
        if (prefix, suffix) == (before, after):
            return child
    child = _Node()
    node.patterns.append((before, after, child))
    # The longest fixed text is the most specific pattern.
    node.patterns.sort(key=lambda pattern: -len(pattern[0]) - len(pattern[1]))
    return child


def _matches(node: _Node, segments: list[str], at: int) -> Iterator[dict[str, Route]]:
    """Every set of methods whose template matches, the most specific first."""
    if at == len(segments):
        if node.methods:
            yield node.methods
    else:
        segment = segments[at]
        child = node.literals.get(segment)
        if child is not None:
            yield from _matches(child, segments, at + 1)
        if segment:
            for prefix, suffix, child in node.patterns:
                if (
                    len(segment) > len(prefix) + len(suffix)
                    and segment.startswith(prefix)
                    and segment.endswith(suffix)
                ):
                    yield from _matches(child, segments, at + 1)
            if node.parameter is not None:
                yield from _matches(node.parameter, segments, at + 1)
    if node.rest:
        yield node.rest


class _Base:
    """One place in the tree of base paths."""

    __slots__ = ("api", "children", "resources")

    def __init__(self) -> None:
        self.children: dict[str, _Base] = {}
        self.api: Api | None = None
        self.resources: ResourceTree | None = None


class BasePathConflict(ValueError):
    """Two APIs want the same host and base path."""

    def __init__(self, host: str, path: str, first: Api, second: Api) -> None:
        self.first, self.second = first, second
        super().__init__(
            f"{first.name} {first.version} and {second.name} {second.version} are both served "
            f"at host {host!r}, base path {path or '/'!r}; give one another context or host"
        )


class RouteTable:
    """Every API of a catalog, by host and base path."""

    __slots__ = ("_exact", "_trees", "_wildcard")

    def __init__(self, apis: Iterable[Api]) -> None:
        self._exact: dict[str, _Base] = {}
        self._wildcard: dict[str, _Base] = {}
        """By the part behind ``*``: ``.example.com``, or empty for any host."""
        self._trees: dict[tuple[str, str], ResourceTree] = {}
        for api in apis:
            tree = ResourceTree(api)
            self._trees[api.name, api.version] = tree
            for host in api.hosts:
                for base_path in api.base_paths:
                    self._add(host, base_path, api, tree)

    def _add(self, host: str, base_path: str, api: Api, tree: ResourceTree) -> None:
        roots = self._wildcard if host.startswith("*") else self._exact
        base = roots.setdefault(host.removeprefix("*"), _Base())
        for segment in base_path.split("/")[1:]:
            base = base.children.setdefault(segment, _Base())
        if base.api is not None:
            raise BasePathConflict(host, base_path, base.api, api)
        base.api, base.resources = api, tree

    def find_api(self, host: str, segments: list[str]) -> tuple[Api, ResourceTree, int] | None:
        """The API that serves a path, its resources, and where the path's rest begins.

        The most specific host that serves the path wins; on it, the longest base path.
        """
        exact = self._exact.get(host)
        if exact is not None:
            found = _longest(exact, segments)
            if found is not None:
                return found
        wildcards = self._wildcard
        if wildcards:
            dot = host.find(".")
            while dot >= 0 and len(wildcards) > ("" in wildcards):
                root = wildcards.get(host[dot:])
                if root is not None:
                    found = _longest(root, segments)
                    if found is not None:
                        return found
                dot = host.find(".", dot + 1)
            root = wildcards.get("")
            if root is not None:
                return _longest(root, segments)
        return None

    def resources_of(self, api: Api) -> ResourceTree:
        """The resources of an API of this table."""
        return self._trees[api.name, api.version]


def _longest(base: _Base, segments: list[str]) -> tuple[Api, ResourceTree, int] | None:
    best = None if base.api is None else (base, 0)
    for depth, segment in enumerate(segments, 1):
        child = base.children.get(segment)
        if child is None:
            break
        base = child
        if base.api is not None:
            best = (base, depth)
    if best is None:
        return None
    base, depth = best
    assert base.api is not None and base.resources is not None
    return base.api, base.resources, depth
