"""Says whether a token's scopes cover what a resource asks for.

A proxy may name scopes that it asks for on top, in the request's context; it then knows
something of the request that the catalog does not.
"""

from __future__ import annotations

from typing import Final

from extauthz.model.apis import Resource
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Identity
from extauthz.model.request import ApiRequest

SCOPE_EXTENSION: Final = "extauthz.scope"
"""The context extension that names scopes, parted by spaces: any of them is enough."""


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
    return _lacks(asked)


def check_named_scopes(request: ApiRequest, identity: Identity) -> Denial | None:
    """As `check_scopes`, for what the request's context asks for."""
    asked = tuple(request.context.get(SCOPE_EXTENSION, "").split())
    granted = identity.scopes
    if not asked or granted is None or not granted.isdisjoint(asked):
        return None
    return _lacks(asked)


def _lacks(scopes: tuple[str, ...]) -> Denial:
    return Denial(
        reason=Reason.INSUFFICIENT_SCOPE,
        detail="The token lacks a scope that this resource asks for.",
        scopes=scopes,
    )
