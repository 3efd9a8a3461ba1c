"""What every host must do, seen from a caller's side of the network."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import grpc
import pytest
import trustme

from extauthz.errors import ConfigError
from extauthz.serving.door import DoorListener, Host
from extauthz.serving.envoy_host import EnvoyHost
from extauthz.serving.grpcio_host import GrpcioHost
from extauthz.serving.listen import ListenAddress, ListenError, read_listen_address
from extauthz.serving.proto.health_pb2 import (
    HealthCheckRequest,
    HealthCheckResponse,
    HealthListRequest,
    HealthListResponse,
)
from extauthz.serving.tls import TlsFiles
from tests.contracts.rpc_service import (
    DOOR,
    OTHER_DOOR,
    OTHER_SERVICE,
    SECRET,
    SERVICE,
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
QUICK_RECONNECTS = tuple(
    (f"grpc.{which}_reconnect_backoff_ms", 100) for which in ("initial", "min", "max")
)

MakeHost: TypeAlias = Callable[[Bounds, tuple[DoorListener, ...]], Host]
Serve: TypeAlias = Callable[..., Awaitable[Host]]
Connect: TypeAlias = Callable[..., "Caller"]

Code = grpc.StatusCode
Status = HealthCheckResponse.ServingStatus


def make_grpcio_host(bounds: Bounds, listeners: tuple[DoorListener, ...]) -> Host:
    return GrpcioHost(make_doors(**bounds), listeners)


def make_envoy_host(bounds: Bounds, listeners: tuple[DoorListener, ...]) -> Host:
    return EnvoyHost("tests.contracts.rpc_app:app", listeners, parameters={"bounds": bounds})


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
        **bounds: int,
    ) -> Host:
        listeners = listen_on(*listen, tls=tls)
        host = make_host(bounds, listeners if other is None else (*listeners, other))
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


# Answers and failures


async def test_answers_a_unary_call(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    assert await caller.ask("Echo", "hällo") == "hällo"
    assert await caller.ask("Echo", "") == ""


@pytest.mark.parametrize("path", ["/test.Contract/Nope", "/other.Service/Echo", "/no-path"])
async def test_says_unimplemented_for_an_unknown_method(
    path: str, serve: Serve, connect: Connect
) -> None:
    code, _ = await failure_of(connect(await serve()).start(path))
    assert code is Code.UNIMPLEMENTED


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK])
async def test_a_failure_keeps_its_code_and_message(
    code: grpc.StatusCode, serve: Serve, connect: Connect
) -> None:
    caller = connect(await serve())
    seen = failure_of(caller.start("Fail", f"{code.name}:100 % of the ümlauts"))
    assert await seen == (code, "100 % of the ümlauts")


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("Explode", Code.UNAVAILABLE),
        ("ExplodeInternally", Code.INTERNAL),
        ("LoseSharedCall", Code.UNAVAILABLE),
        ("Picky", Code.INVALID_ARGUMENT),
    ],
)
async def test_an_exception_gives_the_methods_code_and_none_of_its_text(
    method: str, code: grpc.StatusCode, serve: Serve, connect: Connect
) -> None:
    seen_code, details = await failure_of(connect(await serve()).start(method))
    assert seen_code is code
    assert details
    assert SECRET not in details and "Error" not in details


async def test_a_failed_call_leaves_the_connection_usable(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    await failure_of(caller.start("Explode"))
    assert await caller.ask("Echo", "still here") == "still here"


async def test_refuses_a_message_that_is_too_large(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    code, _ = await failure_of(caller.start("Echo", "x" * (4 * 1024 * 1024 + 1)))
    assert code is Code.RESOURCE_EXHAUSTED
    assert await caller.ask("Echo", "small") == "small"


async def test_a_handler_sees_metadata_and_peer(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    metadata = (("x-twice", "a"), ("x-twice", "b"), ("x-raw-bin", b"\x00\xff"))
    seen = json.loads(await caller.start("Describe", metadata=metadata))
    assert [pair for pair in seen["metadata"] if pair[0].startswith("x-")] == [
        ["x-twice", "a"],
        ["x-twice", "b"],
        ["x-raw-bin", "00ff"],
    ]
    assert seen["peer"].startswith("ipv4:127.0.0.1:")


# Deadlines and cancellation


async def test_the_deadline_reaches_the_handler(serve: Serve, connect: Connect) -> None:
    seen = json.loads(await connect(await serve()).start("Describe", timeout_s=PATIENCE_S))
    # The wire carries the time that is left; reading it on another clock may be a little off.
    assert 0 < seen["remaining_s"] < PATIENCE_S + 1


async def test_a_call_without_a_deadline_has_none(serve: Serve, connect: Connect) -> None:
    seen = json.loads(await connect(await serve()).start("Describe", timeout_s=None))
    assert seen["remaining_s"] is None


async def test_a_passed_deadline_cancels_the_handler(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    calls = [
        caller.start("Wait", "a", timeout_s=SHORT_DEADLINE_S),
        caller.start("AnswerThoughCancelled", "b", timeout_s=SHORT_DEADLINE_S),
    ]
    for call in calls:
        assert (await failure_of(call))[0] is Code.DEADLINE_EXCEEDED
    for name in "ab":
        await caller.ask("Await", f"cancelled {name}")


@pytest.mark.parametrize("method", ["Wait", "AnswerThoughCancelled"])
async def test_a_caller_that_cancels_cancels_the_handler(
    method: str, serve: Serve, connect: Connect
) -> None:
    caller = connect(await serve())
    call = caller.start(method, "a")
    await caller.ask("Await", "entered a")
    call.cancel()
    await caller.ask("Await", "cancelled a")


async def test_a_caller_that_disconnects_cancels_the_handler(
    serve: Serve, connect: Connect
) -> None:
    host = await serve()
    leaving, staying = connect(host), connect(host)
    call = leaving.start("Wait", "a")
    await staying.ask("Await", "entered a")
    await leaving.channel.close()
    await staying.ask("Await", "cancelled a")
    assert call.cancelled()


# Load


async def test_sheds_what_is_too_much_while_the_rest_goes_on(
    serve: Serve, connect: Connect
) -> None:
    caller = connect(await serve(max_in_flight=2))
    waiting = [caller.start("Wait", name) for name in "ab"]
    for name in "ab":
        await caller.ask("Await", f"entered {name}")

    shed = await failure_of(caller.start("Echo", "c"))
    assert shed == (Code.UNAVAILABLE, "too many calls in flight")
    assert await caller.check_health() == Status.SERVING

    await caller.ask("Set", "release a")
    assert await waiting[0] == b"released a"
    assert await caller.ask("Echo", "d") == "d"
    await caller.ask("Set", "release b")
    assert await waiting[1] == b"released b"


async def test_open_streams_take_no_place_from_calls(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve(max_in_flight=1, max_streams=1))
    stream = caller.stream("SetWhenLeft", "left")
    assert await stream.read() == b"ready"
    assert await caller.ask("Echo", "a") == "a"
    assert await failure_of(caller.join()) == (Code.UNAVAILABLE, "too many open streams")
    stream.cancel()
    await caller.ask("Await", "left")


# Streams


async def test_streams_answers_in_order(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    assert [int(raw) async for raw in caller.stream("Count", "100")] == list(range(100))
    assert [raw async for raw in caller.stream("Count", "0")] == []


@pytest.mark.parametrize(
    ("method", "code"),
    [("CountAndFail", Code.OUT_OF_RANGE), ("CountAndExplode", Code.UNAVAILABLE)],
)
async def test_a_stream_that_fails_keeps_what_it_said_before(
    method: str, code: grpc.StatusCode, serve: Serve, connect: Connect
) -> None:
    stream = connect(await serve()).stream(method, "2")
    assert [await stream.read() for _ in range(2)] == [b"0", b"1"]
    seen, details = await failure_of(stream.read())
    assert seen is code
    assert SECRET not in (details or "")


async def test_a_caller_that_leaves_a_stream_ends_it(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    stream = caller.stream("SetWhenLeft", "left")
    assert await stream.read() == b"ready"
    stream.cancel()
    await caller.ask("Await", "left")


async def test_reads_a_client_stream_to_its_end(serve: Serve, connect: Connect) -> None:
    call = connect(await serve()).join()
    for text in (b"a", b"b", b"c"):
        await call.write(text)
    await call.done_writing()
    assert await call == b"a,b,c"


async def test_an_empty_client_stream_is_answered(serve: Serve, connect: Connect) -> None:
    call = connect(await serve()).join()
    await call.done_writing()
    assert await call == b""


async def test_a_handler_may_answer_before_a_client_stream_ends(
    serve: Serve, connect: Connect
) -> None:
    call = connect(await serve()).join()
    await call.write(b"a")
    await call.write(b"enough")
    assert await call == b"a,enough"


async def test_a_caller_that_leaves_a_client_stream_ends_it(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    call = caller.join()
    await call.write(b"a")
    await caller.ask("Await", "heard a")
    call.cancel()
    await caller.ask("Await", "join ended")


async def test_a_stream_that_is_sent_faster_than_it_is_read_waits_at_the_caller(
    serve: Serve, connect: Connect
) -> None:
    caller = connect(await serve())
    call = caller.join("JoinLate")

    async def write() -> None:
        for _ in range(200):
            await call.write(b"x" * 100_000)
        await call.done_writing()

    writing = asyncio.create_task(write())
    await caller.ask("Await", "entered late")
    assert await caller.ask("Echo", "a") == "a"
    await caller.ask("Set", "release late")
    await writing
    assert await call == b"20000000"


# Stopping


async def test_a_stop_lets_calls_finish_and_takes_no_new_ones(
    serve: Serve, connect: Connect
) -> None:
    host = await serve()
    caller = connect(host)
    watch = caller.watch_health()
    assert await next_status(watch) == Status.SERVING
    releaser = caller.stream("SetWhenLeft", "release a")
    assert await releaser.read() == b"ready"
    waiting = caller.start("Wait", "a")
    await caller.ask("Await", "entered a")

    stopping = asyncio.create_task(host.stop(PATIENCE_S))
    assert await next_status(watch) == Status.NOT_SERVING
    code, _ = await failure_of(connect(host).start("Echo", "new"))
    assert code is Code.UNAVAILABLE
    assert not waiting.done() and not stopping.done()

    releaser.cancel()
    assert await waiting == b"released a"
    await stopping


async def test_a_stop_ends_client_streams_with_an_answer(serve: Serve, connect: Connect) -> None:
    host = await serve()
    caller = connect(host)
    call = caller.join()
    await call.write(b"a")
    await caller.ask("Await", "heard a")
    await asyncio.wait_for(host.stop(PATIENCE_S), PATIENCE_S / 2)
    assert await call == b"a"


async def test_a_stop_cancels_what_outlives_the_grace(serve: Serve, connect: Connect) -> None:
    host = await serve()
    caller = connect(host)
    waiting = caller.start("Wait", "a")
    await caller.ask("Await", "entered a")
    await host.stop(0)
    code, _ = await failure_of(waiting)
    assert code in {Code.UNAVAILABLE, Code.CANCELLED}


async def test_a_second_stop_does_nothing(serve: Serve) -> None:
    host = await serve()
    await host.stop(0)
    await host.stop(0)


# Listeners


async def test_serves_several_listeners(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    socket = ListenAddress(path=str(tmp_path / "s"))
    host = await serve(listen=(LOOPBACK, socket, LOOPBACK))
    ports = [address.port for address in host.addresses if address.port]
    assert len(set(ports)) == 2 and host.addresses[1] == socket
    for address in host.addresses:
        assert await connect(address).ask("Echo", "a") == "a"


async def test_a_unix_socket_is_for_its_owner_and_group_and_goes_with_the_host(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "s"
    host = await serve(listen=(ListenAddress(path=str(path)),))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert json.loads(await connect(host).ask("Describe"))["peer"].startswith("unix:")
    await host.stop(0)
    assert not path.exists()


async def test_refuses_a_socket_that_another_host_serves(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    socket = ListenAddress(path=str(tmp_path / "s"))
    first = await serve(listen=(socket,))
    with pytest.raises(ListenError, match="another process listens there"):
        await serve(listen=(socket,))
    assert await connect(first).ask("Echo", "a") == "a"


async def test_refuses_a_port_that_another_host_serves(serve: Serve, connect: Connect) -> None:
    first = await serve()
    with pytest.raises(ListenError, match=str(first.addresses[0].port)):
        await serve(listen=first.addresses)
    assert await connect(first).ask("Echo", "a") == "a"


# TLS


class Files:
    """TLS files of a host in a folder, and what its callers need."""

    def __init__(self, folder: Path, *, mutual: bool = False) -> None:
        self.client_authority = trustme.CA()
        self.tls = TlsFiles(cert=folder / "tls.crt", key=folder / "tls.key")
        if mutual:
            self.tls = replace(self.tls, client_ca=folder / "ca.crt")
            self.client_authority.cert_pem.write_to_path(folder / "ca.crt")
        self.authority = self.renew()

    def renew(self) -> trustme.CA:
        """Writes a new certificate from a new authority."""
        self.authority = trustme.CA()
        leaf = self.authority.issue_cert("127.0.0.1", "localhost")
        self.tls.cert.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))
        self.tls.key.write_bytes(leaf.private_key_pem.bytes())
        return self.authority

    def trust(self, *, of: trustme.CA | None = None) -> grpc.ChannelCredentials:
        """Trusts the host; shows a client certificate of the given authority."""
        roots = self.authority.cert_pem.bytes()
        if of is None:
            return grpc.ssl_channel_credentials(roots)
        leaf = of.issue_cert("client.example")
        return grpc.ssl_channel_credentials(
            roots, leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes()
        )


async def test_serves_tls_and_nothing_else_on_a_tls_listener(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    host = await serve(tls=files.tls)
    assert await connect(host, files.trust()).ask("Echo", "a") == "a"
    assert (await failure_of(connect(host).start("Echo")))[0] is Code.UNAVAILABLE


async def test_shows_a_renewed_certificate_without_a_restart(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    host = await serve(tls=files.tls, listen=(LOOPBACK, LOOPBACK))
    old = files.trust()
    open_before = connect(host, old)
    assert await open_before.ask("Echo", "a") == "a"

    files.renew()

    for address in host.addresses:
        renewed = connect(address, files.trust())
        assert await renewed.ask("Echo", "b", until_connected=True) == "b"
        assert (await failure_of(connect(address, old).start("Echo")))[0] is Code.UNAVAILABLE
    assert await open_before.ask("Echo", "c") == "c"


async def test_keeps_the_old_certificate_while_new_files_are_not_usable(
    serve: Serve, connect: Connect, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(tmp_path)
    host = await serve(tls=files.tls)
    old = files.trust()
    old_key = files.tls.key.read_bytes()
    files.renew()
    new_key = files.tls.key.read_bytes()
    files.tls.key.write_bytes(old_key)
    async with asyncio.timeout(PATIENCE_S):
        while "new TLS files are not usable" not in caplog.text:
            assert await connect(host, old).ask("Echo", "a") == "a"
    assert await connect(host, old).ask("Echo", "a") == "a"

    files.tls.key.write_bytes(new_key)
    assert await connect(host, files.trust()).ask("Echo", "b", until_connected=True) == "b"


async def test_does_not_start_with_tls_files_that_are_not_usable(
    serve: Serve, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    files.tls.key.write_text("no key")
    with pytest.raises(ConfigError, match=r"tls\.key"):
        await serve(tls=files.tls)


async def test_mutual_tls_lets_in_its_authoritys_clients_alone(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    files = Files(tmp_path, mutual=True)
    host = await serve(tls=files.tls)
    known = files.trust(of=files.client_authority)
    assert await connect(host, known).ask("Echo", "a") == "a"
    for credentials in (files.trust(), files.trust(of=trustme.CA())):
        assert (await failure_of(connect(host, credentials).start("Echo")))[0] is Code.UNAVAILABLE


async def test_a_renewed_client_authority_replaces_the_old_one(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    files = Files(tmp_path, mutual=True)
    host = await serve(tls=files.tls)
    old = files.trust(of=files.client_authority)
    assert await connect(host, old).ask("Echo", "a") == "a"

    renewed = trustme.CA()
    renewed.cert_pem.write_to_path(tmp_path / "ca.crt")

    renewed_caller = connect(host, files.trust(of=renewed))
    assert await renewed_caller.ask("Echo", "b", until_connected=True) == "b"
    assert (await failure_of(connect(host, old).start("Echo")))[0] is Code.UNAVAILABLE


# Several doors


def other_path(name: str) -> str:
    return f"/{OTHER_SERVICE}/{name}"


def on(*addresses: ListenAddress, tls: TlsFiles | None = None) -> DoorListener:
    """The listener of the other door."""
    return DoorListener(door=OTHER_DOOR, addresses=addresses, tls=tls)


@pytest.fixture(params=["ports", "unix sockets", "a port and a socket"])
def two_addresses(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[ListenAddress, ...]:
    first, second = (ListenAddress(path=str(tmp_path / name)) for name in ("first", "second"))
    addresses: dict[str, tuple[ListenAddress, ...]] = {
        "ports": (LOOPBACK, LOOPBACK),
        "unix sockets": (first, second),
        "a port and a socket": (read_listen_address("0.0.0.0:0"), second),
    }
    return addresses[request.param]


async def test_each_door_answers_on_its_own_address_alone(
    two_addresses: tuple[ListenAddress, ...], serve: Serve, connect: Connect
) -> None:
    first, second = two_addresses
    host = await serve(listen=(first,), other=on(second))
    caller, other = (
        connect(replace(address, host="127.0.0.1") if address.port else address)
        for address in host.addresses
    )
    assert await caller.ask("Echo", "a") == "a"
    assert await other.ask(other_path("Echo"), "b") == "b"
    assert (await failure_of(caller.start(other_path("Echo"))))[0] is Code.UNIMPLEMENTED
    assert (await failure_of(other.start("Echo")))[0] is Code.UNIMPLEMENTED
    assert await caller.check_health(SERVICE) == Status.SERVING
    assert (await failure_of(caller.check_health(OTHER_SERVICE)))[0] is Code.NOT_FOUND
    assert await other.check_health(OTHER_SERVICE) == Status.SERVING


async def test_a_caller_cannot_choose_another_door(serve: Serve, connect: Connect) -> None:
    host = await serve(other=on(LOOPBACK))
    caller, other = map(connect, host.addresses)
    for name in ("extauthz-local-address", "x-forwarded-host", "host"):
        metadata = ((name, str(host.addresses[1])), (name, str(host.addresses[1])))
        call = caller.start(other_path("Echo"), metadata=metadata)
        assert (await failure_of(call))[0] is Code.UNIMPLEMENTED
        assert await caller.start("Echo", "a", metadata=metadata) == b"a"
    assert await other.ask(other_path("Echo"), "b") == "b"


async def test_doors_share_one_bound_on_their_load(serve: Serve, connect: Connect) -> None:
    host = await serve(other=on(LOOPBACK), max_in_flight=1)
    caller, other = map(connect, host.addresses)
    waiting = caller.start("Wait", "a")
    await caller.ask("Await", "entered a")
    assert (await failure_of(other.start(other_path("Echo"))))[0] is Code.UNAVAILABLE
    await caller.ask("Set", "release a")
    assert await waiting == b"released a"
    assert await other.ask(other_path("Echo"), "b") == "b"


async def test_a_stop_lets_the_calls_of_every_door_finish(serve: Serve, connect: Connect) -> None:
    host = await serve(other=on(LOOPBACK))
    caller, other = map(connect, host.addresses)
    watches = [caller.watch_health(), other.watch_health()]
    for watch in watches:
        assert await next_status(watch) == Status.SERVING
    releaser = caller.stream("SetWhenLeft", "release a")
    assert await releaser.read() == b"ready"
    waiting = caller.start("Wait", "a")
    await caller.ask("Await", "entered a")
    joined: grpc.aio.StreamUnaryCall[bytes, bytes] = other.channel.stream_unary(other_path("Join"))(
        timeout=PATIENCE_S
    )
    await joined.write(b"b")
    await other.ask(other_path("Await"), "heard b")

    stopping = asyncio.create_task(host.stop(PATIENCE_S))
    for watch in watches:
        assert await next_status(watch) == Status.NOT_SERVING
    assert await joined == b"b"
    for address in host.addresses:
        assert (await failure_of(connect(address).start("Echo")))[0] is Code.UNAVAILABLE
    assert not stopping.done()
    releaser.cancel()
    assert await waiting == b"released a"
    await stopping


async def test_a_stop_cancels_what_outlives_the_grace_on_every_door(
    serve: Serve, connect: Connect
) -> None:
    host = await serve(other=on(LOOPBACK))
    caller, other = map(connect, host.addresses)
    waiting = [caller.start("Wait", "a"), other.start(other_path("Wait"), "a")]
    await caller.ask("Await", "entered a")
    await other.ask(other_path("Await"), "entered a")
    await host.stop(0)
    for call in waiting:
        assert (await failure_of(call))[0] in {Code.UNAVAILABLE, Code.CANCELLED}


async def test_no_door_is_opened_when_one_cannot_be(
    make_host: MakeHost, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    taken = await serve()
    path = tmp_path / "s"
    listeners = (*listen_on(ListenAddress(path=str(path))), on(taken.addresses[0]))
    host = make_host({}, listeners)
    with pytest.raises(ListenError, match=str(taken.addresses[0].port)):
        await host.start()
    assert not path.exists() and host.addresses == ()
    assert await connect(taken).ask("Echo", "a") == "a"


@pytest.mark.parametrize(
    "with_tls",
    [{"first"}, {"other"}, {"first", "other"}],
    ids=lambda names: "+".join(sorted(names)),
)
async def test_each_door_shows_its_own_certificate(
    with_tls: set[str], serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "other").mkdir()
    first = Files(tmp_path / "first", mutual=True) if "first" in with_tls else None
    other = Files(tmp_path / "other") if "other" in with_tls else None
    host = await serve(
        tls=first.tls if first else None,
        other=on(LOOPBACK, tls=other.tls if other else None),
    )
    trusted = first.trust(of=first.client_authority) if first else None
    trusted_other = other.trust() if other else None
    caller = connect(host.addresses[0], trusted)
    other_caller = connect(host.addresses[1], trusted_other)
    assert await caller.ask("Echo", "a") == "a"
    assert await other_caller.ask(other_path("Echo"), "b" * 1_000_000) == "b" * 1_000_000
    assert (await failure_of(caller.start(other_path("Echo"))))[0] is Code.UNIMPLEMENTED
    assert (await failure_of(other_caller.start("Echo")))[0] is Code.UNIMPLEMENTED
    # What one listener trusts is nothing to the other.
    crossed = (
        (connect(host.addresses[1], trusted), other_path("Echo")),
        (connect(host.addresses[0], trusted_other), "Echo"),
    )
    for wrong, path in crossed:
        assert (await failure_of(wrong.start(path)))[0] is Code.UNAVAILABLE


async def test_a_renewed_certificate_is_shown_by_its_own_door(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "other").mkdir()
    first, other = Files(tmp_path / "first"), Files(tmp_path / "other")
    host = await serve(tls=first.tls, other=on(LOOPBACK, tls=other.tls))
    unchanged = first.trust()
    open_before = connect(host.addresses[1], other.trust())
    assert await open_before.ask(other_path("Echo"), "a") == "a"
    other.renew()
    renewed = connect(host.addresses[1], other.trust())
    assert await renewed.ask(other_path("Echo"), "b", until_connected=True) == "b"
    assert await connect(host.addresses[0], unchanged).ask("Echo", "c") == "c"
    assert await open_before.ask(other_path("Echo"), "d") == "d"


def test_needs_addresses_and_doors_of_its_own(make_host: MakeHost) -> None:
    with pytest.raises(ValueError, match="at least one address"):
        make_host({}, ())
    with pytest.raises(ValueError, match="at least one address"):
        make_host({}, listen_on())
    with pytest.raises(ValueError, match="two listeners of one door"):
        make_host({}, (*listen_on(LOOPBACK), DoorListener(door=DOOR, addresses=(LOOPBACK,))))


# Health


async def test_check_tells_each_services_status(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    await caller.ask("SetHealth", f"{SERVICE}=NOT_SERVING")
    assert await caller.check_health() == Status.SERVING
    assert await caller.check_health(SERVICE) == Status.NOT_SERVING
    assert (await failure_of(caller.check_health("other.Service")))[0] is Code.NOT_FOUND


async def test_list_tells_every_services_status(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    await caller.ask("SetHealth", f"{SERVICE}=NOT_SERVING")
    answer: HealthListResponse = await caller.channel.unary_unary(
        "/grpc.health.v1.Health/List",
        request_serializer=HealthListRequest.SerializeToString,
        response_deserializer=HealthListResponse.FromString,
    )(HealthListRequest(), timeout=PATIENCE_S)
    assert {name: entry.status for name, entry in answer.statuses.items()} == {
        "": Status.SERVING,
        SERVICE: Status.NOT_SERVING,
    }


async def test_watch_tells_changes_of_its_service(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    watch = caller.watch_health("late.Service")
    assert await next_status(watch) == Status.SERVICE_UNKNOWN
    await caller.ask("SetHealth", "=NOT_SERVING")
    await caller.ask("SetHealth", "late.Service=SERVING")
    assert await next_status(watch) == Status.SERVING
    await caller.ask("SetHealth", "late.Service=NOT_SERVING")
    assert await next_status(watch) == Status.NOT_SERVING
    watch.cancel()


async def test_watches_end_when_the_host_stops(serve: Serve, connect: Connect) -> None:
    host = await serve()
    watches = [connect(host).watch_health(service) for service in ("", SERVICE)]
    for watch in watches:
        assert await next_status(watch) == Status.SERVING
    await asyncio.wait_for(host.stop(PATIENCE_S), PATIENCE_S / 2)
    for watch in watches:
        assert await next_status(watch) == Status.NOT_SERVING
        assert await watch.read() is grpc.aio.EOF


async def test_watchers_are_bounded(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve(max_watchers=1))
    first = caller.watch_health()
    assert await next_status(first) == Status.SERVING
    assert (await failure_of(caller.watch_health().read()))[0] is Code.RESOURCE_EXHAUSTED
    assert await caller.check_health() == Status.SERVING
    first.cancel()


async def test_health_refuses_bytes_that_are_no_request(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve())
    code, _ = await failure_of(caller.start("/grpc.health.v1.Health/Check", "\x0a\x7f"))
    assert code is Code.INVALID_ARGUMENT
