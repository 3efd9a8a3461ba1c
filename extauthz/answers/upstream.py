"""Writes the changes of an allowed request before the upstream sees it, and of its response.

The caller's identity is sent upstream in header fields that only this service can set: a client's
own copies are always removed, also for resources without a credential and for fields without a
value. The credential itself is removed. When the proxy does not send all header fields, every field
that may be a credential, a copy or a twin of ours is removed without having been seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from itertools import product
from operator import add, attrgetter
from typing import TYPE_CHECKING, Final

from extauthz.answers.denial import Fields
from extauthz.answers.limit_headers import LimitHeaderStyle, write_limit_headers
from extauthz.model.decision import Allow
from extauthz.model.identity import PlaceKind
from extauthz.model.request import ApiRequest
from extauthz.policy.request.parameters import Found, cut_out, find_parameters, read_text

if TYPE_CHECKING:
    from extauthz.answers.backend_jwt import BackendJwtSigner


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
    """The header fields of facts that are sent upstream by default."""
    return {
        IdentityFact.APPLICATION: "x-extauthz-application",
        IdentityFact.USER: "x-extauthz-user",
        IdentityFact.TIER: "x-extauthz-tier",
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamStyle:
    """The facts that are sent upstream, and their (lower-case) header fields."""

    identity_headers: Mapping[IdentityFact, str] = field(default_factory=default_identity_headers)
    limit_headers: LimitHeaderStyle = LimitHeaderStyle.IETF
    backend_jwt: BackendJwtSigner | None = None
    _reads: tuple[Callable[[Allow], str], ...] | None = field(init=False, repr=False, compare=False)
    """What `find_header_basis` reads of an allow; None where it can never be told."""

    def __post_init__(self) -> None:
        facts = tuple(self.identity_headers)
        told = (
            self.backend_jwt is None
            and IdentityFact.DECISION_ID not in facts
            and not any("_" in name for name in self.own_headers)
        )
        object.__setattr__(self, "_reads", tuple(_READS[fact] for fact in facts) if told else None)

    @property
    def own_headers(self) -> tuple[str, ...]:
        """Every field that only this service may set."""
        names = tuple(self.identity_headers.values())
        return names if self.backend_jwt is None else (*names, self.backend_jwt.header)


@dataclass(frozen=True, slots=True)
class UpstreamChanges:
    """The changes that the proxy makes to an allowed request.

    Attributes:
        set_headers: replace whatever the client sent; no name stands in both lists. ``:path``
            stands here when something is taken out of the query.
        remove_headers: names.
        removed_query: names of what was taken out of the query.
        response_headers: added to the response on its way back.
    """

    set_headers: Fields
    remove_headers: tuple[str, ...]
    removed_query: tuple[str, ...]
    response_headers: Fields


def write_upstream_changes(
    allow: Allow, request: ApiRequest, style: UpstreamStyle
) -> UpstreamChanges:
    """The changes of an allowed request and of its response."""
    set_headers: list[tuple[str, str]] = []
    remove_headers: list[str] = []
    for name, value in _own_fields(allow, style):
        if value:
            set_headers.append((name, value))
        else:
            remove_headers.append(name)
    remove_headers.extend(_lookalikes(allow, request, style))
    if request.headers_are_partial:
        remove_headers.extend(_list_unseen(allow, style))
    query, removed_query = _take_out_credentials(allow, request, set_headers, remove_headers)
    if removed_query:
        set_headers.append((":path", f"{request.path}?{query}" if query else request.path))
    # The last of several facts under one name counts, and what is set is not removed.
    fields = dict(set_headers)
    return UpstreamChanges(
        tuple(fields.items()),
        tuple(name for name in dict.fromkeys(remove_headers) if name not in fields),
        removed_query,
        write_limit_headers(allow.limits, style.limit_headers),
    )


# Module constants, because reading a member of an enum takes 40 ns longer.
_HEADER: Final = PlaceKind.HEADER
_QUERY: Final = PlaceKind.QUERY


def find_header_basis(
    allow: Allow, request: ApiRequest, style: UpstreamStyle
) -> tuple[str, ...] | None:
    """Everything that an ordinary request's header changes depend on; None for other requests.

    Of one style, allows with the same basis have the same `set_headers` and `remove_headers`.
    A request is not ordinary when it has a credential in the query or a cookie, or a header whose
    name may be read as one of ours.
    """
    reads = style._reads  # noqa: SLF001  (made for this function alone)
    headers = request.headers
    if reads is None or headers.has_underscores:
        return None
    if request.headers_are_partial:
        return None
    basis = [read(allow) for read in reads]
    for place in allow.credential_places:
        if place.kind is _HEADER:
            if "_" in place.name:
                return None
            if place.name in headers:
                basis.append(place.name)
        elif find_parameters(request, place):
            return None
    return tuple(basis)


def _own_fields(allow: Allow, style: UpstreamStyle) -> Iterator[tuple[str, str]]:
    """Fields that only this service sets; one without a value must not reach the upstream."""
    for fact, name in style.identity_headers.items():
        yield name, _READS[fact](allow)
    if style.backend_jwt is not None:
        yield style.backend_jwt.header, style.backend_jwt.write(allow)


def _read_application(allow: Allow) -> str:
    application = allow.identity.application
    return application.display_name or application.name if application is not None else ""


def _read_key_type(allow: Allow) -> str:
    key_type = allow.identity.key_type
    return key_type.value if key_type is not None else ""


_READS: Final[Mapping[IdentityFact, Callable[[Allow], str]]] = {
    IdentityFact.APPLICATION: _read_application,
    IdentityFact.USER: attrgetter("identity.user"),
    IdentityFact.TIER: attrgetter("tier"),
    IdentityFact.KEY_TYPE: _read_key_type,
    IdentityFact.CONSUMER_KEY: attrgetter("identity.consumer_key"),
    IdentityFact.API: attrgetter("route.api.name"),
    IdentityFact.VERSION: attrgetter("route.api.version"),
    IdentityFact.SCOPES: lambda allow: " ".join(sorted(allow.identity.scopes or ())),
    IdentityFact.DECISION_ID: attrgetter("id"),
}


def _lookalikes(allow: Allow, request: ApiRequest, style: UpstreamStyle) -> list[str]:
    """Fields that an upstream may take for ours, or for the credential.

    CGI and WSGI read ``_`` and ``-`` alike.
    """
    names = (*style.own_headers, *_list_credential_headers(allow))
    if not request.headers.has_underscores and not any("_" in name for name in names):
        return []
    ours = {name.replace("_", "-") for name in names}
    return [
        name for name in request.headers if name not in names and name.replace("_", "-") in ours
    ]


def _list_unseen(allow: Allow, style: UpstreamStyle) -> Iterator[str]:
    """Fields that are always removed, whether they are there or not."""
    own, credentials = style.own_headers, _list_credential_headers(allow)
    yield from credentials
    for name in (*own, *credentials):
        for twin in list_twins(name):
            if twin not in own:
                yield twin


def _list_credential_headers(allow: Allow) -> list[str]:
    return [place.name for place in allow.credential_places if place.kind is _HEADER]


@lru_cache(maxsize=256)
def list_twins(name: str) -> tuple[str, ...]:
    """Names that CGI and WSGI read as this one: those with other choices of ``-`` and ``_``.

    For a name with more than four of these characters, only the two with all of one kind.
    """
    words = name.replace("_", "-").split("-")
    marks = len(words) - 1
    choices = product("-_", repeat=marks) if marks <= 4 else (("-",) * marks, ("_",) * marks)
    names = {"".join(map(add, words, (*choice, ""))) for choice in choices}
    return tuple(sorted(names - {name}))


def _take_out_credentials(
    allow: Allow, request: ApiRequest, set_headers: list[tuple[str, str]], remove_headers: list[str]
) -> tuple[str, tuple[str, ...]]:
    """The query without credentials, and the names removed; header changes go to the two lists.

    The rest of the query is kept byte for byte. Envoy can remove parameters itself, but it then
    sorts the others, which breaks signed URLs.
    """
    in_query: list[Found] = []
    in_cookies: list[Found] = []
    removed_query: list[str] = []
    for place in allow.credential_places:
        if place.kind is _HEADER:
            if place.name in request.headers:
                remove_headers.append(place.name)
            continue
        found = find_parameters(request, place)
        if found and place.kind is _QUERY:
            in_query += found
            removed_query.append(place.name)
        else:
            in_cookies += found
    query = _cut_out(request, _QUERY, in_query) if in_query else request.query
    if in_cookies:
        cookies = _cut_out(request, PlaceKind.COOKIE, in_cookies)
        if cookies:
            set_headers.append(("cookie", cookies))
        else:
            remove_headers.append("cookie")
    return query, tuple(removed_query)


def _cut_out(request: ApiRequest, kind: PlaceKind, found: list[Found]) -> str:
    return cut_out(read_text(request, kind), found).decode("utf-8", "surrogatepass")
