"""HTTPAPISpec patterns as templates: never fewer paths, and exactly as many where it says so."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from extauthz.model.routing.routes import ResourceTree, Route
from mixer_compat.migrate.reading.path_templates import (
    PathTemplate,
    is_within,
    overlap,
    read_regex,
    read_uri_template,
)
from tests.builders import a_resource, an_api

SEGMENTS = st.sampled_from(["a", "b", "c", "a.b", "x:run", "x"])


@pytest.mark.parametrize(
    ("pattern", "template", "is_exact"),
    [
        ("/", "/", True),
        ("/ip", "/ip", True),
        ("/ip/", "/ip", True),
        ("/ip?x=1", "/ip", True),
        ("/*", "/{p1}", True),
        ("/a/*/b/*", "/a/{p1}/b/{p2}", True),
        ("/a/**", "/a/**", True),
        ("/a/{id}", "/a/{id}", True),
        ("/a/{id=*}", "/a/{id}", True),
        ("/{name=shelves/*/books/**}", "/shelves/{name}/books/**", True),
        ("/a/{x}/{x}", "/a/{x}/{p1}", True),
        ("/a/{x}:run", "/a/{x}:run", True),
        ("/a/**/b", "/a/**", False),
        ("/a/**:run", "/a/**", False),
        ("ip", "/ip", False),
        ("/a;b/c", "/**", False),
    ],
)
def test_a_uri_template_is_read(pattern: str, template: str, is_exact: bool) -> None:  # noqa: FBT001  (a column)
    assert read_uri_template(pattern)[0] == PathTemplate(template, is_exact=is_exact)


def test_a_verb_is_met_with_a_colon_and_with_a_slash() -> None:
    assert [each.text for each in read_uri_template("/a:run")] == ["/a:run", "/a/run"]


@pytest.mark.parametrize(
    ("pattern", "template", "is_exact"),
    [
        ("/ip", "/ip", True),
        ("^/ip$", "/ip", True),
        (r"/a\.b/c", "/a.b/c", True),
        ("/a/[^/]+", "/a/{p2}", True),
        (r"/a/\d+/b", "/a/{p2}/b", False),
        ("/a/.*", "/a/**", False),
        ("/a|/b", "/**", False),
        ("/a/(b|c)/d", "/a/**", False),
        ("/a/?", "/a/**", False),
        ("(/a)?/b", "/**", False),
        (".*", "/**", False),
        ("", "/**", False),
    ],
)
def test_a_regex_gets_a_template(pattern: str, template: str, is_exact: bool) -> None:  # noqa: FBT001  (a column)
    assert read_regex(pattern) == PathTemplate(template, is_exact=is_exact)


def fits(templates: list[str], path: str) -> bool:
    tree = ResourceTree(an_api(*(a_resource(each) for each in dict.fromkeys(templates))))
    return isinstance(tree.find(path.split("/")[1:], 0, "GET"), Route)


def google_fits(pattern: list[str], path: list[str]) -> bool:
    """As Envoy's matcher for HTTPAPISpecs: * is one segment, ** at the end is the rest."""
    if pattern == ["**"]:
        return True
    if not pattern or not path:
        return pattern == path
    first = pattern[0]
    return (first in ("*", "{v}") or first == path[0]) and google_fits(pattern[1:], path[1:])


@given(
    st.lists(st.one_of(SEGMENTS, st.sampled_from(["*", "{v}"])), max_size=4),
    st.booleans(),
    st.lists(SEGMENTS, max_size=5),
)
def test_a_template_fits_the_same_paths(pattern: list[str], rest: bool, path: list[str]) -> None:  # noqa: FBT001  (drawn)
    assume(not any(":" in segment for segment in pattern))
    pattern = [*pattern, "**"] if rest else pattern
    templates = [each.text for each in read_uri_template("/" + "/".join(pattern))]
    assert fits(templates, "/" + "/".join(path)) == google_fits(pattern, path)


@given(
    st.lists(
        st.sampled_from(
            ["a", "b", r"a\.b", "[^/]+", r"\d+", r"\w*", ".*", "(a|b)", "a?", "(b/)?", "x{2}", "."]
        ),
        min_size=1,
        max_size=4,
    ),
    st.lists(st.sampled_from(["a", "b", "a.b", "7", "xx", "x"]), min_size=1, max_size=4),
)
def test_the_template_of_a_regex_fits_whatever_the_regex_did(
    parts: list[str], path: list[str]
) -> None:
    pattern, whole = "/" + "/".join(parts), "/" + "/".join(path)
    template = read_regex(pattern)
    if re.fullmatch(pattern, whole):
        assert fits([template.text], whole)
    elif template.is_exact:
        assert not fits([template.text], whole)


@given(
    st.lists(SEGMENTS, max_size=3), st.lists(SEGMENTS, max_size=3), st.lists(SEGMENTS, max_size=4)
)
def test_templates_that_fit_one_path_overlap(
    one: list[str], other: list[str], path: list[str]
) -> None:
    first = PathTemplate("/" + "/".join([*one, "**"]))
    second = PathTemplate("/" + "/".join([*other, "{id}"]))
    whole = "/" + "/".join(path)
    if fits([first.text], whole) and fits([second.text], whole):
        assert overlap(first, second)
        assert overlap(second, first)
    if is_within(first, second) and fits([first.text], whole):
        assert fits([second.text], whole)
    if is_within(second, first) and fits([second.text], whole):
        assert fits([first.text], whole)
    assert not overlap(PathTemplate("/a"), PathTemplate("/b/**"))


@pytest.mark.parametrize(
    ("inner", "outer", "within"),
    [
        ("/a/b", "/a/{x}", True),
        ("/a/{x}", "/a/b", False),
        ("/a/{x}", "/a/**", True),
        ("/a", "/a/**", True),
        ("/a/**", "/a/{x}", False),
        ("/a", "/a/{x}", False),
        ("/a/b", "/a", False),
        ("/a/b", "/a/x{y}", False),
        ("/**", "/**", True),
    ],
)
def test_a_template_may_lie_within_another(inner: str, outer: str, within: bool) -> None:  # noqa: FBT001  (a column)
    assert is_within(PathTemplate(inner), PathTemplate(outer)) is within
