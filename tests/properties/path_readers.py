"""Upstreams that read a path, each in its own way, written without anything of the product.

A reader is a router behind the gateway: it has the catalog's templates, and says which resource a
request target is for. They differ in what they do with escapes; how the most specific template is
chosen is the same for all.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final
from urllib.parse import quote, unquote_to_bytes

Decode = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Reader:
    """What is made of a path's segment, and of a template's text, before they are compared."""

    read: Decode
    read_template: Decode


_ESCAPE: Final = re.compile("%[0-9A-Fa-f]{2}")


def read_decoding(text: str) -> str:
    """Decodes every escape once, like aiohttp's router and Go's ServeMux."""
    return unquote_to_bytes(text).decode(errors="surrogateescape")


def read_literally(text: str) -> str:
    """Leaves everything as it came, like routers with regular expressions."""
    return text


def read_in_one_case(text: str) -> str:
    """As `read_literally`, but for the case of the hexadecimal digits."""
    return _ESCAPE.sub(lambda escape: escape[0].upper(), text)


def read_twice(text: str) -> str:
    """Decodes once more what was decoded: a careless proxy in front of a reader that decodes."""
    return unquote_to_bytes(unquote_to_bytes(text)).decode(errors="surrogateescape")


def spell_plainly(text: str) -> str:
    """A template's text as a client would send it that escapes only what it must."""
    return quote(unquote_to_bytes(text), safe="-._~!$&'()*+,:=@")


def decoding_only(characters: str) -> Decode:
    """A reader that decodes the escapes of some characters, and leaves the others."""

    def read(text: str) -> str:
        def decode(escape: re.Match[str]) -> str:
            character = chr(int(escape[0][1:], 16))
            return character if character in characters else escape[0].upper()

        return _ESCAPE.sub(decode, text)

    return read


READERS: Final = {
    "decoding": Reader(read_decoding, read_decoding),
    "literal": Reader(read_literally, read_literally),
    "literal, in one case": Reader(read_in_one_case, read_in_one_case),
    "literal, with decoded templates": Reader(read_literally, spell_plainly),
    "decoding twice": Reader(read_twice, read_decoding),
    **{
        f"decoding {characters} alone": Reader(decoding_only(characters), decoding_only(characters))
        for characters in ("@$", ":,", "!$&'()*+,=")
    },
}


@dataclass(frozen=True, slots=True)
class Template:
    """A resource's template: segments of text and of names (None), and whether a rest follows."""

    segments: tuple[tuple[str | None, ...], ...]
    takes_rest: bool = False

    def write(self) -> str:
        """As the catalog has it."""
        numbers = iter(range(100))
        parts = [
            "".join(f"{{n{next(numbers)}}}" if it is None else it for it in segment)
            for segment in self.segments
        ]
        return "/" + "/".join([*parts, "*"] if self.takes_rest else parts)

    def rank(self, path: Sequence[str], reader: Reader) -> tuple[object, ...] | None:
        """How well it fits the segments below the base path; None when it does not."""
        ahead = len(path) - len(self.segments)
        if ahead < 0 or (ahead and not self.takes_rest):
            return None
        ranks: list[tuple[object, ...]] = []
        for segment, sent in zip(self.segments, path, strict=False):
            rank = _rank(segment, reader.read(sent), reader)
            if rank is None:
                return None
            ranks.append(rank)
        return (*ranks, (3,)) if self.takes_rest else tuple(ranks)


def _rank(segment: tuple[str | None, ...], sent: str, reader: Reader) -> tuple[object, ...] | None:
    texts = [reader.read_template(_spell(it)) if it is not None else None for it in segment]
    expression = "".join("(?s:.+)" if it is None else re.escape(it) for it in texts)
    if re.fullmatch(expression, sent) is None:
        return None
    if None not in segment:
        return (0,)
    if segment == (None,):
        return (2,)
    # Of what the catalog means by the texts, not of how a reader reads them.
    before, *between, after = "".join(
        "\0" if it is None else read_decoding(_spell(it)) for it in segment
    ).split("\0")
    fixed = len(before) + sum(map(len, between)) + len(after)
    return 1, -fixed, -len(before), before, between, after


def _spell(text: str) -> str:
    """What a client would send for a template's text, which may be written with other letters."""
    return quote(text, safe="%-._~!$&'()*+,;=:@")


@dataclass(frozen=True, slots=True)
class Served:
    """An API: its base path, which has no slash at its end, and its templates."""

    base_path: str
    templates: tuple[Template, ...]


Place = tuple[int, int]
"""Which API it is, and which of its templates."""


def find_by_path(apis: Sequence[Served], target: str, reader: Reader) -> Place | None:
    """Where a reader sends a target: the longest base path first, then the best template."""
    path = target[1:].split("/")
    fitting = [
        (len(rest), number)
        for number, api in enumerate(apis)
        if (rest := _cut(path, api.base_path, reader)) is not None
    ]
    if not fitting:
        return None
    left, number = min(fitting)
    return _find_best(apis, number, path[len(path) - left :], reader)


def find_below(
    apis: Sequence[Served], number: int, target: str, reader: Reader, *, has_base_path: bool
) -> Place | None:
    """The same for a service that has one API alone, and gets its base path or not."""
    rest: list[str] | None = target[1:].split("/")
    if has_base_path:
        rest = _cut(target[1:].split("/"), apis[number].base_path, reader)
    return None if rest is None else _find_best(apis, number, rest, reader)


def _cut(path: list[str], base_path: str, reader: Reader) -> list[str] | None:
    base = base_path.split("/")[1:]
    begins = [*map(reader.read, path[: len(base)])]
    return path[len(base) :] if begins == [*map(reader.read_template, base)] else None


def _find_best(
    apis: Sequence[Served], number: int, rest: list[str], reader: Reader
) -> Place | None:
    if rest == [""]:
        rest = []
    ranked = [
        (rank, place)
        for place, template in enumerate(apis[number].templates)
        if (rank := template.rank(rest, reader)) is not None
    ]
    return (number, min(ranked)[1]) if ranked else None


def spell_in_every_way(text: str, characters: str) -> list[str]:
    """A text with each of some characters as it is, and as an escape in either case."""
    choices = [(it, _escape(it), _escape(it).lower()) if it in characters else (it,) for it in text]
    return ["".join(choice) for choice in product(*choices)]


def _escape(character: str) -> str:
    return "".join(f"%{octet:02X}" for octet in character.encode())
