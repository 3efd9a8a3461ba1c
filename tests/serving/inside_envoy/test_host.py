"""What is the Envoy host's own; what every host must do is in tests/contracts/test_hosts.py."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest

from extauthz.errors import ConfigError
from extauthz.serving.health import HEALTH_SERVICE
from extauthz.serving.inside_envoy.host import EnvoyHost
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import ListenAddress, ListenError, read_listen_address
from extauthz.serving.proto.health_pb2 import HealthCheckResponse
from extauthz.serving.workers.control import HostFailed
from tests.contracts.rpc_app import SHED
from tests.contracts.rpc_service import listen_on, path_of

APP = "tests.contracts.rpc_app:app"
LOOPBACK = read_listen_address("127.0.0.1:0")
PATIENCE_S = 20
SERVING = HealthCheckResponse(status=HealthCheckResponse.SERVING).SerializeToString()

Serve: TypeAlias = Callable[..., Awaitable[EnvoyHost]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    hosts: list[EnvoyHost] = []

    async def start(*listen: ListenAddress, app: str = APP, **limits: Any) -> EnvoyHost:
        host = EnvoyHost(
            app,
            listen_on(*(listen or (LOOPBACK,))),
            parameters={"limits": limits},
            limits=HostLimits(**limits),
        )
        hosts.append(host)
        await host.start()
        return host

    yield start
    for host in hosts:
        await host.stop(0)


async def echo(
    host: EnvoyHost, text: str, *, compression: grpc.Compression = grpc.Compression.NoCompression
) -> str:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(
        str(host.addresses[0]), options, compression=compression
    ) as channel:
        return (await _method(channel, "Echo")(text.encode(), timeout=PATIENCE_S)).decode()


def _method(channel: grpc.aio.Channel, name: str) -> grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]:
    return channel.unary_unary(path_of(name))


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def code_of(call: Awaitable[object]) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


# Starting


async def test_problems_of_the_door_are_raised_as_they_were() -> None:
    host = EnvoyHost(APP, listen_on(LOOPBACK), parameters={"fail": "config"})
    with pytest.raises(ConfigError, match=r"^a.yaml:3: is not good$"):
        await host.start()
    assert host.addresses == ()


async def test_a_bug_at_the_start_is_logged_and_not_told() -> None:
    host = EnvoyHost(APP, listen_on(LOOPBACK), parameters={"fail": "bug"})
    with pytest.raises(HostFailed, match="the log says more"):
        await host.start()


async def test_an_application_that_is_not_there_refuses_the_start() -> None:
    with pytest.raises(HostFailed, match=r"did not start: .*no_such_module"):
        await EnvoyHost("no_such_module:app", listen_on(LOOPBACK)).start()


async def test_a_host_name_is_resolved(serve: Serve) -> None:
    assert await echo(await serve(read_listen_address("localhost:0")), "a") == "a"


async def test_a_host_name_that_is_none_refuses_the_start(serve: Serve) -> None:
    with pytest.raises(ListenError, match="cannot be resolved"):
        await serve(read_listen_address("no such host:0"))


async def test_a_start_that_fails_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    path = tmp_path / "s"
    host = EnvoyHost(APP, listen_on(ListenAddress(path=str(path))), parameters={"fail": "config"})
    with pytest.raises(ConfigError):
        await host.start()
    assert names_in(tmp_path) == []


async def test_a_start_that_is_cancelled_ends_envoy() -> None:
    host = EnvoyHost(APP, listen_on(LOOPBACK))
    starting = asyncio.create_task(host.start())
    while host.process_id is None:  # noqa: ASYNC110 - it has no event for this
        await asyncio.sleep(0)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await asyncio.wait_for(host.wait_ended(), PATIENCE_S)


async def test_starts_once(serve: Serve) -> None:
    host = await serve()
    with pytest.raises(RuntimeError, match="started before"):
        await host.start()


async def test_says_where_it_listens(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    host = await serve()
    assert f"main: listening on 127.0.0.1:{host.addresses[0].port} without TLS" in caplog.messages


async def test_what_it_writes_is_for_its_user_alone(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    await serve()
    (name,) = names_in(tmp_path)
    folder = tmp_path / name
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "admin").stat().st_mode) == 0o600


# Limits


async def test_refuses_compressed_messages(serve: Serve) -> None:
    host = await serve()
    code = await code_of(echo(host, "a" * 10_000, compression=grpc.Compression.Gzip))
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_the_bound_on_a_message_can_be_set(serve: Serve) -> None:
    host = await serve(max_receive_bytes=10)
    assert await echo(host, "x" * 10) == "x" * 10
    assert await code_of(echo(host, "x" * 11)) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_connections_are_bounded(serve: Serve) -> None:
    host = await serve(max_connections=1)
    async with grpc.aio.insecure_channel(str(host.addresses[0])) as channel:
        method = _method(channel, "Echo")
        assert await method(b"a", timeout=PATIENCE_S) == b"a"
        assert await code_of(echo(host, "b")) is grpc.StatusCode.UNAVAILABLE
        assert await method(b"c", timeout=PATIENCE_S) == b"c"


async def test_refuses_and_counts_what_is_too_much_before_it_reaches_python(serve: Serve) -> None:
    host = await serve(max_in_flight=10)
    # Where the bound begins; no call ends, so that nothing moves it.
    refused = 30 - HostLimits(max_in_flight=10).busy_in_flight
    async with grpc.aio.insecure_channel(str(host.addresses[0])) as channel:
        calls = [_method(channel, "Wait")(b"for ever", timeout=PATIENCE_S) for _ in range(30)]
        waiting = {asyncio.ensure_future(code_of(call)) for call in calls}
        codes: list[grpc.StatusCode] = []
        while len(codes) < refused:
            ended, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            codes += [task.result() for task in ended]
        assert set(codes) == {grpc.StatusCode.UNAVAILABLE}

        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
        check = channel.unary_unary(f"/{HEALTH_SERVICE}/Check")
        assert await check(b"", timeout=PATIENCE_S) == SERVING

        while await host.ask(SHED, within_s=PATIENCE_S) < refused:
            pass
        assert await host.ask(SHED, within_s=PATIENCE_S) == len(codes) == refused

        for call in calls:
            call.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        while await is_refused(echo(host, "a")):
            pass


async def test_says_that_a_callers_authority_is_no_host(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    host = await serve()
    options = [("grpc.default_authority", "outbound|9001||a.example")]  # an Envoy cluster's name
    async with grpc.aio.insecure_channel(str(host.addresses[0]), options) as channel:
        call: Any = channel.unary_unary(path_of("Echo"))
        with pytest.raises(grpc.aio.AioRpcError):
            await call(b"a", timeout=PATIENCE_S)
    async with asyncio.timeout(PATIENCE_S):
        while "set grpc_service.envoy_grpc.authority" not in caplog.text:
            assert await echo(host, "a") == "a"


async def is_refused(call: Awaitable[object]) -> bool:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return False


async def test_a_connection_that_is_too_old_is_replaced(serve: Serve) -> None:
    host = await serve(max_connection_age_s=0.1)
    async with grpc.aio.insecure_channel(str(host.addresses[0])) as channel:
        describe = _method(channel, "Describe")
        peers: set[str] = set()
        while len(peers) < 2:
            peers.add(json.loads(await describe(b"", timeout=PATIENCE_S))["peer"])


async def test_several_hosts_share_a_port_when_asked_to(serve: Serve) -> None:
    first = await serve(reuse_port=True)
    second = await serve(*first.addresses, reuse_port=True)
    assert second.addresses == first.addresses


async def test_a_sockets_permissions_can_be_set(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "s"
    await serve(ListenAddress(path=str(path)), unix_mode=0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_http_1_is_not_spoken(serve: Serve) -> None:
    port = (await serve()).addresses[0].port
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
    assert b"HTTP/1" not in await asyncio.wait_for(reader.read(), PATIENCE_S)
    writer.close()
    await writer.wait_closed()


# Its end


async def test_an_envoy_that_dies_is_noticed(serve: Serve) -> None:
    host = await serve()
    ending = asyncio.create_task(host.wait_ended())
    assert host.process_id is not None
    os.kill(host.process_id, signal.SIGKILL)
    with pytest.raises(HostFailed, match="signal 9"):
        await asyncio.wait_for(ending, PATIENCE_S)
    await host.stop(PATIENCE_S)


async def test_a_stop_is_an_end_that_was_asked_for(serve: Serve) -> None:
    host = await serve()
    ending = asyncio.create_task(host.wait_ended())
    await host.stop(0)
    await asyncio.wait_for(ending, PATIENCE_S)


async def test_envoy_ends_when_its_starter_is_gone(serve: Serve) -> None:
    host = await serve()
    ending = asyncio.create_task(host.wait_ended())
    assert host._control is not None
    host._control.close()  # what the end of this process would do
    with pytest.raises(HostFailed, match="exit code 0"):
        await asyncio.wait_for(ending, PATIENCE_S)


async def test_a_stop_before_the_start_does_nothing() -> None:
    host = EnvoyHost(APP, listen_on(LOOPBACK))
    await host.stop(0)
    await host.wait_ended()


async def test_an_answer_is_not_lost_in_a_stop(serve: Serve) -> None:
    host = await serve()
    async with grpc.aio.insecure_channel(str(host.addresses[0])) as channel:
        large = "x" * 1_000_000
        calls = [_method(channel, "Echo")(large.encode(), timeout=PATIENCE_S) for _ in range(8)]
        waiting = _method(channel, "Wait")(b"a", timeout=PATIENCE_S)
        await _method(channel, "Await")(b"entered a", timeout=PATIENCE_S)
        await asyncio.gather(*calls)
        stopping = asyncio.create_task(host.stop(0))
        assert await code_of(waiting) is grpc.StatusCode.UNAVAILABLE
        assert await waiting.details() == "the service is stopping"
        await stopping
    assert [len(await call) for call in calls] == [len(large)] * 8
