"""A whole installation at four fifths of what it can do, for as long as is asked for.

    python -m tests.bench soak --minutes 10

Every half minute something happens, in turn: the catalog is read again, the catalog changes,
Redis is killed and comes back a second later. What clients saw and how memory went is told, and
kept in build/bench/soak.json.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any, Final

from tests.bench.pace import let_pass
from tests.bench.serving.open_loop import read_quantile
from tests.bench.serving.stand import Stand, run_stand
from tests.bench.tables import Row

OPTIONS: Final = ("minutes",)
TITLE = "Soak: 80 % of capacity through Envoy, service on the Envoy host, counters in Redis"
SHARE: Final = 0.8
MINUTES: Final = 1.0
_LOOK_S: Final = 1.0
_EVENTS_S: Final = 30.0
_AWAY_S: Final = 1.0
RESULTS: Final = Path(__file__).resolve().parents[3] / "build" / "bench"


def measure(minutes: float = MINUTES) -> list[Row]:
    """What happened, a row for each figure."""
    return asyncio.run(_measure(minutes * 60))


async def _measure(seconds: float) -> list[Row]:
    async with run_stand() as stand:
        capacity = await stand.find_capacity()
        print(f"  capacity: {capacity:,.0f} requests a second", file=sys.stderr, flush=True)
        before, shed_before = await stand.read_metrics()
        memory_mib: list[float] = []
        events: list[tuple[float, str]] = []
        watching = asyncio.create_task(_watch(stand, memory_mib, seconds))
        disturbing = asyncio.create_task(_disturb(stand, events, seconds))
        try:
            asked = await stand.offer(SHARE * capacity, seconds)
        finally:
            watching.cancel()
            disturbing.cancel()
            await asyncio.gather(watching, disturbing, return_exceptions=True)
        after, shed_after = await stand.read_metrics()
    statuses = Counter(one.status for one in asked)
    took_us = [float(one.took_us) for one in asked if one.status == 200]
    assert took_us, "nothing was let through"
    fifth = max(1, len(memory_mib) // 5)
    early, late = mean(memory_mib[fifth : 2 * fifth]), mean(memory_mib[-fifth:])
    figures: dict[str, Any] = {
        "minutes": round(seconds / 60, 1),
        "capacity, requests/s": round(capacity),
        "offered, requests/s": round(SHARE * capacity),
        "answered": len(asked),
        **{f"HTTP {status or 'none'}": count for status, count in sorted(statuses.items())},
        **{f"decision {reason}": after[reason] - before.get(reason, 0) for reason in sorted(after)},
        "calls shed": shed_after - shed_before,
        "p50 of 200 ms": round(read_quantile(took_us, 0.5) / 1000, 2),
        "p99 of 200 ms": round(read_quantile(took_us, 0.99) / 1000, 2),
        "p99.9 of 200 ms": round(read_quantile(took_us, 0.999) / 1000, 2),
        "memory, second fifth, MiB": round(early, 1),
        "memory, last fifth, MiB": round(late, 1),
        "events": len(events),
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = {**figures, "memory_mib": memory_mib, "happened": events}
    (RESULTS / "soak.json").write_text(json.dumps(kept, indent=1) + "\n")
    return [{"what": what, "figure": figure} for what, figure in figures.items()]


async def _watch(stand: Stand, memory_mib: list[float], seconds: float) -> None:
    began_s = time.monotonic()
    while True:
        memory_mib.append(round(stand.read_rss_mib(), 1))
        passed_s = time.monotonic() - began_s
        if len(memory_mib) % 10 == 0:
            print(
                f"  {passed_s:.0f} of {seconds:.0f} s, {memory_mib[-1]:.0f} MiB",
                file=sys.stderr,
                flush=True,
            )
        await let_pass(_LOOK_S)


async def _disturb(stand: Stand, events: list[tuple[float, str]], seconds: float) -> None:
    """Something every half minute, and three things in a minute's soak."""
    began_s = time.monotonic()
    pause_s = min(_EVENTS_S, seconds / 4)
    for number in range(10**6):
        await let_pass(pause_s)
        kind = ("reload", "change", "redis restart")[number % 3]
        events.append((round(time.monotonic() - began_s, 1), kind))
        if kind == "reload":
            stand.reload()
        elif kind == "change":
            stand.change_catalog(number)
        else:
            stand.redis.kill()
            await let_pass(_AWAY_S)
            await asyncio.to_thread(stand.redis.start)


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("soak")))
