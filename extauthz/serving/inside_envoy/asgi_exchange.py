"""One gRPC call on ASGI: reads its messages, and writes its answers and status.

An exchange can be ended from outside, once: by its deadline, by its caller, or by the stop of the
service. While the handler runs, its task is cancelled. While a message is still arriving, the
status is sent at once instead, and the server then ends the exchange: a waiting `receive` or `send`
is never cancelled, because not every server supports that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from math import inf
from typing import Any, Final

from extauthz.ports import Deadline
from extauthz.serving.door import SLOW
from extauthz.serving.inside_envoy.asgi_open import OpenCalls
from extauthz.serving.inside_envoy.grpc_wire import (
    FrameReader,
    find_only_message,
    write_frame,
    write_status,
)
from extauthz.serving.methods import RpcCode, RpcFailure

LOOK_S: Final = 0.05
"""When a handler takes longer than this, the server is asked whether its caller is still there."""
MAX_PAUSE_S: Final = 1.0

_CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_START: Final = {
    "type": "http.response.start",
    "status": 200,
    "headers": [_CONTENT_TYPE],
    "trailers": True,
}
_OK: Final = write_status(RpcCode.OK)
_END_OK: Final = {"type": "http.response.trailers", "headers": _OK}
_LATE: Final = RpcFailure(RpcCode.DEADLINE_EXCEEDED, "the deadline passed")
_SLOW: Final = RpcFailure(RpcCode.DEADLINE_EXCEEDED, SLOW)


class CallerGone(Exception):
    """The caller has closed the call, or its connection."""


class Exchange:
    """One call. It must be made in the call's own task."""

    __slots__ = (
        "_arrive_by_s",
        "_arriving",
        "_closing",
        "_deadline_s",
        "_ended",
        "_finished",
        "_max_message_bytes",
        "_open",
        "_pending",
        "_receive",
        "_request_ended",
        "_send",
        "_started",
        "_status",
        "_task",
        "_ticked",
        "_watch",
        "due_s",
    )

    def __init__(
        self,
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
        open_calls: OpenCalls[Exchange],
        *,
        max_message_bytes: int,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._receive = receive
        self._send = send
        self._open = open_calls
        self._max_message_bytes = max_message_bytes
        self.due_s = self._deadline_s = self._arrive_by_s = inf
        self._arriving = True
        self._request_ended = False
        self._started = False
        self._finished = False
        self._ended = False
        self._status: RpcFailure | None = None
        self._ticked = False
        self._watch: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._pending: asyncio.Future[dict[str, Any]] | None = None

    # Requests

    async def read_only_message(self, deadline: Deadline, within_s: float) -> bytes:
        """Reads the single message of a unary call, until the caller has ended its side.

        Args:
            deadline: that of the whole call.
            within_s: the seconds in which the message must arrive, also when the deadline is later.

        Raises:
            RpcFailure: there is no message, more than one, or a malformed one.
            CallerGone: the caller has closed the call, or the status was sent already.
        """
        now_s = time.monotonic()
        self._arrive_by_s = now_s + within_s
        self._set_due(deadline, now_s)
        event = await self._next_request()
        message = None
        if not event.get("more_body", False):
            message = find_only_message(event["body"], self._max_message_bytes)
        if message is None:
            message = await self._read_split_message(event)
        self._arriving = False
        self._end_request()
        return message

    async def _read_split_message(self, event: dict[str, Any]) -> bytes:
        """Does the same for anything but one well-formed frame in one event."""
        frames = FrameReader(self._max_message_bytes)
        message = None
        while True:
            frames.feed(event["body"])
            if message is None:
                message = frames.find_message()
            if message is not None and frames.has_rest:
                raise RpcFailure(RpcCode.INTERNAL, "more than one message in a call that takes one")
            if not event.get("more_body", False):
                break
            event = await self._next_request()
        frames.check_end()
        if message is None:
            raise RpcFailure(RpcCode.INTERNAL, "no message in a call that takes one")
        return message

    async def _next_request(self) -> dict[str, Any]:
        event = await self._receive()
        if self._ended or event["type"] == "http.disconnect":
            raise CallerGone
        return event

    async def read_messages(self, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        """Yields the messages of a client stream; ends when the caller has closed the call.

        Raises:
            RpcFailure: a message is malformed.
        """
        self._arriving = False
        self._set_due(deadline, time.monotonic())
        frames = FrameReader(self._max_message_bytes)
        while True:
            message = frames.find_message()
            if message is not None:
                yield message
                continue
            if self._request_ended:
                frames.check_end()
                return
            event = await self._next_event()
            if event["type"] == "http.disconnect":
                self.end(None)
                return
            frames.feed(event["body"])
            if not event.get("more_body", False):
                self._end_request()

    async def _next_event(self) -> dict[str, Any]:
        """Awaits the next event of `receive`. When this is cancelled, no event is lost."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
        event = await asyncio.shield(self._pending)
        self._pending = None
        return event

    # Answers

    async def answer(self, message: bytes) -> None:
        """Sends the single answer and the status OK."""
        self._finished = True
        # The other calls of this turn of the loop are decided first, so that all answers are sent
        # together: the server wakes up once instead of once for each.
        await asyncio.sleep(0)
        body = {"type": "http.response.body", "body": write_frame(message), "more_body": False}
        try:
            if not self._started:
                await self._send(_START)
            await self._send(body)
            await self._send(_END_OK)
        except OSError as exc:  # by the ASGI specification: the connection is closed
            raise CallerGone from exc

    async def stream(self, messages: AsyncGenerator[bytes, None]) -> None:
        """Sends answers as they come, no faster than the caller reads, and the status OK.

        Raises:
            CallerGone: the caller has closed the call.
        """
        async with aclosing(messages):
            async for message in messages:
                if not self._started:
                    await self._start()
                await self._write(write_frame(message), more=True)
        self._finished = True
        await self._end_stream(_OK)

    async def fail(self, failure: RpcFailure) -> None:
        """Sends the status that the call ends with."""
        if self._finished:
            return
        self._finished = True
        status = write_status(failure.code, failure.message)
        if failure.code is RpcCode.UNIMPLEMENTED:
            status.append((b"grpc-accept-encoding", b"identity"))
        try:
            if self._started:
                await self._end_stream(status)
            else:
                headers = [_CONTENT_TYPE, *status]
                await self._send({"type": "http.response.start", "status": 200, "headers": headers})
                await self._write(b"", more=False)
        except (OSError, CallerGone):
            return

    async def open_answer(self) -> None:
        """Sends the headers of the answer now, before there is an answer.

        Raises:
            CallerGone: the caller has closed the call.
        """
        await self._start()
        await self._write(b"", more=True)  # servers hold the headers back until there is a body

    async def _start(self) -> None:
        self._started = True
        await self._send(_START)

    async def _end_stream(self, status: list[tuple[bytes, bytes]]) -> None:
        if not self._started:
            await self._start()
        await self._write(b"", more=False)
        await self._send({"type": "http.response.trailers", "headers": status})

    async def _write(self, body: bytes, *, more: bool) -> None:
        sending = self._send({"type": "http.response.body", "body": body, "more_body": more})
        try:
            if more:
                await asyncio.shield(sending)
            else:
                await sending
        except OSError as exc:  # by the ASGI specification: the connection is closed
            raise CallerGone from exc

    # Ends

    def end(self, status: RpcFailure | None) -> None:
        """Ends the call from outside; `status` is None when its caller is gone."""
        if self._ended or self._finished:
            return
        self._ended = True
        self._status = status
        if not self._arriving:
            self._task.cancel()
        elif status is not None:
            self._closing = asyncio.create_task(self.fail(status))

    async def was_ended(self) -> bool:
        """Whether `end` has cancelled the task; if so, sends its status."""
        if not self._ended:
            return False
        self._task.uncancel()
        with suppress(asyncio.CancelledError):
            # The cancellation of the current task is raised only at its next await, and `uncancel`
            # withdraws it only since Python 3.13.
            await asyncio.sleep(0)
        if self._status is not None:
            await self.fail(self._status)
        return True

    def close(self) -> None:
        """Releases what still waits. The exchange cannot be used afterwards."""
        self._finished = True
        self.due_s = inf
        if self._watch is not None:
            self._watch.cancel()

    def _end_request(self) -> None:
        self._request_ended = True
        if self._ticked:
            self.due_s = min(self._deadline_s, time.monotonic() + LOOK_S)
            self._open.hasten(self.due_s)

    def _set_due(self, deadline: Deadline, now_s: float) -> None:
        due_s = now_s + LOOK_S
        if deadline.monotonic_s is not None:
            self._deadline_s = deadline.monotonic_s
            due_s = min(due_s, deadline.monotonic_s)
        self.due_s = due_s
        self._open.hasten(due_s)

    def tick(self, now_s: float) -> None:
        """See `extauthz.serving.inside_envoy.asgi_open.Timed`."""
        self._ticked = True
        self.due_s = inf
        if now_s >= self._deadline_s:
            self.end(_LATE)
        elif self._arriving and now_s >= self._arrive_by_s:
            self.end(_SLOW)
        else:
            if self._request_ended and self._watch is None:
                self._watch = asyncio.create_task(self._watch_caller())
            self.due_s = self._deadline_s
            if self._arriving:
                self.due_s = min(self.due_s, self._arrive_by_s)

    async def _watch_caller(self) -> None:
        pause_s = LOOK_S
        while (await self._next_event())["type"] != "http.disconnect":
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
        self.end(None)
