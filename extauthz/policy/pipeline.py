"""Decides: match, authenticate, subscription, scopes, rate limits; in this order.

One decision reads one catalog snapshot. Each step returns what it found or a `Denial`; `_judge`
puts them in order. Only the authenticator and the charger wait. `Allow` is built on the last line: nothing starts from it. Whatever
goes wrong on the way is UNAVAILABLE.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from extauthz.errors import BackendError, MalformedRequest
from extauthz.model.catalog import Catalog
from extauthz.model.decision import UNAVAILABLE, Allow, Decision, Denial, Deny, Reason
from extauthz.model.deny_rules import DenyRule
from extauthz.model.identity import ANONYMOUS, Identity, Place
from extauthz.model.limits import LimitStatus, OutageMode
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.model.subscriptions import Subscription
from extauthz.policy.authentication.authenticate import NETWORK_NOT_KNOWN, Authenticator
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.policy.blocks import Blocks, judge_rule
from extauthz.policy.decision_record import DecisionRecord
from extauthz.policy.limits.charging import LimitCharger, LimitedRequest, has_passed
from extauthz.policy.limits.quota import Grant, QuotaAsk, UsedBytes
from extauthz.policy.matching.match import check_route
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.policy.request.client_address import (
    ADDRESS_NOT_KNOWN,
    ClientAddressUnknown,
    read_client_address,
    say_why_unknown,
)
from extauthz.policy.scopes import check_named_scopes, check_scopes
from extauthz.policy.subscription import Subscribed, check_subscription
from extauthz.ports import NO_DEADLINE, Clock, CounterStore, Deadline, DecisionObserver

_log = logging.getLogger(__name__)


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
    """What is asked, and how far the decision has come: what is known when it is refused.

    Attributes:
        takes: whether limits are charged and bad credentials counted.
        asked: an amount instead of the request's cost, or the bytes of an answered request.
    """

    request: ApiRequest
    deadline: Deadline
    note: Note = _note_nothing
    takes: bool = True
    shadow: bool = False
    asked: QuotaAsk | UsedBytes | None = None

    client_address: str = ""
    route: Route | None = None
    identity: Identity = ANONYMOUS
    subscription: Subscription | None = None
    tier: str = ""
    limits: tuple[LimitStatus, ...] = ()
    removed_places: tuple[Place, ...] = ()
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
        self._charger = LimitCharger(counters, clock, rules.on_outage)
        self._rules = rules
        self.record: Final = DecisionRecord(observers)
        """For what a door decides by itself."""
        self.blocks: Final = blocks or Blocks(clock)
        self._undecided = RepeatedWarnings(_log, "could not decide")
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
        progress = _Progress(request, deadline, note, takes=charge and not shadow, shadow=shadow)
        return await self._decide(progress, steps)

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
        progress = _Progress(request, deadline, takes=not shadow, shadow=shadow, asked=ask)
        decision = await self._decide(progress)
        return Grant(decision, progress.granted if isinstance(decision, Allow) else 0)

    async def charge_usage(
        self, request: ApiRequest, used: UsedBytes, *, deadline: Deadline = NO_DEADLINE
    ) -> Decision:
        """Takes the bytes of an answered request from its limits in bytes.

        Gives what is known of the request, as a decision that observers are not told of. Where
        that is a denial, nothing was taken.
        """
        return await self._decide(_Progress(request, deadline, asked=used), observed=False)

    async def _decide(
        self, progress: _Progress, steps: Steps = Steps.ALL, *, observed: bool = True
    ) -> Decision:
        started_ns = time.perf_counter_ns()
        try:
            denial = await self._judge(progress, steps)
        except MalformedRequest as error:
            denial = Denial(reason=Reason.MALFORMED_REQUEST, detail=str(error))
        except BackendError as error:
            self._undecided.warn(error)
            denial = UNAVAILABLE
        except Exception:  # noqa: BLE001  (no failure of any kind may become an allow)
            _log.exception("could not decide because of a defect; the request is denied")
            denial = UNAVAILABLE
        if denial is None and has_passed(progress.deadline):
            denial = UNAVAILABLE
        if denial is ADDRESS_NOT_KNOWN or denial is NETWORK_NOT_KNOWN:
            self._warn_of_unknown_address(progress.request)
        decision = self._conclude(denial, progress)
        if observed:
            self.record.tell(progress.request, decision, started_ns)
        return decision

    async def _judge(self, progress: _Progress, steps: Steps) -> Denial | None:
        """The first denial, or None when no step refuses."""
        catalog = self._catalog()
        route = check_route(catalog, progress.request)
        progress.note(Step.MATCH, route)
        if isinstance(route, Denial):
            return route
        progress.route = route

        denial = self._check_client(catalog, route, progress)
        if denial is not None:
            return denial
        denial = await self._authenticate(catalog, route, progress)
        if denial is not None:
            return denial
        denial = self._check_caller(catalog, route, progress)
        if denial is not None:
            return denial

        subscribed = check_subscription(catalog, route.api, progress.identity)
        progress.note(Step.SUBSCRIPTION, subscribed)
        if isinstance(subscribed, Denial):
            return subscribed
        progress.subscription = subscribed.subscription
        if subscribed.tier is not None:
            progress.tier = subscribed.tier.name

        denial = self._check_scopes(route, progress)
        if denial is not None or steps is _UP_TO_SCOPES:
            return denial
        return await self._charge(catalog, route, subscribed, progress)

    def _check_client(self, catalog: Catalog, route: Route, progress: _Progress) -> Denial | None:
        """Where the client is, and the deny rules that need not know who calls."""
        rules = self._rules
        progress.client_address = read_client_address(
            progress.request, rules.trusted_hops, use_remote_address=rules.use_remote_address
        )
        if self.blocks.are_empty(catalog):
            return None
        rule = self.blocks.find_for_client(catalog, progress.client_address, route.api)
        return _judge_rule(rule, progress)

    async def _authenticate(
        self, catalog: Catalog, route: Route, progress: _Progress
    ) -> Denial | None:
        identity = await self._authenticator.identify(
            progress.request,
            route,
            catalog,
            progress.client_address,
            progress.deadline,
            # A request that was answered is no new guess: its credential may have ended since.
            count_failures=progress.takes and not isinstance(progress.asked, UsedBytes),
        )
        progress.note(Step.AUTHENTICATE, identity)
        if isinstance(identity, Denial):
            return identity
        progress.identity = identity
        return None

    def _check_caller(self, catalog: Catalog, route: Route, progress: _Progress) -> Denial | None:
        """Deny rules, once it is known who calls. A block may have come since `_check_client`."""
        if self.blocks.are_empty(catalog):
            return None
        rule = self.blocks.find_for_caller(
            catalog, progress.client_address, route.api, progress.identity
        )
        return _judge_rule(rule, progress)

    def _check_scopes(self, route: Route, progress: _Progress) -> Denial | None:
        request = progress.request
        progress.removed_places = self._rules.places.find_removed(request, route.api)
        denial = check_scopes(route.resource, progress.identity)
        if denial is None and request.context:
            denial = check_named_scopes(request, progress.identity)
        progress.note(Step.SCOPES, denial)
        return denial

    async def _charge(
        self, catalog: Catalog, route: Route, subscribed: Subscribed, progress: _Progress
    ) -> Denial | None:
        """Rate limits; of a request that was answered, its bytes, which are never refused."""
        limited = LimitedRequest(
            progress.request,
            route,
            progress.identity,
            subscribed.subscription,
            subscribed.tier,
            progress.client_address,
        )
        asked = progress.asked
        if isinstance(asked, UsedBytes):
            await self._charger.charge_usage(catalog, limited, asked, progress.deadline)
            return None
        charged = await self._charger.charge(
            catalog, limited, asked, progress.deadline, take=progress.takes
        )
        progress.limits, progress.granted = charged.limits, charged.granted
        progress.note(Step.RATE_LIMITS, charged.denial or charged.limits)
        return charged.denial

    def _warn_of_unknown_address(self, request: ApiRequest) -> None:
        rules = self._rules
        why = say_why_unknown(
            request, rules.trusted_hops, use_remote_address=rules.use_remote_address
        )
        self._unknown.warn(ClientAddressUnknown(why))

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


def _judge_rule(rule: DenyRule | None, progress: _Progress) -> Denial | None:
    is_answered = isinstance(progress.asked, UsedBytes)
    denial = judge_rule(rule, progress.client_address, is_answered=is_answered)
    progress.note(Step.DENY_RULES, rule if denial and denial.rule else denial)
    return denial
