"""A TCP relay in front of a server, on loopback, that delays answers or resets connections.

It runs on a thread and an event loop of its own, so that blocking callers can use it and nothing
that the test's own loop does holds it up.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Coroutine
from threading import Thread
from typing import Any, TypeVar

from tests.bench.pace import let_pass

_T = TypeVar("_T")
_PATIENCE_S = 30.0
_AT_ONCE = 65_536
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: closing sends RST (socket(7))."""


class Relay:
    """Relays to a port of this machine, from `start` to `stop`.

    Attributes:
        port: where it listens.
        delay_s: how much later each piece of an answer is passed on.
        accepted: connections so far.
    """

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._clients: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.port = 0
        self.delay_s = 0.0
        self.accepted = 0

    def start(self) -> Relay:
        """Listens."""
        self._thread.start()
        self._server = self._run(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def reset(self) -> None:
        """Resets every connection; when this returns, the other side's kernel knows."""
        self._run(self._reset())

    def stop(self) -> None:
        """Closes everything."""
        self._run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_PATIENCE_S)

    async def _reset(self) -> None:
        for client in self._clients:
            client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            client.transport.abort()
        await asyncio.sleep(0)  # now they are closed

    async def _stop(self) -> None:
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._clients.add(client)
        self.accepted += 1
        server: asyncio.StreamWriter | None = None
        try:
            answers, server = await asyncio.open_connection("127.0.0.1", self._to_port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, server, is_answer=False))
                group.create_task(self._pass_on(answers, client, is_answer=True))
        except (OSError, ExceptionGroup, asyncio.CancelledError):
            return  # One side has gone: so does the other.
        finally:
            self._clients.discard(client)
            for writer in (client, server):
                if writer is not None:
                    writer.transport.abort()
            await asyncio.sleep(0)
            self._tasks.discard(task)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        while piece := await reader.read(_AT_ONCE):
            if is_answer:
                await let_pass(self.delay_s)
            writer.write(piece)
            await writer.drain()
        raise ConnectionError
