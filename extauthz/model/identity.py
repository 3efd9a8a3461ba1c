"""Defines identities and credentials. Secrets are redacted when they are printed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from extauthz.model.values import request_value

if TYPE_CHECKING:
    from extauthz.model.applications import Application

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


def _nothing() -> Mapping[str, Any]:
    return _NOTHING  # shared: dataclasses take no mapping as a plain default


class Secret:
    """A string that shows only a short hash of itself."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself. Never log what this gives."""
        return self._value

    def digest(self) -> bytes:
        """SHA-256 of the secret's UTF-8 bytes: what caches and look-ups use as their key."""
        return hashlib.sha256(self._value.encode("utf-8", "surrogatepass")).digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.digest() == other.digest()

    def __hash__(self) -> int:
        return hash(self.digest())

    def __repr__(self) -> str:
        return f"Secret(sha256:{self.digest().hex()[:8]}…)"


class SecurityScheme(Enum):
    """How a caller may prove who it is. The value is the word used in a catalog."""

    JWT = "jwt"
    OPAQUE = "opaque"
    API_KEY = "api_key"
    MTLS = "mtls"
    NONE = "none"

    __hash__ = object.__hash__  # Enum's own hashes the name, in Python, each time


class KeyType(Enum):
    """The environment that a key was issued for (WSO2 API Manager's key types)."""

    PRODUCTION = "PRODUCTION"
    SANDBOX = "SANDBOX"

    __hash__ = object.__hash__  # as above


class PlaceKind(Enum):
    """Where in a request a credential can stand."""

    HEADER = "header"
    QUERY = "query"
    COOKIE = "cookie"
    CONNECTION = "connection"


@dataclass(frozen=True, slots=True)
class Place:
    """One named place in a request: a header (lower-case), query parameter or cookie."""

    kind: PlaceKind
    name: str


@request_value(frozen=True, slots=True, kw_only=True)
class Credential:
    """What a caller presented; it is not verified yet.

    `scheme` is JWT for every bearer token until the authenticator has examined its form.
    """

    scheme: SecurityScheme
    secret: Secret
    place: Place


@request_value(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who the caller is, as far as the credential proves it.

    Attributes:
        application: the consumer, when the catalog knows it.
        scopes: None when this kind of credential has no scopes; scopes are then not checked.
        subscribed: (API name, version) to tier, when the issuer is configured to carry the
            subscriptions in its tokens; None otherwise.
        expires_at_us: when the credential expires; None when it does not.
        application_name: the application as the token names it, when the catalog does not
            know it (self-contained tokens).
    """

    scheme: SecurityScheme
    application: Application | None = None
    key_type: KeyType | None = None
    user: str = ""
    consumer_key: str = ""
    issuer: str = ""
    scopes: frozenset[str] | None = None
    claims: Mapping[str, Any] = field(default_factory=_nothing)
    subscribed: Mapping[tuple[str, str], str] | None = None
    expires_at_us: int | None = None
    token_id: str = ""
    application_name: str = ""


ANONYMOUS: Final = Identity(scheme=SecurityScheme.NONE)
