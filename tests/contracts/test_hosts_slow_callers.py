"""What every host must do with callers that begin and do not go on: they take nobody's place."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Final, TypeAlias

import grpc
import pytest
import trustme
from hyperframe.frame import PingFrame, SettingsFrame

from extauthz.serving.door import Host
from extauthz.serving.inside_envoy.grpc_wire import write_frame
from extauthz.serving.tls import TlsFiles
from tests.contracts.rpc_caller import (
    PATIENCE_S,
    SHORT_DEADLINE_S,
    Caller,
    Code,
    Connect,
    Serve,
    failure_of,
)
from tests.contracts.rpc_service import path_of
from tests.http2_connection import PREFACE, Http2Connection

Open: TypeAlias = Callable[..., Awaitable[Http2Connection]]
WATCH: Final = "/grpc.health.v1.Health/Watch"
EACH = 900
"""Calls on one connection."""
AT_ONCE: Final = 60
"""Few enough for the line in front of any host, which may refuse what is too much at once."""
SOON_S: Final = 0.3
"""A bound that passes within a test."""
UNFINISHED: Final[dict[str, bytes | None]] = {
    "nothing": None,
    "an empty frame": b"",
    "half the prefix": b"\0\0\0",
    "the prefix": b"\0\0\0\0\5",
    "half the message": b"\0\0\0\0\5ab",
}


@pytest.fixture
async def open_raw() -> AsyncIterator[Open]:
    connections: list[Http2Connection] = []

    async def start(host: Host, **options: object) -> Http2Connection:
        connection = await Http2Connection.open(str(host.addresses[0]), **options)  # type: ignore[arg-type]
        connections.append(connection)
        return connection

    yield start
    for connection in connections:
        await connection.close()


async def echo_until_answered(caller: Caller) -> None:
    """Until what came before is out of the line in front of the host."""
    code: Code | None = Code.CANCELLED
    while code is not None:
        assert code in {Code.UNAVAILABLE, Code.CANCELLED}
        try:
            await caller.ask("Echo", "a")
        except grpc.aio.AioRpcError as error:
            code = error.code()
        else:
            code = None


async def assert_all_are_answered(caller: Caller) -> None:
    answers = await asyncio.gather(*(caller.ask("Echo", f"{number}") for number in range(20)))
    assert answers == [f"{number}" for number in range(20)]


# Calls without their message


async def test_calls_whose_message_never_comes_take_no_place(
    serve: Serve, connect: Connect, open_raw: Open
) -> None:
    host = await serve(max_in_flight=50)
    for body in UNFINISHED.values():
        silent = await open_raw(host)
        for _ in range(EACH):
            silent.begin(path_of("Echo"), body)
        await silent.was_read()
    caller = connect(host)
    await echo_until_answered(caller)
    await assert_all_are_answered(caller)


async def test_a_few_calls_without_a_message_refuse_nobody(
    serve: Serve, connect: Connect, open_raw: Open
) -> None:
    host = await serve(max_in_flight=50)
    caller, silent = connect(host), await open_raw(host)
    for _ in range(5):
        for _ in range(AT_ONCE):
            silent.begin(path_of("Echo"))
        await silent.was_read()
        await assert_all_are_answered(caller)
    assert silent.statuses == {}


async def test_a_message_that_does_not_come_in_time_ends_the_call(
    serve: Serve, connect: Connect, open_raw: Open
) -> None:
    host = await serve(limits={"message_timeout_s": SOON_S})
    silent = await open_raw(host)
    paths = path_of("Echo"), path_of("Count"), path_of("Set"), WATCH
    begun = {
        (path, name): silent.begin(path, body)
        for path in paths
        for name, body in UNFINISHED.items()
    }
    for call, stream in begun.items():
        status = await asyncio.wait_for(silent.wait_for_status(stream), PATIENCE_S)
        assert status == ("4", "the message took too long to arrive"), call
    stream = silent.begin(path_of("Echo"), write_frame(b"a"), ends=True)
    assert await asyncio.wait_for(silent.wait_for_status(stream), PATIENCE_S) == ("0", "")
    assert await connect(host).ask("Echo", "a") == "a"


async def test_a_message_that_trickles_in_ends_the_call(serve: Serve, open_raw: Open) -> None:
    host = await serve(limits={"message_timeout_s": SOON_S})
    slow = await open_raw(host)
    stream = slow.begin(path_of("Echo"), b"\0\0\1\0\0")
    ending = asyncio.ensure_future(slow.wait_for_status(stream))
    async with asyncio.timeout(PATIENCE_S):
        while not ending.done():
            slow.send(stream, b"x")
            await asyncio.wait((ending,), timeout=SOON_S / 10)
    assert ending.result()[0] == "4"


async def test_a_client_stream_may_be_silent_for_longer_than_a_message(
    serve: Serve, connect: Connect
) -> None:
    caller = connect(await serve(limits={"message_timeout_s": SOON_S}))
    call = caller.join()
    await caller.ask("Await", "join begun")
    # A call that is cancelled at its own deadline takes longer than the bound.
    waiting = caller.start("Wait", "w", timeout_s=SHORT_DEADLINE_S)
    assert (await failure_of(waiting))[0] is Code.DEADLINE_EXCEEDED
    await call.write(b"a")
    await caller.ask("Await", "heard a")
    waiting = caller.start("Wait", "w", timeout_s=SHORT_DEADLINE_S)
    assert (await failure_of(waiting))[0] is Code.DEADLINE_EXCEEDED
    await call.write(b"b")
    await call.done_writing()
    assert await call == b"a,b"


async def test_a_handler_may_take_longer_than_a_message(serve: Serve, connect: Connect) -> None:
    caller = connect(await serve(limits={"message_timeout_s": SOON_S}))
    waiting = caller.start("Wait", "a")
    late = caller.start("Wait", "w", timeout_s=SHORT_DEADLINE_S)
    assert (await failure_of(late))[0] is Code.DEADLINE_EXCEEDED
    await caller.ask("Set", "release a")
    assert await waiting == b"released a"


# Other ways to be slow


async def test_health_watches_take_no_place(serve: Serve, connect: Connect, open_raw: Open) -> None:
    host = await serve(max_in_flight=10, max_watchers=1000)
    watcher = await open_raw(host)
    for _ in range(EACH):
        watcher.begin(WATCH, write_frame(b""), ends=True)
    await watcher.was_read()
    caller = connect(host)
    await echo_until_answered(caller)
    assert [await caller.ask("Echo", f"{n}") for n in range(5)] == [f"{n}" for n in range(5)]


async def test_callers_that_take_no_answer_take_no_place(
    serve: Serve, connect: Connect, open_raw: Open
) -> None:
    host = await serve(max_in_flight=50)
    deaf = await open_raw(host, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0})
    for _ in range(EACH):
        deaf.begin(path_of("Echo"), write_frame(b"a"), ends=True)
    await deaf.was_read()
    caller = connect(host)
    await echo_until_answered(caller)
    await assert_all_are_answered(caller)


@pytest.mark.parametrize(
    "frame",
    [
        PingFrame(0, opaque_data=b"flooding"),
        SettingsFrame(0, settings={SettingsFrame.MAX_FRAME_SIZE: 16_384}),
    ],
    ids=["pings", "settings"],
)
async def test_a_flood_of_frames_that_ask_for_nothing_stops_nobody(
    frame: PingFrame | SettingsFrame, serve: Serve, connect: Connect, open_raw: Open
) -> None:
    host = await serve()
    flood, caller = await open_raw(host), connect(host)
    for _ in range(20):
        flood.write(*[frame] * 1_000)
        await flood.was_read()
        await assert_all_are_answered(caller)


@pytest.mark.parametrize("first", [b"", PREFACE[:10]], ids=["nothing", "half the preface"])
async def test_a_connection_that_does_not_begin_is_closed(
    first: bytes, serve: Serve, open_raw: Open
) -> None:
    host = await serve(limits={"handshake_timeout_s": SOON_S})
    silent = await open_raw(host, first=first)
    await asyncio.wait_for(silent.closed.wait(), PATIENCE_S)


async def test_a_connection_that_does_not_begin_its_tls_is_closed(
    serve: Serve, open_raw: Open, tmp_path: Path
) -> None:
    authority = trustme.CA()
    tls = TlsFiles(cert=tmp_path / "tls.crt", key=tmp_path / "tls.key")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tls.key)
    tls.cert.write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    host = await serve(tls=tls, limits={"handshake_timeout_s": SOON_S})
    silent = await open_raw(host, first=b"\x16\x03\x01")
    await asyncio.wait_for(silent.closed.wait(), PATIENCE_S)
    trust = ssl.create_default_context()
    trust.set_alpn_protocols(["h2"])
    authority.configure_trust(trust)
    good = await open_raw(host, tls=trust)
    stream = good.begin(path_of("Echo"), write_frame(b"a"), ends=True)
    assert await asyncio.wait_for(good.wait_for_status(stream), PATIENCE_S) == ("0", "")
