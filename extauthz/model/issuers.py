"""Defines issuers: how their tokens are verified, and where their keys and introspection are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from extauthz.model.identity import Secret

KEY_VALIDATION_PATH: Final = (
    "/services/APIKeyValidationService.APIKeyValidationServiceHttpsSoap12Endpoint"
)
"""Where API Manager 2.6 serves ``validateKey``, as its Mixer adapter asked it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimNames:
    """The claims from which an issuer's tokens are read: of each list, the first present one.

    Attributes:
        mappings: claims and the names under which conditions and counters' keys know them, too.
    """

    consumer_key: tuple[str, ...] = ("azp", "client_id", "consumerKey")
    scopes: tuple[str, ...] = ("scope", "scp")
    user: tuple[str, ...] = ("sub",)
    key_type: tuple[str, ...] = ("keytype",)
    mappings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IntrospectionEndpoint:
    """The introspection endpoint of an issuer's opaque tokens (RFC 7662).

    Attributes:
        credentials_in_body: send the client's credentials in the form, not as HTTP Basic.
        timeout_us: for one call; the caller's deadline may be nearer.
        ttl_us: longest time that a positive answer is cached.
        inactive_ttl_us: longest time that a definite "inactive" is cached.
        require_token_type: refuse an answer without ``token_type``.
        allow_foreign_tokens: it may be asked about tokens that another issuer issued.
    """

    url: str
    client_id: str
    client_secret: Secret
    credentials_in_body: bool = False
    timeout_us: int = 1_000_000
    ttl_us: int = 60_000_000
    inactive_ttl_us: int = 10_000_000
    require_token_type: bool = False
    allow_foreign_tokens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyValidationEndpoint:
    """Where WSO2 API Manager 2.6 is asked about opaque tokens (SOAP ``validateKey``).

    Attributes:
        url: of the service.
        timeout_us: for one call; the caller's deadline may be nearer.
        ttl_us: longest time that an answer is cached which lets a call through.
        inactive_ttl_us: longest time that a refusal is cached.
        allow_foreign_tokens: it may be asked about tokens that another issuer issued.
    """

    url: str
    username: str
    password: Secret
    timeout_us: int = 1_000_000
    ttl_us: int = 60_000_000
    inactive_ttl_us: int = 10_000_000
    allow_foreign_tokens: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiCall:
    """The call that a token is shown for, where the issuer decides about calls.

    Attributes:
        context: the API's first base path; empty for the root.
        resource: its path template.
    """

    api: str
    version: str
    context: str
    resource: str
    method: str

    def digest(self, token: Secret) -> bytes:
        """SHA-256 over the token and the call; different for each pair."""
        parts = (self.api, self.version, self.context, self.resource, self.method)
        named = "\0".join(parts).encode("utf-8", "surrogatepass")
        return hashlib.sha256(token.digest() + named).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyLocation:
    """Where an issuer's keys are: exactly one of the attributes is set.

    Attributes:
        jwks_url: a JWK Set (RFC 7517) over HTTP.
        discovery_url: an OpenID Provider configuration that names the JWK Set.
        jwks, pem: the text itself.
        hmac_secret: a shared secret; only with HS algorithms.
    """

    jwks_url: str | None = None
    discovery_url: str | None = None
    jwks: str | None = None
    pem: str | None = None
    hmac_secret: Secret | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """An issuer of tokens (a key manager), and how its tokens are verified and read.

    Attributes:
        audiences: one of them must be in ``aud``; empty accepts any (not recommended).
        keys: None when the issuer has opaque tokens only.
        introspection, key_validation: how opaque tokens are asked about; one of the two at most.
        algorithms: the only signature algorithms accepted (RFC 8725 3.1).
        leeway_s: clock skew allowed for ``exp``, ``nbf`` and ``iat``.
        ttl_us: longest time that a verified token is cached.
        refresh_us: age at which fetched keys are fetched again in the background.
        cooldown_us: shortest time between two fetches, whatever ``kid`` a token names.
        subscriptions_from_token: take subscriptions from the ``subscribedAPIs`` claim
            (WSO2's self-contained tokens).
        ca: PEM of the authorities that may sign its servers' certificates, for keys and
            introspection; empty for the system's.
        suspended: its signed tokens are not decided on for now, because it is not known which of
            them were revoked.
        allow_bound_tokens: accept tokens that are bound to a key or certificate (``cnf``) without
            proof of possession.
    """

    issuer: str
    algorithms: tuple[str, ...] = ("RS256",)
    audiences: frozenset[str] = frozenset()
    keys: KeyLocation | None = None
    claims: ClaimNames = ClaimNames()
    introspection: IntrospectionEndpoint | None = None
    key_validation: KeyValidationEndpoint | None = None
    leeway_s: int = 5
    ttl_us: int = 300_000_000
    refresh_us: int = 300_000_000
    cooldown_us: int = 30_000_000
    subscriptions_from_token: bool = False
    allow_bound_tokens: bool = False
    suspended: bool = False
    ca: str = field(default="", repr=False)


class SignedKeyKind(Enum):
    """What a signed API key is for. The value is the word used in a catalog."""

    API_KEY = "api_key"
    """Calls of an application."""
    INTERNAL = "internal"
    """A publisher's tries of one API, without an application."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKeySigner:
    """Who signs API keys that are JWTs.

    Attributes:
        issuer: where the keys are that verify, and how; its name is the signer's. Keys are never
            fetched.
        key_ids: what the header's ``kid`` may be; empty for any.
    """

    issuer: Issuer
    key_ids: frozenset[str] = frozenset()
    kind: SignedKeyKind = SignedKeyKind.API_KEY

    def may_sign(self, key_id: str | None) -> bool:
        """Whether a key that names this ``kid`` may be the signer's."""
        return not self.key_ids or key_id in self.key_ids
