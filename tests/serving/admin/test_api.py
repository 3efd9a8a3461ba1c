"""The API of the admin listener: routes, parameters, bodies and streams, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress

import pytest

from extauthz.serving.admin.api import DOCUMENT, MAX_AT_ONCE
from extauthz.serving.admin.bodies import MAX_BODY_BYTES, MAX_WAITING, Bodies
from extauthz.serving.admin.streams import write_event
from tests.serving.admin.serving_api import (
    PATIENCE_S,
    Served,
    Stream,
    read_answer,
    serving_api,
    write_request,
)

JSON = (("content-type", "application/json"),)


async def test_a_query_is_read_by_its_parameters() -> None:
    async with serving_api() as served:
        answer = await served.send(
            "/api/echo?limit=12&api=Pets%20%26%20more&outcome=deny&since=2026-01-31T09:30:00Z"
        )
        assert (answer.status, answer.headers["cache-control"]) == (200, "no-store")
        assert answer.json["query"] == {
            "limit": 12,
            "api": "Pets & more",
            "outcome": "deny",
            "since": 1_769_851_800_000_000,
        }
        defaults = (await served.send("/api/echo")).json["query"]
        assert defaults == {"limit": 7, "api": None, "outcome": None, "since": None}


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("/api/echo?limit=0", "bad_parameter", "limit must be a number from 1 to 1000"),
        ("/api/echo?limit=1001", "bad_parameter", "limit must be"),
        ("/api/echo?limit=-1", "bad_parameter", "limit must be"),
        ("/api/echo?limit=1e3", "bad_parameter", "limit must be"),
        ("/api/echo?limit=%D9%A1", "bad_parameter", "limit must be"),  # an Arabic digit
        ("/api/echo?limit=" + "9" * 5_000, "bad_parameter", "limit must be"),
        ("/api/echo?api=", "bad_parameter", "api must have 1 to 1024 characters"),
        ("/api/echo?api=" + "a" * 2_000, "bad_parameter", "api must have"),
        ("/api/echo?outcome=maybe", "bad_parameter", "outcome must be one of allow, deny"),
        ("/api/echo?since=yesterday", "bad_parameter", "since must be a time with its zone"),
        ("/api/echo?since=2026-01-31T09:30:00", "bad_parameter", "since must be a time"),
        ("/api/echo?api=a&api=b", "repeated_parameter", "api stands there twice"),
        ("/api/echo?secret=s3cr3t", "unknown_parameter", "this path has limit, api, outcome, since"),
        ("/api/misses?x", "unknown_parameter", "this path has none"),
        ("/api/echo?" + "&".join(f"a{it}" for it in range(900)), "unknown_parameter", ""),
    ],
)  # fmt: skip
async def test_a_query_that_is_wrong_is_refused_and_not_repeated(
    target: str, code: str, message: str
) -> None:
    async with serving_api() as served:
        answer = await served.send(target)
    assert (answer.status, answer.code) == (400, code)
    assert message in answer.json["error"]["message"]
    assert "s3cr3t" not in answer.body.decode()


async def test_other_paths_and_methods_are_refused_as_json() -> None:
    async with serving_api() as served:
        for target in (
            "/api",
            "/api/",
            "/api/nothing",
            "/api/things/",
            "/api/things/1/2",
            "/api//echo",
        ):
            answer = await served.send(target)
            assert (answer.status, answer.code) == (404, "not_found"), target
        answer = await served.send("/api/echo", method="POST")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
        answer = await served.send("/api/echo", method="OPTIONS")
        assert answer.status == 405
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        answer = await served.send("/api/echo", method="HEAD")
        assert (answer.status, answer.body) == (200, b"")


async def test_a_name_in_a_path_is_given_to_the_endpoint() -> None:
    async with serving_api() as served:
        answer = await served.send("/api/things/a%2Fb", method="DELETE")
        assert (await served.send("/api/things/x1", method="DELETE")).json == {"removed": "x1"}
    # What the escape hides is two segments, which no path has.
    assert answer.status == 404


async def test_a_body_is_read_into_its_model() -> None:
    async with serving_api() as served:
        body = json.dumps({"name": "thing"}).encode()
        answer = await served.send("/api/asked", method="POST", headers=JSON, body=body)
        assert answer.json == {"name": "thing", "caller": "local"}


@pytest.mark.parametrize(
    ("headers", "body", "status", "code"),
    [
        ((), b"{}", 415, "not_json"),
        ((("content-type", "text/plain"),), b'{"name": "a"}', 415, "not_json"),
        ((*JSON, ("content-encoding", "gzip")), b'{"name": "a"}', 415, "not_json"),
        (JSON, b"", 400, "bad_body"),
        (JSON, b"s3cr3t", 400, "bad_body"),
        (JSON, b'{"name": {"s3cr3t": 1}}', 400, "bad_body"),
        (JSON, b"[" * 60_000, 400, "bad_body"),
        (JSON, b"\xff\xfe", 400, "bad_body"),
        (JSON, b" " * (MAX_BODY_BYTES + 1), 413, "body_too_large"),
    ],
)
async def test_a_body_that_is_wrong_is_refused_and_not_repeated(
    headers: tuple[tuple[str, str], ...], body: bytes, status: int, code: str
) -> None:
    async with serving_api() as served:
        answer = await served.send("/api/asked", method="POST", headers=headers, body=body)
    assert (answer.status, answer.code) == (status, code)
    assert b"s3cr3t" not in answer.body


async def test_a_failure_is_told_in_the_apis_form_and_only_the_log_says_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_api() as served:
        answer = await served.send("/api/fails")
        assert (answer.status, answer.code) == (500, "internal")
        assert b"secret" not in answer.body
        (record,) = [it for it in caplog.records if it.levelno >= logging.ERROR]
        assert record.exc_info is not None and isinstance(record.exc_info[1], ValueError)
        answer = await served.send("/api/misses")
        assert (answer.status, answer.json["error"]["message"]) == (503, "Redis is away")


WHOLE = write_request("/api/asked", method="POST", headers=JSON, body=b'{"name": "thing"}')


async def open_unfinished(served: Served) -> Stream:
    """A request whose body lacks its last byte."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(WHOLE[:-1])
    return reader, writer


async def test_bodies_that_do_not_end_keep_nobody_out(caplog: pytest.LogCaptureFixture) -> None:
    async with serving_api() as served:
        held = [await open_unfinished(served) for _ in range(MAX_AT_ONCE + MAX_WAITING)]
        # One more than are waited for ends the wait for the oldest: all of them are there.
        async with asyncio.timeout(PATIENCE_S):
            assert (await read_answer(held[MAX_AT_ONCE - 1][0])).code == "body_late"
        for _ in range(2 * MAX_WAITING):
            answer = await served.send(
                "/api/asked", method="POST", headers=JSON, body=b'{"name": "a"}'
            )
            assert answer.status == 200
            assert (await served.send("/api/echo")).status == 200
        for _, writer in held:
            writer.transport.abort()
        assert (await served.send("/api/echo")).status == 200
    assert not [it for it in caplog.records if it.levelno >= logging.WARNING]


async def test_a_body_that_comes_late_is_not_waited_for() -> None:
    async with serving_api(bodies=Bodies(body_s=0.05)) as served:
        reader, writer = await open_unfinished(served)
        async with asyncio.timeout(PATIENCE_S):
            answer = await read_answer(reader)
            assert (answer.status, answer.code) == (408, "body_late")
            assert answer.headers["connection"] == "close"
        writer.transport.abort()


async def test_a_client_that_asks_first_is_told_to_go_on() -> None:
    """RFC 9110 10.1.1, as curl does with a body of more than 1 MiB, and many libraries always."""
    async with serving_api() as served:
        body = b'{"name": "thing"}'
        headers = (*JSON, ("expect", "100-continue"), ("content-length", str(len(body))))
        head = write_request("/api/asked", method="POST", headers=headers)
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(2):  # the connection stays
                writer.write(head)
                assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
                writer.write(body)
                assert (await read_answer(reader)).json["name"] == "thing"
        writer.transport.abort()


@pytest.mark.parametrize(
    ("target", "method", "expected", "status"),
    [
        ("/api/asked", "POST", "the-moon", 417),
        ("/api/echo", "GET", "100-continue, the-moon", 417),
        ("/healthz", "GET", "the-moon", 417),
        ("/api/things", "POST", "100-continue", 403),
        ("/api/echo", "GET", "100-Continue", 200),
        ("/healthz", "GET", "100-continue", 200),
    ],
)
async def test_an_expectation_that_cannot_be_met_or_a_body_that_is_not_read(
    target: str, method: str, expected: str, status: int
) -> None:
    """The answer is final, and the connection ends: the body may follow or not."""
    async with serving_api() as served:
        headers = (*JSON, ("expect", expected), ("content-length", "10"))
        answer = await served.send(target, method=method, headers=headers)
    assert (answer.status, answer.headers["connection"]) == (status, "close")


async def test_an_old_client_is_not_told_to_go_on() -> None:
    async with serving_api() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        old = WHOLE.replace(b"HTTP/1.1", b"HTTP/1.0").replace(
            b"host:", b"expect: 100-continue\r\nhost:"
        )
        writer.write(old)
        async with asyncio.timeout(PATIENCE_S):
            assert (await read_answer(reader)).status == 200
        writer.transport.abort()


async def test_what_would_change_decisions_needs_a_caller_that_is_known() -> None:
    async with serving_api() as served:
        body = json.dumps({"name": "thing"}).encode()
        answer = await served.send("/api/things", method="POST", headers=JSON, body=body)
    assert (answer.status, answer.code) == (403, "caller_not_known")


# Streams


async def test_events_are_sent_as_they_come() -> None:
    async with serving_api() as served:
        reader, writer = await served.follow()
        served.endpoints.send(write_event("decision", '{"a": 1}', event_id="d-1"))
        async with asyncio.timeout(PATIENCE_S):
            sent = await reader.readuntil(b"\n\n\r\n")
        assert sent.endswith(b'event: decision\nid: d-1\ndata: {"a": 1}\n\n\r\n')
        writer.close()


async def test_a_stream_outlives_what_a_connection_may_last_and_ends_at_its_own_time() -> None:
    connection_s, stream_s = 0.2, 0.5
    loop = asyncio.get_running_loop()
    async with serving_api(connection_s=connection_s, stream_s=stream_s) as served:
        began_s, stream = loop.time(), None
        while stream is None:
            began_s = loop.time()
            # On a busy machine the head may come too late for the connection.
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                stream = await served.follow()
        reader, writer = stream
        async with asyncio.timeout(PATIENCE_S):
            with suppress(ConnectionError):
                while await reader.read(100):
                    pass
        assert loop.time() - began_s >= stream_s
        writer.close()


async def test_there_are_only_so_many_streams_and_they_keep_no_probe_out() -> None:
    async with serving_api(max_streams=3, max_connections=4) as served:
        streams = [await served.follow() for _ in range(3)]
        accept = (("accept", "text/event-stream"),)
        answer = await served.send("/api/echo", headers=accept)
        assert (answer.status, answer.code) == (503, "too_many_streams")
        # Neither do silent connections end a stream, nor streams a probe.
        silent = [await asyncio.open_connection("127.0.0.1", served.port) for _ in range(10)]
        assert (await served.send("/healthz")).body == b"alive\n"
        served.endpoints.send(b"event: x\ndata: y\n\n")
        async with asyncio.timeout(PATIENCE_S):
            for reader, writer in streams:
                await reader.readuntil(b"data: y\n\n")
                writer.close()
        for _, writer in silent:
            writer.transport.abort()


async def test_a_reader_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauthz.serving.admin.streams.SLOW_S", 0.1)
    async with serving_api() as served:
        _, writer = await served.follow()
        much = b"data: " + b"a" * 1_000_000 + b"\n\n"
        async with asyncio.timeout(PATIENCE_S):
            while not served.endpoints.ended:
                served.endpoints.send(much)
                await _turn()
        writer.transport.abort()


async def _turn() -> None:
    """Lets the loop do what it has to do."""
    await asyncio.get_running_loop().run_in_executor(None, lambda: None)


async def test_a_stream_whose_reader_is_gone_is_ended_and_its_place_is_free() -> None:
    async with serving_api(max_streams=1) as served:
        _, writer = await served.follow()
        writer.transport.abort()
        async with asyncio.timeout(PATIENCE_S):
            while not served.endpoints.ended:
                served.endpoints.send(b"")
                await _turn()
        reader, writer = await served.follow()
        assert reader is not None
        writer.close()


async def test_only_so_many_requests_are_answered_at_once() -> None:
    async with serving_api() as served:
        asking = [asyncio.create_task(served.send("/api/waits")) for _ in range(MAX_AT_ONCE)]
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await served.send("/api/echo")).status != 503:
                pass
        assert answer.code == "busy"
        assert (await served.send("/healthz")).status == 200
        served.endpoints.go_on.set()
        assert {answer.status for answer in await asyncio.gather(*asking)} == {200}
        assert (await served.send("/api/echo")).status == 200


# The document


async def test_the_document_has_every_endpoint_and_needs_no_other_one() -> None:
    async with serving_api() as served:
        document = (await served.send(DOCUMENT)).json
        table = served.endpoints.table()
    found = {(method, path) for path, it in document["paths"].items() for method in it}
    wanted = {(it.method.lower(), it.path) for it in table} | {("get", DOCUMENT)}
    assert found == wanted
    assert document["paths"]["/api/things"]["post"]["security"] == [
        {"token": []},
        {"certificate": []},
    ]
    assert document["paths"]["/api/things/{id}"]["delete"]["parameters"] == [
        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}
    ]
