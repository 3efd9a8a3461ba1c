"""Decides whether a token is genuine and good now.

The order is fixed: size, form, algorithm, signature, then ``exp``, ``nbf``, ``iat``, ``iss``
and ``aud``, one function each. The clock is an argument. What a token says is believed only
after `verify_token`; before that only ``alg``, ``kid`` and ``iss`` are looked at, to choose
the key. Keys that a token brings along (``jwk``, ``jku``, ``x5u``, ``x5c``) are ignored.
No text makes anything in here raise. Sources: RFC 7515, RFC 7519, RFC 8725, RFC 7662.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NewType

from extauthz.model.catalog import Issuer
from extauthz.model.decision import Denial, Reason
from extauthz.policy.claims import read_numeric_date_us
from extauthz.policy.strict_json import read_json_object
from extauthz.policy.verification_keys import HMAC_ALGORITHMS, is_signed
from extauthz.ports import VerificationKey

MAX_TOKEN_BYTES: Final = 16384

_COMPACT: Final = re.compile(
    r"(?P<signed>(?P<header>[\w-]+={0,2})\.(?P<payload>[\w-]+={0,2}))\.(?P<signature>[\w-]*={0,2})",
    re.ASCII,
)
_S: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedToken:
    """A JWT in parts. Nothing that it says may be believed yet.

    Attributes:
        issuer: empty when ``iss`` is not there or not a string.
        signed: the bytes that the signature is over.
    """

    algorithm: str
    key_id: str | None
    issuer: str
    claims: Mapping[str, Any] = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


VerifiedClaims = NewType("VerifiedClaims", dict[str, Any])
"""Claims that may be believed."""


def _invalid(detail: str) -> Denial:
    return Denial(reason=Reason.INVALID_CREDENTIALS, detail=detail)


_MALFORMED: Final = _invalid("The token is not a well-formed JWT.")
BAD_SIGNATURE: Final = _invalid("The token's signature cannot be verified.")
"""None of the keys made it. Newer ones may."""


def looks_like_jwt(text: str) -> bool:
    """Whether a bearer token has a signed JWT's form; otherwise it is opaque.

    An encrypted JWT (five parts) is opaque to us: only its issuer can say what it means.
    """
    parts = _COMPACT.fullmatch(text) if len(text) <= MAX_TOKEN_BYTES else None
    header = None if parts is None else _decode_base64url(parts["header"])
    return header is not None and header.lstrip(b" \t\r\n").startswith(b"{")


def token_digest(text: str) -> bytes:
    """SHA-256 that revocations know a bearer token by.

    Of a JWT only the signed part counts: the same signature can be written in several ways.
    """
    counted = text.rpartition(".")[0] if looks_like_jwt(text) else text
    return hashlib.sha256(counted.encode("utf-8", "surrogatepass")).digest()


def read_token(text: str) -> UnverifiedToken | Denial:
    """A JWT in compact form, taken apart. Base64url may be padded, as WSO2 2.6 and 3.0 write it."""
    if len(text) > MAX_TOKEN_BYTES:
        return _invalid(f"The token is larger than {MAX_TOKEN_BYTES} bytes.")
    parts = _COMPACT.fullmatch(text)
    if parts is None:
        return _MALFORMED
    raw_header = _decode_base64url(parts["header"])
    raw_payload = _decode_base64url(parts["payload"])
    signature = _decode_base64url(parts["signature"])
    if raw_header is None or raw_payload is None or signature is None:
        return _MALFORMED
    try:
        header, claims = read_json_object(raw_header), read_json_object(raw_payload)
    except ValueError:
        return _MALFORMED
    algorithm, key_id, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
    if not isinstance(algorithm, str) or not isinstance(key_id, str | None):
        return _MALFORMED
    if "crit" in header or header.get("b64", True) is not True:
        return _invalid("The token uses a header extension that is not supported.")
    if _is_of_another_kind(header.get("typ")):
        return _invalid("The token is not an access token.")
    return UnverifiedToken(
        algorithm=algorithm,
        key_id=key_id,
        issuer=issuer if isinstance(issuer, str) else "",
        claims=claims,
        signed=parts["signed"].encode("ascii"),
        signature=signature,
    )


def _decode_base64url(text: str) -> bytes | None:
    """Bytes of base64url with correct padding or none; None for anything else."""
    bare = text.rstrip("=")
    if len(bare) % 4 == 1 or (bare != text and len(text) % 4):
        return None
    try:
        decoded = base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except (binascii.Error, ValueError):
        return None
    # Two texts must not stand for the same bytes: unused bits have to be zero.
    return decoded if base64.urlsafe_b64encode(decoded).rstrip(b"=") == bare.encode() else None


def _is_of_another_kind(typ: Any) -> bool:
    """Whether ``typ`` names another kind of JWT, like a logout token (RFC 8725 3.11)."""
    if not isinstance(typ, str):
        return typ is not None
    kind = typ.lower().removeprefix("application/")
    return kind.endswith("+jwt") and kind != "at+jwt"


def verify_token(
    token: UnverifiedToken, issuer: Issuer, keys: Sequence[VerificationKey], now_us: int
) -> VerifiedClaims | Denial:
    """The token's claims, if one of the issuer's keys signed them and they hold now."""
    allowed = token.algorithm in issuer.algorithms
    if token.algorithm in HMAC_ALGORITHMS:
        # Never by the allow-list alone: a public key must not become a shared secret.
        allowed = allowed and issuer.keys is not None and issuer.keys.hmac_secret is not None
    if not allowed:
        return _invalid("The token's algorithm is not accepted.")
    if not any(
        is_signed(token.signed, token.signature, key=key, algorithm=token.algorithm) for key in keys
    ):
        return BAD_SIGNATURE
    if "exp" not in token.claims:
        return _invalid("The token has no expiry.")
    return _check_claims(token.claims, issuer, now_us, _CHECKS)


def check_introspected(
    claims: Mapping[str, Any], issuer: Issuer, now_us: int
) -> VerifiedClaims | Denial:
    """The claims of an introspection answer that says "active", if they hold now (RFC 7662).

    ``exp`` and ``iss`` are optional in an answer. ``aud`` is not, once audiences are configured:
    a token for somebody else would pass otherwise.
    """
    return _check_claims(claims, issuer, now_us, _CHECKS if "iss" in claims else _CHECKS_BUT_ISSUER)


_Check = Callable[[Mapping[str, Any], Issuer, int], Denial | None]


def _check_claims(
    claims: Mapping[str, Any], issuer: Issuer, now_us: int, checks: tuple[_Check, ...]
) -> VerifiedClaims | Denial:
    for check in checks:
        denial = check(claims, issuer, now_us)
        if denial is not None:
            return denial
    return VerifiedClaims(dict(claims))


def _judge_expiry(claims: Mapping[str, Any], issuer: Issuer, now_us: int) -> Denial | None:
    if "exp" not in claims:
        return None
    expires_at_us = read_numeric_date_us(claims["exp"])
    if expires_at_us is None:
        return _invalid("The token's expiry is not a number.")
    # RFC 7519 4.1.4: not accepted on or after this time.
    if now_us >= expires_at_us + issuer.leeway_s * _S:
        return Denial(reason=Reason.TOKEN_EXPIRED, detail="The token has expired.")
    return None


def _judge_not_before(claims: Mapping[str, Any], issuer: Issuer, now_us: int) -> Denial | None:
    if "nbf" not in claims:
        return None
    starts_at_us = read_numeric_date_us(claims["nbf"])
    if starts_at_us is None:
        return _invalid("The token's start time is not a number.")
    if now_us + issuer.leeway_s * _S < starts_at_us:
        return Denial(reason=Reason.TOKEN_INACTIVE, detail="The token is not valid yet.")
    return None


def _judge_issued_at(claims: Mapping[str, Any], issuer: Issuer, now_us: int) -> Denial | None:
    if "iat" not in claims:
        return None
    issued_at_us = read_numeric_date_us(claims["iat"])
    if issued_at_us is None:
        return _invalid("The token's issue time is not a number.")
    if now_us + issuer.leeway_s * _S < issued_at_us:
        return _invalid("The token was issued in the future.")
    return None


def _judge_issuer(claims: Mapping[str, Any], issuer: Issuer, _now_us: int) -> Denial | None:
    if claims.get("iss") == issuer.issuer:
        return None
    return _invalid("The token's issuer is not accepted.")


def _judge_audience(claims: Mapping[str, Any], issuer: Issuer, _now_us: int) -> Denial | None:
    if not issuer.audiences:
        return None
    audience = claims.get("aud")
    named = [audience] if isinstance(audience, str) else audience
    if (
        isinstance(named, list)
        and all(isinstance(one, str) for one in named)
        and not issuer.audiences.isdisjoint(named)
    ):
        return None
    return _invalid("The token is not meant for this service.")


_CHECKS: Final[tuple[_Check, ...]] = (
    _judge_expiry,
    _judge_not_before,
    _judge_issued_at,
    _judge_issuer,
    _judge_audience,
)
_CHECKS_BUT_ISSUER: Final = tuple(check for check in _CHECKS if check is not _judge_issuer)
