"""What is known of a request when its limits are asked: all that planning may read."""

from __future__ import annotations

from extauthz.model.identity import Identity
from extauthz.model.limits import Tier
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.model.values import request_value


@request_value(frozen=True, slots=True)
class LimitedRequest:
    """A request behind all steps but the limits.

    Attributes:
        tier: what limits the caller's use of the API: of the subscription, or of a token that
            carries one. None for no limit.
        client_address: as settings say it is found, which need not be the peer's; empty when it
            is not known.
    """

    request: ApiRequest
    route: Route
    identity: Identity
    tier: Tier | None
    client_address: str
