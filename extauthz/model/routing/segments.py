"""What a path's segment says, to whoever decodes its escapes and to whoever does not.

RFC 3986 (2.2) leaves it to the reader whether ``/%40me`` is ``/@me``: aiohttp and Go's ServeMux
decode before they compare, others compare what was sent. So both what a request sends and what a
template says are brought into one text, with every escape decoded; and of what a request spelled
with escapes it is known, too, in which other ways it can be read.

Escapes of slashes and the like do not come this far: `extauthz.policy.matching.match` refuses them, and
escapes of unreserved characters, which nobody needs.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable
from typing import Final

import re2

# Hexadecimal digits of what an escape stands for.
_RESERVED: Final = "2[1467-9A-Ca-c]|3[ADad]|40"
"""Of ``!$&'()*+,:=@``: a segment may hold them as they are, or escaped."""
_UNRESERVED: Final = "2[DEde]|3[0-9]|4[1-9A-Fa-f]|5[0-9Aa]|5[Ff]|6[1-9A-Fa-f]|7[0-9AEae]"
_IN_LOWER_CASE: Final = "[a-f][0-9A-Fa-f]|[0-9A-F][a-f]"

UNRESERVED_ESCAPE: Final = re.compile(f"%(?:{_UNRESERVED})")
BROKEN_ESCAPE: Final = re.compile("%(?![0-9A-Fa-f]{2})")
# What a careless reader could take for structure, and the same for readers that decode twice.
_STRUCTURE: Final = re.compile(r"[\x00-\x1f#;?\\\x7f]")
_ESCAPED_STRUCTURE: Final = re.compile("%(?:[01][0-9A-Fa-f]|2[3EFef]|3[BFbf]|5[Cc]|7[Ff])")
# For readers that take overlong UTF-8 (RFC 3629 section 10), in which %C0%AF is a slash.
_OVERLONG: Final = re.compile("[\udcc0\udcc1]|\udce0[\udc80-\udc9f]|\udcf0[\udc80-\udc8f]")
_DOUBTFUL_ESCAPE: Final = re.compile(f"%(?:{_RESERVED}|{_IN_LOWER_CASE})")
# The same for a quick look: at 2 ns for each byte, where `re` takes 50 for each escape.
_HAS_DOUBT: Final = re2.compile(f"%(?:{_RESERVED}|{_IN_LOWER_CASE})")
_NEEDLESS_ESCAPE: Final = re.compile(f"%(?:{_RESERVED}|{_UNRESERVED}|{_IN_LOWER_CASE})")
_UNREADABLE: Final = "\0"
"""Stands for an escape that may be read in several ways; no path and no template holds it."""
# Not by `translate`, which takes ten times as long for a long text. The percent sign goes first.
_ESCAPES: Final = tuple((mark, f"%{ord(mark):02X}") for mark in "%!$&'()*+,:=@ \"<>[]^`{|}#/;?\\")


def decode(text: str) -> str:
    """A text with its escapes decoded, but for broken ones; what is no UTF-8 becomes lone surrogates."""
    if "%" not in text:
        return text
    if BROKEN_ESCAPE.search(text):
        text = BROKEN_ESCAPE.sub("%25", text)
    return decode_sound(text)


def decode_sound(text: str) -> str:
    """As `decode`, of a text without broken escapes."""
    # By the decoder for quoted-printable, which differs in its mark alone: `unquote` takes 7 times
    # as long for one escape, and 20 times for a path that is full of them.
    quoted = text.replace("=", "=3D").replace("%", "=")
    octets = binascii.a2b_qp(quoted.encode("utf-8", "surrogateescape"))
    return octets.decode("utf-8", "surrogateescape")


def find_structure(text: str) -> str | None:
    """What no decoded text may hold: it came from an escape of what parts paths, or may do so."""
    found = _STRUCTURE.search(text)
    if found is None and not text.isascii():
        found = _OVERLONG.search(text)
    if found is not None:
        octets = found[0].encode("utf-8", "surrogateescape")
        return "".join(f"%{octet:02X}" for octet in octets)
    found = _ESCAPED_STRUCTURE.search(text)
    return None if found is None else f"%25{found[0][1:]}"


def escape(text: str) -> str:
    """A decoded text with an escape for all that is not unreserved.

    In upper case as a whole: a text that is in a segment in any reading is so in this form, too.
    So is ``40:`` in ``x%40%3A``, of which a reader may decode the colon alone, or ``f`` in ``%c3%9f``.
    """
    for character, escaped in _ESCAPES:
        if character in text:
            text = text.replace(character, escaped)
    return _escape_octets(text)


def _escape_octets(text: str) -> str:
    """A text without backslashes, in upper case, with an escape for each octet that is not ASCII."""
    octets = text.encode("utf-8", "surrogateescape").decode("latin-1")
    return octets.encode("ascii", "backslashreplace").decode().replace("\\x", "%").upper()


def is_respelled(text: str) -> bool:
    """Whether the text of a template has escapes that it does not need, or that are lower-case.

    Nobody knows then whether the upstream spells it so, too.
    """
    return _NEEDLESS_ESCAPE.search(text) is not None


Texts = tuple[str, tuple[str, ...], str]
"""The texts of a pattern: before its first name, between its names, and after its last one."""


class Pattern:
    """Text with one name or more in it, which stand for one character or more each."""

    __slots__ = ("escaped", "texts")

    def __init__(self, texts: Texts) -> None:
        before, between, after = texts
        self.texts = texts
        self.escaped: Texts = (escape(before), tuple(map(escape, between)), escape(after))

    @property
    def rank(self) -> tuple[object, ...]:
        """Sorts the most specific first: that with the most text, then with most before the name.

        Two patterns with one name that fit one segment are never equal in both. For others there is
        an order, too, which is that of the texts: it must not depend on which stands first.
        """
        before, between, after = self.texts
        text = len(before) + sum(map(len, between)) + len(after)
        return -text, -len(before), self.texts


def fits(segment: str, texts: Texts) -> bool:
    """Whether a segment is these texts with one character or more for each name.

    Takes each text between names where it comes first: what is left for the rest is then the most
    that there can be, so nothing is tried twice.
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
        is_sure: whether everybody finds `text` in it, and nothing else.
        twice: what a reader that decodes twice finds in it; None when it is the same.
    """

    __slots__ = ("_escaped", "_has_doubt", "_sent", "_sure", "is_sure", "text", "twice")

    def __init__(self, sent: str, text: str) -> None:
        self._sent, self.text = sent, text
        twice = decode(text)
        self.twice = None if twice == text else twice
        self._has_doubt = _HAS_DOUBT.search(sent) is not None
        self.is_sure = not self._has_doubt and self.twice is None
        # Only where there are patterns: these take the longest.
        self._sure: str | None = None
        self._escaped: tuple[str, ...] | None = None

    def may_fit(self, pattern: Pattern) -> bool:
        """Whether anybody could find a pattern in it."""
        if "%" not in self._sent:
            return fits(self.text, pattern.texts)
        if self._escaped is None:
            readings = (self.text,) if self.twice is None else (self.text, self.twice)
            self._escaped = tuple(map(escape, readings))
        return any(fits(escaped, pattern.escaped) for escaped in self._escaped)

    def surely_fits(self, pattern: Pattern) -> bool:
        """Whether everybody finds a pattern in it."""
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
        has_escapes: whether it was sent with any: then it may be read in several ways.
    """

    __slots__ = ("_segments", "_sent", "has_escapes", "texts")

    def __init__(self, path: str, decoded: str) -> None:
        self._segments: Segments | None = None
        self._sent = self.texts = path.split("/")[1:]
        self.has_escapes = has_escapes = "%" in path
        if has_escapes:
            self.texts = decoded.split("/")[1:]

    def find_base_paths(self, base_paths: Iterable[str]) -> tuple[int, ...]:
        """How many segments of it are one of some base paths, to any reader; the most first."""
        depths: list[int] = []
        for base_path in base_paths:
            base = decode(base_path).split("/")[1:]
            begins = self.texts[: len(base)]
            if begins == base or (self.has_escapes and list(map(decode, begins)) == base):
                depths.append(len(base))
        depths.sort(reverse=True)
        # The longest one counts, but to a reader for whom an escape in it does not.
        return tuple(depths if self.has_escapes else depths[:1])

    def read_in_every_way(self) -> Segments:
        """The segments in every reading."""
        if self._segments is None:
            self._segments = Segments(self._sent, self.texts)
        return self._segments


class Segments:
    """The segments of a path, each read in every way when somebody asks for it: most are below a
    wildcard, or behind what was looked for."""

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
