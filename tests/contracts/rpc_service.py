"""A service that tests of hosts can steer over the network alone, wherever it runs.

Handlers wait for named events and set them; the tests do the same through `Await` and `Set`,
so that nothing sleeps and nothing is shared but the connection. Messages are plain text.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import replace

from extauthz.errors import MalformedRequest
from extauthz.serving.door import Door, DoorListener
from extauthz.serving.health import HealthState, HealthStatus
from extauthz.serving.listen import ListenAddress
from extauthz.serving.load import Load
from extauthz.serving.methods import (
    Call,
    ClientStreamMethod,
    Method,
    RpcCode,
    RpcFailure,
    ServerStreamMethod,
    TextNames,
    UnaryMethod,
)
from extauthz.serving.tls import TlsFiles

SERVICE = "test.Contract"
OTHER_SERVICE = "test.Other"
DOOR, OTHER_DOOR = "main", "other"
ASKED = TextNames(("x-number", "x-raw-bin", "x-missing"))
"""Metadata that `Describe` asks for by name."""
SECRET = "what-an-exception-says"  # an exception's text, that no caller may read


def a_door(*, max_in_flight: int = 100, max_streams: int = 100, max_watchers: int = 100) -> Door:
    """The contract service behind a door of its own, overall health SERVING."""
    health = HealthState([SERVICE], max_watchers=max_watchers)
    health.set_all(HealthStatus.SERVING)
    service = ContractService(health)
    load = Load(max_in_flight=max_in_flight, max_streams=max_streams)
    return Door(service.methods(), health=health, load=load)


def make_doors(**bounds: int) -> dict[str, Door]:
    """`a_door`, and another with the same methods of `OTHER_SERVICE`; they share one load."""
    door = a_door(**bounds)
    health = HealthState([OTHER_SERVICE])
    health.set_all(HealthStatus.SERVING)
    methods = [
        replace(method, path=method.path.replace(SERVICE, OTHER_SERVICE))
        for method in ContractService(health).methods()
    ]
    return {DOOR: door, OTHER_DOOR: Door(methods, health=health, load=door.load)}


def listen_on(*addresses: ListenAddress, tls: TlsFiles | None = None) -> tuple[DoorListener]:
    """The listeners of a host that serves `a_door` alone."""
    return (_listen(DOOR, SERVICE, addresses, tls),)


def listen_for_other(*addresses: ListenAddress, tls: TlsFiles | None = None) -> DoorListener:
    """The listener of the other door."""
    return _listen(OTHER_DOOR, OTHER_SERVICE, addresses, tls)


def _listen(
    door: str, service: str, addresses: tuple[ListenAddress, ...], tls: TlsFiles | None
) -> DoorListener:
    return DoorListener(
        door=door,
        addresses=addresses,
        tls=tls,
        client_streams=(f"/{service}/Join", f"/{service}/JoinLate"),
    )


class ContractService:
    def __init__(self, health: HealthState) -> None:
        self._health = health
        self._events: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def methods(self) -> list[Method]:
        return [
            _unary("Echo", self.echo),
            _unary("Describe", self.describe),
            _unary("Fail", self.fail),
            _unary("Explode", self.explode),
            _unary("ExplodeInternally", self.explode, failure_code=RpcCode.INTERNAL),
            _unary("LoseSharedCall", self.lose_shared_call),
            _unary("Wait", self.wait),
            _unary("AnswerThoughCancelled", self.answer_though_cancelled),
            _unary("Picky", self.echo, decode=refuse_to_decode),
            _unary("Await", self.await_event, exempt=True),
            _unary("Set", self.set_event, exempt=True),
            _unary("SetHealth", self.set_health, exempt=True),
            ClientStreamMethod(path=path_of("Join"), decode=_text, handle=self.join, encode=_raw),
            ClientStreamMethod(
                path=path_of("JoinLate"), decode=_text, handle=self.join_late, encode=_raw
            ),
            _server_stream("Count", self.count),
            _server_stream("CountAndFail", self.count_and_fail),
            _server_stream("CountAndExplode", self.count_and_explode),
            _server_stream("SetWhenLeft", self.set_when_left),
        ]

    async def echo(self, text: str, _: Call) -> str:
        return text

    async def describe(self, _: str, call: Call) -> str:
        deadline_s = call.deadline.monotonic_s
        return json.dumps(
            {
                "remaining_s": None if deadline_s is None else deadline_s - time.monotonic(),
                "metadata": [
                    [name, value.hex() if isinstance(value, bytes) else value]
                    for name, value in call.metadata
                ],
                "peer": call.peer,
                "texts": dict(call.caller.read_texts(ASKED)),
            }
        )

    async def fail(self, text: str, __: Call) -> str:
        code, _, message = text.partition(":")
        raise RpcFailure(RpcCode[code], message)

    async def explode(self, _: str, __: Call) -> str:
        raise ValueError(SECRET)

    async def lose_shared_call(self, _: str, __: Call) -> str:
        shared: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        shared.cancel()
        return await shared

    async def wait(self, name: str, _: Call) -> str:
        self._events[f"entered {name}"].set()
        try:
            await self._events[f"release {name}"].wait()
        except asyncio.CancelledError:
            self._events[f"cancelled {name}"].set()
            raise
        return f"released {name}"

    async def answer_though_cancelled(self, name: str, call: Call) -> str:
        try:
            return await self.wait(name, call)
        except asyncio.CancelledError:
            return "allowed"

    async def await_event(self, name: str, _: Call) -> str:
        await self._events[name].wait()
        return name

    async def set_event(self, name: str, _: Call) -> str:
        self._events[name].set()
        return name

    async def set_health(self, text: str, __: Call) -> str:
        service, _, status = text.partition("=")
        self._health.set(service, HealthStatus[status])
        return text

    async def join(self, texts: AsyncIterator[str], _: Call) -> str:
        heard: list[str] = []
        self._events["join begun"].set()
        try:
            async for text in texts:
                heard.append(text)
                self._events[f"heard {text}"].set()
                if text == "enough":
                    break
        finally:
            self._events["join ended"].set()
        return ",".join(heard)

    async def join_late(self, texts: AsyncIterator[str], _: Call) -> str:
        self._events["entered late"].set()
        await self._events["release late"].wait()
        return str(sum([len(text) async for text in texts]))

    async def count(self, text: str, _: Call) -> AsyncGenerator[str, None]:
        for number in range(int(text)):
            yield str(number)

    async def count_and_fail(self, text: str, call: Call) -> AsyncGenerator[str, None]:
        async for number in self.count(text, call):
            yield number
        raise RpcFailure(RpcCode.OUT_OF_RANGE, "no more numbers")

    async def count_and_explode(self, text: str, call: Call) -> AsyncGenerator[str, None]:
        async for number in self.count(text, call):
            yield number
        raise ValueError(SECRET)

    async def set_when_left(self, name: str, _: Call) -> AsyncGenerator[str, None]:
        try:
            yield "ready"
            await asyncio.Event().wait()
        finally:
            self._events[name].set()


def path_of(name: str) -> str:
    return f"/{SERVICE}/{name}"


def refuse_to_decode(_: bytes) -> str:
    raise MalformedRequest(SECRET)


def _text(raw: bytes) -> str:
    return raw.decode()


def _raw(text: str) -> bytes:
    return text.encode()


def _unary(
    name: str,
    handle: Callable[[str, Call], Awaitable[str]],
    *,
    decode: Callable[[bytes], str] = _text,
    failure_code: RpcCode = RpcCode.UNAVAILABLE,
    exempt: bool = False,
) -> Method:
    return UnaryMethod(
        path=path_of(name),
        decode=decode,
        handle=handle,
        encode=_raw,
        failure_code=failure_code,
        exempt=exempt,
    )


def _server_stream(name: str, handle: Callable[[str, Call], AsyncGenerator[str, None]]) -> Method:
    return ServerStreamMethod(path=path_of(name), decode=_text, handle=handle, encode=_raw)
