"""How many requests pass when several processes offer twice the limit, on both sides of an edge.

Each process has a store of its own, over one Redis, as each replica has. Requests are spread
evenly from before the edge of a window to after it; for `sliding_window`, which has no edge, over
two windows. With skewed clocks every process plans its
charges by a clock that is five seconds ahead or behind; the edge of the calendar is a midnight,
in a time zone that is made for it. What was admitted when is told by Redis's own clock.

The columns: `worst window` is the most in one window of the rule's own kind (for `sliding_window`
any stretch of two seconds; for `burst` the most in any stretch of time, less the refill in it),
`any 2 s` the most in any two seconds, and `goal` what the worst window is to be.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import struct
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import uvloop

from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import (
    US_PER_S,
    Algorithm,
    CalendarUnit,
    Charge,
    Limit,
    LimitLevel,
    OutageMode,
    Tier,
)
from extauthz.policy.limits.tier_limits import TierPlanner
from tests.bench.pace import let_pass
from tests.bench.tables import Row
from tests.redis_server import find_shared, stop_shared

TITLE = "Twice the limit offered, on each side of a window's edge"

LIMIT: Final = 500
WINDOW_US: Final = 2 * US_PER_S
PROCESSES: Final = (1, 2, 4, 8)
SKEW_S: Final = 5
REACH_US: Final = dict.fromkeys(Algorithm, 750_000) | {Algorithm.SLIDING_WINDOW: WINDOW_US}
"""Requests come from so long before the edge to so long after it."""
RESULTS: Final = Path(__file__).resolve().parents[3] / "build" / "bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What one process is to offer. Requests `first`, `first + step`, … of `offered` are its own.

    Attributes:
        edge_us: a window of every rule ends here.
        skew_us: how far the process's clock is ahead.
    """

    rule: Algorithm
    subject: str
    edge_us: int
    offered: int
    first: int
    step: int
    skew_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What came of one rule with so many processes. `admitted_us` is relative to the edge."""

    rule: Algorithm
    processes: int
    skew_s: int
    offered: int
    admitted_us: Sequence[int]
    failed: int

    @property
    def worst_window(self) -> int:
        """See the head of this module."""
        if self.rule is Algorithm.SLIDING_WINDOW:
            return self.worst_stretch
        if self.rule is not Algorithm.BURST:
            before = sum(at_us < 0 for at_us in self.admitted_us)
            return max(before, len(self.admitted_us) - before)
        worst = lowest = 0
        for number, at_us in enumerate(self.admitted_us):
            # In units of 1 / WINDOW_US of a request, so that it is exact.
            filled = number * WINDOW_US - at_us * LIMIT
            lowest = filled if number == 0 else min(lowest, filled)
            worst = max(worst, filled + WINDOW_US - lowest)
        return -(-worst // WINDOW_US)

    @property
    def worst_stretch(self) -> int:
        """The most in any stretch as long as a window: each that ends with an admission."""
        worst = first = 0
        for number, at_us in enumerate(self.admitted_us):
            while self.admitted_us[first] <= at_us - WINDOW_US:
                first += 1
            worst = max(worst, number - first + 1)
        return worst


def measure() -> Iterator[Row]:
    """One row for each rule and number of processes, and one with skewed clocks."""
    url = find_shared("redis").url
    context = multiprocessing.get_context("spawn")
    pipes: list[Connection] = []
    runs: list[Run] = []
    try:
        for _ in range(max(PROCESSES)):
            ours, theirs = context.Pipe()
            context.Process(target=_work, args=(theirs, url), daemon=True).start()
            pipes.append(ours)
        for pipe in pipes:
            pipe.recv()  # it has started
        for rule in Algorithm:
            for processes, skew_s in (*((count, 0) for count in PROCESSES), (8, SKEW_S)):
                run = _run(rule, pipes[:processes], skew_s)
                print(f"  {_row(run)}", file=sys.stderr, flush=True)
                runs.append(run)
                yield _row(run)
    finally:
        for pipe in pipes:
            pipe.send(None)
        stop_shared()
    _keep(runs)


def _row(run: Run) -> Row:
    return {
        "rule": run.rule.value,
        "processes": run.processes,
        "clocks": f"±{run.skew_s} s" if run.skew_s else "alike",
        "offered": run.offered,
        "limit": LIMIT,
        "admitted": len(run.admitted_us),
        "worst window": run.worst_window,
        "any 2 s": run.worst_stretch,
        "goal": f"≤ {LIMIT}" if run.rule is Algorithm.SLIDING_WINDOW else f"{LIMIT}",
        "failed": run.failed,
    }


def _keep(runs: Sequence[Run]) -> None:
    """For the plots."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    kept = [{**_row(run), "admitted_us": list(run.admitted_us)} for run in runs]
    (RESULTS / "accuracy.json").write_text(json.dumps(kept))


def _run(rule: Algorithm, pipes: Sequence[Connection], skew_s: int) -> Run:
    # An edge that is far enough away to tell everybody.
    edge_us = (time.time_ns() // 1000 // WINDOW_US + 3) * WINDOW_US
    offered = 4 * LIMIT
    for number, pipe in enumerate(pipes):
        pipe.send(
            Offer(
                rule=rule,
                subject=f"{{{rule.value}-{len(pipes)}-{skew_s}}}",
                edge_us=edge_us,
                offered=offered,
                first=number,
                step=len(pipes),
                skew_us=skew_s * US_PER_S * (1 if number % 2 else -1),
            )
        )
    admitted_us: list[int] = []
    failed = 0
    for pipe in pipes:
        theirs, theirs_failed = pipe.recv()
        admitted_us += theirs
        failed += theirs_failed
    return Run(
        rule=rule,
        processes=len(pipes),
        skew_s=skew_s,
        offered=offered,
        admitted_us=sorted(at_us - edge_us for at_us in admitted_us),
        failed=failed,
    )


def _work(pipe: Connection, url: str) -> None:
    """A process: makes offers until it is told None."""
    pipe.send("ready")
    while (offer := pipe.recv()) is not None:
        pipe.send(uvloop.run(_make(offer, url)))


async def _make(offer: Offer, url: str) -> tuple[list[int], int]:
    """When requests were admitted, and how many failed."""
    # What is measured is what is admitted: on a busy machine nobody gives up.
    settings = RedisSettings(address=read_redis_url(url), timeout_s=30, connect_timeout_s=30)
    store = RedisCounterStore(settings)
    planner = TierPlanner(OutageMode.DENY)
    tier = Tier(name="T", limits=(_make_limit(offer),))
    admitted_us: list[int] = []
    failed = 0

    def plan() -> Charge:
        now_us = time.time_ns() // 1000 + offer.skew_us
        return planner.plan(LimitLevel.SUBSCRIPTION, tier, offer.subject, 1, now_us)[0].charge

    async def ask() -> None:
        nonlocal failed
        try:
            taking = await store.take([plan()])
        except CounterStoreError:
            failed += 1
        else:
            if taking.charged:
                admitted_us.append(taking.at_us)

    asking: set[asyncio.Task[None]] = set()
    for number in range(offer.first, offer.offered, offer.step):
        reach_us = REACH_US[offer.rule]
        due_us = offer.edge_us - reach_us + 2 * reach_us * number // offer.offered
        await let_pass((due_us - time.time_ns() // 1000) / US_PER_S)
        asking.add(asyncio.create_task(ask()))
    await asyncio.gather(*asking)
    await store.close()
    return admitted_us, failed


def _make_limit(offer: Offer) -> Limit:
    if offer.rule is not Algorithm.CALENDAR:
        return Limit(algorithm=offer.rule, requests=LIMIT, window_us=WINDOW_US)
    return Limit(
        algorithm=offer.rule,
        requests=LIMIT,
        window_us=86_400 * US_PER_S,
        unit=CalendarUnit.DAY,
        timezone=_make_zone(offer.edge_us // US_PER_S),
    )


def _make_zone(midnight_s: int) -> ZoneInfo:
    """A time zone in which it is midnight at that Unix time. TZif is RFC 9636."""
    offset_s = -midnight_s % 86_400
    if offset_s > 43_200:
        offset_s -= 86_400
    header = struct.pack(">4s16x6I", b"TZif", 0, 0, 0, 0, 1, 4)
    return ZoneInfo.from_file(
        BytesIO(header + struct.pack(">iBB", offset_s, 0, 0) + b"ONE\0"), key="Bench/Midnight"
    )


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("accuracy")))
