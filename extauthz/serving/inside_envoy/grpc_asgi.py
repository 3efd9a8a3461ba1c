"""Serves a door by gRPC over ASGI, for any ASGI server with HTTP/2 and trailers.

Like every host, the application passes on bytes, metadata and cancellation; the door decides on the
call. The server must have the extension ``http.response.trailers``.

- A call counts as in flight once its message has arrived, and only the door bounds their number.
  The message must arrive within `HostLimits.message_timeout_s`.
- A refusal before the first answer is "trailers-only": one block of headers with the status. The
  answer to a client stream begins with the call, so that the server does not wait for its end.
- ASGI has no deadlines, so they are enforced here: when one passes, the handler is cancelled.
- When a handler takes longer than `LOOK_S`, the server is asked whether its caller is still there.
  By the ASGI specification `receive` then waits until the caller is gone; pyvoy answers at once, so
  it is asked again, after increasing pauses.

Source: https://asgi.readthedocs.io/en/latest/specs/www.html
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeAlias, assert_never

from extauthz.ports import NO_DEADLINE
from extauthz.serving.door import Door
from extauthz.serving.inside_envoy.asgi_exchange import CallerGone, Exchange
from extauthz.serving.inside_envoy.asgi_open import OpenCalls
from extauthz.serving.inside_envoy.grpc_wire import is_grpc, read_metadata, read_timeout_s
from extauthz.serving.limits import HostLimits
from extauthz.serving.methods import (
    Call,
    ClientStreamMethod,
    Metadata,
    RpcCode,
    RpcFailure,
    ServerStreamMethod,
    TextNames,
    UnaryMethod,
    find_deadline,
)

Scope: TypeAlias = dict[str, Any]
Event: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]

_STOPPING: Final = RpcFailure(RpcCode.UNAVAILABLE, "the service is stopping")
_log = logging.getLogger(__name__)


class GrpcApp:
    """Serves the door's methods. One event loop uses it."""

    def __init__(self, door: Door, *, limits: HostLimits | None = None) -> None:
        limits = limits or HostLimits()
        self._door = door
        self._methods = {method.path.encode(): method for method in door.table}
        self._max_receive_bytes = limits.max_receive_bytes
        self._arrive_within_s = limits.message_timeout_s
        self._open: OpenCalls[Exchange] = OpenCalls()
        self._stopping = False

    @property
    def open_calls(self) -> int:
        """The number of open calls of any kind."""
        return len(self._open)

    def refuse_new(self) -> None:
        """From now on, new calls end in UNAVAILABLE."""
        self._stopping = True

    def cancel_all(self) -> None:
        """Cancels every call; the callers read UNAVAILABLE."""
        for exchange in self._open:
            exchange.end(_STOPPING)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one call."""
        headers = dict(scope["headers"])  # gRPC's own headers are never repeated
        refusal = _find_http_refusal(scope["method"], headers)
        if refusal is not None:
            await _refuse(send, *refusal)
            return
        exchange = Exchange(receive, send, self._open, max_message_bytes=self._max_receive_bytes)
        self._open.add(exchange)
        try:
            await self._answer(scope, headers, exchange)
        except RpcFailure as failure:
            await exchange.fail(failure)
        except CallerGone:
            pass
        except asyncio.CancelledError:
            if not await exchange.was_ended():
                raise
        except Exception:  # noqa: BLE001 - the caller must not be left waiting
            _log.exception("%s: the call failed because of a defect", scope["path"])
            await exchange.fail(RpcFailure(RpcCode.INTERNAL, "the call could not be carried"))
        finally:
            exchange.close()
            self._open.discard(exchange)

    async def _answer(
        self, scope: Scope, headers: Mapping[bytes, bytes], exchange: Exchange
    ) -> None:
        if self._stopping:
            raise _STOPPING
        method = self._methods.get(scope["raw_path"])
        if method is None:
            raise RpcFailure(RpcCode.UNIMPLEMENTED, "there is no such method")
        call = _read_call(scope, headers)
        match method:
            case UnaryMethod():
                message = await exchange.read_only_message(call.deadline, self._arrive_within_s)
                await exchange.answer(await self._door.answer_unary(method, message, call))
            case ClientStreamMethod():
                await exchange.open_answer()
                async with aclosing(exchange.read_messages(call.deadline)) as messages:
                    answer = await self._door.answer_client_stream(method, messages, call)
                await exchange.answer(answer)
            case ServerStreamMethod():
                message = await exchange.read_only_message(call.deadline, self._arrive_within_s)
                await exchange.stream(self._door.answer_server_stream(method, message, call))
            case _:
                assert_never(method)


def _find_http_refusal(
    method: str, headers: Mapping[bytes, bytes]
) -> tuple[int, list[tuple[bytes, bytes]]] | None:
    """The HTTP status and headers that refuse a request which is not gRPC; None for gRPC."""
    if method != "POST":
        return 405, [(b"allow", b"POST")]
    if is_grpc(headers.get(b"content-type", b"")):
        return None
    return 415, [(b"accept-post", b"application/grpc")]


async def _refuse(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _read_call(scope: Scope, headers: Mapping[bytes, bytes]) -> Call:
    """Reads the call's facts for the handler.

    Raises:
        RpcFailure: INTERNAL when headers that gRPC requires are missing or malformed.
    """
    if headers.get(b"te") != b"trailers":
        # Without it, proxies may drop the status; C-core and Go refuse such calls, too.
        raise RpcFailure(RpcCode.INTERNAL, "the header te: trailers is missing")
    timeout = headers.get(b"grpc-timeout")
    deadline = NO_DEADLINE if timeout is None else find_deadline(read_timeout_s(timeout))
    return Call(deadline=deadline, caller=_Caller(scope, headers))


class _Caller:
    """Implements `Caller` with the facts of an ASGI scope."""

    __slots__ = ("_headers", "_scope")

    def __init__(self, scope: Scope, headers: Mapping[bytes, bytes]) -> None:
        self._scope = scope
        self._headers = headers

    def read_metadata(self) -> Metadata:
        return read_metadata(self._scope["headers"])

    def read_texts(self, names: TextNames) -> Mapping[str, str]:
        headers = self._headers
        return {
            name: headers[raw].decode("latin-1")
            for raw, name in names.by_bytes.items()
            if raw in headers
        }

    def read_peer(self) -> str:
        client = self._scope.get("client")
        if client is None:
            return "unix:"
        host, port = client
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
