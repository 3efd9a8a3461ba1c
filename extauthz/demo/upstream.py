"""The sample upstream: a small part of httpbin, which returns the requests that it receives.

It answers GET …/ip, …/headers, …/delay/{seconds} and …/status/{code} below any base path. All other
requests are answered with 200 and the request itself, so that a request that should have been
denied is visible.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

MAX_DELAY_S: Final = 10.0
_STATUS: Final = re.compile(r"/status/([1-5]\d\d)$")
_DELAY: Final = re.compile(r"/delay/(\d{1,2}(?:\.\d+)?)$")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Upstream

    def log_message(self, *args: Any) -> None:
        """Logs nothing, because the demonstration prints its own table."""

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length)
        path = self.path.partition("?")[0]
        delay = _DELAY.search(path)
        if delay is not None:
            self.server.stopped.wait(min(float(delay[1]), MAX_DELAY_S))
        status = _STATUS.search(path)
        fields: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            fields.setdefault(name.lower(), []).append(value)
        seen = {
            "method": self.command,
            # The unchanged path: in `self.path`, leading slashes are collapsed.
            "path": self.requestline.split(" ")[1],
            "origin": self.client_address[0],
            "headers": {name: ",".join(values) for name, values in fields.items()},
            "body_bytes": len(body),
        }
        content = json.dumps(seen).encode()
        self.send_response(200 if status is None else max(200, int(status[1])))
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # The names that BaseHTTPRequestHandler calls.
    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815


class _Upstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.stopped = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs no errors of clients that closed their connection."""


@contextmanager
def run_upstream(port: int = 0) -> Iterator[str]:
    """Serves in a thread during the block; yields its address ``127.0.0.1:port``."""
    server = _Upstream(port)
    thread = threading.Thread(target=server.serve_forever, name="upstream", daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()
