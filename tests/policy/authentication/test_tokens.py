from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Secret
from extauthz.model.issuers import Issuer, KeyLocation
from extauthz.policy.authentication.claim_checks import VerifiedClaims
from extauthz.policy.authentication.compact_jws import MAX_UNSIGNED_VALUES
from extauthz.policy.authentication.tokens import (
    BAD_SIGNATURE,
    MAX_TOKEN_BYTES,
    MAX_TRIED_KEYS,
    UnverifiedToken,
    check_unsigned,
    looks_like_jwt,
    read_token,
    token_digest,
    verify_token,
)
from extauthz.policy.authentication.verification_keys import NamedKey, read_jwks
from extauthz.ports import VerificationKey
from tests.builders import START_US, S
from tests.keys import (
    START_S,
    PrivateKey,
    a_jwk,
    a_jwks,
    a_jwt,
    an_issuer,
    base64url,
    claims_of,
    ec_key,
    ed25519_key,
    public_pem,
    rsa_key,
    sign_jws,
)

INVALID, EXPIRED, INACTIVE = (
    Reason.INVALID_CREDENTIALS,
    Reason.TOKEN_EXPIRED,
    Reason.TOKEN_INACTIVE,
)


def named(key: PrivateKey, algorithm: str | None = None) -> NamedKey:
    return NamedKey(key=key.public_key(), algorithm_name=algorithm, key_id="k1")


def verify(
    text: str,
    issuer: Issuer | None = None,
    keys: list[NamedKey] | None = None,
    now_us: int = START_US,
) -> VerifiedClaims | Denial:
    token = read_token(text)
    if isinstance(token, Denial):
        return token
    tried: list[NamedKey] = [named(rsa_key())] if keys is None else keys
    return verify_token(token, issuer or an_issuer(), tried, now_us)


def reason_of(outcome: object) -> Reason | None:
    return outcome.reason if isinstance(outcome, Denial) else None


def test_believes_a_good_token() -> None:
    assert verify(a_jwt()) == claims_of()


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("RS256", rsa_key),
        ("RS384", rsa_key),
        ("RS512", rsa_key),
        ("PS256", rsa_key),
        ("PS512", rsa_key),
        ("ES256", lambda: ec_key("P-256")),
        ("ES384", lambda: ec_key("P-384")),
        ("ES512", lambda: ec_key("P-521")),
        ("EdDSA", ed25519_key),
    ],
)
def test_takes_each_algorithm_with_a_key_of_its_type_only(algorithm: str, key: Any) -> None:
    issuer = an_issuer(algorithms=(algorithm,))
    token = a_jwt(key=key(), algorithm=algorithm)
    others: list[PrivateKey] = [
        rsa_key("other"),
        ec_key("P-256", "other"),
        ec_key("P-384", "other"),
    ]
    assert isinstance(verify(token, issuer, [named(key())]), dict)
    assert reason_of(verify(token, issuer, [named(other) for other in others])) is INVALID
    # Among keys of other kinds the right one is found.
    assert isinstance(verify(token, issuer, [*map(named, others), named(key())]), dict)


def test_takes_the_name_of_rfc_9864_for_an_ed25519_signature() -> None:
    token = a_jwt(key=ed25519_key(), algorithm="EdDSA", header={"alg": "Ed25519"})
    issuer = an_issuer(algorithms=("Ed25519",))
    assert isinstance(verify(token, issuer, [named(ed25519_key())]), dict)


@pytest.mark.parametrize("name", ["none", "None", "NONE", "nOnE", "", "RS257", "rs256", "HS256"])
def test_refuses_an_algorithm_that_the_issuer_does_not_use(name: str) -> None:
    assert reason_of(verify(a_jwt(header={"alg": name}))) is INVALID


@pytest.mark.parametrize("name", ["none", "None", "NONE"])
def test_refuses_alg_none_even_when_it_is_configured(name: str) -> None:
    text = f"{base64url({'alg': name})}.{base64url(claims_of())}."
    assert reason_of(verify(text, an_issuer(algorithms=(name, "RS256")))) is INVALID


def test_refuses_an_rs256_token_when_the_issuer_signs_with_es256() -> None:
    assert reason_of(verify(a_jwt(), an_issuer(algorithms=("ES256",)))) is INVALID


def test_refuses_an_hmac_made_with_the_public_keys_pem() -> None:
    pem = public_pem(rsa_key())
    text = sign_jws({"alg": "HS256"}, claims_of(), key=pem.encode(), algorithm="HS256")
    confused = an_issuer(algorithms=("RS256", "HS256"), keys=KeyLocation(pem=pem))
    keys = [named(rsa_key()), NamedKey(key=pem.encode()), NamedKey(key=pem)]
    assert reason_of(verify(text, confused, keys)) is INVALID


def test_takes_hmac_only_with_a_configured_secret_of_full_length() -> None:
    secret = "s" * 32
    location = KeyLocation(hmac_secret=Secret(secret))
    issuer = an_issuer(algorithms=("HS256", "HS384"), keys=location)
    keys = [NamedKey(key=secret.encode())]
    assert isinstance(verify(a_jwt(key=secret.encode(), algorithm="HS256"), issuer, keys), dict)
    short_for_384 = a_jwt(key=secret.encode(), algorithm="HS384")
    assert reason_of(verify(short_for_384, issuer, keys)) is INVALID


def test_refuses_a_token_signed_with_another_key_under_the_same_name() -> None:
    assert reason_of(verify(a_jwt(key=rsa_key("thief")))) is INVALID


def test_refuses_every_token_when_there_is_no_key() -> None:
    assert reason_of(verify(a_jwt(), keys=[])) is INVALID


@pytest.mark.parametrize(("others", "is_believed"), [(0, True), (1, False)])
def test_tries_no_more_keys_than_a_rotation_has(others: int, *, is_believed: bool) -> None:
    key = NamedKey(key=rsa_key("0").public_key(), algorithm_name=None, key_id=None)
    other = NamedKey(key=rsa_key("1").public_key(), algorithm_name=None, key_id=None)
    unfit = NamedKey(key=ec_key().public_key(), algorithm_name=None, key_id=None)
    keys = [unfit] * 9 + [other] * (MAX_TRIED_KEYS - 1 + others) + [key]
    found = verify(a_jwt(key=rsa_key("0")), keys=keys)
    assert isinstance(found, Denial) is not is_believed
    if isinstance(found, Denial):
        assert found.reason is INVALID and "names no key" in found.detail


def test_refuses_small_rsa_keys() -> None:
    small = rsa_key("small", bits=1024)
    assert reason_of(verify(a_jwt(key=small), keys=[named(small)])) is INVALID


def test_uses_a_key_only_with_the_algorithm_that_it_was_published_for() -> None:
    issuer = an_issuer(algorithms=("RS256", "PS256"))
    token = a_jwt(algorithm="PS256")
    assert isinstance(verify(token, issuer, [named(rsa_key(), "PS256")]), dict)
    assert reason_of(verify(token, issuer, [named(rsa_key(), "RS256")])) is INVALID


@pytest.mark.parametrize("where", ["jwk", "jku", "x5u", "x5c"])
def test_never_uses_a_key_that_the_token_brings_along(where: str) -> None:
    thief = rsa_key("thief")
    brought: dict[str, Any] = {
        "jwk": a_jwk(thief),
        "jku": "https://thief.example/jwks",
        "x5u": "https://thief.example/cert",
        "x5c": ["MIIB"],
    }
    assert reason_of(verify(a_jwt(key=thief, header={where: brought[where]}))) is INVALID
    # It is ignored, not fatal: the issuer's own signature still counts.
    assert isinstance(verify(a_jwt(header={where: brought[where]})), dict)


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"crit": []},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": 1},
        {"typ": "logout+jwt"},
        {"typ": "application/dpop+jwt"},
        {"typ": "LOGOUT+JWT"},
        {"typ": " logout+jwt "},
        {"typ": "logout+jwt; charset=utf-8"},
        {"typ": "Application/Logout+JWT ;a=b"},
        {"typ": "logout+jwt\u200b"},
        {"typ": "text/plain"},
        {"typ": "Refresh"},
        {"typ": "ID"},
        {"typ": 1},
        {"kid": 1},
        {"kid": ["k1"]},
        {"alg": 1},
        {"alg": None},
        {"alg": ["RS256"]},
    ],
)
def test_refuses_a_genuine_token_with_a_header_that_it_cannot_honour(
    header: dict[str, Any],
) -> None:
    assert reason_of(verify(a_jwt(header=header))) is INVALID


@pytest.mark.parametrize(
    "typ",
    [
        *("JWT", "jwt", "at+jwt", "application/at+jwt", "Bearer", "JOSE"),
        *(" at+jwt ", "AT+JWT", "Application/AT+JWT; charset=UTF-8", "at+jwt;a", "", None),
    ],
)
def test_takes_the_types_that_access_tokens_have(typ: str | None) -> None:
    assert isinstance(verify(a_jwt(header={"typ": typ})), dict)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        # Leeway is 5 s; RFC 7519: "on or after" its expiry a token is not accepted.
        ({"exp": START_S - 120}, EXPIRED),
        ({"exp": START_S - 5}, EXPIRED),
        ({"exp": START_S - 4}, None),
        ({"exp": START_S - 4.999999}, None),
        ({"exp": START_S - 5.000001}, EXPIRED),
        ({"exp": START_S + 0.05}, None),
        ({"exp": float(START_S + 60)}, None),
        ({"exp": 0}, EXPIRED),
        ({"exp": -1}, EXPIRED),
        ({"exp": 10**400}, None),
        ({"exp": 1.7e308}, None),
        ({"exp": -(10**400)}, EXPIRED),
        ({"exp": ...}, INVALID),
        ({"exp": None}, INVALID),
        ({"exp": True}, INVALID),
        ({"exp": str(START_S + 60)}, INVALID),
        ({"exp": [START_S + 60]}, INVALID),
        ({"exp": {}}, INVALID),
        ({"exp": NAN}, INVALID),
        ({"exp": INF}, INVALID),
        ({"nbf": START_S}, None),
        ({"nbf": START_S + 5}, None),
        ({"nbf": START_S + 6}, INACTIVE),
        ({"nbf": 10**400}, INACTIVE),
        ({"nbf": "0"}, INVALID),
        ({"nbf": None}, None),
        ({"nbf": False}, INVALID),
        ({"iat": ...}, None),
        ({"iat": None}, None),
        ({"iat": START_S + 5}, None),
        ({"iat": START_S + 6}, INVALID),
        ({"iat": "now"}, INVALID),
        ({"iss": "https://idp.example"}, INVALID),
        ({"iss": "HTTPS://IDP.EXAMPLE/"}, INVALID),
        ({"iss": ...}, INVALID),
        ({"iss": None}, INVALID),
        ({"iss": ["https://idp.example/"]}, INVALID),
        ({"iss": {"https://idp.example/": 1}}, INVALID),
        ({"aud": "other"}, INVALID),
        ({"aud": "httpbin "}, INVALID),
        ({"aud": ["other", "httpbin"]}, None),
        ({"aud": ["other"]}, INVALID),
        ({"aud": []}, INVALID),
        ({"aud": ...}, INVALID),
        ({"aud": None}, INVALID),
        ({"aud": ["httpbin", 1]}, INVALID),
        ({"aud": {"httpbin": True}}, INVALID),
    ],
)
def test_judges_each_claim_of_a_genuine_token(
    claims: dict[str, Any], expected: Reason | None
) -> None:
    assert reason_of(verify(a_jwt(**claims))) is expected


@pytest.mark.parametrize(
    "number", ["1e999", "-1e999", "NaN", "Infinity", "9" * 5000, "9" * 513, "1" + "0" * 511]
)
def test_never_raises_for_numbers_that_python_finds_hard(number: str) -> None:
    payload = json.dumps(claims_of(exp=0)).replace('"exp": 0', f'"exp": {number}')
    assert number in payload
    outcome = verify(sign_jws({"alg": "RS256"}, payload.encode()))
    # A whole number of 512 digits is a time far away; all others are no times.
    assert reason_of(outcome) is (None if number.startswith("10") else INVALID)


def test_an_issuer_without_audiences_takes_any_audience() -> None:
    issuer = an_issuer(audiences=frozenset())
    for audience in ("anyone", ["a", "b"], ...):
        assert isinstance(verify(a_jwt(aud=audience), issuer), dict)


@pytest.mark.parametrize(
    ("audiences", "audience", "expected"),
    [(("foo", "bac"), ["foo", "bar"], None), (("aud1",), ["wrong", "audience"], INVALID)],
)
def test_one_common_audience_is_enough(
    audiences: tuple[str, ...], audience: list[str], expected: Reason | None
) -> None:
    assert (
        reason_of(verify(a_jwt(aud=audience), an_issuer(audiences=frozenset(audiences))))
        is expected
    )


def test_a_wider_leeway_bears_more_clock_skew() -> None:
    token = a_jwt(nbf=START_S + 9, iat=START_S + 9, exp=START_S + 2)
    assert reason_of(verify(token)) is INACTIVE
    assert isinstance(verify(token, an_issuer(leeway_s=10)), dict)


def test_says_expired_only_of_a_token_with_a_good_signature() -> None:
    forged = a_jwt(key=rsa_key("thief"), exp=START_S - 100)
    assert reason_of(verify(forged)) is INVALID


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "no-dots-at-all",
        "a" * 1_000_000,
        "eyJhbGciOiJSUzI1NiJ9." * 50_000,
        f"{base64url({'alg': 'RS256'})}.{base64url(claims_of())}",
        a_jwt() + ".",
        a_jwt() + ".AAAA",
        a_jwt() + ".AAAA.AAAA",
        a_jwt() + "\n",
        "\n" + a_jwt(),
        " " + a_jwt(),
        a_jwt().replace(".", ".\n", 1),
        a_jwt().replace(".", "=.", 1),
        a_jwt().replace(".", "====.", 1),
        a_jwt() + "=",
        a_jwt() + "===",
        a_jwt()[:-2] + "+/",
        a_jwt() + "\u0000",
        "é" + a_jwt(),
        a_jwt().replace("e", "е"),  # noqa: RUF001  # a Cyrillic letter that looks the same
        a_jwt() + "\ud800",
        sign_jws(b"[]", claims_of()),
        sign_jws(b'"RS256"', claims_of()),
        sign_jws(b"{}", claims_of()),
        sign_jws(b"", claims_of()),
        sign_jws(b"\xff\xfe", claims_of()),
        sign_jws(b'\xef\xbb\xbf{"alg":"RS256"}', claims_of()),
        sign_jws('{"alg":"RS256"}'.encode("utf-16"), claims_of()),
        sign_jws({"alg": "RS256"}, b"null"),
        sign_jws({"alg": "RS256"}, b"[1]"),
        sign_jws({"alg": "RS256"}, b"{"),
        sign_jws(b'{"alg":"RS256","alg":"RS256"}', claims_of()),
        sign_jws({"alg": "RS256"}, json.dumps(claims_of())[:-1].encode() + b',"exp":9999999999}'),
        sign_jws({"alg": "RS256"}, json.dumps(claims_of())[:-1].encode() + b',"x":{"a":1,"a":2}}'),
        sign_jws({"alg": "RS256"}, json.dumps(claims_of(sub="\ud800")).encode()),
        sign_jws({"alg": "RS256"}, b'{"a":' * 2000 + b"1" + b"}" * 2000),
        sign_jws({"alg": "RS256"}, b'{"a":' + b"[" * 6000 + b"]" * 6000 + b"}"),
        sign_jws(b"[" * 10_000, claims_of()),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_refuses_what_is_not_a_well_formed_jwt(text: str) -> None:
    assert reason_of(verify(text)) is INVALID


def test_takes_a_large_token_and_refuses_one_over_the_bound() -> None:
    room = MAX_TOKEN_BYTES - len(a_jwt(filler="")) - 8
    assert isinstance(verify(a_jwt(filler="x" * (room * 3 // 4))), dict)
    assert reason_of(verify(a_jwt(filler="x" * room))) is INVALID


def test_refuses_a_token_that_was_cut_anywhere() -> None:
    text = a_jwt(key=ec_key(), algorithm="ES256")
    issuer, keys = an_issuer(algorithms=("ES256",)), [named(ec_key())]
    assert isinstance(verify(text, issuer, keys), dict)
    for length in range(len(text)):
        assert reason_of(verify(text[:length], issuer, keys)) is INVALID, length


def test_refuses_a_token_with_any_character_changed() -> None:
    text = a_jwt(key=ec_key(), algorithm="ES256")
    issuer, keys = an_issuer(algorithms=("ES256",)), [named(ec_key())]
    for at, character in enumerate(text):
        changed = text[:at] + ("A" if character != "A" else "B") + text[at + 1 :]
        assert reason_of(verify(changed, issuer, keys)) is INVALID, at


def test_refuses_a_signature_whose_unused_bits_are_set() -> None:
    text = a_jwt()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(text[-1])
    # 256 bytes end in 4 bits that nobody reads.
    assert last % 16 == 0
    for unused in range(1, 16):
        assert reason_of(verify(text[:-1] + alphabet[last + unused])) is INVALID


def test_takes_padded_base64url_as_wso2_writes_it() -> None:
    written = [a_jwt(padded=True, filler="x" * length) for length in range(3)]
    assert all(isinstance(verify(text), dict) for text in written)
    assert any("=." in text for text in written)


def test_reads_who_to_ask_without_believing_anything() -> None:
    token = read_token(a_jwt(key=rsa_key("thief"), kid="k7"))
    assert isinstance(token, UnverifiedToken)
    assert (token.algorithm, token.key_id, token.issuer) == ("RS256", "k7", "https://idp.example/")
    assert "abc123" not in repr(token)
    for odd in (..., None, 1, ["x"]):
        unnamed = read_token(a_jwt(iss=odd, kid=None))
        assert isinstance(unnamed, UnverifiedToken)
        assert (unnamed.issuer, unnamed.key_id) == ("", None)


def write_large(text: str) -> bytes:
    """Claims that hold more values than are read before the signature, around these."""
    many = ",".join(["1"] * MAX_UNSIGNED_VALUES)
    return f'{{"before":[{many}],{text},"after":{{"iss ":"x"}}}}'.encode()


GOOD = f'"aud":"httpbin","exp":{START_S + 300}'


@pytest.mark.parametrize(
    ("text", "issuer"),
    [
        (r'"iss" : "https:\/\/idp.example\u002f"', "https://idp.example/"),
        ('"iss":"a","act":{"iss":"a"}', "a"),
        (r'"x":"\"iss\":\"b","iss":"a","y\"iss":"c"', "a"),
        ('"x":["iss","iss"]', ""),
        ('"iss":null', ""),
        ('"iss":["a"]', ""),
        ('"iss":5', ""),
    ],
)
def test_finds_the_issuer_of_many_claims_before_it_reads_them(text: str, issuer: str) -> None:
    token = read_token(sign_jws({"alg": "RS256"}, write_large(text)))
    assert isinstance(token, UnverifiedToken)
    assert (token.issuer, token.claims) == (issuer, None)


@pytest.mark.parametrize(
    "text", ['"iss":"a","act":{"iss":"b"}', ",".join(f'"{n}":{{"iss":"a"}}' for n in range(5))]
)
def test_refuses_many_claims_that_name_several_issuers_or_one_many_times(text: str) -> None:
    assert reason_of(read_token(sign_jws({"alg": "RS256"}, write_large(text)))) is INVALID


def test_believes_a_token_with_the_most_groups_roles_and_certificates_that_fit() -> None:
    claims = claims_of(
        groups=[f"00000000-0000-0000-0000-{number:012d}" for number in range(120)],
        resource_access={f"client-{n}": {"roles": ["reader"]} for n in range(60)},
    )
    chain = {"x5c": ["A" * 1_000] * 3, "x5t": "a" * 27}
    assert isinstance(verify(sign_jws({"alg": "RS256", "kid": "k1", **chain}, claims)), dict)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f'"iss":"https://idp.example/",{GOOD}', None),
        (f'"iss":"https://idp.example/",{GOOD},"nbf":{START_S + 60}', INACTIVE),
        (f'"iss":"https://idp.example/",{GOOD},"aud":"httpbin"', INVALID),
        (f'"act":{{"iss":"https://idp.example/"}},{GOOD}', INVALID),
        (f'"act":{{"iss":"https://idp.example/"}},"\\u0069ss":"b",{GOOD}', INVALID),
        (f'"iss":"https://idp.example/",{GOOD},"broken"', INVALID),
    ],
)
def test_many_claims_are_read_once_the_signature_is_good(text: str, reason: Reason | None) -> None:
    genuine = sign_jws({"alg": "RS256"}, write_large(text))
    assert reason_of(verify(genuine)) is reason
    forged = sign_jws({"alg": "RS256"}, write_large(text), key=rsa_key("thief"))
    assert verify(forged) is BAD_SIGNATURE


def test_claims_that_are_not_read_before_the_signature_are_no_reason_for_an_outage() -> None:
    token = read_token(
        sign_jws({"alg": "RS256"}, write_large(f'"iss":"https://idp.example/",{GOOD}'))
    )
    assert isinstance(token, UnverifiedToken)
    assert reason_of(check_unsigned(token, an_issuer(), START_US)) is INVALID


@pytest.mark.parametrize(
    "header",
    [
        {"x5c": ["A" * 8_200]},
        {f"m{number}": 1 for number in range(70)},
        {"x": [[]] * 70},
        {"x": 10**600},
    ],
)
def test_refuses_headers_that_take_long_to_read(header: dict[str, Any]) -> None:
    assert reason_of(read_token(sign_jws({"alg": "RS256", **header}, claims_of()))) is INVALID


def test_no_denial_tells_the_client_what_the_token_says() -> None:
    for token in (a_jwt(iss="https://secret.example/"), a_jwt(exp=1), a_jwt(header={"alg": "odd"})):
        outcome = verify(token)
        assert isinstance(outcome, Denial)
        assert outcome.detail.startswith("The token")
        for told in ("secret", "odd", "abc123", token[:10]):
            assert told not in outcome.detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (a_jwt(), True),
        (a_jwt(padded=True), True),
        (a_jwt(header={"alg": "none"}), True),
        (sign_jws(b' {"alg":"RS256"}', claims_of()), True),
        ("06d2d3a7-32fc-3fa8-8d9a-5f1c1b1c3f6e", False),
        ("opaque.with.dots", False),
        ("a.b", False),
        (a_jwt() + ".AAAA.AAAA", False),
        (a_jwt() + "\n", False),
        ("x" * 1_000_000, False),
        ("", False),
    ],
)
def test_tells_a_jwt_from_an_opaque_token_by_its_form(text: str, *, expected: bool) -> None:
    assert looks_like_jwt(text) is expected


def test_every_way_to_write_a_signature_has_the_same_digest() -> None:
    text = a_jwt()
    other = a_jwt(key=rsa_key("other"))
    assert token_digest(text) == token_digest(text + "==") == token_digest(other)
    assert token_digest(text) != token_digest(a_jwt(jti="token-2"))
    assert token_digest("opaque.with.dots") != token_digest("opaque.with.other")


def test_leaves_out_keys_that_may_not_verify_signatures() -> None:
    main = rsa_key()
    kept = read_jwks(
        a_jwks(
            a_jwk(main, "good"),
            a_jwk(main, "good-ops", key_ops=["verify"], alg="PS256"),
            a_jwk(main, "nulls", use=None, key_ops=None, alg=None, d=None, x5c=None),
            a_jwk(main, "enc", use="enc"),
            a_jwk(main, "ops", key_ops=["sign"]),
            a_jwk(main, "ops-text", key_ops="verify"),
            a_jwk(main, "oaep", alg="RSA-OAEP"),
            a_jwk(main, "hmac", alg="HS256"),
            a_jwk(main, "private", d="AQAB"),
            a_jwk(main, "no-n", n=5),
            a_jwk(main, "bad-n", n="!"),
            {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
            {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
            {"kty": "OKP", "crv": "X25519", "x": "AA"},
            {"kid": "empty"},
            a_jwk(rsa_key("small", bits=1024), "small"),
        ).encode()
    )
    assert [key.key_id for key in kept.keys] == ["good", "good-ops", "nulls"]
    assert kept.keys[1].algorithm_name == "PS256"
    assert len(kept.left_out) == 13


@pytest.mark.parametrize(
    "raw",
    [b"", b"[]", b"{}", b'{"keys":{}}', b'{"keys":[],"keys":[]}', a_jwks(*[{}] * 101).encode()],
)
def test_refuses_what_is_not_a_key_set(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r"JSON|keys"):
        read_jwks(raw)


def test_key_search_falls_back_to_keys_without_a_name() -> None:
    keys = read_jwks(a_jwks(a_jwk(rsa_key(), "a"), a_jwk(ec_key(), None)).encode())
    assert [key.key_id for key in keys.find("a")] == ["a"]
    assert [key.key_id for key in keys.find("b")] == [None]
    assert [key.key_id for key in keys.find(None)] == ["a", None]


FORMS = st.one_of(
    st.text(),
    st.binary().map(lambda raw: raw.decode("latin-1")),
    st.builds(
        lambda header, payload, signature: ".".join(map(base64url, (header, payload, signature))),
        st.one_of(st.binary(), st.dictionaries(st.sampled_from(["alg", "kid", "typ"]), st.text())),
        st.one_of(st.binary(), st.dictionaries(st.sampled_from(["iss", "exp"]), st.integers())),
        st.binary(),
    ),
    st.builds(
        lambda text, at, inserted: text[:at] + inserted + text[at:],
        st.sampled_from([a_jwt(), a_jwt(padded=True)]),
        st.integers(min_value=0, max_value=900),
        st.text(min_size=1),
    ),
)


@given(FORMS)
def test_no_stranger_s_text_raises_or_passes(text: str) -> None:
    keys: list[VerificationKey] = [named(rsa_key()), named(ec_key()), named(ed25519_key())]
    issuer = replace(an_issuer(), algorithms=("RS256", "ES256", "EdDSA", "none", ""))
    looks_like_jwt(text)
    token_digest(text)
    token = read_token(text)
    if isinstance(token, UnverifiedToken) and text.rstrip("=") != a_jwt():
        assert isinstance(verify_token(token, issuer, keys, START_US), Denial)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)


@given(JSON_VALUES, JSON_VALUES, JSON_VALUES)
def test_claims_of_any_type_never_raise_and_pass_only_with_a_future_expiry(
    exp: Any, nbf: Any, aud: Any
) -> None:
    key = ed25519_key()
    payload = json.dumps(claims_of(exp=exp, nbf=nbf, aud=aud)).encode()
    text = sign_jws({"alg": "EdDSA"}, payload, key=key, algorithm="EdDSA")
    outcome = verify(text, an_issuer(algorithms=("EdDSA",)), [named(key)])
    if not isinstance(outcome, Denial):
        assert outcome["exp"] * S + 5 * S > START_US and "httpbin" in outcome["aud"]
