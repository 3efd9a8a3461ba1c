"""Finds query parameters and cookies by name.

A name is found in every spelling. The upstream may decode ``api%6Bey`` to ``apikey``, so both are
the same parameter when a credential is read, when it is removed, and when a second one is searched.
Upper and lower case stay different (RFC 3986 6.2.2.1, RFC 6265).

Parameters are separated by ``&`` (WHATWG URL, application/x-www-form-urlencoded), cookies by ``;``
(RFC 6265). Older readers also split at ``;`` and ``,``. A name behind one of these is found, too,
but not marked as plain, as it is not known how the next reader takes it.

The text is searched in bounded time: with RE2, whose time is linear in the text, and up to
`MAX_BYTES`. A request with a longer text, or with more than `MAX_FOUND` parameters of one name, is
refused: a part that is not searched could hold a credential.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple

import re2

from extauthz.errors import MalformedRequest
from extauthz.model.identity import Place, PlaceKind
from extauthz.model.request import ApiRequest
from extauthz.model.routing.escapes import decode_octets

MAX_BYTES: Final = 16_384
"""Bytes of a query, or of all cookies together, that can be searched."""
MAX_FOUND: Final = 16
"""Parameters or cookies of one name."""
MAX_ESCAPES: Final = 256
"""Escapes in a value that is decoded."""

# Module constants, because reading a member of an enum takes 40 ns longer.
_QUERY: Final = PlaceKind.QUERY
_COOKIE: Final = PlaceKind.COOKIE


class Found(NamedTuple):
    """One parameter or cookie of the name that was searched.

    Attributes:
        start, end: its position in the text of `read_text`, with the separator in front of it.
        value: as it was sent.
        is_plain: whether every reader takes it for a separate parameter.
    """

    start: int
    end: int
    value: bytes
    is_plain: bool


def find_parameters(request: ApiRequest, place: Place) -> tuple[Found, ...]:
    """All parameters or cookies of a place's name, in their order; none for other places.

    Raises:
        MalformedRequest: there is more than can be searched in bounded time.
    """
    kind = place.kind
    if kind is _QUERY:
        if not request.query:
            return ()
    elif kind is not _COOKIE or "cookie" not in request.headers:
        return ()
    found: tuple[Found, ...] | None = request.found.get(place)
    if found is None:
        sent = (request.query,) if kind is _QUERY else _read_cookies(request)
        if sum(map(len, sent)) > MAX_BYTES:
            raise _refuse_long(kind)
        found = request.found[place] = _search(read_text(request, kind), place)
    return found


def read_text(request: ApiRequest, kind: PlaceKind) -> bytes:
    """The text that `Found` gives positions in: a separator, then the query or all cookies."""
    text = f"&{request.query}" if kind is _QUERY else f"; {'; '.join(_read_cookies(request))}"
    return text.encode("utf-8", "surrogatepass")


def _read_cookies(request: ApiRequest) -> tuple[str, ...]:
    return request.headers.get_all("cookie")


def read_values(request: ApiRequest, place: Place) -> list[str]:
    """The decoded values of a query parameter or a cookie.

    Escapes and plus signs of query parameters are decoded; quotes of cookies are removed.

    Raises:
        MalformedRequest: as for `find_parameters`, or a value has too many escapes.
    """
    found = find_parameters(request, place)
    if not found:
        return []
    if place.kind is _COOKIE:
        return [one.value.decode("utf-8", "surrogatepass").strip().strip('"') for one in found]
    return [_decode(one.value) for one in found]


def _decode(value: bytes) -> str:
    if value.count(b"%") > MAX_ESCAPES:
        raise MalformedRequest(
            f"A query parameter that is read has more than {MAX_ESCAPES} escapes."
        )
    return decode_octets(value.replace(b"+", b" ")).decode("utf-8", "replace")


def cut_out(text: bytes, found: list[Found]) -> bytes:
    """Removes what was found from a text of `read_text`, and the separator in front of it."""
    kept = bytearray()
    at = 0
    for one in sorted(found):
        if one.start >= at:
            kept += text[at : one.start]
        at = max(at, one.end)
    kept += text[at:]
    return bytes(kept).lstrip(b"; ") if text.startswith(b";") else bytes(kept[1:])


def _search(text: bytes, place: Place) -> tuple[Found, ...]:
    if len(text) > MAX_BYTES:
        raise _refuse_long(place.kind)
    pattern = _compile(place)
    plain, other = (b"&", b";") if place.kind is _QUERY else (b";", b",")
    found: list[Found] = []
    at = 0
    while (match := pattern.search(text, at)) is not None:
        if len(found) == MAX_FOUND:
            raise MalformedRequest(f"A parameter was sent more than {MAX_FOUND} times.")
        start, end = match.span()
        last = text[end - 1 : end]
        is_plain = text[start : start + 1] == plain and last != other
        if last in (plain, other):
            end -= 1  # it has no value
        ends = [text.find(plain, end)]
        if not is_plain:
            ends.append(text.find(other, end))
        at = min((one for one in ends if one >= 0), default=len(text))
        found.append(Found(start, at, text[end:at], is_plain))
    return tuple(found)


def _refuse_long(kind: PlaceKind) -> MalformedRequest:
    what = "query" if kind is _QUERY else "cookies"
    return MalformedRequest(
        f"The {what} must not exceed {MAX_BYTES} bytes, as something is read there."
    )


@lru_cache(maxsize=1024)
def _compile(place: Place) -> Any:
    """A pattern for a separator, the name in any spelling, and the character after the name.

    It has no groups: RE2 needs more time to find those than to find the match as a whole.
    """
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # octet by octet
    options.log_errors = False
    name = b"".join(_spell(octet) for octet in place.name.encode("utf-8", "surrogatepass"))
    if place.kind is _QUERY:
        return re2.compile(rb"[&;]" + name + rb"(?:[=&;]|$)", options)
    return re2.compile(rb"[;,]\s*" + name + rb"\s*(?:[=;,]|$)", options)


def _spell(octet: int) -> bytes:
    escape = b"%%(?i:%02x)" % octet
    if octet in b"&;=":
        return escape
    literal: bytes = re2.escape(bytes((octet,)))
    plus = rb"|\+" if octet == 0x20 else b""
    return b"(?:" + literal + b"|" + escape + plus + b")"
