"""Step 5, how often: which counters a request takes from, and what their answer means.

Limits are asked in WSO2 API Manager's order, and the first one without room names the denial:

1. the API's tier, or the resource's when the API has none: all callers together
2. the subscription's tier: this consumer on this API
3. the burst of the subscription's tier
4. the application's tier: this consumer on whatever API
5. custom limits, in the catalog's order
6. for callers without a credential, the unauthenticated tier: each client address

A tier's burst follows its limits, at level BURST, whatever the tier hangs on. A consumer is the
application; for tokens that name none, the issuer's consumer key, else its user, else the
client address. All of it is pure: the pipeline takes between `plan_charges` and `judge`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from extauthz.errors import CounterStoreError
from extauthz.model.catalog import Catalog, Subscription
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.model.limits import (
    Algorithm,
    Charge,
    Limit,
    LimitLevel,
    LimitStatus,
    OutageMode,
    Taking,
    Tier,
)
from extauthz.model.request import ApiRequest
from extauthz.model.routes import Route
from extauthz.policy.calendar_windows import plan_calendar_bounds
from extauthz.policy.limit_keys import KeyTemplate, write_client, write_parts

MAX_PLANS: Final = 10_000
"""Plans that are remembered; when there are more, all are made anew."""

_ALWAYS: Final = (0, 1 << 62)


@dataclass(frozen=True, slots=True)
class PlannedLimit:
    """One limit of a request, and what it takes. `name` is the tier's, or the custom limit's."""

    level: LimitLevel
    name: str
    limit: Limit
    charge: Charge


@dataclass(frozen=True, slots=True)
class _Plan:
    """The limits of a consumer on a resource; good from `since_us` until `until_us`.

    `tiers` keeps the tiers alive whose identities are part of the plan's key.
    """

    limits: tuple[PlannedLimit, ...]
    since_us: int
    until_us: int
    tiers: tuple[Tier | None, Tier | None]


class RateLimitPlanner:
    """Plans the charges of requests. Made with a catalog, and thrown away with it.

    Args:
        on_outage: for tiers that do not say themselves what happens in an outage.

    Raises:
        ValueError: a custom limit's key template is not good.
    """

    def __init__(self, catalog: Catalog, *, on_outage: OutageMode = OutageMode.LOCAL) -> None:
        self._on_outage = on_outage
        self._client_tier = catalog.unauthenticated_tier
        self._custom = tuple(
            (custom, KeyTemplate(custom.template)) for custom in catalog.custom_limits
        )
        self._plans: dict[tuple[object, ...], _Plan] = {}
        self._bounds: dict[str, tuple[int, int, int, int]] = {}
        """By `Limit.rule`: the calendar windows around now."""

    def plan_charges(
        self,
        route: Route,
        identity: Identity,
        subscription: Subscription | None,
        request: ApiRequest,
        client_address: str,
        now_us: int,
        *,
        subscription_tier: Tier | None = None,
        cost: int | None = None,
    ) -> tuple[PlannedLimit, ...]:
        """The limits of a request, in the order in which they are judged.

        Args:
            client_address: as settings say it is found; not simply the peer's.
            subscription_tier: for tokens that carry their subscription, when there is no
                `subscription`.
            cost: instead of the resource's, as when Mixer asks for an amount.
        """
        if subscription is not None:
            subscription_tier = subscription.tier
        application = identity.application
        consumer: str | tuple[str, ...] = ""
        application_tier = None
        if application is not None:
            consumer = application.name
            application_tier = application.tier
        elif subscription_tier is not None:
            consumer = _find_nameless_consumer(identity, client_address)
        # The tiers by identity: hashing one by value costs more than all the rest. The plan
        # keeps them alive, so that no other can get their number.
        key = (
            route.api,
            route.resource,
            consumer,
            id(subscription_tier),
            id(application_tier),
            cost,
        )
        plan = self._plans.get(key)
        if plan is None or not plan.since_us <= now_us < plan.until_us:
            tiers = (subscription_tier, application_tier)
            plan = self._plan(route, consumer, tiers, cost, now_us)
            if len(self._plans) >= MAX_PLANS:
                self._plans.clear()
            self._plans[key] = plan
        limits = plan.limits
        if self._custom or (
            identity.scheme is SecurityScheme.NONE and self._client_tier is not None
        ):
            limits += self._plan_for_request(route, identity, request, client_address, now_us, cost)
        return limits

    def _plan(
        self,
        route: Route,
        consumer: str | tuple[str, ...],
        tiers: tuple[Tier | None, Tier | None],
        cost: int | None,
        now_us: int,
    ) -> _Plan:
        """The part of a plan that depends on no more than the plan's key."""
        api, resource = route.api, route.resource
        if cost is None:
            cost = resource.cost
        subscription_tier, application_tier = tiers
        of_api = write_parts(api.name, api.version)
        parts = (consumer,) if isinstance(consumer, str) else consumer
        tag = f"{{a{write_parts(*parts)}}}"
        limits: list[PlannedLimit] = []
        if api.tier is not None:
            limits += self._of_tier(LimitLevel.API, api.tier, f"{{p{of_api}}}", cost, now_us)
        elif resource.tier is not None:
            methods = ",".join(sorted(resource.methods))
            subject = f"{{r{of_api}{write_parts(methods, resource.template)}}}"
            limits += self._of_tier(LimitLevel.RESOURCE, resource.tier, subject, cost, now_us)
        if subscription_tier is not None:
            subject = f"{tag}s{of_api}"
            limits += self._of_tier(
                LimitLevel.SUBSCRIPTION, subscription_tier, subject, cost, now_us
            )
        if application_tier is not None:
            limits += self._of_tier(
                LimitLevel.APPLICATION, application_tier, f"{tag}a", cost, now_us
            )
        since_us, until_us = _ALWAYS
        for planned in limits:
            if planned.charge.bounds:
                since_us = max(since_us, planned.charge.bounds[1])
                until_us = min(until_us, planned.charge.bounds[2])
        return _Plan(tuple(limits), since_us, until_us, tiers)

    def _plan_for_request(
        self,
        route: Route,
        identity: Identity,
        request: ApiRequest,
        client_address: str,
        now_us: int,
        cost: int | None,
    ) -> tuple[PlannedLimit, ...]:
        """The limits that depend on more of the request than a plan's key holds."""
        if cost is None:
            cost = route.resource.cost
        limits: list[PlannedLimit] = []
        for custom, template in self._custom:
            subject = template.find_subject(route, identity, request, client_address)
            if subject is not None:
                # Two custom limits may count the same thing by the same rule.
                subject = f"{{k{write_parts(custom.name)}{subject}}}"
                limits += [
                    replace(planned, name=custom.name)
                    for planned in self._of_tier(
                        LimitLevel.CUSTOM, custom.tier, subject, cost, now_us
                    )
                ]
        if identity.scheme is SecurityScheme.NONE and self._client_tier is not None:
            subject = f"{{c{write_parts(write_client(client_address))}}}"
            limits += self._of_tier(LimitLevel.CLIENT, self._client_tier, subject, cost, now_us)
        return tuple(limits)

    def _of_tier(
        self, level: LimitLevel, tier: Tier, subject: str, cost: int, now_us: int
    ) -> list[PlannedLimit]:
        ruled = [(level, limit) for limit in tier.limits]
        if tier.burst is not None:
            ruled.append((LimitLevel.BURST, tier.burst))
        seen: dict[str, int] = {}
        planned: list[PlannedLimit] = []
        for at_level, limit in ruled:
            rule = limit.rule
            nth = seen[rule] = seen.get(rule, 0) + 1
            # A tier may hold a rule twice, as with a shadow limit beside the one that denies.
            key = f"{subject}|{rule}" if nth == 1 else f"{subject}|{rule}|{nth}"
            charge = Charge(
                key,
                limit.algorithm,
                limit.requests,
                limit.window_us,
                cost,
                tier.stop_on_quota_reach and not limit.shadow,
                self._bounds_of(limit, now_us),
                tier.on_outage or self._on_outage,
            )
            planned.append(PlannedLimit(at_level, tier.name, limit, charge))
        return planned

    def _bounds_of(self, limit: Limit, now_us: int) -> tuple[int, ...]:
        if limit.algorithm is not Algorithm.CALENDAR:
            return ()
        assert limit.unit is not None and limit.timezone is not None
        bounds = self._bounds.get(limit.rule)
        if bounds is None or not bounds[1] <= now_us < bounds[2]:
            bounds = plan_calendar_bounds(limit.unit, limit.timezone, now_us)
            self._bounds[limit.rule] = bounds
        return bounds


def _find_nameless_consumer(identity: Identity, client_address: str) -> tuple[str, ...]:
    """Whom to count when no application is known. Two parts or more: never an application."""
    if identity.consumer_key:
        return ("key", identity.issuer, identity.consumer_key)
    if identity.user:
        return ("user", identity.issuer, identity.user)
    return ("client", write_client(client_address))


def judge(
    planned: Sequence[PlannedLimit], taking: Taking
) -> tuple[tuple[LimitStatus, ...], Denial | None]:
    """What a store's answer means: every limit's status, and the denial when one has no room.

    Raises:
        CounterStoreError: the answer does not fit the question.
    """
    readings = taking.readings
    if len(readings) != len(planned):
        raise CounterStoreError(
            f"the counter store gave {len(readings)} readings for {len(planned)} charges"
        )
    refusing: LimitLevel | None = None
    retry_after_us = 0
    statuses = []
    for asked, reading in zip(planned, readings, strict=True):
        enforced = asked.charge.enforced
        statuses.append(LimitStatus(asked.level, asked.name, asked.limit, reading, enforced))
        if enforced and reading.exceeded:
            refusing = refusing or asked.level
            retry_after_us = max(retry_after_us, reading.retry_after_us)
    if taking.charged is not (refusing is None):
        raise CounterStoreError(
            "the counter store's answer contradicts its readings; is the same version of "
            "extauthz counting everywhere?"
        )
    if refusing is None:
        return tuple(statuses), None
    return tuple(statuses), Denial(
        reason=Reason.RATE_LIMITED,
        detail=_DETAILS[refusing],
        level=refusing,
        retry_after_us=retry_after_us,
    )


_DETAILS: Final = {
    LimitLevel.API: "The API has reached its rate limit.",
    LimitLevel.RESOURCE: "The resource has reached its rate limit.",
    LimitLevel.SUBSCRIPTION: "The subscription has reached its rate limit.",
    LimitLevel.BURST: "Requests come too fast one after another.",
    LimitLevel.APPLICATION: "The application has reached its rate limit.",
    LimitLevel.CUSTOM: "A rate limit is reached.",
    LimitLevel.CLIENT: "This client has reached its rate limit.",
}
