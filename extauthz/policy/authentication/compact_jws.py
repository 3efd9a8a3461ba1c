"""Splits and decodes a JWS in compact form (RFC 7515 3.1, 7.1).

Anybody may send one, so the work is done by functions that run in C.
"""

from __future__ import annotations

import binascii
import json
from typing import Any, Final, NamedTuple

import re2

MAX_HEADER_BYTES: Final = 8_192
"""Bytes of a header's JSON. The longest headers have a certificate chain (``x5c``)."""
MAX_HEADER_VALUES: Final = 64
MAX_UNSIGNED_VALUES: Final = 256
"""Values in claims that are read before the signature is verified."""

_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_BASE64: Final = bytes.maketrans(b"-_+/", b"+/\0\0")
_ENDS: Final = {0: _LETTERS, 2: _LETTERS[::16], 3: _LETTERS[::4]}
"""How a text may end, by its length modulo 4: no two texts may decode to the same bytes."""
_MOST_ISSUERS: Final = 4


class Parts(NamedTuple):
    """The three parts in base64url, and the signed text, which is the first two."""

    header: bytes
    payload: bytes
    signature: bytes
    signed: bytes


def take_apart(text: str) -> Parts | None:
    """Splits a compact JWS into its parts; None for any other text."""
    raw = text.encode("utf-8", "surrogatepass")
    if raw.translate(None, _LETTERS + b"=") != b"..":
        return None
    header, payload, signature = raw.split(b".")
    if not header or not payload:
        return None
    return Parts(header, payload, signature, raw[: len(header) + 1 + len(payload)])


def decode_base64url(text: bytes) -> bytes | None:
    """Decodes base64url with correct padding or none; None for anything else."""
    bare = text.rstrip(b"=")
    padding = -len(bare) % 4
    if len(text) - len(bare) not in (0, padding):
        return None
    if bare and bare[-1] not in _ENDS.get(len(bare) % 4, b""):
        return None
    try:
        return binascii.a2b_base64(bare.translate(_TO_BASE64) + b"=" * padding, strict_mode=True)
    except binascii.Error:
        return None


def has_more_values(raw: bytes, most: int) -> bool:
    """Whether JSON may hold more than `most` members, elements and levels; judged by a bound."""
    return len(raw) > most and len(raw) - len(raw.translate(None, b",[{")) > most


def find_issuer(raw: bytes) -> str | None:
    """Finds ``iss`` in the JSON of claims that are too many to be parsed; "" when there is none.

    It is searched at any depth, so it is certain only once the claims are parsed. None when there
    are several different values.
    """
    found: set[bytes] = set()
    at = raw.find(_NAME)
    for _ in range(_MOST_ISSUERS + 1):
        if at < 0:
            issuers = {_read_string(text) for text in found}
            return None if len(issuers) > 1 else "".join(issuers)
        member = None if raw[at - 1 : at] == b"\\" else _MEMBER.match(raw, at)
        if member is not None:
            found.add(raw[at : member.end()].partition(b":")[2])
        at = raw.find(_NAME, at + 1)
    return None


def _read_string(raw: bytes) -> str:
    try:
        value: Any = json.loads(raw)
    except ValueError:
        return ""
    return value if isinstance(value, str) else ""


def _compile() -> Any:
    options = re2.Options()
    options.encoding = re2.Options.Encoding.LATIN1  # octet by octet
    options.log_errors = False
    return re2.compile(_NAME + rb'\s*:\s*"(?:[^"\\]|\\.)*"', options)


_NAME: Final = b'"iss"'
_MEMBER: Final = _compile()
"""Inside a string, quotes are escaped with a backslash, so a match is always a member."""
