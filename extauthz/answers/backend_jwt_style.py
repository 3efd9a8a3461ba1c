"""The form of a backend JWT: values that need no cryptography."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

_US_PER_S: Final = 1_000_000


class SigningAlgorithm(Enum):
    """How the token is signed (RFC 7518 3.1, RFC 8037). The value is the word in the settings."""

    RS256 = "RS256"
    RS384 = "RS384"
    RS512 = "RS512"
    PS256 = "PS256"
    PS384 = "PS384"
    PS512 = "PS512"
    ES256 = "ES256"
    ES384 = "ES384"
    ES512 = "ES512"
    EDDSA = "EdDSA"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendJwtStyle:
    """The form of an installation's backend JWTs.

    Attributes:
        header: lower-case name of the request header.
        dialect: put before each claim's name, with a slash between them.
        key_id: for the token's ``kid``; empty leaves it out.
        ttl_us: from ``iat`` to ``exp``; whole seconds count.
    """

    header: str = "x-jwt-assertion"
    issuer: str = "wso2.org/products/am"
    dialect: str = "http://wso2.org/claims"
    algorithm: SigningAlgorithm = SigningAlgorithm.RS256
    key_id: str = ""
    ttl_us: int = 900 * _US_PER_S
