"""Says whether a token's scopes cover what a resource asks for."""

from __future__ import annotations

from extauthz.model.catalog import Resource
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Identity


def check_scopes(resource: Resource, identity: Identity) -> Denial | None:
    """None when the scopes suffice, or do not apply.

    Scopes are what an authorization server granted to a token (RFC 6749 section 3.3). A
    credential that has none of its kind, like an API key without a list of its own, is bound
    by subscription alone.
    """
    asked, granted = resource.scopes, identity.scopes
    if not asked or granted is None:
        return None
    if granted.issuperset(asked) if resource.all_scopes else not granted.isdisjoint(asked):
        return None
    return Denial(
        reason=Reason.INSUFFICIENT_SCOPE,
        detail="The token lacks a scope that this resource asks for.",
        scopes=resource.scopes,
    )
