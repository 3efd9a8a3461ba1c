"""The key manager of the stand-in: signs tokens, and answers about them."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Mapping
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

KEY_ID: Final = "stand-in"
LIFE_S: Final = 3600


class KeyManager:
    """One key pair, and the opaque tokens that were given out.

    Source of the claims: tokens of API Manager's resident key manager (``azp``, ``aut``, ``scope``);
    of the answers: identity-inbound-auth-oauth, OAuth2IntrospectionEndpoint.
    """

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self._opaque: dict[str, dict[str, Any]] = {}

    def sign(self, consumer_key: str, *scopes: str, **claims: Any) -> str:
        """A JWT access token."""
        now_s = int(time.time())
        payload = {
            "iss": self.issuer,
            "sub": "admin",
            "aud": consumer_key,
            "azp": consumer_key,
            "aut": "APPLICATION",
            "scope": " ".join(scopes),
            "iat": now_s,
            "nbf": now_s,
            "exp": now_s + LIFE_S,
            "jti": secrets.token_hex(16),
            **claims,
        }
        return jwt.encode(payload, self._key, "RS256", headers={"kid": KEY_ID})

    def issue_opaque(self, consumer_key: str, *scopes: str) -> str:
        """An opaque access token."""
        now_s = int(time.time())
        token = secrets.token_hex(16)
        self._opaque[token] = {
            "active": True,
            "scope": " ".join(scopes),
            "client_id": consumer_key,
            "username": "admin@carbon.super",
            "token_type": "Bearer",
            "exp": now_s + LIFE_S,
            "iat": now_s,
            "nbf": now_s,
            "aut": "APPLICATION",
        }
        return token

    def introspect(self, token: str) -> Mapping[str, Any]:
        """What is known of a token."""
        return self._opaque.get(token, {"active": False})

    def revoke_opaque(self, token: str) -> None:
        """Takes an opaque token back."""
        self._opaque.pop(token, None)

    def write_jwks(self) -> str:
        """The JWK Set of its public key."""
        numbers = self._key.public_key().public_numbers()
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID}
        for name, number in (("n", numbers.n), ("e", numbers.e)):
            octets = number.to_bytes((number.bit_length() + 7) // 8)
            key[name] = base64.urlsafe_b64encode(octets).rstrip(b"=").decode()
        return json.dumps({"keys": [key]})
