"""Reads path segments as readers do that decode escapes, and as readers do that do not.

RFC 3986 (2.2) leaves it to the reader whether ``/%40me`` is ``/@me``: aiohttp and Go's ServeMux
decode before they compare, others compare what was sent. So the paths of requests and templates
are both compared with every escape decoded. When a request's path has escapes, its other readings
are known, too.

Escapes of slashes and similar characters are refused earlier by `extauthz.policy.matching.match`,
and so are escapes of unreserved characters, which are never needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import re2

from extauthz.model.routing.escapes import decode_octets

# Hexadecimal digits of what an escape stands for.
_RESERVED: Final = "2[1467-9A-Ca-c]|3[ADad]|40"
"""Of ``!$&'()*+,:=@``: a segment may hold them as they are, or escaped."""
_UNRESERVED: Final = "2[DEde]|3[0-9]|4[1-9A-Fa-f]|5[0-9Aa]|5[Ff]|6[1-9A-Fa-f]|7[0-9AEae]"
_IN_LOWER_CASE: Final = "[a-f][0-9A-Fa-f]|[0-9A-F][a-f]"

# RE2 takes 2 ns for each byte of a search, where `re` takes 50 for each escape.
UNRESERVED_ESCAPE: Final = re2.compile(f"%(?:{_UNRESERVED})".encode())
# What a reader could take for structure, and the same for readers that decode twice.
_STRUCTURE: Final = re.compile(r"[\x00-\x1f#;?\\\x7f]")
_ESCAPED_STRUCTURE: Final = re.compile("%(?:[01][0-9A-Fa-f]|2[3EFef]|3[BFbf]|5[Cc]|7[Ff])")
# For readers that take overlong UTF-8 (RFC 3629 section 10), in which %C0%AF is a slash.
_OVERLONG: Final = re.compile("[\udcc0\udcc1]|\udce0[\udc80-\udc9f]|\udcf0[\udc80-\udc8f]")
_DOUBTFUL_ESCAPE: Final = re.compile(f"%(?:{_RESERVED}|{_IN_LOWER_CASE})")
# The same for a quick check.
_HAS_DOUBT: Final = re2.compile(f"%(?:{_RESERVED}|{_IN_LOWER_CASE})")
_NEEDLESS_ESCAPE: Final = re.compile(f"%(?:{_RESERVED}|{_UNRESERVED}|{_IN_LOWER_CASE})")
_UNREADABLE: Final = "\0"
"""Stands for an escape that may be read in several ways; no path and no template holds it."""
# `translate` would take ten times as long for a long text. The percent sign is replaced first.
_ESCAPES: Final = tuple((mark, f"%{ord(mark):02X}") for mark in "%!$&'()*+,:=@ \"<>[]^`{|}#/;?\\")
_FROM_PYTHON_ESCAPES: Final = bytes.maketrans(b"\\abcdef", b"%ABCDEF")


def decode(text: str) -> str:
    """Decodes escapes, except broken ones; bytes that are not UTF-8 become lone surrogates."""
    if "%" not in text:
        return text
    return decode_octets(text.encode("utf-8", "surrogateescape")).decode("utf-8", "surrogateescape")


def find_structure(text: str) -> str | None:
    """Finds a character that separates or changes paths, which must have come from an escape."""
    found = _STRUCTURE.search(text)
    if found is None and not text.isascii():
        found = _OVERLONG.search(text)
    if found is not None:
        octets = found[0].encode("utf-8", "surrogateescape")
        return "".join(f"%{octet:02X}" for octet in octets)
    found = _ESCAPED_STRUCTURE.search(text)
    return None if found is None else f"%25{found[0][1:]}"


def escape(text: str) -> str:
    """Escapes every character of a decoded text that is not unreserved, and makes it upper case.

    A text that is contained in a segment in any reading is contained in this form, too: also
    ``40:`` in ``x%40%3A``, when a reader decodes the colon alone, or ``f`` in ``%c3%9f``.
    """
    for character, escaped in _ESCAPES:
        if character in text:
            text = text.replace(character, escaped)
    return _escape_octets(text)


def _escape_octets(text: str) -> str:
    """A text without backslashes in upper case, with an escape for each octet that is not ASCII."""
    if text.isascii():
        return text.upper()
    octets = text.encode("utf-8", "surrogateescape").upper().decode("latin-1")
    # Everything else is in upper case now, so only Python's own escapes have an x: \xc3 -> %C3.
    return octets.encode("ascii", "backslashreplace").translate(_FROM_PYTHON_ESCAPES, b"x").decode()


def is_respelled(text: str) -> bool:
    """Whether a template has escapes that are not needed, or that are in lower case.

    It is then not known whether the upstream spells it in the same way.
    """
    return _NEEDLESS_ESCAPE.search(text) is not None


Texts = tuple[str, tuple[str, ...], str]
"""The texts of a pattern: before its first name, between its names, and after its last one."""


class Pattern:
    """A segment of a template with names in its text; a name stands for at least one character."""

    __slots__ = ("escaped", "texts")

    def __init__(self, texts: Texts) -> None:
        before, between, after = texts
        self.texts = texts
        self.escaped: Texts = (escape(before), tuple(map(escape, between)), escape(after))

    @property
    def rank(self) -> tuple[object, ...]:
        """A sort key, the most specific first: those with most text, then with most before a name.

        Two patterns with one name that fit one segment always differ in it. Other patterns are
        sorted by their texts, so that the order does not depend on the catalog's.
        """
        before, between, after = self.texts
        text = len(before) + sum(map(len, between)) + len(after)
        return -text, -len(before), self.texts


def fits(segment: str, texts: Texts) -> bool:
    """Whether a segment consists of these texts, with at least one character for each name.

    Each text between names is matched at its first occurrence, which leaves most for the rest, so
    that nothing is tried twice.
    """
    before, between, after = texts
    at, end = len(before), len(segment) - len(after)
    if end <= at or not segment.startswith(before) or not segment.endswith(after):
        return False
    for text in between:
        found = segment.find(text, at + 1, end)
        if found < 0:
            return False
        at = found + len(text)
    return at < end


class Segment:
    """A segment of a request, in every reading.

    Attributes:
        text: with its escapes decoded.
        is_sure: whether every reader reads it as `text`.
        twice: what a reader that decodes twice reads; None when it is the same.
    """

    __slots__ = ("_escaped", "_has_doubt", "_sent", "_sure", "is_sure", "text", "twice")

    def __init__(self, sent: str, text: str) -> None:
        self._sent, self.text = sent, text
        twice = decode(text)
        self.twice = None if twice == text else twice
        self._has_doubt = _HAS_DOUBT.search(sent) is not None
        self.is_sure = not self._has_doubt and self.twice is None
        # Computed only when there are patterns, as it takes long.
        self._sure: str | None = None
        self._escaped: tuple[str, ...] | None = None

    def may_fit(self, pattern: Pattern) -> bool:
        """Whether it fits a pattern in any reading."""
        if "%" not in self._sent:
            return fits(self.text, pattern.texts)
        if self._escaped is None:
            readings = (self.text,) if self.twice is None else (self.text, self.twice)
            self._escaped = tuple(map(escape, readings))
        return any(fits(escaped, pattern.escaped) for escaped in self._escaped)

    def surely_fits(self, pattern: Pattern) -> bool:
        """Whether it fits a pattern in every reading."""
        if self._sure is None:
            self._sure = self.text
            if self._has_doubt:
                self._sure = decode(_DOUBTFUL_ESCAPE.sub(_UNREADABLE, self._sent))
        return fits(self._sure, pattern.texts) and (
            self.twice is None or fits(self.twice, pattern.texts)
        )


class RequestPath:
    """A path of a request: see `extauthz.policy.matching.match.read_path`.

    Attributes:
        texts: of each segment, with its escapes decoded.
        has_escapes: whether it was sent with escapes, so that it may have several readings.
    """

    __slots__ = ("_segments", "_sent", "has_escapes", "texts")

    def __init__(self, path: str, decoded: str) -> None:
        self._segments: Segments | None = None
        self._sent = self.texts = path.split("/")[1:]
        self.has_escapes = has_escapes = "%" in path
        if has_escapes:
            self.texts = decoded.split("/")[1:]

    def find_base_paths(self, base_paths: Iterable[str]) -> tuple[int, ...]:
        """How many of its segments are one of the base paths in any reading; the most first."""
        depths: list[int] = []
        for base_path in base_paths:
            base = decode(base_path).split("/")[1:]
            begins = self.texts[: len(base)]
            if begins == base or (self.has_escapes and list(map(decode, begins)) == base):
                depths.append(len(base))
        depths.sort(reverse=True)
        # The longest base path counts, except for readers that do not decode an escape in it.
        return tuple(depths if self.has_escapes else depths[:1])

    def read_in_every_way(self) -> Segments:
        """The segments in every reading."""
        if self._segments is None:
            self._segments = Segments(self._sent, self.texts)
        return self._segments


class Segments:
    """The segments of a path in every reading. Each is computed when it is first used: most are
    below a wildcard, or after the part that is searched."""

    __slots__ = ("_read", "_sent", "_texts")

    def __init__(self, sent: list[str], texts: list[str]) -> None:
        self._sent, self._texts = sent, texts
        self._read: dict[int, Segment] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def __getitem__(self, at: int) -> Segment:
        segment = self._read.get(at)
        if segment is None:
            segment = self._read[at] = Segment(self._sent[at], self._texts[at])
        return segment
