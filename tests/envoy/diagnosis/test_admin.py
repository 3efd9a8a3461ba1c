"""Servers that are not there, not Envoy, slow or endless: one clear error, soon."""

from __future__ import annotations

import socketserver
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from extauthz.envoy.diagnosis.admin import AdminClient, AdminError, ask_envoy
from tests.e2e.backends import hold_dead_port
from tests.e2e.raw_upstreams import serve


@contextmanager
def _answer(*parts: bytes) -> Iterator[str]:
    """A server that reads a little, says this, and keeps the connection."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            for part in parts:
                self.request.sendall(part)
            self.request.recv(65_536)

    with serve(Handler) as address:
        yield f"http://{address}"


def _http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((_http("200 OK", b"<html>"),), "/server_info is not a JSON object: this is not the right"),
        ((_http("200 OK", b"[" * 100_000),), "is not a JSON object"),
        ((_http("200 OK", b'{"version": "1"}'),), "is not that of Envoy"),
        ((_http("403 Forbidden", b""),), "/server_info is answered with 403"),
        ((b"SSH-2.0-x\r\n\r\n",), "does not answer with HTTP"),
        ((_http("200 OK", b"x" * 300_000),), "/server_info is larger than 0 MiB"),
        ((), "did not answer within 0.2 s"),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{",), "did not answer within 0.2 s"),
    ],
)
def test_who_is_not_envoy_is_told_of(answer: tuple[bytes, ...], message: str) -> None:
    timeout_s = 0.2 if "0.2 s" in message else 60.0
    with _answer(*answer) as url, pytest.raises(AdminError) as failed:
        ask_envoy(AdminClient(url, option="--envoy-admin", timeout_s=timeout_s, max_bytes=200_000))
    assert str(failed.value).startswith(f"--envoy-admin {url}: ")
    assert message in str(failed.value)


def test_who_is_not_there_is_told_of() -> None:
    with hold_dead_port() as port, pytest.raises(AdminError, match="Connection refused"):
        AdminClient(f"http://127.0.0.1:{port}", option="--envoy-admin").get("/")


@pytest.mark.parametrize("url", ["", "127.0.0.1:9901", "ftp://x", "http://", "http://[::1", "/a"])
def test_what_is_no_url_is_told_of(url: str) -> None:
    with pytest.raises(AdminError, match="is not a URL"):
        AdminClient(url, option="--envoy-admin")
