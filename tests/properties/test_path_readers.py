"""No reader behind us finds another resource under a path than the one that was decided on.

Random catalogs, random spellings of paths that lead into them, and upstreams that read the same
path in their own way (`tests.properties.path_readers`). ``PATH_TRIES=100000`` tries so many
requests, as ``make fuzz-paths`` does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extauthz.model.apis import Api, BasePath
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial
from extauthz.model.identity import SecurityScheme
from extauthz.model.routing.templates import TemplateError
from extauthz.policy.matching.match import READ_IN_TWO_WAYS, check_route
from tests.builders import a_catalog, a_request, a_resource, an_api
from tests.properties.path_readers import (
    READERS,
    Place,
    Reader,
    Served,
    Template,
    decoding_only,
    find_below,
    find_by_path,
    spell_in_every_way,
)

REQUESTS: Final = 10
"""For each catalog."""
TRIES: Final = int(os.environ.get("PATH_TRIES", "3000"))

RESERVED: Final = "!$&'()*+,:=@"
# Digits of escapes are among them, and what is written with escapes in the catalog itself.
TEXTS: Final = (
    "@me", "$count", "a", "a+b", "(x)", "40", "40me", "0", "F", "f", "c3", "ß", "@", "v1,2",
    "%40me", "%24count", "%c3%9f", "%2540me", "100%25", "%2A", "%7Bid%7D",
)  # fmt: skip
BETWEEN: Final = (":purge", ",", "...", "@", "40", "40:", "F", "f", "0:", "-", "ß", "%3A", "")
VALUES: Final = (
    "7", "a", "user@x.de", "1,2", "x:purge", "a...b", "x@40:", "@", "$", "ß", "ÿ", "@me", "a "
    "b", "%",
    "%40", "x-f", "F", "40me", "me",
)  # fmt: skip
BASE_PATHS: Final = ("/u@1", "", "/u", "/u@1/v+2", "/caf%C3%A9", "/u@1/a")

SPELLINGS: Final = {
    text: spell_in_every_way(text, RESERVED + "ßÿ %") for text in {*VALUES, "@me", "$count"}
}


def spell(text: str) -> st.SearchStrategy[str]:
    """How clients may write a text of a template: as it is, or with other escapes."""
    ways = {text}
    plain = text.replace("%40", "@").replace("%24", "$").replace("%3A", ":")
    ways.update(spell_in_every_way(plain.replace("%c3%9f", "ß"), RESERVED + "ß"))
    return st.sampled_from(sorted(way for way in ways if way.isascii()))


names: st.SearchStrategy[str] = st.sampled_from(
    sorted({way for ways in SPELLINGS.values() for way in ways if way.isascii()})
)
segments: st.SearchStrategy[tuple[str | None, ...]] = st.one_of(
    st.sampled_from(TEXTS).map(lambda text: (text,)),
    st.just((None,)),
    st.sampled_from([text for text in BETWEEN if text]).flatmap(
        lambda text: st.sampled_from([(None, text), (text, None), (None, text, None)])
    ),
    st.tuples(st.just("f"), st.none(), st.sampled_from(BETWEEN), st.none()).map(
        lambda parts: tuple(part for part in parts if part != "")
    ),
)
templates = st.builds(
    Template, st.lists(segments, max_size=2).map(tuple), st.sampled_from([False, False, True])
)
RESOURCES: Final[tuple[dict[str, Any], ...]] = (
    {"security": (SecurityScheme.NONE,)},
    {"security": (SecurityScheme.API_KEY,)},
    {"security": (SecurityScheme.JWT,), "scopes": ("admin",)},
)


@dataclass(frozen=True, slots=True)
class World:
    """A catalog, and the same as the readers have it."""

    catalog: Catalog
    apis: tuple[Api, ...]
    served: tuple[Served, ...]


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """One API or two, with templates that are good together."""
    bases = draw(st.lists(st.sampled_from(BASE_PATHS), min_size=1, max_size=2, unique=True))
    word = draw(st.sampled_from(BasePath))
    apis: list[Api] = []
    served: list[Served] = []
    for number, base_path in enumerate(bases):
        api: Api | None = None
        kept: list[Template] = []
        for template in draw(st.lists(templates, min_size=1, max_size=5)):
            resource = a_resource(template.write(), **RESOURCES[len(kept) % len(RESOURCES)])
            try:
                made = an_api(
                    *(() if api is None else api.resources),
                    resource,
                    name=f"api{number}",
                    base_paths=(base_path,),
                    base_path=word,
                )
                a_catalog(made)
            except TemplateError:
                continue
            api = made
            kept.append(template)
        if api is not None:
            apis.append(api)
            served.append(Served(base_path, tuple(kept)))
    return World(a_catalog(*apis), tuple(apis), tuple(served))


@st.composite
def targets(draw: st.DrawFn, world: World) -> str:
    """A path that leads to a template of the world to some reader, and a few that lead nowhere."""
    served = draw(st.sampled_from(world.served))
    written = [draw(spell(part)) for part in served.base_path.split("/")[1:]]
    if draw(st.integers(0, 5)) == 0:
        written = []
    template = draw(st.sampled_from(served.templates))
    for segment in template.segments:
        parts = [draw(names if part is None else spell(part)) for part in segment]
        written.append("".join(parts))
    if template.takes_rest:
        written += draw(st.lists(names, max_size=1))
    return "/" + "/".join(written)


def places_of(world: World, target: str, reader: Reader, named: int | None) -> set[Place]:
    """Where the services that read like this have the target."""
    if named is None:
        place = find_by_path(world.served, target, reader)
        return set() if place is None else {place}
    word = world.apis[named].base_path
    ways = [
        way for way, only in ((True, BasePath.STRIPPED), (False, BasePath.SENT)) if word != only
    ]
    found = {find_below(world.served, named, target, reader, has_base_path=way) for way in ways}
    return {place for place in found if place is not None}


partial_readers = st.sets(st.sampled_from(RESERVED), min_size=1).map(
    lambda some: Reader(decoding_only("".join(some)), decoding_only("".join(some)))
)


@settings(max_examples=max(1, TRIES // REQUESTS), suppress_health_check=list(HealthCheck))
@given(world=worlds(), partial=partial_readers, data=st.data())
def test_no_reader_finds_another_resource_than_the_one_that_was_decided_on(
    world: World, partial: Reader, data: st.DataObject
) -> None:
    readers = {**READERS, "decoding some characters alone": partial}
    for _ in range(REQUESTS):
        target = data.draw(targets(world))
        named = data.draw(st.sampled_from([None, None, *range(len(world.apis))]))
        context = {} if named is None else {"extauthz.api": f"api{named}"}
        route = check_route(world.catalog, a_request(target, context=context))
        if isinstance(route, Denial):
            continue
        number = world.apis.index(route.api)
        decided = number, route.api.resources.index(route.resource)
        for name, reader in readers.items():
            found = places_of(world, target, reader, named)
            assert found <= {decided}, (target, context, decided, name, found)


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(world=worlds(), data=st.data())
def test_a_path_without_escapes_is_read_in_one_way(world: World, data: st.DataObject) -> None:
    """But where a template is written with escapes that it does not need."""
    target = data.draw(targets(world))
    needless = ("%40", "%24", "%c3", "%3A")
    if "%" in target or any(
        mark in resource.template
        for api in world.apis
        for resource in api.resources
        for mark in needless
    ):
        return
    route = check_route(world.catalog, a_request(target))
    assert route is not READ_IN_TWO_WAYS
    if not isinstance(route, Denial):
        decided = world.apis.index(route.api), route.api.resources.index(route.resource)
        assert places_of(world, target, READERS["literal"], None) == {decided}
