"""The shape of a catalog as users write it; `extauthz.catalog.documents.build` gives it meaning.

One file holds any part of a catalog; a folder of files is merged. Each attribute's docstring is
the description that editors show (`catalog_schema`) and `docs/reference/catalog.md` explains.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    WithJsonSchema,
)
from pydantic.dataclasses import dataclass

from extauthz.catalog.documents.limit_shapes import Cost, CustomLimitDocument, TierDocument
from extauthz.documents.document import (
    Duration,
    Line,
    Name,
    PositiveDuration,
    StrictModel,
    write_schema,
)
from extauthz.model.apis import ApiState, BasePath
from extauthz.model.identity import KeyType, SecurityScheme
from extauthz.model.subscriptions import SubscriptionState

MAX_LEEWAY_US = 300_000_000
"""Five minutes. Revocations are kept for longer than this past a token's expiry."""

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


class PlaceDocument(StrictModel):
    """Where an API key stands: exactly one of the keys."""

    header: Name | None = None
    """Name of a request header."""
    query: Name | None = None
    """Name of a query parameter."""
    cookie: Name | None = None
    """Name of a cookie."""


class ResourceDocument(StrictModel):
    """Methods on a path template, and what they ask for."""

    methods: tuple[Name, ...] = Field(min_length=1)
    """HTTP methods, or "*" for any."""
    path: Name
    """Template below the context: {name} is one segment, a last * or ** all the rest."""
    scopes: tuple[Name, ...] = ()
    """Scopes that the token must have; none when empty."""
    scopes_match: Literal["any", "all"] = "any"
    """Whether one of the scopes is enough, or all are needed."""
    security: tuple[SecurityScheme, ...] | None = Field(default=None, min_length=1)
    """Schemes that are taken here, instead of the API's."""
    tier: Name | None = None
    """Limits all callers of this resource together."""
    cost: Cost = Field(default=1, validate_default=True)
    """What one request takes from each limit, or where the request says it."""


class ApiDocument(StrictModel):
    """A named, versioned interface."""

    name: Name
    """Name of the API; a name may have several versions."""
    version: Name
    """Version of the API, like 1.0.0 or v1."""
    context: Name | None = None
    """Base path; the version is added unless it stands in it. Left out: found by host alone."""
    base_path: BasePath = BasePath.EITHER
    """Where a route names the API: whether paths have the base path (sent), or not (stripped)."""
    hosts: tuple[Name, ...] = Field(default=("*",), min_length=1)
    """Hosts that serve it: exact, *.example.com, or *."""
    default_version: bool = False
    """Serve it without the version in the path, too."""
    state: ApiState = ApiState.PUBLISHED
    """Life cycle."""
    security: tuple[SecurityScheme, ...] | None = Field(default=None, min_length=1)
    """Schemes that are taken, by preference; [jwt, api_key] if left out. With none: optional."""
    tier: Name | None = None
    """Limits all callers of the API together, instead of its resources' tiers."""
    resources: tuple[ResourceDocument, ...] = ()
    """Resources of the API."""
    openapi: FileName | None = None
    """An OpenAPI document that says what it offers; `resources` go before it."""
    key_types: frozenset[KeyType] = Field(default=frozenset(KeyType), min_length=1)
    """Kinds of keys that are taken."""
    subscription: Literal["required", "none"] = "required"
    """Whether the application must be subscribed."""
    bearer_header: Name | None = None
    """Header that the bearer token stands in, instead of the settings' one."""
    api_key_places: tuple[PlaceDocument, ...] | None = Field(default=None, min_length=1)
    """Where API keys stand, instead of the settings' places."""
    forward_credentials: bool = False
    """Leave the credential in the request to the upstream."""
    allow_preflight: bool | None = None
    """Let CORS preflight requests through without a credential."""


class ApiKeyDocument(StrictModel):
    """An API key, known by its digest only: `extauthz key new` makes one."""

    sha256: Name | None = None
    """SHA-256 of the key: 64 hexadecimal digits."""
    hmac_sha256: Name | None = None
    """HMAC-SHA-256 of the key under the settings' pepper: 64 hexadecimal digits."""
    key_type: KeyType = KeyType.PRODUCTION
    """Kind of the key."""
    scopes: tuple[Name, ...] | None = None
    """Scopes that the key has; left out, resources' scopes do not apply to it."""
    networks: tuple[Name, ...] = ()
    """Addresses that may use it, like 192.0.2.0/24; empty for all."""
    referers: tuple[Name, ...] = ()
    """Beginnings of the Referer header that may use it; empty for all."""
    expires: AwareDatetime | None = None
    """When it ends, like 2030-01-31T12:00:00Z."""


class ConsumerKeyDocument(StrictModel):
    """An OAuth client id (consumer key) of an application."""

    id: Name
    """The client id, as the token's consumer key claim has it."""
    issuer: Name | None = None
    """Its issuer: one of this catalog, or "*" for any. The only issuer if left out."""
    key_type: KeyType = KeyType.PRODUCTION
    """Kind of the key."""


class CertificateDocument(StrictModel):
    """A client certificate of an application."""

    principal: Name
    """Its URI SAN (like spiffe://…), DNS SAN or subject."""
    key_type: KeyType = KeyType.PRODUCTION
    """Kind of the certificate."""


class ApplicationDocument(StrictModel):
    """A consumer of APIs."""

    name: Name
    """Name of the application."""
    owner: Line = ""
    """Who owns it."""
    tier: Name | None = None
    """Limits all that it does, on whatever API."""
    api_keys: tuple[ApiKeyDocument, ...] = ()
    """Its API keys."""
    consumer_keys: tuple[ConsumerKeyDocument, ...] = ()
    """Its OAuth clients."""
    certificates: tuple[CertificateDocument, ...] = ()
    """Its client certificates."""


# There may be a million: a slotted dataclass takes a fifth of a model's memory.
@dataclass(frozen=True, slots=True, kw_only=True, config=ConfigDict(extra="forbid"))
class SubscriptionDocument:
    """An application's right to call an API."""

    application: Name = Field(description="Name of the application.")
    api: Name = Field(description="Name of the API.")
    version: Name = Field(description="Version of the API.")
    tier: Name | None = Field(default=None, description="Limits this application on this API.")
    state: SubscriptionState = Field(
        default=SubscriptionState.UNBLOCKED, description="Whether it may be used."
    )


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


class IssuerTlsDocument(StrictModel):
    """Certificates of https connections to an issuer. Its name is always checked."""

    ca: FileName
    """PEM file: who may sign its certificate, instead of the system's authorities."""


def _check_leeway(leeway_us: int) -> int:
    if leeway_us > MAX_LEEWAY_US:
        raise ValueError("must be 5m at most: an expired token is good for that long")
    return leeway_us


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
    pem_file: FileName | None = None
    """File that holds public keys or certificates in PEM."""
    hmac_secret_file: FileName | None = None
    """File that holds the shared secret of HS256, HS384 or HS512."""
    claims: ClaimsDocument = ClaimsDocument()
    """Names of the claims that are read."""
    introspection: IntrospectionDocument | None = None
    """How its opaque tokens are introspected."""
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


class DenyDocument(StrictModel):
    """Refuses what fits all conditions that are given, before anything is counted."""

    name: Name | None = None
    """Shown as `rule` in logs, metadata and metrics; made from the conditions when left out."""
    ip: Name | None = None
    """Client address or network, like 203.0.113.0/24."""
    application: Name | None = None
    """Name of an application."""
    api: Name | None = None
    """Name of an API."""
    version: Name | None = None
    """Version of that API; all versions when left out."""
    user: Name | None = None
    """Name of a user."""
    invert: bool = False
    """Invert the rule: it refuses all requests that do not fit."""


class RevokedTokenDocument(StrictModel):
    """A token that is no longer good."""

    jti: Name
    """The token's jti claim."""
    expires: AwareDatetime | None = None
    """When it would have expired anyway, like 2030-01-31T12:00:00Z."""


class CatalogDocument(StrictModel):
    """What is offered and to whom: one file of a catalog."""

    model_config = ConfigDict(title="extauthz catalog")

    apis: tuple[ApiDocument, ...] = ()
    """The APIs on offer."""
    applications: tuple[ApplicationDocument, ...] = ()
    """The applications that may call them."""
    subscriptions: tuple[SubscriptionDocument, ...] = ()
    """Which application may call which API."""
    tiers: dict[Name, TierDocument] = Field(default_factory=dict)
    """Limits by name. The one named Unauthenticated limits callers without a credential."""
    issuers: tuple[IssuerDocument, ...] = ()
    """Issuers whose tokens are accepted."""
    deny: tuple[DenyDocument, ...] = ()
    """Who and what is refused."""
    custom_limits: tuple[CustomLimitDocument, ...] = ()
    """Limits by any key."""
    revoked_tokens: tuple[RevokedTokenDocument, ...] = ()
    """Tokens that are no longer good."""


SUBSCRIPTIONS: TypeAdapter[tuple[SubscriptionDocument, ...]] = TypeAdapter(
    tuple[SubscriptionDocument, ...]
)


def catalog_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a catalog file, for editors."""
    return write_schema(CatalogDocument)
