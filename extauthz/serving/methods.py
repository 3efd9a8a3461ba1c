"""The table of RPC methods: what a door offers, in terms that every host can serve.

A method is its path, how its bytes are read and written, and its handler. No handler knows its
host, and no host knows a handler. What a handler may know of its call is in `Call`. A handler
that wants a status other than OK raises `RpcFailure`; everything else that it raises is an
accident, which `extauthz.serving.door` turns into the method's `failure_code`.
"""

from __future__ import annotations

import enum
import re
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Generic, Protocol, TypeAlias, TypeVar

from extauthz.model.values import request_value
from extauthz.ports import NO_DEADLINE, Deadline

Metadata: TypeAlias = tuple[tuple[str, str | bytes], ...]
Req = TypeVar("Req")
Res = TypeVar("Res")

_PATH = re.compile(r"/[A-Za-z_][\w.]*/[A-Za-z_]\w*", re.ASCII)


class RpcCode(enum.IntEnum):
    """The status codes of gRPC, by their numbers on the wire (`grpc-status`)."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class RpcFailure(Exception):
    """The status that a call ends with instead of an answer. The caller reads the message."""

    def __init__(self, code: RpcCode, message: str) -> None:
        if code is RpcCode.OK:
            raise ValueError("OK is not a failure; return an answer instead")
        super().__init__(f"{code.name}: {message}")
        self.code = code
        self.message = message


def find_deadline(remaining_s: float | None) -> Deadline:
    """When a handler has to be done, for a caller that waits so much longer.

    A tenth of it, 20 ms at most, is for the answer's way back. An answer that comes together
    with the caller's own time-out may lose the race, and a proxy that lets failures pass would
    then let through what was just denied.
    """
    if remaining_s is None:
        return NO_DEADLINE
    margin_s = min(0.02, max(0.0, remaining_s) / 10)
    return Deadline(monotonic_s=time.monotonic() + remaining_s - margin_s)


class Caller(Protocol):
    """What a host can tell of who called. It is read when a handler asks: few do."""

    def read_metadata(self) -> Metadata:
        """See `Call.metadata`."""

    def read_peer(self) -> str:
        """See `Call.peer`."""


class _Nobody:
    """The caller of a call that came through no host."""

    def read_metadata(self) -> Metadata:
        return ()

    def read_peer(self) -> str:
        return ""


NOBODY: Final[Caller] = _Nobody()


@request_value(frozen=True, slots=True, kw_only=True)
class Call:
    """What a handler may know of its call.

    Attributes:
        deadline: when the handler has to be done; a moment before the caller stops waiting.
    """

    deadline: Deadline = NO_DEADLINE
    caller: Caller = NOBODY

    @property
    def metadata(self) -> Metadata:
        """What was sent along, in the order of arrival, duplicates kept.

        Names are in lower case; the value of a name that ends in ``-bin`` is bytes.

        Raises:
            RpcFailure: INTERNAL when one of those is not what gRPC writes.
        """
        return self.caller.read_metadata()

    @property
    def peer(self) -> str:
        """Who opened the connection, as ``ipv4:127.0.0.1:40112`` or ``unix:``."""
        return self.caller.read_peer()

    def find_metadata(self, name: str) -> str | bytes | None:
        """The first value under the name (any case), or None."""
        name = name.lower()
        return next((value for key, value in self.metadata if key == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Method(Generic[Req, Res]):
    """What all kinds of method have.

    Attributes:
        path: as it stands in HTTP/2's ``:path``, like ``/package.Service/Method``.
        decode: raises MalformedRequest for bytes that are no request; the caller then reads
            INVALID_ARGUMENT. A handler that judges bad bytes itself takes `bytes` here.
        failure_code: what the caller reads when the handler raised something unforeseen.
            UNAVAILABLE by default: Envoy's `failure_mode_allow` and `status_on_error` apply to
            it, and it says that nothing was decided.
        exempt: neither counted nor refused when there is too much to do. For questions about
            the service itself.
    """

    path: str
    decode: Callable[[bytes], Req]
    encode: Callable[[Res], bytes]
    failure_code: RpcCode = RpcCode.UNAVAILABLE
    exempt: bool = False

    def __post_init__(self) -> None:
        if not _PATH.fullmatch(self.path):
            raise ValueError(f"not a method path: {self.path!r}; write /package.Service/Method")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnaryMethod(_Method[Req, Res]):
    """One request, one answer."""

    handle: Callable[[Req, Call], Awaitable[Res]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientStreamMethod(_Method[Req, Res]):
    """Requests until the caller has no more, then one answer.

    The handler's iterator also ends when the service stops, so that a stream which stays open
    for hours does not hold up the stop; the handler then answers as usual. A caller that has
    gone looks the same, shortly before the handler is cancelled.
    """

    handle: Callable[[AsyncIterator[Req], Call], Awaitable[Res]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStreamMethod(_Method[Req, Res]):
    """One request, answers until the handler has no more. The handler is an async generator."""

    handle: Callable[[Req, Call], AsyncGenerator[Res, None]]


Method: TypeAlias = (
    UnaryMethod[Any, Any] | ClientStreamMethod[Any, Any] | ServerStreamMethod[Any, Any]
)


class MethodTable:
    """Methods by path. No path stands in it twice."""

    def __init__(self, methods: Iterable[Method]) -> None:
        by_path: dict[str, Method] = {}
        for method in methods:
            if by_path.setdefault(method.path, method) is not method:
                raise ValueError(f"two methods under one path: {method.path}")
        self._by_path: Mapping[str, Method] = MappingProxyType(by_path)

    def find(self, path: str) -> Method | None:
        """The method under the path, or None."""
        return self._by_path.get(path)

    def __iter__(self) -> Iterator[Method]:
        return iter(self._by_path.values())

    def __len__(self) -> int:
        return len(self._by_path)
