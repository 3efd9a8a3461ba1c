"""gRPC over ASGI, without a network: an ASGI server made of a queue and a list."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.serving.door import Door
from extauthz.serving.inside_envoy.grpc_asgi import GrpcApp, Scope
from extauthz.serving.inside_envoy.grpc_wire import FrameReader, write_frame
from extauthz.serving.limits import HostLimits
from tests.contracts.rpc_service import a_door, path_of

PATIENCE_S = 20
HEADERS = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))
DISCONNECT = {"type": "http.disconnect"}


class Caller:
    """One call by hand. `polled` answers like pyvoy once the request has ended."""

    def __init__(self, app: GrpcApp, scope: Scope, *, polled: bool = False) -> None:
        self.sent: list[dict[str, Any]] = []
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._over = asyncio.Event()
        self._is_polled, self._ended, self.gone = polled, False, False
        self.may_write = asyncio.Event()
        self.may_write.set()
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    def write(self, *chunks: bytes, more: bool = False) -> None:
        for chunk in chunks[:-1]:
            self._put(chunk, more=True)
        self._put(chunks[-1] if chunks else b"", more=more)

    def leave(self) -> None:
        self.gone = True
        self._over.set()

    async def end(self) -> Answer:
        await asyncio.wait_for(self.task, PATIENCE_S)
        return Answer(self.sent)

    def _put(self, body: bytes, *, more: bool) -> None:
        self._events.put_nowait({"type": "http.request", "body": body, "more_body": more})

    async def _receive(self) -> dict[str, Any]:
        if self._ended or self._over.is_set():
            if self._is_polled and not self._over.is_set():
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._over.wait()
            return DISCONNECT
        getting = asyncio.create_task(self._events.get())
        over = asyncio.create_task(self._over.wait())
        await asyncio.wait((getting, over), return_when=asyncio.FIRST_COMPLETED)
        over.cancel()
        if not getting.done():
            getting.cancel()
            return DISCONNECT
        event = getting.result()
        self._ended = not event["more_body"]
        return event

    async def _send(self, event: dict[str, Any]) -> None:
        if self.gone:
            raise OSError
        await self.may_write.wait()
        self.sent.append(event)
        is_start_only = event["type"] == "http.response.start"
        if (
            not is_start_only
            and not event.get("more_body", False)
            and not self._wants_trailers(event)
        ):
            self._over.set()

    def _wants_trailers(self, event: dict[str, Any]) -> bool:
        return event["type"] == "http.response.body" and "trailers" in self.sent[0]


class Answer:
    """What was sent, as a gRPC client reads it."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        start, *rest = events
        self.http_status = start["status"]
        self.headers = dict(start["headers"])
        self.trailers_only = "trailers" not in start
        trailers = dict(rest[-1]["headers"]) if "headers" in rest[-1] else self.headers
        self.status = int(trailers.get(b"grpc-status", b"-1"))
        self.details = trailers.get(b"grpc-message", b"").decode()
        frames = FrameReader(1 << 22)
        frames.feed(b"".join(event.get("body", b"") for event in rest))
        self.messages = []
        while (message := frames.find_message()) is not None:
            self.messages.append(message)
        frames.check_end()


def a_scope(
    name: str, headers: Iterable[tuple[bytes, bytes]] = HEADERS, *, method: str = "POST"
) -> Scope:
    path = name if name.startswith("/") else path_of(name)
    return {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "headers": list(headers),
        "client": ("127.0.0.1", 4711),
    }


def begin(name: str, *chunks: bytes, app: GrpcApp | None = None, **scope: Any) -> Caller:
    caller = Caller(app or GrpcApp(a_door()), a_scope(name, **scope))
    if chunks:
        caller.write(*chunks)
    return caller


async def ask(name: str, *chunks: bytes, app: GrpcApp | None = None, **scope: Any) -> Answer:
    return await begin(name, *chunks, app=app, **scope).end()


async def wait_for(app: GrpcApp, event: str) -> None:
    answer = await ask("Await", write_frame(event.encode()), app=app)
    assert answer.status == 0


# Answers


async def test_answers_with_headers_a_frame_and_trailers() -> None:
    caller = begin("Echo", write_frame(b"a"))
    answer = await caller.end()
    assert [event["type"].removeprefix("http.response.") for event in caller.sent] == [
        "start",
        "body",
        "trailers",
    ]
    assert (answer.http_status, answer.status, answer.messages) == (200, 0, [b"a"])
    assert answer.headers == {b"content-type": b"application/grpc"}


@pytest.mark.parametrize("at", range(len(write_frame(b"hello")) + 1))
async def test_reads_a_message_that_is_split_at_any_byte(at: int) -> None:
    wire = write_frame(b"hello")
    assert (await ask("Echo", wire[:at], wire[at:], b"")).messages == [b"hello"]


async def test_reads_many_messages_of_one_chunk() -> None:
    answer = await ask("Join", b"".join(write_frame(b"%d" % n) for n in range(50)))
    assert answer.messages == [b",".join(b"%d" % n for n in range(50))]


@pytest.mark.parametrize(
    ("name", "chunks", "status"),
    [
        ("/test.Contract/Nope", [write_frame(b"")], 12),
        ("Echo", [b""], 13),
        ("Echo", [b"\0\0\0\0\5hell"], 13),
        ("Echo", [write_frame(b"a") * 2], 13),
        ("Echo", [write_frame(b"a"), b"\0"], 13),
        ("Echo", [b"\1" + write_frame(b"a")[1:]], 12),
        ("Echo", [b"\2" + write_frame(b"a")[1:]], 13),
        ("Echo", [b"\0\0\0\1\1"], 8),
        ("Count", [b""], 13),
        ("Fail", [write_frame(b"NOT_FOUND:no")], 5),
    ],
)
async def test_a_refusal_is_trailers_only(name: str, chunks: list[bytes], status: int) -> None:
    app = GrpcApp(a_door(), limits=HostLimits(max_receive_bytes=256))
    answer = await ask(name, *chunks, app=app)
    assert (answer.http_status, answer.status, answer.trailers_only) == (200, status, True)
    assert app.open_calls == 0


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (b"\0\0\0\0\5hell", 13),
        (b"\1" + write_frame(b"a")[1:], 12),
        (b"\0\0\0\1\1", 8),
    ],
)
async def test_a_client_stream_that_breaks_off_is_told_why(last: bytes, status: int) -> None:
    app = GrpcApp(a_door(), limits=HostLimits(max_receive_bytes=256))
    answer = await ask("Join", write_frame(b"a"), last, app=app)
    assert (answer.http_status, answer.status, answer.messages) == (200, status, [])
    assert app.open_calls == 0


async def test_says_which_encodings_it_reads_when_a_message_is_compressed() -> None:
    answer = await ask("Echo", b"\1" + write_frame(b"a")[1:])
    assert answer.headers[b"grpc-accept-encoding"] == b"identity"


async def test_a_message_that_is_too_large_is_refused_before_it_arrives() -> None:
    app = GrpcApp(a_door(), limits=HostLimits(max_receive_bytes=256))
    caller = begin("Echo", app=app)
    caller.write(b"\0\0\0\1\1", more=True)
    assert (await caller.end()).status == 8


@given(
    chunks=st.lists(st.binary(max_size=20), min_size=1, max_size=4),
    name=st.sampled_from(["Echo", "Join", "Count"]),
)
def test_garbage_always_gets_one_whole_answer(chunks: list[bytes], name: str) -> None:
    async def send_garbage() -> None:
        logging.disable()  # texts that are not UTF-8 are failures of the handler
        try:
            answer = await ask(name, *chunks)
        finally:
            logging.disable(logging.NOTSET)
        assert answer.http_status == 200 and 0 <= answer.status <= 16
        assert answer.status == 0 or not answer.messages

    asyncio.run(send_garbage())


@pytest.mark.parametrize(
    ("scope", "http_status"),
    [
        ({"method": "GET"}, 405),
        ({"headers": [(b"te", b"trailers")]}, 415),
        ({"headers": [(b"content-type", b"application/json")]}, 415),
        ({"headers": [(b"content-type", b"application/grpc-web")]}, 415),
    ],
)
async def test_what_is_no_grpc_gets_an_http_status(scope: dict[str, Any], http_status: int) -> None:
    answer = await ask("Echo", write_frame(b"a"), **scope)
    assert (answer.http_status, answer.messages) == (http_status, [])


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        (HEADERS[:1], "te"),
        ((*HEADERS, (b"grpc-timeout", b"soon")), "grpc-timeout"),
        ((*HEADERS, (b"x-bin", b"***")), "base64"),
    ],
)
async def test_headers_that_break_the_protocol_are_named(
    headers: tuple[tuple[bytes, bytes], ...], text: str
) -> None:
    answer = await ask("Describe", write_frame(b""), headers=headers)
    assert answer.status == 13 and text in answer.details


@pytest.mark.parametrize(
    ("client", "peer"),
    [
        (("127.0.0.1", 4711), "ipv4:127.0.0.1:4711"),
        (("::1", 4711), "ipv6:[::1]:4711"),
        (None, "unix:"),
    ],
)
async def test_a_handler_sees_its_peer(client: tuple[str, int] | None, peer: str) -> None:
    caller = Caller(GrpcApp(a_door()), {**a_scope("Describe"), "client": client})
    caller.write(write_frame(b""))
    (message,) = (await caller.end()).messages
    assert json.loads(message)["peer"] == peer


# Deadlines and callers that leave


async def test_a_deadline_cancels_the_handler_and_is_told() -> None:
    app = GrpcApp(a_door())
    headers = (*HEADERS, (b"grpc-timeout", b"80m"))
    answer = await ask("Wait", write_frame(b"a"), app=app, headers=headers)
    assert (answer.status, answer.details) == (4, "the deadline passed")
    await wait_for(app, "cancelled a")


async def test_a_deadline_that_has_passed_is_told_without_handling() -> None:
    answer = await ask("Echo", write_frame(b"a"), headers=(*HEADERS, (b"grpc-timeout", b"0n")))
    assert answer.status == 4


async def test_a_handlers_answer_after_its_cancellation_is_dropped() -> None:
    headers = (*HEADERS, (b"grpc-timeout", b"80m"))
    answer = await ask("AnswerThoughCancelled", write_frame(b"a"), headers=headers)
    assert (answer.status, answer.messages) == (4, [])


@pytest.mark.parametrize("headers", [HEADERS, (*HEADERS, (b"grpc-timeout", b"60m"))])
async def test_a_message_that_does_not_arrive_in_time_ends_the_call(
    headers: tuple[tuple[bytes, bytes], ...],
) -> None:
    limits = HostLimits(message_timeout_s=0.08)
    caller = begin("Echo", app=GrpcApp(a_door(), limits=limits), headers=headers)
    caller.write(b"\0\0", more=True)
    assert (await caller.end()).status == 4


async def test_a_stream_that_is_silent_is_not_cut() -> None:
    app = GrpcApp(a_door(), limits=HostLimits(message_timeout_s=0.01))
    caller = begin("Join", app=app)
    caller.write(write_frame(b"a"), more=True)
    await wait_for(app, "heard a")
    # Longer than the bound on a message's arrival: this one is cancelled at its own deadline.
    await ask("Wait", write_frame(b"w"), app=app, headers=(*HEADERS, (b"grpc-timeout", b"100m")))
    caller.write(write_frame(b"b"))
    assert (await caller.end()).messages == [b"a,b"]


@pytest.mark.parametrize("polled", [False, True])
@pytest.mark.parametrize("name", ["Wait", "AnswerThoughCancelled"])
async def test_a_caller_that_leaves_cancels_the_handler(name: str, *, polled: bool) -> None:
    app = GrpcApp(a_door())
    caller = Caller(app, a_scope(name), polled=polled)
    caller.write(write_frame(b"a"))
    await wait_for(app, "entered a")
    caller.leave()
    await wait_for(app, "cancelled a")
    await asyncio.wait_for(caller.task, PATIENCE_S)
    assert caller.sent == [] and app.open_calls == 0


async def test_a_caller_that_leaves_while_its_message_arrives_is_forgotten() -> None:
    app = GrpcApp(a_door())
    caller = begin("Echo", app=app)
    caller.write(b"\0\0", more=True)
    caller.leave()
    await asyncio.wait_for(caller.task, PATIENCE_S)
    assert caller.sent == [] and app.open_calls == 0


async def test_a_caller_that_leaves_a_client_stream_cancels_its_handler() -> None:
    app = GrpcApp(a_door())
    caller = begin("Join", app=app)
    caller.write(write_frame(b"a"), more=True)
    await wait_for(app, "heard a")
    caller.leave()
    await wait_for(app, "join ended")
    await asyncio.wait_for(caller.task, PATIENCE_S)
    assert not any(event.get("body") for event in caller.sent)


async def test_a_server_that_refuses_to_send_ends_a_stream() -> None:
    app = GrpcApp(a_door())
    caller = begin("Count", app=app)
    caller.gone = True
    caller.write(write_frame(b"1000000"))
    await asyncio.wait_for(caller.task, PATIENCE_S)
    assert caller.sent == [] and app.open_calls == 0


# Load and stopping


async def test_a_stream_goes_no_faster_than_its_caller_reads() -> None:
    caller = begin("Count", write_frame(b"1000"))
    caller.may_write.clear()
    await ask("Echo", write_frame(b"a"))
    assert caller.sent == []
    caller.may_write.set()
    assert len((await caller.end()).messages) == 1000


async def test_calls_whose_message_is_not_there_take_no_place() -> None:
    door = a_door(max_in_flight=1)
    app = GrpcApp(door)
    silent = [begin("Echo", app=app) for _ in range(300)]
    assert (await ask("Echo", write_frame(b"a"), app=app)).messages == [b"a"]
    assert door.load.shed == 0
    for caller in silent:
        caller.write(write_frame(b"a"))
    # Of those that are there at once, the door takes as many as it says.
    assert {(await caller.end()).status for caller in silent} <= {0, 14}


async def test_the_answer_of_a_client_stream_begins_with_the_call() -> None:
    app = GrpcApp(a_door())
    caller = begin("Join", app=app)
    await wait_for(app, "join begun")
    assert [event["type"].removeprefix("http.response.") for event in caller.sent] == [
        "start",
        "body",
    ]
    caller.write(write_frame(b"a"))
    assert (await caller.end()).messages == [b"a"]


async def test_new_calls_are_refused_while_it_stops() -> None:
    app = GrpcApp(a_door())
    waiting = begin("Wait", write_frame(b"a"), app=app)
    await wait_for(app, "entered a")
    app.refuse_new()
    assert (await ask("Echo", write_frame(b"a"), app=app)).status == 14
    app.cancel_all()
    answer = await waiting.end()
    assert (answer.status, answer.details) == (14, "the service is stopping")


async def test_a_call_whose_message_still_arrives_is_told_of_the_stop() -> None:
    app = GrpcApp(a_door())
    caller = begin("Echo", app=app)
    caller.write(b"\0", more=True)
    await ask("Echo", write_frame(b"a"), app=app)
    app.cancel_all()
    assert (await caller.end()).status == 14


async def test_a_cancellation_from_elsewhere_is_none_of_its_business() -> None:
    app = GrpcApp(a_door())
    caller = begin("Wait", write_frame(b"a"), app=app)
    await wait_for(app, "entered a")
    caller.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller.task
    assert app.open_calls == 0


async def test_a_failure_of_its_own_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    caller = begin("Echo", b"")
    caller.write()
    broken: Callable[[], Any] = lambda: 1 / 0  # noqa: E731 - stands for a server that fails
    scope = a_scope("Echo")
    app = GrpcApp(a_door())
    sent: list[dict[str, Any]] = []

    async def send(event: dict[str, Any]) -> None:
        sent.append(event)

    await app(scope, broken, send)
    assert Answer(sent).status == 13
    assert "the call failed because of a defect" in caplog.text
    await caller.end()


def test_needs_no_loop_to_be_made() -> None:
    door: Door = a_door()
    assert GrpcApp(door).open_calls == 0
