"""An adapter that answers what a test tells it, over real gRPC, and keeps what it was asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

CHECK = "/authorization.HandleAuthorizationService/HandleAuthorization"
REPORT = "/metric.HandleMetricService/HandleMetric"
QUOTA = "/quota.HandleQuotaService/HandleQuota"

Answer = Callable[[bytes], bytes]


class Refused(Exception):
    """The call ends with this status."""

    def __init__(self, code: grpc.StatusCode) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(slots=True)
class ToldAdapter(grpc.GenericRpcHandler):
    """Answers by path; `asked` is every call, with its path."""

    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[tuple[str, bytes]] = field(default_factory=list)

    def service(self, handler_call_details: Any) -> Any:
        """What grpc asks for each call."""
        path = handler_call_details.method
        return grpc.unary_unary_rpc_method_handler(self._behaviour(path))

    def _behaviour(self, path: str) -> Any:
        async def answer(request: bytes, context: Any) -> bytes:
            self.asked.append((path, request))
            try:
                return self.answers[path](request)
            except Refused as refused:
                await context.abort(refused.code, "as told")
                raise

        return answer

    def calls(self, path: str) -> list[bytes]:
        """The requests to one method."""
        return [request for asked, request in self.asked if asked == path]


@asynccontextmanager
async def listening(adapter: grpc.GenericRpcHandler) -> AsyncIterator[str]:
    """Serves it on loopback; gives host:port."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((adapter,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
