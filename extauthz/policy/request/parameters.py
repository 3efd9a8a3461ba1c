"""Finds parameters of the query, and cookies, by name.

A name is found however it is spelled. The reader behind us may decode ``api%6Bey`` to ``apikey``,
so it is the same parameter when a credential is read, when it is taken out, and when it is looked
for a second one. Upper and lower case stay different (RFC 3986 6.2.2.1, RFC 6265).

Parameters stand apart by ``&`` (WHATWG URL, application/x-www-form-urlencoded), cookies by ``;``
(RFC 6265). Older readers take ``;`` and ``,`` for the same. A name behind one of these is found,
too, but not as a plain one: nobody can know what the next reader makes of it.

What a stranger sends is read in bounded time: with RE2, which takes time linear in the text, and no
more of it than `MAX_BYTES`; beyond that, and beyond `MAX_FOUND` of one name, the request is
refused. To ignore the rest would hide it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Final, NamedTuple
from urllib.parse import unquote_to_bytes

import re2

from extauthz.errors import MalformedRequest
from extauthz.model.identity import Place, PlaceKind
from extauthz.model.request import ApiRequest

MAX_BYTES: Final = 16_384
"""Of a query, and of all cookies together, in which something is looked for."""
MAX_FOUND: Final = 16
"""Of one name."""
MAX_ESCAPES: Final = 256
"""In a value that is decoded."""

# Here, as a look into an enum takes 40 ns more than one into a module.
_QUERY: Final = PlaceKind.QUERY
_COOKIE: Final = PlaceKind.COOKIE


class Found(NamedTuple):
    """One parameter or cookie of the name that was looked for.

    Attributes:
        start, end: where it stands in the text, from the character that sets it apart.
        value: as it was sent.
        is_plain: whether every reader takes it for a parameter of its own.
    """

    start: int
    end: int
    value: bytes
    is_plain: bool


def find_parameters(request: ApiRequest, place: Place) -> tuple[Found, ...]:
    """All of a name, in their order; none for places outside of the query and the cookies.

    Raises:
        MalformedRequest: there is more than can be read in bounded time.
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
    """What `Found` counts in: the query, or all cookies, behind one more separator."""
    text = f"&{request.query}" if kind is _QUERY else f"; {'; '.join(_read_cookies(request))}"
    return text.encode("utf-8", "surrogatepass")


def _read_cookies(request: ApiRequest) -> tuple[str, ...]:
    return request.headers.get_all("cookie")


def read_values(request: ApiRequest, place: Place) -> list[str]:
    """The values of a query parameter or a cookie, as they are meant.

    Of a query parameter escapes and plus signs are decoded, of a cookie the quotes taken off.

    Raises:
        MalformedRequest: as `find_parameters`; or a value has too many escapes.
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
    # Of bytes, as the quicker way for text is slow where ASCII and other characters take turns.
    return unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8", "replace")


def cut_out(text: bytes, found: list[Found]) -> bytes:
    """A text of `read_text` without what was found, and without the separator in front."""
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
    """A pattern for a separator, the name in any spelling, and what stands behind a name.

    It has no groups: RE2 finds those by slower ways than the match as a whole.
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
