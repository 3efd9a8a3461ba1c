"""What writing each decision costs others: the log of decisions in a file, beside none.

A record is made and written by a thread of the service, in the same interpreter as decisions. For
each host, two pairs of an Envoy and a service: with `log.decisions.file`, and without.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median
from typing import Final

from tests.bench.serving.by_turns import Stand, Variant, find_ratio, measure_by_turns, run_stands
from tests.bench.serving.upstream import run_upstream
from tests.bench.tables import Row

TITLE = "The log of decisions in a file, beside none"
PER_S: Final = 400
SECONDS: Final = {"off": 10, "on": 10}
ROUNDS: Final = 11
_VARIANTS: Final = {
    "off": Variant(),
    "on": Variant(settings={"log": {"decisions": {"file": "decisions.jsonl"}}}),
}


def measure() -> list[Row]:
    """One row for each host."""
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    rows: list[Row] = []
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        upstream = await stack.enter_async_context(run_upstream())
        for host in ("grpcio", "envoy"):
            print(f"  on {host}", file=sys.stderr, flush=True)
            with run_stands(folder, host, upstream, _VARIANTS) as stands:
                rows.append(await asyncio.to_thread(_measure_host, host, stands))
    return rows


def _measure_host(host: str, stands: dict[str, Stand]) -> Row:
    measured = measure_by_turns(stands, per_s=PER_S, rounds=ROUNDS, seconds=SECONDS)
    on, off = measured["on"], measured["off"]
    lines = (stands["on"].folder / "decisions.jsonl").read_bytes().count(b"\n")
    return {
        "host": host,
        "a second": PER_S,
        "decisions": on.answered,
        "lines": lines,
        "p50 ms without": round(median(off.p50_ms), 2),
        "p50 ms with": round(median(on.p50_ms), 2),
        "p99 ms without": round(median(off.p99_ms), 2),
        "p99 ms with": round(median(on.p99_ms), 2),
        "spread of p99 ms": round(max(off.p99_ms) - min(off.p99_ms), 2),
        "ratio of p50": find_ratio(on.p50_ms, off.p50_ms),
        "ratio of p99": find_ratio(on.p99_ms, off.p99_ms),
    }
