"""Says who calls by the claims that WSO2 API Manager's backend JWT has, under its names.

API Manager's conditions on claims look at these: ``http://wso2.org/claims/applicationname`` and so on.
Source: WSO2 carbon-apimgt, AbstractJWTGenerator and JWTGenerator; Choreo Connect 1.2, jwtGenerator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from extauthz.model.catalog import UNLIMITED_TIER
from extauthz.model.identity import Identity, KeyType, SecurityScheme

DIALECT: Final = "http://wso2.org/claims/"
_USER_TYPES: Final = {"APPLICATION": "Application", "APPLICATION_USER": "Application_User"}
"""By the claim ``aut`` of API Manager's own tokens."""


def list_caller_claims(identity: Identity) -> dict[str, str]:
    """The claims about the caller, without the dialect; empty where nothing is known."""
    application = _read_application(identity)
    return {
        "subscriber": application.get("owner", ""),
        "applicationid": application.get("id", ""),
        "applicationUUId": application.get("uuid", ""),
        "applicationname": application.get("name", ""),
        "applicationtier": application.get("tier", ""),
        "keytype": (identity.key_type or KeyType.PRODUCTION).value,
        "usertype": _find_user_type(identity),
        "enduser": identity.user,
    }


def _read_application(identity: Identity) -> dict[str, str]:
    """The catalog's application; else the one that a self-contained token names."""
    application = identity.application
    if application is not None:
        return {
            "id": str(application.number) if application.number else "",
            "uuid": application.uuid,
            "name": application.shown_name,
            "owner": application.owner,
            "tier": UNLIMITED_TIER if application.tier is None else application.tier.name,
        }
    said = identity.claims.get("application")
    # Only an issuer whose tokens carry subscriptions may name the application.
    if identity.subscribed is None or not isinstance(said, Mapping):
        return {}
    return {
        name: str(value)
        for name, value in said.items()
        if isinstance(value, str | int) and not isinstance(value, bool)
    }


def _find_user_type(identity: Identity) -> str:
    """WSO2's word for calls of a person or of an application itself.

    A token from the client credentials grant names the client as its subject (RFC 9068 2.2).
    """
    said = identity.claims.get("aut")
    if isinstance(said, str) and said in _USER_TYPES:
        return _USER_TYPES[said]
    by_token = identity.scheme in (SecurityScheme.JWT, SecurityScheme.OPAQUE)
    is_person = by_token and identity.user not in ("", identity.consumer_key)
    return "Application_User" if is_person else "Application"
