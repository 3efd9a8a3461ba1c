"""Who asks: schemes in their order, certificates, API keys, tokens, and what guessing costs."""

from __future__ import annotations

import hmac
from ipaddress import ip_network
from typing import Any

import pytest

from extauthz.model.apis import ApiState
from extauthz.model.catalog import ApiKey
from extauthz.model.decision import Denial
from extauthz.model.identity import KeyType, Place, PlaceKind, Secret, SecurityScheme
from extauthz.model.request import ApiRequest, Peer
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.policy.authentication.tokens import MAX_TOKEN_BYTES
from extauthz.policy.authentication.xfcc import MAX_XFCC_BYTES
from tests.builders import (
    API_KEY,
    START_US,
    a_request,
    sha256,
)
from tests.catalog.documents.test_build import load
from tests.deciding import OPAQUE_ENDPOINT, TWO_FAILURES, Deciding
from tests.keys import START_S, a_jwt, an_issuer, rsa_key
from tests.policy.authentication.identifying import (
    JWT,
    KEY,
    MOBILE,
    MTLS,
    NONE,
    OPAQUE,
    SPIFFE,
    WEB,
    a_catalog_for,
    bearer,
    certified,
    identify,
    identity_of,
    keyed,
    knowing,
    who,
)

# Schemes


async def test_a_public_resource_looks_at_no_credential() -> None:
    deciding = Deciding(a_catalog_for(SecurityScheme.NONE))
    assert await who(deciding, a_request()) == "none:nobody"
    assert await who(deciding, bearer("rubbish")) == "none:nobody"
    assert deciding.keys.asked == []


async def test_a_prototype_takes_everybody() -> None:
    deciding = Deciding(a_catalog_for(JWT, api={"state": ApiState.PROTOTYPED}))
    assert await who(deciding, a_request()) == "none:nobody"


@pytest.mark.parametrize("security", [(KEY, JWT, NONE), (NONE, KEY, JWT)])
@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (a_request(), "none:nobody"),
        (certified(), "none:nobody"),  # certificates are not asked for here
        (keyed(), "api_key:mobile"),
        (bearer(a_jwt()), "jwt:mobile"),
        (keyed("unknown"), "invalid_credentials"),
        (keyed("a,b"), "ambiguous_credentials"),
        (keyed(""), "missing_credentials"),
        (bearer(""), "missing_credentials"),
        (bearer("x.y.z"), "invalid_credentials"),
        (bearer(a_jwt(exp=START_S - 60)), "token_expired"),
        (a_request(headers={"authorization": "Basic dTpw"}), "missing_credentials"),
        (
            a_request(headers={"authorization": "Basic dTpw", "x-api-key": API_KEY}),
            "api_key:mobile",
        ),
        (a_request(headers=[("x-api-key", API_KEY), ("apikey", "other")]), "ambiguous_credentials"),
        (a_request("/httpbin/1.0.0/ip?apikey="), "missing_credentials"),
        (a_request(api_key=Secret(API_KEY)), "api_key:mobile"),
        (a_request(api_key=Secret("unknown")), "invalid_credentials"),
        (a_request(headers={"x-api-key": ""}, api_key=Secret(API_KEY)), "api_key:mobile"),
    ],
)
async def test_beside_none_only_nothing_at_all_is_anonymous(
    security: tuple[SecurityScheme, ...], request_: ApiRequest, expected: str
) -> None:
    assert await who(Deciding(a_catalog_for(*security)), request_) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (a_request(), "none:nobody"),
        (certified(), "mtls:web"),
        (certified("spiffe://mesh/unknown"), "invalid_credentials"),
    ],
)
async def test_a_certificate_that_means_nothing_is_not_no_certificate(
    request_: ApiRequest, expected: str
) -> None:
    assert await who(Deciding(a_catalog_for(MTLS, NONE)), request_) == expected


async def test_guesses_count_where_a_credential_is_optional_and_nobody_else_is_slowed() -> None:
    deciding = Deciding(a_catalog_for(KEY, NONE), failure_limit=TWO_FAILURES)
    assert [await who(deciding, keyed(f"guess-{number}")) for number in range(3)] == [
        "invalid_credentials",
        "invalid_credentials",
        "rate_limited",
    ]
    assert await who(deciding, a_request()) == "none:nobody"


async def test_asks_for_a_credential() -> None:
    deciding = Deciding(a_catalog_for())
    assert await who(deciding, a_request()) == "missing_credentials"
    assert await who(deciding, a_request(headers={"authorization": "Basic dTpw"})) == (
        "missing_credentials"
    )


def everything() -> ApiRequest:
    return certified(headers={"authorization": f"Bearer {a_jwt()}", "x-api-key": API_KEY})


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        ((JWT, KEY, MTLS), "jwt:mobile"),
        ((KEY, JWT, MTLS), "api_key:mobile"),
        ((MTLS, JWT, KEY), "mtls:web"),
        ((OPAQUE, JWT, KEY), "jwt:mobile"),
        ((KEY,), "api_key:mobile"),
        ((JWT,), "jwt:mobile"),
        ((MTLS,), "mtls:web"),
    ],
)
async def test_the_first_scheme_that_is_presented_counts(
    security: tuple[SecurityScheme, ...], expected: str
) -> None:
    assert await who(Deciding(a_catalog_for(*security)), everything()) == expected


@pytest.mark.parametrize(
    ("security", "request_", "expected"),
    [
        ((JWT, KEY), keyed(), "api_key:mobile"),
        ((KEY, JWT), keyed(), "api_key:mobile"),
        ((JWT, KEY, MTLS), certified(), "mtls:web"),
        ((MTLS, KEY), keyed(), "api_key:mobile"),
        ((JWT,), keyed(), "missing_credentials"),
        ((KEY,), bearer("t"), "missing_credentials"),
        ((KEY,), certified(), "missing_credentials"),
    ],
)
async def test_what_is_not_presented_or_not_taken_is_passed_over(
    security: tuple[SecurityScheme, ...], request_: ApiRequest, expected: str
) -> None:
    assert await who(Deciding(a_catalog_for(*security)), request_) == expected


async def test_a_bad_credential_is_not_made_good_by_another_one() -> None:
    request = a_request(headers={"authorization": "Bearer x.y.z", "x-api-key": API_KEY})
    deciding = Deciding(a_catalog_for(JWT, KEY))
    assert await who(deciding, request) == "invalid_credentials"


@pytest.mark.parametrize(
    "headers",
    [
        [("x-api-key", API_KEY), ("x-api-key", "other")],
        [("x-api-key", API_KEY), ("apikey", "other")],
        [("authorization", "Bearer a"), ("authorization", "Bearer b")],
    ],
)
async def test_a_credential_that_is_not_single_is_refused(headers: list[tuple[str, str]]) -> None:
    deciding = Deciding(a_catalog_for(JWT, KEY))
    assert await who(deciding, a_request(headers=headers)) == "ambiguous_credentials"


@pytest.mark.parametrize(
    ("request_", "taken", "expected"),
    [
        (keyed(), {KeyType.SANDBOX}, "wrong_key_type"),
        (keyed(), {KeyType.PRODUCTION}, "api_key:mobile"),
        (certified(), {KeyType.PRODUCTION}, "wrong_key_type"),
        (certified(), {KeyType.SANDBOX}, "mtls:web"),
        (bearer(a_jwt(keytype="SANDBOX")), {KeyType.PRODUCTION}, "wrong_key_type"),
        (bearer(a_jwt(keytype="SANDBOX")), {KeyType.SANDBOX}, "jwt:mobile"),
        (bearer(a_jwt()), {KeyType.SANDBOX}, "wrong_key_type"),
    ],
)
async def test_an_api_takes_keys_of_its_types_only(
    request_: ApiRequest, taken: set[KeyType], expected: str
) -> None:
    deciding = Deciding(a_catalog_for(api={"key_types": frozenset(taken)}))
    assert await who(deciding, request_) == expected


# Certificates


async def test_a_certificate_stands_for_an_application() -> None:
    identity = await identity_of(Deciding(a_catalog_for(MTLS)), certified())
    assert (identity.application, identity.user) == (WEB, SPIFFE)
    assert identity.key_type is KeyType.SANDBOX


async def test_a_certificate_of_the_mesh_does_not_stand_in_the_way_of_a_key() -> None:
    deciding = Deciding(a_catalog_for(MTLS, KEY))
    assert await who(deciding, certified("spiffe://mesh/other")) == "invalid_credentials"
    headers = {"x-api-key": API_KEY}
    request = certified("spiffe://mesh/other", headers=headers)
    assert await who(deciding, request) == "api_key:mobile"


@pytest.mark.parametrize("name", ["", "spiffe://mesh", SPIFFE.upper(), SPIFFE + "/"])
async def test_a_certificate_is_known_by_its_whole_name(name: str) -> None:
    assert not (await who(Deciding(a_catalog_for(MTLS)), certified(name))).startswith("mtls")


XFCC = "x-forwarded-client-cert"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([f"Hash=00;URI={SPIFFE}"], "mtls:web"),
        ([f"Hash=00;URI=spiffe://other;DNS={SPIFFE}"], "mtls:web"),
        ([f"URI={SPIFFE},URI=spiffe://other"], "invalid_credentials"),
        ([f"URI={SPIFFE}", "URI=spiffe://other"], "invalid_credentials"),
        ([f'URI={SPIFFE};Subject="x,URI=spiffe://other'], "missing_credentials"),
        (["rubbish"], "missing_credentials"),
        ([""], "missing_credentials"),
    ],
)
async def test_reads_the_nearest_certificate_from_xfcc_where_it_is_trusted(
    fields: list[str], expected: str
) -> None:
    deciding = Deciding(a_catalog_for(MTLS), trust_xfcc=True)
    request = a_request(headers=[(XFCC, field) for field in fields])
    assert await who(deciding, request) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (a_request(), "none:nobody"),
        (a_request(headers={XFCC: f"Hash=00;URI={SPIFFE}"}), "mtls:web"),
        (a_request(headers={XFCC: "URI=spiffe://other"}), "invalid_credentials"),
        (a_request(headers={XFCC: "Hash=00"}), "missing_credentials"),
        (a_request(headers={XFCC: "rubbish"}), "missing_credentials"),
        (a_request(headers={XFCC: f"URI={SPIFFE};" + "a" * MAX_XFCC_BYTES}), "missing_credentials"),
        (a_request(headers=[(XFCC, f"URI={SPIFFE}"), (XFCC, "rubbish")]), "missing_credentials"),
        (a_request(source=Peer(certificate="-----BEGIN")), "missing_credentials"),
        (a_request(headers={"x-api-key": API_KEY, XFCC: "rubbish"}), "api_key:mobile"),
    ],
)
async def test_a_certificate_whose_name_cannot_be_read_is_not_no_certificate(
    request_: ApiRequest, expected: str
) -> None:
    deciding = Deciding(a_catalog_for(MTLS, KEY, NONE), trust_xfcc=True)
    assert await who(deciding, request_) == expected


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("other=1", "none:nobody"),
        (f"key={API_KEY}", "api_key:mobile"),
        (f"key={API_KEY}; key={API_KEY}", "ambiguous_credentials"),
        (f"key={API_KEY}, key=other", "ambiguous_credentials"),
        ("key=unknown", "invalid_credentials"),
        ("key=", "missing_credentials"),
        ('key=""', "missing_credentials"),
        ("key", "missing_credentials"),
        ("a=1,key=unknown", "ambiguous_credentials"),
    ],
)
async def test_a_bad_key_in_a_cookie_is_not_no_key(cookie: str, expected: str) -> None:
    places = CredentialPlaces(api_key=(Place(PlaceKind.COOKIE, "key"),))
    deciding = Deciding(a_catalog_for(KEY, NONE), places=places)
    assert await who(deciding, a_request(headers={"cookie": cookie})) == expected


async def test_xfcc_is_not_believed_unless_it_is_trusted() -> None:
    request = a_request(headers={XFCC: f"URI={SPIFFE}"})
    assert await who(Deciding(a_catalog_for(MTLS)), request) == "missing_credentials"


# API keys


def a_key(**fields: Any) -> ApiKey:
    return ApiKey(digest=sha256(API_KEY), application=MOBILE, **fields)


async def test_an_api_key_stands_for_an_application() -> None:
    key = a_key(scopes=frozenset({"a"}), key_type=KeyType.SANDBOX)
    identity = await identity_of(Deciding(a_catalog_for(api_keys=[key])), keyed())
    assert (identity.application, identity.user) == (MOBILE, "alice")
    assert (identity.scopes, identity.key_type) == (frozenset({"a"}), KeyType.SANDBOX)


async def test_a_known_key_speaks_for_whom_the_catalog_says_now() -> None:
    deciding = Deciding(a_catalog_for(api_keys=[a_key()]))
    assert await identity_of(deciding, keyed()) is await identity_of(deciding, keyed())

    deciding.catalog = a_catalog_for(api_keys=[a_key(key_type=KeyType.SANDBOX)])
    assert (await identity_of(deciding, keyed())).key_type is KeyType.SANDBOX
    assert (await identity_of(deciding, keyed())).key_type is KeyType.SANDBOX

    deciding.catalog = a_catalog_for(api_keys=[])
    assert await who(deciding, keyed()) == "invalid_credentials"


@pytest.mark.parametrize("key", ["unknown", API_KEY.upper(), API_KEY + "x", sha256(API_KEY).hex()])
async def test_an_unknown_key_is_invalid(key: str) -> None:
    assert await who(Deciding(a_catalog_for()), keyed(key)) == "invalid_credentials"


@pytest.mark.parametrize(
    ("expires_at_us", "expected"),
    [
        (None, "api_key:mobile"),
        (START_US + 1, "api_key:mobile"),
        (START_US, "token_expired"),
        (START_US - 1, "token_expired"),
    ],
)
async def test_a_key_may_expire(expires_at_us: int | None, expected: str) -> None:
    deciding = Deciding(a_catalog_for(api_keys=[a_key(expires_at_us=expires_at_us)]))
    assert await who(deciding, keyed()) == expected


async def test_a_key_may_be_revoked() -> None:
    deciding = Deciding(a_catalog_for())
    assert await who(deciding, keyed()) == "api_key:mobile"
    deciding.revocations.revoke_digest(sha256(API_KEY))
    assert await who(deciding, keyed()) == "token_revoked"


@pytest.mark.parametrize(
    ("client", "expected"),
    [
        ("192.0.2.1", "api_key:mobile"),
        ("::ffff:192.0.2.1", "api_key:mobile"),
        ("2001:db8::5", "api_key:mobile"),
        ("192.0.3.1", "credential_not_permitted"),
        ("2001:db9::5", "credential_not_permitted"),
        ("", "credential_not_permitted"),
        ("nonsense", "credential_not_permitted"),
    ],
)
async def test_a_key_may_be_bound_to_networks(client: str, expected: str) -> None:
    networks = (ip_network("192.0.2.0/24"), ip_network("2001:db8::/32"))
    deciding = Deciding(a_catalog_for(api_keys=[a_key(networks=networks)]))
    assert await who(deciding, keyed(client=client)) == expected


@pytest.mark.parametrize(
    ("referer", "permitted"),
    [
        ("https://a.example", True),
        ("https://a.example/", True),
        ("https://a.example/page?x=1", True),
        ("https://a.example?x=1", True),
        ("https://b.example/shop/", True),
        ("https://b.example/shop/cart", True),
        ("https://b.example/shop?x", True),
        ("https://b.example/shop#x", True),
        ("https://b.example/shopping", False),
        ("https://b.example/", False),
        ("https://a.example.evil/", False),
        ("https://a.example@evil/", False),
        ("https://a.example:8443/", False),
        ("http://a.example/", False),
        ("https://evil/?https://a.example/", False),
        ("", False),
    ],
)
async def test_a_key_may_be_bound_to_referers(referer: str, *, permitted: bool) -> None:
    referers = ("https://a.example/", "https://b.example/shop")
    deciding = Deciding(a_catalog_for(api_keys=[a_key(referers=referers)]))
    request = a_request(headers={"x-api-key": API_KEY, "referer": referer})
    expected = "api_key:mobile" if permitted else "credential_not_permitted"
    assert await who(deciding, request) == expected


async def test_a_key_that_is_bound_to_referers_needs_one() -> None:
    deciding = Deciding(a_catalog_for(api_keys=[a_key(referers=("https://a.example",))]))
    assert await who(deciding, keyed()) == "credential_not_permitted"


@pytest.mark.parametrize(
    ("pepper", "expected"),
    [
        ("the pepper", "api_key:mobile"),
        ("another", "invalid_credentials"),
        (None, "invalid_credentials"),
    ],
)
async def test_keys_may_be_stored_under_a_pepper(pepper: str | None, expected: str) -> None:
    stored = hmac.digest(b"the pepper", API_KEY.encode(), "sha256")
    key = ApiKey(digest=stored, application=MOBILE)
    deciding = Deciding(
        a_catalog_for(api_keys=[key]), pepper=None if pepper is None else Secret(pepper)
    )
    assert await who(deciding, keyed()) == expected


async def test_with_a_pepper_plain_digests_are_still_known() -> None:
    deciding = Deciding(a_catalog_for(), pepper=Secret("the pepper"))
    assert await who(deciding, keyed()) == "api_key:mobile"


async def test_a_key_of_any_characters_is_just_unknown() -> None:
    deciding = Deciding(a_catalog_for(), pepper=Secret("the pepper"))
    assert await who(deciding, keyed("\ud800\0é")) == "invalid_credentials"


# Guessing


GUESSES = [keyed("guess"), bearer("guess"), bearer(a_jwt(key=rsa_key("another")))]


@pytest.mark.parametrize("guess", GUESSES)
async def test_a_good_signature_is_no_guess(guess: ApiRequest) -> None:
    """Behind a shared address, one bad neighbour must not lock everybody out."""
    deciding = knowing(Deciding(a_catalog_for(), failure_limit=TWO_FAILURES))
    for _ in range(3):
        await identify(deciding, guess)
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"
    assert await who(deciding, guess) == "rate_limited"


async def test_a_guess_in_a_jwts_form_does_not_make_its_issuer_be_asked_for_ever() -> None:
    issuer = an_issuer(keys=None, introspection=OPAQUE_ENDPOINT)
    deciding = Deciding(a_catalog_for(issuers=(issuer,)), failure_limit=TWO_FAILURES)
    outcomes = [await who(deciding, bearer(a_jwt(jti=str(number)))) for number in range(4)]
    assert outcomes == ["token_inactive"] * 2 + ["rate_limited"] * 2
    assert deciding.introspector.asked == 2


@pytest.mark.parametrize("guess", GUESSES)
@pytest.mark.parametrize("good", [keyed(), bearer("opaque")])
async def test_who_guesses_too_often_is_not_looked_at_any_more(
    guess: ApiRequest, good: ApiRequest
) -> None:
    deciding = knowing(Deciding(a_catalog_for(), failure_limit=TWO_FAILURES))
    for _ in range(2):
        assert await who(deciding, guess) in ("invalid_credentials", "token_inactive")
    assert await who(deciding, guess) == "rate_limited"
    # What is good, but was not seen before, is not told from a guess.
    assert await who(deciding, good) == "rate_limited"
    found = await identify(deciding, good)
    assert isinstance(found, Denial) and found.level is not None
    assert found.level.value == "client" and found.retry_after_us > 0


async def test_somebody_else_is_not_affected() -> None:
    deciding = Deciding(a_catalog_for(), failure_limit=TWO_FAILURES)
    for _ in range(3):
        await identify(deciding, keyed("guess"))
    assert await who(deciding, keyed(client="192.0.2.2")) == "api_key:mobile"


@pytest.mark.parametrize("good", [keyed(), bearer(a_jwt()), bearer("opaque")])
async def test_what_was_good_a_moment_ago_still_is(good: ApiRequest) -> None:
    deciding = knowing(Deciding(a_catalog_for(), failure_limit=TWO_FAILURES))
    before = await who(deciding, good)
    for _ in range(3):
        await identify(deciding, keyed("guess"))
    assert await who(deciding, keyed("guess")) == "rate_limited"
    assert await who(deciding, good) == before


async def test_a_key_that_is_gone_from_the_catalog_is_a_guess_again() -> None:
    deciding = Deciding(a_catalog_for(), failure_limit=TWO_FAILURES)
    assert await who(deciding, keyed()) == "api_key:mobile"
    deciding.catalog = a_catalog_for(api_keys=[])
    outcomes = [await who(deciding, keyed()) for _ in range(3)]
    assert outcomes == ["invalid_credentials", "invalid_credentials", "rate_limited"]


@pytest.mark.parametrize(
    "request_",
    [
        a_request(),
        a_request(headers={"authorization": "Basic dTpw"}),
        bearer(a_jwt(exp=START_S - 100)),
        a_request(headers=[("x-api-key", "a"), ("x-api-key", "b")]),
    ],
)
async def test_what_is_no_guess_is_not_counted(request_: ApiRequest) -> None:
    deciding = Deciding(a_catalog_for(), failure_limit=TWO_FAILURES)
    for _ in range(5):
        assert await who(deciding, request_) != "rate_limited"
    assert await who(deciding, keyed()) == "api_key:mobile"


async def test_a_site_of_ipv6_is_one_guesser() -> None:
    deciding = Deciding(a_catalog_for(), failure_limit=TWO_FAILURES)
    for number in range(2):
        await identify(deciding, keyed("guess", client=f"2001:db8::{number}"))
    assert await who(deciding, keyed(client="2001:db8::77")) == "rate_limited"
    assert await who(deciding, keyed(client="2001:db8:0:1::77")) == "api_key:mobile"


async def test_a_full_counter_store_does_not_stop_authentication() -> None:
    deciding = Deciding(a_catalog_for(), failure_limit=TWO_FAILURES, max_failures=0)
    for _ in range(4):
        assert await who(deciding, keyed("guess")) == "invalid_credentials"
    assert await who(deciding, keyed()) == "api_key:mobile"


@pytest.mark.parametrize(
    "secret",
    [
        "a" * (MAX_TOKEN_BYTES + 1),
        a_jwt(padding="x" * MAX_TOKEN_BYTES),
        "....",
        "a.b.c",
        "e30." * 3,
        "\0",
        "é\ud800",
        "{}",
        "Bearer x",
    ],
)
@pytest.mark.parametrize("request_of", [bearer, keyed])
async def test_rubbish_is_refused_and_not_undecided(secret: str, request_of: Any) -> None:
    reason = await who(Deciding(a_catalog_for()), request_of(secret))
    assert reason in ("invalid_credentials", "token_inactive", "missing_credentials")


# Audiences of an API


@pytest.mark.parametrize(
    ("audience", "expected"),
    [
        (["httpbin", "shop"], "jwt:mobile"),
        (["httpbin"], "audience_not_allowed"),
        ("httpbin", "audience_not_allowed"),
        (["httpbin", "SHOP"], "audience_not_allowed"),
    ],
)
async def test_an_api_may_ask_for_tokens_of_its_own(audience: Any, expected: str) -> None:
    api = {"audiences": frozenset({"shop", "store"})}
    deciding = Deciding(a_catalog_for(JWT, KEY, api=api))
    for _ in range(2):  # from the cache, too
        assert await who(deciding, bearer(a_jwt(aud=audience))) == expected
    assert await who(deciding, keyed()) == "api_key:mobile"


async def test_an_opaque_token_is_for_an_api_only_when_its_issuer_says_so() -> None:
    api = {"audiences": frozenset({"shop"})}
    issuer = an_issuer(introspection=OPAQUE_ENDPOINT, audiences=frozenset())
    deciding = Deciding(a_catalog_for(OPAQUE, api=api, issuers=(issuer,)))
    knowing(deciding, "mine", aud="shop")
    knowing(deciding, "other")
    knowing(deciding, "silent", aud=None)
    found = [await who(deciding, bearer(token)) for token in ("mine", "other", "silent")]
    assert found == ["opaque:mobile", "audience_not_allowed", "audience_not_allowed"]


@pytest.mark.parametrize("padded", [False, True])
async def test_a_jwt_may_be_revoked_by_its_signature(padded: bool) -> None:  # noqa: FBT001
    deciding = Deciding(a_catalog_for(JWT))
    token = a_jwt(padded=padded)
    assert await who(deciding, bearer(token)) == "jwt:mobile"
    signature = token.rpartition(".")[2]
    catalog = {"revoked_tokens": [{"signature": signature}]}
    deciding.revocations.replace("catalog", load(catalog).revoked)
    assert await who(deciding, bearer(token)) == "token_revoked"
    assert await who(deciding, bearer(token.rstrip("="))) == "token_revoked"
