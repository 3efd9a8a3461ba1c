"""Finds the API and resource of a request.

A request whose authority is no valid host matches no API, not even one that is served at any host:
the proxy that routes the request may read a host in it.

A path is allowed as it came or refused: the decision never depends on somebody rewriting it. What
two readers could understand differently (an encoded slash, a backslash, a path parameter, dot
segments and empty segments) is refused. Escapes that a client may write or leave out (``%40`` for
``@``) are decoded before paths are compared; when a reader that does not decode them would find
another resource, the request is refused, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from extauthz.model.apis import Api, ApiState, BasePath, Resource
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import SecurityScheme
from extauthz.model.request import ApiRequest
from extauthz.model.routing.escapes import decode_if_sound
from extauthz.model.routing.routes import ResourceTree, Route
from extauthz.model.routing.segments import (
    UNRESERVED_ESCAPE,
    RequestPath,
    find_structure,
)
from extauthz.model.routing.templates import MAX_SEGMENTS

API_EXTENSION: Final = "extauthz.api"
"""The route's context extension that names the API, so that host and path do not have to."""
VERSION_EXTENSION: Final = "extauthz.version"
BASE_PATH_EXTENSION: Final = "extauthz.base_path"
"""The context extension with a value of `BasePath`, which overrides the catalog's."""
CONTEXT_EXTENSION: Final = "extauthz.context"
"""The context extension with a base path for paths that lack it, where the API is not named."""

MAX_PATH_BYTES: Final = 8192
MAX_ESCAPES: Final = 384
"""Escapes in a path, when some of them do not encode non-ASCII text. Every reading of each is
examined in Python."""
MAX_TEXT_ESCAPES: Final = 1_800
"""Escapes in a path, when all of them encode non-ASCII text: 600 Chinese characters."""

# RFC 3986 pchar without ";" and "%": such a path needs no further checks. No quantifier here is
# possessive: before Python 3.11.5 such a group would match "/a/..".
_CHARACTERS: Final = r"A-Za-z0-9\-._~!$&'()*+,=:@"
_PLAIN: Final = re.compile(rf"(?:/(?!\.\.?(?:/|$))[{_CHARACTERS}]+)*/?")
_ACCEPTED: Final = b"".join(
    bytes([octet]) for octet in range(128) if re.match(f"[{_CHARACTERS}/%]", chr(octet))
)
_BEYOND_ASCII: Final = bytes(range(128, 256))
_UNNORMALISED: Final = re.compile(r"//|/\.\.?(?:/|$)")

UNREADABLE: Final = Denial(
    reason=Reason.MALFORMED_REQUEST,
    detail="The path has an encoding or a segment that is not accepted.",
)
TOO_MANY_SEGMENTS: Final = Denial(
    reason=Reason.MALFORMED_REQUEST, detail="The path has too many segments."
)
NOT_NORMAL: Final = Denial(
    reason=Reason.MALFORMED_REQUEST,
    detail="The path is not in its normal form; send it without dot segments, doubled slashes and "
    "needless escapes.",
)
READ_IN_TWO_WAYS: Final = Denial(
    reason=Reason.MALFORMED_REQUEST,
    detail="Two readers could find different resources under this path; send characters such as @ "
    "and $ without escapes.",
)
WITH_BASE_PATH_OR_WITHOUT: Final = Denial(
    reason=Reason.MALFORMED_REQUEST,
    detail="The path leads to one resource with the API's base path, and to another one without "
    "it.",
)


UNKNOWN_BASE_PATH: Final = Denial(
    reason=Reason.API_NOT_FOUND,
    detail="The route says neither sent, stripped nor either of the API's base path.",
)


def read_path(path: str) -> RequestPath | Denial:
    """Checks a path; gives it for matching, or the denial.

    A path that passes is in normal form (RFC 3986 section 6.2.2), except for the case of
    hexadecimal digits, and no escape in it encodes a character with a meaning in paths.
    """
    if not path.startswith("/") or len(path) > MAX_PATH_BYTES:
        return UNREADABLE
    if path.count("/") > MAX_SEGMENTS:
        return TOO_MANY_SEGMENTS
    if _PLAIN.fullmatch(path):
        return RequestPath(path, path)
    escapes = path.count("%")
    if escapes > MAX_TEXT_ESCAPES or not path.isascii():
        return UNREADABLE
    sent = path.encode()
    octets = decode_if_sound(sent)
    if octets is None or sent.translate(None, _ACCEPTED):
        return UNREADABLE
    try:
        decoded, is_utf8 = octets.decode(), True
    except UnicodeDecodeError:
        decoded, is_utf8 = octets.decode("utf-8", "surrogateescape"), False
    if not is_utf8 or _has_other_escapes(escapes, sent, octets):
        if escapes > MAX_ESCAPES:
            return UNREADABLE
        if find_structure(decoded) is not None or decoded.count("/") != path.count("/"):
            return UNREADABLE
        if UNRESERVED_ESCAPE.search(sent):
            return NOT_NORMAL
    if _UNNORMALISED.search(path):
        return NOT_NORMAL
    return RequestPath(path, decoded)


def _has_other_escapes(escapes: int, sent: bytes, octets: bytes) -> bool:
    """Whether a path has escapes other than of non-ASCII text and of the space.

    Those two are never structure, and a client cannot leave them out.
    """
    beyond = len(octets) - len(octets.translate(None, _BEYOND_ASCII))
    return beyond + sent.count(b"%20") != escapes


def check_route(catalog: Catalog, request: ApiRequest) -> Route | Denial:
    """Finds the API and resource of a request, or the denial when there is none."""
    path = read_path(request.path)
    if isinstance(path, Denial):
        return path
    if request.host is None:
        return Denial(
            reason=Reason.MALFORMED_REQUEST,
            detail="The host is not one host name or IP address, with at most one port.",
        )
    if request.context:
        found = _find_stated(catalog, request, request.host, path)
    else:
        found = _find_served(catalog, request.host, path)
    if found is None:
        return Denial(reason=Reason.API_NOT_FOUND, detail="No API is served here.")
    if isinstance(found, Denial):
        return found
    api, resources, starts, path = found
    state = api.state
    if state is not _PUBLISHED:
        if state is ApiState.BLOCKED:
            return Denial(reason=Reason.API_BLOCKED, detail="This API is blocked for now.")
        if state in (ApiState.CREATED, ApiState.RETIRED):
            return Denial(reason=Reason.API_NOT_FOUND, detail="No API is served here.")
    if path.has_escapes or resources.is_respelled or len(starts) != 1:
        route = resources.find_in_every_way(path.read_in_every_way(), starts, request.method)
        if route is None:
            return READ_IN_TWO_WAYS if path.has_escapes else WITH_BASE_PATH_OR_WITHOUT
    else:
        route = resources.find(path.texts, starts[0], request.method)
    if not route:
        return Denial(reason=Reason.RESOURCE_NOT_FOUND, detail="The API has no such resource.")
    if api.allow_preflight and _is_preflight(request) and not _names_options(route):
        return Route(api, _PREFLIGHT)
    if not isinstance(route, Route):
        return Denial(
            reason=Reason.METHOD_NOT_ALLOWED,
            detail="The resource does not take this method.",
            allowed_methods=tuple(sorted(route)),
        )
    return route


_BASE_PATHS: Final = {word.value: word for word in BasePath}
# The most frequent state. A module constant: reading a member of an enum takes 40 ns longer.
_PUBLISHED: Final = ApiState.PUBLISHED
_PREFLIGHT: Final = Resource(methods=("OPTIONS",), template="*", security=(SecurityScheme.NONE,))


def _names_options(route: Route | frozenset[str]) -> bool:
    """Whether a resource lists OPTIONS itself; one for any method does not."""
    return isinstance(route, Route) and "OPTIONS" in route.resource.methods


def _is_preflight(request: ApiRequest) -> bool:
    """Whether it is a CORS-preflight request (Fetch standard)."""
    return (
        request.method == "OPTIONS"
        and "origin" in request.headers
        and "access-control-request-method" in request.headers
    )


_Found = tuple[Api, ResourceTree, tuple[int, ...], RequestPath]
"""An API, its resources, and where the rest of a path may begin in each of its readings."""


def _find_stated(
    catalog: Catalog, request: ApiRequest, host: str, path: RequestPath
) -> _Found | Denial | None:
    """The API that the route's context names, else the one that is served at host and path."""
    context = request.context
    named = context.get(API_EXTENSION)
    if named is None:
        base_path = context.get(CONTEXT_EXTENSION)
        if base_path is None:
            return _find_served(catalog, host, path)
        return _find_in_context(catalog, request, host, path, base_path)
    version = context.get(VERSION_EXTENSION)
    api = catalog.apis.get((named, version)) if version else catalog.default_versions.get(named)
    if api is None:
        return None
    stated = _find_base_path(context, api)
    if stated is None:
        return UNKNOWN_BASE_PATH
    starts = list(path.find_base_paths(api.base_paths)) if stated is not BasePath.STRIPPED else []
    if stated is not BasePath.SENT and 0 not in starts:
        starts.append(0)
    return api, catalog.routes.resources_of(api), tuple(starts), path


def _find_base_path(context: Mapping[str, str], api: Api) -> BasePath | None:
    """The route's `BasePath`, else the catalog's; None when the route's value is not known."""
    word = context.get(BASE_PATH_EXTENSION)
    return api.base_path if word is None else _BASE_PATHS.get(word)


def _find_served(catalog: Catalog, host: str, path: RequestPath) -> _Found | Denial | None:
    if not path.has_escapes:
        served = catalog.routes.find_api(host, path.texts)
        if served is None:
            return None
        api, resources, start = served
        return api, resources, (start,), path
    return _join(catalog.routes.find_apis_in_every_way(host, path.read_in_every_way()), path)


def _find_in_context(
    catalog: Catalog, request: ApiRequest, host: str, path: RequestPath, base_path: str
) -> _Found | Denial | None:
    """The API below a base path that the route's context gives; the path may begin with it or not.

    Both readings are looked up; where the API's `BasePath` is stated, it decides.
    """
    whole = read_path(base_path + request.path)
    if isinstance(whole, Denial):
        return whole
    added = len(whole.texts) - len(path.texts)
    ways = [(BasePath.STRIPPED, whole, 0)]
    if path.find_base_paths((base_path,)):
        ways.append((BasePath.SENT, path, added))
    served = []
    for way, read, ahead in ways:
        for api, resources, start in catalog.routes.find_apis_in_every_way(
            host, read.read_in_every_way()
        ):
            stated = _find_base_path(request.context, api)
            if stated is None:
                return UNKNOWN_BASE_PATH
            if stated in (way, BasePath.EITHER):
                served.append((api, resources, start + ahead))
    return _join(served, whole)


def _join(served: list[tuple[Api, ResourceTree, int]], path: RequestPath) -> _Found | Denial | None:
    """The API that all readings lead to; a denial when they lead to several."""
    if not served:
        return None
    api, resources, _ = served[0]
    if any(other is not api for other, _, _ in served):
        return READ_IN_TWO_WAYS
    return api, resources, tuple(dict.fromkeys(start for _, _, start in served)), path
