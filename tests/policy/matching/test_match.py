"""Which API and resource a request is for, and which paths are not even looked at."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauthz.model.apis import Api, ApiState, BasePath
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import SecurityScheme
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.model.routing.segments import RequestPath
from extauthz.model.routing.templates import MAX_SEGMENTS
from extauthz.policy.matching.match import MAX_ESCAPES, MAX_PATH_BYTES, check_route, read_path
from tests.builders import a_catalog, a_request, a_resource, an_api


@pytest.mark.parametrize(
    ("path", "texts"),
    [
        ("/", [""]),
        ("/a", ["a"]),
        ("/a/", ["a", ""]),
        ("/a/b.c/~d", ["a", "b.c", "~d"]),
        ("/a/...", ["a", "..."]),
        ("/a/.well-known", ["a", ".well-known"]),
        ("/a/..b/c..", ["a", "..b", "c.."]),
        ("/a:b@c/!$&'()*+,=", ["a:b@c", "!$&'()*+,="]),
        ("/a%20b", ["a b"]),
        ("/%40me/%24count", ["@me", "$count"]),
        ("/%21%24%26%27%28%29%2A%2B%2C%3A%3D%40", ["!$&'()*+,:=@"]),
        ("/a%2c%3dB=3D", ["a,=B=3D"]),
        ("/stra%C3%9Fe/stra%c3%9fe", ["straße", "straße"]),
        ("/%E2%82%AC", ["€"]),
        ("/100%25", ["100%"]),
        ("/a%2541", ["a%41"]),
        ("/" + "%40" * MAX_ESCAPES, ["@" * MAX_ESCAPES]),
        ("/%7Bid%7D", ["{id}"]),
        ("/%ff%20", ["\udcff "]),
        ("/" + "a" * (MAX_PATH_BYTES - 1), ["a" * (MAX_PATH_BYTES - 1)]),
        ("/" + "%C3%A9" * (MAX_ESCAPES // 2), ["é" * (MAX_ESCAPES // 2)]),
        ("/" + "%E6%97%A5" * 600, ["日" * 600]),
        ("/" + "%e6%97%a5" * 599 + "/a%20b", ["日" * 599, "a b"]),
        ("/" + "%F0%9F%98%80" * 450 + "@", ["😀" * 450 + "@"]),
        ("/a" * 128, ["a"] * 128),
    ],
)
def test_a_path_in_normal_form_is_read(path: str, texts: list[str]) -> None:
    read = read_path(path)
    assert isinstance(read, RequestPath)
    assert read.texts == texts and read.has_escapes is ("%" in path)


NOT_IN_NORMAL_FORM = [
    "//", "/.", "/./", "/a/.", "/a/./b", "/a/..", "/a/../", "/a/b/..", "/a/b/../..",
    "/a/b/../../c", "//a", "/a//b", "/a//", "/a///b//", "/a//b/../c", "/%2e", "/a/%2e%2e/b",
    "/a/%2E%2E/b", "/a/.%2e/b", "/a/%2e./b", "/%61dmin", "/%41%7e%5F%2d", "/a%c3%9f/%2E/b",
    "/a%37b", "/..", "/../a", "/a/../..", "/%2e%2e/a", "/./../a", "/a//../b",
]  # fmt: skip
"""Every reader finds the same in them, or should; but not all do, and nobody has to write them."""
READ_DIFFERENTLY = [
    "",
    "*",
    "a",
    "a/b",
    "http://host/a",
    "/..",
    "/../a",
    "/a/../..",
    "/a/../../b",
    "/%2e%2e/a",
    "/a/%2E%2e/%2e%2E/b",
    "/./../a",
    "/a//../b",
    "/a//b/../../c",
    "//..",
    "/a/%2f..",
    "/a;x=1/b",
    "/a;/../b",
    "/a/..;/b",
    "/a%3bb",
    "/a%3B",
    "/a%2fb",
    "/a%2Fb",
    "/a\\b",
    "/a%5cb",
    "/a%5Cb",
    "/..\\a",
    "/a\0b",
    "/a%00",
    "/a%0d%0ab",
    "/a%1F",
    "/a%7f",
    "/a\nb",
    "/a\n",
    "/a b",
    "/a\tb",
    '/a"b',
    "/a<b>",
    "/a|b",
    "/a{b}",
    "/a?b",
    "/a#b",
    "/%",
    "/a%",
    "/a%2",
    "/a%zz",
    "/a%2g",
    "/a%%32f",
    "/a%u002f",
    "/a%252fb",
    "/a%252Fb",
    "/%252e%252e/a",
    "/a%255cb",
    "/a%253bb",
    "/a%2500",
    "/a%250a",
    "/a%25%32%46b",
    "/a%25%32fb",
    "/a%252%46b",
    "/%25%32%65%25%32%65/a",
    "/a%c0%afb",
    "/%C0%AE%C0%AE/a",
    "/a%C1%9Cb",
    "/a%e0%80%afb",
    "/a%F0%80%80%AF",
    "/straße",
    "/a\uff0fb",
    "/a\u2028",
    "/a\ud800",
    "/" + "a" * MAX_PATH_BYTES,
    "/" + "%7e" * MAX_PATH_BYTES,
    "/a" * MAX_PATH_BYTES,
    "/a" * 129,
    "/" + "%40" * (MAX_ESCAPES + 1),
    "/%40" + "%E6%97%A5" * (MAX_ESCAPES // 3),
    "/" + "%E6%97" * MAX_ESCAPES,
    "/" + "%ED%A0%80" * MAX_ESCAPES,
    "/" + "%E6%97%A5" * MAX_ESCAPES + "%2Fa",
    "/" + "%E6%97%A5" * MAX_ESCAPES + "/../a",
    "/" + "%E6%97%A5" * 601,
]


@pytest.mark.parametrize("path", [*NOT_IN_NORMAL_FORM, *READ_DIFFERENTLY])
def test_refuses_a_path_that_two_readers_could_take_differently(path: str) -> None:
    assert isinstance(read_path(path), Denial)
    request = ApiRequest(method="GET", host="api.example.com", path=path)
    denial = check_route(a_catalog(), request)
    assert isinstance(denial, Denial) and denial.reason is Reason.MALFORMED_REQUEST


@pytest.mark.parametrize("path", NOT_IN_NORMAL_FORM)
def test_says_what_the_normal_form_is(path: str) -> None:
    denial = read_path(path)
    assert isinstance(denial, Denial) and "normal form" in denial.detail


PIECES = st.lists(
    st.sampled_from(
        [
            "/", "/", "/", ".", "..", "a", "B", "~", "%2e", "%2E", "%7e", "%61", "%25", "%32",
            "%46", "2", "f", "F", "5C", "%c3%9f", "%C0", "%AF", "%2f", "%5c", "%00", "\\", ";",
            "%3b", "%", "\n", "é", "%20", "%40", "@", "=", "%3d", "%3F", "#",
        ]
    ),
    max_size=14,
).map(lambda pieces: "/" + "".join(pieces))  # fmt: skip
PATHS = PIECES | st.text(max_size=20).map(lambda text: "/" + text)


@given(PATHS)
@example("/a%25%32%46b")
def test_what_is_read_holds_nothing_that_could_be_structure(path: str) -> None:
    read = read_path(path)
    if isinstance(read, Denial):
        return
    for text in (*read.texts, *map(unquote, read.texts)):
        assert not re.search(r"[\x00-\x1f/\\;?#\x7f]", text)
        assert text not in (".", "..")
    assert "" not in read.texts[:-1]


@given(PATHS)
@example("/=3D%3D%C3%9F%ff")
def test_what_is_read_is_what_a_decoder_of_urls_reads(path: str) -> None:
    read = read_path(path)
    if not isinstance(read, Denial):
        assert read.texts == unquote(path, errors="surrogateescape").split("/")[1:]


@given(st.from_regex(r"/(?:[a-z/]|%[0-9a-fA-F]{2}){0,12}", fullmatch=True))
def test_a_path_that_normalising_would_change_is_refused(path: str) -> None:
    unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    if any(f"%{ord(character):02x}" in path.lower() for character in unreserved):
        assert isinstance(read_path(path), Denial)
    if posixpath.normpath(path) != path.rstrip("/") and path != "/":
        assert isinstance(read_path(path), Denial)


# Routes


def match_of(request: ApiRequest, *apis: Api) -> Route | Denial:
    return check_route(a_catalog(*apis), request)


def reason_of(found: Route | Denial) -> Reason:
    assert isinstance(found, Denial)
    return found.reason


def test_finds_the_resource() -> None:
    found = match_of(a_request("/httpbin/1.0.0/ip"))
    assert isinstance(found, Route)
    assert (found.api.name, found.resource.template) == ("HttpbinAPI", "/ip")


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (a_request("/other"), Reason.API_NOT_FOUND),
        (a_request("/HTTPBIN/1.0.0/ip"), Reason.API_NOT_FOUND),
        (a_request("/httpbin/1.0.0/nothing"), Reason.RESOURCE_NOT_FOUND),
        (a_request("/httpbin/1.0.0"), Reason.RESOURCE_NOT_FOUND),
        (a_request(method="DELETE"), Reason.METHOD_NOT_ALLOWED),
        (a_request(method="get"), Reason.METHOD_NOT_ALLOWED),
        (a_request(method="OPTIONS"), Reason.METHOD_NOT_ALLOWED),
    ],
)
def test_says_why_nothing_is_served(request_: ApiRequest, reason: Reason) -> None:
    assert reason_of(match_of(request_)) is reason


def test_names_the_methods_that_are_taken() -> None:
    api = an_api(a_resource("/ip", "PUT", "GET"))
    found = match_of(a_request(method="DELETE"), api)
    assert isinstance(found, Denial) and found.allowed_methods == ("GET", "HEAD", "PUT")


STATES = {
    ApiState.CREATED: Reason.API_NOT_FOUND,
    ApiState.RETIRED: Reason.API_NOT_FOUND,
    ApiState.BLOCKED: Reason.API_BLOCKED,
    ApiState.PROTOTYPED: None,
    ApiState.PUBLISHED: None,
    ApiState.DEPRECATED: None,
}


@pytest.mark.parametrize("state", ApiState)
def test_goes_by_the_state_of_the_api(state: ApiState) -> None:
    found = match_of(a_request(), an_api(state=state))
    assert (found.reason if isinstance(found, Denial) else None) is STATES[state]


def test_refuses_a_path_that_normalising_changes() -> None:
    found = match_of(a_request("/httpbin/1.0.0/x/../ip"))
    assert reason_of(found) is Reason.MALFORMED_REQUEST


def test_refuses_a_path_with_too_many_segments() -> None:
    api = an_api(a_resource("/*"))
    deepest = "/httpbin/1.0.0" + "/a" * (MAX_SEGMENTS - 2)
    assert isinstance(match_of(a_request(deepest), api), Route)
    assert reason_of(match_of(a_request(deepest + "/a"), api)) is Reason.MALFORMED_REQUEST


# Escapes, which upstreams read in different ways

REFUSED = "malformed_request"
SPELLED = an_api(
    a_resource("/@me"),
    a_resource("/{id}"),
    a_resource("/{id}:purge"),
    a_resource("/items/$count"),
    a_resource("/pub/{id}"),
    a_resource("/pub/@admin"),
    a_resource("/{lat},{lon}/*"),
    a_resource("/@all/x"),
    a_resource("/straße/x"),
    a_resource("/{town}/x"),
    a_resource("/{code}F/y"),
    a_resource("/100%25/z"),
    a_resource("/{share}/z"),
    a_resource("/%7Bid%7D/w"),
    a_resource("/%2A/w"),
    version="v+1",
    base_paths=("/u@1", "/u@1/v+1"),
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/@me", "/@me"),
        ("/%40me", REFUSED),
        ("/user%40example.com", "/{id}"),
        ("/a%2Bb%3Dc%3A", "/{id}"),
        ("/%40", "/{id}"),
        ("/caf%c3%a9%20", "/{id}"),
        ("/7:purge", "/{id}:purge"),
        ("/7%3Apurge", REFUSED),
        ("/7%3apurge", REFUSED),
        ("/user%40example.com:purge", "/{id}:purge"),
        ("/user%40example.com%3Apurge", REFUSED),
        ("/items/$count", "/items/$count"),
        ("/items/%24count", "/items/$count"),
        ("/pub/@admin", "/pub/@admin"),
        ("/pub/%40admin", REFUSED),
        ("/pub/%2540admin", REFUSED),
        ("/pub/%40%40admin", "/pub/{id}"),
        ("/1,2/a", "/{lat},{lon}/*"),
        ("/1%2C2/a", "/{lat},{lon}/*"),
        ("/1%2C2/x", REFUSED),
        ("/1,2/x", "/{lat},{lon}/*"),
        ("/@all/x", "/@all/x"),
        ("/%40all/x", REFUSED),
        ("/stra%C3%9Fe/x", "/straße/x"),
        ("/stra%c3%9fe/x", REFUSED),
        ("/%C3%9F/y", "/{code}F/y"),
        ("/100%25/z", "/100%25/z"),
        ("/100%2525/z", REFUSED),
        ("/50%25/z", "/{share}/z"),
        ("/%7bid%7D/w", "/%7Bid%7D/w"),
        ("/%2A/w", "/%2A/w"),
        ("/*/w", "/%2A/w"),
        ("/..%23", REFUSED),
        ("/a%3Fb", REFUSED),
    ],
)
@pytest.mark.parametrize("base", ["/u@1", "/u@1/v+1"])
def test_every_reading_of_a_path_leads_to_one_resource(base: str, path: str, found: str) -> None:
    for method in ("GET", "HEAD"):
        route = match_of(a_request(base + path, method=method), SPELLED)
        if isinstance(route, Denial):
            assert route.reason.value == found
        else:
            assert route.resource.template == found


@pytest.mark.parametrize("base", ["/u%401", "/u%401/v+1", "/u@1/v%2B1"])
def test_a_base_path_may_be_escaped_where_nothing_else_is_served(base: str) -> None:
    route = match_of(a_request(base + "/@me"), SPELLED)
    assert isinstance(route, Route) and route.resource.template == "/@me"


@pytest.mark.parametrize(
    ("hosts", "base", "path", "found"),
    [
        (("*",), "", "/u@1/@me", "HttpbinAPI"),
        (("*",), "", "/u%401/@me", REFUSED),
        (("*",), "", "/u%25401/@me", REFUSED),
        (("*",), "", "/u%402/@me", "Other"),
        (("*",), "/u@1/v+1/x", "/u%401/v+1/x/@me", "Other"),
        (("*",), "/u@1/v+1/x", "/u@1/v%2B1/x/@me", REFUSED),
        (("*.example.com",), "", "/u%401/@me", "Other"),
        (("*.example.com",), "/u@1/v+1", "/u@1/v%2B1/@me", REFUSED),
        (("*.example.org",), "", "/u%401/@me", "HttpbinAPI"),
    ],
)
def test_every_reading_of_a_base_path_leads_to_one_api(
    hosts: tuple[str, ...], base: str, path: str, found: str
) -> None:
    other = an_api(a_resource("/*"), name="Other", base_paths=(base,), hosts=hosts)
    route = match_of(a_request(path), SPELLED, other)
    if isinstance(route, Denial):
        assert route.reason.value == found
    else:
        assert route.api.name == found


@pytest.mark.parametrize("template", ["/%40me", "/%40me/*", "/%40{name}", "/stra%c3%9fe"])
def test_who_spells_a_template_with_needless_escapes_is_not_guessed_at(template: str) -> None:
    paths = ["/@me", "/%40me", "/stra%C3%9Fe", "/stra%c3%9fe"]
    fitting = paths[:2] if "me" in template else paths[2:]
    alone = an_api(a_resource(template), base_paths=("",))
    beside = an_api(a_resource(template), a_resource("/{id}"), base_paths=("",))
    for path in paths:
        route = match_of(a_request(path), alone)
        assert isinstance(route, Route) is (path in fitting)
        route = match_of(a_request(path), beside)
        if path in fitting:
            assert isinstance(route, Denial) and route.reason is Reason.MALFORMED_REQUEST
        else:
            assert isinstance(route, Route) and route.resource.template == "/{id}"


def test_escapes_do_not_hide_what_a_method_may_do() -> None:
    api = an_api(a_resource("/@me", "PUT"), a_resource("/{id}", "GET"), base_paths=("",))
    found = match_of(a_request("/%40me", method="DELETE"), api)
    assert isinstance(found, Denial) and found.allowed_methods == ("GET", "HEAD", "PUT")
    for method, template in (("PUT", "/@me"), ("GET", "/{id}")):
        route = match_of(a_request("/%40me", method=method), api)
        assert isinstance(route, Route) and route.resource.template == template


# By name, where the mesh names the API


V1 = an_api(version="1.0.0", base_paths=("/h/1.0.0",), is_default_version=True)
V2 = an_api(a_resource("/ip"), version="2.0.0", base_paths=("/h/2.0.0", "/h"))


@pytest.mark.parametrize("path", ["/ip", "/h/1.0.0/ip"])
def test_a_named_api_takes_its_paths_with_and_without_the_base_path(path: str) -> None:
    found = match_of(a_request(path, context={"extauthz.api": "HttpbinAPI"}), V1, V2)
    assert isinstance(found, Route) and found.api is V1


PETS = an_api(
    a_resource("/{x}", security=(SecurityScheme.NONE,)),
    a_resource("/pets/{id}"),
    a_resource("/all/*"),
    a_resource("/items", "PUT"),
    name="Pets",
    version="v1",
    base_paths=("/pets/v1", "/pets"),
    is_default_version=True,
)
TEMPLATE_AS_SENT: dict[str, dict[str, str]] = {
    "/pets/7": {"sent": "/{x}", "stripped": "/pets/{id}", "either": REFUSED},
    "/pets/v1": {"sent": "-", "stripped": "/pets/{id}", "either": "/pets/{id}"},
    "/pets/v1/7": {"sent": "/{x}", "stripped": "-", "either": "/{x}"},
    "/pets/v1/pets/7": {"sent": "/pets/{id}", "stripped": "-", "either": "/pets/{id}"},
    "/pets/pets/7": {"sent": "/pets/{id}", "stripped": "-", "either": "/pets/{id}"},
    "/pets/all/7": {"sent": "/all/*", "stripped": "-", "either": "/all/*"},
    "/all/7": {"sent": "-", "stripped": "/all/*", "either": "/all/*"},
    "/7": {"sent": "-", "stripped": "/{x}", "either": "/{x}"},
    "/pets/items": {"sent": "/{x}", "stripped": "/pets/{id}", "either": REFUSED},
    "/p%65ts/7": {"sent": REFUSED, "stripped": REFUSED, "either": REFUSED},
}


@pytest.mark.parametrize("said_by", ["route", "catalog"])
@pytest.mark.parametrize("word", ["sent", "stripped", "either"])
@pytest.mark.parametrize("path", TEMPLATE_AS_SENT)
def test_whether_a_path_has_the_base_path_is_not_the_callers_choice(
    path: str, word: str, said_by: str
) -> None:
    context = {"extauthz.api": "Pets"}
    api = PETS
    if said_by == "route":
        context["extauthz.base_path"] = word
        api = replace(PETS, base_path=BasePath.SENT)
    else:
        api = replace(PETS, base_path=BasePath(word))
    found = match_of(a_request(path, context=context), api)
    told = {"-": "resource_not_found"}.get(
        TEMPLATE_AS_SENT[path][word], TEMPLATE_AS_SENT[path][word]
    )
    assert (found.reason.value if isinstance(found, Denial) else found.resource.template) == told


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/u%401/pub/7", "/pub/{id}"),
        ("/u%401/pub/%40admin", REFUSED),
        ("/u@1/v%2B1/@me", "/@me"),
        ("/u%401/v+1/@me", "/@me"),
        ("/u@1/@me", "/@me"),
        ("/u@1/%40me", REFUSED),
        ("/%40me", REFUSED),
        ("/pub/@admin", "/pub/@admin"),
        # With the base path it is an id, without it a town's.
        ("/u%401/x", REFUSED),
    ],
)
def test_escapes_in_the_path_of_a_named_api_are_read_in_every_way(path: str, found: str) -> None:
    context = {"extauthz.api": SPELLED.name, "extauthz.version": SPELLED.version}
    route = match_of(a_request(path, context=context), SPELLED)
    assert (route.reason.value if isinstance(route, Denial) else route.resource.template) == found


def test_a_word_of_the_route_that_is_not_known_serves_nothing() -> None:
    context = {"extauthz.api": "Pets", "extauthz.base_path": "maybe"}
    assert reason_of(match_of(a_request("/7", context=context), PETS)) is Reason.API_NOT_FOUND


@pytest.mark.parametrize(
    ("context", "path", "word", "found"),
    [
        ("/pets", "/7", "either", "/{x}"),
        ("/pets", "/pets/7", "either", REFUSED),
        ("/pets", "/pets/7", "sent", "/{x}"),
        ("/pets", "/pets/7", "stripped", "/pets/{id}"),
        ("/pets", "/7", "sent", "api_not_found"),
        ("/pets", "/pets/pets/7", "either", "/pets/{id}"),
        ("/pets/v1", "/7", "either", "/{x}"),
        ("/pets/v1", "/pets/v1/7", "either", "/{x}"),
        ("/pets/v1", "/pets/7", "either", "/pets/{id}"),
        ("/pets", "/v1/7", "either", "/{x}"),
        ("/pets", "/7%3F", "either", REFUSED),
        ("/pets/..", "/7", "either", REFUSED),
        ("/other", "/7", "either", "api_not_found"),
    ],
)
def test_a_base_path_beside_the_path_stands_in_front_of_it(
    context: str, path: str, word: str, found: str
) -> None:
    api = replace(PETS, base_path=BasePath(word))
    route = match_of(a_request(path, context={"extauthz.context": context}), api)
    assert (route.reason.value if isinstance(route, Denial) else route.resource.template) == found


def test_a_named_version_is_taken() -> None:
    context = {"extauthz.api": "HttpbinAPI", "extauthz.version": "2.0.0"}
    found = match_of(a_request("/h/2.0.0/ip", context=context), V1, V2)
    assert isinstance(found, Route) and found.api is V2


@pytest.mark.parametrize(
    "context",
    [
        {"extauthz.api": "Other"},
        {"extauthz.api": ""},
        {"extauthz.api": "HttpbinAPI", "extauthz.version": "3"},
    ],
)
def test_a_name_that_is_not_known_is_no_api(context: dict[str, str]) -> None:
    request = a_request("/h/1.0.0/ip", context=context)
    assert reason_of(match_of(request, V1, V2)) is Reason.API_NOT_FOUND


def test_a_client_cannot_name_the_api() -> None:
    request = a_request(headers={"extauthz.api": "Other", "x-extauthz-api": "Other"})
    found = match_of(request, an_api(), an_api(name="Other", base_paths=("/o",)))
    assert isinstance(found, Route) and found.api.name == "HttpbinAPI"


# CORS

PREFLIGHT = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}


def test_lets_preflights_through_where_the_api_says_so() -> None:
    request = a_request(method="OPTIONS", headers=PREFLIGHT)
    found = match_of(request, an_api(allow_preflight=True))
    assert isinstance(found, Route)
    assert found.resource.security == (SecurityScheme.NONE,)
    assert reason_of(match_of(request, an_api())) is Reason.METHOD_NOT_ALLOWED


def test_a_resource_for_any_method_does_not_keep_preflights_out() -> None:
    request = a_request(method="OPTIONS", headers=PREFLIGHT)
    found = match_of(request, an_api(a_resource("/ip", "*"), allow_preflight=True))
    assert isinstance(found, Route)
    assert found.resource.security == (SecurityScheme.NONE,)


def test_a_resource_for_options_answers_preflights_itself() -> None:
    own = a_resource("/ip", "OPTIONS")
    request = a_request(method="OPTIONS", headers=PREFLIGHT)
    found = match_of(request, an_api(own, allow_preflight=True))
    assert isinstance(found, Route) and found.resource is own


@pytest.mark.parametrize(
    "request_",
    [
        a_request(method="OPTIONS"),
        a_request(method="OPTIONS", headers={"Origin": "https://a.example"}),
        a_request(method="OPTIONS", headers={"Access-Control-Request-Method": "GET"}),
        a_request(method="DELETE", headers=PREFLIGHT),
    ],
)
def test_what_only_looks_like_a_preflight_is_not_let_through(request_: ApiRequest) -> None:
    found = match_of(request_, an_api(allow_preflight=True))
    assert reason_of(found) is Reason.METHOD_NOT_ALLOWED


def test_a_preflight_needs_a_resource() -> None:
    request = a_request("/httpbin/1.0.0/no", method="OPTIONS", headers=PREFLIGHT)
    assert reason_of(match_of(request, an_api(allow_preflight=True))) is Reason.RESOURCE_NOT_FOUND


def test_what_names_no_host_is_no_apis_not_even_one_of_any_host() -> None:
    catalog = a_catalog(an_api(hosts=("*",)))
    named = {"extauthz.api": "HttpbinAPI", "extauthz.version": "1.0.0"}
    for context in ({}, named):
        request = a_request(host=None, context=context)
        found = check_route(catalog, request)
        assert isinstance(found, Denial) and found.reason is Reason.MALFORMED_REQUEST


def test_a_host_that_nobody_told_finds_apis_of_any_host_alone() -> None:
    anywhere = an_api(name="Anywhere", hosts=("*",))
    somewhere = an_api(name="Somewhere", hosts=("api.example.com",), base_paths=("/a",))
    catalog = a_catalog(anywhere, somewhere)
    assert isinstance(check_route(catalog, a_request(host="")), Route)
    found = check_route(catalog, a_request("/a/ip", host=""))
    assert isinstance(found, Denial) and found.reason is Reason.API_NOT_FOUND
