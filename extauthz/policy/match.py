"""Says which API and resource a request is for.

What names no host is no API's, not even one that is served at any host: whoever routes the request
may read a host in it.

The path is normalised once, here, and everything later goes by the result. A path that two
readers could understand differently (an encoded slash, a backslash, a path parameter, a climb
above the root) is refused, not guessed at. When normalising changed the path, what was matched
is not what the upstream would see: the request is refused, or the upstream gets the normalised
path, as configured.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Final

from extauthz.model.catalog import Api, ApiState, Catalog, Resource
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import SecurityScheme
from extauthz.model.request import ApiRequest
from extauthz.model.routes import MAX_SEGMENTS, ResourceTree, Route
from extauthz.model.values import request_value

API_EXTENSION: Final = "extauthz.api"
"""The route's context extension that names the API, so that neither host nor path need to."""
VERSION_EXTENSION: Final = "extauthz.version"

MAX_PATH_BYTES: Final = 8192

# RFC 3986 pchar without ";" and "%": a path of these needs no second look. Nothing here is
# possessive, although it could be: before Python 3.11.5 such a group takes "/a/.." for plain.
_SEGMENT: Final = r"[A-Za-z0-9\-._~!$&'()*+,=:@]"
_PLAIN: Final = re.compile(rf"(?:/(?!\.\.?(?:/|$)){_SEGMENT}+)*/?")
_ENCODED: Final = re.compile(rf"(?:{_SEGMENT}|/|%[0-9A-Fa-f]{{2}})*")
_ESCAPE: Final = re.compile("%([0-9A-Fa-f]{2})")
_UNRESERVED: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)
# What a careless reader behind us could take for structure: control characters, "/", ";", "\".
_DANGEROUS: Final = frozenset(range(0x20)) | frozenset(b"/;\\\x7f")
# The same once more: for readers that decode twice, and for those that take overlong UTF-8
# (RFC 3629 section 10), in which %C0%AF is a slash.
_READ_OTHERWISE: Final = re.compile(
    "%25(?:[01][0-9A-F]|2E|2F|3B|5C|7F)|%(?:C[01]|E0%[89][0-9A-F]|F0%8[0-9A-F])", re.IGNORECASE
)


class UnnormalisedPath(Enum):
    """What to do with a path that normalising changed. The value is the word in the settings."""

    REFUSE = "refuse"
    REWRITE = "rewrite"


@request_value(frozen=True, slots=True)
class NormalisedPath:
    """A path as it is matched. `changed` says that the upstream would see another one."""

    path: str
    changed: bool


@request_value(frozen=True, slots=True)
class Match:
    """Where a request goes. `rewritten_path` is set when the upstream must get another path."""

    route: Route
    rewritten_path: str | None = None


def normalise_path(path: str) -> NormalisedPath | None:
    """The path in the one form that is matched, or None when it must be refused.

    Decodes escapes of unreserved characters only, resolves dot segments, collapses slashes
    (RFC 3986 section 6.2.2). Upper-case hexadecimal digits alone do not count as a change.

    >>> normalise_path("/a/%7Eb/./c")
    NormalisedPath(path='/a/~b/c', changed=True)
    """
    if not path.startswith("/") or len(path) > MAX_PATH_BYTES:
        return None
    if _PLAIN.fullmatch(path):
        return NormalisedPath(path, changed=False)
    if not _ENCODED.fullmatch(path):
        return None
    if any(int(escape, 16) in _DANGEROUS for escape in _ESCAPE.findall(path)):
        return None
    decoded = _ESCAPE.sub(_decode_unreserved, path)
    # Looked for in the result: the digits of an escape may themselves have come escaped.
    if _READ_OTHERWISE.search(decoded):
        return None
    resolved = _resolve_dots(decoded)
    if resolved is None:
        return None
    same = resolved == _ESCAPE.sub(lambda escape: escape[0].upper(), path)
    return NormalisedPath(resolved, changed=not same)


def _decode_unreserved(escape: re.Match[str]) -> str:
    octet = int(escape[1], 16)
    return chr(octet) if octet in _UNRESERVED else escape[0].upper()


def _resolve_dots(path: str) -> str | None:
    """Without empty and dot segments; None when the path climbs above the root.

    Also when a ".." meets an empty segment: who collapses slashes first takes away another
    segment than who resolves dots first.
    """
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if not kept or not kept.pop():
                return None
        elif segment != ".":
            kept.append(segment)
    named = [segment for segment in kept if segment]
    ends_open = segments[-1] in ("", ".", "..") and named
    return "/" + "/".join(named) + ("/" if ends_open else "")


def check_route(
    catalog: Catalog, request: ApiRequest, unnormalised: UnnormalisedPath
) -> Match | Denial:
    """The API and resource of a request, or why it has none."""
    normalised = normalise_path(request.path)
    if normalised is None:
        return Denial(
            reason=Reason.MALFORMED_REQUEST,
            detail="The path has an encoding or a segment that is not accepted.",
        )
    if normalised.changed and unnormalised is UnnormalisedPath.REFUSE:
        return Denial(
            reason=Reason.MALFORMED_REQUEST,
            detail="The path is not in its normal form; send it without dot segments, doubled "
            "slashes and needless escapes.",
        )
    segments = normalised.path.split("/")[1:]
    if len(segments) > MAX_SEGMENTS:
        return Denial(reason=Reason.MALFORMED_REQUEST, detail="The path has too many segments.")
    if request.host is None:
        return Denial(
            reason=Reason.MALFORMED_REQUEST,
            detail="The host is not one host name or IP address, with at most one port.",
        )
    found = _find_api(catalog, request, request.host, segments)
    if found is None:
        return Denial(reason=Reason.API_NOT_FOUND, detail="No API is served here.")
    api, resources, rest = found
    state = api.state
    if state is not _PUBLISHED:
        if state is ApiState.BLOCKED:
            return Denial(reason=Reason.API_BLOCKED, detail="This API is blocked for now.")
        if state in (ApiState.CREATED, ApiState.RETIRED):
            return Denial(reason=Reason.API_NOT_FOUND, detail="No API is served here.")
    route = resources.find(segments, rest, request.method)
    if not route:
        return Denial(reason=Reason.RESOURCE_NOT_FOUND, detail="The API has no such resource.")
    if api.allow_preflight and _is_preflight(request) and not _names_options(route):
        route = Route(api, _PREFLIGHT)
    if not isinstance(route, Route):
        return Denial(
            reason=Reason.METHOD_NOT_ALLOWED,
            detail="The resource does not take this method.",
            allowed_methods=tuple(sorted(route)),
        )
    return Match(route, normalised.path if normalised.changed else None)


# The commonest state, here, as a look into an enum takes 40 ns more than one into a module.
_PUBLISHED: Final = ApiState.PUBLISHED
_PREFLIGHT: Final = Resource(methods=("OPTIONS",), template="*", security=(SecurityScheme.NONE,))


def _names_options(route: Route | frozenset[str]) -> bool:
    """Whether the API answers OPTIONS by itself; a resource for any method does not say so."""
    return isinstance(route, Route) and "OPTIONS" in route.resource.methods


def _is_preflight(request: ApiRequest) -> bool:
    """Whether a browser asks what it may do (Fetch standard, CORS-preflight request)."""
    return (
        request.method == "OPTIONS"
        and "origin" in request.headers
        and "access-control-request-method" in request.headers
    )


def _find_api(
    catalog: Catalog, request: ApiRequest, host: str, segments: list[str]
) -> tuple[Api, ResourceTree, int] | None:
    named = request.context.get(API_EXTENSION)
    if named is None:
        return catalog.routes.find_api(host, segments)
    version = request.context.get(VERSION_EXTENSION)
    api = catalog.apis.get((named, version)) if version else catalog.default_versions.get(named)
    if api is None:
        return None
    # The mesh may send the path with the API's base path or without it.
    for base_path in sorted(api.base_paths, key=len, reverse=True):
        base = base_path.split("/")[1:]
        if segments[: len(base)] == base:
            return api, catalog.routes.resources_of(api), len(base)
    return api, catalog.routes.resources_of(api), 0
