"""Takes a message of Envoy's gRPC access log (ALS v3) apart, one entry after the other.

A message of 4 MiB may have two million entries: all of them at once would hold up decisions for a
tenth of a second. So only the few fields of the message itself are read when it comes, of which
there are `MAX_FIELDS` at most. What is in them is found step by step, whenever the next is asked for.

Sources: envoy/service/accesslog/v3/als.proto; protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.message import DecodeError

from extauthz.envoy.proto.access_log_pb2 import StreamAccessLogsMessage
from extauthz.errors import MalformedRequest
from extauthz.model.request import read_field_value

MAX_FIELDS: Final = 16
"""Envoy sends two."""
MAX_IDENTIFIER_BYTES: Final = 262_144
"""Of what an Envoy says of itself. The metadata of a node in a mesh has some kilobytes."""
MAX_PROXY: Final = 256

_IDENTIFIER, _HTTP_LOGS, _TCP_LOGS = 1, 2, 3
_LOG_ENTRY: Final = 1
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MOST_SHIFTED: Final = 63


class LogMessage:
    """One message of a stream of access logs.

    Attributes:
        proxy: id of the Envoy that sends the stream; only its first message has it.
    """

    __slots__ = ("_data", "_logs", "proxy")

    def __init__(self, data: bytes) -> None:
        """Reads a serialised envoy.service.accesslog.v3.StreamAccessLogsMessage, but no entry.

        Raises:
            MalformedRequest: the bytes are no such message.
        """
        self.proxy = ""
        self._data = data
        self._logs: list[tuple[int, int, int]] = []
        for number, (field, start, end) in enumerate(_walk(data, 0, len(data)), 1):
            if number > MAX_FIELDS:
                raise _malformed()
            if field == _IDENTIFIER:
                self.proxy = _read_proxy(data[start:end])
            elif field in (_HTTP_LOGS, _TCP_LOGS):
                self._logs.append((field, start, end))

    def __len__(self) -> int:
        """Its size in bytes."""
        return len(self._data)

    def entries(self) -> Iterator[bytes | None]:
        """Each HTTPAccessLogEntry, serialised, and None in the place of anything else.

        Raises:
            MalformedRequest: from here on, there are no entries.
        """
        for kind, start, end in self._logs:
            for field, from_, until in _walk(self._data, start, end):
                is_http = kind == _HTTP_LOGS and field == _LOG_ENTRY
                yield self._data[from_:until] if is_http else None


def _walk(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The number of each field, and where its bytes begin and end; nothing for those of a number."""
    while at < end:
        tag, at = _read_varint(data, at, end)
        kind, start = tag & 7, at
        if kind == _BYTES:
            size, start = _read_varint(data, at, end)
            at = start + size
        elif kind == _VARINT:
            _, at = _read_varint(data, at, end)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise _malformed()
        if at > end or tag < 8:
            raise _malformed()
        yield (tag >> 3 if kind == _BYTES else 0), start, at


def _read_varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    number = shift = 0
    while at < end and shift <= _MOST_SHIFTED:
        byte = data[at]
        at += 1
        if byte < 128:
            return number | byte << shift, at
        number |= (byte & 127) << shift
        shift += 7
    raise _malformed()


def _read_proxy(identifier: bytes) -> str:
    if len(identifier) > MAX_IDENTIFIER_BYTES:
        raise MalformedRequest(
            f"the node of the message has more than {MAX_IDENTIFIER_BYTES} bytes"
        )
    try:
        node = StreamAccessLogsMessage.Identifier.FromString(identifier).node
    except DecodeError as exc:
        raise _malformed() from exc
    return read_field_value(node.id[: 4 * MAX_PROXY])[:MAX_PROXY]


def _malformed() -> MalformedRequest:
    return MalformedRequest("the message is not a StreamAccessLogsMessage (ALS v3)")
