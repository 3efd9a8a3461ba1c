"""API keys that are JWTs, as WSO2 API Manager's portals give them out, and internal keys."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.model.applications import Application
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Reason
from extauthz.model.identity import KeyType
from extauthz.model.issuers import ApiKeySigner, Issuer, KeyLocation, SignedKeyKind
from extauthz.model.request import ApiRequest
from extauthz.policy.authentication.api_keys.signed import MAX_PLACES
from tests.builders import API_KEY, a_catalog, a_limit, a_request, a_resource, a_tier, an_api
from tests.catalog.documents.test_build import load
from tests.deciding import TWO_FAILURES, Deciding
from tests.keys import START_S, a_jwk, a_jwks, a_jwt, an_issuer, rsa_key, sign_jws
from tests.policy.authentication.identifying import JWT, KEY, NONE

ALIAS = "gateway_certificate_alias"
SHOP_APP = Application(name="bob:ShopApp", owner="bob", display_name="ShopApp", uuid="a-1")
GOLD = a_tier("Gold", a_limit(1))
SUBSCRIBED = {
    "subscriberTenantDomain": "carbon.super",
    "name": "HttpbinAPI",
    "context": "/httpbin/1.0.0",
    "version": "1.0.0",
    "publisher": "admin",
    "subscriptionTier": "Gold",
}


def a_signer(kind: SignedKeyKind = SignedKeyKind.API_KEY, **fields: Any) -> ApiKeySigner:
    jwks = a_jwks(a_jwk(rsa_key("portal"), kid=None))
    fields.setdefault("key_ids", frozenset({ALIAS}))
    issuer = Issuer(issuer=kind.value, keys=KeyLocation(jwks=jwks), subscriptions_from_token=True)
    return ApiKeySigner(issuer=issuer, kind=kind, **fields)


def a_key(*, key: Any = None, kid: str | None = ALIAS, **claims: Any) -> str:
    """A lightweight key of ShopApp. `...` takes a claim out."""
    made: dict[str, Any] = {
        "sub": "bob",
        "application": {
            "owner": "bob",
            "tier": "Unlimited",
            "name": "ShopApp",
            "id": 7,
            "uuid": "a-1",
        },
        "keytype": "PRODUCTION",
        "permittedIP": "",
        "permittedReferer": "",
        "iat": START_S,
        "exp": START_S + 3600,
        "jti": "k-1",
        "iss": "https://apim:9443/oauth2/token",
        **claims,
    }
    header = {"typ": "JWT", "alg": "RS256", "x5t": "abc", **({} if kid is None else {"kid": kid})}
    claims = {name: value for name, value in made.items() if value is not ...}
    return sign_jws(header, claims, key=key or rsa_key("portal"))


def an_internal_key(**claims: Any) -> str:
    entry = {**SUBSCRIBED, "subscriptionTier": None}
    fields = {"application": ..., "token_type": "InternalKey", "subscribedAPIs": [entry], **claims}
    return a_key(**fields)


def a_catalog_for(**fields: Any) -> Catalog:
    fields.setdefault("application", SHOP_APP)
    fields.setdefault("api_key_signers", [a_signer()])
    fields.setdefault("tiers", [GOLD])
    api = an_api(
        a_resource(security=(JWT, KEY), scopes=fields.pop("scopes", ())), **fields.pop("api", {})
    )
    return a_catalog(api, issuers=(an_issuer(),), **fields)


def keyed(
    key: str, *, name: str = "apikey", client: str = "192.0.2.1", **headers: str
) -> ApiRequest:
    return a_request(headers={name: key, **headers}, client=client)


async def test_a_lightweight_key_belongs_to_the_catalogs_application() -> None:
    deciding = Deciding(a_catalog_for(scopes=("admin",)))
    for request in (keyed(a_key()), a_request(f"/httpbin/1.0.0/ip?apikey={a_key()}")):
        allowed = await deciding.allow(request)
        identity = allowed.identity
        assert (identity.application, identity.user) == (SHOP_APP, "bob")
        assert (identity.key_type, identity.token_id) == (KeyType.PRODUCTION, "k-1")
        assert identity.scopes is None and allowed.subscription is not None


@pytest.mark.parametrize(
    ("application", "said", "expected"),
    [
        (SHOP_APP, {"uuid": "a-1"}, "allowed"),
        (SHOP_APP, {"owner": "bob", "name": "ShopApp"}, "allowed"),
        (Application(name="ShopApp", owner="bob"), {"owner": "bob", "name": "ShopApp"}, "allowed"),
        (SHOP_APP, {"owner": "eve", "name": "ShopApp"}, "subscription_not_found"),
        (SHOP_APP, {"uuid": "a-2"}, "subscription_not_found"),
        (SHOP_APP, {"uuid": ["a-1"]}, "subscription_not_found"),
        (SHOP_APP, {}, "subscription_not_found"),
    ],
)
async def test_the_application_is_found_by_its_id_or_by_owner_and_name(
    application: Application, said: dict[str, Any], expected: str
) -> None:
    deciding = Deciding(a_catalog_for(application=application))
    assert await deciding.reason(keyed(a_key(application=said))) == expected


async def test_a_full_key_carries_its_subscription() -> None:
    deciding = Deciding(a_catalog_for(subscribed=False))
    key = a_key(subscribedAPIs=[SUBSCRIBED], application={"name": "Unknown", "owner": "eve"})
    allowed = await deciding.allow(keyed(key))
    assert (allowed.tier, allowed.identity.application_name) == ("Gold", "Unknown")
    assert await deciding.reason(keyed(key)) == "rate_limited"
    other = a_key(subscribedAPIs=[{**SUBSCRIBED, "version": "2.0.0"}], jti="k-2")
    assert await deciding.reason(keyed(other)) == "subscription_not_found"


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (a_key(exp=...), "allowed"),
        (a_key(exp=START_S - 6), "token_expired"),
        (a_key(exp=START_S - 4), "allowed"),
        (a_key(nbf=START_S + 60), "token_inactive"),
        (a_key(iat=START_S + 60), "invalid_credentials"),
        (a_key(kid="other"), "invalid_credentials"),
        (a_key(kid=None), "invalid_credentials"),
        (a_key(key=rsa_key("stranger")), "invalid_credentials"),
        (a_key(application=...), "invalid_credentials"),
        (a_key(application="ShopApp"), "invalid_credentials"),
        (a_key(keytype="OTHER"), "invalid_credentials"),
        (a_key(subscribedAPIs="HttpbinAPI"), "invalid_credentials"),
        (a_key(permittedIP=["192.0.2.1"]), "invalid_credentials"),
        (an_internal_key(), "invalid_credentials"),
        (f"{a_key()[:-4]}AAAA", "invalid_credentials"),
        (f"{a_key()}.x", "invalid_credentials"),
    ],
)
async def test_a_key_is_good_or_not(key: str, expected: str) -> None:
    deciding = Deciding(a_catalog_for())
    for _ in range(2):
        assert await deciding.reason(keyed(key)) == expected


@pytest.mark.parametrize("claim", ["azp", "client_id", "consumerKey", "scope", "aut"])
async def test_an_access_token_is_no_api_key_though_the_same_key_signed_it(claim: str) -> None:
    deny = await Deciding(a_catalog_for()).deny(keyed(a_key(**{claim: "abc123"})))
    assert deny.reason is Reason.INVALID_CREDENTIALS and claim in deny.denial.found


async def test_an_api_key_is_no_access_token() -> None:
    deciding = Deciding(a_catalog_for())
    bearer = a_request(headers={"authorization": f"Bearer {a_key()}"})
    assert await deciding.reason(bearer) == "invalid_credentials"


async def test_without_signers_a_jwt_is_an_unknown_key() -> None:
    deciding = Deciding(a_catalog_for(api_key_signers=[]))
    assert await deciding.reason(keyed(a_key())) == "invalid_credentials"


async def test_keys_of_digests_stay_good_beside_signed_ones() -> None:
    deciding = Deciding(a_catalog_for())
    assert await deciding.reason(keyed(API_KEY)) == "allowed"
    assert await deciding.reason(keyed("a.b.c")) == "invalid_credentials"


@pytest.mark.parametrize(
    ("permitted", "client", "expected"),
    [
        ("192.0.2.1", "192.0.2.1", "allowed"),
        ("10.0.0.1, 192.0.2.0/24", "192.0.2.77", "allowed"),
        ("192.0.2.7/24", "192.0.2.77", "allowed"),  # bits behind the prefix
        ("2001:db8::7/64", "2001:db8::1", "allowed"),
        ("::ffff:192.0.2.0/120", "192.0.2.77", "allowed"),
        ("nonsense,192.0.2.1", "192.0.2.1", "allowed"),
        ("192.0.2.1", "192.0.2.2", "credential_not_permitted"),
        ("2001:db8::/64", "192.0.2.2", "credential_not_permitted"),
        ("192.0.2.1", "", "credential_not_permitted"),
        ("nonsense", "192.0.2.1", "invalid_credentials"),
        (",".join(["192.0.2.1"] * (MAX_PLACES + 1)), "192.0.2.1", "invalid_credentials"),
    ],
)
async def test_a_key_may_be_bound_to_addresses(permitted: str, client: str, expected: str) -> None:
    deciding = Deciding(a_catalog_for())
    key = a_key(permittedIP=permitted)
    for _ in range(2):
        assert await deciding.reason(keyed(key, client=client)) == expected


@pytest.mark.parametrize(
    ("permitted", "referer", "expected"),
    [
        ("www.abc.com/path,sub.cds.com/*", "https://sub.cds.com/x", "allowed"),
        ("*.gef.com/*", "https://a.gef.com/", "allowed"),
        ("*.gef.com/*", "https://gef.com/", "credential_not_permitted"),
        ("*.gef.com/*", "", "credential_not_permitted"),
        ("abc.*", "https://abc.com/", "invalid_credentials"),
    ],
)
async def test_a_key_may_be_bound_to_pages(permitted: str, referer: str, expected: str) -> None:
    request = keyed(a_key(permittedReferer=permitted), referer=referer)
    assert await Deciding(a_catalog_for()).reason(request) == expected


async def test_a_key_may_be_revoked_by_its_id_its_signature_or_itself() -> None:
    key = a_key()
    text = {"jti": "k-1"}, {"signature": key.rpartition(".")[2]}
    for entry in text:
        deciding = Deciding(a_catalog_for())
        assert await deciding.reason(keyed(key)) == "allowed"
        revoked = load({"revoked_tokens": [entry]}).revoked
        deciding.revocations.replace("catalog", revoked)
        assert await deciding.reason(keyed(key)) == "token_revoked"
    deciding = Deciding(a_catalog_for())
    deciding.revocations.revoke_token("k-1")
    assert await deciding.reason(keyed(key)) == "token_revoked"


async def test_the_kind_of_a_key_must_be_the_apis() -> None:
    catalog = a_catalog_for(api={"key_types": frozenset({KeyType.PRODUCTION})})
    deciding = Deciding(catalog)
    assert await deciding.reason(keyed(a_key(keytype="SANDBOX"))) == "wrong_key_type"
    assert await deciding.reason(keyed(a_key())) == "allowed"


async def test_a_good_key_is_verified_once_and_ends_with_its_expiry() -> None:
    deciding = Deciding(a_catalog_for())
    key = a_key(exp=START_S + 60)
    for _ in range(3):
        assert await deciding.reason(keyed(key)) == "allowed"
    assert len(deciding.keys.asked) == 1
    deciding.clock.advance(66)
    assert await deciding.reason(keyed(key)) == "token_expired"
    assert await deciding.reason(keyed(a_key(exp=START_S + 60, jti="k-3"))) == "token_expired"


async def test_a_new_catalog_decides_anew() -> None:
    deciding = Deciding(a_catalog_for())
    assert await deciding.reason(keyed(a_key())) == "allowed"
    deciding.catalog = a_catalog_for(api_key_signers=[a_signer(key_ids=frozenset({"other"}))])
    assert await deciding.reason(keyed(a_key())) == "invalid_credentials"


async def test_forged_keys_are_counted_and_good_ones_pass_all_the_same() -> None:
    deciding = Deciding(a_catalog_for(), failure_limit=TWO_FAILURES)
    forged = a_key(key=rsa_key("stranger"))
    found = [await deciding.reason(keyed(forged)) for _ in range(3)]
    assert found == ["invalid_credentials", "invalid_credentials", "rate_limited"]
    assert await deciding.reason(keyed(a_key())) == "allowed"
    assert await deciding.reason(keyed(API_KEY)) == "rate_limited"


# Internal keys

INTERNAL = [a_signer(SignedKeyKind.INTERNAL)]


def tried(key: str, **headers: str) -> ApiRequest:
    return keyed(key, name="internal-key", **headers)


async def test_internal_keys_are_off_by_default() -> None:
    deciding = Deciding(a_catalog_for())
    assert await deciding.reason(tried(an_internal_key())) == "missing_credentials"


async def test_an_internal_key_needs_no_subscription_and_no_scope() -> None:
    deciding = Deciding(
        a_catalog_for(subscribed=False, api_key_signers=INTERNAL, scopes=("admin",))
    )
    found = [await deciding.allow(tried(an_internal_key())) for _ in range(3)]
    for allowed in found:
        assert allowed.identity.application is None and not allowed.tier
        assert any(place.name == "internal-key" for place in allowed.credential_places)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        (
            an_internal_key(subscribedAPIs=[{**SUBSCRIBED, "name": "Other"}]),
            "subscription_not_found",
        ),
        (an_internal_key(subscribedAPIs=...), "subscription_not_found"),
        (an_internal_key(token_type=...), "invalid_credentials"),
        (a_key(), "invalid_credentials"),
        ("opaque", "invalid_credentials"),
        ("", "missing_credentials"),
        (f"{an_internal_key()},{an_internal_key()}", "ambiguous_credentials"),
    ],
)
async def test_an_internal_key_is_good_for_its_api_only(key: str, expected: str) -> None:
    deciding = Deciding(
        a_catalog_for(api_key_signers=INTERNAL, api={"subscription_required": False})
    )
    assert await deciding.reason(tried(key)) == expected


async def test_an_internal_key_counts_before_all_others_and_must_be_good() -> None:
    deciding = Deciding(a_catalog_for(api_key_signers=INTERNAL))
    assert await deciding.reason(tried("bad", authorization=f"Bearer {a_jwt()}")) == (
        "invalid_credentials"
    )
    assert await deciding.reason(tried(an_internal_key(), authorization="Bearer bad")) == "allowed"


async def test_a_signer_of_internal_keys_signs_no_others() -> None:
    deciding = Deciding(a_catalog_for(api_key_signers=INTERNAL))
    assert await deciding.reason(keyed(a_key())) == "invalid_credentials"
    assert await deciding.reason(keyed(an_internal_key())) == "invalid_credentials"


async def test_a_public_resource_looks_at_no_internal_key() -> None:
    catalog = a_catalog(an_api(a_resource(security=(NONE,))), api_key_signers=INTERNAL)
    assert await Deciding(catalog).reason(tried("bad")) == "allowed"


@settings(max_examples=200)
@given(
    claims=st.dictionaries(
        st.sampled_from(
            ["application", "keytype", "permittedIP", "permittedReferer", "subscribedAPIs", "exp",
             "iat", "jti", "sub", "token_type"]
        ),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda part: st.lists(part, max_size=3) | st.dictionaries(st.text(), part, max_size=3),
            max_leaves=5,
        ),
    )
)  # fmt: skip
async def test_no_claim_makes_a_genuine_key_undecidable(claims: dict[str, Any]) -> None:
    deciding = Deciding(a_catalog_for(api_key_signers=[a_signer(), *INTERNAL]))
    key = a_key(**claims)
    for request in (keyed(key), tried(key)):
        assert await deciding.reason(request) != "unavailable"
