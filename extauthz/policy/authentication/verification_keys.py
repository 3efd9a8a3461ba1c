"""Reads keys that verify signatures, and says which algorithms each may be used with.

A key is used only with algorithms of its own type and curve, and only with the one that its
issuer names, if any (RFC 8725 3.1). RSA keys under 2048 bits and secrets shorter than the
hash (RFC 7518 3.2, 3.3) are not used at all. Nothing that a token carries is ever a key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm, get_default_algorithms
from jwt.exceptions import PyJWTError

from extauthz.model.identity import Secret
from extauthz.policy.authentication.strict_json import read_json_object
from extauthz.ports import VerificationKey

MAX_KEYS: Final = 100
"""Keys in one issuer's set."""

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
"""Bits. With a larger key each verification takes milliseconds."""

_CURVES: Final[Mapping[str, type[ec.EllipticCurve]]] = {
    "ES256": ec.SECP256R1,
    "ES384": ec.SECP384R1,
    "ES512": ec.SECP521R1,
    "ES256K": ec.SECP256K1,
}
_EDWARDS: Final[Mapping[str, tuple[type[Any], ...]]] = {
    "EdDSA": (ed25519.Ed25519PublicKey, ed448.Ed448PublicKey),
    "Ed25519": (ed25519.Ed25519PublicKey,),
    "Ed448": (ed448.Ed448PublicKey,),
}
_RSA: Final = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
_SECRET_BYTES: Final[Mapping[str, int]] = {"HS256": 32, "HS384": 48, "HS512": 64}

ASYMMETRIC_ALGORITHMS: Final = frozenset((*_RSA, *_CURVES, *_EDWARDS))
HMAC_ALGORITHMS: Final = frozenset(_SECRET_BYTES)
SUPPORTED_ALGORITHMS: Final = ASYMMETRIC_ALGORITHMS | HMAC_ALGORITHMS
"""Names of RFC 7518, 8037, 8812 and 9864 that an issuer may be configured with."""

_SIGNERS: Final[Mapping[str, Any]] = {
    **get_default_algorithms(),
    "Ed25519": OKPAlgorithm(),
    "Ed448": OKPAlgorithm(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedKey:
    """A `VerificationKey`, with the name that its issuer gave it (None for no name)."""

    key: Any = field(repr=False)
    algorithm_name: str | None = None
    key_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySet:
    """The keys of one issuer, and why others were left out."""

    keys: tuple[NamedKey, ...]
    left_out: tuple[str, ...] = ()

    def find(self, key_id: str | None) -> Sequence[NamedKey]:
        """The keys with that ``kid``, else those without one; all keys when `key_id` is None."""
        if key_id is None:
            return self.keys
        named = tuple(key for key in self.keys if key.key_id == key_id)
        return named or tuple(key for key in self.keys if key.key_id is None)


def fits(key: VerificationKey, algorithm: str) -> bool:
    """Whether a key may be used with an algorithm."""
    if key.algorithm_name is not None and key.algorithm_name != algorithm:
        return False
    value = key.key
    if algorithm in _RSA:
        return isinstance(value, rsa.RSAPublicKey) and (
            MIN_RSA_BITS <= value.key_size <= MAX_RSA_BITS
        )
    if algorithm in _CURVES:
        return isinstance(value, ec.EllipticCurvePublicKey) and isinstance(
            value.curve, _CURVES[algorithm]
        )
    if algorithm in _EDWARDS:
        return isinstance(value, _EDWARDS[algorithm])
    if algorithm in _SECRET_BYTES:
        return isinstance(value, bytes) and len(value) >= _SECRET_BYTES[algorithm]
    return False


def is_signed(signed: bytes, signature: bytes, *, key: VerificationKey, algorithm: str) -> bool:
    """Verifies a signature over the bytes with this key. Never raises."""
    if not fits(key, algorithm):
        return False
    try:
        # Uses the algorithm object and not `jwt.decode`: key types are checked above, and a small
        # key or an unusual header must not raise or warn.
        return bool(_SIGNERS[algorithm].verify(signed, key.key, signature))
    except (PyJWTError, ValueError, TypeError, UnsupportedAlgorithm):
        return False


def read_jwks(raw: bytes) -> KeySet:
    """Reads the usable keys of a JWK Set (RFC 7517), and names those that cannot be used.

    Raises:
        ValueError: the bytes are no JWK Set, or it has more than MAX_KEYS keys.
    """
    try:
        members = read_json_object(raw)["keys"]
    except KeyError:
        members = None
    if not isinstance(members, list):
        raise ValueError('not a JWK Set: it has no array "keys"')  # noqa: TRY004  # a wrong value, read from outside
    if len(members) > MAX_KEYS:
        raise ValueError(f"a JWK Set of {len(members)} keys; at most {MAX_KEYS} are taken")
    keys: list[NamedKey] = []
    left_out: list[str] = []
    for position, member in enumerate(members):
        try:
            keys.append(_read_jwk(member))
        except ValueError as error:
            left_out.append(f"keys[{position}]: {error}")
    return KeySet(keys=tuple(keys), left_out=tuple(left_out))


def _read_jwk(member: Any) -> NamedKey:
    if not isinstance(member, dict):
        raise ValueError("not an object")  # noqa: TRY004  # a wrong value, read from outside
    # As in claims, null counts as absent: some issuers write every member of a key.
    member = {name: value for name, value in member.items() if value is not None}
    algorithm, key_id = member.get("alg"), member.get("kid")
    if "d" in member:
        raise ValueError("a private key; publish the public half only, and replace this key")
    if member.get("use", "sig") != "sig":
        raise ValueError("not for signatures (use)")
    operations = member.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        raise ValueError("not for verifying (key_ops)")
    if key_id is not None and not isinstance(key_id, str):
        raise ValueError("kid is not a string")
    if algorithm is not None and (
        not isinstance(algorithm, str) or algorithm not in ASYMMETRIC_ALGORITHMS
    ):
        raise ValueError("alg is not a supported asymmetric signature algorithm")
    try:
        match member.get("kty"):
            case "RSA":
                key: Any = RSAAlgorithm.from_jwk(member)
            case "EC":
                key = ECAlgorithm.from_jwk(member)
            case "OKP":
                key = OKPAlgorithm.from_jwk(member)
            case _:
                raise ValueError("kty is not RSA, EC or OKP")
    except (PyJWTError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm) as error:
        raise ValueError("its numbers are not a key") from error
    return _check_usable(NamedKey(key=key, algorithm_name=algorithm, key_id=key_id))


def _check_usable(named: NamedKey) -> NamedKey:
    if not any(fits(named, algorithm) for algorithm in ASYMMETRIC_ALGORITHMS):
        raise ValueError(
            "no supported algorithm takes this key "
            f"(RSA keys need {MIN_RSA_BITS} to {MAX_RSA_BITS} bits)"
        )
    return named


_PEM_BLOCK: Final = re.compile(
    r"-----BEGIN (?P<label>[A-Z0-9 ]{1,64})-----[^-]*-----END (?P=label)-----"
)


def read_pem(text: str) -> KeySet:
    """Reads the public keys of PUBLIC KEY and CERTIFICATE blocks in PEM text; none has a ``kid``.

    Of a certificate only the key is used: its dates and its issuer are not checked.

    Raises:
        ValueError: a block cannot be used, or there is none.
    """
    keys = []
    for block in _PEM_BLOCK.finditer(text):
        label, raw = block["label"], block[0].encode()
        if label.endswith("PRIVATE KEY"):
            raise ValueError("the PEM text holds a private key; give the public key only")
        try:
            if label == "CERTIFICATE":
                key: Any = x509.load_pem_x509_certificate(raw).public_key()
            else:
                key = load_pem_public_key(raw)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(f"the PEM block {label} cannot be read") from error
        keys.append(_check_usable(NamedKey(key=key)))
    if not 0 < len(keys) <= MAX_KEYS:
        raise ValueError(f"the PEM text has {len(keys)} keys; give 1 to {MAX_KEYS}")
    return KeySet(keys=tuple(keys))


def read_hmac_secret(secret: Secret) -> KeySet:
    """Makes a key set of one shared secret; the key is the secret's UTF-8 bytes.

    Raises:
        ValueError: the secret is too short for any algorithm.
    """
    named = NamedKey(key=secret.reveal().encode("utf-8", "surrogatepass"))
    if not fits(named, "HS256"):
        raise ValueError("the shared secret is shorter than 32 bytes; make a longer one")
    return KeySet(keys=(named,))
