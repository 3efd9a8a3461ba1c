"""gRPC over HTTP/2 as bytes and headers: frames, time-outs, metadata and statuses.

Pure reading and writing; what is wrong on the wire is an RpcFailure that says so.
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
    """Whether the content type is gRPC's, with messages that are protobuf or do not say."""
    return (
        content_type in _CONTENT_TYPES
        or content_type.partition(b";")[0].strip().lower() in _CONTENT_TYPES
    )


def read_timeout_s(value: bytes) -> float:
    """How long the caller waits, of ``grpc-timeout``: up to 8 digits and a unit.

    Raises:
        RpcFailure: INTERNAL for anything else.
    """
    seen = _TIMEOUT.fullmatch(value)
    if seen is None:
        raise RpcFailure(RpcCode.INTERNAL, "grpc-timeout is not up to 8 digits and a unit")
    return int(seen[1]) * _UNITS_S[seen[2]]


def read_metadata(headers: Headers) -> Metadata:
    """What the caller sent beside the protocol's own headers, in the order of arrival.

    Names are in lower case already: HTTP/2 has no others. Values of ``-bin`` names are base64,
    with or without padding, and several may be joined by commas.

    Raises:
        RpcFailure: INTERNAL for a ``-bin`` value that is no base64.
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
    """The message as it goes on the wire: not compressed, its length in front."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def write_status(code: RpcCode, message: str = "") -> list[tuple[bytes, bytes]]:
    """The trailers that end a call."""
    trailers = [(b"grpc-status", b"%d" % code)]
    if message:
        trailers.append((b"grpc-message", quote(message, safe=_PRINTABLE).encode("ascii")))
    return trailers


def find_only_message(chunk: bytes, max_message_bytes: int) -> bytes | None:
    """The message when the chunk is one good frame and nothing else, as almost always."""
    length = len(chunk) - _PREFIX_BYTES
    if 0 <= length <= max_message_bytes and chunk.startswith(b"\0" + length.to_bytes(4, "big")):
        return chunk[_PREFIX_BYTES:]
    return None


class FrameReader:
    """Cuts what arrives into messages, wherever it is split; holds one message at most.

    Bytes that came along with a message and belong to the next ones are held too.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes
        self._held = bytearray()

    @property
    def has_rest(self) -> bool:
        """Whether bytes are held that no message was made of yet."""
        return bool(self._held)

    def feed(self, chunk: bytes) -> None:
        """Takes what arrived."""
        self._held += chunk

    def find_message(self) -> bytes | None:
        """The next whole message; None when more has to arrive first.

        Raises:
            RpcFailure: the message is compressed (UNIMPLEMENTED), too large
                (RESOURCE_EXHAUSTED; its bytes need not have arrived), or no frame (INTERNAL).
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
        """To be called when nothing more will arrive.

        Raises:
            RpcFailure: INTERNAL when the last message is not whole.
        """
        if self._held:
            raise RpcFailure(RpcCode.INTERNAL, "the last message is cut off")
