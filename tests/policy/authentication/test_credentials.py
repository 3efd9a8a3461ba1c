"""Where a credential is found, and when it is not a single one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.errors import MalformedRequest
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Credential, Place, PlaceKind, Secret, SecurityScheme
from extauthz.model.request import ApiRequest, Headers
from extauthz.policy.authentication.credentials import (
    AMBIGUOUS,
    BLANK,
    INVALID,
    CredentialPlaces,
    find_api_key,
    find_bearer,
)
from tests.builders import a_request, a_resource, an_api

AUTHORIZATION = Place(PlaceKind.HEADER, "authorization")
HEADER = Place(PlaceKind.HEADER, "x-key")
QUERY = Place(PlaceKind.QUERY, "key")
COOKIE = Place(PlaceKind.COOKIE, "key")
ALL = (HEADER, QUERY, COOKIE)

Fields = dict[str, str] | list[tuple[str, str]]


def say(found: Credential | Denial | None) -> str | None:
    """The secret, "ambiguous", or None, also for what is no credential."""
    match found:
        case Credential():
            return found.secret.reveal()
        case Denial() if found is BLANK:
            return None
        case Denial():
            assert found is AMBIGUOUS and found.reason is Reason.AMBIGUOUS_CREDENTIALS
            return "ambiguous"
        case None:
            return None


def key_in(headers: Fields, query: str = "", *places: Place) -> str | None:
    return say(find_api_key(a_request(f"/?{query}", headers=headers), places or ALL))


def bearer_in(headers: Fields, query: str = "", *places: Place) -> str | None:
    return say(find_bearer(a_request(f"/?{query}", headers=headers), places or (AUTHORIZATION,)))


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "", None),
        ({"X-Key": "k"}, "", "k"),
        ({}, "key=k", "k"),
        ({"Cookie": "key=k"}, "", "k"),
        ({"x-key": " k "}, "", "k"),
        # Nothing is there
        ({"x-key": ""}, "", None),
        ({"x-key": "  "}, "", None),
        ({}, "key=", None),
        ({}, "key", None),
        ({}, "keyk", None),
        ({"cookie": "key="}, "", None),
        ({"cookie": 'key=""'}, "", None),
        ({"x-other": "k"}, "KEY=k&akey=k&keys=k", None),
        ({"cookie": "KEY=k; akey=k; keys=k"}, "", None),
        ({"x-key": ""}, "key=k", "k"),
        # Twice in one place
        ([("x-key", "k"), ("X-Key", "k")], "", "ambiguous"),
        ([("x-key", "k"), ("x-key", "")], "", "ambiguous"),
        ({"x-key": "k,k"}, "", "ambiguous"),
        ({"x-key": "k, k2"}, "", "ambiguous"),
        ({"x-key": ",k"}, "", "ambiguous"),
        ({}, "key=k&key=k2", "ambiguous"),
        ({}, "key=k&key=k", "ambiguous"),
        ({}, "key=&key=k", "ambiguous"),
        ({}, "key&key=k", "ambiguous"),
        ({"cookie": "key=k; key=k2"}, "", "ambiguous"),
        ([("cookie", "key=k"), ("cookie", "key=k2")], "", "ambiguous"),
        # In two places
        ({"x-key": "k"}, "key=k", "k"),
        ({"x-key": "k", "cookie": "key=k"}, "key=k", "k"),
        ({"x-key": "k"}, "key=k2", "ambiguous"),
        ({"x-key": "k", "cookie": "key=k2"}, "", "ambiguous"),
        ({"cookie": "key=k2"}, "key=k", "ambiguous"),
        ({"x-key": "k"}, "key=K", "ambiguous"),
        ({"x-key": "k"}, "key=", "k"),
        # A name counts however it is spelled, a value as it is meant
        ({}, "%6Bey=k", "k"),
        ({}, "%6bey=k", "k"),
        ({}, "%6B%65%79=k", "k"),
        ({}, "%256Bey=k", None),
        ({}, "k%65y=stolen&key=k", "ambiguous"),
        ({"x-key": "k"}, "k%65y=stolen", "ambiguous"),
        ({"x-key": "k"}, "%6Bey", "k"),
        ({}, "%4Bey=k", None),
        ({}, "key=a%2Bb%20c+d%3D", "a+b c d="),
        ({}, "key=a=b", "a=b"),
        ({}, "key=%zz", "%zz"),
        ({}, "key=%ff", "\ufffd"),
        ({}, "key=k%2Ck2", "k,k2"),
        ({}, "key=k,k2", "k,k2"),
        ({}, "a=1&key=k&b=2", "k"),
        ({}, "&&key=k&", "k"),
        # Some readers part parameters by semicolons, too
        ({}, "a;key=k", "ambiguous"),
        ({}, "a=1;k%65y=k&b", "ambiguous"),
        ({"x-key": "k"}, "a=1;key=k", "ambiguous"),
        ({}, "key;a=1", "ambiguous"),
        ({}, "key=k;a=1", "k;a=1"),
        # Cookies
        ({"cookie": "a=1; k%65y=k"}, "", "k"),
        ({"cookie": "key=k; %6Bey=k2"}, "", "ambiguous"),
        ({"cookie": "key=k, a=1"}, "", "ambiguous"),
        ({"cookie": "a=1, key=k"}, "", "ambiguous"),
        ({"x-key": "k", "cookie": "a=1,key=k"}, "", "ambiguous"),
        ({"cookie": "a=1; key=k; b=2"}, "", "k"),
        ({"cookie": "a=1;key=k;b=2"}, "", "k"),
        ({"cookie": "key=a=b"}, "", "a=b"),
        ({"cookie": 'key="k"'}, "", "k"),
        ({"cookie": "key"}, "", None),
        ({"cookie": "key =k"}, "", "k"),
        ({"cookie": "key= k"}, "", "k"),
        ([("cookie", "a=1"), ("cookie", "key=k")], "", "k"),
    ],
)
def test_finds_an_api_key(headers: Fields, query: str, expected: str | None) -> None:
    assert key_in(headers, query) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("x-key", "a,b")], "a,b"),
        ([("x-key", "a, b")], "a, b"),
        ([("x-key", "a"), ("x-key", "b")], "ambiguous"),
        ([("cookie", "key=a,b")], "a,b"),
        ([("cookie", "a=1, key=k")], "ambiguous"),
        ([("authorization", "Bearer a,b")], "a,b"),
    ],
)
def test_a_key_may_hold_a_comma_where_fields_come_apart(
    fields: list[tuple[str, str]], expected: str
) -> None:
    request = a_request(headers=Headers(fields, are_apart=True))
    assert say(find_api_key(request, (AUTHORIZATION, *ALL))) == expected


def test_a_token_holds_no_comma_in_any_case() -> None:
    fields = [("authorization", "Bearer a, Bearer b")]
    for headers in (Headers(fields), Headers(fields, are_apart=True)):
        assert say(find_bearer(a_request(headers=headers), (AUTHORIZATION,))) == "ambiguous"


@pytest.mark.parametrize("place", [HEADER, COOKIE])
def test_a_credential_of_more_characters_than_any_has_is_not_known(place: Place) -> None:
    def send(length: int) -> ApiRequest:
        value = "k" * length
        return a_request(
            headers={"x-key": value} if place is HEADER else {"cookie": f"key={value}"}
        )

    for find in (find_api_key, find_bearer):
        assert isinstance(find(send(16_000), (place,)), Credential)
    for find in (find_api_key, find_bearer):
        if place is HEADER:
            assert find(send(16_385), (place,)) is INVALID
        else:
            with pytest.raises(MalformedRequest, match="cookies"):
                find(send(16_385), (place,))


def test_a_key_of_an_unknown_place_has_the_same_bound() -> None:
    assert find_api_key(a_request(api_key=Secret("k" * 16_385)), ALL) is INVALID


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Bearer t", "t"),
        ("bearer t", "t"),
        ("BEARER t", "t"),
        ("bEaReR   t  ", "t"),
        ("  Bearer t", "t"),
        ("Bearer", None),
        ("Bearer ", None),
        ("Bearer\tt", None),
        ("Bearert", None),
        ("t", None),
        ("", None),
        ("Basic dXNlcjpwYXNz", None),
        ("Token t", None),
        ("Basic Bearer t", None),
        ("Bearer a, Bearer b", "ambiguous"),
        ("Bearer a,b", "ambiguous"),
        ("Bearer t, Basic dTpw", "ambiguous"),
        ("Bearer Bearer t", "Bearer t"),
    ],
)
def test_finds_a_bearer_token_in_authorization(value: str, expected: str | None) -> None:
    assert bearer_in({"Authorization": value}) == expected


@pytest.mark.parametrize("other", ["Basic dTpw", "Bearer t", ""])
def test_two_authorization_fields_are_ambiguous(other: str) -> None:
    assert bearer_in([("authorization", "Bearer t"), ("authorization", other)]) == "ambiguous"


@pytest.mark.parametrize(
    ("value", "expected"),
    [("Bearer t", "t"), ("bearer  t", "t"), (" t ", "t"), ("t", "t"), ("Bearer", None)],
)
def test_in_a_header_of_its_own_a_token_needs_no_scheme(value: str, expected: str | None) -> None:
    places = CredentialPlaces().of_bearer(an_api(bearer_header="x-token"))
    assert places == (Place(PlaceKind.HEADER, "x-token"),)
    assert bearer_in({"X-Token": value}, "", *places) == expected
    assert bearer_in({"Authorization": "Bearer t"}, "", *places) is None


@pytest.mark.parametrize(
    ("headers", "query", "expected"),
    [
        ({}, "key=t", "t"),
        ({"cookie": "key=t"}, "", "t"),
        ({"authorization": "Bearer t"}, "key=t", "t"),
        ({"authorization": "Bearer t"}, "key=u", "ambiguous"),
        ({"authorization": "Basic dTpw"}, "key=t", "t"),
        ({}, "key=Bearer+t", "Bearer t"),
    ],
)
def test_finds_a_bearer_token_elsewhere(headers: Fields, query: str, expected: str | None) -> None:
    assert bearer_in(headers, query, AUTHORIZATION, QUERY, COOKIE) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [("Bearer k", "k"), ("k", None), ("Basic k", None), ("", None)]
)
def test_an_api_key_in_authorization_stands_behind_bearer(value: str, expected: str | None) -> None:
    assert key_in({"authorization": value}, "", AUTHORIZATION) == expected


# Cases that the adapters before us were tested with; where they took the first of several
# values, we refuse.

BY_API = (Place(PlaceKind.QUERY, "x-api-key"), Place(PlaceKind.HEADER, "x-api-key"))
BY_OPERATION = (
    Place(PlaceKind.QUERY, "x-api-key2"),
    Place(PlaceKind.HEADER, "x-api-key2"),
    AUTHORIZATION,
)


@pytest.mark.parametrize(
    ("places", "path", "headers", "expected"),
    [
        (BY_API, "/v1/petstore", {}, None),
        (BY_API, "/v1/petstore?x-api-key=myapikey", {}, "myapikey"),
        (BY_API, "/v1/petstore", {"x-api-key": "myapikey"}, "myapikey"),
        (BY_OPERATION, "/v2/petstore", {}, None),
        (BY_OPERATION, "/v2/petstore?x-api-key2=myapikey", {}, "myapikey"),
        (BY_OPERATION, "/v2/petstore", {"x-api-key2": "myapikey"}, "myapikey"),
        (BY_OPERATION, "/v2/petstore", {"authorization": "Bearer myapikey"}, "myapikey"),
        (BY_API, "/p?x-api-key=q", {"x-api-key": "h"}, "ambiguous"),
        (BY_API, "/p?x-api-key=a&x-api-key=b", {}, "ambiguous"),
        (BY_API, "/p?x-api-key=q", {"x-api-key": ""}, "q"),
        (BY_API, "/p", {"x-api-key": "value,value2"}, "ambiguous"),
        (BY_API, "/p/?x-api-key=foo", {}, "foo"),
        (BY_API, "/p?x-api-keyfoo", {}, None),
        (BY_API, "/p?other=1&x-api-key=foo", {}, "foo"),
    ],
)
def test_reads_keys_as_other_gateways_do(
    places: tuple[Place, ...], path: str, headers: dict[str, str], expected: str | None
) -> None:
    assert say(find_api_key(a_request(path, headers=headers), places)) == expected


def test_says_where_it_was_found() -> None:
    request = a_request("/?key=k", headers={"cookie": "key=k"})
    found = find_api_key(request, ALL)
    assert isinstance(found, Credential)
    assert (found.scheme, found.place) == (SecurityScheme.API_KEY, QUERY)


def test_a_connection_holds_no_key() -> None:
    assert key_in({}, "key=k", Place(PlaceKind.CONNECTION, "key")) is None


def test_a_secret_does_not_show_itself() -> None:
    found = find_api_key(a_request(headers={"x-key": "very-secret"}), ALL)
    assert "very-secret" not in repr(found)


PLACES = CredentialPlaces(bearer=(AUTHORIZATION,), api_key=(HEADER, QUERY))


@pytest.mark.parametrize(
    ("security", "fields", "expected"),
    [
        (("jwt",), {}, (AUTHORIZATION,)),
        (("opaque",), {}, (AUTHORIZATION,)),
        (("jwt", "opaque"), {}, (AUTHORIZATION,)),
        (("api_key",), {}, (HEADER, QUERY)),
        (("api_key", "jwt"), {}, (AUTHORIZATION, HEADER, QUERY)),
        (("mtls",), {}, ()),
        (("none",), {}, ()),
        (("api_key",), {"api_key_places": (COOKIE,)}, (COOKIE,)),
        (("api_key",), {"api_key_places": ()}, ()),
        (("jwt",), {"bearer_header": "x-token"}, (Place(PlaceKind.HEADER, "x-token"),)),
    ],
)
def test_knows_every_place_of_a_scheme(
    security: tuple[str, ...], fields: dict[str, Any], expected: tuple[Place, ...]
) -> None:
    schemes = tuple(map(SecurityScheme, security))
    assert PLACES.of_api(an_api(a_resource(security=schemes), **fields)) == expected


def test_knows_the_places_of_all_resources_of_an_api() -> None:
    public = a_resource("/public", security=(SecurityScheme.NONE,))
    by_key = a_resource("/mine", security=(SecurityScheme.API_KEY,))
    assert PLACES.of_api(an_api(public, by_key)) == (HEADER, QUERY)
    assert PLACES.of_api(an_api(public)) == ()


@pytest.mark.parametrize(
    ("headers", "told", "expected"),
    [
        ({}, "k1", "k1"),
        ({"x-key": "k1"}, "k1", "k1"),
        ({"x-key": "k1"}, "k2", "ambiguous"),
        ({"x-key": "k1"}, None, "k1"),
        ({"x-key": "k1,k2"}, "k1", "ambiguous"),
        ({}, None, None),
    ],
)
def test_a_key_may_be_told_without_its_place(
    headers: dict[str, str], told: str | None, expected: str | None
) -> None:
    request = a_request(headers=headers, api_key=None if told is None else Secret(told))
    assert say(find_api_key(request, ALL)) == expected


@given(
    st.lists(st.tuples(st.sampled_from(["x-key", "cookie", "authorization"]), st.text())),
    st.text(alphabet="key=&%;,+ab\0\n", max_size=30),
)
def test_nothing_raises_and_nothing_empty_is_found(
    headers: list[tuple[str, str]], query: str
) -> None:
    request = a_request(headers=headers, query=query)
    for found in (find_api_key(request, ALL), find_bearer(request, (AUTHORIZATION, *ALL))):
        if isinstance(found, Credential):
            secret = found.secret.reveal()
            assert secret and "," not in secret
