"""The life of a door inside a server that loads it as an ASGI application.

The server is a process of its own. Whoever started it holds the other end of a socket pair,
whose number stands in the environment (`CONTROL_FD`), and speaks through it in lines of JSON:

- first comes ``{"parameters": ...}``, for the function that opens the door;
- the answer is ``{"open": true}``, or ``{"failed": ...}`` with the reasons;
- then come words: ``drain`` and ``cancel`` are known to all, others to the door's owner.

When the socket ends, whoever held it has died, and this process stops too.

Python's standard error is a file of its own (`STDERR_FD`), so that what the server itself writes
there can be told from it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import asdict, dataclass, field
from typing import Any, Final, TypeAlias

from extauthz.errors import ConfigError, ExtauthzError
from extauthz.serving.door import Door
from extauthz.serving.grpc_asgi import GrpcApp, Receive, Scope, Send
from extauthz.serving.limits import HostLimits

CONTROL_FD: Final = "EXTAUTHZ_CONTROL_FD"
STDERR_FD: Final = "EXTAUTHZ_STDERR_FD"
MAX_LINE_BYTES: Final = 16 * 1024 * 1024

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedDoor:
    """A door, and what may be asked of its owner by one word."""

    door: Door
    limits: HostLimits = HostLimits()
    words: Mapping[str, Callable[[], None]] = field(default_factory=dict)


OpenDoor: TypeAlias = Callable[[Any], AbstractAsyncContextManager[OpenedDoor]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def make_app(open_door: OpenDoor) -> AsgiApp:
    """An ASGI application that opens the door at its start, and closes it at its end."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await scope["state"]["calls"](scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(open_door, scope, receive, send)

    return app


async def _live(open_door: OpenDoor, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    sys.stderr = open(int(os.environ[STDERR_FD]), "w", buffering=1)  # noqa: ASYNC230, PTH123, SIM115 - open until the end
    control = socket.socket(fileno=int(os.environ[CONTROL_FD]))
    reader, writer = await asyncio.open_connection(sock=control, limit=MAX_LINE_BYTES)
    opened = False
    try:
        parameters = json.loads(await reader.readline())["parameters"]
        async with open_door(parameters) as open_one:
            calls = scope["state"]["calls"] = GrpcApp(open_one.door, limits=open_one.limits)
            obeying = asyncio.create_task(_obey(reader, calls, open_one))
            opened = True
            _say(writer, {"open": True})
            await send({"type": "lifespan.startup.complete"})
            await receive()
            obeying.cancel()
            await asyncio.gather(obeying, return_exceptions=True)
    except Exception as exc:  # noqa: BLE001 - whatever it was, the other end must be told
        if opened:
            _log.exception("the stop failed")
        else:
            _say(writer, {"failed": _write_failure(exc)})
            await send({"type": "lifespan.startup.failed", "message": "see the log"})
            return
    finally:
        writer.close()
    await send({"type": "lifespan.shutdown.complete"})


async def _obey(reader: asyncio.StreamReader, calls: GrpcApp, opened: OpenedDoor) -> None:
    def drain() -> None:
        opened.door.drain()
        calls.refuse_new()

    words = {**opened.words, "drain": drain, "cancel": calls.cancel_all}
    while line := await reader.readline():
        word = json.loads(line)
        try:
            words[word]()
        except Exception:  # noqa: BLE001 - the next word must still be heard
            _log.exception("%r could not be done", word)
    _log.error("whoever started this server is gone; it stops")
    os.kill(os.getpid(), signal.SIGTERM)


def _say(writer: asyncio.StreamWriter, message: object) -> None:
    writer.write(json.dumps(message).encode() + b"\n")


def _write_failure(exc: Exception) -> dict[str, Any]:
    if isinstance(exc, ConfigError):
        return {"problems": [asdict(problem) for problem in exc.problems]}
    if isinstance(exc, ExtauthzError):
        return {"message": str(exc)}
    _log.error("the start failed", exc_info=exc)
    return {"message": "the start failed; the log says more"}
