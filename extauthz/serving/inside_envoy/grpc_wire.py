"""Reads and writes gRPC's frames, timeouts, metadata and statuses on HTTP/2.

Nothing here does any I/O. A violation of the protocol raises an RpcFailure with its reason.
Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterable
from typing import Final, TypeAlias
from urllib.parse import quote

from extauthz.serving.methods import Metadata, RpcCode, RpcFailure

Headers: TypeAlias = Iterable[tuple[bytes, bytes]]

_PREFIX_BYTES: Final = 5
_TIMEOUT: Final = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS_S: Final = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_CONTENT_TYPES: Final = (b"application/grpc", b"application/grpc+proto")
_NOT_METADATA: Final = frozenset({b"te", b"content-type", b"host", b"connection"})
_PRINTABLE: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")


def is_grpc(content_type: bytes) -> bool:
    """Whether a content type is gRPC's, for protobuf or without a message format."""
    return (
        content_type in _CONTENT_TYPES
        or content_type.partition(b";")[0].strip().lower() in _CONTENT_TYPES
    )


def read_timeout_s(value: bytes) -> float:
    """Reads ``grpc-timeout``, up to 8 digits and a unit, as seconds.

    Raises:
        RpcFailure: INTERNAL for anything else.
    """
    seen = _TIMEOUT.fullmatch(value)
    if seen is None:
        raise RpcFailure(RpcCode.INTERNAL, "grpc-timeout is not up to 8 digits and a unit")
    return int(seen[1]) * _UNITS_S[seen[2]]


def read_metadata(headers: Headers) -> Metadata:
    """Reads the caller's metadata: all headers except the protocol's own, in their order.

    Names in HTTP/2 are always in lower case. Values of ``-bin`` names are base64, with or without
    padding, and several may be joined by commas.

    Raises:
        RpcFailure: INTERNAL for a ``-bin`` value that is not base64.
    """
    metadata: list[tuple[str, str | bytes]] = []
    for name, value in headers:
        if name in _NOT_METADATA or name.startswith((b"grpc-", b":")):
            continue
        if name.endswith(b"-bin"):
            metadata.extend((name.decode("latin-1"), raw) for raw in _read_binary(value))
        else:
            metadata.append((name.decode("latin-1"), value.decode("latin-1")))
    return tuple(metadata)


def _read_binary(value: bytes) -> Iterable[bytes]:
    for part in value.split(b","):
        text = part.strip().rstrip(b"=")
        try:
            yield base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
        except binascii.Error:
            raise RpcFailure(RpcCode.INTERNAL, "a -bin header is not base64") from None


def write_frame(message: bytes) -> bytes:
    """Writes the frame of a message: the flag for no compression, its length, and the message."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def write_status(code: RpcCode, message: str = "") -> list[tuple[bytes, bytes]]:
    """Writes the trailers that end a call."""
    trailers = [(b"grpc-status", b"%d" % code)]
    if message:
        trailers.append((b"grpc-message", quote(message, safe=_PRINTABLE).encode("ascii")))
    return trailers


def find_only_message(chunk: bytes, max_message_bytes: int) -> bytes | None:
    """The message of a chunk that is exactly one well-formed frame, as usual; otherwise None."""
    length = len(chunk) - _PREFIX_BYTES
    if 0 <= length <= max_message_bytes and chunk.startswith(b"\0" + length.to_bytes(4, "big")):
        return chunk[_PREFIX_BYTES:]
    return None


class FrameReader:
    """Splits a stream of chunks into messages. Chunks may begin and end anywhere.

    It buffers at most one incomplete message, and the chunks that `find_message` has not read yet.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._held = bytearray()

    @property
    def has_rest(self) -> bool:
        """Whether there are bytes that have not been returned as a message."""
        return bool(self._held)

    def feed(self, chunk: bytes) -> None:
        """Adds a chunk."""
        self._held += chunk

    def find_message(self) -> bytes | None:
        """Returns the next complete message; None when more bytes are needed.

        Raises:
            RpcFailure: the message is compressed (UNIMPLEMENTED), too large by its length prefix
                (RESOURCE_EXHAUSTED), or the frame is malformed (INTERNAL).
        """
        held = self._held
        if len(held) < _PREFIX_BYTES:
            return None
        if held[0] == 1:
            raise RpcFailure(RpcCode.UNIMPLEMENTED, "compressed messages are not read")
        if held[0] != 0:
            raise RpcFailure(RpcCode.INTERNAL, "the message's first byte is not a flag of gRPC's")
        length = int.from_bytes(held[1:_PREFIX_BYTES], "big")
        if length > self._max_message_bytes:
            raise RpcFailure(
                RpcCode.RESOURCE_EXHAUSTED,
                f"the message has {length} bytes; {self._max_message_bytes} are allowed",
            )
        end = _PREFIX_BYTES + length
        if len(held) < end:
            return None
        message = bytes(held[_PREFIX_BYTES:end])
        del held[:end]
        return message

    def check_end(self) -> None:
        """Checks at the end of the stream that nothing is left over.

        Raises:
            RpcFailure: INTERNAL when the last message is incomplete.
        """
        if self._held:
            raise RpcFailure(RpcCode.INTERNAL, "the last message is cut off")
