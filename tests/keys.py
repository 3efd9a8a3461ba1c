"""Keys, JWTs and JWK Sets for tests. A key is made when it is first asked for, and then kept."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms

from extauthz.model.issuers import Issuer, KeyLocation
from tests.builders import START_US, S

ISSUER = "https://idp.example/"
START_S = START_US // S
"""The time of every FakeClock, in seconds."""

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey

_CURVES: dict[str, type[ec.EllipticCurve]] = {
    "P-256": ec.SECP256R1,
    "P-384": ec.SECP384R1,
    "P-521": ec.SECP521R1,
}


def rsa_key(name: str = "main", *, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One RSA key for each name."""
    return _make_rsa(name, bits)


def ec_key(curve: str = "P-256", name: str = "main") -> ec.EllipticCurvePrivateKey:
    """One key for each curve and name."""
    return _make_ec(curve, name)


def ed25519_key(name: str = "main") -> ed25519.Ed25519PrivateKey:
    """One Ed25519 key for each name."""
    return _make_ed25519(name)


@cache
def _make_rsa(_name: str, bits: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def _make_ec(curve: str, _name: str) -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(_CURVES[curve]())


@cache
def _make_ed25519(_name: str) -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def public_pem(key: PrivateKey) -> str:
    """The public half, as a PUBLIC KEY block."""
    made = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return made.decode()


def a_jwk(key: PrivateKey, kid: str | None = "k1", **members: Any) -> dict[str, Any]:
    """The public half as a JWK, with ``use`` sig; `members` are added to it."""
    public = key.public_key()
    if isinstance(public, rsa.RSAPublicKey):
        jwk: dict[str, Any] = RSAAlgorithm.to_jwk(public, as_dict=True)
        del jwk["key_ops"]
    elif isinstance(public, ec.EllipticCurvePublicKey):
        jwk = ECAlgorithm.to_jwk(public, as_dict=True)
    else:
        jwk = OKPAlgorithm.to_jwk(public, as_dict=True)
    if kid is not None:
        jwk["kid"] = kid
    return {**jwk, "use": "sig", **members}


def a_jwks(*keys: Mapping[str, Any]) -> str:
    """A JWK Set; of `rsa_key()` named k1 when no keys are given."""
    return json.dumps({"keys": list(keys) or [a_jwk(rsa_key())]})


def base64url(raw: bytes | Mapping[str, Any], *, padded: bool = False) -> str:
    """Of bytes, or of an object's JSON."""
    if not isinstance(raw, bytes):
        raw = json.dumps(raw, separators=(",", ":")).encode()
    text = base64.urlsafe_b64encode(raw).decode()
    return text if padded else text.rstrip("=")


def sign_jws(
    header: bytes | Mapping[str, Any],
    payload: bytes | Mapping[str, Any],
    *,
    key: PrivateKey | bytes | None = None,
    algorithm: str = "RS256",
    padded: bool = False,
) -> str:
    """Any header and payload, whether they make sense or not, with a genuine signature."""
    signed = f"{base64url(header, padded=padded)}.{base64url(payload, padded=padded)}"
    signer: Any = get_default_algorithms()[algorithm]
    signature = signer.sign(signed.encode(), rsa_key() if key is None else key)
    return f"{signed}.{base64url(signature, padded=padded)}"


def claims_of(**claims: Any) -> dict[str, Any]:
    """Claims that are good at a FakeClock's start, for `an_issuer()`. `...` takes one out."""
    made: dict[str, Any] = {
        "iss": ISSUER,
        "aud": "httpbin",
        "sub": "alice",
        "azp": "abc123",
        "scope": "scope_ip scope_headers",
        "jti": "token-1",
        "iat": START_S - 10,
        "exp": START_S + 300,
    }
    made.update(claims)
    return {name: value for name, value in made.items() if value is not ...}


def a_jwt(
    *,
    key: PrivateKey | bytes | None = None,
    algorithm: str = "RS256",
    kid: str | None = "k1",
    header: Mapping[str, Any] | None = None,
    padded: bool = False,
    **claims: Any,
) -> str:
    """A token that `an_issuer()` takes; `claims` are changed as in `claims_of`."""
    made: dict[str, Any] = {"alg": algorithm, "typ": "JWT"}
    if kid is not None:
        made["kid"] = kid
    made.update(header or {})
    return sign_jws(made, claims_of(**claims), key=key, algorithm=algorithm, padded=padded)


def an_issuer(**fields: Any) -> Issuer:
    """Takes RS256 tokens for audience "httpbin", signed with `rsa_key()`."""
    fields.setdefault("issuer", ISSUER)
    fields.setdefault("audiences", frozenset({"httpbin"}))
    if "keys" not in fields:
        fields["keys"] = KeyLocation(jwks=a_jwks())
    return Issuer(**fields)
