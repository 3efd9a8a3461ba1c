"""Decides: match, blocks, authenticate, subscription, scopes, rate limits; in this order.

One decision reads one catalog snapshot. `Pipeline._judge` is the order; the steps themselves are in
`extauthz.policy.steps`. Whatever goes wrong on the way is UNAVAILABLE: no failure becomes an allow.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Final

from extauthz.errors import BackendError, MalformedRequest
from extauthz.model.catalog import Catalog
from extauthz.model.decision import UNAVAILABLE, Allow, Decision, Denial, Reason
from extauthz.model.request import ApiRequest
from extauthz.policy.authentication.api_keys.restrictions import NETWORK_NOT_KNOWN
from extauthz.policy.authentication.assumed import AssumedCaller
from extauthz.policy.authentication.authenticate import Authenticator
from extauthz.policy.blocks import Blocks
from extauthz.policy.decision_record import DecisionRecord
from extauthz.policy.limits.charging import CHARGE, PEEK, ChargeMode, LimitCharger, has_passed
from extauthz.policy.limits.most_used import MostUsed
from extauthz.policy.limits.quota import Grant, QuotaAsk, UsedBytes
from extauthz.policy.progress import Note, Progress, note_nothing
from extauthz.policy.repeated_warnings import RepeatedWarnings
from extauthz.policy.request.client_address import (
    ADDRESS_NOT_KNOWN,
    ClientAddressUnknown,
    say_why_unknown,
)
from extauthz.policy.steps import (
    PipelineRules,
    authenticate,
    charge_limits,
    match_route,
    refuse_blocked_caller,
    refuse_blocked_client,
    require_scopes,
    require_subscription,
)
from extauthz.policy.throttled import ThrottledKeys
from extauthz.ports import NO_DEADLINE, Clock, CounterStore, Deadline, DecisionObserver

_log = logging.getLogger(__name__)


class Steps(Enum):
    """Which steps a caller wants. Mixer asks twice: Check, then Quota."""

    ALL = "all"
    UP_TO_SCOPES = "up to scopes"


# Module constants, because reading a member of an enum takes 40 ns longer.
_UP_TO_SCOPES: Final = Steps.UP_TO_SCOPES


class Pipeline:
    """Decides on requests.

    Args:
        catalog: returns the current snapshot.
        blocks: finds deny rules; None for those of the catalog alone.
        most_used: is told of the limits of every request that takes from any.
        throttled: what another service has throttled; nothing when left out.
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
        most_used: MostUsed | None = None,
        throttled: ThrottledKeys | None = None,
    ) -> None:
        self._catalog = catalog
        self._authenticator = authenticator
        self._charger = LimitCharger(
            counters, clock, rules.on_outage, MostUsed() if most_used is None else most_used
        )
        self._throttled = ThrottledKeys(clock) if throttled is None else throttled
        self._rules = rules
        self.record: Final = DecisionRecord(observers)
        """For denials that a door makes by itself."""
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
        note: Note = note_nothing,
    ) -> Decision:
        """Decides on a request. Raises nothing but cancellation.

        Args:
            charge: False makes a peek: nothing is taken from limits, and a bad credential is not
                counted.
            shadow: the decision is reported to observers only, and marked; nothing is taken.
            note: called with what each step found.
        """
        mode = CHARGE if charge and not shadow else PEEK
        progress = Progress(request, deadline, note, mode, shadow)
        return await self._decide(progress, steps)

    async def decide_as(
        self,
        request: ApiRequest,
        assumed: AssumedCaller,
        *,
        deadline: Deadline = NO_DEADLINE,
        note: Note = note_nothing,
    ) -> Decision:
        """What `decide` would say if a good credential of an application were presented.

        Only the authentication is assumed. It is a peek, and observers are not told.
        """
        progress = Progress(request, deadline, note, PEEK, assumed=assumed)
        return await self._decide(progress, observed=False)

    async def grant(
        self,
        request: ApiRequest,
        ask: QuotaAsk,
        *,
        deadline: Deadline = NO_DEADLINE,
        shadow: bool = False,
    ) -> Grant:
        """Takes an amount from the limits of a request; raises as `decide` does.

        The limits and their counters are those of `decide`, with the amount as the cost. An
        amount of 0 or less is granted nothing. `shadow`: as in `decide`.
        """
        mode = ChargeMode(takes=not shadow, ask=ask)
        progress = Progress(request, deadline, mode=mode, shadow=shadow)
        decision = await self._decide(progress)
        return Grant(decision, progress.granted if isinstance(decision, Allow) else 0)

    async def charge_usage(
        self, request: ApiRequest, used: UsedBytes, *, deadline: Deadline = NO_DEADLINE
    ) -> Decision:
        """Takes the bytes of an answered request from its limits in bytes.

        Gives what is known of the request, as a decision that is not reported to observers. When
        it is a denial, nothing was taken.
        """
        progress = Progress(request, deadline, mode=ChargeMode(used=used))
        return await self._decide(progress, observed=False)

    async def _decide(
        self, progress: Progress, steps: Steps = Steps.ALL, *, observed: bool = True
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
        decision = progress.conclude(denial, self.record.make_id())
        if observed:
            self.record.tell(progress.request, decision, started_ns)
        return decision

    async def _judge(self, progress: Progress, steps: Steps) -> Denial | None:
        """The first denial, or None when no step refuses."""
        catalog = self._catalog()
        progress.catalog_revision = catalog.revision
        route = match_route(catalog, progress)
        if isinstance(route, Denial):
            return route
        denial = refuse_blocked_client(catalog, route, progress, self.blocks, self._rules)
        if denial is not None:
            return denial
        denial = await authenticate(catalog, route, progress, self._authenticator)
        if denial is not None:
            return denial
        denial = refuse_blocked_caller(catalog, route, progress, self.blocks)
        if denial is not None:
            return denial
        subscribed = require_subscription(catalog, route, progress)
        if isinstance(subscribed, Denial):
            return subscribed
        denial = require_scopes(catalog, route, progress, self._rules.places)
        if denial is not None or steps is _UP_TO_SCOPES:
            return denial
        return await charge_limits(
            catalog, route, subscribed, progress, self._charger, self._throttled
        )

    def _warn_of_unknown_address(self, request: ApiRequest) -> None:
        rules = self._rules
        why = say_why_unknown(
            request, rules.trusted_hops, use_remote_address=rules.use_remote_address
        )
        self._unknown.warn(ClientAddressUnknown(why))
