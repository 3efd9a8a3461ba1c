"""Writes WSO2 API Manager's backend JWT: a signed token that identifies the caller to the upstream.

Upstreams that were behind WSO2's gateway read it from ``X-JWT-Assertion``. The claims have WSO2's
names and values; a claim without a value is left out. A request without an identity gets no token.

A signature takes a millisecond of the event loop, so a token is used again for the same caller on
the same API until four fifths of its life have passed. It is cached by all of its content, never by
the caller's credential, so a change of the catalog always gives a new token.
Source: WSO2 carbon-apimgt, AbstractJWTGenerator and JWTGenerator; Choreo Connect 1.2, jwtGenerator.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from extauthz.answers.backend_jwt_style import BackendJwtStyle, SigningAlgorithm
from extauthz.documents.document import read_file
from extauthz.errors import ConfigError, Problem
from extauthz.model.catalog import UNLIMITED_TIER
from extauthz.model.decision import Allow
from extauthz.model.identity import SecurityScheme
from extauthz.policy.request.caller_claims import list_caller_claims
from extauthz.ports import Clock

MAX_CACHED_TOKENS: Final = 10_000
MIN_RSA_BITS: Final = 2048
_MAX_KEY_FILE_BYTES: Final = 65_536
_US_PER_S: Final = 1_000_000

_CURVES: Final = {
    SigningAlgorithm.ES256: "secp256r1",
    SigningAlgorithm.ES384: "secp384r1",
    SigningAlgorithm.ES512: "secp521r1",
}

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def read_private_key(file: Path, algorithm: SigningAlgorithm) -> PrivateKey:
    """Reads the private key of a PEM file, and checks that it fits the algorithm.

    Raises:
        ConfigError: it cannot be read, holds no such key, or the key is too weak.
    """
    pem = read_file(file, max_bytes=_MAX_KEY_FILE_BYTES)
    try:
        key = load_pem_private_key(pem, password=None)
    except TypeError:
        raise _problem(file, "is encrypted; give a key without a password") from None
    except (ValueError, UnsupportedAlgorithm):
        raise _problem(file, "holds no PEM private key that can be used") from None
    match algorithm:
        case SigningAlgorithm.EDDSA:
            if isinstance(key, ed25519.Ed25519PrivateKey):
                return key
            wanted = "an Ed25519 key"
        case SigningAlgorithm.ES256 | SigningAlgorithm.ES384 | SigningAlgorithm.ES512:
            curve = _CURVES[algorithm]
            if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name == curve:
                return key
            wanted = f"an EC key on the curve {curve}"
        case _:
            if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= MIN_RSA_BITS:
                return key
            wanted = f"an RSA key of {MIN_RSA_BITS} bits or more"
    raise _problem(file, f"does not fit {algorithm.value}, which takes {wanted}")


def _problem(file: Path, message: str) -> ConfigError:
    return ConfigError([Problem(file=str(file), message=message)])


@dataclass(frozen=True, slots=True)
class _Signed:
    """A token, and the time in which it is used: from `since_us`, before `until_us`."""

    token: str = field(repr=False)
    since_us: int
    until_us: int


class BackendJwtSigner:
    """Writes the tokens of one installation. One event loop uses it."""

    def __init__(
        self,
        *,
        key: PrivateKey,
        style: BackendJwtStyle,
        clock: Clock,
        max_cached: int = MAX_CACHED_TOKENS,
    ) -> None:
        self._key = key
        self._style = style
        self._clock = clock
        self._max_cached = max_cached
        self._signed: OrderedDict[tuple[tuple[str, str], ...], _Signed] = OrderedDict()

    @property
    def header(self) -> str:
        """Lower-case name of the header that the token is sent in."""
        return self._style.header

    def write(self, allow: Allow) -> str:
        """The token for an allowed request; empty when it has no identity."""
        if allow.identity.scheme is SecurityScheme.NONE:
            return ""
        claims = write_wso2_claims(allow)
        said = tuple(claims.items())
        now_us = self._clock.now_us()
        signed = self._signed.get(said)
        # When the clock was set back, a token that is not valid yet must not be used.
        if signed is None or not signed.since_us <= now_us < signed.until_us:
            signed = self._sign(claims, now_us)
            self._signed[said] = signed
        self._signed.move_to_end(said)
        if len(self._signed) > self._max_cached:
            self._signed.popitem(last=False)
        return signed.token

    def _sign(self, claims: Mapping[str, str], now_us: int) -> _Signed:
        style = self._style
        now_s = now_us // _US_PER_S
        prefix = f"{style.dialect.rstrip('/')}/" if style.dialect else ""
        payload = {
            "iss": style.issuer,
            "iat": now_s,
            "exp": now_s + style.ttl_us // _US_PER_S,
            "jti": secrets.token_hex(16),
            **{prefix + name: value for name, value in claims.items()},
        }
        token = jwt.encode(
            payload,
            self._key,
            style.algorithm.value,
            headers={"kid": style.key_id} if style.key_id else None,
        )
        since_us = now_s * _US_PER_S
        return _Signed(token, since_us, since_us + style.ttl_us * 4 // 5)


def write_wso2_claims(allow: Allow) -> dict[str, str]:
    """The claims under WSO2's names, without the dialect."""
    api = allow.route.api
    claims = {
        **list_caller_claims(allow.identity),
        "apiname": api.name,
        "apicontext": api.base_paths[0] or "/",
        "version": api.version,
        "tier": allow.tier or UNLIMITED_TIER,
    }
    return {name: value for name, value in claims.items() if value}
