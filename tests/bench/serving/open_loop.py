"""Sends HTTP/1.1 requests at a fixed rate, whatever becomes of the earlier ones.

A request's latency counts from the moment at which it was due. So neither a server that stalls
nor a sender that is late can hide it: a closed loop would wait, send less, and look well.
"""

from __future__ import annotations

import gc
import re
import select
import socket
from dataclasses import dataclass, field
from time import perf_counter_ns
from typing import Final

MAX_CONNECTIONS: Final = 500
_PATIENCE_S: Final = 5
_NS: Final = 1_000_000_000
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Answer:
    """Of one request: when it was due, its HTTP status, and how long it took from then.

    Attributes:
        due_s: after the first.
        status: 0 when there was no answer, or when it was never sent as too many waited.
    """

    due_s: float
    status: int
    took_us: float = 0.0


@dataclass(slots=True)
class Offered:
    """What came of the requests.

    Attributes:
        began_s: when the first was due, by `time.perf_counter`.
        answers: in the order in which they came.
        late_us: by how much each request was sent too late.
    """

    began_s: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    late_us: list[float] = field(default_factory=list)

    def list_latencies_us(self, status: int = 200) -> list[float]:
        """How long those took that were answered so."""
        return [answer.took_us for answer in self.answers if answer.status == status]


@dataclass(slots=True)
class _Waiting:
    due_ns: int
    received: bytes = b""


def offer(address: str, request: bytes, *, per_s: int, seconds: float) -> Offered:
    """Sends so many requests a second to ``host:port`` for so long; waits for the answers."""
    offered = Offered()
    gc.collect()
    gc.freeze()
    try:
        _offer(_read_address(address), request, per_s, round(per_s * seconds), offered)
    finally:
        gc.unfreeze()
    return offered


def read_quantile(values: list[float], share: float) -> float:
    """The value below which such a share of them lies; 0 when there is none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _read_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _offer(
    address: tuple[str, int], request: bytes, per_s: int, total: int, offered: Offered
) -> None:
    idle: list[socket.socket] = []
    waiting: dict[socket.socket, _Waiting] = {}
    began_ns = perf_counter_ns() + _NS // 100
    offered.began_s = began_ns / _NS
    due_ns = began_ns
    sent = 0
    try:
        while sent < total or waiting:
            now_ns = perf_counter_ns()
            while sent < total and due_ns <= now_ns:
                if len(waiting) < MAX_CONNECTIONS:
                    connection = idle.pop() if idle else _connect(address)
                    connection.sendall(request)
                    waiting[connection] = _Waiting(due_ns)
                    offered.late_us.append((now_ns - due_ns) / 1000)
                else:
                    offered.answers.append(Answer((due_ns - began_ns) / _NS, 0))
                sent += 1
                due_ns = began_ns + sent * _NS // per_s
            wait_s = max(0, due_ns - now_ns) / _NS if sent < total else _PATIENCE_S
            # Unlike poll and epoll, select waits for less than a millisecond.
            ready, _, _ = select.select([*waiting], (), (), wait_s)
            if not ready and sent >= total:
                offered.answers += [
                    Answer((one.due_ns - began_ns) / _NS, 0) for one in waiting.values()
                ]
                return
            for connection in ready:
                one = waiting[connection]
                status = _receive(connection, one)
                if status is None:
                    continue
                now_ns = perf_counter_ns()
                offered.answers.append(
                    Answer((one.due_ns - began_ns) / _NS, status, (now_ns - one.due_ns) / 1000)
                )
                del waiting[connection]
                if status:
                    idle.append(connection)
                else:
                    connection.close()
    finally:
        for connection in (*idle, *waiting):
            connection.close()


def _connect(address: tuple[str, int]) -> socket.socket:
    connection = socket.create_connection(address, _PATIENCE_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _receive(connection: socket.socket, one: _Waiting) -> int | None:
    """The status of the answer once it is whole; 0 when the connection ended before."""
    received = connection.recv(65_536)
    if not received:
        return 0
    one.received += received
    head, found, body = one.received.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    if not found or len(body) < (int(length[1]) if length else 0):
        return None
    return int(head[9:12])
