"""One gRPC call on ASGI: its messages in, its answers and status out, and how it may be ended.

An exchange can be ended from outside, once: by its deadline, by its caller, or by the stop of
the service. While the handler runs, its task is cancelled. While a message still arrives, the
status is sent at once instead, and the server then says that the exchange is over: a `receive`
or `send` that waits is never cancelled, because not every server bears it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Any, Final

from extauthz.ports import Deadline
from extauthz.serving.grpc_wire import FrameReader, write_frame, write_status
from extauthz.serving.methods import RpcCode, RpcFailure

LOOK_S: Final = 0.05
"""A handler that takes longer than this is worth asking whether its caller is still there."""
MAX_PAUSE_S: Final = 1.0

_CONTENT_TYPE: Final = (b"content-type", b"application/grpc")
_OK: Final = write_status(RpcCode.OK)
_LATE: Final = RpcFailure(RpcCode.DEADLINE_EXCEEDED, "the deadline passed")
_SLOW: Final = RpcFailure(RpcCode.DEADLINE_EXCEEDED, "the message took too long to arrive")


class CallerGone(Exception):
    """There is nobody to answer any more."""


class Exchange:
    """One call, in the task that makes it."""

    __slots__ = (
        "_arrive_by_s",
        "_arriving",
        "_closing",
        "_deadline_s",
        "_ended",
        "_finished",
        "_frames",
        "_loop",
        "_pending",
        "_receive",
        "_request_ended",
        "_send",
        "_started",
        "_status",
        "_task",
        "_ticked",
        "_timer",
        "_watch",
    )

    def __init__(
        self,
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
        *,
        max_message_bytes: int,
    ) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._loop = asyncio.get_running_loop()
        self._receive = receive
        self._send = send
        self._frames = FrameReader(max_message_bytes)
        self._deadline_s: float | None = None
        self._arrive_by_s: float | None = None
        self._arriving = True
        self._request_ended = False
        self._started = False
        self._finished = False
        self._ended = False
        self._status: RpcFailure | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._ticked = False
        self._watch: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._pending: asyncio.Future[dict[str, Any]] | None = None

    # Requests

    async def read_only_message(self, deadline: Deadline, within_s: float) -> bytes:
        """The one message of a unary call, once the caller has ended its side.

        Args:
            deadline: of the whole call.
            within_s: by then the message must be there, whatever the deadline.

        Raises:
            RpcFailure: there is no message, or more than one, or no good one.
            CallerGone: nobody waits for an answer, or got one already.
        """
        self._arrive_by_s = time.monotonic() + within_s
        self._start_timer(deadline)
        frames, message = self._frames, None
        while True:
            event = await self._receive()
            if self._ended or event["type"] == "http.disconnect":
                raise CallerGone
            if message is None and not event.get("more_body", False) and not frames.has_rest:
                # As almost always: everything in one event.
                message = frames.find_only_message(event["body"])
                if message is not None:
                    break
            frames.feed(event["body"])
            if message is None:
                message = frames.find_message()
            if message is not None and frames.has_rest:
                raise RpcFailure(RpcCode.INTERNAL, "more than one message in a call that takes one")
            if not event.get("more_body", False):
                break
        frames.check_end()
        if message is None:
            raise RpcFailure(RpcCode.INTERNAL, "no message in a call that takes one")
        self._arriving = False
        self._end_request()
        return message

    async def read_messages(self, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        """The messages of a client stream, as they are asked for; ends early with the caller.

        Raises:
            RpcFailure: what arrived is no message.
        """
        self._arriving = False
        self._start_timer(deadline)
        while True:
            message = self._frames.find_message()
            if message is not None:
                yield message
                continue
            if self._request_ended:
                self._frames.check_end()
                return
            event = await self._next_event()
            if event["type"] == "http.disconnect":
                self.end(None)
                return
            self._frames.feed(event["body"])
            if not event.get("more_body", False):
                self._end_request()

    async def _next_event(self) -> dict[str, Any]:
        """What `receive` gives. Can be cancelled: what it was to give is kept for the next."""
        if self._pending is None:
            self._pending = asyncio.ensure_future(self._receive())
        event = await asyncio.shield(self._pending)
        self._pending = None
        return event

    # Answers

    async def answer(self, message: bytes) -> None:
        """Sends the one answer and status OK."""
        self._finished = True
        await self._start()
        await self._write(write_frame(message), more=False)
        await self._send({"type": "http.response.trailers", "headers": _OK})

    async def stream(self, messages: AsyncGenerator[bytes, None]) -> None:
        """Sends answers as they come, no faster than the caller reads, and status OK.

        Raises:
            CallerGone: nobody reads any more.
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

    async def _start(self) -> None:
        self._started = True
        await self._send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [_CONTENT_TYPE],
                "trailers": True,
            }
        )

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
        """Ends the call from outside, with a status, or without one when its caller is gone."""
        if self._ended or self._finished:
            return
        self._ended = True
        self._status = status
        if not self._arriving:
            self._task.cancel()
        elif status is not None:
            self._closing = self._loop.create_task(self.fail(status))

    async def was_ended(self) -> bool:
        """Whether it was this that cancelled the task; sends the status then."""
        if not self._ended:
            return False
        self._task.uncancel()
        with suppress(asyncio.CancelledError):
            # A task that cancelled itself has not been told yet, and `uncancel` takes that back
            # from Python 3.13 on only.
            await asyncio.sleep(0)
        if self._status is not None:
            await self.fail(self._status)
        return True

    def close(self) -> None:
        """Lets go of what waits. Nothing can be done with the exchange afterwards."""
        self._finished = True
        if self._timer is not None:
            self._timer.cancel()
        if self._watch is not None:
            self._watch.cancel()

    def _end_request(self) -> None:
        self._request_ended = True
        if self._ticked:
            self._set_timer(LOOK_S)

    def _start_timer(self, deadline: Deadline) -> None:
        self._deadline_s = deadline.monotonic_s
        wait_s = LOOK_S
        if self._deadline_s is not None:
            wait_s = max(min(wait_s, self._deadline_s - time.monotonic()), 0.001)
        self._timer = self._loop.call_later(wait_s, self._tick)

    def _set_timer(self, at_most_s: float | None) -> None:
        """The timer for whatever comes first; None is there to say that nothing else waits."""
        if self._timer is not None:
            self._timer.cancel()
        bounds = [self._deadline_s, self._arrive_by_s if self._arriving else None]
        now_s = time.monotonic()
        waits = [bound - now_s for bound in bounds if bound is not None]
        if at_most_s is not None:
            waits.append(at_most_s)
        # uvloop counts in whole milliseconds, and may be early by one.
        self._timer = self._loop.call_later(max(min(waits), 0.001), self._tick) if waits else None

    def _tick(self) -> None:
        self._timer = None
        self._ticked = True
        now_s = time.monotonic()
        if self._deadline_s is not None and now_s >= self._deadline_s:
            self.end(_LATE)
        elif self._arriving and self._arrive_by_s is not None and now_s >= self._arrive_by_s:
            self.end(_SLOW)
        else:
            if self._request_ended and self._watch is None:
                self._watch = self._loop.create_task(self._watch_caller())
            self._set_timer(None)

    async def _watch_caller(self) -> None:
        pause_s = LOOK_S
        while (await self._next_event())["type"] != "http.disconnect":
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, MAX_PAUSE_S)
        self.end(None)
