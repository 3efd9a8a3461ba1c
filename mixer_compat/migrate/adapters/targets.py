"""Finds the services and APIs whose requests a rule matched.

A condition on the destination or on ``api.service`` and ``api.version`` is evaluated for each API
during the migration. The remaining conditions depend on the request, or on something that only
Mixer knows (labels of workloads, the source's identity).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from extauthz.model.conditions import Pattern
from mixer_compat.migrate.reading.conditions import Alternative, Comparison, Condition, How, Unclear
from mixer_compat.migrate.reading.expressions import Attribute
from mixer_compat.migrate.reading.references import Action
from mixer_compat.migrate.report import Outcome
from mixer_compat.migrate.writing.draft import ApiDraft, Draft, Target

_NAMESPACE: Final = frozenset(
    {"destination.namespace", "destination.service.namespace", "destination.workload.namespace"}
)
_HOST: Final = frozenset({"destination.service", "destination.service.host"})
_ASSUMED: Final = frozenset({"destination.workload.name", "destination.container.name"})
"""Attributes that usually have the service's name as their value; the objects do not show it."""


def fits(how: How, value: str, wanted: str) -> bool | None:
    """Whether a value satisfies a comparison with `wanted`; None for an invalid pattern."""
    match how:
        case How.EQUALS:
            return value == wanted
        case How.STARTS_WITH:
            return value.startswith(wanted)
        case How.ENDS_WITH:
            return value.endswith(wanted)
        case How.MATCHES:
            try:
                return Pattern(wanted).is_in(value)
            except ValueError:
                return None


def find_values(attribute: Attribute, api: ApiDraft) -> list[str]:
    """The possible values of an attribute for requests to an API; empty when they are not known."""
    match attribute:
        case Attribute(name="api.service"):
            return [api.name]
        case Attribute(name="api.version"):
            return [api.version]
        case Attribute(name="destination.labels", key=str(key)):
            labels = [dict(target.labels).get(key, "") for target in api.targets]
            if all(labels):
                return labels
            return _services(api) if key == "app" else []
        case Attribute(name=name) if name in _NAMESPACE:
            return _all(target.namespace for target in api.targets)
        case Attribute(name="destination.service.name"):
            return _services(api)
        case Attribute(name=name) if name in _HOST:
            return [
                f"{target.service}.{target.namespace}.svc.{target.domain}"
                for target in api.targets
                if target.service and target.namespace
            ]
        case Attribute(name=name) if name in _ASSUMED:
            return _services(api)
        case _:
            return []


def is_assumed(attribute: Attribute) -> bool:
    """Whether `find_values` assumes that an attribute's value is the service's name."""
    return attribute.name in _ASSUMED or attribute == Attribute("destination.labels", "app")


def is_assumed_for(attribute: Attribute, api: ApiDraft) -> bool:
    """Whether `find_values` assumes the value for this API, because no object shows its labels."""
    if attribute.key is not None and all(attribute.key in dict(one.labels) for one in api.targets):
        return False
    return is_assumed(attribute)


def judge(condition: Condition, api: ApiDraft) -> bool | None:
    """Whether a condition holds for all requests to an API, for none, or (None) for some."""
    if isinstance(condition, Unclear):
        return None
    if condition.subject.name == "context.reporter.kind":
        # The checks of the caller's proxy are now made by the destination's.
        inbound = fits(condition.how, "inbound", condition.value)
        return True if inbound is not None and inbound is not condition.negated else None
    found = {
        fits(condition.how, value, condition.value) for value in find_values(condition.subject, api)
    }
    if found == {True}:
        return not condition.negated
    return condition.negated if found == {False} else None


def find_target(alternative: Alternative, namespace: str) -> Target:
    """The narrowest target that includes all requests of an alternative.

    Args:
        namespace: that of the rule; empty for the whole mesh.
    """
    target = Target(namespace=namespace)
    labels: dict[str, str] = {}
    for condition in alternative:
        if isinstance(condition, Unclear) or condition.negated:
            continue
        subject, value = condition.subject, condition.value
        if condition.how is How.STARTS_WITH and subject.name in _HOST and value.endswith("."):
            # The result of a glob like reviews.* on the host.
            name, _, rest = value.rstrip(".").partition(".")
            target = replace(target, service=name)
            if rest and "." not in rest:
                target = replace(target, namespace=rest)
        elif condition.how is not How.EQUALS or not value:
            continue
        elif subject.name in _NAMESPACE:
            target = replace(target, namespace=value)
        elif subject.name in _HOST:
            parts = value.split(".")
            target = replace(target, service=parts[0])
            if len(parts) > 1:
                target = replace(target, namespace=parts[1])
        elif subject.name == "destination.service.name" or is_assumed(subject):
            target = replace(target, service=value)
        if subject.name == "destination.labels" and subject.key is not None:
            labels[subject.key] = value
    return replace(target, labels=tuple(sorted(labels.items())))


def list_targets(actions: Iterable[Action]) -> dict[Target, Action]:
    """The targets of some actions, the narrowest first."""
    found: dict[Target, Action] = {}
    for action in actions:
        for alternative in action.alternatives:
            found.setdefault(find_target(alternative, action.namespace), action)
    return dict(
        sorted(found.items(), key=lambda item: (not item[0].service, not item[0].namespace))
    )


def apply_to_apis(
    action: Action, alternative: Alternative, draft: Draft
) -> dict[ApiDraft, tuple[Condition, ...]]:
    """The APIs that an alternative may match, each with its remaining conditions."""
    target = find_target(alternative, action.namespace)
    found: dict[ApiDraft, tuple[Condition, ...]] = {}
    for api in draft.apis_of(target):
        judged = [(condition, judge(condition, api)) for condition in alternative]
        if all(holds is not False for _, holds in judged):
            found[api] = tuple(condition for condition, holds in judged if holds is None)
    for condition in alternative:
        if isinstance(condition, Comparison) and is_assumed(condition.subject):
            (action.match or action.part).remark(
                Outcome.CHECK,
                f"{condition.subject} is taken to be the name of the service; if it is not, "
                "correct the hosts of the API",
            )
    return found


def name_condition(condition: Condition) -> str:
    """Names the subject of a condition, without the value that it is compared with."""
    return condition.about if isinstance(condition, Unclear) else str(condition.subject)


def _services(api: ApiDraft) -> list[str]:
    return _all(target.service for target in api.targets)


def _all(names: Iterable[str]) -> list[str]:
    """The names as a list; empty when one of them is empty."""
    found = list(names)
    return found if all(found) else []
