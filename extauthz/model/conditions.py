"""Conditions on a request, for limits that hold only for some requests.

A condition on an address asks whether the client's address lies in a range; one on a text,
whether a pattern is found in a header, a query parameter or a claim. A value that is missing,
empty or longer than `LONGEST_VALUE` does not fit. `invert` turns the answer round, also that
one: nobody leaves an inverted condition by leaving something out.

Patterns are RE2's. They meet values that clients choose, and `re` can be made to take minutes
on thirty characters of those; no check of a pattern tells this reliably. RE2 needs time linear
in the value and bounded memory, for every pattern that it takes; in return it has no
back-references and no look-around.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

import re2

LONGEST_VALUE: Final = 4096
"""In characters. What is searched for each request is bounded."""

_OPTIONS: Final = re2.Options()
_OPTIONS.max_mem = 1 << 20
"""Bytes for each pattern. One that needs more is refused when it is read."""
_OPTIONS.log_errors = False


class TextSource(Enum):
    """Where a text stands. The value is the word used in a catalog."""

    HEADER = "header"
    QUERY = "query"
    CLAIM = "claim"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A regular expression in RE2's syntax, found anywhere in a text unless it has anchors.

    Raises:
        ValueError: RE2 does not take it; the message says why, and shows nothing of it.
    """

    text: str
    _compiled: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        try:
            compiled = re2.compile(_encode(self.text), _OPTIONS)
        except re2.error as exc:
            # Behind the colon stands a part of the pattern, which may have strayed there.
            kind = bytes(exc.args[0]).decode("ascii", "replace").partition(": ")[0]
            raise ValueError(kind) from exc
        object.__setattr__(self, "_compiled", compiled)

    def is_in(self, value: str) -> bool:
        """Whether it is found in a value."""
        return self._compiled.search(_encode(value)) is not None


def _encode(text: str) -> bytes:
    # Header values may hold lone surrogates where bytes were not UTF-8.
    return text.encode("utf-8", "surrogatepass")


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressCondition:
    """Fits clients whose address lies between two, both included.

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
