"""The shape of a catalog as users write it; `extauthz.catalog.documents.build` gives it meaning.

One file holds any part of a catalog; a folder of files is merged. Each attribute's docstring is
the description that editors show (`catalog_schema`) and `docs/reference/catalog.md` explains.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import AwareDatetime, ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from extauthz.catalog.documents.issuer_shapes import ApiKeyIssuerDocument, FileName, IssuerDocument
from extauthz.catalog.documents.limit_shapes import Cost, CustomLimitDocument, TierDocument
from extauthz.documents.document import Line, Name, StrictModel, write_schema
from extauthz.model.apis import ApiState, BasePath
from extauthz.model.identity import KeyType, SecurityScheme
from extauthz.model.subscriptions import SubscriptionState


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
    referer_patterns: tuple[Name, ...] = ()
    """Pages that may use it: www.example.com/path, sub.example.com/* or *.example.com/*."""
    expires: AwareDatetime | None = None
    """When it ends, like 2030-01-31T12:00:00Z."""


class BoundApiKeyDocument(ApiKeyDocument):
    """An API key that is good for one API only."""

    application: Name | None = None
    """Name of the application that it belongs to; without one, no subscription is found for it."""
    user: Line = ""
    """Whom it stands for; the owner of its application when left out."""


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
    unsubscribed_tier: Name | None = None
    """With subscription none: limits each consumer that has no subscription."""
    audiences: tuple[Name, ...] = ()
    """One of them must be in a bearer token's aud; any when left out."""
    bearer_header: Name | None = None
    """Header that the bearer token stands in, instead of the settings' one."""
    api_key_places: tuple[PlaceDocument, ...] | None = Field(default=None, min_length=1)
    """Where API keys stand, instead of the settings' places."""
    api_keys: tuple[BoundApiKeyDocument, ...] = ()
    """API keys that are good for this API only."""
    forward_credentials: bool = False
    """Leave the credential in the request to the upstream."""
    allow_preflight: bool | None = None
    """Let CORS preflight requests through without a credential."""
    uuid: Line = ""
    """Its id in WSO2 API Manager; decides nothing."""
    provider: Line = ""
    """Its owner in WSO2 API Manager; decides nothing."""


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
    display_name: Line = ""
    """The name that the upstream is told, instead of name."""
    uuid: Line = ""
    """Its id in WSO2 API Manager."""
    id: int = Field(default=0, ge=0, le=2**63 - 1)
    """Its number in WSO2 API Manager."""
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
    """A token that is no longer good, or all older tokens of a client or user."""

    jti: Name | None = None
    """The token's jti claim."""
    signature: str | None = Field(default=None, min_length=1, max_length=16_384)
    """The third part of a JWT, as it stands in the token."""
    consumer_key: Name | None = None
    """A client, whose tokens from before issued_before are revoked."""
    user: Name | None = None
    """A user, whose tokens from before issued_before are revoked."""
    issuer: Name | None = None
    """The issuer of the client or user; any when left out."""
    issued_before: AwareDatetime | None = None
    """Revokes tokens of the client or user whose iat is before this time."""
    expires: AwareDatetime | None = None
    """When it, or the last of them, would have expired anyway, like 2030-01-31T12:00:00Z."""


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
    api_key_issuers: tuple[ApiKeyIssuerDocument, ...] = ()
    """Who signs API keys that are JWTs."""
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
