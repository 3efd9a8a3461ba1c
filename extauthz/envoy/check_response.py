"""Writes Envoy's CheckResponse (ext_authz v3) from plain values.

Rules:

- A header that identifies the caller to the upstream replaces what the client sent: it has both
  `append: false` (all that Envoy up to 1.36 reads) and `append_action:
  OVERWRITE_IF_EXISTS_OR_ADD` (Envoy 1.37.0 appends without it). An empty one is removed
  instead, since Envoy may drop an empty header and keep the client's.
- No name is both set and removed, because Envoy removes after it adds.
- Everything is checked before it is written: names are tokens (RFC 9110 5.6.2), values have no
  control characters, and all sizes are bounded. An allow that cannot be written raises an error. A
  denial is always sent: parts that cannot be written are left out.

The messages are encoded by hand, which takes less than half the time of the protobuf library's
builders. Parts that repeat from request to request are encoded once: header fields here, longer
parts by the callers. `ext_authz.proto` is the reference; the tests read every field back with two
other codecs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import isfinite
from struct import pack
from typing import Final, TypeAlias

from extauthz.answers.sendable import AnswerError, check_name, check_removed_name, check_value
from extauthz.envoy.protobuf_fields import write_field, write_varint

_ANOTHER_EACH_TIME: Final = frozenset(
    {"ratelimit", "x-ratelimit-remaining", "x-ratelimit-reset", "retry-after"}
)
MAX_BODY_BYTES: Final = 4096
MAX_METADATA_CHARACTERS: Final = 1024
MAX_METADATA_ITEMS: Final = 64
"""Longer strings and lists are cut in dynamic metadata: it is for logs."""

MetadataValue: TypeAlias = "str | int | float | bool | Sequence[MetadataValue] | None"

_PATH: Final = re.compile(r"/[!-~]*")

# Tags: field number * 8 + 2 (length-delimited), + 0 (varint) or + 1 (eight bytes).
_STATUS: Final = b"\x0a"  # CheckResponse.status
_DENIED: Final = b"\x12"  # CheckResponse.denied_response
_OK: Final = b"\x1a"  # CheckResponse.ok_response
_METADATA: Final = b"\x22"  # CheckResponse.dynamic_metadata
_ERROR: Final = b"\x2a"  # CheckResponse.error_response
_CODE: Final = b"\x08"  # Status.code and HttpStatus.code
_HTTP_STATUS: Final = b"\x0a"  # DeniedHttpResponse.status
_HEADERS: Final = b"\x12"  # OkHttpResponse.headers and DeniedHttpResponse.headers
_BODY: Final = b"\x1a"  # DeniedHttpResponse.body
_TO_REMOVE: Final = b"\x2a"  # OkHttpResponse.headers_to_remove
_RESPONSE_HEADERS: Final = b"\x32"  # OkHttpResponse.response_headers_to_add
_HEADER: Final = b"\x0a"  # HeaderValueOption.header
_KEY: Final = b"\x0a"  # HeaderValue.key and the key of a map's entry
_VALUE: Final = b"\x12"  # HeaderValue.value and the value of a map's entry
_PATH_KEY: Final = b"\x0a\x05:path"
_OVERWRITE: Final = b"\x12\x00\x18\x02"  # append: false, append_action: OVERWRITE_IF_EXISTS_OR_ADD
_BESIDE: Final = b""  # append not set, append_action: APPEND_IF_EXISTS_OR_ADD (0)
_FIELDS: Final = b"\x0a"  # Struct.fields and ListValue.values
_NULL: Final = b"\x08\x00"  # Value.null_value
_NUMBER: Final = b"\x11"  # Value.number_value
_STRING: Final = b"\x1a"  # Value.string_value
_TRUE: Final = b"\x20\x01"  # Value.bool_value
_FALSE: Final = b"\x20\x00"
_LIST: Final = b"\x32"  # Value.list_value

_STATUS_OK: Final = b"\x0a\x00"
_PERMISSION_DENIED: Final = 7


def write_allow(
    *,
    set_headers: Sequence[tuple[str, str]] = (),
    remove_headers: Sequence[str] = (),
    response_headers: Sequence[tuple[str, str]] = (),
    metadata: bytes = b"",
) -> bytes:
    """A serialised CheckResponse that lets the request pass.

    Args:
        set_headers: replace the client's on the way to the upstream; ``:path`` rewrites the
            path. A name without value is removed.
        remove_headers: do not reach the upstream, unless they are set.
        response_headers: replace the upstream's on the way to the client; of a name that
            comes again, and of ``set-cookie``, all stand side by side.
        metadata: from `write_metadata`.

    Raises:
        AnswerError: a name or value that no header may have. The request must not pass then.
    """
    changes = write_header_changes(set_headers, remove_headers)
    return write_allow_from(changes, response_headers, metadata)


def write_header_changes(
    set_headers: Sequence[tuple[str, str]], remove_headers: Sequence[str]
) -> bytes:
    """The part of an allow that changes the request's headers; see `write_allow`.

    Raises:
        AnswerError: a name or value that no header may have. The request must not pass then.
    """
    names = {name.lower() for name, _ in set_headers}
    parts = [_set_header(name, value) for name, value in set_headers]
    parts += [_remove_header(name) for name in remove_headers if name.lower() not in names]
    return b"".join(parts)


def write_allow_from(
    header_changes: bytes, response_headers: Sequence[tuple[str, str]], metadata: bytes
) -> bytes:
    """As `write_allow`, with what `write_header_changes` gave."""
    parts = [header_changes, *_response_headers(_RESPONSE_HEADERS, response_headers)]
    return _STATUS_OK + write_field(_OK, b"".join(parts)) + _metadata(metadata)


def write_deny(
    *,
    http_status: int,
    rpc_code: int,
    headers: Sequence[tuple[str, str]] = (),
    body: str = "",
    metadata: bytes = b"",
) -> bytes:
    """A serialised CheckResponse that answers the client in the upstream's place.

    Never fails, since a denial that is not sent may let the request pass (Envoy's
    `failure_mode_allow`). Headers that cannot be written are left out, a long body is cut,
    a status outside 300 to 599 becomes 403, and an RPC code that would allow becomes 7.
    """
    return _refusal(_DENIED, http_status, rpc_code, headers, body, metadata)


def write_error(
    *,
    http_status: int,
    rpc_code: int,
    headers: Sequence[tuple[str, str]] = (),
    body: str = "",
    metadata: bytes = b"",
) -> bytes:
    """A serialised CheckResponse for a request without a decision; never fails.

    For Envoy 1.37 and newer, which then applies `failure_mode_allow`, or answers the client
    with this status, headers and body. An older one answers 403.
    """
    return _refusal(_ERROR, http_status, rpc_code, headers, body, metadata)


def write_metadata(fields: Mapping[str, MetadataValue]) -> bytes:
    """A serialised google.protobuf.Struct for the `metadata` of an answer.

    Numbers become doubles (exact up to 2**53). NaN and infinity, which JSON cannot say,
    become null. Strings are cut at MAX_METADATA_CHARACTERS,
    lists at MAX_METADATA_ITEMS.
    """
    return b"".join([write_entry(name, value) for name, value in fields.items()])


def write_entry(name: str, value: MetadataValue) -> bytes:
    """One field of `write_metadata`."""
    return write_field(_FIELDS, _entry_key(name) + write_field(_VALUE, _value(value)))


def write_short_text(name: str, text: str) -> bytes:
    """As `write_entry`; quicker for text of up to 64 ASCII characters under a short name."""
    key, size = _entry_key(name), len(text)
    if size > 64 or len(key) > 56 or not text.isascii():
        return write_entry(name, text)
    return b"\x0a%c%b\x12%c\x1a%c%b" % (len(key) + size + 4, key, size + 2, size, text.encode())


def write_number(name: str, number: float) -> bytes:
    """As `write_entry`, and quicker, for a number that is finite."""
    return _before_number(name) + pack("<d", number)


@lru_cache(maxsize=256)
def _before_number(name: str) -> bytes:
    return write_entry(name, 0.0)[:-8]


@lru_cache(maxsize=256)
def _entry_key(name: str) -> bytes:
    return write_field(_KEY, name.encode(errors="replace"))


def _refusal(
    tag: bytes,
    http_status: int,
    rpc_code: int,
    headers: Sequence[tuple[str, str]],
    body: str,
    metadata: bytes,
) -> bytes:
    code = rpc_code if 0 < rpc_code <= 16 else _PERMISSION_DENIED
    status = http_status if 300 <= http_status <= 599 else 403
    parts = [write_field(_HTTP_STATUS, _CODE + write_varint(status))]
    parts += _response_headers(_HEADERS, headers, leave_out_bad=True)
    if body:
        parts.append(write_field(_BODY, _cut(body)))
    return (
        write_field(_STATUS, _CODE + write_varint(code))
        + write_field(tag, b"".join(parts))
        + _metadata(metadata)
    )


def _metadata(metadata: bytes) -> bytes:
    return write_field(_METADATA, metadata) if metadata else b""


def _set_header(name: str, value: str) -> bytes:
    if not value:
        return _remove_header(name)
    if name == ":path":
        if not _PATH.fullmatch(value):
            raise AnswerError("the value for ':path' is no path")
        return write_field(
            _HEADERS, write_field(_HEADER, _PATH_KEY + _header_value(name, value)) + _OVERWRITE
        )
    return _header_option(_HEADERS, name, value, _OVERWRITE)


@lru_cache(maxsize=256)
def _remove_header(name: str) -> bytes:
    return write_field(_TO_REMOVE, check_removed_name(name).encode())


def _response_headers(
    tag: bytes, fields: Sequence[tuple[str, str]], *, leave_out_bad: bool = False
) -> list[bytes]:
    parts = []
    seen = {"set-cookie"}
    for name, value in fields:
        lower = name.lower()
        how = _BESIDE if lower in seen else _OVERWRITE
        # Only texts that repeat are cached.
        write = _header_option if lower in _ANOTHER_EACH_TIME else _cached_header_option
        try:
            parts.append(write(tag, name, value, how))
        except AnswerError:
            if not leave_out_bad:
                raise
        else:
            seen.add(lower)
    return parts


def _header_option(tag: bytes, name: str, value: str, how: bytes) -> bytes:
    """A checked HeaderValueOption under a tag."""
    return write_field(
        tag, write_field(_HEADER, _header_key(name) + _header_value(name, value)) + how
    )


_cached_header_option = lru_cache(maxsize=2048)(_header_option)


@lru_cache(maxsize=256)
def _header_key(name: str) -> bytes:
    """A checked HeaderValue.key, in lower case."""
    return write_field(_KEY, check_name(name).encode())


def _header_value(name: str, value: str) -> bytes:
    """A checked HeaderValue.value."""
    return write_field(_VALUE, check_value(name, value))


def _cut(body: str) -> bytes:
    written = body.encode(errors="replace")
    if len(written) <= MAX_BODY_BYTES:
        return written
    return written[:MAX_BODY_BYTES].decode(errors="ignore").encode()


def _value(value: MetadataValue) -> bytes:
    """A google.protobuf.Value."""
    if isinstance(value, str):
        return write_field(_STRING, value[:MAX_METADATA_CHARACTERS].encode("utf-8", "replace"))
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, (int, float)):
        try:
            number = float(value)
        except OverflowError:
            return _NULL
        return _NUMBER + pack("<d", number) if isfinite(number) else _NULL
    if value is None:
        return _NULL
    return write_field(
        _LIST, b"".join([write_field(_FIELDS, _value(item)) for item in value[:MAX_METADATA_ITEMS]])
    )
