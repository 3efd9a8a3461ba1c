"""Describes in words what a step of a decision found."""

from __future__ import annotations

from dataclasses import dataclass

from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial
from extauthz.model.deny_rules import DenyRule
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.model.limits import LimitStatus
from extauthz.model.routing.routes import Route
from extauthz.policy.authentication.assumed import AssumedCaller
from extauthz.policy.authentication.claim_checks import say_no_client
from extauthz.policy.progress import Step
from extauthz.policy.subscription import Subscribed


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found."""

    step: Step
    passed: bool
    text: str


def say_finding(step: Step, found: object, catalog: Catalog) -> str:
    """One line for what the pipeline noted, deciding by this catalog."""
    match found:
        case Denial():
            text = f"{found.reason.value}: {found.detail}"
            return f"{text} ({found.found})" if found.found else text
        case DenyRule():
            if found.source == "catalog":
                return f"the deny rule {found.name!r} fits"
            return f"{found.name} of {found.source} fits"
        case Route():
            api, resource = found.api, found.resource
            return (
                f"{api.name} {api.version}, resource {' '.join(resource.methods)} "
                f"{resource.template}"
            )
        case Identity():
            return _say_identity(found, catalog)
        case Subscribed():
            if found.subscription is None and found.tier is None:
                return "none is needed"
            state = "" if found.subscription is None else f"{found.subscription.state.value}, "
            return f"{state}tier {found.tier.name if found.tier else 'without limits'}"
        case tuple():
            return "; ".join(map(_say_limit, found)) or "none apply"
        case None if step is Step.SCOPES:
            return "cover what the resource asks for"
        case None:
            return "no deny rule fits"
        case _:
            raise TypeError(f"no words for {type(found).__name__}")


def say_assumed(step: Step, text: str, assumed: AssumedCaller, *, asks_scopes: bool) -> str:
    """What a step found, when it is only assumed who calls."""
    if step is Step.AUTHENTICATE:
        return f"assumed, not checked: {text}"
    if step is Step.SCOPES and asks_scopes and assumed.scopes is None:
        return "not checked, as the credential's scopes are not given"
    return text


def _say_identity(identity: Identity, catalog: Catalog) -> str:
    if identity.scheme is SecurityScheme.NONE:
        return "no credential is needed"
    parts = [f"by {identity.scheme.value}"]
    if identity.application is not None:
        parts.append(f"application {identity.application.name}")
    elif identity.consumer_key:
        parts.append(f"consumer key {identity.consumer_key}, which no application has")
    elif identity.issuer in catalog.issuers:
        parts.append(say_no_client(identity.claims, catalog.issuers[identity.issuer]))
    if identity.user:
        parts.append(f"user {identity.user}")
    if identity.key_type is not None:
        parts.append(identity.key_type.value)
    if identity.scopes is not None:
        parts.append(f"scopes {' '.join(sorted(identity.scopes)) or 'none'}")
    return ", ".join(parts)


def _say_limit(status: LimitStatus) -> str:
    limit = status.limit
    window = limit.unit.value if limit.unit else f"{limit.window_us / 1_000_000:g} s"
    text = f"{status.level.value} ({status.name}): {status.reading.remaining} left of "
    text += f"{limit.requests} {limit.quota_unit.value} per {window}"
    return text if status.enforced else f"{text}, not enforced"
