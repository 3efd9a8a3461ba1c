"""Finds a resource of an API by template, in steps of the path's depth.

A tree over path segments, one for each API, leads through the path's rest behind the base path to a
resource: a literal segment beats a pattern (``report.{format}``, ``{base}...{head}``), which beats
``{name}``, which beats a trailing ``*``; the first segment that differs decides. How many resources
there are changes only the size of dictionaries. Where templates overlap, a path may go several ways;
how many is bounded when the tree is built. The API is found by `extauthz.model.routing.route_table`.

Paths come in as `extauthz.model.routing.segments` has them. Where one can be read in several ways, every
way is followed, and what they lead to is told.
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
"""Most places of one API's tree that a path may visit; ordinary APIs stay below 100."""


@dataclass(frozen=True, slots=True)
class Route:
    """The API and resource that a request is for."""

    api: Api
    resource: Resource


class _Node:
    """One place in a template tree. `is_respelled`: see `extauthz.model.routing.segments.is_respelled`."""

    __slots__ = ("is_respelled", "literals", "methods", "parameter", "patterns", "rest")

    def __init__(self) -> None:
        self.literals: dict[str, _Node] = {}
        self.patterns: list[tuple[Pattern, _Node]] = []
        self.parameter: _Node | None = None
        self.methods: dict[str, Route] = {}
        """What ends here, by method."""
        self.rest: dict[str, Route] = {}
        """What takes this place and all below it, by method."""
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
        """Whether there is a template of which nobody knows how the upstream spells it."""
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

        An empty set says that no template matches the path at all. The segments are as who decodes
        escapes has them: where there were any, or `is_respelled`, see `find_in_every_way`.
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
        """As `find`, for whatever a path may be read as; None when that is not one resource.

        A reading that leads nowhere is none: whoever has it serves nothing.

        Args:
            starts: where the path's rest may begin.
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
    """The child of a node that a template's segment leads to, made when it is not there."""
    if "{" not in segment and segment != "*":
        # One string for all APIs: fewer of them to fetch when there are many.
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
    """What the ways lead to, in which a path may be read."""

    method: str
    segments: Segments
    found: list[Route] = field(default_factory=list)
    """Each once, and no more than two: two are as bad as more."""
    allowed: set[str] = field(default_factory=set)

    def follow(self, node: _Node, at: int, *, in_doubt: bool) -> bool:
        """Goes as `_find` does, for all readings at once.

        True when there is no need to look further: every reading has found something, or two have
        found different things. So is what is below a template that is spelled with needless escapes
        (`in_doubt`): nobody knows what else an upstream finds there.
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
