"""The shape of issuers as users write them in a catalog, and of what signs API keys.

What they mean is `extauthz.catalog.documents.build_issuers`'s to say.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from extauthz.documents.document import Duration, Name, PositiveDuration, StrictModel
from extauthz.model.issuers import SignedKeyKind

MAX_LEEWAY_US = 300_000_000
"""Five minutes. Revocations are kept for longer than this past a token's expiry."""

MAX_PEM: Final = 262_144
"""Characters of keys in PEM that stand in a catalog."""

FileName = Annotated[str, Field(min_length=1, max_length=4096)]
AlgorithmName = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "ES256K",
    "EdDSA", "Ed25519", "Ed448", "HS256", "HS384", "HS512",
]  # fmt: skip


def _as_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


ClaimList = Annotated[
    tuple[Name, ...],
    BeforeValidator(_as_list),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
"""One claim, or several in order of preference."""


def _read_discovery(value: object) -> object:
    """``true`` stays true; a URL stays text."""
    if isinstance(value, bool | str):
        return value
    raise ValueError("must be true, or the URL of the OpenID Provider configuration")


Discovery = Annotated[
    bool | str,
    BeforeValidator(_read_discovery),
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"type": "string", "format": "uri"}]}),
]


class ClaimsDocument(StrictModel):
    """Which claims of an issuer's tokens say what; each one claim or a list by preference."""

    consumer_key: ClaimList = ("azp", "client_id", "consumerKey")
    """The OAuth client id."""
    scopes: ClaimList = ("scope", "scp")
    """The scopes."""
    user: ClaimList = ("sub",)
    """The user."""
    key_type: ClaimList = ("keytype",)
    """PRODUCTION or SANDBOX."""
    mappings: dict[Name, Name] = Field(default_factory=dict)
    """Further names by which conditions and keys of limits know claims: claim to name."""


class IntrospectionDocument(StrictModel):
    """Where opaque tokens are asked for (RFC 7662)."""

    url: Name
    """The introspection endpoint."""
    client_id: Name
    """The client id with which the endpoint is asked."""
    client_secret_file: FileName
    """File that holds the client secret."""
    credentials_in_body: bool = False
    """Send id and secret in the form, not as HTTP Basic."""
    timeout: PositiveDuration = 1_000_000
    """For one call; 1s when left out."""
    ttl: Duration = 60_000_000
    """Longest time that "active" is believed; 1m when left out."""
    inactive_ttl: Duration = 10_000_000
    """Longest time that "inactive" is believed; 10s when left out."""
    require_token_type: bool = False
    """Refuse answers without token_type: with some providers only that tells refresh tokens."""
    allow_foreign_tokens: bool = False
    """Ask it about other issuers' tokens, too; needed where several issuers have introspection."""


class KeyValidationDocument(StrictModel):
    """Where WSO2 API Manager 2.6 is asked about opaque tokens (SOAP validateKey)."""

    url: Name
    """API Manager, like https://apim:9443; with a path, the service itself."""
    username: Name
    """The user as whom the service is asked."""
    password_file: FileName
    """File that holds the user's password."""
    timeout: PositiveDuration = 1_000_000
    """For one call; 1s when left out."""
    ttl: Duration = 60_000_000
    """Longest time that an answer is believed which lets a call through; 1m when left out."""
    inactive_ttl: Duration = 10_000_000
    """Longest time that a refusal is believed; 10s when left out."""
    allow_foreign_tokens: bool = False
    """Ask it about other issuers' tokens, too; needed where several issuers are asked."""


class IssuerTlsDocument(StrictModel):
    """Certificates of https connections to an issuer. Its name is always checked."""

    ca: FileName
    """PEM file: who may sign its certificate, instead of the system's authorities."""


def _check_leeway(leeway_us: int) -> int:
    if leeway_us > MAX_LEEWAY_US:
        raise ValueError("must be 5m at most: an expired token is good for that long")
    return leeway_us


class ApiKeyIssuerDocument(StrictModel):
    """Who signs API keys that are JWTs (WSO2 API Manager). Exactly one place of keys is given."""

    name: Name
    """Names it in messages."""
    kind: SignedKeyKind = SignedKeyKind.API_KEY
    """Keys of applications, or a publisher's internal keys, in the header Internal-Key."""
    key_ids: tuple[Name, ...] = ()
    """What the kid of its keys may be; anything when left out."""
    algorithms: tuple[AlgorithmName, ...] | None = Field(default=None, min_length=1)
    """The only signature algorithms taken; RS256 when left out."""
    pem_file: FileName | None = None
    """File that holds public keys or certificates in PEM."""
    pem: str | None = Field(default=None, min_length=1, max_length=MAX_PEM)
    """The public keys or certificates in PEM themselves."""
    jwks_file: FileName | None = None
    """File that holds the JWK Set."""
    jwks: Annotated[dict[str, Any] | None, WithJsonSchema({"type": "object"})] = None
    """The JWK Set itself."""
    leeway: Annotated[Duration, AfterValidator(_check_leeway)] = 5_000_000
    """Clock skew that is allowed; 5s when left out, 5m at most."""
    token_ttl: Duration = 300_000_000
    """Longest time that a verified key is believed without looking again; 5m if left out."""
    subscriptions_from_key: bool = True
    """Take subscriptions from the keys' subscribedAPIs claim, where they have it."""


class IssuerDocument(StrictModel):
    """Who signs tokens, and how they are read. At most one place of keys may be given."""

    issuer: Name
    """The exact text of the tokens' iss claim."""
    audiences: tuple[Name, ...] = ()
    """One of them must be in the tokens' aud claim."""
    allow_any_audience: bool = False
    """Take tokens that were made for anybody. Not recommended."""
    allow_bound_tokens: bool = False
    """Take tokens that are bound to a key or certificate (cnf) without proof. Not recommended."""
    algorithms: tuple[AlgorithmName, ...] | None = Field(default=None, min_length=1)
    """The only signature algorithms taken; RS256, or HS256 with hmac_secret_file."""
    jwks_url: Name | None = None
    """URL of the JWK Set."""
    discovery: Discovery | None = None
    """true: find the JWK Set by OpenID Connect discovery; or the configuration's URL."""
    jwks_file: FileName | None = None
    """File that holds the JWK Set."""
    jwks: Annotated[dict[str, Any] | None, WithJsonSchema({"type": "object"})] = None
    """The JWK Set itself."""
    pem_file: FileName | None = None
    """File that holds public keys or certificates in PEM."""
    pem: str | None = Field(default=None, min_length=1, max_length=MAX_PEM)
    """The public keys or certificates in PEM themselves."""
    hmac_secret_file: FileName | None = None
    """File that holds the shared secret of HS256, HS384 or HS512."""
    claims: ClaimsDocument = ClaimsDocument()
    """Names of the claims that are read."""
    introspection: IntrospectionDocument | None = None
    """How its opaque tokens are introspected."""
    key_validation: KeyValidationDocument | None = None
    """How WSO2 API Manager 2.6 validates its opaque tokens, instead of introspection."""
    tls: IssuerTlsDocument | None = None
    """Certificates, for keys and introspection; the system's authorities when left out."""
    leeway: Annotated[Duration, AfterValidator(_check_leeway)] = 5_000_000
    """Clock skew that is allowed; 5s when left out, 5m at most."""
    token_ttl: Duration = 300_000_000
    """Longest time that a verified token is believed without looking again; 5m if left out."""
    keys_refresh: PositiveDuration = 300_000_000
    """How old fetched keys may get; 5m when left out."""
    keys_cooldown: PositiveDuration = 30_000_000
    """Shortest time between two fetches of keys; 30s when left out."""
    suspended: bool = False
    """Decide on none of its signed tokens: every request with a valid one gets "could not decide"."""
    subscriptions_from_token: bool = False
    """Take subscriptions from the tokens' subscribedAPIs claim (WSO2 API Manager)."""

    @property
    def asking(self) -> IntrospectionDocument | KeyValidationDocument | None:
        """How it is asked about opaque tokens."""
        return self.introspection or self.key_validation
