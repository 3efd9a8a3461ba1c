"""What every host must do, seen from a caller's side of the network."""

from __future__ import annotations

import asyncio
import json
import stat
from pathlib import Path

import grpc
import pytest

from extauthz.serving.listen import ListenAddress, ListenError
from extauthz.serving.proto.health_pb2 import (
    HealthListRequest,
    HealthListResponse,
)
from tests.contracts.rpc_caller import (
    LOOPBACK,
    PATIENCE_S,
    SHORT_DEADLINE_S,
    Code,
    Connect,
    Serve,
    Status,
    failure_of,
    next_status,
)
from tests.contracts.rpc_service import (
    SECRET,
    SERVICE,
)

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
    for size in (4 * 1024 * 1024 + 1, 16 * 1024 * 1024):
        code, _ = await failure_of(caller.start("Echo", "x" * size))
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


async def test_a_handler_finds_texts_by_name_and_calls_are_not_mixed_up(
    serve: Serve, connect: Connect
) -> None:
    caller = connect(await serve())
    numbers = [str(number) for number in range(20)]
    calls = [
        caller.start("Describe", metadata=(("x-number", number), ("x-raw-bin", b"1"), ("x", "1")))
        for number in numbers
    ]
    seen = [json.loads(answer)["texts"] for answer in await asyncio.gather(*calls)]
    assert [texts.pop("x-number") for texts in seen] == numbers
    # What is no text may be left out; what is not there always is.
    assert all(set(texts) <= {"x-raw-bin"} for texts in seen)


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
