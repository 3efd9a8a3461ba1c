"""Laws of finding resources and APIs: the trees agree with reading every template in turn."""

from __future__ import annotations

import re
from itertools import count

from hypothesis import assume, given
from hypothesis import strategies as st

from extauthz.model.apis import Api, Resource
from extauthz.model.routing.route_table import RouteTable
from extauthz.model.routing.routes import ResourceTree, Route
from extauthz.model.routing.templates import TemplateError
from tests.builders import a_resource, an_api

WORDS = ("a", "b", "aab", "aabb", "aabab", "")
METHODS = ("GET", "HEAD", "PUT", "*")

# What a template's segment does with a path's segment: how specific it is, or None.
Rank = tuple[object, ...]


def rank_of(segment: str, word: str) -> Rank | None:
    if segment == "*":
        segment = "{any}"
    texts = re.split(r"\{\w+\}", segment)
    if re.fullmatch(".+".join(map(re.escape, texts)), word) is None:
        return None
    if len(texts) == 1:
        return (0,)
    if not any(texts) and len(texts) == 2:
        return (2,)
    return 1, -len("".join(texts)), -len(texts[0]), texts[0], tuple(texts[1:-1]), texts[-1]


def ranks_of(template: str, words: list[str]) -> tuple[Rank, ...] | None:
    """How specific a template is at each segment, or None if it does not match."""
    segments = [] if template == "/" else template[1:].split("/")
    takes_rest = bool(segments) and segments[-1] in ("*", "**")
    if takes_rest:
        segments.pop()
    if len(words) < len(segments) or (len(words) > len(segments) and not takes_rest):
        return None
    ranks = [rank_of(segment, word) for segment, word in zip(segments, words, strict=False)]
    if any(rank is None for rank in ranks):
        return None
    ends: list[Rank] = [(3,)] if takes_rest else []
    return (*(rank for rank in ranks if rank is not None), *ends)


def find_by_reading_all(
    resources: tuple[Resource, ...], words: list[str], method: str
) -> Resource | frozenset[str]:
    if words == [""]:
        words = []
    matching = [
        (ranks, resource)
        for resource in resources
        if (ranks := ranks_of(resource.template, words)) is not None
    ]
    matching.sort(key=lambda found: found[0])
    wanted = (method, "GET", "*") if method == "HEAD" else (method, "*")
    # At one place, a method's own resource comes before those that stand in for it.
    for place in dict.fromkeys(ranks for ranks, _ in matching):
        for name in wanted:
            for ranks, resource in matching:
                if ranks == place and name in resource.methods:
                    return resource
    methods = {name for _, resource in matching for name in resource.methods}
    return frozenset(methods | ({"HEAD"} if "GET" in methods else set()))


@st.composite
def templates(draw: st.DrawFn) -> str:
    kinds = st.sampled_from(
        ["a", "aab", "{}", "*", "a{}", "{}b", "a{}b", "aa{}", "{}bb", "{}a{}", "{}b{}", "{}{}",
         "a{}b{}", "{}a{}b{}"]
    )  # fmt: skip
    segments = draw(st.lists(kinds, max_size=3))
    numbers = count()
    named = [re.sub("{}", lambda _: f"{{p{next(numbers)}}}", segment) for segment in segments]
    ending = draw(st.sampled_from(["", "", "*", "**", "/"]))
    if ending == "/" and named and named[-1] != "*":
        return "/" + "/".join(named) + "/"
    return "/" + "/".join([*named, ending] if ending in ("*", "**") else named)


resource_lists = st.lists(
    st.builds(
        a_resource,
        templates(),
        st.sampled_from(METHODS),
        scopes=st.just(()),
    ),
    min_size=1,
    max_size=12,
)


@given(
    resources=resource_lists,
    paths=st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=4), min_size=1),
    method=st.sampled_from(["GET", "HEAD", "PUT", "PURGE"]),
)
def test_a_tree_finds_what_reading_all_templates_finds(
    resources: list[Resource], paths: list[list[str]], method: str
) -> None:
    kept: list[Resource] = []
    for resource in resources:
        try:
            ResourceTree(an_api(*kept, resource))
        except TemplateError:
            continue
        kept.append(resource)
    assume(kept)
    tree = ResourceTree(an_api(*kept))
    for words in paths:
        found = tree.find(words, 0, method)
        expected = find_by_reading_all(tuple(kept), words, method)
        assert (found.resource if isinstance(found, Route) else found) == expected
        # Where the rest of a path begins makes no difference.
        assert tree.find(["base", *words], 1, method) == found


HOSTS = ("*", "*.a", "*.b.a", "b.a", "c.b.a", "a")
ASKED = ("a", "b.a", "c.b.a", "d.c.b.a", "x.a", ".a", "z", "")
BASES = ("", "/x", "/x/y", "/y", "/x/y/z")


def covers(host: str, asked: str) -> bool:
    if host.startswith("*"):
        return host == "*" or (asked.endswith(host[1:]) and len(asked) > len(host) - 1)
    return host == asked


def find_api_by_reading_all(
    apis: list[Api], asked: str, words: list[str]
) -> tuple[str, int] | None:
    candidates = [
        (not host.startswith("*"), len(host), len(base.split("/")) - 1, api.name)
        for api in apis
        for host in api.hosts
        for base in api.base_paths
        if covers(host, asked) and base.split("/")[1:] == words[: len(base.split("/")) - 1]
    ]
    if not candidates:
        return None
    *_, depth, name = max(candidates)
    return name, depth


@given(
    places=st.lists(
        st.tuples(st.sampled_from(HOSTS), st.sampled_from(BASES)), unique=True, max_size=20
    ),
    asked=st.sampled_from(ASKED),
    words=st.lists(st.sampled_from(["x", "y", "z", ""]), min_size=1, max_size=4),
)
def test_a_route_table_finds_what_reading_all_apis_finds(
    places: list[tuple[str, str]], asked: str, words: list[str]
) -> None:
    apis = [
        an_api(name=f"api{number}", hosts=(host,), base_paths=(base,))
        for number, (host, base) in enumerate(places)
    ]
    table = RouteTable(apis)
    found = table.find_api(asked, words)
    expected = find_api_by_reading_all(apis, asked, words)
    assert (None if found is None else (found[0].name, found[2])) == expected
    if found is not None:
        assert found[1] is table.resources_of(found[0])
