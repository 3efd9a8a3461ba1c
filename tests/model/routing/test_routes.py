"""Which resource and which API a path leads to."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest

from extauthz.model.apis import Api
from extauthz.model.routing import routes
from extauthz.model.routing.route_table import BasePathConflict, RouteTable
from extauthz.model.routing.routes import MAX_STEPS, ResourceTree, Route
from extauthz.model.routing.segments import RequestPath, decode
from extauthz.model.routing.templates import MAX_SEGMENTS, TemplateError, split_template
from tests.builders import a_resource, an_api


def a_tree(*templates: str, method: str = "GET") -> ResourceTree:
    return ResourceTree(an_api(*(a_resource(template, method) for template in templates)))


def found(tree: ResourceTree, path: str, method: str = "GET") -> str | None:
    """The template that a path leads to."""
    route = tree.find(RequestPath(path, decode(path)).texts, 0, method)
    return route.resource.template if isinstance(route, Route) else None


def allowed(tree: ResourceTree, path: str, method: str) -> frozenset[str]:
    route = tree.find(path.split("/")[1:], 0, method)
    assert not isinstance(route, Route)
    return route


PETS = (
    "/",
    "/pets",
    "/pets/",
    "/pets/mine",
    "/pets/{id}",
    "/pets/{id}.json",
    "/pets/report-{id}",
    "/pets/report-{id}.json",
    "/pets/{id}/photos",
    "/pets/mine/tags/{tag}",
    "/pets/*",
    "/files/*",
    "/any/**",
    "/v/*/x",
)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/", "/"),
        ("/pets", "/pets"),
        ("/pets/", "/pets/"),
        ("/pets/mine", "/pets/mine"),
        ("/pets/7", "/pets/{id}"),
        ("/pets/7.json", "/pets/{id}.json"),
        # A name stands for one character at least.
        ("/pets/.json", "/pets/{id}"),
        ("/pets/report-7", "/pets/report-{id}"),
        ("/pets/report-7.json", "/pets/report-{id}.json"),
        # The longer fixed text wins: "report-" before ".json".
        ("/pets/report-.json", "/pets/report-{id}"),
        ("/pets/7/photos", "/pets/{id}/photos"),
        # The literal leads nowhere, so the name is tried.
        ("/pets/mine/photos", "/pets/{id}/photos"),
        ("/pets/mine/tags/a", "/pets/mine/tags/{tag}"),
        ("/pets/mine/tags/a/b", "/pets/*"),
        ("/pets/7/", "/pets/*"),
        ("/files", "/files/*"),
        ("/files/", "/files/*"),
        ("/files/a/b/c", "/files/*"),
        ("/any", "/any/**"),
        ("/any/a/b", "/any/**"),
        ("/v/7/x", "/v/*/x"),
        ("/v//x", None),
        ("/v/7/8/x", None),
        ("/petsome", None),
        ("/Pets", None),
        ("/none", None),
    ],
)
def test_the_most_specific_template_wins(path: str, template: str | None) -> None:
    assert found(a_tree(*PETS), path) == template
    assert found(a_tree(*reversed(PETS)), path) == template


def test_a_name_does_not_stand_for_nothing() -> None:
    tree = a_tree("/pets/{id}")
    assert found(tree, "/pets/7") == "/pets/{id}"
    assert found(tree, "/pets/") is None
    assert found(tree, "/pets") is None


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("/compare/{base}...{head}", "/compare/main...feature", True),
        ("/compare/{base}...{head}", "/compare/v1.0...v1.1...x", True),
        ("/compare/{base}...{head}", "/compare/.....", True),
        ("/compare/{base}...{head}", "/compare/....", False),
        ("/compare/{base}...{head}", "/compare/main..feature", False),
        ("/compare/{base}...{head}", "/compare/...feature", False),
        ("/compare/{base}...{head}", "/compare/main...", False),
        ("/{lat},{lon}", "/39.7,-97.1", True),
        ("/{lat},{lon}", "/39.7,", False),
        ("/{lat},{lon}", "/39.7", False),
        ("/{lat},{lon}", "/a/39.7,-97.1", False),
        ("/x{a}-{b}-{c}y", "/x1-2-3y", True),
        ("/x{a}-{b}-{c}y", "/x-----y", True),
        ("/x{a}-{b}-{c}y", "/x----y", False),
        ("/x{a}-{b}-{c}y", "/x1--3y", False),
        ("/x{a}-{b}-{c}y", "/x1-2y", False),
        ("/{a}aa{b}", "/aaaa", True),
        ("/{a}aa{b}", "/aaa", False),
        ("/{a}{b}", "/xy", True),
        ("/{a}{b}", "/x", False),
    ],
)
def test_names_in_one_segment_stand_round_the_text_between_them(
    template: str, path: str, *, matches: bool
) -> None:
    assert (found(a_tree(template), path) is not None) is matches


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/1,2", "/{a},{b}"),
        ("/1,", "/{a},"),
        ("/1,2.json", "/{a}.json"),
        ("/1-2.json", "/{a}-{b}.json"),
        ("/x1-2", "/x{a}-{b}"),
        ("/1y-x2", "/{a}-x{b}"),
        ("/12", "/{a}{b}"),
        ("/1", "/{a}"),
    ],
)
def test_of_patterns_the_one_with_most_text_wins(path: str, template: str) -> None:
    templates = (
        "/{a},{b}", "/{a},", "/{a}.json", "/{a}-{b}.json", "/x{a}-{b}", "/{a}-x{b}", "/{a}y-{b}",
        "/{a}{b}", "/{a}",
    )  # fmt: skip
    assert found(a_tree(*templates), path) == template
    assert found(a_tree(*reversed(templates)), path) == template


# Cases that other gateways' template trees agree on; "a/*" here takes the rest of a path.
@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/a", "/a"),
        ("/a/b", "/a/b"),
        ("/x/b", "/*/b"),
        ("/a/c", "/a/*"),
        ("/a/b/c", "/a/b/c"),
        ("/a/b/x", "/a/b/*"),
        ("/a/x/c", "/a/*/c"),
        ("/a/b/c/d", "/a/b/*"),
        ("/a/x/c/d", "/a/*/c/d"),
        ("/a/x/x/x", "/a/*"),
        ("/d/d/d", "/d/d/d/**"),
        ("/d/d/d/e/f", "/d/d/d/**"),
        ("/d/c/b/a", None),
        ("/c", None),
    ],
)
def test_segments_decide_from_left_to_right(path: str, template: str | None) -> None:
    tree = a_tree(
        "/a", "/a/*", "/a/b", "/*/a", "/*/b", "/a/b/c", "/a/b/*", "/a/*/c", "/a/*/c/d", "/d/d/d/**"
    )
    assert found(tree, path) == template


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("/v1.0/pets", "/v1X0/pets", False),
        ("/v1.0/pets", "/v1.0/pets", True),
        ("/a+b", "/a+b", True),
        ("/a+b", "/aab", False),
        ("/x|/admin", "/x%7C/admin", True),
        ("/x|/admin", "/anything/admin", False),
        ("/x|/admin", "/xyz", False),
        ("/pets/(", "/pets/(", True),
        ("/foo", "/foo/", False),
        ("/foo/**", "/foo", True),
    ],
)
def test_path_patterns_unescaped(template: str, path: str, *, matches: bool) -> None:
    """Templates are text, whatever a regular expression would make of them."""
    assert (found(a_tree(template), path) is not None) is matches


@pytest.mark.parametrize(
    ("template", "path", "matches"),
    [
        ("/pets", "/admin/pets", False),
        ("/pets", "/petsomething", False),
        ("/pets", "/pets", True),
        ("/products/{id}/sold", "/products/1/sold", True),
        ("/products/{id}/sold", "/x/products/1/sold", False),
        ("/products/{id}/sold", "/products/1/sold/2", False),
        ("/a.b", "/aXb", False),
        ("/a.b", "/a.b", True),
        ("/{id}.json", "/a.json.bak", False),
        ("/{id}.json", "/ajson", False),
    ],
)
def test_mapping_rule_regex_unanchored(template: str, path: str, *, matches: bool) -> None:
    """A template covers the whole path, from its first character to its last."""
    assert (found(a_tree(template), path) is not None) is matches


@pytest.mark.parametrize(
    ("template", "segments"),
    [
        ("/", []),
        ("/a/{b}/c", ["a", "{b}", "c"]),
        ("/straße/{id}", ["stra%C3%9Fe", "{id}"]),
        ("/a b", ["a%20b"]),
        ("/%7euser", ["~user"]),
        ("/caf%c3%a9", ["caf%C3%A9"]),
        ("/a:b@c,d=e$f!g'h(i)+j&k", ["a:b@c,d=e$f!g'h(i)+j&k"]),
        ("/100%25", ["100%25"]),
        ("/%40me/%24count", ["@me", "$count"]),
        ("/a%2cb%2Cc{x%3A}", ["a,b,c{x:}"]),
        ("/%2A/%7Bid%7D", ["%2A", "%7Bid%7D"]),
    ],
)
def test_templates_are_written_with_as_few_escapes_as_there_can_be(
    template: str, segments: list[str]
) -> None:
    assert split_template(template) == segments


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("pets", "starts with a slash: write /pets"),
        ("", "starts with a slash"),
        ("/a//b", "empty segment"),
        ("//", "empty segment"),
        ("/a/../b", "dot segments"),
        ("/a/.", "dot segments"),
        ("/a/%2e%2E/b", "dot segments"),
        ("/a?b", "no part of the path"),
        ("/a#b", "no part of the path"),
        ("/a;b", "semicolons"),
        ("/a\\b", "backslashes"),
        ("/a\0b", "control characters"),
        ("/a%2Fb", "encoded slashes"),
        ("/a%00", "control characters"),
        ("/a%3F", "question marks"),
        ("/a%23", "hashes"),
        ("/a%252Fb", "encoded slashes"),
        ("/a%25%32%46b", "encoded slashes"),
        ("/a%C0%AFb", "can never match"),
        ("/a%zz", "broken escapes"),
        ("/a%4", "broken escapes"),
        ("/a%", "broken escapes"),
        ("/a/**/b", "** must be the last segment"),
        ("/a/b*", "* must be a whole segment"),
        ("/a/{b}*", "* must be a whole segment"),
        ("/{a", "without its other half"),
        ("/a}", "without its other half"),
        ("/}a{", "without its other half"),
        ("/{a}}", "without its other half"),
        ("/{a{b}}", "without its other half"),
        ("/{}", "needs a name"),
        ("/{a}/{a}", "names {a} twice"),
        ("/{a},{a}", "names {a} twice"),
        ("/{a},{}", "needs a name"),
        ("/a" * (MAX_SEGMENTS + 1), f"more than {MAX_SEGMENTS}"),
    ],
)
def test_refuses_templates_that_never_match(template: str, message: str) -> None:
    with pytest.raises(TemplateError) as refused:
        split_template(template)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("/a/{b}", "/a/{c}"),
        ("/a/{b}/c", "/a/*/c"),
        ("/a/*", "/a/**"),
        ("/a/{b}.x", "/a/{c}.x"),
        ("/{a},{b}", "/{x},{y}"),
        ("/%7Ea", "/~a"),
        ("/%40me", "/@me"),
        ("/{id}%3Apurge", "/{x}:purge"),
        ("/stra%c3%9fe", "/straße"),
    ],
)
def test_refuses_templates_that_match_the_same_paths(first: str, second: str) -> None:
    with pytest.raises(TemplateError, match="match the same paths"):
        a_tree(first, second)
    # Their methods tell them apart.
    ResourceTree(an_api(a_resource(first, "GET"), a_resource(second, "POST", "HEAD")))


def test_the_most_specific_template_that_has_the_method_wins() -> None:
    tree = ResourceTree(
        an_api(
            a_resource("/pets/mine", "GET"),
            a_resource("/pets/{id}", "GET", "DELETE"),
            a_resource("/pets/*", "PATCH"),
            a_resource("/*", "*"),
        )
    )
    assert found(tree, "/pets/mine", "GET") == "/pets/mine"
    assert found(tree, "/pets/mine", "DELETE") == "/pets/{id}"
    assert found(tree, "/pets/mine", "PATCH") == "/pets/*"
    assert found(tree, "/pets/mine", "PURGE") == "/*"


def test_allowed_methods_are_those_of_every_template_that_matches() -> None:
    tree = ResourceTree(
        an_api(
            a_resource("/pets/mine", "GET"),
            a_resource("/pets/{id}", "DELETE"),
            a_resource("/pets/{id}.x", "TRACE"),
            a_resource("/pets/*", "PATCH"),
            a_resource("/", "POST"),
        )
    )
    assert allowed(tree, "/pets/mine", "PUT") == {"GET", "HEAD", "DELETE", "PATCH"}
    assert allowed(tree, "/pets/7", "GET") == {"DELETE", "PATCH"}
    assert allowed(tree, "/pets/7.x", "GET") == {"TRACE", "DELETE", "PATCH"}
    assert allowed(tree, "/pets", "GET") == {"PATCH"}
    assert allowed(tree, "/", "GET") == {"POST"}
    assert allowed(tree, "/dogs", "GET") == frozenset()


def test_get_answers_head_unless_head_has_a_resource() -> None:
    tree = ResourceTree(
        an_api(
            a_resource("/a", "GET"),
            a_resource("/b", "GET"),
            a_resource("/{x}", "HEAD"),
            a_resource("/c/d", "POST"),
            a_resource("/c/*", "GET"),
            a_resource("/e", "GET"),
            a_resource("/e", "*", scopes=("any",)),
        )
    )
    assert found(tree, "/a", "HEAD") == "/a"
    assert found(tree, "/x", "HEAD") == "/{x}"
    assert found(tree, "/c/d", "HEAD") == "/c/*"
    head = tree.find(["e"], 0, "HEAD")
    assert isinstance(head, Route) and head.resource.scopes == ()

    own = ResourceTree(an_api(a_resource("/a", "GET"), a_resource("/a", "HEAD", scopes=("h",))))
    route = own.find(["a"], 0, "HEAD")
    assert isinstance(route, Route) and route.resource.scopes == ("h",)


def test_a_named_method_beats_any_method_at_the_same_place() -> None:
    tree = ResourceTree(
        an_api(a_resource("/a", "*", scopes=("any",)), a_resource("/a", "PUT", scopes=("put",)))
    )
    scopes = {}
    for method in ("PUT", "PURGE"):
        route = tree.find(["a"], 0, method)
        assert isinstance(route, Route)
        scopes[method] = route.resource.scopes
    assert scopes == {"PUT": ("put",), "PURGE": ("any",)}


@pytest.mark.parametrize("rest", [[], [""]])
def test_the_base_path_with_or_without_a_slash_is_the_root_resource(rest: list[str]) -> None:
    tree = a_tree("/")
    assert isinstance(tree.find(["pets", "v1", *rest], 2, "GET"), Route)


def overlapping(depth: int) -> list[str]:
    """A literal or a name at each segment, in all combinations."""
    return [
        "/" + "/".join("a" if literal else f"{{p{at}}}" for at, literal in enumerate(choices))
        for choices in product((True, False), repeat=depth)
    ]


@pytest.mark.parametrize("depth", [1, 4, 8])
def test_no_path_takes_more_steps_than_the_tree_says(
    depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    visited: list[int] = []
    find = routes._find

    def counting(node: Any, *rest: Any) -> Route | None:
        visited.append(id(node))
        return find(node, *rest)

    monkeypatch.setattr(routes, "_find", counting)
    tree = a_tree(*overlapping(depth))
    assert tree.steps == 2 ** (depth + 1) - 1
    # Every template matches all but the last segment, and none the last: the worst path.
    assert tree.find(["a"] * depth + ["x"], 0, "GET") == frozenset()
    assert len(visited) == len(set(visited)) <= tree.steps
    # One segment less, and the method is missing everywhere.
    visited.clear()
    assert tree.find(["a"] * depth, 0, "PUT") == frozenset({"GET", "HEAD"})
    assert len(visited) == len(set(visited)) == tree.steps


def test_refuses_templates_that_would_make_one_path_too_dear() -> None:
    with pytest.raises(TemplateError, match=f"overlap in too many ways.* {MAX_STEPS} are"):
        a_tree(*overlapping(10))


def test_many_resources_side_by_side_cost_no_more_steps() -> None:
    few = a_tree("/c0/{id}/items", "/c0/mine")
    many = a_tree(*(f"/c{n}{rest}" for n in range(2000) for rest in ("/{id}/items", "/mine")))
    assert few.steps == many.steps == 5


# Hosts and base paths


def served(table: RouteTable, host: str, path: str) -> tuple[str, int] | None:
    match = table.find_api(host, path.split("/")[1:])
    if match is None:
        return None
    api, tree, rest = match
    assert tree is table.resources_of(api)
    return api.name, rest


def hosted(name: str, *hosts: str, at: tuple[str, ...] = ("",)) -> Api:
    return an_api(name=name, hosts=hosts, base_paths=at)


@pytest.mark.parametrize(
    ("host", "api"),
    [
        ("api.example.com", "exact"),
        ("www.example.com", "example"),
        ("a.b.example.com", "example"),
        ("x.api.example.com", "below-api"),
        ("y.x.api.example.com", "below-api"),
        ("example.com", "any"),
        (".example.com", "any"),
        ("badexample.com", "any"),
        ("localhost", "any"),
        ("", "any"),
    ],
)
def test_the_most_specific_host_wins(host: str, api: str) -> None:
    apis = [
        hosted("any", "*"),
        hosted("example", "*.example.com"),
        hosted("below-api", "*.api.example.com"),
        hosted("exact", "api.example.com"),
    ]
    assert served(RouteTable(apis), host, "/x") == (api, 0)
    assert served(RouteTable(reversed(apis)), host, "/x") == (api, 0)


def test_a_less_specific_host_serves_what_the_more_specific_one_does_not() -> None:
    table = RouteTable(
        [
            hosted("exact", "api.example.com", at=("/a",)),
            hosted("narrow", "*.example.com", at=("/b",)),
            hosted("wide", "*.com", at=("/c", "/b")),
            hosted("any", "*", at=("/d", "/a")),
        ]
    )
    host = "api.example.com"
    assert served(table, host, "/a/x") == ("exact", 1)
    assert served(table, host, "/b") == ("narrow", 1)
    assert served(table, host, "/c") == ("wide", 1)
    assert served(table, host, "/d") == ("any", 1)
    assert served(table, host, "/e") is None
    assert served(table, "other.example.com", "/a") == ("any", 1)
    assert served(table, "example.org", "/b") is None


def test_the_longest_base_path_wins_on_whole_segments() -> None:
    table = RouteTable(
        [
            hosted("root", "*"),
            hosted("pets", "*", at=("/pets",)),
            hosted("pets-v2", "*", at=("/pets/v2", "/animals/v2/x")),
        ]
    )
    assert served(table, "h", "/") == ("root", 0)
    assert served(table, "h", "/petsy") == ("root", 0)
    assert served(table, "h", "/pets") == ("pets", 1)
    assert served(table, "h", "/pets/v3/x") == ("pets", 1)
    assert served(table, "h", "/pets/v2") == ("pets-v2", 2)
    assert served(table, "h", "/pets/v2/x") == ("pets-v2", 2)
    # A base path that is only begun does not hide a shorter one.
    assert served(table, "h", "/animals/v2") == ("root", 0)
    assert served(table, "h", "/animals/v2/x/y") == ("pets-v2", 3)


def test_hosts_without_any_wildcard_serve_nothing_else() -> None:
    table = RouteTable([hosted("exact", "api.example.com")])
    assert served(table, "api.example.com", "/") == ("exact", 0)
    assert served(table, "other.example.com", "/") is None
    assert RouteTable([]).find_api("api.example.com", [""]) is None


def test_refuses_two_apis_at_one_host_and_base_path() -> None:
    first, second = hosted("one", "*", at=("/a",)), hosted("two", "*", at=("/b", "/a"))
    with pytest.raises(BasePathConflict, match=r"one 1\.0\.0 and two 1\.0\.0") as conflict:
        RouteTable([first, second])
    assert (conflict.value.first, conflict.value.second) == (first, second)
