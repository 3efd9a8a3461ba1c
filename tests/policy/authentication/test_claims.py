from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import KeyType
from extauthz.model.issuers import ClaimNames
from extauthz.policy.authentication.claims import TokenIdentity, read_identity_claims
from tests.builders import START_US, S
from tests.keys import START_S, an_issuer

WSO2_2_6_CLAIMS = {
    "aud": "http://org.wso2.apimgt/gateway",
    "sub": "admin@carbon.super",
    "application": {"id": 2, "name": "mobile", "tier": "50PerMin", "owner": "admin"},
    "scope": "am_application_scope default",
    "iss": "https://localhost:9443/oauth2/token",
    "keytype": "PRODUCTION",
    "subscribedAPIs": [
        {
            "name": "HttpbinAPI",
            "context": "/httpbin/1.0.0",
            "version": "1.0.0",
            "publisher": "admin",
            "subscriptionTier": "Gold",
            "subscriberTenantDomain": "carbon.super",
        },
        {"name": "Pets", "context": "/pets/v1", "version": "v1", "subscriptionTier": None},
        {"name": "Pets", "version": "v1", "subscriptionTier": "Silver"},
    ],
    "consumerKey": "abc123",
    "exp": START_S + 3600,
    "iat": START_S,
    "jti": "e5e8b5e3",
}


def read(claims: dict[str, Any], names: ClaimNames | None = None, **fields: Any) -> TokenIdentity:
    identity = read_identity_claims(claims, an_issuer(claims=names or ClaimNames(), **fields))
    assert isinstance(identity, TokenIdentity)
    return identity


def test_reads_a_wso2_token_with_its_subscriptions() -> None:
    assert read(WSO2_2_6_CLAIMS, subscriptions_from_token=True) == TokenIdentity(
        consumer_key="abc123",
        user="admin@carbon.super",
        scopes=frozenset({"am_application_scope", "default"}),
        key_type=KeyType.PRODUCTION,
        token_id="e5e8b5e3",
        # An API that stands twice counts as it stands first.
        subscribed={("HttpbinAPI", "1.0.0"): "Gold", ("Pets", "v1"): ""},
        application_name="mobile",
        application_owner="admin",
        application_tier="50PerMin",
        expires_at_us=START_US + 3600 * S,
        issued_at_us=START_US,
        claims=WSO2_2_6_CLAIMS,
    )


def test_leaves_subscriptions_alone_unless_the_issuer_is_trusted_with_them() -> None:
    assert read(WSO2_2_6_CLAIMS).subscribed is None
    assert read({}, subscriptions_from_token=True).subscribed == {}


def test_reads_an_introspection_answer() -> None:
    answer = {"active": True, "client_id": "c1", "username": "bob", "scope": "a b", "exp": START_S}
    identity = read(answer)
    assert (identity.consumer_key, identity.user, identity.scopes, identity.expires_at_us) == (
        "c1",
        "bob",
        frozenset({"a", "b"}),
        START_US,
    )


def test_an_empty_token_speaks_for_nobody() -> None:
    assert read({}) == TokenIdentity()


@pytest.mark.parametrize(
    ("claims", "names", "expected"),
    [
        ({"azp": "a", "client_id": "b"}, ("azp", "client_id"), "a"),
        ({"azp": "a", "client_id": "b"}, ("client_id", "azp"), "b"),
        ({"client_id": "b"}, ("azp", "client_id"), "b"),
        ({"azp": "", "client_id": "b"}, ("azp", "client_id"), ""),
        ({"app": {"key": "nested"}}, ("app.key",), "nested"),
        ({"app": {"key": "nested"}, "app.key": "exact"}, ("app.key",), "exact"),
        ({"https://idp.example/key": "url"}, ("https://idp.example/key",), "url"),
        ({"app": "text"}, ("app.key", "app"), "text"),
        ({"app": {"key": {"deep": 1}}}, ("app.key.deep.er",), ""),
    ],
)
def test_the_first_claim_that_is_there_counts(
    claims: dict[str, Any], names: tuple[str, ...], expected: str
) -> None:
    assert read(claims, ClaimNames(consumer_key=names)).consumer_key == expected


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({}, set()),
        ({"scope": ""}, set()),
        ({"scope": "scope1 scope2"}, {"scope1", "scope2"}),
        ({"scope": " scope1  scope2 "}, {"scope1", "scope2"}),
        ({"scope": ["scope1", "scope2", ""]}, {"scope1", "scope2"}),
        ({"scp": ["x"]}, {"x"}),
        ({"scope": "s", "scp": ["x"]}, {"s"}),
        ({"scope": []}, set()),
    ],
)
def test_reads_scopes_as_text_or_as_an_array(claims: dict[str, Any], expected: set[str]) -> None:
    assert read(claims).scopes == expected


def test_reads_scopes_from_a_nested_claim() -> None:
    names = ClaimNames(scopes=("realm_access.roles",))
    assert read({"realm_access": {"roles": ["r1"]}}, names).scopes == {"r1"}


def test_a_claim_that_is_null_is_not_there() -> None:
    names = ClaimNames(consumer_key=("azp", "client_id"), scopes=("a.b", "scp"), user=("sub",))
    claims = {"azp": None, "client_id": "c", "sub": None, "a": {"b": None}, "scp": "s"}
    found = read(claims, names)
    assert (found.consumer_key, found.user, found.scopes) == ("c", "", frozenset({"s"}))


@pytest.mark.parametrize(
    "claims",
    [
        {"client_id": 12},
        {"azp": ["a"]},
        {"sub": 12},
        {"scope": 12},
        {"scope": {"a": True}},
        {"scope": ["this", "is", "a", "test", 123]},
        {"scope": [["a"]]},
        {"jti": 1},
        {"keytype": "OTHER"},
        {"keytype": 1},
        {"application": {"name": 12}},
        {"application": {"name": "app", "tier": 1}},
        {"subscribedAPIs": {}},
        {"subscribedAPIs": "HttpbinAPI"},
        {"subscribedAPIs": ["HttpbinAPI"]},
        {"subscribedAPIs": [{"name": "HttpbinAPI"}]},
        {"subscribedAPIs": [{"name": "HttpbinAPI", "version": 1}]},
        {"subscribedAPIs": [{"name": "A", "version": "1", "subscriptionTier": 5}]},
    ],
)
def test_refuses_a_claim_of_a_wrong_type(claims: dict[str, Any]) -> None:
    outcome = read_identity_claims(claims, an_issuer(subscriptions_from_token=True))
    assert isinstance(outcome, Denial)
    assert outcome.reason is Reason.INVALID_CREDENTIALS


def test_takes_key_types_in_any_case_and_other_issuers_application_claims() -> None:
    identity = read({"keytype": "sandbox", "application": "something else"})
    assert identity.key_type is KeyType.SANDBOX
    assert identity.application_name == ""


NAMES = st.sampled_from(["azp", "sub", "scope", "jti", "keytype", "application", "subscribedAPIs"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "version", "owner", "tier"]), inner)
    ),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES))
def test_no_claims_make_it_raise(claims: dict[str, Any]) -> None:
    outcome = read_identity_claims(claims, an_issuer(subscriptions_from_token=True))
    assert isinstance(outcome, Denial) or all(
        isinstance(text, str) for text in (outcome.consumer_key, outcome.user, *outcome.scopes)
    )


@pytest.mark.parametrize("text", ["eve ", " eve", "e\r\nve", "e\x00ve", "a\tb", "é" * 2049])
@pytest.mark.parametrize("claim", ["sub", "azp", "scope", "jti"])
def test_text_that_no_header_can_hold_makes_the_token_invalid(claim: str, text: str) -> None:
    claims = {claim: [text] if claim == "scope" else text}
    found = read_identity_claims(claims, an_issuer())
    assert isinstance(found, Denial) and found.reason is Reason.INVALID_CREDENTIALS


def test_a_claim_may_have_a_further_name() -> None:
    names = ClaimNames(mappings=(("given_name", "http://wso2.org/claims/givenname"), ("x", "y")))
    claims = {"given_name": "Alice", "sub": "alice"}
    identity = read(claims, names)
    assert identity.claims == {**claims, "http://wso2.org/claims/givenname": "Alice"}
    assert read(claims).claims is claims
