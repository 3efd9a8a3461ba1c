"""Step 3, subscription: checks that an application may use an API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from extauthz.model.apis import Api
from extauthz.model.catalog import UNLIMITED_TIER, Catalog
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Identity, KeyType, SecurityScheme
from extauthz.model.limits import Tier
from extauthz.model.subscriptions import Subscription, SubscriptionState
from extauthz.model.values import request_value

_NOT_FOUND: Final = Denial(
    reason=Reason.SUBSCRIPTION_NOT_FOUND,
    detail="The application has no subscription to this API.",
)
_BLOCKED: Final = Denial(
    reason=Reason.SUBSCRIPTION_BLOCKED, detail="The subscription to this API is blocked."
)
_INACTIVE: Final = Denial(
    reason=Reason.SUBSCRIPTION_INACTIVE, detail="The subscription to this API is not active."
)
_UNKNOWN_TIER: Final = Denial(
    reason=Reason.SUBSCRIPTION_NOT_FOUND,
    detail="The token's subscription has a tier that is not known here.",
)


@request_value(frozen=True, slots=True)
class Subscribed:
    """The subscription and tier under which a caller uses an API.

    Attributes:
        subscription: None when none is needed, or when the token itself carries it.
        tier: its limits apply; None for no limits.
    """

    subscription: Subscription | None = None
    tier: Tier | None = None


_UNNEEDED: Final = Subscribed()

# Here, as a look into an enum takes 40 ns more than one into a module.
_NONE: Final = SecurityScheme.NONE
_UNBLOCKED: Final = SubscriptionState.UNBLOCKED


def check_subscription(catalog: Catalog, api: Api, identity: Identity) -> Subscribed | Denial:
    """Finds the subscription of the caller to the API, or the denial when it has none.

    Source: WSO2 Choreo Connect 1.2, JWT authenticator (states and their outcomes).
    """
    if identity.scheme is _NONE:
        return _UNNEEDED
    if identity.subscribed is not None:
        tier_name = find_tier_in_token(identity.subscribed, api)
        if tier_name is not None:
            return _check_tier_in_token(catalog, tier_name)
    application = identity.application
    subscription = (
        None
        if application is None
        else catalog.subscriptions.get((application.name, api.name, api.version))
    )
    if subscription is None:
        if api.subscription_required:
            return _NOT_FOUND
        tier = api.unsubscribed_tier
        return _UNNEEDED if tier is None else Subscribed(tier=tier)
    state = subscription.state
    if state is _UNBLOCKED:
        return Subscribed(subscription, subscription.tier)
    match state:
        case SubscriptionState.UNBLOCKED | SubscriptionState.TIER_UPDATE_PENDING:
            pass
        case SubscriptionState.BLOCKED:
            return _BLOCKED
        case SubscriptionState.PROD_ONLY_BLOCKED:
            if identity.key_type is not KeyType.SANDBOX:
                return _BLOCKED
        case SubscriptionState.ON_HOLD | SubscriptionState.REJECTED:
            return _INACTIVE
    return Subscribed(subscription, subscription.tier)


def find_tier_in_token(subscribed: Mapping[tuple[str, str], str], api: Api) -> str | None:
    """The tier that a token names for an API; None when it names none.

    Case is ignored when no name matches exactly: in WSO2, no two API names differ in case only.
    """
    exact = subscribed.get((api.name, api.version))
    if exact is not None:
        return exact
    name = api.name.lower()
    return next(
        (
            tier_name
            for (api_name, version), tier_name in subscribed.items()
            if version == api.version and api_name.lower() == name
        ),
        None,
    )


def _check_tier_in_token(catalog: Catalog, name: str) -> Subscribed | Denial:
    tier = catalog.tiers.get(name)
    if tier is None and name not in ("", UNLIMITED_TIER):
        # Without limits the subscription would be unlimited; a token cannot grant that.
        return _UNKNOWN_TIER
    return Subscribed(tier=tier)
