"""Decides: match, authenticate, subscription, scopes, rate limits; in this order.

One decision reads one catalog snapshot. Each step is a plain function that returns what it
found or a `Denial`; this is the only place that puts them in order, and with the authenticator
the only one that waits. `Allow` is built on the last line: nothing starts from it. Whatever
goes wrong on the way is UNAVAILABLE.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final

from extauthz.errors import BackendError, MalformedRequest
from extauthz.model.catalog import Catalog, Subscription
from extauthz.model.decision import Allow, Decision, Denial, Deny, Reason
from extauthz.model.identity import ANONYMOUS, Identity, Place
from extauthz.model.limits import Charge, LimitStatus, OutageMode, Taking
from extauthz.model.request import ApiRequest
from extauthz.model.routes import Route
from extauthz.policy.authenticate import NETWORK_NOT_KNOWN, Authenticator
from extauthz.policy.blocks import Blocks, judge_rule
from extauthz.policy.client_address import (
    ADDRESS_NOT_KNOWN,
    ClientAddressUnknown,
    read_client_address,
    say_why_unknown,
)
from extauthz.policy.credentials import CredentialPlaces
from extauthz.policy.decision_record import DecisionRecord
from extauthz.policy.match import check_route
from extauthz.policy.peek import judge_peek
from extauthz.policy.quota import Grant, QuotaAsk, UsedBytes, take_quota, take_used_bytes
from extauthz.policy.rate_limit import RateLimitPlanner, judge
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.policy.scopes import check_named_scopes, check_scopes
from extauthz.policy.subscription import check_subscription
from extauthz.ports import NO_DEADLINE, Clock, CounterStore, Deadline, DecisionObserver

_log = logging.getLogger(__name__)

UNAVAILABLE: Final = Denial(reason=Reason.UNAVAILABLE, detail="Try again in a moment.")


class Step(Enum):
    """The steps, in their order."""

    MATCH = "match"
    DENY_RULES = "deny rules"
    AUTHENTICATE = "authenticate"
    SUBSCRIPTION = "subscription"
    SCOPES = "scopes"
    RATE_LIMITS = "rate limits"


class Steps(Enum):
    """Which steps a caller wants. Mixer asks twice: Check, then Quota."""

    ALL = "all"
    UP_TO_SCOPES = "up to scopes"


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRules:
    """What an installation says about every request.

    Attributes:
        trusted_hops: proxies of our own in front of the Envoy that asks.
        use_remote_address: whether that Envoy adds its peer to X-Forwarded-For; None leaves it to
            what arrives.
        on_outage: for tiers that do not say what their limits do in an outage.
    """

    trusted_hops: int = 0
    use_remote_address: bool | None = None
    places: CredentialPlaces = CredentialPlaces()
    on_outage: OutageMode = OutageMode.LOCAL


Note = Callable[[Step, object], None]
"""Is told what a step found, for a person who asks why."""


def _note_nothing(_step: Step, _found: object) -> None:
    pass


# Here, as a look into an enum takes 40 ns more than one into a module.
_UP_TO_SCOPES: Final = Steps.UP_TO_SCOPES


@dataclass(slots=True)
class _Progress:
    """How far a decision has come: what is known when it is refused half-way."""

    route: Route | None = None
    identity: Identity = ANONYMOUS
    subscription: Subscription | None = None
    tier: str = ""
    limits: tuple[LimitStatus, ...] = ()
    removed_places: tuple[Place, ...] = ()
    shadow: bool = False
    asked: QuotaAsk | UsedBytes | None = None
    granted: int = 0


class Pipeline:
    """Decides on requests.

    catalog: gives the snapshot that is current now.
    blocks: finds what deny rules refuse; None for the catalog's alone.
    """

    def __init__(
        self,
        *,
        catalog: Callable[[], Catalog],
        authenticator: Authenticator,
        counters: CounterStore,
        clock: Clock,
        rules: PipelineRules,
        observers: Sequence[DecisionObserver] = (),
        blocks: Blocks | None = None,
    ) -> None:
        self._catalog = catalog
        self._authenticator = authenticator
        self._counters = counters
        self._clock = clock
        self._rules = rules
        self.record: Final = DecisionRecord(observers)
        """For what a door decides by itself."""
        self.blocks: Final = blocks or Blocks(clock)
        self._planner: tuple[Catalog, RateLimitPlanner] | None = None
        self._undecided = RepeatedWarnings(_log, "could not decide")
        self._not_given_back = RepeatedWarnings(_log, "the charge of a refused request stays")
        self._unknown = RepeatedWarnings(_log, "a request is refused, as its address is not known")

    async def decide(
        self,
        request: ApiRequest,
        *,
        steps: Steps = Steps.ALL,
        deadline: Deadline = NO_DEADLINE,
        charge: bool = True,
        shadow: bool = False,
        note: Note = _note_nothing,
    ) -> Decision:
        """Allow or deny. Raises nothing but cancellation.

        charge: False looks at the limits and takes nothing, nor counts a bad credential.
        shadow: the decision is only told to observers, which see that: as with `charge` False,
            nothing is taken.
        note: is told what each step found.
        """
        progress = _Progress(shadow=shadow)
        return await self._decide(
            request, progress, steps, deadline, note, charge=charge and not shadow
        )

    async def grant(
        self,
        request: ApiRequest,
        ask: QuotaAsk,
        *,
        deadline: Deadline = NO_DEADLINE,
        shadow: bool = False,
    ) -> Grant:
        """How much of an amount the limits of a request give; raises as `decide` does.

        The limits and their counters are those of `decide`, with the amount as the cost. An
        amount of 0 or less is granted nothing. `shadow`: as in `decide`.
        """
        progress = _Progress(shadow=shadow, asked=ask)
        decision = await self._decide(
            request, progress, Steps.ALL, deadline, _note_nothing, charge=not shadow
        )
        return Grant(decision, progress.granted if isinstance(decision, Allow) else 0)

    async def charge_usage(
        self, request: ApiRequest, used: UsedBytes, *, deadline: Deadline = NO_DEADLINE
    ) -> Decision:
        """Takes the bytes of an answered request from its limits in bytes.

        Gives what is known of the request, as a decision that observers are not told of. Where
        that is a denial, nothing was taken.
        """
        progress = _Progress(asked=used)
        return await self._decide(
            request, progress, Steps.ALL, deadline, _note_nothing, charge=True, observed=False
        )

    async def _decide(
        self,
        request: ApiRequest,
        progress: _Progress,
        steps: Steps,
        deadline: Deadline,
        note: Note,
        *,
        charge: bool,
        observed: bool = True,
    ) -> Decision:
        started_ns = time.perf_counter_ns()
        try:
            denial = await self._judge(request, progress, steps, deadline, note, charge=charge)
        except MalformedRequest as error:
            denial = Denial(reason=Reason.MALFORMED_REQUEST, detail=str(error))
        except BackendError as error:
            self._undecided.warn(error)
            denial = UNAVAILABLE
        except Exception:  # noqa: BLE001  (no failure of any kind may become an allow)
            _log.exception("could not decide because of a defect; the request is denied")
            denial = UNAVAILABLE
        if denial is None and _has_passed(deadline):
            denial = UNAVAILABLE
        if denial is ADDRESS_NOT_KNOWN or denial is NETWORK_NOT_KNOWN:
            self._warn_of_unknown_address(request)
        decision = self._conclude(denial, progress)
        if observed:
            self.record.tell(request, decision, started_ns)
        return decision

    async def _judge(
        self,
        request: ApiRequest,
        progress: _Progress,
        steps: Steps,
        deadline: Deadline,
        note: Note,
        *,
        charge: bool,
    ) -> Denial | None:
        """The first denial, or None when no step refuses. Notes what it learns in `progress`."""
        catalog = self._catalog()

        route = check_route(catalog, request)
        note(Step.MATCH, route)
        if isinstance(route, Denial):
            return route
        progress.route = route
        api = route.api

        rules = self._rules
        client_address = read_client_address(
            request, rules.trusted_hops, use_remote_address=rules.use_remote_address
        )
        is_answered = isinstance(progress.asked, UsedBytes)
        if not self.blocks.are_empty(catalog):
            rule = self.blocks.find_for_client(catalog, client_address, api)
            denial = judge_rule(rule, client_address, is_answered=is_answered)
            note(Step.DENY_RULES, rule if denial and denial.rule else denial)
            if denial is not None:
                return denial

        identity = await self._authenticator.identify(
            request,
            route,
            catalog,
            client_address,
            deadline,
            # A request that was answered is no new guess: its credential may have ended since.
            count_failures=charge and not isinstance(progress.asked, UsedBytes),
        )
        note(Step.AUTHENTICATE, identity)
        if isinstance(identity, Denial):
            return identity
        progress.identity = identity

        # Asked anew: a block may have come while the issuer was asked.
        if not self.blocks.are_empty(catalog):
            rule = self.blocks.find_for_caller(catalog, client_address, api, identity)
            denial = judge_rule(rule, client_address, is_answered=is_answered)
            note(Step.DENY_RULES, rule if denial and denial.rule else denial)
            if denial is not None:
                return denial

        subscribed = check_subscription(catalog, api, identity)
        note(Step.SUBSCRIPTION, subscribed)
        if isinstance(subscribed, Denial):
            return subscribed
        progress.subscription = subscribed.subscription
        if subscribed.tier is not None:
            progress.tier = subscribed.tier.name

        progress.removed_places = self._rules.places.find_removed(request, api)
        denial = check_scopes(route.resource, identity)
        if denial is None and request.context:
            denial = check_named_scopes(request, identity)
        note(Step.SCOPES, denial)
        if denial is not None or steps is _UP_TO_SCOPES:
            return denial

        planner = self._find_planner(catalog)
        asked = progress.asked
        if isinstance(asked, UsedBytes):
            usage = planner.plan_usage_charges(
                route,
                identity,
                subscribed.subscription,
                request,
                client_address,
                self._clock.now_us(),
                request_bytes=asked.request_bytes,
                response_bytes=asked.response_bytes,
                subscription_tier=subscribed.tier,
            )
            await take_used_bytes(self._counters, usage, deadline)
            return None
        if not client_address and planner.asks_address(
            route, identity, subscribed.subscription, subscribed.tier
        ):
            note(Step.RATE_LIMITS, ADDRESS_NOT_KNOWN)
            return ADDRESS_NOT_KNOWN
        planned = planner.plan_charges(
            route,
            identity,
            subscribed.subscription,
            request,
            client_address,
            self._clock.now_us(),
            subscription_tier=subscribed.tier,
            cost=None if asked is None else max(0, asked.amount),
        )
        if asked is not None:
            progress.granted = max(0, asked.amount)
        if not planned:
            note(Step.RATE_LIMITS, ())
            return None
        if _has_passed(deadline):
            # Nobody waits for the answer any more: what is refused is not charged.
            return UNAVAILABLE
        dedup_id = None
        charges = [one.charge for one in planned]
        if not charge:
            charges = [replace(one, cost=0) for one in charges]
            taking = await self._counters.take(charges, deadline=deadline)
            taking = judge_peek(planned, taking)
        elif asked is None:
            taking = await self._counters.take(charges, deadline=deadline)
        else:
            taken = await take_quota(self._counters, planned, asked, deadline)
            planned, taking, dedup_id = taken.planned, taken.taking, taken.dedup_id
            charges = [one.charge for one in planned]
            progress.granted = taken.amount
        progress.limits, denial = judge(planned, taking)
        note(Step.RATE_LIMITS, denial or progress.limits)
        if not charge or not taking.charged:
            return denial
        if denial is None and _has_passed(deadline):
            denial = UNAVAILABLE
        if denial is not None:
            # Too late, or refused by a limit in bytes, which a store does not judge.
            await self._give_back(charges, taking, dedup_id)
        return denial

    async def _give_back(
        self, charges: Sequence[Charge], taking: Taking, dedup_id: str | None
    ) -> None:
        """Undoes what a refused request was charged. What cannot be undone stays, and is logged."""
        if dedup_id is None:
            # What is remembered under an id is found by all of its charges.
            charges = [charge for charge in charges if charge.cost]
        if not charges:
            return
        try:
            await self._counters.give_back(charges, at_us=taking.at_us, dedup_id=dedup_id)
        except BackendError as error:
            self._not_given_back.warn(error)

    def _warn_of_unknown_address(self, request: ApiRequest) -> None:
        rules = self._rules
        why = say_why_unknown(
            request, rules.trusted_hops, use_remote_address=rules.use_remote_address
        )
        self._unknown.warn(ClientAddressUnknown(why))

    def _find_planner(self, catalog: Catalog) -> RateLimitPlanner:
        if self._planner is None or self._planner[0] is not catalog:
            self._planner = (catalog, RateLimitPlanner(catalog, on_outage=self._rules.on_outage))
        return self._planner[1]

    def _conclude(self, denial: Denial | None, progress: _Progress) -> Decision:
        decision_id = self.record.make_id()
        route = progress.route
        if denial is not None or route is None:
            return Deny(
                id=decision_id,
                denial=denial or UNAVAILABLE,
                route=route,
                identity=progress.identity,
                subscription=progress.subscription,
                tier=progress.tier,
                limits=progress.limits,
                shadow=progress.shadow,
            )
        return Allow(
            id=decision_id,
            route=route,
            identity=progress.identity,
            subscription=progress.subscription,
            tier=progress.tier,
            limits=progress.limits,
            credential_places=progress.removed_places,
            shadow=progress.shadow,
        )


def _has_passed(deadline: Deadline) -> bool:
    return deadline.monotonic_s is not None and time.monotonic() >= deadline.monotonic_s
