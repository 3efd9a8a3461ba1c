"""Callers that want a service to themselves, each a program of its own: see `tests.bench.serving.hostile`.

``python -m tests.bench.serving.hostile_callers <name> <host:port> <seconds>`` prints a line when it
begins, and at the end how many calls or connections it has begun.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from itertools import count
from time import perf_counter
from typing import Any, Final, TypeAlias

import grpc

from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest
from extauthz.serving.inside_envoy.grpc_wire import write_frame
from tests.bench.deciding.core import make_check_request
from tests.bench.pace import let_pass
from tests.bench.serving.hosts import PATH
from tests.http2_connection import Http2Connection

FULL: Final = 58_000
"""Bytes that fill what Envoy lets pass, with some room for the rest of a request."""
LARGE_PER_S: Final = 40
MANY_PER_S: Final = 300
STREAMS: Final = 100
"""Calls on one connection."""
DEADLINE_S: Final = 0.2
SHOP: Final = "/shop/v1/things/1"
OPEN: Final = "/open/v1/things/1"
NO_KEY: Final = ("x-no-key", "none")

Attack: TypeAlias = Callable[[str, float], Coroutine[Any, Any, int]]
_WATCH: Final = "/grpc.health.v1.Health/Watch"
_HALF: Final = b"\0\0\0\1\0half"


def write_question(
    path: str, *, fields: Mapping[str, str] | None = None, credential: tuple[str, str] = NO_KEY
) -> bytes:
    """A CheckRequest with these header fields in the place of the usual ones, or beside them."""
    request = CheckRequest.FromString(make_check_request(path, credential))
    headers = request.attributes.request.http.header_map.headers
    for name, value in (fields or {}).items():
        entry = next((it for it in headers if it.key == name), None)
        if entry is None:
            entry = headers.add()
            entry.key = name
        entry.raw_value = value.encode()
    return request.SerializeToString()


async def _ask(questions: Iterator[bytes], per_s: int, address: str, seconds: float) -> int:
    """Asks at this rate, whatever becomes of it."""
    asking: set[asyncio.Task[None]] = set()
    began_s = perf_counter()
    asked = 0
    async with grpc.aio.insecure_channel(address) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)

        async def ask(question: bytes) -> None:
            with suppress(grpc.aio.AioRpcError):
                await check(question, timeout=DEADLINE_S)

        while (passed_s := perf_counter() - began_s) < seconds:
            while asked < passed_s * per_s:
                task = asyncio.create_task(ask(next(questions)))
                asking.add(task)
                task.add_done_callback(asking.discard)
                asked += 1
            await let_pass(1 / per_s)
        await asyncio.gather(*asking)
    return asked


def _same(question: bytes) -> Iterator[bytes]:
    while True:
        yield question


def _large(path: str, fields: Mapping[str, str] | None = None) -> Attack:
    async def attack(address: str, seconds: float) -> int:
        question = write_question(path, fields=fields)
        return await _ask(_same(question), LARGE_PER_S, address, seconds)

    return attack


async def _from_many_addresses(address: str, seconds: float) -> int:
    questions = (
        write_question(
            OPEN, fields={"x-forwarded-for": f"2001:db8:1:{n >> 16:x}:{n & 0xFFFF:x}::1"}
        )
        for n in count()
    )
    return await _ask(questions, MANY_PER_S, address, seconds)


async def _as_many_tenants(address: str, seconds: float) -> int:
    questions = (write_question(OPEN, fields={"x-tenant": f"tenant-{n}"}) for n in count())
    return await _ask(questions, MANY_PER_S, address, seconds)


@asynccontextmanager
async def _connect(address: str, connections: int) -> AsyncIterator[list[Http2Connection]]:
    async with AsyncExitStack() as stack:
        opened = []
        for _ in range(connections):
            opened.append(await Http2Connection.open(address))
            stack.push_async_callback(opened[-1].close)
        yield opened


def _hold(path: str, body: bytes | None, *, connections: int = 27, ends: bool = False) -> Attack:
    """Keeps so many calls open; begins another for each that ends."""

    async def attack(address: str, seconds: float) -> int:
        begun = 0
        until_s = perf_counter() + seconds
        async with _connect(address, connections) as opened:
            while perf_counter() < until_s:
                for connection in opened:
                    for _ in range(STREAMS - connection.open_calls):
                        connection.begin(path, body, ends=ends)
                        begun += 1
                await let_pass(0.1)
        return begun

    return attack


async def _begin_a_few(address: str, seconds: float) -> int:
    begun = 0
    until_s = perf_counter() + seconds
    async with _connect(address, 1) as (connection,):
        while perf_counter() < until_s:
            for _ in range(60):
                connection.begin(PATH)
                begun += 1
            await let_pass(2.0)
    return begun


async def _say_nothing(address: str, seconds: float) -> int:
    host, _, port = address.rpartition(":")
    async with AsyncExitStack() as stack:
        for _ in range(1_000):
            _, writer = await asyncio.open_connection(host, port)
            stack.callback(writer.transport.abort)
        await let_pass(seconds)
    return 1_000


CALLERS: Final[Mapping[str, Attack]] = {
    "58,000 & in a query, 40/s": _large(f"{SHOP}?{'&' * FULL}"),
    "58,000 commas in X-Forwarded-For, 40/s": _large(SHOP, {"x-forwarded-for": "," * FULL}),
    "19,000 escapes in the key's parameter, 40/s": _large(f"{SHOP}?apikey={'%41' * (FULL // 3)}"),
    "29,000 empty cookies, 40/s": _large(SHOP, {"cookie": "; " * (FULL // 2)}),
    "another address of a /48 each, 300/s": _from_many_addresses,
    "another tenant each, 300/s": _as_many_tenants,
    "2,700 calls without a message, always": _hold(PATH, None),
    "2,700 calls with half a message, always": _hold(PATH, _HALF),
    "60 calls without a message every 2 s": _begin_a_few,
    "900 watches of health, always": _hold(_WATCH, write_frame(b""), connections=9, ends=True),
    "1,000 connections that say nothing": _say_nothing,
}


def main() -> None:
    """Attacks as the command line says."""
    name, address, seconds = sys.argv[1:]
    os.nice(5)  # the measuring process next to it is to be on time
    print("ready", flush=True)
    print(asyncio.run(CALLERS[name](address, float(seconds))))


if __name__ == "__main__":
    main()
