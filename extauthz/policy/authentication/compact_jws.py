"""A JWS in compact form, taken apart at the speed of C: anybody may send one (RFC 7515 3.1, 7.1)."""

from __future__ import annotations

import binascii
import json
from typing import Any, Final, NamedTuple

import re2

MAX_HEADER_BYTES: Final = 8_192
"""Of JSON. The longest ones bring a chain of certificates along (``x5c``), which is not read."""
MAX_HEADER_VALUES: Final = 64
MAX_UNSIGNED_VALUES: Final = 256
"""Of claims that are read before their signature was looked at."""

_LETTERS: Final = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_TO_BASE64: Final = bytes.maketrans(b"-_+/", b"+/\0\0")
_ENDS: Final = {0: _LETTERS, 2: _LETTERS[::16], 3: _LETTERS[::4]}
"""What may end a text, by its length modulo 4: two texts must not stand for the same bytes."""
_MOST_ISSUERS: Final = 4


class Parts(NamedTuple):
    """The three parts, in base64url, and what the signature is over: the first two."""

    header: bytes
    payload: bytes
    signature: bytes
    signed: bytes


def take_apart(text: str) -> Parts | None:
    """The parts of a compact form; None for any other text."""
    raw = text.encode("utf-8", "surrogatepass")
    if raw.translate(None, _LETTERS + b"=") != b"..":
        return None
    header, payload, signature = raw.split(b".")
    if not header or not payload:
        return None
    return Parts(header, payload, signature, raw[: len(header) + 1 + len(payload)])


def decode_base64url(text: bytes) -> bytes | None:
    """Bytes of base64url with correct padding or none; None for anything else."""
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
    """Whether JSON may hold more members, elements and levels than `most`: a bound, not a count."""
    return len(raw) > most and len(raw) - len(raw.translate(None, b",[{")) > most


def find_issuer(raw: bytes) -> str | None:
    """The ``iss`` of claims that are too many to be read now; "" when there is none.

    It is looked for at any depth, so it is not certain before the claims are read. None: there are
    several different ones, so nobody knows which one is meant.
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
"""Inside of a string a quote stands behind a backslash, so this is always a member."""
