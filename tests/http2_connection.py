"""One HTTP/2 connection of frames, for callers that no library would be: slow, silent, rude."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from typing import Any, Final

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEAD_BYTES: Final = 9


class Http2Connection:
    """Opened by `open`, closed by `close`. Reads all the time, and gives back the windows.

    Attributes:
        statuses: ``(grpc-status, grpc-message)`` by stream, once a call has ended; a call that was
            reset has ``("reset", <the error's number>)``.
        closed: set when the other side has gone.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.statuses: dict[int, tuple[str, str]] = {}
        self.closed = asyncio.Event()
        self._changed = asyncio.Event()
        self._encoder, self._decoder = Encoder(), Decoder()
        self._next_stream = 1
        self._pongs = 0
        self._reading: asyncio.Task[None] | None = None

    @classmethod
    async def open(
        cls,
        address: str,
        *,
        first: bytes | None = None,
        settings: dict[int, int] | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Http2Connection:
        """Connects to ``host:port``, and sends the preface and settings, or only `first`."""
        host, _, port = address.rpartition(":")
        connection = cls(*await asyncio.open_connection(host, port, ssl=tls))
        if first is None:
            first = PREFACE + SettingsFrame(0, settings=settings or {}).serialize()
        connection._writer.write(first)
        connection._reading = asyncio.create_task(connection._read())
        return connection

    async def close(self) -> None:
        """Goes without a word."""
        self._writer.transport.abort()
        if self._reading is not None:
            await self._reading

    def begin(self, path: str, body: bytes | None = None, *, ends: bool = False) -> int:
        """Begins a call, with some of its message or none; gives its stream."""
        stream = self._next_stream
        self._next_stream += 2
        fields = [
            (":method", "POST"),
            (":scheme", "http"),
            (":path", path),
            (":authority", "a"),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ]
        headers = HeadersFrame(stream, self._encoder.encode(fields), flags=["END_HEADERS"])
        self._writer.write(headers.serialize())
        if body is not None:
            self.send(stream, body, ends=ends)
        return stream

    def send(self, stream: int, body: bytes, *, ends: bool = False) -> None:
        """Sends more of a call's message."""
        self._writer.write(
            DataFrame(stream, body, flags=["END_STREAM"] if ends else []).serialize()
        )

    def write(self, *frames: Frame) -> None:
        """Sends frames as they are."""
        self._writer.write(b"".join(frame.serialize() for frame in frames))

    @property
    def open_calls(self) -> int:
        """Calls that have begun and not ended."""
        return self._next_stream // 2 - len(self.statuses)

    async def was_read(self) -> None:
        """Returns when the other side has read all that was sent, or has gone."""
        pongs = self._pongs
        self.write(PingFrame(0, opaque_data=b"wasread?"))
        with suppress(ConnectionError):
            await self._writer.drain()
        while self._pongs == pongs and not self.closed.is_set():
            await self._wait_for_change()

    async def wait_for_status(self, stream: int) -> tuple[str, str]:
        """How the call ended.

        Raises:
            ConnectionError: the other side has gone before.
        """
        while stream not in self.statuses:
            if self.closed.is_set():
                raise ConnectionError("the connection was closed")
            await self._wait_for_change()
        return self.statuses[stream]

    async def _wait_for_change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _read(self) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await self._reader.readexactly(_HEAD_BYTES)
                frame, length = Frame.parse_frame_header(memoryview(head))
                frame.parse_body(memoryview(await self._reader.readexactly(length)))
                self._take(frame)
                self._changed.set()
        self.closed.set()
        self._changed.set()

    def _take(self, frame: Any) -> None:
        match frame:
            case HeadersFrame():
                fields = dict(self._decoder.decode(frame.data, raw=True))
                status = fields.get(b"grpc-status")
                if status is not None:
                    message = fields.get(b"grpc-message", b"")
                    self.statuses[frame.stream_id] = status.decode(), message.decode()
            case RstStreamFrame():
                self.statuses.setdefault(frame.stream_id, ("reset", str(frame.error_code)))
            case DataFrame() if frame.flow_controlled_length:
                self.write(WindowUpdateFrame(0, window_increment=frame.flow_controlled_length))
            case SettingsFrame() if "ACK" not in frame.flags:
                self.write(SettingsFrame(0, flags=["ACK"]))
            case PingFrame() if "ACK" in frame.flags:
                self._pongs += 1
            case PingFrame():
                self.write(PingFrame(0, opaque_data=frame.opaque_data, flags=["ACK"]))
