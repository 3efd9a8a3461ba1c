"""Step 5, rate limits: plans which counters a request takes from.

Limits have WSO2 API Manager's order, and the first one without room is named in the denial:

1. the API's tier, or the resource's when the API has none: all callers together
2. the subscription's tier: this consumer on this API
3. the burst of the subscription's tier
4. the application's tier: this consumer on all APIs
5. custom limits, in the catalog's order
6. for callers without a credential, the unauthenticated tier: each client address

A tier's burst follows its limits, at every level. The limits of the condition groups that a request
fits replace the tier's own. A tier may count each user apart. A consumer is the application; for API keys that have none, the key; for
tokens that name none, the issuer's consumer key, else its user, else the client address.

A limit in bytes is charged 0 before the response, as the bytes are not known yet: `answers.judge`
refuses when nothing is left, and `plan_usage_charges` takes them after the response.

These functions are pure: `extauthz.policy.limits.charging` takes between `plan_charges` and
`judge`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from extauthz.model.catalog import Catalog
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.model.limits import (
    ConditionGroup,
    LimitLevel,
    OutageMode,
    QuotaUnit,
    Tier,
)
from extauthz.model.routing.routes import Route
from extauthz.policy.limits.conditions import ask_address, find_fitting_groups, fits_all
from extauthz.policy.limits.costs import read_cost
from extauthz.policy.limits.keys import KeyTemplate, find_origin, write_client, write_parts
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.policy.limits.quota import UsedBytes
from extauthz.policy.limits.tier_limits import PlannedLimit, TierPlanner, take_instead

MAX_PLANS: Final = 10_000
"""Plans that are cached; when there are more, the cache is emptied."""
MAX_USAGE_BYTES: Final = 10**12
"""The most that one report charges, so that counters stay exact in doubles."""

_ALWAYS: Final = (0, 1 << 62)
_BY_ADDRESS: Final = "client"

# Module constants, because reading a member of an enum takes 40 ns longer.
_NONE: Final = SecurityScheme.NONE
_BYTES: Final = QuotaUnit.BYTES


_Tiers: TypeAlias = tuple[Tier | None, Tier | None, Tier | None]
_Groups: TypeAlias = tuple[tuple[ConditionGroup, ...], ...]
"""For each of `_Tiers`, the condition groups that a request fits."""

_NO_GROUPS: Final[_Groups] = ((), (), ())


@dataclass(frozen=True, slots=True)
class _Basis:
    """Everything that a plan is made from.

    Attributes:
        tiers: the tier of all callers, the subscription's and the application's. Keeps the tiers
            alive whose identities are part of the plan's key.
        user: issuer and name of the user, where a tier counts users apart; else empty.
        origin: the caller's network, with `user`.
    """

    route: Route
    consumer: str | tuple[str, ...]
    tiers: _Tiers
    groups: _Groups = _NO_GROUPS
    user: tuple[str, ...] = ()
    origin: str = ""


@dataclass(frozen=True, slots=True)
class _Plan:
    """The limits of a consumer on a resource; valid from `since_us` until `until_us`.

    Attributes:
        asks_request: whether the limits depend on the request: a tier has condition groups
            (`limits` is then for requests that fit none), or the request states its cost.
        asks_user: whether a tier counts users apart; `limits` is then for requests without a user.
    """

    limits: tuple[PlannedLimit, ...]
    since_us: int
    until_us: int
    basis: _Basis
    asks_request: bool
    asks_user: bool


class RateLimitPlanner:
    """Plans the charges of requests. There is one for each catalog.

    Args:
        on_outage: the outage mode of tiers that have none of their own.

    Raises:
        ValueError: a custom limit's key template is not good.
    """

    def __init__(self, catalog: Catalog, *, on_outage: OutageMode = OutageMode.LOCAL) -> None:
        self._tiers = TierPlanner(on_outage)
        self._client_tier = catalog.unauthenticated_tier
        self._custom = tuple(
            (custom, KeyTemplate(custom.template)) for custom in catalog.custom_limits
        )
        self._plans: dict[tuple[object, ...], _Plan] = {}

    def plan_charges(
        self, limited: LimitedRequest, now_us: int, *, cost: int | None = None
    ) -> tuple[PlannedLimit, ...]:
        """The limits of a request, in the order in which they are judged.

        Args:
            cost: used instead of the resource's, as when Mixer asks for an amount.
        """
        route, tier = limited.route, limited.tier
        application = limited.identity.application
        consumer: str | tuple[str, ...] = ""
        application_tier = None
        if application is not None:
            consumer = application.name
            application_tier = application.tier
        elif tier is not None:
            consumer = _find_nameless_consumer(limited.identity, limited.client_address)
        # Tiers by identity: hashing one by value would cost more than all the rest. The plan
        # keeps them alive, so that no other object can get the same id.
        key: tuple[object, ...]
        key = (route.api, route.resource, consumer, id(tier), id(application_tier))
        plan = self._plans.get(key)
        if plan is None or not plan.since_us <= now_us < plan.until_us:
            tiers = (route.api.tier or route.resource.tier, tier, application_tier)
            plan = self._remember_plan(key, _Basis(route, consumer, tiers), now_us)
        if plan.asks_user and limited.identity.user:
            user = (limited.identity.issuer, limited.identity.user)
            origin = find_origin(write_client(limited.client_address))
            key = (*key, user, origin)
            plan = self._find_variant(key, replace(plan.basis, user=user, origin=origin), now_us)
        if plan.asks_request:
            groups = _find_groups(plan.basis.tiers, limited)
            if groups != _NO_GROUPS:
                basis = replace(plan.basis, groups=groups)
                plan = self._find_variant((*key, groups), basis, now_us)
            source = route.resource.cost_from
            if cost is None and source is not None:
                cost = read_cost(source, limited.request, route.resource.cost)
        limits = plan.limits
        if cost is not None and cost != route.resource.cost:
            limits = tuple(take_instead(planned, cost) for planned in limits)
        if self._custom or self._limits_client(limited):
            if cost is None:
                cost = route.resource.cost
            limits += self._plan_for_request(limited, now_us, cost)
        return limits

    def asks_address(self, limited: LimitedRequest) -> bool:
        """Whether any limit of a request may count by the client's address.

        When the address is then not known, the request could not be counted correctly.
        """
        route, identity = limited.route, limited.identity
        application = identity.application
        if self._limits_client(limited):
            return True
        is_nameless = application is None and limited.tier is not None
        if is_nameless and _find_nameless_consumer(identity, "")[0] == _BY_ADDRESS:
            return True
        tiers = [route.api.tier or route.resource.tier, limited.tier]
        if application is not None:
            tiers.append(application.tier)
        for custom, template in self._custom:
            if custom.apis and route.api.name not in custom.apis:
                continue
            if template.asks_address or ask_address(custom.when):
                return True
            tiers.append(custom.tier)
        return any(
            ask_address(group.when)
            for tier in tiers
            if tier is not None
            for group in tier.conditions
        )

    def plan_usage_charges(
        self, limited: LimitedRequest, now_us: int, used: UsedBytes
    ) -> tuple[PlannedLimit, ...]:
        """The charges of an answered request to its limits in bytes; they are never refused.

        `limited` must be as it was for the decision, so that the same limits are found. The bytes
        count in the window in which they are charged.
        """
        size = min(max(0, used.request_bytes) + max(0, used.response_bytes), MAX_USAGE_BYTES)
        if not size:
            return ()
        planned = self.plan_charges(limited, now_us, cost=limited.route.resource.cost)
        return tuple(
            replace(one, charge=replace(one.charge, cost=size, enforced=False))
            for one in planned
            if one.limit.quota_unit is _BYTES
        )

    def _limits_client(self, limited: LimitedRequest) -> bool:
        """Whether the unauthenticated tier applies to a request."""
        return limited.identity.scheme is _NONE and self._client_tier is not None

    def _find_variant(self, key: tuple[object, ...], basis: _Basis, now_us: int) -> _Plan:
        """The plan of the same consumer for some groups, or one of its users."""
        found = self._plans.get(key)
        if found is None or not found.since_us <= now_us < found.until_us:
            found = self._remember_plan(key, basis, now_us)
        return found

    def _remember_plan(self, key: tuple[object, ...], basis: _Basis, now_us: int) -> _Plan:
        plan = self._plan(basis, now_us)
        if len(self._plans) >= MAX_PLANS:
            self._plans.clear()
        self._plans[key] = plan
        return plan

    def _plan(self, basis: _Basis, now_us: int) -> _Plan:
        """The part of a plan that depends only on the plan's key."""
        api, resource = basis.route.api, basis.route.resource
        consumer = basis.consumer
        of_api = write_parts(api.name, api.version)
        parts = (consumer,) if isinstance(consumer, str) else consumer
        tag = f"{{a{write_parts(*parts)}}}"
        if api.tier is not None:
            shared = (LimitLevel.API, f"{{p{of_api}}}")
        else:
            methods = ",".join(sorted(resource.methods))
            subject = f"{{r{of_api}{write_parts(methods, resource.template)}}}"
            shared = (LimitLevel.RESOURCE, subject)
        places = (
            shared,
            (LimitLevel.SUBSCRIPTION, f"{tag}s{of_api}"),
            (LimitLevel.APPLICATION, f"{tag}a"),
        )
        is_by_address = not isinstance(consumer, str) and consumer[0] == _BY_ADDRESS
        origin = find_origin(consumer[1]) if is_by_address else ""
        limits: list[PlannedLimit] = []
        for (level, subject), tier, fitting in zip(places, basis.tiers, basis.groups, strict=True):
            if tier is None:
                continue
            is_of_user = tier.per_user and bool(basis.user)
            limits += self._tiers.plan(
                level,
                tier,
                f"{subject}u{write_parts(*basis.user)}" if is_of_user else subject,
                resource.cost,
                now_us,
                fitting=fitting,
                origin=basis.origin if is_of_user else "" if level is shared[0] else origin,
                roams=is_of_user,
            )
        since_us, until_us = _ALWAYS
        for planned in limits:
            if planned.charge.bounds:
                since_us = max(since_us, planned.charge.bounds[1])
                until_us = min(until_us, planned.charge.bounds[2])
        asks_request = resource.cost_from is not None or any(
            tier is not None and tier.conditions for tier in basis.tiers
        )
        asks_user = any(tier is not None and tier.per_user for tier in basis.tiers)
        return _Plan(tuple(limits), since_us, until_us, basis, asks_request, asks_user)

    def _plan_for_request(
        self, limited: LimitedRequest, now_us: int, cost: int
    ) -> tuple[PlannedLimit, ...]:
        """The limits that depend on more of the request than the plan's key."""
        client = write_client(limited.client_address)
        limits: list[PlannedLimit] = []
        for custom, template in self._custom:
            if custom.apis and limited.route.api.name not in custom.apis:
                continue
            if not fits_all(custom.when, limited):
                continue
            subject = template.find_subject(limited)
            if subject is not None:
                limits += self._tiers.plan(
                    LimitLevel.CUSTOM,
                    custom.tier,
                    # Two custom limits may have the same subject and rule.
                    f"{{k{write_parts(custom.name)}{subject}}}",
                    cost,
                    now_us,
                    name=custom.name,
                    fitting=find_fitting_groups(custom.tier.conditions, limited),
                    origin=find_origin(client) if template.is_open else "",
                    roams=not template.asks_address,
                )
        tier = self._client_tier
        if tier is not None and self._limits_client(limited):
            limits += self._tiers.plan(
                LimitLevel.CLIENT,
                tier,
                f"{{c{write_parts(client)}}}",
                cost,
                now_us,
                fitting=find_fitting_groups(tier.conditions, limited),
                origin=find_origin(client),
            )
        return tuple(limits)


def _find_groups(tiers: _Tiers, limited: LimitedRequest) -> _Groups:
    return tuple(
        find_fitting_groups(tier.conditions, limited)
        if tier is not None and tier.conditions
        else ()
        for tier in tiers
    )


def _find_nameless_consumer(identity: Identity, client_address: str) -> tuple[str, ...]:
    """The consumer to count for a caller without an application.

    It has two parts or more, so it never equals an application's name.
    """
    if identity.consumer_key:
        return ("key", identity.issuer, identity.consumer_key)
    if identity.token_id and not identity.issuer:
        return ("api_key", identity.token_id)
    if identity.user:
        return ("user", identity.issuer, identity.user)
    return (_BY_ADDRESS, write_client(client_address))
