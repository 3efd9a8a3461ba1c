"""What the reports of finished requests cost: 100,000 entries of a real Envoy's access log.

For each host, two Envoys, each with a service of its own: one reports its requests (ALS v3), the
other does not. Requests come at a fixed rate over HTTP/1.1, to one and the other in turn. Latencies
count from when a request was due (`tests.bench.serving.open_loop`). The ratios are the medians of
the rounds' ratios. Every request must be a line in the file of usage at the end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import httpx2
import yaml

from extauthz.demo.processes import run_envoy, run_extauthz
from extauthz.envoy.configuration.bootstrap import render_bootstrap
from extauthz.envoy.configuration.parameters import EnvoyParameters, Upstream
from extauthz.usage.summing import sum_files
from tests.bench.serving.open_loop import offer, read_quantile
from tests.bench.serving.upstream import run_upstream
from tests.bench.tables import Row
from tests.free_ports import find_free_port

TITLE = "Usage: with Envoy's access log reported, beside the same without"
PER_S: Final = 1_000
SECONDS: Final = {"on": 10, "off": 5}
ROUNDS: Final = 10
"""100,000 requests are reported for each host, if all are answered."""
_WAIT_S: Final = 60
_KEY: Final = "test"
_REQUEST: Final = (
    "GET /things/1.0.0/4711 HTTP/1.1\r\nhost: api.example.com\r\naccept: */*\r\n"
    "user-agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/150.0\r\n"
    f"x-api-key: {_KEY}\r\n\r\n"
).encode()
_CATALOG: Final = {
    "apis": [
        {
            "name": "Things",
            "version": "1.0.0",
            "context": "/things/1.0.0",
            "resources": [{"methods": ["GET"], "path": "/{id}"}],
        }
    ],
    "applications": [
        {
            "name": "mobile",
            "owner": "alice",
            "api_keys": [
                {"sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}
            ],
        }
    ],
    "subscriptions": [
        {"application": "mobile", "api": "Things", "version": "1.0.0", "tier": "Gold"}
    ],
    "tiers": {"Gold": {"limits": [{"requests": 1_000_000_000, "per": "1m"}]}},
}


@dataclass(frozen=True, slots=True)
class Stand:
    """An Envoy with its service."""

    address: str
    admin: str
    usage: Path


@contextmanager
def _run_stand(folder: Path, host: str, upstream: str, *, reports: bool) -> Iterator[Stand]:
    folder.mkdir(parents=True)
    ports = [find_free_port() for _ in range(4)]
    grpc, envoy, admin, own_admin = ports
    settings = {
        "listen": {"grpc": f"127.0.0.1:{grpc}", "admin": f"127.0.0.1:{own_admin}"},
        "server": {"host": host},
        "catalog": {"files": ["catalog.yaml"]},
    }
    if reports:
        settings["usage"] = {"file": {"path": "usage.jsonl"}}
    (folder / "catalog.yaml").write_text(yaml.safe_dump(_CATALOG))
    (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
    parameters = EnvoyParameters(
        upstreams=(Upstream(address=upstream),),
        extauthz=f"127.0.0.1:{grpc}",
        listen=f"127.0.0.1:{envoy}",
        admin_port=admin,
        stdout_log=False,
        access_logs=reports,
    )
    (folder / "envoy.yaml").write_text(render_bootstrap(parameters))
    with (
        run_extauthz(folder / "extauthz.yaml", f"127.0.0.1:{grpc}", folder / "extauthz.log"),
        run_envoy(folder / "envoy.yaml", admin, folder / "envoy.log"),
    ):
        yield Stand(f"127.0.0.1:{envoy}", f"http://127.0.0.1:{admin}", folder / "usage.jsonl")


def measure() -> list[Row]:
    """One row for each host."""
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = await stack.enter_async_context(run_upstream())
        for host in ("grpcio", "envoy"):
            with (
                _run_stand(folder / host / "on", host, upstream, reports=True) as on,
                _run_stand(folder / host / "off", host, upstream, reports=False) as off,
            ):
                rows.append(await asyncio.to_thread(_measure_host, host, on, off))
    return rows


def _measure_host(host: str, on: Stand, off: Stand) -> Row:
    p50: dict[str, list[float]] = {"on": [], "off": []}
    p99: dict[str, list[float]] = {"on": [], "off": []}
    _offer(off, 2)  # warms up
    answered = _offer(on, 2)[2]
    for number in range(ROUNDS):
        print(f"  {host}: round {number + 1} of {ROUNDS}", file=sys.stderr, flush=True)
        for name, stand in (("on", on), ("off", off)) if number % 2 else (("off", off), ("on", on)):
            middle_ms, high_ms, many = _offer(stand, SECONDS[name])
            p50[name].append(middle_ms)
            p99[name].append(high_ms)
            answered += many if stand is on else 0
    written, lost = _wait_for(on, answered)
    return {
        "host": host,
        "requests reported": answered,
        "lines written": written,
        "lost": lost,
        "dropped by Envoy": _read_dropped(on),
        "p50 ms without": round(median(p50["off"]), 2),
        "p50 ms with": round(median(p50["on"]), 2),
        "p99 ms without": round(median(p99["off"]), 2),
        "p99 ms with": round(median(p99["on"]), 2),
        "ratio of p50": _find_ratio(p50),
        "ratio of p99": _find_ratio(p99),
    }


def _find_ratio(figures: dict[str, list[float]]) -> float:
    pairs = zip(figures["on"], figures["off"], strict=True)
    return round(median(on / off for on, off in pairs), 2)


def _offer(stand: Stand, seconds: float) -> tuple[float, float, int]:
    """The median and 99th percentile in milliseconds, and how many requests were answered."""
    offered = offer(stand.address, _REQUEST, per_s=PER_S, seconds=seconds)
    latencies_us = offered.list_latencies_us()
    assert latencies_us, f"{stand.address}: nothing was let through"
    answered = sum(answer.status != 0 for answer in offered.answers)
    return (
        read_quantile(latencies_us, 0.5) / 1000,
        read_quantile(latencies_us, 0.99) / 1000,
        answered,
    )


def _wait_for(stand: Stand, wanted: int) -> tuple[int, int]:
    """How many requests are in the file once nothing is added, and how many it says are missing."""
    end_s, pause = time.monotonic() + _WAIT_S, threading.Event()
    written = lost = 0
    while written < wanted and time.monotonic() < end_s:
        pause.wait(2)
        summary = sum_files([stand.usage], ("status",))
        written = sum(sums.requests for sums in summary.groups.values())
        lost = summary.lost
    return written, lost


def _read_dropped(stand: Stand) -> int:
    with httpx2.Client(trust_env=False) as client:
        stats = client.get(f"{stand.admin}/stats?filter=grpc_access_log&format=json").json()
    found = {stat["name"]: stat["value"] for stat in stats["stats"] if "name" in stat}
    print(f"  Envoy's counters: {json.dumps(found)}", file=sys.stderr, flush=True)
    return int(found.get("access_logs.grpc_access_log.logs_dropped", 0))


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("usage")))
