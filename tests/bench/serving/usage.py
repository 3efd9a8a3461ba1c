"""What the reports of finished requests cost: 100,000 entries of a real Envoy's access log.

For each host, three pairs of an Envoy and a service: *nobody* gets a report; *another* process gets
Envoy's reports (ALS v3) and throws them away; *the service* writes a line of usage for each. The
second is what Envoy's own work costs on this machine, so that the ratio to it is the service's.
Every request must be a line in the file of usage at the end. Requests come at a rate that two cores
carry with everything that this measurement runs on them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import grpc
import httpx2

from extauthz.envoy.access_logs import ACCESS_LOG_SERVICE
from extauthz.envoy.configuration.parameters import USAGE_CLUSTER
from extauthz.usage.summing import sum_files
from tests.bench.serving.by_turns import (
    Measured,
    Stand,
    Variant,
    find_ratio,
    measure_by_turns,
    run_stands,
)
from tests.bench.serving.upstream import run_upstream
from tests.bench.tables import Row
from tests.free_ports import find_free_port

TITLE = "Usage: with Envoy's access log reported, beside the same without"
PER_S: Final = 400
SECONDS: Final = {"nobody": 8, "another": 8, "the service": 25}
ROUNDS: Final = 10
"""100,000 requests are reported to the service on each host, if all are answered."""
_WAIT_S: Final = 60


def measure() -> list[Row]:
    """Two rows for each host: the service beside nobody, and beside another receiver."""
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = await stack.enter_async_context(run_upstream())
        port = await stack.enter_async_context(_run_receiver())

        def report_elsewhere(bootstrap: dict[str, Any]) -> None:
            clusters = bootstrap["static_resources"]["clusters"]
            (cluster,) = [it for it in clusters if it["name"] == USAGE_CLUSTER]
            (locality,) = cluster["load_assignment"]["endpoints"]
            (endpoint,) = locality["lb_endpoints"]
            address = endpoint["endpoint"]["address"]["socket_address"]
            address |= {"address": "127.0.0.1", "port_value": port}

        variants = {
            "nobody": Variant(),
            "another": Variant(reports=True, change=report_elsewhere),
            "the service": Variant(
                settings={"usage": {"file": {"path": "usage.jsonl"}}}, reports=True
            ),
        }
        for host in ("grpcio", "envoy"):
            print(f"  on {host}", file=sys.stderr, flush=True)
            with run_stands(folder, host, upstream, variants) as stands:
                rows += await asyncio.to_thread(_measure_host, host, stands)
    return rows


def _measure_host(host: str, stands: dict[str, Stand]) -> list[Row]:
    measured = measure_by_turns(stands, per_s=PER_S, rounds=ROUNDS, seconds=SECONDS)
    reporting = stands["the service"]
    ours = measured["the service"]
    written, lost = _wait_for(reporting.folder / "usage.jsonl", ours.answered)
    counted = {
        "requests reported": ours.answered,
        "lines written": written,
        "lost": lost,
        "dropped by Envoy": _read_dropped(reporting),
    }
    return [
        _write_row(host, "nobody", ours, measured["nobody"], counted),
        _write_row(host, "another", ours, measured["another"], {}),
    ]


def _write_row(
    host: str, other: str, ours: Measured, theirs: Measured, counted: dict[str, int]
) -> Row:
    return {
        "host": host,
        "a second": PER_S,
        "beside reports to": other,
        "p50 ms": round(median(theirs.p50_ms), 2),
        "p50 ms, to the service": round(median(ours.p50_ms), 2),
        "p99 ms": round(median(theirs.p99_ms), 2),
        "p99 ms, to the service": round(median(ours.p99_ms), 2),
        "spread of p99 ms": round(max(theirs.p99_ms) - min(theirs.p99_ms), 2),
        "ratio of p50": find_ratio(ours.p50_ms, theirs.p50_ms),
        "ratio of p99": find_ratio(ours.p99_ms, theirs.p99_ms),
        **counted,
    }


def _wait_for(file: Path, wanted: int) -> tuple[int, int]:
    """How many requests are in the file once nothing is added, and how many it says are missing."""
    end_s, pause = time.monotonic() + _WAIT_S, threading.Event()
    written = lost = 0
    while written < wanted and time.monotonic() < end_s:
        pause.wait(2)
        summary = sum_files([file], ("status",))
        written = sum(sums.requests for sums in summary.groups.values())
        lost = summary.lost
    return written, lost


def _read_dropped(stand: Stand) -> int:
    with httpx2.Client(trust_env=False) as client:
        stats = client.get(f"{stand.admin}/stats?filter=grpc_access_log&format=json").json()
    found = {stat["name"]: stat["value"] for stat in stats["stats"] if "name" in stat}
    print(f"  Envoy's counters: {json.dumps(found)}", file=sys.stderr, flush=True)
    return int(found.get("access_logs.grpc_access_log.logs_dropped", 0))


@asynccontextmanager
async def _run_receiver() -> AsyncIterator[int]:
    """A process that takes access logs and does nothing with them; gives its port."""
    port = find_free_port()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.serving.usage", str(port)),
        stdin=asyncio.subprocess.PIPE,
    )
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _receive(port: int) -> None:
    async def take(messages: AsyncIterator[bytes], _: object) -> bytes:
        async for _message in messages:
            pass
        return b""

    handlers: dict[str, Any] = {"StreamAccessLogs": grpc.stream_unary_rpc_method_handler(take)}
    server = grpc.aio.server()
    handler = grpc.method_handlers_generic_handler(ACCESS_LOG_SERVICE, handlers)
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_receive(int(sys.argv[1])))
