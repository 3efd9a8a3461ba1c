"""Step 4, scopes: checks that a token has the scopes that a resource requires.

A route may require further scopes in the request's context, for example where the proxy knows
more about the request than the catalog does.
"""

from __future__ import annotations

from typing import Final

from extauthz.model.apis import Resource
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Identity
from extauthz.model.request import ApiRequest

SCOPE_EXTENSION: Final = "extauthz.scope"
"""The context extension with scopes, separated by spaces; any one of them is enough."""


def check_scopes(resource: Resource, identity: Identity) -> Denial | None:
    """None when the scopes suffice or do not apply, else the denial.

    Scopes are what an authorization server granted to a token (RFC 6749 section 3.3). They do not
    apply to a credential without scopes, like an API key without a list of its own: it is
    restricted by its subscription alone.
    """
    asked, granted = resource.scopes, identity.scopes
    if not asked or granted is None:
        return None
    if granted.issuperset(asked) if resource.all_scopes else not granted.isdisjoint(asked):
        return None
    return _lacks(asked)


def check_named_scopes(request: ApiRequest, identity: Identity) -> Denial | None:
    """As `check_scopes`, for the scopes that the request's context requires."""
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
