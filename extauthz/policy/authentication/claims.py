"""Reads the identity from verified claims of a JWT or an introspection answer (RFC 7662).

The issuer's configuration says which claims hold the consumer key, the user and so on. A claim
with a wrong type is never ignored: the token is refused, since its meaning is not known.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from extauthz.model.catalog import Catalog, ClientRegistration
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Identity, KeyType, SecurityScheme
from extauthz.model.issuers import Issuer

_S: Final = 1_000_000
_LAST_US: Final = 253_402_300_799 * _S
"""The end of the year 9999. Later times are read as this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenIdentity:
    """The identity that a token states, before its application is looked up in the catalog.

    Attributes:
        consumer_key, user, token_id: empty when the token does not have them.
        subscribed: (API name, version) to tier name; None unless read from the token.
        claims: all of them, verified.
        application_name, application_owner, application_tier: of WSO2's ``application`` claim.
    """

    consumer_key: str = ""
    user: str = ""
    scopes: frozenset[str] = frozenset()
    key_type: KeyType | None = None
    token_id: str = ""
    subscribed: Mapping[tuple[str, str], str] | None = None
    application_name: str = ""
    application_owner: str = ""
    application_tier: str = ""
    expires_at_us: int | None = None
    issued_at_us: int | None = None
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_numeric_date_us(value: Any) -> int | None:
    """A NumericDate (RFC 7519 2: seconds, may have a fraction) in microseconds.

    None for any other value: bool, text, NaN and infinity are not dates.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        # Checked before the multiplication, because a large float times a million is infinite.
        whole = math.floor(value)
        instant_us = whole * _S + round((value - whole) * _S)
    else:
        instant_us = value * _S
    return max(-_LAST_US, min(instant_us, _LAST_US))


_MAX_TEXT: Final = 2048
"""Characters that a name in a claim may have; OpenID Connect limits ``sub`` to 255."""


class _WrongClaim(Exception):
    """A claim has a wrong type or text; the message says which. Caught within this module."""


def read_identity_claims(claims: Mapping[str, Any], issuer: Issuer) -> TokenIdentity | Denial:
    """Reads the identity from verified claims. Of several claim names the first present one counts.

    A name is looked up as it is first, then as a path through nested objects, like
    ``realm_access.roles``. When no claim names the user, RFC 7662's ``username`` is used.
    A claim of a wrong type is a denial; one that is null is absent.
    """
    names = issuer.claims
    try:
        application = claims.get("application")
        if not isinstance(application, dict):
            application = {}  # not WSO2's: other issuers may use the name as they like
        return TokenIdentity(
            consumer_key=_read_text(*_find_claim(claims, names.consumer_key)),
            user=_read_text(*_find_claim(claims, (*names.user, "username"))),
            scopes=_read_scopes(*_find_claim(claims, names.scopes)),
            key_type=_read_key_type(*_find_claim(claims, names.key_type)),
            token_id=_read_text("jti", claims.get("jti", "")),
            subscribed=(
                _read_subscribed(claims.get("subscribedAPIs", []))
                if issuer.subscriptions_from_token
                else None
            ),
            application_name=_read_text("application.name", application.get("name") or ""),
            application_owner=_read_text("application.owner", application.get("owner") or ""),
            application_tier=_read_text("application.tier", application.get("tier") or ""),
            expires_at_us=read_numeric_date_us(claims.get("exp")),
            issued_at_us=read_numeric_date_us(claims.get("iat")),
            claims=_add_mapped(claims, names.mappings),
        )
    except _WrongClaim as error:
        return Denial(
            reason=Reason.INVALID_CREDENTIALS,
            detail="A claim of the token cannot be used.",
            found=str(error),
        )


def resolve_identity(
    token: TokenIdentity, issuer: Issuer, catalog: Catalog, scheme: SecurityScheme
) -> Identity:
    """The identity of a verified token, with its application in this catalog."""
    registration: ClientRegistration | None = None
    if token.consumer_key:
        registration = catalog.consumer_keys.get(
            (issuer.issuer, token.consumer_key)
        ) or catalog.consumer_keys.get(("", token.consumer_key))
    return Identity(
        scheme=scheme,
        application=None if registration is None else registration.application,
        key_type=token.key_type or (None if registration is None else registration.key_type),
        user=token.user,
        consumer_key=token.consumer_key,
        issuer=issuer.issuer,
        scopes=token.scopes,
        claims=token.claims,
        subscribed=token.subscribed,
        expires_at_us=token.expires_at_us,
        token_id=token.token_id,
        application_name="" if registration is not None else token.application_name,
    )


def _find_claim(claims: Mapping[str, Any], names: Sequence[str]) -> tuple[str, Any]:
    """The name and value of the first claim that is present; two empty texts when none is."""
    for name in names:
        found: Any = claims.get(name)
        if found is None and "." in name:
            found = claims
            for step in name.split("."):
                found = found.get(step) if isinstance(found, Mapping) else None
        if found is not None:
            return name, found
    return "", ""


def _add_mapped(
    claims: Mapping[str, Any], mappings: Sequence[tuple[str, str]]
) -> Mapping[str, Any]:
    """The claims, with those that the issuer's configuration gives further names."""
    if not mappings:
        return claims
    found = ((local, _find_claim(claims, (remote,))[1]) for remote, local in mappings)
    return {**claims, **{local: value for local, value in found if value != ""}}


def _read_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _WrongClaim(f"its {name} is or holds no text but {type(value).__name__}")
    # A value that could not be sent upstream in a header is refused before anything is charged.
    if len(value) > _MAX_TEXT or value != value.strip() or not value.isprintable():
        raise _WrongClaim(
            f"its {name} has more than {_MAX_TEXT} characters, or some that are not printable, or "
            "blanks around it"
        )
    return value


def _read_scopes(name: str, value: Any) -> frozenset[str]:
    """Space-separated text (RFC 8693 4.2), or an array of texts."""
    scopes = value.split(" ") if isinstance(value, str) else value
    if not isinstance(scopes, list):
        raise _WrongClaim(f"its {name} is neither text nor an array but {type(value).__name__}")
    return frozenset(scope for scope in [_read_text(name, one) for one in scopes] if scope)


def _read_key_type(name: str, value: Any) -> KeyType | None:
    text = _read_text(name, value)
    try:
        return KeyType(text.upper()) if text else None
    except ValueError as error:
        raise _WrongClaim(f"its {name} is neither PRODUCTION nor SANDBOX") from error


def _read_subscribed(value: Any) -> Mapping[tuple[str, str], str]:
    """WSO2's ``subscribedAPIs``. Of two entries for an API the first counts, as in WSO2."""
    if not isinstance(value, list):
        raise _WrongClaim(f"its subscribedAPIs is no array but {type(value).__name__}")
    subscribed: dict[tuple[str, str], str] = {}
    for entry in value:
        if not isinstance(entry, dict):
            raise _WrongClaim(f"its subscribedAPIs holds no object but {type(entry).__name__}")
        api = (
            _read_text("subscribedAPIs", entry.get("name")),
            _read_text("subscribedAPIs", entry.get("version")),
        )
        tier = _read_text("subscribedAPIs", entry.get("subscriptionTier") or "")
        subscribed.setdefault(api, tier)
    return subscribed
