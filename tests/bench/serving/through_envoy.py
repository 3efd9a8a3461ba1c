"""What a decision adds to a request through a real Envoy: latency at a fixed rate, and CPU.

Client, Envoy, upstream, and nobody, a null authorizer or a full decision, each in a process of
its own. Requests come at a fixed rate over HTTP/1.1, whatever becomes of earlier ones, and
latencies count from when they were due (`tests.bench.serving.open_loop`). Authorizers take turns; the
medians of the rounds stand in the table. What is added to the 99th percentile is the median of
its differences to the null authorizer on the same host, round by round.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.serving.hosts import read_cpu_s, run_server
from tests.bench.serving.open_loop import offer, read_quantile
from tests.bench.serving.proxies import run_proxy
from tests.bench.serving.upstream import run_upstream
from tests.bench.tables import Row
from tests.builders import API_KEY

TITLE = "Through a real Envoy, 1,000 requests a second from an open loop"
PER_S: Final = 1_000
SECONDS: Final = 5
ROUNDS: Final = 5
AUTHORIZERS: Final = (
    ("nobody", ""),
    ("envoy", "null"),
    ("envoy", "full"),
    ("grpcio", "null"),
    ("grpcio", "full"),
)
BUDGET_MS: Final = 0.5
REQUEST: Final = (
    "GET /api3/1.0.0/things7/4711 HTTP/1.1\r\nhost: api.example.com\r\naccept: */*\r\n"
    "accept-encoding: gzip, deflate, br\r\naccept-language: en\r\n"
    "user-agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/150.0\r\n"
    f"x-api-key: {API_KEY}\r\n\r\n"
).encode()


@dataclass(frozen=True, slots=True)
class Target:
    """A proxy with what stands behind it."""

    address: str
    proxy_id: int
    service_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One round: latencies in milliseconds, CPU in microseconds for each request."""

    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    late_p99_ms: float
    proxy_us: float
    service_us: float
    failed: int


def measure() -> list[Row]:
    """One row for each authorizer."""
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    samples: defaultdict[tuple[str, str], list[Sample]] = defaultdict(list)
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = await stack.enter_async_context(run_upstream())
        targets = {
            (host, handler): await stack.enter_async_context(
                _run_target(folder / f"{host}-{handler}", upstream, host, handler)
            )
            for host, handler in AUTHORIZERS
        }
        for number in range(ROUNDS + 1):
            print(f"  round {number} of {ROUNDS}", file=sys.stderr, flush=True)
            for key, target in targets.items():
                sample = await asyncio.to_thread(_offer, target)
                if number:  # the first one warms up
                    samples[key].append(sample)
    return [_write_row(key, samples) for key in AUTHORIZERS]


@asynccontextmanager
async def _run_target(
    folder: Path, upstream: str, host: str, handler: str
) -> AsyncIterator[Target]:
    async with AsyncExitStack() as stack:
        server = None
        if handler:
            server = await stack.enter_async_context(run_server(host, handler))
        address = None if server is None else server.address
        proxy = stack.enter_context(run_proxy(folder, upstream, address))
        service_id = None if server is None else server.process_id
        yield Target(proxy.address, proxy.process_id, service_id)


def _offer(target: Target) -> Sample:
    before_s = _read_cpu(target)
    offered = offer(target.address, REQUEST, per_s=PER_S, seconds=SECONDS)
    after_s = _read_cpu(target)
    latencies_us = offered.list_latencies_us()
    assert latencies_us, f"{target.address}: nothing was let through"
    proxy_us, service_us = (
        (after - before) * 1e6 / (PER_S * SECONDS)
        for before, after in zip(before_s, after_s, strict=True)
    )
    p50_ms, p90_ms, p99_ms, p999_ms = (
        read_quantile(latencies_us, share) / 1000 for share in (0.5, 0.9, 0.99, 0.999)
    )
    return Sample(
        p50_ms=p50_ms,
        p90_ms=p90_ms,
        p99_ms=p99_ms,
        p999_ms=p999_ms,
        late_p99_ms=read_quantile(offered.late_us, 0.99) / 1000,
        proxy_us=proxy_us,
        service_us=service_us,
        failed=len(offered.answers) - len(latencies_us),
    )


def _read_cpu(target: Target) -> tuple[float, float]:
    service_s = 0.0 if target.service_id is None else read_cpu_s(target.service_id)
    return read_cpu_s(target.proxy_id), service_s


def _write_row(
    key: tuple[str, str], samples: dict[tuple[str, str], list[Sample]]
) -> dict[str, object]:
    host, handler = key
    of_key = samples[key]
    added = None
    if handler == "full":
        pairs = zip(of_key, samples[host, "null"], strict=True)
        added = round(median(full.p99_ms - null.p99_ms for full, null in pairs), 2)
    return {
        "authorizer": host,
        "handler": handler,
        "p50 ms": _median([sample.p50_ms for sample in of_key]),
        "p90 ms": _median([sample.p90_ms for sample in of_key]),
        "p99 ms": _median([sample.p99_ms for sample in of_key]),
        "spread of p99 ms": round(
            max(sample.p99_ms for sample in of_key) - min(sample.p99_ms for sample in of_key), 2
        ),
        "p99.9 ms": _median([sample.p999_ms for sample in of_key]),
        "p99 beside null ms": added,
        "budget ms": BUDGET_MS if handler == "full" else None,
        "CPU of Envoy us": _median([sample.proxy_us for sample in of_key]),
        "CPU of the service us": _median([sample.service_us for sample in of_key]),
        "failed": sum(sample.failed for sample in of_key),
        "sent late, p99 ms": _median([sample.late_p99_ms for sample in of_key]),
    }


def _median(values: Sequence[float]) -> float:
    return round(median(values), 2)


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("through_envoy")))
