"""The API of the admin listener: routes, parameters, bodies and streams, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from typing import Any

import pytest

from extauthz.serving.admin.api import DOCUMENT, MAX_AT_ONCE
from extauthz.serving.admin.endpoints import MAX_BODY_BYTES
from extauthz.serving.admin.streams import write_event
from tests.serving.admin.serving_api import PATIENCE_S, Served, serving_api, write_request

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


async def test_a_body_that_is_never_sent_to_its_end_is_no_failure_for_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving_api() as served:
        writers = []
        for _ in range(MAX_AT_ONCE):
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(write_request("/api/asked", method="POST", headers=JSON, body=b"{}")[:-1])
            writers.append(writer)
        # With all places taken, each of these bodies is waited for.
        await _wait_for(served, 503)
        for writer in writers:
            writer.transport.abort()
        await _wait_for(served, 200)
    assert not [it for it in caplog.records if it.levelno >= logging.WARNING]


async def _wait_for(served: Served, status: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await served.send("/api/echo")).status != status:
            pass


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
        slow: list[Any] = []
        for _ in range(MAX_AT_ONCE):
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            unfinished = write_request("/api/asked", method="POST", headers=JSON, body=b"{}")[:-1]
            writer.write(unfinished)
            slow.append((reader, writer))
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await served.send("/api/echo")).status != 503:
                pass
        assert answer.code == "busy"
        assert (await served.send("/healthz")).status == 200
        for _, writer in slow:
            writer.transport.abort()


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
