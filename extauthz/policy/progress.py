"""What a decision knows so far: what is asked, and what each step has found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from extauthz.model.decision import UNAVAILABLE, Allow, Decision, Denial, Deny
from extauthz.model.identity import ANONYMOUS, Identity, Place
from extauthz.model.limits import LimitStatus
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from extauthz.model.subscriptions import Subscription
from extauthz.policy.authentication.assumed import AssumedCaller
from extauthz.policy.limits.charging import CHARGE, ChargeMode
from extauthz.ports import Deadline


class Step(Enum):
    """The steps, in their order."""

    MATCH = "match"
    DENY_RULES = "deny rules"
    AUTHENTICATE = "authenticate"
    SUBSCRIPTION = "subscription"
    SCOPES = "scopes"
    RATE_LIMITS = "rate limits"


Note = Callable[[Step, object], None]
"""Is told what a step found, for a person who asks why."""


def note_nothing(_step: Step, _found: object) -> None:
    """The note of a decision that nobody asks about."""


@dataclass(slots=True)
class Progress:
    """One decision under way. What is known when it is refused becomes part of the denial.

    Attributes:
        note: is told what each step found.
        mode: how limits are asked, and whether bad credentials are counted.
        shadow: whether the decision is only told to observers.
        assumed: who calls, whatever the request presents; None in every decision of a door.
        granted: of the amount that `mode` asks for.
    """

    request: ApiRequest
    deadline: Deadline
    note: Note = note_nothing
    mode: ChargeMode = CHARGE
    shadow: bool = False
    assumed: AssumedCaller | None = None

    catalog_revision: str = ""
    client_address: str = ""
    route: Route | None = None
    identity: Identity = ANONYMOUS
    subscription: Subscription | None = None
    tier: str = ""
    limits: tuple[LimitStatus, ...] = ()
    removed_places: tuple[Place, ...] = ()
    granted: int = 0

    def conclude(self, denial: Denial | None, decision_id: str) -> Decision:
        """The decision; an `Allow` is built here and nowhere else.

        denial: None when no step refuses.
        """
        route = self.route
        if denial is not None or route is None:
            return Deny(
                id=decision_id,
                denial=denial or UNAVAILABLE,
                route=route,
                identity=self.identity,
                subscription=self.subscription,
                tier=self.tier,
                limits=self.limits,
                shadow=self.shadow,
                client_address=self.client_address,
                catalog_revision=self.catalog_revision,
            )
        return Allow(
            id=decision_id,
            route=route,
            identity=self.identity,
            subscription=self.subscription,
            tier=self.tier,
            limits=self.limits,
            credential_places=self.removed_places,
            shadow=self.shadow,
            client_address=self.client_address,
            catalog_revision=self.catalog_revision,
        )
