"""The steps of a decision. `extauthz.policy.pipeline` defines their order.

Each step reads the results of earlier steps, stores its own result in `Progress`, and returns a
`Denial` when it refuses. Only `authenticate` and `charge_limits` wait.
"""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial
from extauthz.model.deny_rules import DenyRule
from extauthz.model.identity import Identity
from extauthz.model.limits import OutageMode
from extauthz.model.routing.routes import Route
from extauthz.policy.authentication.assumed import assume_identity
from extauthz.policy.authentication.authenticate import Authenticator
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.policy.blocks import Blocks, judge_rule
from extauthz.policy.limits.charging import LimitCharger
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.policy.matching.match import check_route
from extauthz.policy.progress import Progress, Step
from extauthz.policy.request.client_address import read_client_address
from extauthz.policy.scopes import check_named_scopes, check_scopes
from extauthz.policy.subscription import Subscribed, check_subscription
from extauthz.policy.throttled import ThrottledKeys


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRules:
    """Settings of an installation that concern every request.

    Attributes:
        trusted_hops: number of trusted proxies in front of the Envoy that asks.
        use_remote_address: whether that Envoy adds its peer to X-Forwarded-For; None infers it from
            the request.
        on_outage: the outage mode of tiers that have none of their own.
    """

    trusted_hops: int = 0
    use_remote_address: bool | None = None
    places: CredentialPlaces = CredentialPlaces()
    on_outage: OutageMode = OutageMode.LOCAL


def match_route(catalog: Catalog, progress: Progress) -> Route | Denial:
    """Finds the API and resource of the request."""
    route = check_route(catalog, progress.request)
    progress.note(Step.MATCH, route)
    if isinstance(route, Denial):
        return route
    progress.route = route
    return route


def refuse_blocked_client(
    catalog: Catalog, route: Route, progress: Progress, blocks: Blocks, rules: PipelineRules
) -> Denial | None:
    """Finds the client's address, and checks the deny rules that do not need an identity."""
    progress.client_address = read_client_address(
        progress.request, rules.trusted_hops, use_remote_address=rules.use_remote_address
    )
    if blocks.are_empty(catalog):
        return None
    rule = blocks.find_for_client(catalog, progress.client_address, route.api)
    return _judge_rule(rule, progress)


async def authenticate(
    catalog: Catalog, route: Route, progress: Progress, authenticator: Authenticator
) -> Denial | None:
    """Authenticates the caller."""
    mode = progress.mode
    identity: Identity | Denial
    if progress.assumed is not None:
        identity = assume_identity(progress.assumed, route)
    else:
        identity = await authenticator.identify(
            progress.request,
            route,
            catalog,
            progress.client_address,
            progress.deadline,
            # An answered request is no new attempt: its credential may have expired meanwhile.
            count_failures=mode.takes and mode.used is None,
        )
    progress.note(Step.AUTHENTICATE, identity)
    if isinstance(identity, Denial):
        return identity
    progress.identity = identity
    return None


def refuse_blocked_caller(
    catalog: Catalog, route: Route, progress: Progress, blocks: Blocks
) -> Denial | None:
    """Checks the deny rules again with the caller's identity.

    A block may have come since `refuse_blocked_client`.
    """
    if blocks.are_empty(catalog):
        return None
    rule = blocks.find_for_caller(catalog, progress.client_address, route.api, progress.identity)
    return _judge_rule(rule, progress)


def _judge_rule(rule: DenyRule | None, progress: Progress) -> Denial | None:
    is_answered = progress.mode.used is not None
    denial = judge_rule(rule, progress.client_address, is_answered=is_answered)
    progress.note(Step.DENY_RULES, rule if denial and denial.rule else denial)
    return denial


def require_subscription(catalog: Catalog, route: Route, progress: Progress) -> Subscribed | Denial:
    """Finds the subscription that allows the caller to use the API."""
    subscribed = check_subscription(catalog, route.api, progress.identity)
    progress.note(Step.SUBSCRIPTION, subscribed)
    if isinstance(subscribed, Denial):
        return subscribed
    progress.subscription = subscribed.subscription
    if subscribed.tier is not None:
        progress.tier = subscribed.tier.name
    return subscribed


def require_scopes(
    catalog: Catalog, route: Route, progress: Progress, places: CredentialPlaces
) -> Denial | None:
    """Checks the token's scopes, and finds the credentials that the upstream must not get."""
    request = progress.request
    progress.removed_places = places.find_removed(
        request, route.api, takes_internal_keys=catalog.takes_internal_keys
    )
    denial = check_scopes(route.resource, progress.identity)
    if denial is None and request.context:
        denial = check_named_scopes(request, progress.identity)
    progress.note(Step.SCOPES, denial)
    return denial


async def charge_limits(
    catalog: Catalog,
    route: Route,
    subscribed: Subscribed,
    progress: Progress,
    charger: LimitCharger,
    throttled: ThrottledKeys,
) -> Denial | None:
    """Charges the limits of the request in the decision's mode, unless it is throttled already."""
    limited = LimitedRequest(
        progress.request,
        route,
        progress.identity,
        subscribed.tier,
        progress.client_address,
    )
    if progress.mode.used is None:
        denial = throttled.find(limited)
        if denial is not None:
            progress.note(Step.RATE_LIMITS, denial)
            return denial
    charged = await charger.charge(catalog, limited, progress.mode, progress.deadline)
    progress.limits, progress.granted = charged.limits, charged.granted
    progress.note(Step.RATE_LIMITS, charged.denial or charged.limits)
    return charged.denial
