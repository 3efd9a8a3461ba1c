"""Defines decisions: allow, or deny with a reason from a closed set."""

from __future__ import annotations

from enum import Enum
from typing import Final

from extauthz.model.identity import ANONYMOUS, Identity, Place
from extauthz.model.limits import LimitLevel, LimitStatus
from extauthz.model.routing.routes import Route
from extauthz.model.subscriptions import Subscription
from extauthz.model.values import request_value


class Reason(Enum):
    """Why a request is denied. The value is what clients, logs and metrics see."""

    MISSING_CREDENTIALS = "missing_credentials"
    """No credential that the resource accepts was presented."""
    INVALID_CREDENTIALS = "invalid_credentials"
    """The credential is not valid, not known, or not meant for this service."""
    AMBIGUOUS_CREDENTIALS = "ambiguous_credentials"
    """A credential that must be single was presented more than once."""
    TOKEN_EXPIRED = "token_expired"
    """The token was valid and has expired."""
    TOKEN_INACTIVE = "token_inactive"
    """The token is not valid yet, or its issuer calls it inactive."""
    TOKEN_REVOKED = "token_revoked"
    """The token was revoked."""
    WRONG_KEY_TYPE = "wrong_key_type"
    """A sandbox key on a production API, or the other way round."""
    AUDIENCE_NOT_ALLOWED = "audience_not_allowed"
    """The token was not made for this API."""
    CREDENTIAL_NOT_PERMITTED = "credential_not_permitted"
    """The credential may not be used from this address or referer."""
    API_NOT_FOUND = "api_not_found"
    """No API is served at this host and path."""
    RESOURCE_NOT_FOUND = "resource_not_found"
    """The API has no such resource."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    """The resource does not have this method."""
    API_BLOCKED = "api_blocked"
    """The API is blocked by its life cycle."""
    SUBSCRIPTION_NOT_FOUND = "subscription_not_found"
    """The application has not subscribed to the API."""
    SUBSCRIPTION_BLOCKED = "subscription_blocked"
    """The subscription was blocked by the API's publisher."""
    SUBSCRIPTION_INACTIVE = "subscription_inactive"
    """The subscription waits for approval, or was rejected."""
    INSUFFICIENT_SCOPE = "insufficient_scope"
    """The token lacks a scope that the resource requires."""
    RATE_LIMITED = "rate_limited"
    """A limit has no room for this request now."""
    BLOCKED = "blocked"
    """A deny rule refuses the caller."""
    MALFORMED_REQUEST = "malformed_request"
    """The request cannot be judged safely, as with a path that two parties may read differently."""
    UNAVAILABLE = "unavailable"
    """No decision was possible: a service that is needed did not answer in time."""


@request_value(frozen=True, slots=True, kw_only=True)
class Denial:
    """The refusal of one step of the policy.

    Attributes:
        detail: one sentence for the client, without anything that the client must not know.
        found: one clause for the operator, never sent to the client: what was found, and what was
            expected. It quotes what the client sent; it holds no secret.
        allowed_methods: METHOD_NOT_ALLOWED only.
        scopes: INSUFFICIENT_SCOPE only; what the resource requires.
        level: RATE_LIMITED only; the first limit that had no room.
        retry_after_us: RATE_LIMITED only; the time until all limits would have room.
        rule: the name of the rule that refused, for the operator and never for the client. BLOCKED:
            of the deny rule or block; TOKEN_REVOKED: of the revocation, when it has one;
            RATE_LIMITED: of the tier or custom limit.
    """

    reason: Reason
    detail: str = ""
    found: str = ""
    allowed_methods: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    level: LimitLevel | None = None
    retry_after_us: int = 0
    rule: str = ""


UNAVAILABLE: Final = Denial(reason=Reason.UNAVAILABLE, detail="Try again in a moment.")
"""The denial when no decision was possible; the client is not told why."""


@request_value(frozen=True, slots=True, kw_only=True)
class Allow:
    """The request may pass.

    Attributes:
        id: identifies this decision in logs, traces and metadata.
        route: None only for requests that never have one.
        subscription: None when none is needed, or when the token itself carries it.
        tier: name of the subscription's tier, empty when there is none.
        limits: status of the limits, in the order of the levels.
        credential_places: places of the API's credentials, which are removed before the upstream.
        shadow: the decision is reported to observers only: the door lets the request pass in any
            case, and nothing was charged.
        client_address: the client's IP address; empty when it is not known.
        catalog_revision: the revision of the catalog that was decided with.
    """

    id: str
    route: Route
    identity: Identity
    subscription: Subscription | None = None
    tier: str = ""
    limits: tuple[LimitStatus, ...] = ()
    credential_places: tuple[Place, ...] = ()
    shadow: bool = False
    client_address: str = ""
    catalog_revision: str = ""


@request_value(frozen=True, slots=True, kw_only=True)
class Deny:
    """The request may not pass. It holds what was known at that step, for logs and metrics.

    `shadow`, `client_address` and `catalog_revision` are as in `Allow`.
    """

    id: str
    denial: Denial
    route: Route | None = None
    identity: Identity = ANONYMOUS
    subscription: Subscription | None = None
    tier: str = ""
    limits: tuple[LimitStatus, ...] = ()
    shadow: bool = False
    client_address: str = ""
    catalog_revision: str = ""

    @property
    def reason(self) -> Reason:
        """The reason of the denial."""
        return self.denial.reason


Decision = Allow | Deny
