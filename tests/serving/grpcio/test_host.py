"""What is grpcio's own; what every host must do is in tests/contracts/test_hosts.py."""

from __future__ import annotations

import asyncio
import gc
import logging
import stat
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest
import uvloop

from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.serving.health import HEALTH_SERVICE
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import ListenAddress, ListenError, read_listen_address
from extauthz.serving.methods import RpcFailure
from tests.contracts.rpc_service import DOOR, listen_on, make_doors, path_of

LOOPBACK = read_listen_address("127.0.0.1:0")


async def echo(
    host: GrpcioHost, text: str, *, compression: grpc.Compression = grpc.Compression.NoCompression
) -> str:
    async with grpc.aio.insecure_channel(
        str(host.addresses[0]),
        [("grpc.use_local_subchannel_pool", 1)],
        compression=compression,
    ) as channel:
        method = _method(channel, "Echo")
        return (await method(text.encode(), timeout=20)).decode()


Serve: TypeAlias = Callable[..., Awaitable[GrpcioHost]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    hosts: list[GrpcioHost] = []

    async def start(*listen: ListenAddress, **limits: Any) -> GrpcioHost:
        host = GrpcioHost(
            make_doors(), listen_on(*(listen or (LOOPBACK,))), limits=HostLimits(**limits)
        )
        await host.start()
        hosts.append(host)
        return host

    yield start
    for host in hosts:
        await host.stop(0)


async def serve_and_echo(text: str) -> str:
    host = GrpcioHost(make_doors(), listen_on(LOOPBACK))
    await host.start()
    try:
        return await echo(host, text)
    finally:
        await host.stop(0)


def test_serves_on_uvloop() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(serve_and_echo("a")) == "a"


async def test_refuses_compressed_messages(serve: Serve) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo(await serve(), "a" * 10_000, compression=grpc.Compression.Gzip)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_the_bound_on_a_message_can_be_set(serve: Serve) -> None:
    host = await serve(max_receive_bytes=10)
    assert await echo(host, "x" * 10) == "x" * 10
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await echo(host, "x" * 11)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_connections_are_bounded(serve: Serve) -> None:
    host = await serve(max_connections=1)
    async with grpc.aio.insecure_channel(str(host.addresses[0])) as channel:
        method = _method(channel, "Echo")
        assert await method(b"a", timeout=20) == b"a"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await echo(host, "b")
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert await method(b"c", timeout=20) == b"c"


async def test_several_hosts_share_a_port_when_asked_to(serve: Serve) -> None:
    first = await serve(reuse_port=True)
    second = await serve(*first.addresses, reuse_port=True)
    assert second.addresses == first.addresses
    assert await echo(second, "a") == "a"


async def test_a_sockets_permissions_can_be_set(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    await serve(ListenAddress(path=str(path)), unix_mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_takes_over_a_socket_that_was_left_behind(serve: Serve, tmp_path: Path) -> None:
    path, kept = tmp_path / "s", tmp_path / "kept"
    left_behind = await serve(ListenAddress(path=str(path)))
    kept.hardlink_to(path)
    await left_behind.stop(0)
    kept.rename(path)
    assert await echo(await serve(ListenAddress(path=str(path))), "a") == "a"


async def test_a_start_that_fails_leaves_no_socket_behind(tmp_path: Path) -> None:
    path, taken = tmp_path / "s", tmp_path / "taken"
    taken.write_text("no socket")
    addresses = (ListenAddress(path=str(path)), ListenAddress(path=str(taken)))
    host = GrpcioHost(make_doors(), listen_on(*addresses))
    with pytest.raises(ListenError, match="taken"):
        await host.start()
    assert not path.exists() and host.addresses == ()


async def test_says_where_it_listens(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    host = await serve()
    assert f"main: listening on 127.0.0.1:{host.addresses[0].port} without TLS" in caplog.messages


async def test_starts_once(serve: Serve) -> None:
    host = await serve()
    with pytest.raises(RuntimeError, match="started before"):
        await host.start()


async def test_a_stop_before_the_start_only_drains() -> None:
    doors = make_doors()
    await GrpcioHost(doors, listen_on(LOOPBACK)).stop(0)
    assert doors[DOOR].load.draining


async def test_a_cancelled_call_is_not_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    host = await serve()
    async with grpc.aio.insecure_channel(str(host.addresses[0])) as channel:
        wait, watch = (_method(channel, name) for name in ("Wait", "Await"))
        call = wait(b"a", timeout=20)
        await watch(b"entered a", timeout=20)
        call.cancel()
        await watch(b"cancelled a", timeout=20)
    await host.stop(5)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def _method(channel: grpc.aio.Channel, name: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary(path_of(name))


async def test_refuses_what_is_too_much_before_it_reaches_python_but_never_health(
    serve: Serve,
) -> None:
    host = await serve()
    ended = threading.Semaphore(0)
    with grpc.insecure_channel(str(host.addresses[0])) as channel:
        echo: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path_of("Echo"))
        check: grpc.UnaryUnaryMultiCallable[bytes, bytes]
        check = channel.unary_unary(f"/{HEALTH_SERVICE}/Check")
        echoes = [echo.future(b"", timeout=20) for _ in range(400)]
        for call in echoes:
            call.add_done_callback(lambda _: ended.release())
        # Nothing is answered while the event loop stands here: what ends was refused.
        for _ in range(199):  # one was taken, and 200 wait
            assert ended.acquire(timeout=20)
        checks = [check.future(b"", timeout=20) for _ in range(10)]
        codes = [await asyncio.to_thread(call.code) for call in (*echoes, *checks)]
    assert set(codes[:400]) == {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}
    assert 101 <= codes[:400].count(grpc.StatusCode.OK) <= 201
    assert codes[400:] == [grpc.StatusCode.OK] * 10


@pytest.mark.parametrize(
    ("name", "message", "message_timeout_s"),
    [("Fail", b"NOT_FOUND:nothing there", 20.0), ("CountAndFail", b"2", 20.0), ("Echo", None, 1.0)],
    ids=["unary", "stream", "no message in time"],
)
async def test_leaves_nothing_of_a_failed_call_for_the_collector(
    serve: Serve, name: str, message: bytes | None, message_timeout_s: float
) -> None:
    host = await serve(message_timeout_s=message_timeout_s)
    async with grpc.aio.insecure_channel(str(host.addresses[0])) as channel:
        echo = _method(channel, "Echo")
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes]
        method = channel.stream_stream(path_of(name))
        with _collector_stopped():
            before = _list_failures()  # of other tests, and their parameters
            call = method(timeout=20)
            if message is not None:
                await call.write(message)
                await call.done_writing()
            with pytest.raises(grpc.aio.AioRpcError):
                _ = [answer async for answer in call]
            for _ in range(100):  # the server's own end of the call comes a little later
                await echo(b"", timeout=20)
                if len(_list_failures()) == len(before):
                    return
            pytest.fail("its error is still there, and with it all that the call had")


def _list_failures() -> list[RpcFailure]:
    return [it for it in gc.get_objects() if isinstance(it, RpcFailure)]


@contextmanager
def _collector_stopped() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
