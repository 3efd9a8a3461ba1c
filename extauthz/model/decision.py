"""The answer: allow, or deny with a reason from a closed set."""

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
    """Nothing that the resource takes as a credential was presented."""
    INVALID_CREDENTIALS = "invalid_credentials"
    """The credential is not genuine, not known, or not meant for this service."""
    AMBIGUOUS_CREDENTIALS = "ambiguous_credentials"
    """A credential that must be single was presented more than once."""
    TOKEN_EXPIRED = "token_expired"
    """The token was good once."""
    TOKEN_INACTIVE = "token_inactive"
    """The token is not valid yet, or its issuer calls it inactive."""
    TOKEN_REVOKED = "token_revoked"
    """The token was taken back before its time."""
    WRONG_KEY_TYPE = "wrong_key_type"
    """A sandbox key on a production API, or the other way round."""
    CREDENTIAL_NOT_PERMITTED = "credential_not_permitted"
    """The credential may not be used from this address or referer."""
    API_NOT_FOUND = "api_not_found"
    """No API is served at this host and path."""
    RESOURCE_NOT_FOUND = "resource_not_found"
    """The API has no such resource."""
    METHOD_NOT_ALLOWED = "method_not_allowed"
    """The resource is there, but not for this method."""
    API_BLOCKED = "api_blocked"
    """The API's life cycle says that nobody may call it now."""
    SUBSCRIPTION_NOT_FOUND = "subscription_not_found"
    """The application has not subscribed to the API."""
    SUBSCRIPTION_BLOCKED = "subscription_blocked"
    """The subscription was blocked by the API's publisher."""
    SUBSCRIPTION_INACTIVE = "subscription_inactive"
    """The subscription waits for approval, or was rejected."""
    INSUFFICIENT_SCOPE = "insufficient_scope"
    """The token lacks a scope that the resource asks for."""
    RATE_LIMITED = "rate_limited"
    """A limit has no room for this request now."""
    BLOCKED = "blocked"
    """A deny rule fits."""
    MALFORMED_REQUEST = "malformed_request"
    """The request cannot be judged safely, as with a path that two parties may read differently."""
    UNAVAILABLE = "unavailable"
    """It could not be decided: something that is needed did not answer in time."""


@request_value(frozen=True, slots=True, kw_only=True)
class Denial:
    """What one step of the policy says when it refuses.

    Attributes:
        detail: one sentence for the client; holds nothing that the client must not know.
        found: one clause for the operator, and never for the client: what was found, and what
            was looked for. Quotes what a stranger sent; holds no secret.
        allowed_methods: METHOD_NOT_ALLOWED only.
        scopes: INSUFFICIENT_SCOPE only; what the resource asks for.
        level: RATE_LIMITED only; the first limit that had no room.
        retry_after_us: RATE_LIMITED only; when all limits would have room.
        rule: BLOCKED, the name of the deny rule or block; TOKEN_REVOKED, of the revocation, where it
            has one; RATE_LIMITED, of the tier or custom limit. For the operator: clients are not told which rule refused them.
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
"""Nobody could decide; nothing of why is for the client."""


@request_value(frozen=True, slots=True, kw_only=True)
class Allow:
    """The request may pass.

    Attributes:
        id: names this decision in logs, traces and metadata.
        route: None only for what never has one.
        subscription: None where none is needed, or where the token itself carries it.
        tier: name of the subscription's tier, empty when there is none.
        limits: readings in the order of the levels.
        credential_places: where this API's credentials stood; taken out before the upstream.
        shadow: it is only told, to observers: the door lets the request pass, whatever it says,
            and nothing was charged.
    """

    id: str
    route: Route
    identity: Identity
    subscription: Subscription | None = None
    tier: str = ""
    limits: tuple[LimitStatus, ...] = ()
    credential_places: tuple[Place, ...] = ()
    shadow: bool = False


@request_value(frozen=True, slots=True, kw_only=True)
class Deny:
    """The request may not pass. What was known when it was refused is there for the record.

    `shadow`: as in `Allow`.
    """

    id: str
    denial: Denial
    route: Route | None = None
    identity: Identity = ANONYMOUS
    subscription: Subscription | None = None
    tier: str = ""
    limits: tuple[LimitStatus, ...] = ()
    shadow: bool = False

    @property
    def reason(self) -> Reason:
        """Why."""
        return self.denial.reason


Decision = Allow | Deny
