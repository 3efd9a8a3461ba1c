"""The handlers that grpcio calls for each method of a door.

grpcio cancels a handler's task when its caller goes away or its deadline passes, and then sends no
answer of the handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from typing import Any, NoReturn, TypeAlias, assert_never

import grpc

from extauthz.serving.door import SLOW, Door
from extauthz.serving.methods import (
    Call,
    ClientStreamMethod,
    Metadata,
    Method,
    RpcCode,
    RpcFailure,
    ServerStreamMethod,
    TextNames,
    UnaryMethod,
    find_deadline,
)

_Context: TypeAlias = "grpc.aio.ServicerContext[bytes, bytes]"
_STRANGER = "the client certificate has no URI SAN that is let in here"
_ENDED_AT_ONCE = 5
_PAUSE_S = 0.01
"""Overdue calls that are ended in one step. Ending one takes up to a millisecond, and thousands
together would block all other calls for seconds."""
_STATUS = {code.value[0]: code for code in grpc.StatusCode}


class MethodHandlers:
    """Makes the handlers that grpcio calls for each method of a door.

    For grpcio every method has a stream of requests; otherwise it would wait for the message of a
    unary call without a bound.

    Args:
        uris: a caller's certificate must have one of them; empty admits all callers.
        within_s: seconds by which the message of a unary call must have arrived.
    """

    def __init__(self, door: Door, uris: frozenset[str], within_s: float) -> None:
        self.door = door
        self._uris = uris
        self._arrivals = _Arrivals(within_s)

    def find_handler(self, method: Method) -> grpc.RpcMethodHandler[Any, Any]:
        """The handler of one of the door's methods."""
        match method:
            case UnaryMethod():
                return grpc.stream_unary_rpc_method_handler(self._serve_unary(method))
            case ClientStreamMethod():
                return grpc.stream_unary_rpc_method_handler(self._serve_client_stream(method))
            case ServerStreamMethod():
                return grpc.stream_stream_rpc_method_handler(self._serve_server_stream(method))
            case _:
                assert_never(method)

    def _serve_unary(
        self, method: UnaryMethod[Any, Any]
    ) -> Callable[[object, _Context], Awaitable[bytes]]:
        async def serve(_: object, context: _Context) -> bytes:
            try:
                call = self._read_call(context)
                message = await self._arrivals.read_message(context)
                return await self.door.answer_unary(method, message, call)
            except RpcFailure as failure:
                await _abort(context, failure)

        return serve

    def _serve_client_stream(
        self, method: ClientStreamMethod[Any, Any]
    ) -> Callable[[AsyncIterator[bytes], _Context], Awaitable[bytes]]:
        async def serve(messages: AsyncIterator[bytes], context: _Context) -> bytes:
            try:
                call = self._read_call(context)
                return await self.door.answer_client_stream(method, messages, call)
            except RpcFailure as failure:
                await _abort(context, failure)

        return serve

    def _serve_server_stream(
        self, method: ServerStreamMethod[Any, Any]
    ) -> Callable[[object, _Context], Awaitable[None]]:
        async def serve(_: object, context: _Context) -> None:
            try:
                call = self._read_call(context)
                message = await self._arrivals.read_message(context)
                answers = self.door.answer_server_stream(method, message, call)
                async with aclosing(answers):
                    async for answer in answers:
                        await context.write(answer)
            except RpcFailure as failure:
                await _abort(context, failure)

        return serve

    def _read_call(self, context: _Context) -> Call:
        """What a handler may know of its call.

        Raises:
            RpcFailure: UNAUTHENTICATED, when the caller's certificate has none of the URIs.
        """
        if self._uris and self._uris.isdisjoint(_list_peer_uris(context)):
            raise RpcFailure(RpcCode.UNAUTHENTICATED, _STRANGER)
        return Call(deadline=find_deadline(context.time_remaining()), caller=_Caller(context))


_metadata_read: ContextVar[Any] = ContextVar("metadata_read", default=None)
"""What grpcio has read already when it looks for the handler of a call, which it does in the call's
own task. To have it read again takes longer than all that is done with it."""


class BoundedMethods(grpc.GenericRpcHandler):
    """The door's methods for grpcio, except those that are exempt from its bounds."""

    def __init__(self, handlers: MethodHandlers) -> None:
        self._by_path = {
            method.path: handlers.find_handler(method)
            for method in handlers.door.table
            if not method.exempt
        }

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        _metadata_read.set(handler_call_details.invocation_metadata)
        return self._by_path.get(handler_call_details.method)


class _Arrivals:
    """Calls whose message has not arrived yet. They share a timer: one for each call would cost
    more than the rest of its waiting.
    """

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._since_s: dict[asyncio.Task[Any], float] = {}
        """By the loop's time, the oldest first."""
        self._timer: asyncio.TimerHandle | None = None

    async def read_message(self, context: _Context) -> bytes:
        """The message of a unary call.

        Raises:
            RpcFailure: DEADLINE_EXCEEDED or INTERNAL, when no message came.
        """
        task = asyncio.current_task()
        assert task is not None
        loop = asyncio.get_running_loop()
        self._since_s[task] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._within_s, self._end_overdue, loop)
        try:
            message: object = await context.read()
        except asyncio.CancelledError:
            if task in self._since_s:  # by grpcio: the caller has gone
                raise
            task.uncancel()
            raise RpcFailure(RpcCode.DEADLINE_EXCEEDED, SLOW) from None
        finally:
            self._since_s.pop(task, None)
        if not isinstance(message, bytes):  # the end of the requests
            raise RpcFailure(RpcCode.INTERNAL, "no message in a call that takes one")
        return message

    def _end_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now_s = loop.time()
        for _ in range(_ENDED_AT_ONCE):
            if not self._since_s:
                return
            task, since_s = next(iter(self._since_s.items()))
            if since_s + self._within_s > now_s:
                break
            del self._since_s[task]
            task.cancel()
        if self._since_s:
            due_s = next(iter(self._since_s.values())) + self._within_s
            due_s = max(due_s, now_s + _PAUSE_S)
            self._timer = loop.call_at(due_s, self._end_overdue, loop)


async def _abort(context: _Context, failure: RpcFailure) -> NoReturn:
    try:
        await context.abort(_STATUS[failure.code], failure.message)
    except grpc.aio.AbortError as error:
        # grpcio keeps the error in the call, and the error's frames hold the call: a cycle with all
        # of the call's objects. Collecting thousands of these at once blocked everything else.
        asyncio.get_running_loop().call_soon(_forget_frames, error)
        raise


def _forget_frames(error: BaseException) -> None:
    error.__traceback__ = error.__context__ = None


def _list_peer_uris(context: _Context) -> list[str]:
    """The URI SANs of the client certificate; none without mTLS."""
    uris: Iterable[bytes] = context.auth_context().get("peer_uri", ())
    return [uri.decode("utf-8", "replace") for uri in uris]


class _Caller:
    """The `Caller` of a call of grpcio's."""

    __slots__ = ("_context",)

    def __init__(self, context: _Context) -> None:
        self._context = context

    def read_metadata(self) -> Metadata:
        return tuple(self._context.invocation_metadata() or ())

    def read_texts(self, names: TextNames) -> Mapping[str, str]:
        wanted = names.texts
        metadata = _metadata_read.get() or self._context.invocation_metadata() or ()
        return {
            name: value for name, value in metadata if name in wanted and isinstance(value, str)
        }

    def read_peer(self) -> str:
        return self._context.peer()
