"""What decisions are told apart by: words of ours, names from the catalog, and who called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from extauthz.model.decision import Allow, Decision
from extauthz.telemetry.decision_log.masking import ConsumerKey, Masks
from extauthz.telemetry.names import name_outcome


class Facts(NamedTuple):
    """Facts of a decision, in the words of metrics and the decision log; empty for none.

    The outcome is that of metrics, which tells a door in shadow from others.
    """

    outcome: str
    reason: str
    level: str
    rule: str
    api: str
    version: str
    application: str
    consumer: ConsumerKey


def read_facts(decision: Decision) -> Facts:
    """The facts of a decision."""
    route, identity = decision.route, decision.identity
    api = version = ""
    if route is not None:
        api, version = route.api.name, route.api.version
    application = identity.application
    name = identity.application_name if application is None else application.name
    consumer, outcome = ConsumerKey(identity.consumer_key), name_outcome(decision)
    if isinstance(decision, Allow):
        return Facts(outcome, "", "", "", api, version, name, consumer)
    denial = decision.denial
    level = "" if denial.level is None else denial.level.value
    reason, rule = denial.reason.value, denial.rule
    return Facts(outcome, reason, level, rule, api, version, name, consumer)


Fits: TypeAlias = Callable[[Facts, str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Decisions that somebody wants to see. What is left empty may be anything.

    The consumer is the hash of its key, as records show it.
    """

    outcome: str = ""
    reason: str = ""
    api: str = ""
    version: str = ""
    application: str = ""
    consumer: str = ""
    door: str = ""

    def make_test(self, masks: Masks) -> Fits:
        """A test for whether a decision with these facts, made at this door, is wanted."""
        wanted = [
            (position, value)
            for position, name in enumerate(Facts._fields)
            if name != "consumer" and (value := getattr(self, name, ""))
        ]
        at_door, consumer = self.door, self.consumer

        def fits(facts: Facts, door: str) -> bool:
            for position, value in wanted:
                if facts[position] != value:
                    return False
            if at_door and door != at_door:
                return False
            return not consumer or consumer == masks.hash_text(facts.consumer)

        return fits
