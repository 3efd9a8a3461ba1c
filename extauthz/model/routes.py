"""Finds an API by host and base path, and a resource by template, in steps of the path's depth.

Two trees over path segments. The first leads from a base path to the API served there
(longest wins). The second, one for each API, leads through the rest of the path to a
resource: a literal segment beats a pattern (``report.{format}``, ``{base}...{head}``), which
beats ``{name}``, which beats a trailing ``*``; the first segment that differs decides. How many APIs or
resources there are changes only the size of dictionaries. Where templates overlap, a path
may go several ways; how many is bounded when the tree is built.

Paths come in normalised (`extauthz.policy.match.normalise_path`), split at ``/``.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

if TYPE_CHECKING:
    from extauthz.model.catalog import Api, Resource

ANY_METHOD: Final = "*"
MAX_SEGMENTS: Final = 128
MAX_STEPS: Final = 1024
"""Most places of one API's tree that a path may visit; ordinary APIs stay below 100."""

_PCHAR_AND_TEMPLATE: Final = "-._~!$&'()*+,=:@{}%"
"""RFC 3986 pchar without ";", and what a template is made of."""
_SENT_AS_IT_IS: Final = re.compile(r"[A-Za-z0-9\-._~{}]*")
_ESCAPE: Final = re.compile("%(..?)?")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9\-._~]")
_NAME: Final = re.compile(r"\{([^{}]*)\}")


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
        self.patterns: list[_Pattern] = []
        self.parameter: _Node | None = None
        self.methods: dict[str, Route] = {}
        """What ends here, by method."""
        self.rest: dict[str, Route] = {}
        """What takes this place and all below it, by method."""


_Pattern = tuple[str, tuple[str, ...], str, _Node]
"""The texts of a segment before its first name, between its names, and after its last one."""

_NO_ROUTES: Final[dict[str, Route]] = {}
_NO_NODES: Final[dict[str, _Node]] = {}
_NO_PATTERNS: Final[list[_Pattern]] = []


class ResourceTree:
    """The resources of one API.

    Raises:
        TemplateError: a template cannot be matched, is there twice, or overlaps with the
            others in so many ways that one path could cost more than `MAX_STEPS`.
    """

    __slots__ = ("_root", "steps")

    def __init__(self, api: Api) -> None:
        self._root = _Node()
        for resource in api.resources:
            self._add(resource.template, Route(api, resource))
        self.steps: Final = _finish(self._root)
        """No path visits more places of the tree than this."""
        if self.steps > MAX_STEPS:
            raise TemplateError(
                f"the templates of {api.name} {api.version} overlap in too many ways: one path "
                f"may have to be compared in {self.steps} steps, and {MAX_STEPS} are the limit; "
                "use the same parameter, not a literal beside it, where paths share a segment"
            )

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
        # The base path itself and the base path with a slash are the resource "/".
        if start == len(segments) - 1 and segments[start] == "":
            start += 1
        allowed: set[str] = set()
        route = _find(self._root, segments, start, method, allowed)
        return frozenset(allowed) if route is None else route


def split_template(template: str) -> list[str]:
    """A template's segments as a normalised path has them; ``/`` has none.

    What a client has to percent-encode is encoded here: ``/straße`` has the segment
    ``stra%C3%9Fe``. Raises TemplateError for what cannot be matched.
    """
    if not template.startswith("/"):
        raise TemplateError(f"a path template starts with a slash: write /{template}")
    if template == "/":
        return []
    segments = template[1:].split("/")
    if len(segments) > MAX_SEGMENTS:
        raise TemplateError(
            f"a template of {len(segments)} segments never matches: "
            f"requests with more than {MAX_SEGMENTS} are refused"
        )
    names: set[str] = set()
    sent: list[str] = []
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "" and not last:
            raise TemplateError(f"{template} has an empty segment; requests never match it")
        escaped = segment
        if not _SENT_AS_IT_IS.fullmatch(segment):  # quoting takes ten times as long to see it
            escaped = _ESCAPE.sub(_read_escape, quote(segment, safe=_PCHAR_AND_TEMPLATE))
        sent.append(escaped)
        if escaped in (".", "..") or any(mark in segment for mark in "?#"):
            raise TemplateError(
                f"segment {segment!r} of {template} can never match: requests with "
                "dot segments are refused, and a query or fragment is no part of the path"
            )
        if segment == "**" and not last:
            raise TemplateError(f"** must be the last segment of {template}")
        if "*" in segment and segment not in ("*", "**"):
            raise TemplateError(f"* must be a whole segment, not part of {segment!r}")
        _check_braces(template, segment, names)
    return sent


def write_shape(segments: Sequence[str]) -> tuple[str, ...]:
    """What a template matches, without the names in it: equal for templates that fit the same.

    segments: as `split_template` gives them.
    """
    shape = ["{}" if segment == "*" else _NAME.sub("{}", segment) for segment in segments or ("",)]
    if segments and segments[-1] in ("*", "**"):
        shape[-1] = "**"
    return tuple(shape)


def _read_escape(escape: re.Match[str]) -> str:
    """An escape as `normalise_path` leaves it: unreserved characters are never escaped."""
    try:
        octet = int(escape[1] or "", 16) if len(escape[0]) == 3 else -1
    except ValueError:
        octet = -1
    if octet < 0x20 or octet == 0x7F or chr(octet) in "/;\\":
        raise TemplateError(
            f"{escape[0]} in {escape.string} can never match: requests with backslashes, "
            "semicolons, control characters, encoded slashes or broken escapes are refused "
            "(a percent sign itself is written %25)"
        )
    return chr(octet) if _UNRESERVED.match(chr(octet)) else escape[0].upper()


def _check_braces(template: str, segment: str, names: set[str]) -> None:
    if "{" not in segment and "}" not in segment:
        return
    if any(brace in _NAME.sub("", segment) for brace in "{}"):
        raise TemplateError(
            f"segment {segment!r} of {template} has a brace without its other half; a name is "
            "written {id}, and a brace itself %7B or %7D"
        )
    for name in _NAME.findall(segment):
        if not name:
            raise TemplateError(f"{{}} in {template} needs a name, like {{id}}")
        if name in names:
            raise TemplateError(f"{template} names {{{name}}} twice")
        names.add(name)


def _step(node: _Node, segment: str) -> _Node:
    """The child of a node that a template's segment leads to, made when it is not there."""
    if "{" not in segment and segment != "*":
        # One string for all APIs: fewer of them to fetch when there are many.
        return node.literals.setdefault(sys.intern(segment), _Node())
    if segment == "*":
        segment = "{}"
    before, *between, after = _NAME.sub("{}", segment).split("{}")
    if not (before or between or after):
        if node.parameter is None:
            node.parameter = _Node()
        return node.parameter
    texts = (before, tuple(between), after)
    for *other, child in node.patterns:
        if tuple(other) == texts:
            return child
    child = _Node()
    node.patterns.append((*texts, child))
    node.patterns.sort(key=_rank_pattern)
    return child


def _rank_pattern(pattern: _Pattern) -> tuple[object, ...]:
    """The longest fixed text is the most specific, then the longest before the first name.

    Two patterns with one name that fit one segment are never equal in both. For others there is
    an order, too, which is that of the texts: it must not depend on which stands first.
    """
    before, between, after, _ = pattern
    fixed = len(before) + sum(map(len, between)) + len(after)
    return -fixed, -len(before), before, between, after


def fits(segment: str, before: str, between: tuple[str, ...], after: str) -> bool:
    """Whether a segment is these texts with one character or more for each name beside them.

    Takes each text between names where it comes first: what is left for the rest is then the most
    that there can be, so nothing is tried twice.
    """
    at, end = len(before), len(segment) - len(after)
    if end <= at or not segment.startswith(before) or not segment.endswith(after):
        return False
    for text in between:
        found = segment.find(text, at + 1, end)
        if found < 0:
            return False
        at = found + len(text)
    return at < end


def _find(
    node: _Node, segments: list[str], at: int, method: str, allowed: set[str]
) -> Route | None:
    """The most specific route below a node; adds the methods of all that it passes by.

    A tree has one way to each node, and each step takes one segment: no node is visited twice.
    """
    if at == len(segments):
        ends = node.methods
        if ends:
            route = ends.get(method) or ends.get(ANY_METHOD)
            if route is not None:
                return route
            allowed.update(ends)
    else:
        segment = segments[at]
        child = node.literals.get(segment)
        if child is not None:
            route = _find(child, segments, at + 1, method, allowed)
            if route is not None:
                return route
        if segment:
            for before, between, after, child in node.patterns:
                if fits(segment, before, between, after):
                    route = _find(child, segments, at + 1, method, allowed)
                    if route is not None:
                        return route
            if node.parameter is not None:
                route = _find(node.parameter, segments, at + 1, method, allowed)
                if route is not None:
                    return route
    ends = node.rest
    if ends:
        route = ends.get(method) or ends.get(ANY_METHOD)
        if route is not None:
            return route
        allowed.update(ends)
    return None


def _finish(node: _Node) -> int:
    """Lets GET answer HEAD below a node; gives the most steps that a path can take from it.

    A path follows one literal, but every pattern and the parameter beside it.
    """
    for ends in (node.methods, node.rest):
        if "GET" in ends:
            ends.setdefault("HEAD", ends["GET"])
    # What is empty is shared, so that many trees take less memory and are in cache more often.
    node.methods = node.methods or _NO_ROUTES
    node.rest = node.rest or _NO_ROUTES
    node.literals = node.literals or _NO_NODES
    node.patterns = node.patterns or _NO_PATTERNS
    steps = 1 + max((_finish(child) for child in node.literals.values()), default=0)
    for *_, child in node.patterns:
        steps += _finish(child)
    if node.parameter is not None:
        steps += _finish(node.parameter)
    return steps


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

    def __init__(self, apis: Iterable[Api] = ()) -> None:
        self._exact: dict[str, _Base] = {}
        self._wildcard: dict[str, _Base] = {}
        """By the part behind ``*``: ``.example.com``, or empty for any host."""
        self._trees: dict[tuple[str, str], ResourceTree] = {}
        for api in apis:
            self.add(api)

    def add(self, api: Api) -> None:
        """Adds one API. Only while the table is put together."""
        tree = ResourceTree(api)
        self._trees[api.name, api.version] = tree
        for host in api.hosts:
            for base_path in api.base_paths:
                self._add(host, base_path, api, tree)

    def take_apart(self) -> Iterator[None]:
        """Empties it step by step. Only when nobody looks for routes here any more."""
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
            base = base.children.setdefault(sys.intern(segment), _Base())
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
            # From 1: the part that a "*" stands for is never empty.
            dot = host.find(".", 1)
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
