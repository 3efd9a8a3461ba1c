"""Defines the RPC methods of a door in terms that every host can serve.

A method has a path, functions that read and write its messages, and a handler. No handler knows its
host, and no host knows a handler. What a handler may know of its call is in `Call`. A handler ends
a call with a status other than OK by raising `RpcFailure`; `extauthz.serving.door` turns any other
exception into the method's `failure_code`.
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
    """The deadline of a handler whose caller waits for `remaining_s` more; None for no bound.

    A tenth of it, at most 20 ms, is reserved for sending the answer. An answer that arrives
    together with the caller's own time-out may be too late, and a proxy that lets failures pass
    would then let a denied request through.
    """
    if remaining_s is None:
        return NO_DEADLINE
    margin_s = min(0.02, max(0.0, remaining_s) / 10)
    return Deadline(monotonic_s=time.monotonic() + remaining_s - margin_s)


class TextNames:
    """Names of metadata that is text, in lower case, in the forms in which hosts look for them."""

    __slots__ = ("by_bytes", "texts")

    def __init__(self, names: Iterable[str]) -> None:
        self.texts = frozenset(names)
        self.by_bytes = {name.encode(): name for name in self.texts}


class Caller(Protocol):
    """What a host knows of a caller. It is read only when a handler needs it, which is rare."""

    def read_metadata(self) -> Metadata:
        """See `Call.metadata`."""

    def read_texts(self, names: TextNames) -> Mapping[str, str]:
        """What was sent as text under those of the names that are there. Raises nothing.

        Of several values under one name it gives one.
        """

    def read_peer(self) -> str:
        """See `Call.peer`."""


class _Nobody:
    """The caller of a call that came through no host."""

    def read_metadata(self) -> Metadata:
        return ()

    def read_texts(self, names: TextNames) -> Mapping[str, str]:
        return {}

    def read_peer(self) -> str:
        return ""


NOBODY: Final[Caller] = _Nobody()


@request_value(frozen=True, slots=True, kw_only=True)
class Call:
    """What a handler may know of its call.

    Attributes:
        deadline: when the handler must have ended; shortly before the caller stops waiting.
    """

    deadline: Deadline = NO_DEADLINE
    caller: Caller = NOBODY

    @property
    def metadata(self) -> Metadata:
        """The call's metadata in the order of arrival, with duplicates.

        Names are in lower case; the value of a name that ends in ``-bin`` is bytes.

        Raises:
            RpcFailure: INTERNAL when such a value is not valid.
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
        path: HTTP/2's ``:path``, like ``/package.Service/Method``.
        decode: raises MalformedRequest for bytes that are no request; the caller then reads
            INVALID_ARGUMENT. A handler that judges bad bytes itself takes `bytes` here.
        failure_code: the status that the caller gets after an unforeseen exception of the handler.
            UNAVAILABLE by default: Envoy's `failure_mode_allow` and `status_on_error` apply to it,
            and it means that no decision was made.
        exempt: neither counted nor refused under load. For calls about the service itself.
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

    The handler's iterator also ends when the service stops, so that a stream which stays open for
    hours does not delay the stop; the handler then answers as usual. It also ends when the caller
    has gone, shortly before the handler is cancelled.
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
    """Methods by path; no path occurs twice."""

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
