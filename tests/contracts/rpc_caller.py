"""A host that serves the contract service, and callers of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

import grpc
import pytest

from extauthz.serving.door import DoorListener, Host
from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.serving.inside_envoy.host import EnvoyHost
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import ListenAddress, read_listen_address
from extauthz.serving.proto.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
)
from extauthz.serving.tls import TlsFiles
from tests.contracts.rpc_service import (
    listen_on,
    make_doors,
    path_of,
)

LOOPBACK = read_listen_address("127.0.0.1:0")
PATIENCE_S = 20
"""No call waits longer; nothing here comes near it unless a test fails."""

SHORT_DEADLINE_S = 1
"""Passes within a test, and is long enough for a busy machine to begin the call before."""

Bounds: TypeAlias = Mapping[str, int]
Limits: TypeAlias = Mapping[str, Any]
NO_LIMITS: Limits = MappingProxyType({})
QUICK_RECONNECTS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 100),
    # In spite of its name, how long one attempt to connect may take.
    ("grpc.min_reconnect_backoff_ms", PATIENCE_S * 1000),
)

MakeHost: TypeAlias = Callable[..., Host]
Serve: TypeAlias = Callable[..., Awaitable[Host]]
Connect: TypeAlias = Callable[..., "Caller"]

Code = grpc.StatusCode
Status = HealthCheckResponse.ServingStatus


def make_grpcio_host(
    bounds: Bounds, listeners: tuple[DoorListener, ...], limits: Limits = NO_LIMITS
) -> Host:
    return GrpcioHost(make_doors(**bounds), listeners, limits=HostLimits(**limits))


def make_envoy_host(
    bounds: Bounds, listeners: tuple[DoorListener, ...], limits: Limits = NO_LIMITS
) -> Host:
    return EnvoyHost(
        "tests.contracts.rpc_app:app",
        listeners,
        parameters={"bounds": bounds, "limits": dict(limits)},
        limits=HostLimits(**limits),
    )


class Caller:
    """A connection with the contract service's methods on it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel

    def start(
        self,
        name: str,
        text: str = "",
        *,
        timeout_s: float | None = PATIENCE_S,
        metadata: tuple[tuple[str, str | bytes], ...] = (),
        until_connected: bool = False,
    ) -> grpc.aio.UnaryUnaryCall[bytes, bytes]:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(
            name if name.startswith("/") else path_of(name)
        )
        return method(
            text.encode(), timeout=timeout_s, metadata=metadata, wait_for_ready=until_connected
        )

    async def ask(self, name: str, text: str = "", *, until_connected: bool = False) -> str:
        return (await self.start(name, text, until_connected=until_connected)).decode()

    def stream(self, name: str, text: str = "") -> grpc.aio.UnaryStreamCall[bytes, bytes]:
        method: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self.channel.unary_stream(
            path_of(name)
        )
        return method(text.encode(), timeout=PATIENCE_S)

    def join(self, name: str = "Join") -> grpc.aio.StreamUnaryCall[bytes, bytes]:
        return self.channel.stream_unary(path_of(name))(timeout=PATIENCE_S)

    async def check_health(self, service: str = "") -> HealthCheckResponse.ServingStatus:
        answer: HealthCheckResponse = await self.channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )(HealthCheckRequest(service=service), timeout=PATIENCE_S)
        return answer.status

    def watch_health(
        self, service: str = ""
    ) -> grpc.aio.UnaryStreamCall[HealthCheckRequest, HealthCheckResponse]:
        method: grpc.aio.UnaryStreamMultiCallable[HealthCheckRequest, HealthCheckResponse]
        method = self.channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        return method(HealthCheckRequest(service=service), timeout=PATIENCE_S)


async def next_status(
    watch: grpc.aio.UnaryStreamCall[HealthCheckRequest, HealthCheckResponse],
) -> HealthCheckResponse.ServingStatus:
    answer = await watch.read()
    assert isinstance(answer, HealthCheckResponse)
    return answer.status


async def failure_of(call: Awaitable[object]) -> tuple[grpc.StatusCode, str | None]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


@pytest.fixture(
    params=[
        pytest.param(make_grpcio_host, id="grpcio"),
        pytest.param(make_envoy_host, id="envoy"),
    ]
)
def make_host(request: pytest.FixtureRequest) -> MakeHost:
    made: MakeHost = request.param
    return made


@pytest.fixture
async def serve(make_host: MakeHost) -> AsyncIterator[Serve]:
    hosts: list[Host] = []

    async def start(
        *,
        listen: Iterable[ListenAddress] = (LOOPBACK,),
        tls: TlsFiles | None = None,
        other: DoorListener | None = None,
        limits: Limits = NO_LIMITS,
        **bounds: int,
    ) -> Host:
        listeners = listen_on(*listen, tls=tls)
        host = make_host(bounds, listeners if other is None else (*listeners, other), limits)
        await host.start()
        hosts.append(host)
        return host

    yield start
    for host in hosts:
        await host.stop(0)


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    channels: list[grpc.aio.Channel] = []

    def open_channel(
        host: Host | ListenAddress, credentials: grpc.ChannelCredentials | None = None
    ) -> Caller:
        target = str(host if isinstance(host, ListenAddress) else host.addresses[0])
        options = [("grpc.use_local_subchannel_pool", 1), *QUICK_RECONNECTS]
        if credentials is None:
            channel = grpc.aio.insecure_channel(target, options)
        else:
            channel = grpc.aio.secure_channel(target, credentials, options)
        channels.append(channel)
        return Caller(channel)

    yield open_channel
    for channel in channels:
        await channel.close()
