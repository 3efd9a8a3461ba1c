"""Serves grpc.health.v1: the status of each service.

The status is what the application sets; it starts as NOT_SERVING, so that no traffic comes before
the service can decide. The service "" stands for the whole. A watcher gets the newest status, never
a backlog of old ones. After `shut_down` every status is NOT_SERVING for good, and every watch ends
when its caller has got that.
Source: https://github.com/grpc/grpc-proto/blob/master/grpc/health/v1/health.proto
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import aclosing
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from extauthz.errors import MalformedRequest
from extauthz.serving.methods import (
    Call,
    Method,
    RpcCode,
    RpcFailure,
    ServerStreamMethod,
    UnaryMethod,
)
from extauthz.serving.proto.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)

HEALTH_SERVICE = "grpc.health.v1.Health"
OVERALL = ""
DEFAULT_MAX_WATCHERS = 1000

_M = TypeVar("_M", bound=Message)


class HealthStatus(enum.IntEnum):
    """`HealthCheckResponse.ServingStatus`, by its numbers on the wire."""

    UNKNOWN = 0
    SERVING = 1
    NOT_SERVING = 2
    SERVICE_UNKNOWN = 3


class HealthState:
    """The status of each service. One event loop uses it; it is not safe across threads."""

    def __init__(
        self, services: Iterable[str] = (), *, max_watchers: int = DEFAULT_MAX_WATCHERS
    ) -> None:
        self._statuses = dict.fromkeys((OVERALL, *services), HealthStatus.NOT_SERVING)
        self._max_watchers = max_watchers
        self._wake_ups: set[asyncio.Event] = set()
        self._ended = False

    @property
    def statuses(self) -> Mapping[str, HealthStatus]:
        """A copy of every service's status, the overall one under ""."""
        return dict(self._statuses)

    @property
    def watchers(self) -> int:
        """Watch calls that are open now."""
        return len(self._wake_ups)

    def find(self, service: str) -> HealthStatus | None:
        """The service's status, or None when none was ever set."""
        return self._statuses.get(service)

    def set(self, service: str, status: HealthStatus) -> None:
        """Sets one service's status and tells its watchers. Ignored after `shut_down`."""
        if self._ended:
            return
        self._statuses[service] = status
        self._wake_watchers()

    def set_all(self, status: HealthStatus) -> None:
        """Sets the status of every known service and the overall one."""
        for service in self._statuses:
            self.set(service, status)

    def shut_down(self) -> None:
        """Makes every status NOT_SERVING for good, and lets every watch end."""
        self.set_all(HealthStatus.NOT_SERVING)
        self._ended = True
        self._wake_watchers()

    async def watch(self, service: str) -> AsyncGenerator[HealthStatus, None]:
        """The current status, then each new one; SERVICE_UNKNOWN while none is set.

        Raises:
            RpcFailure: RESOURCE_EXHAUSTED when there are too many watchers.
        """
        if len(self._wake_ups) >= self._max_watchers:
            raise RpcFailure(RpcCode.RESOURCE_EXHAUSTED, "too many health watchers")
        wake_up = asyncio.Event()
        self._wake_ups.add(wake_up)
        told = None
        try:
            while True:
                wake_up.clear()
                status = self._statuses.get(service, HealthStatus.SERVICE_UNKNOWN)
                if status is not told:
                    told = status
                    yield status
                elif self._ended:
                    return
                else:
                    await wake_up.wait()
        finally:
            self._wake_ups.discard(wake_up)

    def _wake_watchers(self) -> None:
        for wake_up in self._wake_ups:
            wake_up.set()


def health_methods(state: HealthState) -> tuple[Method, ...]:
    """Check, List and Watch over the state."""

    async def check(request: HealthCheckRequest, _: Call) -> HealthCheckResponse:
        status = state.find(request.service)
        if status is None:
            raise RpcFailure(RpcCode.NOT_FOUND, "unknown service")
        return _write_status(status)

    async def list_all(_: HealthListRequest, __: Call) -> HealthListResponse:
        return HealthListResponse(
            statuses={name: _write_status(status) for name, status in state.statuses.items()}
        )

    async def watch(
        request: HealthCheckRequest, _: Call
    ) -> AsyncGenerator[HealthCheckResponse, None]:
        async with aclosing(state.watch(request.service)) as statuses:
            async for status in statuses:
                yield _write_status(status)

    return (
        UnaryMethod(
            path=f"/{HEALTH_SERVICE}/Check",
            decode=_reader_of(HealthCheckRequest),
            handle=check,
            encode=HealthCheckResponse.SerializeToString,
            exempt=True,
        ),
        UnaryMethod(
            path=f"/{HEALTH_SERVICE}/List",
            decode=_reader_of(HealthListRequest),
            handle=list_all,
            encode=HealthListResponse.SerializeToString,
            exempt=True,
        ),
        ServerStreamMethod(
            path=f"/{HEALTH_SERVICE}/Watch",
            decode=_reader_of(HealthCheckRequest),
            handle=watch,
            encode=HealthCheckResponse.SerializeToString,
            exempt=True,
        ),
    )


def _write_status(status: HealthStatus) -> HealthCheckResponse:
    return HealthCheckResponse(status=HealthCheckResponse.ServingStatus.Name(status))


def _reader_of(kind: type[_M]) -> Callable[[bytes], _M]:
    def read(raw: bytes) -> _M:
        try:
            return kind.FromString(raw)
        except DecodeError as exc:
            raise MalformedRequest(f"not a {kind.__name__}") from exc

    return read
