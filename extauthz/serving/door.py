"""What stands behind every host of one door: its methods, health, and the bound on its load.

Here, and in no host, it is decided what becomes of a call: whether there is room for it,
whether its caller still waits, what it reads when its bytes are no request or its handler
fails. A host only carries bytes, metadata, deadlines and cancellation, and writes the
`RpcFailure` that it is given.

- An unforeseen exception is logged once with its traceback. The caller reads the method's
  failure code and a fixed text, never the exception's.
- A cancelled call ends in CancelledError, whatever its handler made of the cancellation: it
  is never answered, and never logged as a failure.
- A CancelledError that nobody asked for (a shared look-up whose owner was cancelled) is an
  unforeseen exception like any other: the caller must not be left waiting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
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

MALFORMED = "the message could not be decoded"
LATE = "the deadline passed before the call was handled"
FAILED = "the call could not be handled"

_log = logging.getLogger(__name__)


class Host(Protocol):
    """Serves one door on the network. Every host passes tests/contracts/test_hosts.py."""

    @property
    def addresses(self) -> tuple[ListenAddress, ...]:
        """Where it listens, in the order asked for, with the real port in place of port 0."""

    async def start(self) -> None:
        """Opens every listener, or none.

        Raises:
            ListenError: an address cannot be listened on.
            ConfigError: the TLS files cannot be used.
        """

    async def wait_ended(self) -> None:
        """Waits until it serves no more.

        Raises:
            ExtauthzError: it was not told to stop.
        """

    async def stop(self, grace_s: float) -> None:
        """Drains the door, takes no new calls, and cancels what is left after the grace."""


class Door:
    """A table of methods with health, behind one bound on its load."""

    def __init__(self, methods: Iterable[Method], *, health: HealthState, load: Load) -> None:
        self.table = MethodTable((*methods, *health_methods(health)))
        self.health = health
        self.load = load

    def drain(self) -> None:
        """Says NOT_SERVING, and lets watches and client streams come to their end."""
        self.health.shut_down()
        self.load.drain()

    async def answer_unary(
        self, method: UnaryMethod[Any, Any], message: bytes, call: Call
    ) -> bytes:
        """The answer's bytes.

        Raises:
            RpcFailure: the status to send instead.
        """
        with self._room(method, self.load.calls), _failures(method):
            _check_deadline(call)
            answer = await method.handle(_decode(method, message), call)
            _check_not_cancelled()
            return method.encode(answer)

    async def answer_client_stream(
        self, method: ClientStreamMethod[Any, Any], messages: AsyncIterator[bytes], call: Call
    ) -> bytes:
        """The answer's bytes, once the messages have ended or the handler has heard enough.

        Raises:
            RpcFailure: the status to send instead.
        """
        with self._room(method, self.load.streams), _failures(method):
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
        with self._room(method, self.load.streams), _failures(method):
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


@contextmanager
def _failures(method: Method) -> Iterator[None]:
    try:
        yield
    except (RpcFailure, asyncio.CancelledError, Exception) as exc:
        if _is_cancelled():
            if isinstance(exc, asyncio.CancelledError):
                raise
            raise asyncio.CancelledError from exc
        if isinstance(exc, RpcFailure):
            raise
        _log.exception("%s failed", method.path)
        raise RpcFailure(method.failure_code, FAILED) from exc


def _decode(method: Method, message: bytes) -> Any:
    try:
        return method.decode(message)
    except MalformedRequest as exc:
        _log.debug("%s was sent bytes that are no request: %s", method.path, exc)
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
