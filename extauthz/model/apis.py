"""Defines APIs and their resources, and what each requires of a request."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from extauthz.model.identity import KeyType, Place, SecurityScheme
from extauthz.model.limits import Tier

BOTH_KEY_TYPES: Final = frozenset(KeyType)


class ApiState(Enum):
    """Life cycle of an API (WSO2 API Manager's states)."""

    CREATED = "CREATED"
    PROTOTYPED = "PROTOTYPED"
    PUBLISHED = "PUBLISHED"
    BLOCKED = "BLOCKED"
    DEPRECATED = "DEPRECATED"
    RETIRED = "RETIRED"


class BasePath(Enum):
    """Whether paths begin with the API's base path when the route names the API."""

    SENT = "sent"
    STRIPPED = "stripped"
    EITHER = "either"
    """Either is possible. A path that leads to two different resources is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CostSource:
    """The header or query parameter in which a request states its cost, from 1 to `maximum`."""

    place: Place
    maximum: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resource:
    """Methods on a path template, and what they require.

    Attributes:
        methods: upper-case, or ``*`` for any.
        template: below the API's base path; see `extauthz.model.routing.routes`.
        scopes: any of them is enough unless `all_scopes`; empty requires none.
        security: schemes in order of preference, never empty. NONE alone admits every caller;
            beside others it admits callers that present no credential.
        tier: limits all callers of the resource together.
        cost: what one request takes from each limit.
        cost_from: where a request may state another cost.
    """

    methods: tuple[str, ...]
    template: str
    security: tuple[SecurityScheme, ...]
    scopes: tuple[str, ...] = ()
    all_scopes: bool = False
    tier: Tier | None = None
    cost: int = 1
    cost_from: CostSource | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Api:
    """A named, versioned interface.

    Attributes:
        base_paths: each starts with a slash and has none at its end; the empty one is the root.
        base_path: whether paths begin with one of them when the route names the API.
        hosts: exact, ``*.example.com`` or ``*``; lower-case.
        tier: limits all callers of the API together.
        key_types: kinds of keys that are taken.
        audiences: one of them must be in a bearer token's ``aud``; empty accepts any.
        unsubscribed_tier: limits each consumer that needs no subscription and has none.
        uuid, provider: its id and its owner in WSO2 API Manager; nothing is decided by them.
        bearer_header: lower-case name of the bearer token's header; None for the settings' place.
        api_key_places: places of API keys; None for the settings' places.
        forward_credentials: leave the credential in the request to the upstream.
        allow_preflight: let CORS preflight requests through without a credential.
        schemes: all schemes of its resources; computed from them.
    """

    name: str
    version: str
    resources: tuple[Resource, ...]
    base_paths: tuple[str, ...] = ("",)
    base_path: BasePath = BasePath.EITHER
    hosts: tuple[str, ...] = ("*",)
    is_default_version: bool = False
    state: ApiState = ApiState.PUBLISHED
    tier: Tier | None = None
    key_types: frozenset[KeyType] = BOTH_KEY_TYPES
    subscription_required: bool = True
    audiences: frozenset[str] = frozenset()
    unsubscribed_tier: Tier | None = None
    uuid: str = ""
    provider: str = ""
    bearer_header: str | None = None
    api_key_places: tuple[Place, ...] | None = None
    forward_credentials: bool = False
    allow_preflight: bool = False
    schemes: tuple[SecurityScheme, ...] = field(init=False)

    def __post_init__(self) -> None:
        taken = {scheme: None for resource in self.resources for scheme in resource.security}
        object.__setattr__(self, "schemes", tuple(taken))
