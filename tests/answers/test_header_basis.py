"""What the header changes of an ordinary request rest on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.answers.upstream import (
    IdentityFact,
    UpstreamStyle,
    find_header_basis,
    write_upstream_changes,
)
from extauthz.model.applications import Application
from extauthz.model.decision import Allow
from extauthz.model.identity import Identity, KeyType, Place, PlaceKind, SecurityScheme
from extauthz.model.routing.routes import Route
from tests.builders import a_request, a_resource, an_api

KEY = Place(PlaceKind.HEADER, "x-api-key")
KEY_IN_QUERY = Place(PlaceKind.QUERY, "apikey")
KEY_IN_COOKIE = Place(PlaceKind.COOKIE, "apikey")
RESOURCES = (a_resource("/ip"), a_resource("/get"))
ROUTES = tuple(
    Route(an_api(*RESOURCES, version=version), resource)
    for version in ("1", "2")
    for resource in RESOURCES
)
ALL_FACTS = UpstreamStyle(
    identity_headers={
        fact: f"x-{fact.value.replace('_', '-')}"
        for fact in IdentityFact
        if fact is not IdentityFact.DECISION_ID
    }
)


def an_allow(**fields: Any) -> Allow:
    fields.setdefault("credential_places", (KEY,))
    alice = Identity(scheme=SecurityScheme.JWT, user="alice")
    return Allow(id="1", route=ROUTES[0], identity=alice, **fields)


WORDS = st.sampled_from(["", "a", "b", "x-api-key", "a b"])
IDENTITIES = st.builds(
    Identity,
    scheme=st.just(SecurityScheme.JWT),
    application=st.none() | st.builds(Application, name=WORDS),
    key_type=st.sampled_from([None, *KeyType]),
    user=WORDS,
    consumer_key=WORDS,
    scopes=st.none() | st.frozensets(st.sampled_from(["a", "b"])),
)
ALLOWS = st.builds(
    Allow,
    id=WORDS,
    route=st.sampled_from(ROUTES),
    identity=IDENTITIES,
    tier=WORDS,
    credential_places=st.lists(
        st.sampled_from([KEY, Place(PlaceKind.HEADER, "a"), KEY_IN_QUERY, KEY_IN_COOKIE])
    ).map(tuple),
)
REQUESTS = st.builds(
    a_request,
    st.sampled_from(["/a", "/b", "/a?apikey=1", "/a?b=1"]),
    headers=st.dictionaries(
        st.sampled_from(["x-api-key", "a", "b", "x-user", "x_user", "cookie"]),
        st.sampled_from(["1", "2", "apikey=1", "b=1; apikey=2"]),
        max_size=3,
    ),
)


@given(
    st.tuples(ALLOWS, REQUESTS),
    st.tuples(ALLOWS, REQUESTS),
    st.sampled_from([UpstreamStyle(), ALL_FACTS]),
)
def test_the_same_basis_makes_the_same_changes(
    one: tuple[Allow, Any], other: tuple[Allow, Any], style: UpstreamStyle
) -> None:
    # An allow is compared with itself for another request too: that finds equal bases often.
    for first, second in ((one, other), (one, (one[0], other[1])), (one, (other[0], one[1]))):
        basis = find_header_basis(*first, style)
        if basis is None or basis != find_header_basis(*second, style):
            continue
        changes = [write_upstream_changes(*each, style) for each in (first, second)]
        assert changes[0].set_headers == changes[1].set_headers
        assert changes[0].remove_headers == changes[1].remove_headers
        assert changes[0].removed_query == changes[1].removed_query == ()


def test_an_ordinary_request_has_one() -> None:
    allow = an_allow(credential_places=(KEY, KEY_IN_QUERY, KEY_IN_COOKIE))
    headers = {"x-api-key": "1", "accept": "*/*", "cookie": "b=1"}
    request = a_request("/a?b=1", headers=headers)

    assert find_header_basis(allow, request, UpstreamStyle()) == ("", "alice", "", "x-api-key")


@pytest.mark.parametrize(
    ("allow", "path", "headers", "style"),
    [
        (an_allow(credential_places=(KEY_IN_QUERY,)), "/a?b&apikey=1", {}, UpstreamStyle()),
        (
            an_allow(credential_places=(KEY_IN_COOKIE,)),
            "/a",
            {"cookie": "apikey=1"},
            UpstreamStyle(),
        ),
        (an_allow(), "/a", {"x_extauthz_user": "eve"}, UpstreamStyle()),
        (an_allow(), "/a", {}, UpstreamStyle(identity_headers={IdentityFact.USER: "x_user"})),
        (an_allow(), "/a", {}, UpstreamStyle(identity_headers={IdentityFact.DECISION_ID: "x-id"})),
    ],
)
def test_a_request_whose_changes_rest_on_more_has_none(
    allow: Allow, path: str, headers: dict[str, str], style: UpstreamStyle
) -> None:
    assert find_header_basis(allow, a_request(path, headers=headers), style) is None
