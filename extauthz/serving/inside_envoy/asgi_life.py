"""Opens and closes doors inside a server that loads them as an ASGI application.

The server is a process of its own, controlled through `extauthz.serving.workers.control`. Its first
message is ``{"parameters": ..., "doors": {...}, "folder": ...}``: the parameters of the function
that opens the doors, the names of the doors to serve with the paths of their client streams (see
`DoorListener.client_streams`), and a folder, which this process removes when its parent has died.
The words ``drain`` and ``cancel`` and the questions `ROUTE` and `REFUSED` are answered here; all
others are passed to the owner of the doors.

Python's standard error is a separate file (`STDERR_FD`), to distinguish it from the server's own.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from extauthz.serving.door import Door
from extauthz.serving.inside_envoy.asgi_doors import AsgiDoors
from extauthz.serving.inside_envoy.grpc_asgi import Receive, Scope, Send
from extauthz.serving.limits import HostLimits
from extauthz.serving.methods import ClientStreamMethod
from extauthz.serving.workers.control import Questions, Steered, Words

STDERR_FD: Final = "EXTAUTHZ_STDERR_FD"
END: Final = "end"
"""The word before an intended end; an end without it means that the parent may have died."""
ROUTE: Final = "route"
"""The question with the door of each address; its answer is empty."""
REFUSED: Final = "refused"
"""The question with the number of calls that the server itself refused; its answer is empty."""

_ALONE_S: Final = 2.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenedDoors:
    """Doors by name, and the questions that their owner answers."""

    doors: Mapping[str, Door]
    limits: HostLimits = HostLimits()
    words: Words = field(default_factory=dict)
    questions: Questions = field(default_factory=dict)


OpenDoors: TypeAlias = Callable[[Any], AbstractAsyncContextManager[OpenedDoors]]
AsgiApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]


def make_app(open_doors: OpenDoors) -> AsgiApp:
    """Makes an ASGI application that opens the doors at startup, and closes them at shutdown."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await scope["state"]["calls"](scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(open_doors, scope, receive, send)

    return app


async def _live(open_doors: OpenDoors, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()
    sys.stderr = open(int(os.environ[STDERR_FD]), "w", buffering=1)  # noqa: ASYNC230, PTH123, SIM115 - open until the end
    steered = await Steered.connect()
    opened = False
    folder = None
    ending: list[bool] = []
    try:
        first = await steered.read_first()
        folder = first["folder"]
        async with open_doors(first["parameters"]) as opened_doors:
            served = {
                name: _check_streams(opened_doors.doors[name], streams)
                for name, streams in first["doors"].items()
            }
            calls = scope["state"]["calls"] = AsgiDoors(served, opened_doors.limits)
            obeying = asyncio.create_task(_obey(steered, calls, opened_doors, ending))
            opened = True
            steered.say_open()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            obeying.cancel()
            await asyncio.gather(obeying, return_exceptions=True)
    except Exception as exc:  # noqa: BLE001 - whatever it was, the other end must be told
        if opened:
            _log.exception("stopping failed because of a defect")
        else:
            steered.say_failed(exc)
            await send({"type": "lifespan.startup.failed", "message": "see the log"})
            return
    finally:
        if folder is not None and not ending and await steered.is_alone(_ALONE_S):
            shutil.rmtree(folder, ignore_errors=True)
        steered.close()
    await send({"type": "lifespan.shutdown.complete"})


def _check_streams(door: Door, expected: Collection[str]) -> Door:
    """Checks that a door has exactly the client streams for which the server does not buffer.

    Raises:
        ValueError: it has others, whose requests the server would buffer until their end.
    """
    streams = {it.path for it in door.table if isinstance(it, ClientStreamMethod)}
    if streams != set(expected):
        told, there = sorted(expected), sorted(streams)
        raise ValueError(f"the listener names the client streams {told}, its door has {there}")
    return door


async def _obey(
    steered: Steered, calls: AsgiDoors, opened: OpenedDoors, ending: list[bool]
) -> None:
    async def route(doors: Mapping[str, str]) -> None:
        calls.route(doors)

    async def count_refused(calls_refused: int) -> None:
        calls.count_refused(calls_refused)

    words = {**opened.words, "drain": calls.drain, "cancel": calls.cancel_all}
    words[END] = partial(ending.append, True)
    await steered.obey(words, {**opened.questions, ROUTE: route, REFUSED: count_refused})
    _log.error("the process that started this server has ended; the server stops")
    os.kill(os.getpid(), signal.SIGTERM)
