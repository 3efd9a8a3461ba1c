"""Verifies signed JWTs (RFC 7515, RFC 7519, RFC 8725, RFC 6750).

The order is fixed: size, form, algorithm, signature, then the claims
(`extauthz.policy.authentication.claim_checks`). The clock is an argument. A token is trusted only
after `verify_token`; before that, only ``alg``, ``kid`` and ``iss`` are used, to choose the key.
When there are many claims, they are not parsed before the signature is verified: anybody may send
them, and parsing takes longer than the signature. Keys in a token (``jwk``, ``jku``, ``x5u``,
``x5c``) are ignored. No function here raises an error, whatever the text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from extauthz.model.decision import Denial, Reason
from extauthz.model.issuers import Issuer
from extauthz.policy.authentication.claim_checks import (
    OTHER_KINDS,
    VerifiedClaims,
    check_claims,
    drop_absent,
    list_some,
    show_text,
)
from extauthz.policy.authentication.compact_jws import (
    MAX_HEADER_BYTES,
    MAX_HEADER_VALUES,
    MAX_UNSIGNED_VALUES,
    Parts,
    decode_base64url,
    find_issuer,
    has_more_values,
    take_apart,
)
from extauthz.policy.authentication.strict_json import read_json_object
from extauthz.policy.authentication.verification_keys import HMAC_ALGORITHMS, fits, is_signed
from extauthz.ports import VerificationKey

MAX_TOKEN_BYTES: Final = 16384

_BEARER: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_MEDIA_TYPE: Final = re.compile(r"(?:application/)?([a-z0-9!#$&^_.+-]+)[ \t]*(?:;.*)?", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedToken:
    """The parts of a JWT that is not verified yet: nothing in it may be trusted.

    Attributes:
        issuer: empty when ``iss`` is not there or not a string.
        claims: None when they are too many to be parsed before the signature is verified.
        payload: the JSON of the claims.
        signed: the bytes that were signed.
    """

    algorithm: str
    key_id: str | None
    issuer: str
    claims: Mapping[str, Any] | None = field(repr=False)
    payload: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def _invalid(detail: str, found: str = "") -> Denial:
    return Denial(reason=Reason.INVALID_CREDENTIALS, detail=detail, found=found)


_MALFORMED: Final = _invalid("The token is not a well-formed JWT.")
_LARGE_HEADER: Final = _invalid(
    f"The token's header has more than {MAX_HEADER_BYTES} bytes or {MAX_HEADER_VALUES} values."
)
_SEVERAL_ISSUERS: Final = _invalid(
    "The token has many claims, and names several issuers.",
    f"with more than {MAX_UNSIGNED_VALUES} values, iss must stand in it once",
)
_NOT_READ: Final = _invalid(
    "The token cannot be verified now.",
    f"its issuer's keys cannot be had, and more than {MAX_UNSIGNED_VALUES} values are not read "
    "before the signature is verified",
)
MAX_TRIED_KEYS: Final = 4
"""Keys that are tried for a token without ``kid``: the last, the current and the next key of an
issuer that rotates them, and one more. Each costs a verification."""
_TOO_MANY_KEYS: Final = _invalid(
    "The token names no key (kid), and its issuer has too many that could have signed it."
)
BAD_SIGNATURE: Final = _invalid("The token's signature cannot be verified.")
"""None of the keys verifies the signature. Newer keys may."""


def has_bearer_form(text: str) -> bool:
    """Whether text has a bearer token's form (b64token, RFC 6750 2.1) and is not too long."""
    return len(text) <= MAX_TOKEN_BYTES and _BEARER.fullmatch(text) is not None


def looks_like_jwt(text: str) -> bool:
    """Whether a bearer token has a signed JWT's form; otherwise it is opaque.

    An encrypted JWT (five parts) is opaque here: only its issuer can read it.
    """
    return _take_apart_jwt(text) is not None


def token_digest(text: str) -> bytes:
    """The SHA-256 digest by which a bearer token is revoked.

    For a JWT it is that of the signed part, as one signature can be encoded in several ways.
    """
    counted = text.rpartition(".")[0] if looks_like_jwt(text) else text
    return hashlib.sha256(counted.encode("utf-8", "surrogatepass")).digest()


def read_token(text: str) -> UnverifiedToken | Denial:
    """Reads a JWT in compact form. Base64url may be padded, as WSO2 2.6 and 3.0 write it."""
    if len(text) > MAX_TOKEN_BYTES:
        return _invalid(f"The token is larger than {MAX_TOKEN_BYTES} bytes.")
    return read_if_jwt(text) or _MALFORMED


def read_if_jwt(text: str) -> UnverifiedToken | Denial | None:
    """As `read_token`; None for what does not look like a JWT."""
    found = _take_apart_jwt(text)
    if found is None:
        return None
    parts, raw_header = found
    payload = decode_base64url(parts.payload)
    signature = decode_base64url(parts.signature)
    if payload is None or signature is None:
        return _MALFORMED
    if len(raw_header) > MAX_HEADER_BYTES or has_more_values(raw_header, MAX_HEADER_VALUES):
        return _LARGE_HEADER
    claims: dict[str, Any] | None = None
    try:
        header = read_json_object(raw_header)
        if not has_more_values(payload, MAX_UNSIGNED_VALUES):
            claims = drop_absent(read_json_object(payload))
    except ValueError:
        return _MALFORMED
    issuer = find_issuer(payload) if claims is None else claims.get("iss", "")
    if issuer is None:
        return _SEVERAL_ISSUERS
    algorithm, key_id = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not isinstance(key_id, str | None):
        return _MALFORMED
    if "crit" in header or header.get("b64", True) is not True:
        return _invalid("The token uses a header extension that is not supported.")
    if _is_of_another_kind(header.get("typ")):
        return _invalid(
            "The token is not an access token.",
            f"its typ is {show_text(header['typ'])}, and only JWT and at+jwt are taken",
        )
    return UnverifiedToken(
        algorithm=algorithm,
        key_id=key_id,
        issuer=issuer if isinstance(issuer, str) else "",
        claims=claims,
        payload=payload,
        signed=parts.signed,
        signature=signature,
    )


def _take_apart_jwt(text: str) -> tuple[Parts, bytes] | None:
    """The parts of a text that has a JWT's form, and its decoded header; else None."""
    parts = take_apart(text) if len(text) <= MAX_TOKEN_BYTES else None
    header = None if parts is None else decode_base64url(parts.header)
    if parts is None or header is None or not header.lstrip(b" \t\r\n").startswith(b"{"):
        return None
    return parts, header


def read_claims(token: UnverifiedToken) -> Mapping[str, Any] | Denial:
    """All claims of a token, however many there are."""
    if token.claims is not None:
        return token.claims
    try:
        return drop_absent(read_json_object(token.payload))
    except ValueError:
        return _MALFORMED


def _is_of_another_kind(typ: Any) -> bool:
    """Whether ``typ`` names another kind of JWT, like a logout token (RFC 8725 3.11).

    It is a media type: case does not matter, ``application/`` is optional, parameters may follow.
    """
    if not isinstance(typ, str):
        return typ is not None
    if not typ.strip():
        return False
    named = _MEDIA_TYPE.fullmatch(typ.strip().lower())
    if named is None or named[1] in OTHER_KINDS:
        return True
    return "+" in named[1] and named[1] != "at+jwt"


def may_be_explained(token: UnverifiedToken, issuer: Issuer) -> bool:
    """Whether a JWT may be sent to an issuer for introspection.

    A token of another issuer may not: the issuer that gets it could use it there. A token without
    a signature is not sent either.
    """
    names = token.issuer if token.claims is None else token.claims.get("iss", issuer.issuer)
    return names == issuer.issuer and token.algorithm.lower() != "none" and token.signature != b""


def check_algorithm(token: UnverifiedToken, issuer: Issuer) -> Denial | None:
    """A denial when the token's algorithm is not one of the issuer's."""
    allowed = token.algorithm in issuer.algorithms
    if token.algorithm in HMAC_ALGORITHMS:
        # The key's type is checked as well: a public key must never be used as a shared secret.
        allowed = allowed and issuer.keys is not None and issuer.keys.hmac_secret is not None
    if allowed:
        return None
    return _invalid(
        "The token's algorithm is not accepted.",
        f"its alg is {show_text(token.algorithm)}, and the issuer's are "
        f"{list_some(issuer.algorithms)}",
    )


def verify_token(
    token: UnverifiedToken, issuer: Issuer, keys: Sequence[VerificationKey], now_us: int
) -> VerifiedClaims | Denial:
    """Verifies a token's signature with the issuer's keys, then its claims; gives the claims."""
    denial = check_algorithm(token, issuer) or check_signature(token, keys)
    if denial is not None:
        return denial
    claims = read_claims(token)
    return claims if isinstance(claims, Denial) else _check_claims(claims, issuer, now_us)


def check_signature(token: UnverifiedToken, keys: Sequence[VerificationKey]) -> Denial | None:
    """A denial when none of the keys verifies the signature, or too many would have to be tried."""
    tried = [key for key in keys if fits(key, token.algorithm)]
    if len(tried) > MAX_TRIED_KEYS:
        return _TOO_MANY_KEYS
    if any(
        is_signed(token.signed, token.signature, key=key, algorithm=token.algorithm)
        for key in tried
    ):
        return None
    return BAD_SIGNATURE


def check_unsigned(token: UnverifiedToken, issuer: Issuer, now_us: int) -> VerifiedClaims | Denial:
    """Checks a token as `verify_token` does, but for its signature. A denial is final.

    Claims that are too many to be parsed are a denial, too: an unsigned token must not be able to
    cause "unavailable".
    """
    if token.claims is None:
        return _NOT_READ
    return _check_claims(token.claims, issuer, now_us)


def _check_claims(
    claims: Mapping[str, Any], issuer: Issuer, now_us: int
) -> VerifiedClaims | Denial:
    if "exp" not in claims:
        return _invalid("The token has no expiry.", "it has no exp")
    return check_claims(claims, issuer, now_us)
