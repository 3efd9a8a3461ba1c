"""Assumes that a caller presents a good credential of an application, to explain what would follow.

Nobody is let in by this: `Pipeline.decide_as` takes nothing, and its decision goes to whoever asks
why, never to a door.
"""

from __future__ import annotations

from typing import Final

from extauthz.model.applications import Application
from extauthz.model.decision import Denial
from extauthz.model.identity import ANONYMOUS, Identity, KeyType, SecurityScheme
from extauthz.model.routing.routes import Route
from extauthz.model.values import request_value
from extauthz.policy.authentication.authenticate import check_key_type, takes_everybody

TOKENS: Final = (SecurityScheme.JWT, SecurityScheme.OPAQUE)
"""The schemes whose credentials always have scopes."""


@request_value(frozen=True, slots=True, kw_only=True)
class AssumedCaller:
    """The application that a caller is assumed to be.

    Attributes:
        scopes: of its credential; None when they are not known, and are then not checked.
    """

    application: Application
    key_type: KeyType = KeyType.PRODUCTION
    scopes: frozenset[str] | None = None


def assume_identity(caller: AssumedCaller, route: Route) -> Identity | Denial:
    """The identity that a good credential of the application would prove at a resource.

    It is a credential of the first scheme that the resource takes; with scopes, of the first one
    whose credentials have scopes. The user is known for API keys alone, and the consumer key for
    none: an application may have several.
    """
    if takes_everybody(route):
        return ANONYMOUS
    schemes = [it for it in route.resource.security if it is not SecurityScheme.NONE]
    scheme = schemes[0]
    if caller.scopes is not None:
        scheme = next((it for it in schemes if it in TOKENS), scheme)
    is_key = scheme is SecurityScheme.API_KEY
    identity = Identity(
        scheme=scheme,
        application=caller.application,
        key_type=caller.key_type,
        user=caller.application.owner if is_key else "",
        scopes=caller.scopes,
    )
    return check_key_type(identity, route.api)
