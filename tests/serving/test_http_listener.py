"""The listener for checks over HTTP, asked byte by byte."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from extauthz.serving.http_listener import HttpListener
from extauthz.serving.http_messages import Question, Reply
from extauthz.serving.https import make_context
from extauthz.serving.limits import HostLimits
from extauthz.serving.listen import ListenAddress, ListenError
from extauthz.serving.load import Load
from tests.certificates import Authority, Leaf, MutualFiles, renew_file

ANYWHERE = ListenAddress(host="127.0.0.1", port=0)
ASK = b"GET /envoy/a%2Fb?x=1 HTTP/1.1\r\nHost: api.example\r\nX-Two: 1\r\nx-two: 2\r\n\r\n"
ALLOW = Reply(200, (("x-extauthz-user", "alice"),))


async def allow(_: Question) -> Reply:
    return ALLOW


@asynccontextmanager
async def listening(
    answer: Callable[[Question], Awaitable[Reply]] = allow,
    *,
    address: ListenAddress = ANYWHERE,
    load: Load | None = None,
    limits: HostLimits | None = None,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[HttpListener]:
    listener = HttpListener(
        address,
        answer,
        load=load or Load(),
        limits=limits or HostLimits(),
        grace_s=5,
        tls=tls,
    )
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


async def ask(
    listener: HttpListener, sent: bytes = ASK, *, tls: ssl.SSLContext | None = None
) -> bytes:
    """One answer, on a connection of its own."""
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=tls)
    writer.write(sent)
    try:
        return await read_answer(reader)
    finally:
        writer.close()


async def read_answer(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        int(line.partition(b":")[2])
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"content-length:")
    )
    return head + await reader.readexactly(length)


async def test_a_question_comes_as_it_was_sent() -> None:
    asked: list[Question] = []

    async def note(question: Question) -> Reply:
        asked.append(question)
        return Reply(
            403, (("content-type", "application/problem+json"), ("allow", "GET")), '{"é": 1}'
        )

    async with listening(note) as listener:
        answer = await ask(listener)
    (question,) = asked
    assert (question.method, question.target) == ("GET", "/envoy/a%2Fb?x=1")
    assert list(question.fields) == [
        (b"Host", b"api.example"),
        (b"X-Two", b"1"),
        (b"x-two", b"2"),
    ]
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    assert lines[0] == b"http/1.1 403 forbidden"
    assert lines.count(b"content-type: application/problem+json") == 1
    assert b"allow: get" in lines
    assert b"server: extauthz" in lines
    assert body.decode() == '{"é": 1}'


async def test_a_connection_is_used_again() -> None:
    async with listening() as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        for _ in range(3):
            writer.write(ASK)
            assert (await read_answer(reader)).startswith(b"HTTP/1.1 200")
        writer.close()


@pytest.mark.parametrize("framing", [b"Content-Length: 10", b"Transfer-Encoding: chunked"])
async def test_a_body_is_not_waited_for(framing: bytes) -> None:
    """nginx announces one that it does not send, unless it is told otherwise."""
    async with listening() as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"POST /auth-request HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
        assert (await read_answer(reader)).startswith(b"HTTP/1.1 200")
        assert await reader.read() == b"", "what follows cannot be told from a body"
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01 hello\r\n\r\n",
        b"GET /envoy/ HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /envoy/ HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"GET /envoy/" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /envoy/ HTTP/1.1\r\n" + b"a: b\r\n" * 300 + b"\r\n",
    ],
    ids=["TLS", "a space before the colon", "two lengths", "a long target", "many fields"],
)
async def test_what_is_no_request_is_refused_without_a_line_in_the_log(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening() as listener:
        with caplog.at_level(logging.WARNING):
            assert (await ask(listener, sent)).split(b" ")[1] == b"400"
    assert not caplog.records


async def test_a_head_that_does_not_end_is_cut_off() -> None:
    limits = replace(HostLimits(), handshake_timeout_s=0.05)
    async with listening(limits=limits) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(ASK)
        await read_answer(reader)
        writer.write(ASK[:-2])
        with suppress(ConnectionResetError):  # closed, or reset: both are an end
            assert await reader.read() == b""
        writer.close()


async def test_connections_are_bounded() -> None:
    limits = replace(HostLimits(), max_connections=2)
    async with listening(limits=limits) as listener:
        held = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(2)]
        for reader, writer in held:
            writer.write(ASK)
            await read_answer(reader)
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await ask(listener)
        held.pop()[1].close()
        while True:  # until the listener has seen the end
            try:
                assert (await ask(listener)).startswith(b"HTTP/1.1 200")
                break
            except (ConnectionError, asyncio.IncompleteReadError):
                continue
        held.pop()[1].close()


async def test_an_old_connection_is_closed_after_its_answer() -> None:
    async with listening(limits=replace(HostLimits(), max_connection_age_s=0)) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(ASK)
        assert b"\r\nconnection: close\r\n" in (await read_answer(reader)).lower()
        assert await reader.read() == b""
        writer.close()


async def test_a_failure_is_no_allow(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Question) -> Reply:
        raise LookupError("a defect")

    async with listening(fail) as listener:
        assert (await ask(listener)).startswith(b"HTTP/1.1 503 ")
    assert "a check over HTTP failed" in caplog.text


async def test_above_the_bound_on_load_nothing_is_decided() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait(_: Question) -> Reply:
        entered.set()
        await leave.wait()
        return ALLOW

    load = Load(max_in_flight=1)
    async with listening(wait, load=load) as listener:
        first = asyncio.create_task(ask(listener))
        await entered.wait()
        assert (await ask(listener)).startswith(b"HTTP/1.1 503 ")
        assert load.shed == 1
        leave.set()
        assert (await first).startswith(b"HTTP/1.1 200 ")


async def test_a_stop_waits_for_questions_in_flight() -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait(_: Question) -> Reply:
        entered.set()
        await leave.wait()
        return ALLOW

    async with listening(wait) as listener:
        asked = asyncio.create_task(ask(listener))
        await entered.wait()
        stopping = asyncio.create_task(listener.stop())
        await asyncio.sleep(0)
        leave.set()
        assert (await asked).startswith(b"HTTP/1.1 200 ")
        await stopping


async def test_listens_on_a_unix_socket_of_the_group(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    async with listening(address=ListenAddress(path=str(path))):
        assert path.stat().st_mode & 0o777 == 0o660
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(ASK)
        assert (await read_answer(reader)).startswith(b"HTTP/1.1 200")
        writer.close()
    assert not path.exists()


async def test_says_that_a_port_is_taken() -> None:
    async with listening() as listener:
        taken = ListenAddress(host="127.0.0.1", port=listener.port)
        with pytest.raises(ListenError, match=r"choose another listen\.http"):
            async with listening(address=taken):
                pass


def show(folder: Path, authority: Authority, leaf: Leaf | None = None) -> ssl.SSLContext:
    """A proxy that trusts the authority, and shows the certificate if there is one."""
    context = ssl.create_default_context(cadata=authority.pem.decode())
    context.verify_flags = ssl.VerifyFlags.VERIFY_DEFAULT
    if leaf is not None:
        renew_file(folder / "proxy.pem", leaf.cert + leaf.key)
        context.load_cert_chain(folder / "proxy.pem")
    return context


async def test_with_a_client_ca_a_proxy_must_show_a_certificate(tmp_path: Path) -> None:
    files = MutualFiles(tmp_path)
    tls = make_context(files.let_in(), demands_client=True)
    authority = files.authority
    async with listening(tls=tls) as listener:
        known = show(tmp_path, authority, authority.issue())
        assert (await ask(listener, tls=known)).startswith(b"HTTP/1.1 200")
        for leaf in (None, Authority("stranger").issue()):
            with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
                await ask(listener, tls=show(tmp_path, authority, leaf))
