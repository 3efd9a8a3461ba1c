"""What changes in an allowed request before the upstream sees it, and in its response.

Who the caller is goes upstream in header fields that only this service can set: a client's own
copies never pass, also on resources that take no credential and for fields that would stay
empty. The credential itself is taken out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from extauthz.answers.denial import Fields
from extauthz.answers.limit_headers import LimitHeaderStyle, write_limit_headers
from extauthz.model.decision import Allow
from extauthz.model.identity import PlaceKind
from extauthz.model.request import ApiRequest


class IdentityFact(Enum):
    """What can be sent upstream; settings give each a header name."""

    APPLICATION = "application"
    USER = "user"
    TIER = "tier"
    KEY_TYPE = "key_type"
    CONSUMER_KEY = "consumer_key"
    API = "api"
    VERSION = "version"
    SCOPES = "scopes"
    DECISION_ID = "decision_id"


def default_identity_headers() -> dict[IdentityFact, str]:
    """The facts that go upstream when the settings do not say."""
    return {
        IdentityFact.APPLICATION: "x-extauthz-application",
        IdentityFact.USER: "x-extauthz-user",
        IdentityFact.TIER: "x-extauthz-tier",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamStyle:
    """Which facts go upstream, in which (lower-case) header fields."""

    identity_headers: Mapping[IdentityFact, str] = field(default_factory=default_identity_headers)
    limit_headers: LimitHeaderStyle = LimitHeaderStyle.IETF


@dataclass(frozen=True, slots=True)
class UpstreamChanges:
    """What the proxy is to do with an allowed request.

    Attributes:
        set_headers: replace whatever the client sent; no name stands in both lists.
        remove_headers, remove_query: names.
        response_headers: added to the response on its way back.
    """

    set_headers: Fields
    remove_headers: tuple[str, ...]
    remove_query: tuple[str, ...]
    response_headers: Fields


def write_upstream_changes(
    allow: Allow, request: ApiRequest, style: UpstreamStyle
) -> UpstreamChanges:
    """The changes that an allowed request goes upstream with."""
    set_headers: list[tuple[str, str]] = []
    remove_headers: list[str] = []
    for fact, name in style.identity_headers.items():
        value = _identity_value(allow, fact)
        if value:
            set_headers.append((name, value))
        else:
            remove_headers.append(name)
    remove_headers.extend(_lookalikes(request, style))
    remove_query: tuple[str, ...] = ()
    if allow.credential_places:
        remove_query = _take_out_credentials(allow, request, set_headers, remove_headers)
    if allow.rewritten_path is not None:
        query = f"?{request.query}" if request.query else ""
        set_headers.append((":path", allow.rewritten_path + query))
    return UpstreamChanges(
        tuple(set_headers),
        tuple(remove_headers),
        remove_query,
        write_limit_headers(allow.limits, style.limit_headers),
    )


def _identity_value(allow: Allow, fact: IdentityFact) -> str:
    identity = allow.identity
    match fact:
        case IdentityFact.APPLICATION:
            return identity.application.name if identity.application is not None else ""
        case IdentityFact.USER:
            return identity.user
        case IdentityFact.TIER:
            return allow.tier
        case IdentityFact.KEY_TYPE:
            return identity.key_type.value if identity.key_type is not None else ""
        case IdentityFact.CONSUMER_KEY:
            return identity.consumer_key
        case IdentityFact.API:
            return allow.route.api.name
        case IdentityFact.VERSION:
            return allow.route.api.version
        case IdentityFact.SCOPES:
            return " ".join(sorted(identity.scopes or ()))
        case IdentityFact.DECISION_ID:
            return allow.id


def _lookalikes(request: ApiRequest, style: UpstreamStyle) -> list[str]:
    """Fields that an upstream may take for ours: CGI and WSGI read ``_`` and ``-`` alike."""
    suspects = [name for name in request.headers if "_" in name]
    if not suspects:
        return []
    ours = {name.replace("_", "-") for name in style.identity_headers.values()}
    set_as_they_are = set(style.identity_headers.values())
    return [
        name for name in suspects if name not in set_as_they_are and name.replace("_", "-") in ours
    ]


def _take_out_credentials(
    allow: Allow,
    request: ApiRequest,
    set_headers: list[tuple[str, str]],
    remove_headers: list[str],
) -> tuple[str, ...]:
    remove_query: list[str] = []
    cookies: list[str] = []
    for place in allow.credential_places:
        match place.kind:
            case PlaceKind.HEADER:
                if place.name in request.headers:
                    remove_headers.append(place.name)
            case PlaceKind.QUERY:
                if place.name in request.query:
                    remove_query.append(place.name)
            case PlaceKind.COOKIE:
                cookies.append(place.name)
            case PlaceKind.CONNECTION:
                pass
    if cookies:
        _take_out_cookies(request, cookies, set_headers, remove_headers)
    return tuple(remove_query)


def _take_out_cookies(
    request: ApiRequest,
    names: list[str],
    set_headers: list[tuple[str, str]],
    remove_headers: list[str],
) -> None:
    crumbs = [
        crumb.strip() for value in request.headers.get_all("cookie") for crumb in value.split(";")
    ]
    kept = [crumb for crumb in crumbs if crumb.partition("=")[0] not in names]
    if len(kept) == len(crumbs):
        return
    if kept:
        set_headers.append(("cookie", "; ".join(kept)))
    else:
        remove_headers.append("cookie")
