"""What stands around Envoy and extauthz: an upstream, a gRPC upstream, and introspection.

Real servers on loopback, each in threads of its own, so that they can serve a whole session.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs

import grpc

CLIENT_ID: Final = "gateway"
_TURN_S: Final = 60


WANTED_STATUS: Final = "x-wanted-status"
"""A header field with the status that the upstream answers with; 0 for 200 and an endless body."""


class _EchoHandler(socketserver.StreamRequestHandler):
    """HTTP/1.1, read by hand: a library would tidy up what a test wants to see."""

    def handle(self) -> None:
        while head := self._read_head():
            first, *lines = head.split("\r\n")
            method, target, _ = first.split(" ", 2)
            headers = [line.split(": ", 1) if ": " in line else [line[:-1], ""] for line in lines]
            length = sum(int(value) for name, value in headers if name == "content-length")
            self.rfile.read(length)
            seen = {"method": method, "target": target, "headers": headers}
            body = json.dumps(seen).encode()
            status = next((int(value) for name, value in headers if name == WANTED_STATUS), 200)
            if not status:
                self.wfile.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\nbegun")
                self.rfile.read()  # until the proxy goes away
                return
            self.wfile.write(
                b"HTTP/1.1 %d OK\r\nx-upstream: echo\r\ncontent-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % (status, len(body))
            )
            self.wfile.write(b"" if method == "HEAD" else body)

    def _read_head(self) -> str:
        """Without the empty line behind it; empty when there is no further request."""
        lines: list[str] = []
        for line in self.rfile:
            if line == b"\r\n":
                return "\r\n".join(lines)
            lines.append(line.decode("latin-1").removesuffix("\r\n"))
        return ""


class _EchoServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of connections that Envoy has cut."""


@contextmanager
def run_echo() -> Iterator[str]:
    """Answers 200 with what it saw, byte for byte; gives ``127.0.0.1:port``."""
    with _EchoServer(("127.0.0.1", 0), _EchoHandler) as server, _serving(server):
        yield f"127.0.0.1:{server.server_address[1]}"


@contextmanager
def run_grpc_echo() -> Iterator[str]:
    """Answers any unary gRPC method with the metadata that it saw, as JSON."""

    def answer(_message: bytes, context: grpc.ServicerContext) -> bytes:
        return json.dumps(list(context.invocation_metadata())).encode()

    class AnyMethod(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
            return grpc.unary_unary_rpc_method_handler(answer)

    server = grpc.server(ThreadPoolExecutor(max_workers=2), handlers=[AnyMethod()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


class Introspection:
    """An introspection endpoint (RFC 7662).

    Attributes:
        claims: of active tokens, by token; all others are inactive.
        errors: status and body of other answers, by token.
        held: answers to these tokens are kept back until `release`.
        arrived: is released once for each question about a held token.
    """

    def __init__(self) -> None:
        self.url = ""
        self.claims: dict[str, Mapping[str, Any]] = {}
        self.errors: dict[str, tuple[int, bytes]] = {}
        self.held: set[str] = set()
        self.arrived = threading.Semaphore(0)
        self._may_answer = threading.Event()

    def hold(self, *tokens: str) -> None:
        """Keeps answers to these tokens back until `release`."""
        while self.arrived.acquire(blocking=False):
            pass  # questions that the test before did not wait for
        self._may_answer.clear()
        self.held.update(tokens)

    def wait_until_asked(self, times: int) -> None:
        """Returns when held tokens were asked about so often."""
        for _ in range(times):
            assert self.arrived.acquire(timeout=_TURN_S), "nobody asked about the held tokens"

    def release(self) -> None:
        """Lets all held answers go, and holds none any more."""
        self.held.clear()
        self._may_answer.set()

    def answer(self, token: str) -> Mapping[str, Any]:
        """What the endpoint says; waits for `release` when the token is held."""
        if token in self.held:
            self.arrived.release()
            assert self._may_answer.wait(_TURN_S)
        claims = self.claims.get(token)
        return {"active": False} if claims is None else {"active": True, **claims}


@contextmanager
def run_introspection() -> Iterator[Introspection]:
    """Serves ``/introspect``, and lets nobody wait at the end."""
    introspection = Introspection()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            form = parse_qs(self.rfile.read(int(self.headers["content-length"])).decode())
            token = form["token"][0]
            status, body = introspection.errors.get(token, (200, b""))
            if not body:
                body = json.dumps(introspection.answer(token)).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Says nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Says nothing of callers that did not wait."""

    with Server(("127.0.0.1", 0), Handler) as server, _serving(server):
        introspection.url = f"http://127.0.0.1:{server.server_address[1]}/introspect"
        try:
            yield introspection
        finally:
            introspection.release()


@contextmanager
def hold_dead_port() -> Iterator[int]:
    """A port where connections are refused, and that nobody else gets meanwhile."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@contextmanager
def _serving(server: socketserver.BaseServer) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
