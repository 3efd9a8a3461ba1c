"""The facts of a request that the planning of its limits may use."""

from __future__ import annotations

from extauthz.model.identity import Identity
from extauthz.model.limits import Tier
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.model.values import request_value


@request_value(frozen=True, slots=True)
class LimitedRequest:
    """A request that has passed all steps before the limits.

    Attributes:
        tier: the tier of the subscription, or of a token that carries one; None for no limits.
        client_address: the address by the rules of the settings, which may differ from the peer's;
            empty when it is not known.
    """

    request: ApiRequest
    route: Route
    identity: Identity
    tier: Tier | None
    client_address: str
