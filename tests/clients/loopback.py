"""A real HTTP server on loopback that answers what a test tells it, and keeps what it was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


def json_answer(value: Any, **fields: Any) -> Answer:
    return Answer(body=json.dumps(value).encode(), **fields)


class LoopbackServer:
    """Answers by path; 404 for others. `hold` keeps answers back until `release`.

    tls: by which it speaks https; None for http.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.answers: dict[str, Answer] = {}
        self.asked: list[Asked] = []
        self.arrived = asyncio.Semaphore(0)
        self._may_answer = asyncio.Event()
        self._may_answer.set()
        self._connections: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server | None = None
        self.url = ""
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Refuses connections from now on."""
        if self._server is not None:
            self._server.close()
            for connection in tuple(self._connections):
                connection.cancel()
            await asyncio.gather(*self._connections, return_exceptions=True)
            await self._server.wait_closed()
            self._server = None

    def hold(self) -> None:
        self._may_answer.clear()

    def release(self) -> None:
        self._may_answer.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._answer_one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # The client went away, or the test is over. Cancelled server tasks that raise are
            # logged as errors by asyncio.
            writer.transport.abort()
        finally:
            writer.close()
            self._connections.discard(task)

    async def _answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        request_line, *lines = head.rstrip("\r\n").split("\r\n")
        method, path, _ = request_line.split(" ")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.asked.append(Asked(method=method, path=path, headers=headers, body=body))
        self.arrived.release()
        await self._may_answer.wait()
        answer = self.answers.get(path, Answer(status=404))
        writer.write(f"HTTP/1.1 {answer.status} Said\r\nconnection: close\r\n".encode())
        for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
            writer.write(f"{name}: {value}\r\n".encode())
        writer.write(b"\r\n" + answer.body)
        await writer.drain()
