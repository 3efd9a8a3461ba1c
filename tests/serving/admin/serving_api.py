"""An API with a few endpoints of a test's own, on a real listener, and raw requests to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from aiohttp import web
from pydantic import BaseModel

from extauthz.errors import CounterStoreError
from extauthz.serving.admin.access import Access, AccessRules
from extauthz.serving.admin.api import AdminApi
from extauthz.serving.admin.bodies import Bodies
from extauthz.serving.admin.endpoints import (
    Answer,
    ApiCall,
    Endpoint,
    EventStream,
    number_parameter,
    text_parameter,
    time_parameter,
)
from extauthz.serving.admin.http import AdminServer

PATIENCE_S: Final = 20
OPEN: Final = AccessRules(is_local=True)
Stream: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Asked(BaseModel):
    """A body."""

    name: str


async def alive() -> web.Response:
    return web.Response(text="alive\n")


@dataclass(slots=True)
class Endpoints:
    """The endpoints, and what their streams have still to send."""

    streams: list[asyncio.Queue[bytes | None]] = field(default_factory=list)
    ended: int = 0
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """Lets the endpoint that waits answer."""

    def send(self, piece: bytes | None) -> None:
        """Sends a piece on every stream; None ends them."""
        for pieces in self.streams:
            pieces.put_nowait(piece)

    async def echo(self, call: ApiCall) -> Answer:
        if call.wants_events:
            return EventStream(self._follow())
        return {"query": call.query, "caller": call.caller.name}

    async def take(self, call: ApiCall) -> Answer:
        return {"name": call.body.name, "caller": call.caller.name}

    async def remove(self, call: ApiCall) -> Answer:
        return {"removed": call.path["id"]}

    async def fail(self, call: ApiCall) -> Answer:
        raise ValueError("a defect that tells of a secret")

    async def miss(self, call: ApiCall) -> Answer:
        raise CounterStoreError("Redis is away")

    async def wait(self, call: ApiCall) -> Answer:
        await self.go_on.wait()
        return {}

    async def _follow(self) -> AsyncGenerator[bytes, None]:
        pieces: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.streams.append(pieces)
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
        finally:
            self.streams.remove(pieces)
            self.ended += 1

    def table(self) -> tuple[Endpoint, ...]:
        any_answer: dict[str, Any] = {"answers": dict[str, Any]}
        return (
            Endpoint(
                method="GET",
                path="/api/echo",
                summary="Says what was asked.",
                handle=self.echo,
                parameters=(
                    number_parameter("limit", "A number.", at_most=1_000, default=7),
                    text_parameter("api", "A text."),
                    text_parameter("outcome", "A choice.", ("allow", "deny")),
                    time_parameter("since", "A time."),
                ),
                has_events=True,
                **any_answer,
            ),
            Endpoint(
                method="POST",
                path="/api/things",
                summary="Takes a thing.",
                handle=self.take,
                body=Asked,
                needs_known_caller=True,
                **any_answer,
            ),
            Endpoint(
                method="POST",
                path="/api/asked",
                summary="Takes a question.",
                handle=self.take,
                body=Asked,
                **any_answer,
            ),
            Endpoint(
                method="DELETE",
                path="/api/things/{id}",
                summary="Removes a thing.",
                handle=self.remove,
                **any_answer,
            ),
            Endpoint(
                method="GET", path="/api/fails", summary="Fails.", handle=self.fail, **any_answer
            ),
            Endpoint(
                method="GET", path="/api/waits", summary="Waits.", handle=self.wait, **any_answer
            ),
            Endpoint(
                method="GET", path="/api/misses", summary="Misses.", handle=self.miss, **any_answer
            ),
        )


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer: its status, its headers in lower case, and what its body says."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of a refusal."""
        return str(self.json["error"]["code"])


@dataclass(frozen=True, slots=True)
class Served:
    """A listener that runs."""

    port: int
    server: AdminServer
    endpoints: Endpoints

    async def send(
        self,
        target: str,
        *,
        method: str = "GET",
        headers: tuple[tuple[str, str], ...] = (),
        body: bytes = b"",
        host: str | None = "localhost",
    ) -> Answered:
        """One request on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(write_request(target, method=method, headers=headers, body=body, host=host))
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await read_answer(reader, has_body=method != "HEAD")
        finally:
            writer.transport.abort()

    async def follow(self) -> Stream:
        """Opens a stream, once its head has come."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        accept = (("accept", "text/event-stream"),)
        writer.write(write_request("/api/echo", headers=accept))
        async with asyncio.timeout(PATIENCE_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in head and b"text/event-stream" in head, head
        return reader, writer


def write_request(
    target: str,
    *,
    method: str = "GET",
    headers: tuple[tuple[str, str], ...] = (),
    body: bytes = b"",
    host: str | None = "localhost",
) -> bytes:
    """A request as bytes, so that it can be as odd as a test wants."""
    named = () if host is None else (("host", host),)
    sized = (("content-length", str(len(body))),) if body else ()
    lines = [f"{name}: {value}\r\n" for name, value in (*named, *sized, *headers)]
    return f"{method} {target} HTTP/1.1\r\n{''.join(lines)}\r\n".encode() + body


async def read_answer(reader: asyncio.StreamReader, *, has_body: bool = True) -> Answered:
    """One answer, to its end."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.strip().split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (it.partition(":") for it in lines)
    }
    body = b""
    if has_body and "content-length" in headers:
        body = await reader.readexactly(int(headers["content-length"]))
    elif has_body and headers.get("transfer-encoding") == "chunked":
        while size := int((await reader.readline()).strip() or b"0", 16):
            body += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    return Answered(int(first.split(" ")[1]), headers, body)


@asynccontextmanager
async def serving_api(
    rules: AccessRules = OPEN, *, bodies: Bodies | None = None, **bounds: Any
) -> AsyncIterator[Served]:
    """The endpoints behind these rules, on loopback, until the block ends."""
    endpoints = Endpoints()
    api = AdminApi(endpoints.table(), Access(rules), version="1", bodies=bodies)
    server = AdminServer({"/healthz": alive}, api, **{"linger_s": 0.05, **bounds})
    runner = web.ServerRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Served(int(runner.addresses[0][1]), server, endpoints)
    finally:
        server.end_streams()
        endpoints.send(None)
        await runner.cleanup()
