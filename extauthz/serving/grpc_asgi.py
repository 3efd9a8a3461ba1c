"""gRPC over ASGI: one door as an application of any ASGI server that speaks HTTP/2 and trailers.

The application carries bytes, metadata and cancellation, as every host does; what becomes of a
call is the door's business. Of the server it wants the extension ``http.response.trailers``.

- A call is refused before its message was read when that is already certain. The refusal is
  then "trailers-only": status and headers in one.
- ASGI has no deadlines, so they are kept here: one timer for a call, which cancels the handler.
- While a handler is busy for longer than `LOOK_S`, the server is asked whether its caller is
  still there. By the ASGI specification `receive` then waits until it is not; pyvoy answers at
  once, so it is asked again, after longer and longer pauses.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, TypeAlias, assert_never

from extauthz.ports import NO_DEADLINE
from extauthz.serving.asgi_exchange import CallerGone, Exchange
from extauthz.serving.door import Door
from extauthz.serving.grpc_wire import is_grpc, read_metadata, read_timeout_s
from extauthz.serving.limits import HostLimits
from extauthz.serving.methods import (
    Call,
    ClientStreamMethod,
    RpcCode,
    RpcFailure,
    ServerStreamMethod,
    UnaryMethod,
    find_deadline,
)

Scope: TypeAlias = dict[str, Any]
Event: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]

SPARE_CALLS: Final = 1000
"""Calls that may be open beyond what the door takes: those whose message still arrives."""

_STOPPING: Final = RpcFailure(RpcCode.UNAVAILABLE, "the service is stopping")
_log = logging.getLogger(__name__)


class GrpcApp:
    """Serves the door's methods. One event loop uses it."""

    def __init__(self, door: Door, *, limits: HostLimits | None = None) -> None:
        limits = limits or HostLimits()
        self._door = door
        self._methods = {method.path.encode(): method for method in door.table}
        self._max_receive_bytes = limits.max_receive_bytes
        self._arrive_within_s = limits.handshake_timeout_s
        self._max_open = door.load.calls.limit + door.load.streams.limit + SPARE_CALLS
        self._open: set[Exchange] = set()
        self._stopping = False

    @property
    def open_calls(self) -> int:
        """Calls that have begun and not ended, of any kind."""
        return len(self._open)

    def refuse_new(self) -> None:
        """From now on, new calls end in UNAVAILABLE."""
        self._stopping = True

    def cancel_all(self) -> None:
        """Cancels every call; the callers read UNAVAILABLE."""
        for exchange in tuple(self._open):
            exchange.end(_STOPPING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one call."""
        refusal = _find_http_refusal(scope)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        exchange = Exchange(receive, send, max_message_bytes=self._max_receive_bytes)
        self._open.add(exchange)
        try:
            await self._answer(scope, exchange)
        except RpcFailure as failure:
            await exchange.fail(failure)
        except CallerGone:
            pass
        except asyncio.CancelledError:
            if not await exchange.was_ended():
                raise
        except Exception:  # noqa: BLE001 - the caller must not be left waiting
            _log.exception("%s: the call could not be carried", scope["path"])
            await exchange.fail(RpcFailure(RpcCode.INTERNAL, "the call could not be carried"))
        finally:
            exchange.close()
            self._open.discard(exchange)

    async def _answer(self, scope: Scope, exchange: Exchange) -> None:
        if self._stopping:
            raise _STOPPING
        method = self._methods.get(scope["raw_path"])
        if method is None:
            raise RpcFailure(RpcCode.UNIMPLEMENTED, "there is no such method")
        if len(self._open) > self._max_open and not method.exempt:
            raise RpcFailure(RpcCode.UNAVAILABLE, "too many calls in flight")
        call = _read_call(scope)
        match method:
            case UnaryMethod():
                message = await exchange.read_only_message(call.deadline, self._arrive_within_s)
                await exchange.answer(await self._door.answer_unary(method, message, call))
            case ClientStreamMethod():
                async with aclosing(exchange.read_messages(call.deadline)) as messages:
                    answer = await self._door.answer_client_stream(method, messages, call)
                await exchange.answer(answer)
            case ServerStreamMethod():
                message = await exchange.read_only_message(call.deadline, self._arrive_within_s)
                await exchange.stream(self._door.answer_server_stream(method, message, call))
            case _:
                assert_never(method)


def _find_http_refusal(scope: Scope) -> tuple[int, list[tuple[bytes, bytes]]] | None:
    """The HTTP status, and its headers, for what is no gRPC call at all."""
    if scope["method"] != "POST":
        return 405, [(b"allow", b"POST")]
    content_type = next((value for name, value in scope["headers"] if name == b"content-type"), b"")
    return None if is_grpc(content_type) else (415, [(b"accept-post", b"application/grpc")])


async def _refuse(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _read_call(scope: Scope) -> Call:
    """What the handler may know.

    Raises:
        RpcFailure: INTERNAL when the headers are not gRPC's.
    """
    deadline = NO_DEADLINE
    can_read_trailers = False
    headers = scope["headers"]
    for name, value in headers:
        if name == b"te":
            can_read_trailers = value == b"trailers"
        elif name == b"grpc-timeout":
            deadline = find_deadline(read_timeout_s(value))
    if not can_read_trailers:
        # The status would be lost on the way; C-core and Go refuse it too.
        raise RpcFailure(RpcCode.INTERNAL, "the header te: trailers is missing")
    return Call(deadline=deadline, metadata=read_metadata(headers), peer=_write_peer(scope))


def _write_peer(scope: Scope) -> str:
    client = scope.get("client")
    if client is None:
        return "unix:"
    host, port = client
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
