"""Upstreams and a client for what HTTP libraries hide: WebSocket handshakes and trailers."""

from __future__ import annotations

import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import h2.config
import h2.connection
import h2.events

Fields = list[tuple[str, str]]

_TURN_S: Final = 60


@contextmanager
def serve(handler: type[socketserver.BaseRequestHandler]) -> Iterator[str]:
    """Serves connections in threads; gives ``127.0.0.1:port``."""

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class WebSocketEcho(socketserver.StreamRequestHandler):
    """Takes every handshake, and says back what comes after it."""

    def handle(self) -> None:
        lines = list(iter(lambda: self.rfile.readline().strip(), b""))
        if not any(line.lower() == b"upgrade: websocket" for line in lines):
            self.wfile.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
            return
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        )
        while data := self.request.recv(1024):
            self.wfile.write(data)


class Http2Echo(socketserver.BaseRequestHandler):
    """Answers each HTTP/2 request with its header fields and trailers, as JSON."""

    def handle(self) -> None:
        config = h2.config.H2Configuration(client_side=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        seen: dict[int, dict[str, Fields]] = {}
        self.request.sendall(connection.data_to_send())
        while data := self.request.recv(65_536):
            for event in connection.receive_data(data):
                match event:
                    case h2.events.RequestReceived():
                        seen[event.stream_id] = {"headers": _read(event), "trailers": []}
                    case h2.events.TrailersReceived():
                        seen[event.stream_id]["trailers"] = _read(event)
                    case h2.events.StreamEnded():
                        body = json.dumps(seen.pop(event.stream_id)).encode()
                        connection.send_headers(event.stream_id, [(":status", "200")])
                        connection.send_data(event.stream_id, body, end_stream=True)
                    case _:
                        pass
            self.request.sendall(connection.data_to_send())


def _read(event: h2.events.RequestReceived | h2.events.TrailersReceived) -> Fields:
    return [(name.decode(), value.decode()) for name, value in event.headers or ()]


def send_with_trailers(port: int, headers: Fields, trailers: Fields) -> tuple[int, str]:
    """One HTTP/2 POST with trailers; gives status and body of the answer."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration())
    connection.initiate_connection()
    with socket.create_connection(("127.0.0.1", port), timeout=_TURN_S) as wire:
        connection.send_headers(1, headers)
        connection.send_data(1, b"x")
        connection.send_headers(1, trailers, end_stream=True)
        status, body = 0, b""
        while True:
            wire.sendall(connection.data_to_send())
            for event in connection.receive_data(wire.recv(65_536)):
                match event:
                    case h2.events.ResponseReceived():
                        status = int(dict(event.headers or ())[b":status"])
                    case h2.events.DataReceived():
                        body += event.data or b""
                    case h2.events.StreamEnded():
                        return status, body.decode()
                    case h2.events.StreamReset() | h2.events.ConnectionTerminated():
                        raise AssertionError(f"the call was cut: {event}")
                    case _:
                        pass
