"""Which API and resource a request is for, and which paths are not even looked at."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauthz.model.catalog import Api, ApiState
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import SecurityScheme
from extauthz.model.request import ApiRequest
from extauthz.model.routes import MAX_SEGMENTS
from extauthz.policy.match import (
    MAX_PATH_BYTES,
    Match,
    NormalisedPath,
    UnnormalisedPath,
    check_route,
    normalise_path,
)
from tests.builders import a_catalog, a_request, a_resource, an_api

REFUSE, REWRITE = UnnormalisedPath.REFUSE, UnnormalisedPath.REWRITE


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a",
        "/a/",
        "/a/b.c/~d",
        "/a/...",
        "/a/.well-known",
        "/a/..b/c..",
        "/a:b@c/!$&'()*+,=",
        "/a%20b",
        "/stra%C3%9Fe",
        "/100%25",
        "/a%2541",
        "/%E2%82%AC",
        "/%3Fa%23b",
        "/%ff",
        "/" + "a" * (MAX_PATH_BYTES - 1),
    ],
)
def test_a_normal_path_stays_as_it_is(path: str) -> None:
    normalised = normalise_path(path)
    assert normalised is not None and not normalised.changed
    assert normalised.path.lower() == path.lower()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("//", "/"),
        ("/.", "/"),
        ("/./", "/"),
        ("/a/.", "/a/"),
        ("/a/./b", "/a/b"),
        ("/a/..", "/"),
        ("/a/../", "/"),
        ("/a/b/..", "/a/"),
        ("/a/b/../..", "/"),
        ("/a/b/../../c", "/c"),
        ("//a", "/a"),
        ("/a//b", "/a/b"),
        ("/a///b//", "/a/b/"),
        ("/a//b/../c", "/a/c"),
        ("/%2e", "/"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/%2E%2E/b", "/b"),
        ("/a/.%2e/b", "/b"),
        ("/a/%2e./b", "/b"),
        ("/%61dmin", "/admin"),
        ("/%41%7e%5F%2d", "/A~_-"),
        ("/a%c3%9f/%2E/b", "/a%C3%9F/b"),
    ],
)
def test_what_only_looks_different_is_brought_into_one_form(path: str, expected: str) -> None:
    assert normalise_path(path) == NormalisedPath(expected, changed=True)


def test_lower_case_digits_of_an_escape_are_no_change() -> None:
    assert normalise_path("/stra%c3%9fe") == NormalisedPath("/stra%C3%9Fe", changed=False)


@pytest.mark.parametrize(
    "path",
    [
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
    ],
)
def test_refuses_a_path_that_two_readers_could_take_differently(path: str) -> None:
    assert normalise_path(path) is None
    request = ApiRequest(method="GET", host="api.example.com", path=path)
    denial = check_route(a_catalog(), request, REWRITE)
    assert isinstance(denial, Denial) and denial.reason is Reason.MALFORMED_REQUEST


PIECES = st.lists(
    st.sampled_from(
        [
            "/", "/", "/", ".", "..", "a", "B", "~", "%2e", "%2E", "%7e", "%61", "%25", "%32",
            "%46", "2", "f", "F", "5C", "%c3%9f", "%C0", "%AF", "%2f", "%5c", "%00", "\\", ";",
            "%3b", "%", "\n", "é", "%20",
        ]
    ),
    max_size=14,
).map(lambda pieces: "/" + "".join(pieces))  # fmt: skip
PATHS = PIECES | st.text(max_size=20).map(lambda text: "/" + text)


@given(PATHS)
@example("/a%25%32%46b")
def test_normalising_twice_is_normalising_once(path: str) -> None:
    once = normalise_path(path)
    if once is not None:
        assert normalise_path(once.path) == NormalisedPath(once.path, changed=False)


@given(PATHS)
def test_the_result_holds_nothing_that_could_be_structure(path: str) -> None:
    normalised = normalise_path(path)
    if normalised is None:
        return
    result = normalised.path
    assert result.isascii() and result.isprintable() and result[0] == "/"
    assert not set(result[1:].removesuffix("/").split("/")) & {"", ".", ".."} or result == "/"
    assert not re.search(r"%2f|%5c|%00|%2e|%25(?:2f|5c|2e|00)|[\\;?# ]", result, re.IGNORECASE)


@given(PATHS)
def test_an_unchanged_path_is_what_the_client_sent(path: str) -> None:
    normalised = normalise_path(path)
    if normalised is not None and not normalised.changed:
        digits = re.sub("%[0-9A-Fa-f]{2}", lambda escape: escape[0].upper(), path)
        assert normalised.path == digits


def remove_dot_segments(path: str) -> str:
    """RFC 3986 section 5.2.4, letter by letter."""
    left, output = path, ""
    while left:
        if left.startswith("/./"):
            left = left[2:]
        elif left == "/.":
            left = "/"
        elif left.startswith("/../"):
            left, output = left[3:], output.rpartition("/")[0]
        elif left == "/..":
            left, output = "/", output.rpartition("/")[0]
        else:
            segment = re.match("/?[^/]*", left)
            assert segment is not None
            output, left = output + segment[0], left[segment.end() :]
    return output


def climbs(path: str) -> bool:
    depth = 0
    for segment in path.split("/")[1:]:
        depth += {"..": -1, ".": 0}.get(segment, 1)
        if depth < 0:
            return True
    return False


@given(
    st.lists(st.sampled_from(["a", "b", "", ".", "..", "c.d"]), min_size=1, max_size=10).map(
        lambda segments: "/" + "/".join(segments)
    )
)
@example("/a//../b")
def test_dots_are_resolved_as_rfc_3986_says(path: str) -> None:
    slashes_last = re.sub("/+", "/", remove_dot_segments(path))
    slashes_first = remove_dot_segments(re.sub("/+", "/", path))
    normalised = normalise_path(path)
    if climbs(path) or climbs(re.sub("/+", "/", path)) or slashes_first != slashes_last:
        assert normalised is None
    else:
        # Two more readings that differ, though their results are the same, may be refused.
        assert normalised is None or normalised.path == slashes_last
    if "//" not in path and not climbs(path):
        assert normalised is not None and normalised.path == slashes_last


@given(st.from_regex(r"/(?:[a-z]|%[0-9a-f]{2}){0,12}", fullmatch=True))
def test_only_escapes_of_unreserved_characters_are_decoded(path: str) -> None:
    normalised = normalise_path(path)
    if normalised is None:
        return
    unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
    expected = path
    for character in unreserved:
        expected = expected.replace(f"%{ord(character):02x}", character)
    assert normalised.path.lower() == remove_dot_segments(expected).lower()


# Routes


def match_of(
    request: ApiRequest, *apis: Api, unnormalised: UnnormalisedPath = REFUSE
) -> Match | Denial:
    return check_route(a_catalog(*apis), request, unnormalised)


def reason_of(found: Match | Denial) -> Reason:
    assert isinstance(found, Denial)
    return found.reason


def test_finds_the_resource() -> None:
    found = match_of(a_request("/httpbin/1.0.0/ip"))
    assert isinstance(found, Match)
    assert (found.route.api.name, found.route.resource.template) == ("HttpbinAPI", "/ip")
    assert found.rewritten_path is None


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


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (ApiState.CREATED, Reason.API_NOT_FOUND),
        (ApiState.RETIRED, Reason.API_NOT_FOUND),
        (ApiState.BLOCKED, Reason.API_BLOCKED),
        (ApiState.PROTOTYPED, None),
        (ApiState.PUBLISHED, None),
        (ApiState.DEPRECATED, None),
    ],
)
def test_goes_by_the_state_of_the_api(state: ApiState, reason: Reason | None) -> None:
    found = match_of(a_request(), an_api(state=state))
    assert (found.reason if isinstance(found, Denial) else None) is reason


def test_refuses_a_path_that_normalising_changes() -> None:
    found = match_of(a_request("/httpbin/1.0.0/x/../ip"))
    assert reason_of(found) is Reason.MALFORMED_REQUEST


def test_sends_the_normalised_path_on_when_so_configured() -> None:
    found = match_of(a_request("/httpbin//1.0.0/x/%2e%2e/%69p"), unnormalised=REWRITE)
    assert isinstance(found, Match)
    assert found.rewritten_path == "/httpbin/1.0.0/ip"


def test_an_escaped_letter_does_not_lead_round_a_more_specific_resource() -> None:
    api = an_api(a_resource("/admin", scopes=("admin",)), a_resource("/{page}"))
    found = match_of(a_request("/httpbin/1.0.0/%61dmin"), api, unnormalised=REWRITE)
    assert isinstance(found, Match) and found.route.resource.scopes == ("admin",)


def test_refuses_a_path_with_too_many_segments() -> None:
    api = an_api(a_resource("/*"))
    deepest = "/httpbin/1.0.0" + "/a" * (MAX_SEGMENTS - 2)
    assert isinstance(match_of(a_request(deepest), api), Match)
    assert reason_of(match_of(a_request(deepest + "/a"), api)) is Reason.MALFORMED_REQUEST


# By name, where the mesh names the API


V1 = an_api(version="1.0.0", base_paths=("/h/1.0.0",), is_default_version=True)
V2 = an_api(a_resource("/ip"), version="2.0.0", base_paths=("/h/2.0.0", "/h"))


@pytest.mark.parametrize("path", ["/ip", "/h/1.0.0/ip"])
def test_a_named_api_takes_its_paths_with_and_without_the_base_path(path: str) -> None:
    found = match_of(a_request(path, context={"extauthz.api": "HttpbinAPI"}), V1, V2)
    assert isinstance(found, Match) and found.route.api is V1


def test_a_named_version_is_taken() -> None:
    context = {"extauthz.api": "HttpbinAPI", "extauthz.version": "2.0.0"}
    found = match_of(a_request("/h/2.0.0/ip", context=context), V1, V2)
    assert isinstance(found, Match) and found.route.api is V2


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
    assert isinstance(found, Match) and found.route.api.name == "HttpbinAPI"


# CORS

PREFLIGHT = {"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}


def test_lets_preflights_through_where_the_api_says_so() -> None:
    request = a_request(method="OPTIONS", headers=PREFLIGHT)
    found = match_of(request, an_api(allow_preflight=True))
    assert isinstance(found, Match)
    assert found.route.resource.security == (SecurityScheme.NONE,)
    assert reason_of(match_of(request, an_api())) is Reason.METHOD_NOT_ALLOWED


def test_a_resource_for_any_method_does_not_keep_preflights_out() -> None:
    request = a_request(method="OPTIONS", headers=PREFLIGHT)
    found = match_of(request, an_api(a_resource("/ip", "*"), allow_preflight=True))
    assert isinstance(found, Match)
    assert found.route.resource.security == (SecurityScheme.NONE,)


def test_a_resource_for_options_answers_preflights_itself() -> None:
    own = a_resource("/ip", "OPTIONS")
    request = a_request(method="OPTIONS", headers=PREFLIGHT)
    found = match_of(request, an_api(own, allow_preflight=True))
    assert isinstance(found, Match) and found.route.resource is own


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
        found = check_route(catalog, request, REFUSE)
        assert isinstance(found, Denial) and found.reason is Reason.MALFORMED_REQUEST


def test_a_host_that_nobody_told_finds_apis_of_any_host_alone() -> None:
    anywhere = an_api(name="Anywhere", hosts=("*",))
    somewhere = an_api(name="Somewhere", hosts=("api.example.com",), base_paths=("/a",))
    catalog = a_catalog(anywhere, somewhere)
    assert isinstance(check_route(catalog, a_request(host=""), REFUSE), Match)
    found = check_route(catalog, a_request("/a/ip", host=""), REFUSE)
    assert isinstance(found, Denial) and found.reason is Reason.API_NOT_FOUND
