"""Defines conditions on a request, for limits that apply only to some requests.

An address condition fits when the client's address lies in a range; a text condition fits when a
pattern is found in a header, a query parameter or a claim. A value that is missing, empty or longer
than `LONGEST_VALUE` does not fit. `invert` negates the result in these cases, too: a client cannot
escape an inverted condition by leaving a value out.

Patterns are in RE2's syntax, because they are applied to values that clients choose. With `re`,
thirty such characters can take minutes, and no check of a pattern excludes that reliably. RE2 takes
time linear in the value and bounded memory; it has no back-references and no look-around.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import re2

LONGEST_VALUE: Final = 4096
"""Characters of a value that is searched; a longer one does not fit."""

_OPTIONS: Final = re2.Options()
_OPTIONS.max_mem = 1 << 20
"""Bytes of memory for each pattern. One that needs more is refused when it is read."""
_OPTIONS.log_errors = False


class TextSource(Enum):
    """Where a text is taken from. The value is the word used in a catalog."""

    HEADER = "header"
    QUERY = "query"
    CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression in RE2's syntax, found anywhere in a text unless it has anchors.

    Raises:
        ValueError: RE2 does not accept it; the message says why and does not quote the pattern.
    """

    text: str
    _compiled: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            compiled = re2.compile(_encode(self.text), _OPTIONS)
        except re2.error as exc:
            # The text after the colon quotes the pattern, which may hold a secret by mistake.
            kind = bytes(exc.args[0]).decode("ascii", "replace").partition(": ")[0]
            raise ValueError(kind) from exc
        object.__setattr__(self, "_compiled", compiled)

    def is_in(self, value: str) -> bool:
        """Whether the pattern is found in a value."""
        return self._compiled.search(_encode(value)) is not None


def _encode(text: str) -> bytes:
    # Header values may hold lone surrogates where bytes were not UTF-8.
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressCondition:
    """Fits clients whose address lies between two addresses, both included.

    Attributes:
        family: 4 or 6; an IPv4-mapped IPv6 address is IPv4.
        first, last: addresses as numbers.
    """

    family: int
    first: int
    last: int
    invert: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TextCondition:
    """Fits requests in whose header, query parameter or claim `name` the pattern is found.

    Attributes:
        name: lower-case for a header.
    """

    source: TextSource
    name: str
    pattern: Pattern
    invert: bool = False


Condition = AddressCondition | TextCondition
