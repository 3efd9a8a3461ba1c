"""Defines the catalog: what is offered and to whom, as an immutable, indexed snapshot.

A catalog is replaced as a whole and never edited. A decision uses one snapshot. Nothing here reads
files: `extauthz.catalog` makes these values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from extauthz.errors import Problem
from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.conditions import Condition
from extauthz.model.deny_rules import DenyRule, DenyRules, Network
from extauthz.model.identity import KeyType
from extauthz.model.issuers import ApiKeySigner, Issuer, SignedKeyKind
from extauthz.model.limits import Tier
from extauthz.model.referers import RefererPattern
from extauthz.model.routing.route_table import RouteTable
from extauthz.model.subscriptions import Subscription, Subscriptions

_NOTHING: Final[Mapping[Any, Any]] = MappingProxyType({})
UNAUTHENTICATED_TIER: Final = "Unauthenticated"
"""The tier that limits callers without a credential, by client address (WSO2's name)."""
UNLIMITED_TIER: Final = "Unlimited"
"""The tier without limits (WSO2's name); a catalog need not define it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ApiKey:
    """A key of an application or for an API, found by its digest.

    Attributes:
        digest: SHA-256 of the key, or HMAC-SHA-256 under the configured pepper.
        application: whose key it is; None for a key for an API that belongs to no application.
        api: name and version of the only API that it is good for; None for every API.
        user: whom it stands for; empty for the application's owner.
        scopes: None when scopes do not apply to this key.
        networks: networks of clients that may use it; empty for all.
        referers, referer_patterns: prefixes of the Referer header and patterns of pages that may
            use it; both empty for all.
        expires_at_us: None for never.
    """

    digest: bytes = field(repr=False)
    application: Application | None
    api: tuple[str, str] | None = None
    user: str = ""
    key_type: KeyType = KeyType.PRODUCTION
    scopes: frozenset[str] | None = None
    networks: tuple[Network, ...] = ()
    referers: tuple[str, ...] = ()
    referer_patterns: tuple[RefererPattern, ...] = ()
    expires_at_us: int | None = None

    @property
    def is_restricted(self) -> bool:
        """Whether it depends on the request from where it may be used."""
        return bool(self.networks or self.referers or self.referer_patterns)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ClientRegistration:
    """The application and key type of a consumer key (OAuth client id) or client certificate."""

    application: Application
    key_type: KeyType = KeyType.PRODUCTION


@dataclass(frozen=True, slots=True, kw_only=True)
class CustomLimit:
    """A limit by any key: `template` says what is counted separately, like ``$clientIp:$api``.

    Attributes:
        when: only requests that fit all of these conditions are counted.
        apis: names of the APIs whose requests it counts; empty for all.
    """

    name: str
    template: str
    tier: Tier
    when: tuple[Condition, ...] = ()
    apis: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class RevokedToken:
    """A revoked token, or all tokens of a consumer key or user that are older than a time.

    Exactly one of the first four attributes is set.

    Attributes:
        token_id: its ``jti``.
        digest: as for `Revocations.revoke_digest`.
        consumer_key, user: whose tokens issued before `issued_before_us` are revoked.
        issuer: the issuer of these; empty for any.
        expires_at_us: when the token, or the last of them, has expired; None if that is not known.
    """

    token_id: str = ""
    digest: bytes = b""
    consumer_key: str = ""
    user: str = ""
    issuer: str = ""
    issued_before_us: int = 0
    expires_at_us: int | None = None


class Catalog:
    """A whole catalog with its indexes. A look-up is one to three dictionary accesses.

    Raises:
        BasePathConflict, TemplateError: routes contradict each other. Duplicate names and
            dangling references are reported by the builder; here the last one counts.
    """

    __slots__ = (
        "__weakref__",
        "api_key_signers",
        "api_keys",
        "apis",
        "applications",
        "applications_by_uuid",
        "certificates",
        "consumer_keys",
        "custom_limits",
        "default_versions",
        "deny_rules",
        "issuers",
        "opaque_issuers",
        "revision",
        "revoked",
        "routes",
        "subscriptions",
        "takes_internal_keys",
        "tiers",
        "unauthenticated_tier",
        "validates_calls",
        "warnings",
    )

    def __init__(
        self,
        *,
        apis: Iterable[Api] = (),
        applications: Iterable[Application] = (),
        api_keys: Iterable[ApiKey] = (),
        consumer_keys: Mapping[tuple[str, str], ClientRegistration] | None = None,
        certificates: Mapping[str, ClientRegistration] | None = None,
        subscriptions: Iterable[Subscription] | Subscriptions = (),
        issuers: Iterable[Issuer] = (),
        api_key_signers: Iterable[ApiKeySigner] = (),
        deny_rules: Iterable[DenyRule] = (),
        custom_limits: Iterable[CustomLimit] = (),
        revoked: Iterable[RevokedToken] = (),
        tiers: Iterable[Tier] = (),
        revision: str = "",
        warnings: Iterable[Problem] = (),
    ) -> None:
        self.apis: dict[tuple[str, str], Api] = {}
        self.default_versions: dict[str, Api | None] = {}
        """By name: the default version, or the only one; None when neither is there."""
        self.routes = RouteTable()
        self.applications: dict[str, Application] = {}
        self.applications_by_uuid: dict[str, Application] = {}
        """Those that have an id of WSO2 API Manager's."""
        self.api_keys: dict[bytes, ApiKey] = {}
        self.consumer_keys: dict[tuple[str, str], ClientRegistration] = {}
        """By issuer and consumer key; the issuer ``""`` means any."""
        self.certificates: dict[str, ClientRegistration] = {}
        """By a certificate's URI SAN, DNS SAN or subject."""
        if not isinstance(subscriptions, Subscriptions):
            subscriptions = Subscriptions(subscriptions)
        self.subscriptions = subscriptions
        self.issuers = {issuer.issuer: issuer for issuer in issuers}
        self.opaque_issuers = tuple(
            issuer
            for issuer in self.issuers.values()
            if issuer.introspection is not None or issuer.key_validation is not None
        )
        """The issuers that are asked about opaque tokens, in this order until one knows the token.

        Such a token does not name its issuer, so there is one issuer, unless each of them may be
        asked about the others' tokens."""
        self.api_key_signers = tuple(api_key_signers)
        self.takes_internal_keys = any(
            signer.kind is SignedKeyKind.INTERNAL for signer in self.api_key_signers
        )
        self.validates_calls = any(
            issuer.key_validation is not None for issuer in self.opaque_issuers
        )
        """Whether an issuer is asked about a token for each API, resource and method."""
        self.deny_rules = DenyRules(deny_rules)
        self.custom_limits = tuple(custom_limits)
        self.revoked: tuple[RevokedToken, ...] = ()
        self.tiers = {tier.name: tier for tier in tiers}
        self.unauthenticated_tier = self.tiers.get(UNAUTHENTICATED_TIER)
        self.revision = revision
        self.warnings = tuple(warnings)
        """What is valid but probably a mistake."""
        self.extend(
            apis=apis,
            applications=applications,
            api_keys=api_keys,
            consumer_keys=consumer_keys or {},
            certificates=certificates or {},
            revoked=revoked,
        )

    def extend(
        self,
        *,
        apis: Iterable[Api] = (),
        applications: Iterable[Application] = (),
        api_keys: Iterable[ApiKey] = (),
        consumer_keys: Mapping[tuple[str, str], ClientRegistration] = _NOTHING,
        certificates: Mapping[str, ClientRegistration] = _NOTHING,
        revoked: Iterable[RevokedToken] = (),
    ) -> None:
        """Adds more parts while the catalog is being built; never called later.

        Raises:
            BasePathConflict, TemplateError: as for the class.
        """
        for api in apis:
            self.apis[api.name, api.version] = api
            self.routes.add(api)
            self._set_default_version(api)
        for application in applications:
            self.applications[application.name] = application
            if application.uuid:
                self.applications_by_uuid[application.uuid] = application
        for key in api_keys:
            self.api_keys[key.digest] = key
        self.consumer_keys.update(consumer_keys)
        self.certificates.update(certificates)
        self.revoked += tuple(revoked)

    def _set_default_version(self, api: Api) -> None:
        """Chooses the version that is marked as the default, else the only version."""
        if api.is_default_version or api.name not in self.default_versions:
            self.default_versions[api.name] = api
        else:
            other = self.default_versions[api.name]
            if other is not None and not other.is_default_version:
                self.default_versions[api.name] = None

    def take_apart(self) -> Iterator[None]:
        """An iterator that empties the tables step by step. It does not keep the catalog alive."""
        registered = (self.api_keys, self.consumer_keys, self.certificates)
        tables = (self.apis, *registered, self.applications, self.applications_by_uuid)
        return _take_apart(self.routes, self.subscriptions, tables)


def _take_apart(
    routes: RouteTable, subscriptions: Subscriptions, tables: Iterable[dict[Any, Any]]
) -> Iterator[None]:
    yield from routes.take_apart()
    yield from subscriptions.take_apart()
    for table in tables:
        while table:
            table.popitem()
            yield
