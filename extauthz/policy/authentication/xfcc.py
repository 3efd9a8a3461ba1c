"""Reads Envoy's ``x-forwarded-client-cert`` field.

Source: Envoy's HTTP header documentation. Elements are separated by commas and hold ``Key=value``
pairs separated by semicolons; a value may stand in double quotes with ``\\"`` for a quote.
The last element describes the nearest client, and is the only one that our own proxy wrote. A
field that is longer than the bound is not used at all.
"""

from __future__ import annotations

import re
from typing import Final

MAX_XFCC_BYTES: Final = 16_384
MAX_PAIRS: Final = 64
"""Pairs of all elements. One has about six, and one more for each further certificate name."""
MAX_ESCAPED: Final = 64
_NAMES: Final = ("uri", "dns", "subject")
_PAIR: Final = re.compile(
    r'\s{0,8}([A-Za-z]{1,16})=("[^"\\]*(?:\\.[^"\\]*)*"|[^,;"]*)\s{0,8}([,;]|$)'
)


def read_xfcc(value: str) -> tuple[str, ...] | None:
    """The names of the nearest client certificate: URI SANs, DNS SANs, subject, in that order.

    None when the text is malformed or too long; empty when it has no names.

    >>> read_xfcc('By=spiffe://a;Hash=00;Subject="CN=c,O=o";URI=spiffe://b')
    ('spiffe://b', 'CN=c,O=o')
    """
    if len(value) > MAX_XFCC_BYTES or value.count("\\") > MAX_ESCAPED:
        return None
    names: dict[str, list[str]] = {}
    at = pairs = 0
    while at < len(value):
        pairs += 1
        if pairs > MAX_PAIRS:
            return None
        pair = _PAIR.match(value, at)
        if pair is None:
            return None
        names.setdefault(pair[1].lower(), []).append(_unquote(pair[2]))
        at = pair.end()
        if pair[3] == "," and at < len(value):
            names = {}
    return tuple(name for kind in _NAMES for name in names.get(kind, ()) if name)


def _unquote(text: str) -> str:
    # Only Cert and Chain are URL-encoded; decoding names could make two of them equal.
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text.startswith('"') else text
