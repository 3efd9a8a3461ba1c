"""A real Envoy understands what is written, and what it writes is understood."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx2
import pytest

from extauthz.envoy.check_response import (
    write_allow,
    write_deny,
    write_error,
    write_metadata,
)
from tests.envoy.running import running_mesh

pytestmark = pytest.mark.e2e


def upstream_headers(response: httpx2.Response, name: str) -> list[str]:
    assert response.status_code == 200, response.text
    got: list[list[str]] = response.json()["headers"]
    return [value for found, value in got if found == name]


async def test_reads_what_envoy_sends(tmp_path: Path) -> None:
    context = {"extauthz.api": "HttpbinAPI"}
    async with running_mesh(tmp_path, context=context, max_body_bytes=8, partial_body=True) as mesh:
        await mesh.client.post(
            "/a%20b/../c?x=1&x=2",
            headers=[
                (b"host", b"API.example.com:8080"),
                (b"x-api-key", b"one"),
                (b"x-api-key", b"two"),
                (b"x-name", b"J\xf6rg"),
            ],
            content=b"0123456789",
        )
        (request,) = mesh.asked
    assert (request.method, request.host, request.scheme) == ("POST", "api.example.com", "http")
    assert (request.path, request.query) == ("/c", "x=1&x=2")
    assert request.protocol == "HTTP/1.1"
    assert request.headers.get_all("x-api-key") == ("one", "two")
    assert request.headers.get("x-name") == "Jörg"
    assert not [name for name in request.headers if name.startswith(":")]
    assert request.context == {**context, "extauthz.use_remote_address": "true"}
    assert request.source.address == "127.0.0.1"
    assert request.destination.address == "127.0.0.1"
    assert request.body == b"01234567"
    assert request.body_is_partial
    assert request.request_id


async def test_reads_what_envoy_sends_as_a_map(tmp_path: Path) -> None:
    async with running_mesh(tmp_path, raw_headers=False) as mesh:
        await mesh.client.get("/c", headers=[("x-api-key", "one"), ("x-api-key", "two")])
        (request,) = mesh.asked
    assert request.headers.get("x-api-key") == "one,two"
    assert not [name for name in request.headers if name.startswith(":")]


@pytest.mark.parametrize(
    "host", ["api.example", "API.example:8080", "api.example.", "api.example.:1"]
)
async def test_the_host_that_is_judged_is_the_host_that_is_routed(
    tmp_path: Path, host: str
) -> None:
    async with running_mesh(tmp_path, hosts=("api.example",)) as mesh:
        response = await mesh.client.get("/", headers={"host": host})
    assert mesh.asked[0].host == "api.example"
    (sent_on,) = upstream_headers(response, "host")
    assert sent_on == host.replace("example.", "example")


@pytest.mark.parametrize(
    "lines",
    [
        "host: a.example\r\nhost: b.example",
        "host: a.example\r\nhost: a.example",
        "host:",
        "host: a.example:80:80",
        "host: x@a.example",
        "host: a%2eexample",
    ],
)
async def test_a_host_that_is_none_is_told_as_none(tmp_path: Path, lines: str) -> None:
    async with running_mesh(tmp_path) as mesh:
        url = mesh.client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(f"GET / HTTP/1.1\r\n{lines}\r\nconnection: close\r\n\r\n".encode())
        await reader.read()
        writer.close()
        await writer.wait_closed()
    (request,) = mesh.asked
    assert request.host is None


async def test_the_upstream_sees_no_identity_but_ours(tmp_path: Path) -> None:
    async with running_mesh(tmp_path) as mesh:
        mesh.answer = lambda _: write_allow(
            set_headers=[("x-user", "alice"), ("x-tier", ""), ("x-application", "Jörg")],
            remove_headers=["authorization", "x-user"],
            metadata=write_metadata({"tier": "Gold"}),
        )
        response = await mesh.client.get(
            "/",
            headers=[
                ("authorization", "Bearer secret"),
                ("x-user", "eve"),
                ("x-user", "mallory"),
                ("x-tier", "Unlimited"),
                ("x-other", "stays"),
            ],
        )
    assert upstream_headers(response, "x-user") == ["alice"]
    assert upstream_headers(response, "x-tier") == []
    assert upstream_headers(response, "x-application") == ["Jörg".encode().decode("latin-1")]
    assert upstream_headers(response, "authorization") == []
    assert upstream_headers(response, "x-other") == ["stays"]


async def test_the_upstream_sees_the_path_that_was_judged(
    tmp_path: Path,
) -> None:
    async with running_mesh(tmp_path) as mesh:
        mesh.answer = lambda _: write_allow(set_headers=[(":path", "/other?z=3")])
        rewritten = await mesh.client.get("/a?x=1")
    assert rewritten.json()["path"] == "/other?z=3"


async def test_the_client_sees_our_limits_and_everyones_cookies(tmp_path: Path) -> None:
    async with running_mesh(tmp_path) as mesh:
        mesh.answer = lambda _: write_allow(
            response_headers=[
                ("RateLimit", '"m";r=3'),
                ("set-cookie", "a=1"),
                ("set-cookie", "b=2"),
            ]
        )
        response = await mesh.client.get("/")
    assert response.headers.get_list("ratelimit") == ['"m";r=3']
    assert sorted(response.headers.get_list("set-cookie")) == ["a=1", "b=2", "u=1"]


DENIAL: dict[str, Any] = {
    "http_status": 429,
    "rpc_code": 8,
    "headers": [
        ("retry-after", "7"),
        ("content-type", "application/problem+json"),
        ("www-authenticate", "Bearer"),
        ("www-authenticate", "ApiKey"),
    ],
    "body": '{"title": "zu schnell, Jörg"}',
}


async def test_the_client_sees_the_denial(tmp_path: Path) -> None:
    async with running_mesh(tmp_path) as mesh:
        mesh.answer = lambda _: write_deny(**DENIAL)
        response = await mesh.client.get("/")
    assert response.status_code == 429
    assert response.headers["retry-after"] == "7"
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers.get_list("www-authenticate") == ["Bearer", "ApiKey"]
    assert response.json() == {"title": "zu schnell, Jörg"}


async def test_a_denial_denies_whatever_code_it_was_given(tmp_path: Path) -> None:
    async with running_mesh(tmp_path) as mesh:
        mesh.answer = lambda _: write_deny(http_status=200, rpc_code=0)
        response = await mesh.client.get("/")
    assert response.status_code == 403


async def test_a_denial_with_a_bad_header_denies_where_failures_pass(tmp_path: Path) -> None:
    async with running_mesh(tmp_path, allow_on_failure=True) as mesh:
        mesh.answer = lambda _: write_deny(
            http_status=401, rpc_code=16, headers=[("www-authenticate", "a\r\nb: c")]
        )
        response = await mesh.client.get("/")
    assert response.status_code == 401
    assert "b" not in response.headers


@pytest.mark.parametrize(("allowed", "status"), [(False, 503), (True, 200)])
async def test_a_failed_call_gives_what_the_operator_chose(
    tmp_path: Path, *, allowed: bool, status: int
) -> None:
    async with running_mesh(tmp_path, allow_on_failure=allowed) as mesh:
        mesh.fails = True
        response = await mesh.client.get("/")
    assert response.status_code == status


@pytest.mark.parametrize(("allowed", "status"), [(False, 504), (True, 200)])
async def test_an_error_response_gives_what_the_operator_chose(
    tmp_path: Path, *, allowed: bool, status: int
) -> None:
    async with running_mesh(tmp_path, allow_on_failure=allowed) as mesh:
        mesh.answer = lambda _: write_error(http_status=504, rpc_code=14, body="later")
        response = await mesh.client.get("/")
    assert response.status_code == status


@pytest.mark.parametrize("path", ["/a%2Fb", "/a%5Cb"])
async def test_envoy_refuses_paths_that_two_may_read_differently(tmp_path: Path, path: str) -> None:
    async with running_mesh(tmp_path) as mesh:
        response = await mesh.client.get(path)
    assert response.status_code == 400
    assert mesh.asked == []


async def test_envoy_refuses_headers_with_underscores(tmp_path: Path) -> None:
    async with running_mesh(tmp_path) as mesh:
        response = await mesh.client.get("/", headers={"x_user": "eve"})
    assert response.status_code == 400
    assert mesh.asked == []
