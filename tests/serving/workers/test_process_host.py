"""A host in a process of its own: its start, what is said to it, and its end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import pytest

from extauthz.errors import ConfigError
from extauthz.serving.door import DoorListener
from extauthz.serving.listen import read_listen_address
from extauthz.serving.workers.control import HostFailed
from extauthz.serving.workers.process_host import ProcessHost
from extauthz.serving.workers.shared_ports import hold_ports
from tests.contracts.rpc_service import listen_on, path_of
from tests.contracts.rpc_worker import MODULE

PATIENCE_S = 30
Serve: TypeAlias = Callable[..., Awaitable[ProcessHost]]


@pytest.fixture
def listeners() -> Any:
    with hold_ports(listen_on(read_listen_address("127.0.0.1:0"))) as held:
        yield held


def a_host(listeners: tuple[DoorListener, ...], **parameters: Any) -> ProcessHost:
    parameters["address"] = str(listeners[0].addresses[0])
    return ProcessHost(MODULE, listeners, parameters=parameters)


@pytest.fixture
async def serve(listeners: tuple[DoorListener, ...]) -> AsyncIterator[Serve]:
    hosts: list[ProcessHost] = []

    async def start(**parameters: Any) -> ProcessHost:
        host = a_host(listeners, **parameters)
        hosts.append(host)
        await host.start()
        return host

    yield start
    for host in hosts:
        await host.stop(0)


async def call(host: ProcessHost, name: str, text: str) -> str:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(str(host.addresses[0]), options) as channel:
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(path_of(name))
        return (await method(text.encode(), timeout=PATIENCE_S)).decode()


async def test_serves_until_it_is_stopped(serve: Serve) -> None:
    host = await serve()
    assert await call(host, "Echo", "a") == "a"
    assert await host.ask("who", within_s=PATIENCE_S) == host.process_id
    ending = asyncio.create_task(host.wait_ended())
    waiting = asyncio.create_task(call(host, "Wait", "b"))
    await call(host, "Await", "entered b")
    await call(host, "Set", "release b")
    await host.stop(PATIENCE_S)
    assert await waiting == "released b"
    await ending
    with pytest.raises(HostFailed):
        await host.ask("who", within_s=PATIENCE_S)


async def test_nothing_is_imported_from_where_this_process_happens_to_be(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('planted')")
    monkeypatch.chdir(tmp_path)
    assert (await serve()).process_id is not None


async def test_a_stop_cancels_what_outlives_the_grace(serve: Serve) -> None:
    host = await serve()
    waiting = asyncio.create_task(call(host, "Wait", "b"))
    await call(host, "Await", "entered b")
    await host.stop(0)
    with pytest.raises(grpc.aio.AioRpcError):
        await waiting


async def test_problems_of_the_start_are_raised_as_they_were(
    listeners: tuple[DoorListener, ...],
) -> None:
    host = a_host(listeners, fail="config")
    with pytest.raises(ConfigError, match=r"^a.yaml:3: is not good$"):
        await host.start()
    assert host.addresses == ()
    await host.stop(0)


@pytest.mark.parametrize(
    ("failure", "said"),
    [("bug", "the start failed; the log says more"), ("die", "it ended with exit code 7")],
)
async def test_a_start_that_fails_says_why(
    failure: str, said: str, listeners: tuple[DoorListener, ...]
) -> None:
    with pytest.raises(HostFailed, match=said):
        await a_host(listeners, fail=failure).start()


async def test_a_process_that_dies_is_noticed(serve: Serve) -> None:
    host = await serve()
    host.tell("die")
    with pytest.raises(HostFailed, match="signal 9"):
        await asyncio.wait_for(host.wait_ended(), PATIENCE_S)
    with pytest.raises(HostFailed):
        await host.ask("who", within_s=PATIENCE_S)
    await host.stop(PATIENCE_S)


async def test_signals_of_the_group_do_not_reach_it(serve: Serve) -> None:
    host = await serve()
    assert host.process_id is not None
    assert os.getpgid(host.process_id) != os.getpgid(0)


async def test_a_question_without_an_answer_does_not_spoil_the_next(serve: Serve) -> None:
    host = await serve()
    with pytest.raises(HostFailed, match="'fail' could not be answered"):
        await host.ask("fail", within_s=PATIENCE_S)
    with pytest.raises(HostFailed, match="could not be answered"):
        await host.ask("no such question", within_s=PATIENCE_S)
    host.tell("fail")
    host.tell("no such word")
    assert await host.ask("who", within_s=PATIENCE_S) == host.process_id
    with pytest.raises(HostFailed, match="no answer to 'never' within"):
        await host.ask("never", within_s=0.01)


async def test_it_is_killed_when_it_does_not_end(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("extauthz.serving.workers.process_host._EXIT_S", 0.1)
    monkeypatch.setattr("extauthz.serving.workers.process_host._CANCEL_S", 0.1)
    host = await serve()
    assert host.process_id is not None
    os.kill(host.process_id, signal.SIGSTOP)
    await asyncio.wait_for(host.stop(0), PATIENCE_S)
    await host.wait_ended()


async def test_a_start_that_is_cancelled_ends_the_process(
    listeners: tuple[DoorListener, ...],
) -> None:
    host = a_host(listeners)
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


async def test_before_the_start_nothing_can_be_said(listeners: tuple[DoorListener, ...]) -> None:
    host = a_host(listeners)
    host.tell("die")
    with pytest.raises(HostFailed, match="not started"):
        await host.ask("who", within_s=PATIENCE_S)
    await host.stop(0)
    await host.wait_ended()


async def test_a_bug_is_logged_where_it_happened(
    serve: Serve, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    host = await serve()
    host.tell("fail")
    await host.ask("who", within_s=PATIENCE_S)
    assert "what a bug says" in capfd.readouterr().err
    assert caplog.records == []
