"""What the admin listener makes of callers that nobody expected."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Final, TypeAlias

import pytest
from aiohttp import web

from extauthz.serving.admin.http import AdminServer

PATIENCE_S: Final = 20
SOON_S: Final = 0.1
MUCH: Final = 64 * 1024 * 1024
"""Bytes of an answer that no buffer of the system holds."""
HOST: Final = b"host: a\r\n\r\n"
GET: Final = b"GET /healthz HTTP/1.1\r\n"
CHUNKED: Final = b"transfer-encoding: chunked\r\n" + HOST + b"5\r\nhello\r\n"
ODD: Final = {
    "a long path": (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n" + HOST, 400),
    "a long query": (b"GET /healthz?" + b"a" * 9_000 + b" HTTP/1.1\r\n" + HOST, 400),
    "a query": (b"GET /healthz?a=" + b"%" * 7_000 + b" HTTP/1.1\r\n" + HOST, 200),
    "a large header": (GET + b"x: " + b"a" * 30_000 + b"\r\n" + HOST, 400),
    "many headers": (GET + b"x: a\r\n" * 5_000 + HOST, 400),
    "a header without a name": (GET + b": a\r\n" + HOST, 400),
    "a folded header": (GET + b"x: a\r\n b\r\n" + HOST, 400),
    "no host": (GET + b"\r\n", 400),
    "lines without a carriage return": (b"GET /healthz HTTP/1.1\nhost: a\n\n", 400),
    "bytes that are no text": (b"GET /\xff\xfe HTTP/1.1\r\n" + HOST, 400),
    "escapes that are none": (b"GET /%zz%ff%00 HTTP/1.1\r\n" + HOST, 404),
    "an address that is none": (b"GET http://[/healthz HTTP/1.1\r\n" + HOST, 400),
    "a port that is none": (b"GET http://a:99999999/healthz HTTP/1.1\r\n" + HOST, 400),
    "another server's address": (b"GET http://elsewhere/healthz HTTP/1.1\r\n" + HOST, 200),
    "HTTP/1.0": (b"GET /healthz HTTP/1.0\r\n\r\n", 200),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 500, 400),
    "garbage": (b"\0\1\2\xff\r\n\r\n", 400),
    "a method that is none": (b"@ /healthz HTTP/1.1\r\n" + HOST, 400),
    "HEAD": (b"HEAD /healthz HTTP/1.1\r\n" + HOST, 200),
    "POST": (b"POST /healthz HTTP/1.1\r\ncontent-length: 1\r\n" + HOST + b"a", 405),
    "OPTIONS": (b"OPTIONS * HTTP/1.1\r\n" + HOST, 404),
    "CONNECT": (b"CONNECT a:1 HTTP/1.1\r\n" + HOST, 404),
    "a wish for a web socket": (GET + b"connection: upgrade\r\nupgrade: websocket\r\n" + HOST, 200),
    "a body": (GET + b"content-length: 300000\r\n" + HOST + b"a" * 300_000, 200),
    "a body that is not what it says": (
        GET + b"content-encoding: gzip\r\ncontent-length: 5\r\n" + HOST + b"hello",
        200,
    ),
    "a body without a length": (GET + b"transfer-encoding: what\r\n" + HOST, 400),
    "two lengths": (GET + b"content-length: 1\r\ncontent-length: 2\r\n" + HOST, 400),
    "a chunk that is none": (GET + CHUNKED + b"zz\r\n", 400),
    "an expectation": (GET + b"expect: the best\r\n" + HOST, 417),
    "many requests at once": ((GET + HOST) * 100, 200),
}

Serve: TypeAlias = Callable[..., Awaitable[int]]


async def answer_alive() -> web.Response:
    return web.Response(text="alive\n")


async def answer_much() -> web.Response:
    return web.Response(body=b"a" * MUCH)


async def answer_by_failing() -> web.Response:
    raise ValueError("a defect")


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    runners: list[web.ServerRunner] = []

    async def start(**bounds: float) -> int:
        paths = {"/healthz": answer_alive, "/much": answer_much, "/fails": answer_by_failing}
        runner = web.ServerRunner(AdminServer(paths, **bounds))  # type: ignore[arg-type]
        await runner.setup()
        runners.append(runner)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    yield start
    for runner in runners:
        await runner.cleanup()


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def send(port: int, raw: bytes) -> bytes:
    """The first line of the answer."""
    reader, writer = await connect(port)
    writer.write(raw)
    async with asyncio.timeout(PATIENCE_S):
        line = await reader.readline()
    writer.transport.abort()
    return line


async def test_whatever_is_sent_is_answered_and_none_of_it_is_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    port = await serve()
    for name, (raw, status) in ODD.items():
        line = await send(port, raw)
        assert line.split(b" ", 2)[1] == b"%d" % status, name
        assert await send(port, GET + HOST) == b"HTTP/1.1 200 OK\r\n", name
    assert [record for record in caplog.records if record.levelno >= logging.INFO] == []


async def test_what_was_sent_is_not_sent_back(serve: Serve) -> None:
    reader, writer = await connect(await serve())
    writer.write(b"GET /" + b"<script>" * 2_000 + b" HTTP/1.1\r\n" + HOST)
    async with asyncio.timeout(PATIENCE_S):
        answer = await reader.read()
    assert answer.endswith(b"\r\n\r\nthis is not a request that can be read\n")
    writer.close()


async def test_a_handler_that_fails_is_told_and_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    line = await send(await serve(), b"GET /fails HTTP/1.1\r\n" + HOST)
    assert line.split(b" ", 2)[1] == b"500"
    (record,) = caplog.records
    assert record.exc_info is not None and isinstance(record.exc_info[1], ValueError)


@pytest.mark.parametrize("raw", [b"", b"GET /hea", GET + b"host: a\r\n", GET + HOST])
async def test_a_connection_has_its_time_whatever_it_says(raw: bytes, serve: Serve) -> None:
    reader, writer = await connect(await serve(connection_s=SOON_S))
    writer.write(raw)
    async with asyncio.timeout(PATIENCE_S):
        await read_to_end(reader)
    writer.transport.abort()


async def test_an_answer_that_is_not_read_is_let_go_of(serve: Serve) -> None:
    port = await serve(connection_s=SOON_S)
    slow = socket.create_connection(("127.0.0.1", port))
    with slow:
        slow.sendall(b"GET /much HTTP/1.1\r\n" + HOST)
        # Nothing is read until whoever came later was let go of, too.
        reader, writer = await connect(port)
        await asyncio.wait_for(read_to_end(reader), PATIENCE_S)
        writer.transport.abort()
        slow.settimeout(PATIENCE_S)
        assert await asyncio.to_thread(count_to_end, slow) < MUCH


def count_to_end(connection: socket.socket) -> int:
    count = 0
    with suppress(ConnectionError):
        while received := connection.recv(1 << 20):
            count += len(received)
    return count


async def test_many_connections_that_say_nothing_keep_nobody_out(serve: Serve) -> None:
    port = await serve(max_connections=5)
    silent = [await connect(port) for _ in range(50)]
    for _ in range(20):
        assert await send(port, GET + HOST) == b"HTTP/1.1 200 OK\r\n"
    async with asyncio.timeout(PATIENCE_S):
        for reader, _ in silent[:-5]:
            assert await read_to_end(reader) == b""
    for _, writer in silent:
        writer.transport.abort()


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""
