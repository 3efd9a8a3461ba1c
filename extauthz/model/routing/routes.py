"""Finds a resource of an API by template, in steps of the path's depth.

Each API has a tree over the segments that follow the base path. A literal segment has precedence
over a pattern (``report.{format}``, ``{base}...{head}``), that over ``{name}``, and that over a
trailing ``*``; the first segment that differs decides. The number of resources changes only the
size of dictionaries. Where templates overlap, several branches may have to be followed; their
number is bounded when the tree is built. The API is found by `extauthz.model.routing.route_table`.

Paths are those of `extauthz.model.routing.segments`. When a path has several readings, all of them
are followed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from extauthz.model.routing.segments import Pattern, Segment, Segments, decode, fits, is_respelled
from extauthz.model.routing.templates import NAME, TemplateError, split_template

if TYPE_CHECKING:
    from extauthz.model.apis import Api, Resource

ANY_METHOD: Final = "*"
MAX_STEPS: Final = 1024
"""Most nodes of one API's tree that a path may visit; ordinary APIs stay below 100."""


@dataclass(frozen=True, slots=True)
class Route:
    """The API and resource that a request is for."""

    api: Api
    resource: Resource


class _Node:
    """A node of a template tree. See `extauthz.model.routing.segments.is_respelled`."""

    __slots__ = ("is_respelled", "literals", "methods", "parameter", "patterns", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.patterns: list[tuple[Pattern, _Node]] = []
        self.parameter: _Node | None = None
        self.methods: dict[str, Route] = {}
        """Resources whose template ends here, by method."""
        self.rest: dict[str, Route] = {}
        """Resources whose template ends in ``*`` here, by method."""
        self.is_respelled = False


_NO_ROUTES: Final[dict[str, Route]] = {}
_NO_NODES: Final[dict[str, _Node]] = {}
_NO_PATTERNS: Final[list[tuple[Pattern, _Node]]] = []


class ResourceTree:
    """The resources of one API.

    Raises:
        TemplateError: a template cannot be matched, is there twice, or overlaps with the
            others in so many ways that one path could cost more than `MAX_STEPS`.
    """

    __slots__ = ("_root", "is_respelled", "steps")

    def __init__(self, api: Api) -> None:
        self._root = _Node()
        self.is_respelled = False
        """Whether the upstream's spelling of a template is not known; see `is_respelled`."""
        for resource in api.resources:
            self._add(resource.template, Route(api, resource))
        self.steps: Final = _finish(self._root)
        """The most nodes of the tree that a path can visit."""
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
        written = template[1:].split("/")
        for position, segment in enumerate(segments[:-1] if takes_rest else segments):
            node = _step(node, segment)
            if is_respelled(written[position]):
                node.is_respelled = self.is_respelled = True
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

        An empty set means that no template matches the path. The segments are decoded; when the
        path had escapes, or with `is_respelled`, use `find_in_every_way`.
        """
        # The base path itself and the base path with a slash are the resource "/".
        if start == len(segments) - 1 and segments[start] == "":
            start += 1
        allowed: set[str] = set()
        route = _find(self._root, segments, start, method, allowed)
        return frozenset(allowed) if route is None else route

    def find_in_every_way(
        self, segments: Segments, starts: Iterable[int], method: str
    ) -> Route | frozenset[str] | None:
        """As `find`, for every reading of a path; None when they lead to different resources.

        A reading that leads to no resource is ignored.

        Args:
            starts: where the path's rest may begin, as indexes of segments.
        """
        ways = _Ways(method, segments)
        for start in starts:
            if start == len(segments) - 1 and segments[start].text == "":
                start += 1
            ways.follow(self._root, start, in_doubt=False)
            if len(ways.found) > 1:
                return None
        return ways.found[0] if ways.found else frozenset(ways.allowed)


def _step(node: _Node, segment: str) -> _Node:
    """The child of a node for a template's segment; it is made when it is not there."""
    if "{" not in segment and segment != "*":
        # One string object for all APIs saves memory.
        return node.literals.setdefault(sys.intern(decode(segment)), _Node())
    if segment == "*":
        segment = "{}"
    before, *between, after = map(decode, NAME.sub("{}", segment).split("{}"))
    if not (before or between or after):
        if node.parameter is None:
            node.parameter = _Node()
        return node.parameter
    texts = (before, tuple(between), after)
    for pattern, child in node.patterns:
        if pattern.texts == texts:
            return child
    child = _Node()
    node.patterns.append((Pattern(texts), child))
    node.patterns.sort(key=lambda entry: entry[0].rank)
    return child


def _find(
    node: _Node, segments: list[str], at: int, method: str, allowed: set[str]
) -> Route | None:
    """The most specific route below a node; adds the methods of other templates that match.

    No node is visited twice, because a tree has one way to each node.
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
            for pattern, child in node.patterns:
                if fits(segment, pattern.texts):
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


@dataclass(slots=True)
class _Ways:
    """The resources that the readings of a path lead to."""

    method: str
    segments: Segments
    found: list[Route] = field(default_factory=list)
    """Without repetitions, and at most two: the path is refused with two already."""
    allowed: set[str] = field(default_factory=set)

    def follow(self, node: _Node, at: int, *, in_doubt: bool) -> bool:
        """Searches as `_find` does, for all readings at once.

        True when the search is over: every reading has found a resource, or two have found
        different ones. `in_doubt`: above is a template that is spelled with needless escapes, so
        that it is not known what an upstream finds there.
        """
        if at == len(self.segments):
            if node.methods:
                route = node.methods.get(self.method) or node.methods.get(ANY_METHOD)
                if route is not None and self._add(route, in_doubt=in_doubt):
                    return True
                self.allowed.update(node.methods)
        elif self._follow_segment(node, self.segments[at], at + 1, in_doubt=in_doubt):
            return True
        if node.rest:
            route = node.rest.get(self.method) or node.rest.get(ANY_METHOD)
            if route is not None and self._add(route, in_doubt=in_doubt):
                return True
            self.allowed.update(node.rest)
        return False

    def _follow_segment(self, node: _Node, segment: Segment, at: int, *, in_doubt: bool) -> bool:
        child = node.literals.get(segment.text)
        if child is not None:
            ended = self.follow(child, at, in_doubt=in_doubt or child.is_respelled)
            if (ended and segment.is_sure) or len(self.found) > 1:
                return True
        child = None if segment.twice is None else node.literals.get(segment.twice)
        if child is not None:
            self.follow(child, at, in_doubt=True)
        if not segment.text:
            return False
        for pattern, child in node.patterns:
            if segment.may_fit(pattern):
                ended = self.follow(child, at, in_doubt=in_doubt or child.is_respelled)
                if (ended and segment.surely_fits(pattern)) or len(self.found) > 1:
                    return True
        if node.parameter is not None:
            return self.follow(node.parameter, at, in_doubt=in_doubt)
        return False

    def _add(self, route: Route, *, in_doubt: bool) -> bool:
        if not self.found or self.found[-1].resource is not route.resource:
            self.found.append(route)
        return not in_doubt or len(self.found) > 1


def _finish(node: _Node) -> int:
    """Lets GET resources below a node serve HEAD; gives the most steps that a path can take there.

    A path follows one literal, and every pattern and the parameter beside it.
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
