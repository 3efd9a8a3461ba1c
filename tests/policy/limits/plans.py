"""Plans the limits of a request, with defaults for all but the point of a test."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

from extauthz.model.apis import Api
from extauthz.model.applications import Application
from extauthz.model.catalog import Catalog, CustomLimit
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.model.limits import Limit, Tier
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.model.subscriptions import Subscription
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.policy.limits.planning import RateLimitPlanner
from extauthz.policy.limits.tier_limits import PlannedLimit
from tests.builders import (
    START_US,
    a_limit,
    a_request,
    a_tier,
    an_api,
)

UTC = ZoneInfo("UTC")
MOBILE = Application(name="mobile")
CALLER = Identity(scheme=SecurityScheme.JWT, application=MOBILE, user="alice", consumer_key="abc")


def a_planner(**fields: Any) -> RateLimitPlanner:
    return RateLimitPlanner(Catalog(**fields))


def a_limited_request(
    request: ApiRequest | None = None,
    *,
    api: Api | None = None,
    identity: Identity = CALLER,
    subscription_tier: Tier | None = None,
    client: str = "192.0.2.1",
) -> LimitedRequest:
    """For the first resource of the API."""
    api = api or an_api()
    return LimitedRequest(
        request or a_request(), Route(api, api.resources[0]), identity, subscription_tier, client
    )


def plan(
    planner: RateLimitPlanner | None = None,
    *,
    api: Api | None = None,
    identity: Identity = CALLER,
    subscription: Subscription | None = None,
    subscription_tier: Tier | None = None,
    client: str = "192.0.2.1",
    now_us: int = START_US,
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    path: str = "/httpbin/1.0.0/ip",
    cost: int | None = None,
) -> tuple[PlannedLimit, ...]:
    limited = a_limited_request(
        a_request(path, headers=headers),
        api=api,
        identity=identity,
        subscription_tier=subscription.tier if subscription else subscription_tier,
        client=client,
    )
    return (planner or a_planner()).plan_charges(limited, now_us, cost=cost)


def key_of(*planned: PlannedLimit) -> str:
    (only,) = planned
    return only.charge.key


def custom(template: str, *limits: Limit, name: str = "mine") -> CustomLimit:
    return CustomLimit(name=name, template=template, tier=a_tier("T", *limits or (a_limit(),)))
