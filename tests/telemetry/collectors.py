"""Collectors of OTLP on loopback: ones that take spans and logs, and ones that do not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_EXPORT_LOGS: Final = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
_WAIT_S: Final = 60


@dataclass(frozen=True, slots=True)
class Received:
    """A span, as it came."""

    service: str
    scope: str
    schema_url: str
    span: Span

    @property
    def attributes(self) -> Mapping[str, Any]:
        """By name, as Python has them."""
        return {item.key: read_value(item.value) for item in self.span.attributes}


def read_value(value: AnyValue) -> Any:
    """A value of an attribute or a body, as Python has it."""
    match value.WhichOneof("value"):
        case "kvlist_value":
            return {item.key: read_value(item.value) for item in value.kvlist_value.values}
        case "array_value":
            return [read_value(item) for item in value.array_value.values]
        case None:
            return None
        case kind:
            return getattr(value, kind)


@dataclass(frozen=True, slots=True)
class ReceivedLog:
    """A log record, as it came. `resource` is what the sender says of itself."""

    resource: Mapping[str, Any]
    scope: str
    record: LogRecord

    @property
    def body(self) -> Any:
        return read_value(self.record.body)

    @property
    def attributes(self) -> dict[str, Any]:
        return {item.key: read_value(item.value) for item in self.record.attributes}


@dataclass(slots=True)
class Collector:
    """What was sent to a collector.

    Attributes:
        url: http://127.0.0.1:port.
        headers: of each message, with names in lower case.
    """

    url: str = ""
    headers: list[Mapping[str, str]] = field(default_factory=list)
    _spans: list[Received] = field(default_factory=list)
    _logs: list[ReceivedLog] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, message: bytes, headers: Mapping[str, str]) -> bytes:
        """Keeps a message; gives the answer."""
        request = ExportTraceServiceRequest.FromString(message)
        with self._changed:
            self.headers.append(headers)
            for of_resource in request.resource_spans:
                attributes = of_resource.resource.attributes
                names = {item.key: item.value.string_value for item in attributes}
                self._spans += [
                    Received(names["service.name"], one.scope.name, one.schema_url, span)
                    for one in of_resource.scope_spans
                    for span in one.spans
                ]
            self._changed.notify_all()
        return ExportTraceServiceResponse().SerializeToString()

    def take_logs(self, message: bytes, headers: Mapping[str, str]) -> bytes:
        """As `take`, for log records."""
        request = ExportLogsServiceRequest.FromString(message)
        with self._changed:
            self.headers.append(headers)
            for of_resource in request.resource_logs:
                attributes = of_resource.resource.attributes
                names = {item.key: read_value(item.value) for item in attributes}
                self._logs += [
                    ReceivedLog(names, one.scope.name, record)
                    for one in of_resource.scope_logs
                    for record in one.log_records
                ]
            self._changed.notify_all()
        return ExportLogsServiceResponse().SerializeToString()

    def logs(self) -> list[ReceivedLog]:
        """The log records, as they came."""
        with self._changed:
            return list(self._logs)

    def spans(self, service: str = "extauthz") -> list[Received]:
        """Those of a service, as they came."""
        with self._changed:
            return [received for received in self._spans if received.service == service]

    def wait_for(self, name: str, times: int = 1, service: str = "extauthz") -> list[Received]:
        """The spans of that name, once there are so many."""

        def find() -> list[Received]:
            return [one for one in self._spans if (one.service, one.span.name) == (service, name)]

        with self._changed:
            enough = self._changed.wait_for(lambda: len(find()) >= times, _WAIT_S)
            assert enough, [(one.service, one.span.name) for one in self._spans]
            return find()


@contextmanager
def run_grpc_collector(refuses: grpc.StatusCode | None = None) -> Iterator[Collector]:
    """Takes spans and logs by gRPC, or refuses all of them with a status."""
    collector = Collector()
    takers = {_EXPORT: collector.take, _EXPORT_LOGS: collector.take_logs}

    class Export(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
            take = takers.get(handler_call_details.method)
            if take is None:
                return None

            def export(message: bytes, context: grpc.ServicerContext) -> bytes:
                if refuses is not None:
                    context.abort(refuses, "not today")
                headers = {key: str(value) for key, value in context.invocation_metadata()}
                return take(message, headers)

            return grpc.unary_unary_rpc_method_handler(export)

    server = grpc.server(ThreadPoolExecutor(max_workers=2), handlers=[Export()])
    collector.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None).wait()


@contextmanager
def run_http_collector(refuses: int | None = None) -> Iterator[Collector]:
    """Takes spans and logs by HTTP, at the usual paths, or refuses all of them with a status."""
    collector = Collector()
    takers = {"/v1/traces": collector.take, "/v1/logs": collector.take_logs}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            message = self.rfile.read(int(self.headers["content-length"]))
            answer, status = b"", refuses
            if status is None and self.path in takers:
                headers = {name.lower(): value for name, value in self.headers.items()}
                answer, status = takers[self.path](message, headers), 200
            self.send_response(status or 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield collector
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def run_hanging_collector() -> Iterator[Collector]:
    """Lets callers connect, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield Collector(f"http://127.0.0.1:{listening.getsockname()[1]}")


@contextmanager
def hold_no_collector() -> Iterator[Collector]:
    """An address at which nobody listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield Collector(f"http://127.0.0.1:{held.getsockname()[1]}")
