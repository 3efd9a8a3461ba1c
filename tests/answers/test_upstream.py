"""What changes on an allowed request before the upstream sees it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.answers.limit_headers import LimitHeaderStyle
from extauthz.answers.upstream import (
    IdentityFact,
    UpstreamChanges,
    UpstreamStyle,
    find_header_basis,
    list_twins,
    write_upstream_changes,
)
from extauthz.model.applications import Application
from extauthz.model.decision import Allow
from extauthz.model.identity import (
    ANONYMOUS,
    Identity,
    KeyType,
    Place,
    PlaceKind,
    SecurityScheme,
)
from extauthz.model.limits import LimitLevel, LimitStatus, Reading
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from tests.builders import S, a_limit, a_request, a_resource, an_api

ALICE = Identity(
    scheme=SecurityScheme.JWT,
    application=Application(name="mobile"),
    key_type=KeyType.SANDBOX,
    user="alice",
    consumer_key="abc123",
    scopes=frozenset({"b", "a"}),
)
OURS = ("x-extauthz-application", "x-extauthz-user", "x-extauthz-tier")


def header(name: str) -> Place:
    return Place(PlaceKind.HEADER, name)


def query(name: str) -> Place:
    return Place(PlaceKind.QUERY, name)


def cookie(name: str) -> Place:
    return Place(PlaceKind.COOKIE, name)


def an_allow(*places: Place, **fields: Any) -> Allow:
    resource = a_resource()
    fields.setdefault("identity", ALICE)
    fields.setdefault("tier", "Gold")
    return Allow(
        id="d-1", route=Route(an_api(resource), resource), credential_places=places, **fields
    )


def changes(
    allow: Allow, request: ApiRequest | None = None, style: UpstreamStyle | None = None
) -> UpstreamChanges:
    return write_upstream_changes(allow, request or a_request(), style or UpstreamStyle())


# Identity


def test_says_who_calls() -> None:
    made = changes(an_allow())
    assert made.set_headers == (
        ("x-extauthz-application", "mobile"),
        ("x-extauthz-user", "alice"),
        ("x-extauthz-tier", "Gold"),
    )
    assert made.remove_headers == ()


def test_names_the_application_as_people_know_it() -> None:
    shop = Application(name="bob:ShopApp", display_name="ShopApp")
    allow = an_allow(identity=replace(ALICE, application=shop))
    assert dict(changes(allow).set_headers)["x-extauthz-application"] == "ShopApp"
    basis = find_header_basis(allow, a_request(), UpstreamStyle())
    assert basis is not None and basis[0] == "ShopApp"


def test_every_fact_can_be_sent() -> None:
    names = {fact: f"x-{fact.value}" for fact in IdentityFact}
    made = changes(an_allow(), style=UpstreamStyle(identity_headers=names))
    assert dict(made.set_headers) == {
        "x-application": "mobile",
        "x-user": "alice",
        "x-tier": "Gold",
        "x-key_type": "SANDBOX",
        "x-consumer_key": "abc123",
        "x-api": "HttpbinAPI",
        "x-version": "1.0.0",
        "x-scopes": "a b",
        "x-decision_id": "d-1",
    }


def spoofed(*names: str) -> ApiRequest:
    return a_request(headers=dict.fromkeys(names, "admin"))


def test_on_a_public_resource_nobody_says_who_he_is() -> None:
    made = changes(an_allow(identity=ANONYMOUS, tier=""), spoofed(*OURS))
    assert made.set_headers == ()
    assert set(made.remove_headers) == set(OURS)


def test_what_is_not_known_is_not_taken_from_the_client() -> None:
    nameless = Identity(scheme=SecurityScheme.API_KEY, application=ALICE.application)
    made = changes(an_allow(identity=nameless, tier=""), spoofed(*OURS))
    assert made.set_headers == (("x-extauthz-application", "mobile"),)
    assert set(made.remove_headers) == {"x-extauthz-user", "x-extauthz-tier"}


@pytest.mark.parametrize(
    "name", ["x_extauthz_user", "x-extauthz_user", "x_extauthz-user", "X_Extauthz_User"]
)
@pytest.mark.parametrize("identity", [ALICE, ANONYMOUS])
def test_a_name_that_an_upstream_takes_for_ours_is_removed(name: str, identity: Identity) -> None:
    made = changes(an_allow(identity=identity), spoofed(name, "x_other"))
    assert name.lower() in made.remove_headers
    assert "x_other" not in made.remove_headers


def test_a_name_of_ours_with_an_underscore_has_its_lookalikes_removed() -> None:
    style = UpstreamStyle(identity_headers={IdentityFact.USER: "x_user"})
    made = changes(an_allow(), spoofed("x-user", "x_user"), style)
    assert made.set_headers == (("x_user", "alice"),)
    assert made.remove_headers == ("x-user",)


def test_one_name_for_two_facts_carries_the_last_that_is_known() -> None:
    names = {IdentityFact.APPLICATION: "x-who", IdentityFact.USER: "x-who"}
    style = UpstreamStyle(identity_headers=names)
    assert changes(an_allow(), style=style).set_headers == (("x-who", "alice"),)
    nameless = Identity(scheme=SecurityScheme.API_KEY, application=ALICE.application)
    made = changes(an_allow(identity=nameless), style=style)
    assert (made.set_headers, made.remove_headers) == ((("x-who", "mobile"),), ())


# Credentials


@pytest.mark.parametrize(
    ("places", "path", "headers", "removed", "removed_query", "cookies"),
    [
        ((), "/?apikey=k", {"x-api-key": "k", "authorization": "Bearer t"}, (), (), None),
        ((header("x-api-key"),), "/", {"x-api-key": "k"}, ("x-api-key",), (), None),
        ((header("x-api-key"),), "/", {"X-API-Key": "k"}, ("x-api-key",), (), None),
        ((header("x-api-key"),), "/", {}, (), (), None),
        (
            (header("authorization"), header("x-api-key")),
            "/",
            {"x-api-key": "k", "authorization": "Bearer other"},
            ("authorization", "x-api-key"),
            (),
            None,
        ),
        ((query("apikey"),), "/?apikey=k&a=1", {}, (), ("apikey",), None),
        ((query("apikey"),), "/?a=1", {}, (), (), None),
        ((cookie("k"),), "/", {"cookie": "k=1"}, ("cookie",), (), None),
        ((cookie("k"),), "/", {"cookie": "a=1; k=2; b=3"}, (), (), "a=1; b=3"),
        ((cookie("k"),), "/", {"cookie": "a=1;k=2"}, (), (), "a=1"),
        ((cookie("k"),), "/", {"cookie": "a=1; %6B=2; b=3"}, (), (), "a=1; b=3"),
        ((cookie("k"),), "/", {"cookie": "a=1, k=2; b=3"}, (), (), "a=1; b=3"),
        ((cookie("k"),), "/", {"cookie": "a=1"}, (), (), None),
        ((cookie("k"),), "/", {}, (), (), None),
        ((cookie("k"), cookie("a")), "/", {"cookie": "a=1; k=2; b=3"}, (), (), "b=3"),
        (
            (cookie("k"),),
            "/",
            [("cookie", "a=1"), ("cookie", "k=2"), ("cookie", "b=3")],
            (),
            (),
            "a=1; b=3",
        ),
        ((Place(PlaceKind.CONNECTION, "k"),), "/?k=1", {"k": "1"}, (), (), None),
    ],
)
def test_takes_the_credential_out(
    places: tuple[Place, ...],
    path: str,
    headers: Any,
    removed: tuple[str, ...],
    removed_query: tuple[str, ...],
    cookies: str | None,
) -> None:
    made = changes(an_allow(*places), a_request(path, headers=headers))
    assert made.remove_headers == removed
    assert made.removed_query == removed_query
    assert dict(made.set_headers).get("cookie") == cookies


# Path and response


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("/a?apikey=k", "/a"),
        ("/a?x=1&apikey=k&y=%20+;&c&x=2", "/a?x=1&y=%20+;&c&x=2"),
        ("/a?apikey=k&&apikey", "/a"),
        ("/a?xapikey=1&apikey=k", "/a?xapikey=1"),
        ("/a?api%6Bey=k&x=1", "/a?x=1"),
        ("/a?x=1&%61%70i%6bey&apikey=", "/a?x=1"),
        ("/a?x=1;apikey=k;y=2&z", "/a?x=1;y=2&z"),
        ("/a?apikey=k;x=1&z", "/a?z"),
        ("/a?APIKEY=1&api%256Bey=1&apikey=k", "/a?APIKEY=1&api%256Bey=1"),
        ("/a?q=é%C3%A9&apikey=k", "/a?q=é%C3%A9"),
    ],
)
def test_what_stays_of_the_query_stays_byte_for_byte(sent: str, expected: str) -> None:
    made = changes(an_allow(query("apikey")), a_request(sent))
    assert dict(made.set_headers)[":path"] == expected


def test_leaves_the_path_alone_otherwise() -> None:
    assert ":path" not in dict(changes(an_allow(), a_request("/a?x=1")).set_headers)


def test_tells_the_client_about_its_limits() -> None:
    reading = Reading(exceeded=False, remaining=5, reset_us=60 * S, retry_after_us=0)
    status = LimitStatus(LimitLevel.API, "Gold", a_limit(10), reading, enforced=True)
    made = changes(an_allow(limits=(status,)))
    assert dict(made.response_headers)["RateLimit"] == '"api";r=5;t=60'
    silent = UpstreamStyle(limit_headers=LimitHeaderStyle.NONE)
    assert changes(an_allow(limits=(status,)), style=silent).response_headers == ()


NAMES = st.sampled_from(["x-a", "x_a", "x-b", "x_b", "cookie", "authorization", "k"])
PLACES = st.lists(st.builds(Place, st.sampled_from(PlaceKind), NAMES), max_size=5)


@given(
    identity=st.sampled_from([ALICE, ANONYMOUS]),
    tier=st.sampled_from(["", "Gold"]),
    names=st.dictionaries(st.sampled_from(IdentityFact), NAMES),
    places=PLACES,
    headers=st.dictionaries(NAMES, st.sampled_from(["", "k=1", "k=1; x-a=2", "v"])),
)
def test_no_name_is_both_set_and_removed_and_no_copy_of_the_clients_passes(
    identity: Identity,
    tier: str,
    names: dict[IdentityFact, str],
    places: list[Place],
    headers: dict[str, str],
) -> None:
    request = a_request("/?k=1", headers=headers)
    allow = an_allow(*places, identity=identity, tier=tier)
    made = changes(allow, request, UpstreamStyle(identity_headers=names))
    set_names = [name for name, _ in made.set_headers]
    assert len(set(set_names)) == len(set_names)
    assert len(set(made.remove_headers)) == len(made.remove_headers)
    assert not set(set_names) & set(made.remove_headers)
    assert all(value for _, value in made.set_headers)
    ours = {name.replace("_", "-") for name in names.values()}
    for name in headers:
        if name.replace("_", "-") in ours:
            assert name in set_names or name in made.remove_headers
    for place in places:
        if place.kind is PlaceKind.HEADER and place.name in headers:
            assert place.name in made.remove_headers or place.name in set_names


def test_what_the_proxy_does_not_show_is_taken_out_unseen() -> None:
    allow = an_allow(Place(PlaceKind.HEADER, "x-api-key"), Place(PlaceKind.HEADER, "apikey"))
    headers = {"apikey": "k"}
    shown = changes(allow, a_request(headers=headers), UpstreamStyle())
    assert set(shown.remove_headers) & {"x-api-key", "x_api_key", "x_extauthz_user"} == set()
    hidden = changes(allow, a_request(headers=headers, headers_are_partial=True), UpstreamStyle())
    assert {"apikey", "x-api-key", "x_api_key", "x-api_key", "x_api-key"} < set(
        hidden.remove_headers
    )
    assert {"x_extauthz_user", "x-extauthz_user", "x_extauthz-tier"} < set(hidden.remove_headers)
    assert not {name for name, _ in hidden.set_headers} & set(hidden.remove_headers)


@pytest.mark.parametrize(
    ("name", "twins"),
    [
        ("apikey", ()),
        ("x-key", ("x_key",)),
        ("x_key", ("x-key",)),
        ("a-b-c", ("a-b_c", "a_b-c", "a_b_c")),
        ("a-b-c-d-e-f", ("a_b_c_d_e_f",)),
        ("a_b-c-d-e-f", ("a-b-c-d-e-f", "a_b_c_d_e_f")),
    ],
)
def test_lists_the_names_that_are_read_as_one(name: str, twins: tuple[str, ...]) -> None:
    assert list_twins(name) == twins


@pytest.mark.parametrize(
    ("place", "twin"), [("x-api-key", "x_api_key"), ("x-api-key", "X-Api_Key"), ("x_key", "x-key")]
)
def test_a_twin_of_the_credential_does_not_pass(place: str, twin: str) -> None:
    allow = an_allow(Place(PlaceKind.HEADER, place))
    request = a_request(headers={place: "1", twin: "2", "x_other": "3"})
    assert {place, twin.lower()} <= set(changes(allow, request, UpstreamStyle()).remove_headers)
    assert "x_other" not in changes(allow, request, UpstreamStyle()).remove_headers
    assert find_header_basis(allow, request, UpstreamStyle()) is None
