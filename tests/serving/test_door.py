from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

import pytest

from extauthz.ports import Deadline
from extauthz.serving.door import FAILED, LATE, MALFORMED, Door
from extauthz.serving.health import HealthState, HealthStatus
from extauthz.serving.load import Load
from extauthz.serving.methods import (
    Call,
    ClientStreamMethod,
    Method,
    RpcCode,
    RpcFailure,
    ServerStreamMethod,
    UnaryMethod,
)
from tests.contracts.rpc_service import SECRET, refuse_to_decode

PATH = "/a.Service/Do"


def a_door(*methods: Method, load: Load | None = None) -> Door:
    return Door(methods, health=HealthState(), load=load or Load())


def a_method(
    handle: Callable[[bytes, Call], Awaitable[bytes]], *, exempt: bool = False
) -> UnaryMethod[bytes, bytes]:
    return UnaryMethod(path=PATH, decode=bytes, handle=handle, encode=bytes, exempt=exempt)


async def echo(request: bytes, _: Call) -> bytes:
    return request


async def explode(_: bytes, __: Call) -> bytes:
    raise ValueError(SECRET)


async def ask(method: UnaryMethod[bytes, bytes], call: Call | None = None) -> bytes:
    return await a_door(method).answer_unary(method, b"?", call or Call())


def test_every_door_answers_for_its_health() -> None:
    door = a_door(a_method(echo))
    assert [method.path for method in door.table] == [
        PATH,
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/List",
        "/grpc.health.v1.Health/Watch",
    ]


async def test_logs_an_unforeseen_exception_once_with_its_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with pytest.raises(RpcFailure) as caught:
        await ask(a_method(explode))
    assert (caught.value.code, caught.value.message) == (RpcCode.UNAVAILABLE, FAILED)
    [record] = caplog.records
    assert record.levelno == logging.ERROR and PATH in record.getMessage()
    assert record.exc_info and record.exc_info[0] is ValueError


async def test_an_answer_that_cannot_be_encoded_is_a_failure() -> None:
    method = UnaryMethod(path=PATH, decode=bytes, handle=echo, encode=refuse_to_encode)
    with pytest.raises(RpcFailure) as caught:
        await ask(method)
    assert (caught.value.code, caught.value.message) == (RpcCode.UNAVAILABLE, FAILED)


def refuse_to_encode(_: bytes) -> bytes:
    raise ValueError(SECRET)


async def test_bytes_that_are_no_request_are_no_failure_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    method = UnaryMethod(path=PATH, decode=refuse_to_decode, handle=describe, encode=bytes)
    with pytest.raises(RpcFailure) as caught:
        await a_door(method).answer_unary(method, b"?", Call())
    assert (caught.value.code, caught.value.message) == (RpcCode.INVALID_ARGUMENT, MALFORMED)
    assert not caplog.records


async def describe(request: str, _: Call) -> bytes:
    return request.encode()


async def test_a_call_whose_caller_has_gone_is_not_handled() -> None:
    handled: list[bytes] = []

    async def handle(request: bytes, _: Call) -> bytes:
        handled.append(request)
        return request

    with pytest.raises(RpcFailure) as caught:
        await ask(a_method(handle), Call(deadline=Deadline(time.monotonic())))
    assert (caught.value.code, caught.value.message) == (RpcCode.DEADLINE_EXCEEDED, LATE)
    assert handled == []


async def swallow(waiting: asyncio.Future[None]) -> bytes:
    try:
        await waiting
    except asyncio.CancelledError:
        return b"allowed"
    return b""


async def explode_instead(waiting: asyncio.Future[None]) -> bytes:
    try:
        await waiting
    except asyncio.CancelledError:
        raise ValueError(SECRET) from None
    return b""


async def fail_instead(waiting: asyncio.Future[None]) -> bytes:
    try:
        await waiting
    except asyncio.CancelledError:
        raise RpcFailure(RpcCode.UNKNOWN, "") from None
    return b""


@pytest.mark.parametrize("make_of_it", [swallow, explode_instead, fail_instead])
async def test_a_cancelled_call_is_never_answered_whatever_its_handler_makes_of_it(
    make_of_it: Callable[[asyncio.Future[None]], Awaitable[bytes]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    entered = asyncio.Event()

    async def handle(_: bytes, __: Call) -> bytes:
        entered.set()
        return await make_of_it(asyncio.get_running_loop().create_future())

    answering = asyncio.create_task(ask(a_method(handle)))
    await entered.wait()
    answering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answering
    assert not caplog.records


async def test_a_cancellation_nobody_asked_for_is_a_failure() -> None:
    async def lose_a_shared_call(_: bytes, __: Call) -> bytes:
        raise asyncio.CancelledError

    with pytest.raises(RpcFailure) as caught:
        await ask(a_method(lose_a_shared_call))
    assert caught.value.code is RpcCode.UNAVAILABLE


async def test_an_exempt_method_is_neither_counted_nor_refused() -> None:
    load = Load(max_in_flight=1)
    method = a_method(echo, exempt=True)
    door = a_door(method, load=load)
    with load.calls:
        assert await door.answer_unary(method, b"a", Call()) == b"a"
    assert load.shed == 0


async def test_a_call_gives_its_place_back_however_it_ends() -> None:
    load = Load(max_in_flight=1)
    method = a_method(echo_or_explode)
    door = a_door(method, load=load)
    for _ in range(2):
        assert await door.answer_unary(method, b"a", Call()) == b"a"
        with pytest.raises(RpcFailure, match=FAILED):
            await door.answer_unary(method, b"", Call())
    assert (load.in_flight, load.shed) == (0, 0)


async def echo_or_explode(request: bytes, call: Call) -> bytes:
    return await (echo if request else explode)(request, call)


async def test_a_stream_that_is_left_gives_its_place_back_and_ends_its_handler() -> None:
    ended = asyncio.Event()

    async def handle(_: bytes, __: Call) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"again"
        finally:
            ended.set()

    load = Load()
    method = ServerStreamMethod(path=PATH, decode=bytes, handle=handle, encode=bytes)
    answers = a_door(method, load=load).answer_server_stream(method, b"", Call())
    assert await anext(answers) == b"again"
    assert load.open_streams == 1
    await answers.aclose()
    assert ended.is_set() and load.open_streams == 0


async def test_a_message_that_is_no_request_ends_a_client_stream() -> None:
    async def handle(requests: AsyncIterator[str], _: Call) -> bytes:
        async for _request in requests:
            pytest.fail("there is no request in there")
        return b""

    async def messages() -> AsyncIterator[bytes]:
        yield b"?"

    method = ClientStreamMethod(path=PATH, decode=refuse_to_decode, handle=handle, encode=bytes)
    with pytest.raises(RpcFailure) as caught:
        await a_door(method).answer_client_stream(method, messages(), Call())
    assert caught.value.code is RpcCode.INVALID_ARGUMENT


async def test_a_drained_door_is_not_serving() -> None:
    door = a_door(a_method(echo))
    door.health.set_all(HealthStatus.SERVING)
    door.drain()
    assert door.health.find("") is HealthStatus.NOT_SERVING
    assert door.load.draining
