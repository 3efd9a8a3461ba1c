"""Whom a bearer token speaks for, how long that is believed, and what ends it."""

from __future__ import annotations

import gc
import logging
import re
from dataclasses import replace
from typing import Any

import pytest

from extauthz.errors import IntrospectionError, IntrospectionShareError, KeySourceError
from extauthz.model.catalog import (
    Catalog,
    ClientRegistration,
    RevokedToken,
)
from extauthz.model.decision import Denial
from extauthz.model.identity import KeyType, SecurityScheme
from extauthz.policy.authentication.tokens import token_digest
from extauthz.policy.authentication.verification_keys import read_jwks
from tests.builders import (
    START_US,
    S,
)
from tests.deciding import OPAQUE_ENDPOINT, Deciding
from tests.keys import ISSUER, START_S, a_jwk, a_jwks, a_jwt, an_issuer, base64url, rsa_key
from tests.policy.authentication.identifying import (
    JWT,
    MOBILE,
    OPAQUE,
    WEB,
    a_catalog_for,
    bearer,
    identify,
    identity_of,
    knowing,
    who,
)

# JWTs


async def test_a_token_says_who_asks() -> None:
    identity = await identity_of(Deciding(a_catalog_for()), bearer(a_jwt()))
    assert (identity.scheme, identity.application) == (JWT, MOBILE)
    assert (identity.user, identity.consumer_key, identity.issuer) == ("alice", "abc123", ISSUER)
    assert identity.scopes == frozenset({"scope_ip", "scope_headers"})
    assert identity.key_type is KeyType.PRODUCTION
    assert identity.expires_at_us == (START_S + 300) * S
    assert identity.token_id == "token-1"


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (a_jwt(key=rsa_key("another")), "invalid_credentials"),
        (a_jwt(kid="k2"), "invalid_credentials"),
        (a_jwt(iss="https://other/"), "invalid_credentials"),
        (a_jwt(iss=...), "invalid_credentials"),
        (a_jwt(iss=["https://idp.example/"]), "invalid_credentials"),
        (a_jwt(aud="other"), "invalid_credentials"),
        (a_jwt(sub=5), "invalid_credentials"),
        (a_jwt(exp=START_S - 6), "token_expired"),
        (a_jwt(nbf=START_S + 6), "token_inactive"),
        (a_jwt()[:-3], "invalid_credentials"),
        ("e30.e30.e30", "invalid_credentials"),
        ("no-jwt", "invalid_credentials"),
        (a_jwt(azp="unknown"), "jwt:nobody"),
    ],
)
async def test_a_token_is_judged(token: str, expected: str) -> None:
    assert await who(Deciding(a_catalog_for(JWT)), bearer(token)) == expected


async def test_a_signature_that_no_key_made_is_tried_with_newer_keys_once() -> None:
    deciding = Deciding(a_catalog_for(JWT))
    token = a_jwt(key=rsa_key("next"))
    assert await who(deciding, bearer(token)) == "invalid_credentials"
    deciding.keys.newer = read_jwks(a_jwks(a_jwk(rsa_key("other"))).encode()).keys
    assert await who(deciding, bearer(token)) == "invalid_credentials"
    deciding.keys.newer = read_jwks(a_jwks(a_jwk(rsa_key("next"))).encode()).keys
    assert await who(deciding, bearer(token)) == "jwt:mobile"
    assert deciding.keys.asked_for_newer == 3


@pytest.mark.parametrize(
    "token", [a_jwt(), a_jwt(aud="other"), a_jwt(exp=START_S - 6), a_jwt(algorithm="PS256")]
)
async def test_no_other_fault_of_a_token_asks_for_newer_keys(token: str) -> None:
    deciding = Deciding(a_catalog_for(JWT))
    await identify(deciding, bearer(token))
    assert deciding.keys.asked_for_newer == 0


async def test_the_consumer_key_of_the_issuer_counts_before_that_of_any() -> None:
    keys = {
        ("", "abc123"): ClientRegistration(application=MOBILE),
        (ISSUER, "abc123"): ClientRegistration(application=WEB),
        ("https://other/", "abc123"): ClientRegistration(application=MOBILE),
    }
    deciding = Deciding(a_catalog_for(consumer_keys=keys))
    assert await who(deciding, bearer(a_jwt())) == "jwt:web"


async def test_a_consumer_key_of_another_issuer_is_nobody() -> None:
    keys = {("https://other/", "abc123"): ClientRegistration(application=MOBILE)}
    assert await who(Deciding(a_catalog_for(consumer_keys=keys)), bearer(a_jwt())) == "jwt:nobody"


async def test_an_issuer_of_opaque_tokens_only_takes_no_jwt() -> None:
    issuer = an_issuer(keys=None, introspection=OPAQUE_ENDPOINT)
    deciding = Deciding(a_catalog_for(JWT, issuers=(issuer,)))
    assert await who(deciding, bearer(a_jwt())) == "invalid_credentials"
    assert deciding.keys.asked == []


async def test_missing_keys_are_no_verdict() -> None:
    deciding = Deciding(a_catalog_for())
    deciding.keys.error = KeySourceError("away")
    with pytest.raises(KeySourceError):
        await identify(deciding, bearer(a_jwt()))
    deciding.keys.error = None
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        (a_jwt(aud="other"), "invalid_credentials"),
        (a_jwt(exp=START_S - 6), "token_expired"),
        (a_jwt(exp=...), "invalid_credentials"),
        (a_jwt(algorithm="PS256"), "invalid_credentials"),
        (f"{base64url({'alg': 'none'})}.{base64url({'iss': ISSUER})}.", "invalid_credentials"),
        (a_jwt(typ="ID"), "invalid_credentials"),
    ],
)
async def test_what_no_key_makes_good_is_denied_while_keys_are_away(
    token: str, expected: str
) -> None:
    deciding = Deciding(a_catalog_for())
    deciding.keys.error = KeySourceError("away")
    assert await who(deciding, bearer(token)) == expected


# The cache


async def test_a_token_is_verified_once() -> None:
    deciding = Deciding(a_catalog_for())
    for _ in range(3):
        assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"
    assert len(deciding.keys.asked) == 1


async def test_a_token_that_is_no_good_is_judged_each_time() -> None:
    deciding = Deciding(a_catalog_for())
    for _ in range(2):
        assert await who(deciding, bearer(a_jwt(aud="other"))) == "invalid_credentials"
    assert len(deciding.keys.asked) == 2


async def test_keys_that_come_back_do_not_matter_to_a_token_that_is_known() -> None:
    deciding = Deciding(a_catalog_for())
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"
    deciding.keys.error = KeySourceError("away")
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"


async def test_a_known_token_ends_with_its_expiry_and_leeway() -> None:
    deciding = Deciding(a_catalog_for())
    token = a_jwt(exp=START_S + 60)
    assert await who(deciding, bearer(token)) == "jwt:mobile"
    deciding.clock.advance(64.999)
    assert await who(deciding, bearer(token)) == "jwt:mobile"
    deciding.clock.advance(0.001)
    assert await who(deciding, bearer(token)) == "token_expired"


async def test_a_token_is_looked_at_again_when_its_time_in_the_cache_is_over() -> None:
    deciding = Deciding(a_catalog_for(issuers=(an_issuer(ttl_us=60 * S),)))
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"
    deciding.clock.advance(60)
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"
    assert len(deciding.keys.asked) == 2


async def test_a_token_is_looked_at_again_when_the_clock_was_set_back() -> None:
    deciding = Deciding(a_catalog_for(issuers=(an_issuer(ttl_us=60 * S),)))
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"
    deciding.clock.advance(-1)
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"
    assert len(deciding.keys.asked) == 2


async def test_the_cache_is_bounded() -> None:
    deciding = Deciding(a_catalog_for(), cache_size=2)
    tokens = [a_jwt(jti=f"t{number}") for number in range(3)]
    for token in (*tokens, tokens[0]):
        assert await who(deciding, bearer(token)) == "jwt:mobile"
    assert len(deciding.keys.asked) == 4
    assert await who(deciding, bearer(tokens[0])) == "jwt:mobile"
    cached = deciding.authenticator.tokens
    assert len(cached._verified) == 2
    assert (cached.hits, cached.misses) == (1, 4)


async def test_a_token_keeps_no_catalog_alive() -> None:
    deciding = Deciding(a_catalog_for())
    for number in range(3):
        deciding.catalog = a_catalog_for()
        assert await who(deciding, bearer(a_jwt(jti=f"t{number}"))) == "jwt:mobile"
    remembered = gc.get_referents(*deciding.authenticator.tokens._verified._values.values())
    assert remembered and not any(isinstance(value, Catalog) for value in remembered)


async def test_a_known_token_stands_for_what_the_new_catalog_says() -> None:
    deciding = Deciding(a_catalog_for())
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"
    deciding.catalog = a_catalog_for(application=replace(MOBILE, name="renamed"))
    assert await who(deciding, bearer(a_jwt())) == "jwt:renamed"
    deciding.catalog = a_catalog_for(consumer_keys={})
    assert await who(deciding, bearer(a_jwt())) == "jwt:nobody"
    assert len(deciding.keys.asked) == 1


async def test_two_catalogs_at_once_are_not_mixed_up() -> None:
    old, new = a_catalog_for(), a_catalog_for(consumer_keys={})
    deciding = Deciding(old)
    for catalog, expected in [(old, "jwt:mobile"), (new, "jwt:nobody")] * 2:
        deciding.catalog = catalog
        assert await who(deciding, bearer(a_jwt())) == expected


@pytest.mark.parametrize(
    ("changed", "expected", "asked"),
    [
        ({"audiences": frozenset({"other"})}, "invalid_credentials", 2),
        ({"algorithms": ("ES256",)}, "invalid_credentials", 1),
        ({"leeway_s": 0}, "jwt:mobile", 2),
    ],
)
async def test_a_known_token_is_judged_anew_when_its_issuers_rules_change(
    changed: dict[str, Any], expected: str, asked: int
) -> None:
    deciding = Deciding(a_catalog_for(issuers=(an_issuer(),)))
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"
    deciding.catalog = a_catalog_for(issuers=(an_issuer(**changed),))
    assert await who(deciding, bearer(a_jwt())) == expected
    assert len(deciding.keys.asked) == asked


async def test_a_known_token_is_no_good_when_its_issuer_is_gone_or_has_new_keys() -> None:
    deciding = Deciding(a_catalog_for(issuers=(an_issuer(),)))
    assert await who(deciding, bearer(a_jwt())) == "jwt:mobile"
    deciding.catalog = a_catalog_for(issuers=())
    assert await who(deciding, bearer(a_jwt())) == "invalid_credentials"
    other = an_issuer()
    assert other.keys is not None
    keys = replace(other.keys, jwks=a_jwks(a_jwk(rsa_key("another"))))
    deciding.catalog = a_catalog_for(issuers=(replace(other, keys=keys),))
    assert await who(deciding, bearer(a_jwt())) == "invalid_credentials"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("by", ["jti", "digest", "consumer", "list"])
async def test_a_revoked_token_is_refused_at_once(by: str, *, known: bool) -> None:
    deciding = Deciding(a_catalog_for())
    token = a_jwt()
    if known:
        assert await who(deciding, bearer(token)) == "jwt:mobile"
    match by:
        case "jti":
            deciding.revocations.revoke_token("token-1")
        case "digest":
            deciding.revocations.revoke_digest(token_digest(token))
        case "consumer":
            deciding.revocations.revoke_consumer("abc123", START_US)
        case _:
            deciding.revocations.replace("catalog", [RevokedToken(token_id="token-1")])
    for _ in range(2):
        assert await who(deciding, bearer(token)) == "token_revoked"


# Opaque tokens


async def test_an_opaque_token_is_shown_to_its_issuer() -> None:
    deciding = knowing(Deciding(a_catalog_for()))
    identity = await identity_of(deciding, bearer("opaque"))
    assert (identity.scheme, identity.application) == (OPAQUE, MOBILE)
    assert (identity.user, identity.scopes) == ("carol", frozenset({"a"}))
    assert await who(deciding, bearer("unknown")) == "token_inactive"


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"exp": START_S + 1}, "opaque:mobile"),
        ({"exp": START_S - 6}, "token_expired"),
        ({"aud": "other"}, "invalid_credentials"),
        ({"iss": "https://other/"}, "invalid_credentials"),
        ({"iss": ISSUER}, "opaque:mobile"),
        ({"client_id": 5}, "invalid_credentials"),
    ],
)
async def test_an_introspection_answer_is_judged(claims: dict[str, Any], expected: str) -> None:
    deciding = knowing(Deciding(a_catalog_for()), **claims)
    assert await who(deciding, bearer("opaque")) == expected


async def test_an_opaque_token_is_asked_for_once_until_its_time_is_over() -> None:
    deciding = knowing(Deciding(a_catalog_for()))
    for _ in range(3):
        assert await who(deciding, bearer("opaque")) == "opaque:mobile"
    assert deciding.introspector.asked == 1
    deciding.clock.us += OPAQUE_ENDPOINT.ttl_us
    deciding.introspector.active.clear()
    assert await who(deciding, bearer("opaque")) == "token_inactive"


@pytest.mark.parametrize(
    ("security", "token", "asked"),
    [
        ((JWT,), "opaque", 0),
        ((OPAQUE,), "opaque", 1),
        ((OPAQUE,), a_jwt(), 1),
        ((JWT, OPAQUE), a_jwt(), 0),
        ((JWT, OPAQUE), a_jwt(aud="other"), 0),
        ((OPAQUE,), a_jwt(key=rsa_key("unknown")), 1),
        ((OPAQUE,), a_jwt(iss=...), 1),
        ((OPAQUE,), ".".join([base64url(b'{"alg":"dir"}')] * 5), 1),
        # Whoever is shown another issuer's token could use it there.
        ((JWT, OPAQUE), a_jwt(iss="https://other/"), 0),
        ((OPAQUE,), a_jwt(iss="https://other/"), 0),
        ((OPAQUE,), a_jwt(iss=["https://idp.example/"]), 0),
        # Nobody signed these.
        ((JWT, OPAQUE), "eyJhbGciOiJub25lIn0.eyJpc3MiOiJub2JvZHkifQ.", 0),
        ((OPAQUE,), f"{base64url({'alg': 'nOnE'})}.{base64url({'iss': ISSUER})}.AAAA", 0),
        ((OPAQUE,), a_jwt().rpartition(".")[0] + ".", 0),
        # These are no access tokens.
        ((OPAQUE,), a_jwt(header={"typ": "Logout+JWT; a=b"}), 0),
        ((OPAQUE,), f"{base64url({'alg': 'RS256'})}.AAAA.AAAA", 0),
    ],
)
async def test_only_what_is_opaque_is_shown_to_the_issuer(
    security: tuple[SecurityScheme, ...], token: str, asked: int
) -> None:
    deciding = Deciding(a_catalog_for(*security))
    await identify(deciding, bearer(token))
    assert deciding.introspector.asked == asked


@pytest.mark.parametrize(
    "text",
    [
        *(
            "x" * 16385,
            "a b",
            "a|b",
            "a:b",
            "é",
            "\ud800",
            "\x00",
            "\x7f",
            "=",
            "a=b",
            "a%20",
            "<a>",
        ),
    ],
)
async def test_text_that_cannot_be_a_token_is_shown_to_nobody(text: str) -> None:
    deciding = knowing(Deciding(a_catalog_for(OPAQUE)), text)
    assert await who(deciding, bearer(text)) == "invalid_credentials"
    assert deciding.introspector.asked == 0


@pytest.mark.parametrize("text", ["x" * 16384, "a", "-._~+/", "a==", "../../etc/passwd", "a.b.c"])
async def test_text_of_a_token_is_asked_about(text: str) -> None:
    assert (
        await who(knowing(Deciding(a_catalog_for(OPAQUE)), text), bearer(text)) == "opaque:mobile"
    )


@pytest.mark.parametrize(
    ("security", "token", "found"),
    [
        (JWT, a_jwt(iss="https://other/"), f"iss is 'https://other/', .* '{ISSUER}'"),
        (JWT, a_jwt(iss=...), f"iss is missing, .* '{ISSUER}'"),
        (JWT, a_jwt(aud="shop"), "aud is 'shop', .* 'httpbin'"),
        (JWT, a_jwt(aud=[]), "aud is empty, .* 'httpbin'"),
        (JWT, a_jwt(sub=7), "sub is or holds no text but int"),
        (JWT, a_jwt(azp="a" * 3000), "azp has more than 2048 characters"),
        (JWT, a_jwt(scope=["a", None]), "scope is or holds no text but NoneType"),
        (JWT, a_jwt(scope=1), "scope is neither text nor an array but int"),
        (JWT, a_jwt(keytype="odd"), "keytype is neither PRODUCTION nor SANDBOX"),
        (JWT, a_jwt(algorithm="PS256"), "alg is 'PS256', .* 'RS256'"),
        (JWT, a_jwt(key=rsa_key("other")), "the kid 'k1', and 1 of"),
        (JWT, a_jwt(kid="k2"), "the kid 'k2', and 0 of"),
        (JWT, a_jwt(header={"typ": "logout+jwt"}), "typ is 'logout[+]jwt'"),
        (OPAQUE, a_jwt(iss="https://other/"), f"iss is 'https://other/', .* '{ISSUER}'"),
        (OPAQUE, a_jwt().rpartition(".")[0] + ".", "neither by keys .* nor by asking"),
    ],
)
async def test_a_denial_tells_operators_both_sides_and_clients_none(
    security: SecurityScheme, token: str, found: str
) -> None:
    denial = await identify(Deciding(a_catalog_for(security)), bearer(token))
    assert isinstance(denial, Denial)
    assert re.search(found, denial.found)
    assert not re.search(found, denial.detail)


async def test_a_good_token_that_names_no_client_is_told_of_once_by_names_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    deciding = Deciding(a_catalog_for(JWT))
    tokens = [a_jwt(azp=..., sub="private-name", jti=f"t{number}") for number in range(3)]
    with caplog.at_level(logging.INFO):
        for token in tokens:
            assert await who(deciding, bearer(token)) == "jwt:nobody"
        await identify(deciding, bearer(a_jwt(key=rsa_key("stranger"), azp=...)))
    (said,) = [record.getMessage() for record in caplog.records]
    assert "looked for 'azp', 'client_id', 'consumerKey', and it has 'aud', 'exp'," in said
    assert "private-name" not in said
    deciding.catalog = a_catalog_for(JWT)
    await identify(deciding, bearer(a_jwt(azp=..., jti="t4")))
    assert len(caplog.records) == 1 or "names its client" in caplog.records[-1].getMessage()


async def test_without_an_endpoint_an_opaque_token_is_not_known() -> None:
    deciding = Deciding(a_catalog_for(issuers=(an_issuer(),)))
    assert await who(deciding, bearer("opaque")) == "invalid_credentials"


async def test_a_token_that_is_known_by_one_scheme_is_not_taken_by_another() -> None:
    token = a_jwt()
    both = knowing(Deciding(a_catalog_for(JWT)), token)
    assert await who(both, bearer(token)) == "jwt:mobile"
    both.catalog = a_catalog_for(OPAQUE)
    both.introspector.active.clear()
    assert await who(both, bearer(token)) == "token_inactive"


async def test_an_issuer_that_is_away_is_no_verdict() -> None:
    deciding = knowing(Deciding(a_catalog_for()))
    deciding.introspector.error = IntrospectionError("away")
    with pytest.raises(IntrospectionError):
        await identify(deciding, bearer("opaque"))
    deciding.introspector.error = None
    assert await who(deciding, bearer("opaque")) == "opaque:mobile"


async def test_too_many_tokens_of_one_client_at_once_are_a_denial_and_no_outage() -> None:
    deciding = knowing(Deciding(a_catalog_for()))
    deciding.introspector.error = IntrospectionShareError("too many of one client")
    assert await who(deciding, bearer("opaque")) == "rate_limited"
    deciding.introspector.error = None
    assert await who(deciding, bearer("opaque")) == "opaque:mobile"


async def test_a_revoked_opaque_token_is_refused_at_once() -> None:
    deciding = knowing(Deciding(a_catalog_for()))
    assert await who(deciding, bearer("opaque")) == "opaque:mobile"
    deciding.revocations.revoke_digest(token_digest("opaque"))
    assert await who(deciding, bearer("opaque")) == "token_revoked"
