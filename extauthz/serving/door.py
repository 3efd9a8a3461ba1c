"""Doors: RPC methods with health and a bound on their load, independent of the host.

A door decides what happens to a call: whether there is room for it, whether its caller still
waits, and which status it gets when its bytes are no request or its handler fails. A host only
carries bytes, metadata, deadlines and cancellation, and writes the `RpcFailure` that it is given.

- An unforeseen exception is logged once with its traceback. The caller reads the method's
  failure code and a fixed text, never the exception's.
- A cancelled call ends in CancelledError, whatever its handler does with the cancellation: it is
  never answered, and never logged as a failure.
- A CancelledError without a cancelled call (as of a shared look-up whose owner was cancelled) is an
  unforeseen exception like any other: the caller must get an answer.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol

from extauthz.errors import MalformedRequest
from extauthz.serving.health import HealthState, health_methods
from extauthz.serving.listen import ListenAddress
from extauthz.serving.load import Bound, Load
from extauthz.serving.methods import (
    Call,
    ClientStreamMethod,
    Method,
    MethodTable,
    RpcCode,
    RpcFailure,
    ServerStreamMethod,
    UnaryMethod,
)
from extauthz.serving.tls import TlsFiles

MALFORMED = "the message could not be decoded"
LATE = "the deadline passed before the call was handled"
SLOW = "the message took too long to arrive"
FAILED = "the call could not be handled"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorListener:
    """The addresses of the door of this name, and its certificates.

    Attributes:
        client_streams: paths of its methods whose request is a stream. A host that waits for
            whole requests lets these pass as they come.
    """

    door: str
    addresses: tuple[ListenAddress, ...]
    tls: TlsFiles | None = None
    client_streams: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.addresses:
            raise ValueError(f"the door {self.door!r} needs at least one address to listen on")


def check_listeners(listeners: Sequence[DoorListener]) -> tuple[DoorListener, ...]:
    """The listeners of a host: at least one, each of a door of its own.

    Raises:
        ValueError: they are not.
    """
    names = [listener.door for listener in listeners]
    if not names:
        raise ValueError("a host needs at least one address to listen on")
    if len(set(names)) < len(names):
        raise ValueError("two listeners of one door; give one listener all its addresses")
    return tuple(listeners)


class Host(Protocol):
    """Serves doors on the network, each on addresses of its own.

    No method of a door can be called through another's addresses. Every host passes
    tests/contracts/test_hosts*.py.
    """

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """The addresses, in the order of the settings, with the actual ports in place of port 0."""

    async def start(self) -> None:
        """Opens every listener, or none.

        Raises:
            ListenError: an address cannot be listened on.
            ConfigError: the TLS files cannot be used.
        """

    async def wait_ended(self) -> None:
        """Waits until it no longer serves.

        Raises:
            ExtauthzError: it ended without a call of `stop`.
        """

    async def stop(self, grace_s: float) -> None:
        """Drains every door, takes no new calls, and cancels what is left after the grace."""


class Door:
    """A table of methods with health, behind one bound on its load."""

    def __init__(self, methods: Iterable[Method], *, health: HealthState, load: Load) -> None:
        self.table = MethodTable((*methods, *health_methods(health)))
        self.health = health
        self.load = load

    def drain(self) -> None:
        """Sets health to NOT_SERVING, and lets watches and client streams end."""
        self.health.shut_down()
        self.load.drain()

    async def answer_unary(
        self, method: UnaryMethod[Any, Any], message: bytes, call: Call
    ) -> bytes:
        """The answer's bytes.

        Raises:
            RpcFailure: the status to send instead.
        """
        with self._room(method, self.load.calls), _Failures(method):
            _check_deadline(call)
            answer = await method.handle(_decode(method, message), call)
            _check_not_cancelled()
            return method.encode(answer)

    async def answer_client_stream(
        self, method: ClientStreamMethod[Any, Any], messages: AsyncIterator[bytes], call: Call
    ) -> bytes:
        """The answer's bytes, once the messages have ended or the handler needs no more.

        Raises:
            RpcFailure: the status to send instead.
        """
        with self._room(method, self.load.streams), _Failures(method):
            _check_deadline(call)
            async with aclosing(self._requests(method, messages)) as requests:
                answer = await method.handle(requests, call)
            _check_not_cancelled()
            return method.encode(answer)

    async def answer_server_stream(
        self, method: ServerStreamMethod[Any, Any], message: bytes, call: Call
    ) -> AsyncGenerator[bytes, None]:
        """The bytes of each answer.

        Raises:
            RpcFailure: the status to end with instead of OK.
        """
        with self._room(method, self.load.streams), _Failures(method):
            _check_deadline(call)
            async with aclosing(method.handle(_decode(method, message), call)) as answers:
                async for answer in answers:
                    _check_not_cancelled()
                    yield method.encode(answer)

    async def _requests(
        self, method: Method, messages: AsyncIterator[bytes]
    ) -> AsyncGenerator[Any, None]:
        while (message := await self.load.find_next(messages)) is not None:
            yield _decode(method, message)

    @staticmethod
    def _room(method: Method, bound: Bound) -> AbstractContextManager[None]:
        return nullcontext() if method.exempt else bound


class _Failures:
    """Turns every exception of a handler into the status that its caller gets."""

    __slots__ = ("_method",)

    def __init__(self, method: Method) -> None:
        self._method = method

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(error, RpcFailure | asyncio.CancelledError | Exception):
            return
        if _is_cancelled():
            if isinstance(error, asyncio.CancelledError):
                return
            raise asyncio.CancelledError from error
        if isinstance(error, RpcFailure):
            return
        _log.error("%s failed", self._method.path, exc_info=error)
        raise RpcFailure(self._method.failure_code, FAILED) from error


def _decode(method: Method, message: bytes) -> Any:
    try:
        return method.decode(message)
    except MalformedRequest as exc:
        _log.debug("%s received bytes that are not a request: %s", method.path, exc)
        raise RpcFailure(RpcCode.INVALID_ARGUMENT, MALFORMED) from exc


def _check_deadline(call: Call) -> None:
    deadline_s = call.deadline.monotonic_s
    if deadline_s is not None and deadline_s <= time.monotonic():
        raise RpcFailure(RpcCode.DEADLINE_EXCEEDED, LATE)


def _check_not_cancelled() -> None:
    if _is_cancelled():
        raise asyncio.CancelledError


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
