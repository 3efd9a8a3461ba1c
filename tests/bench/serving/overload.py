"""What becomes of requests while three times as much is asked as can be decided, and afterwards.

The service (counters in Redis) has one processor, everything else the others. It is flooded over
gRPC. Before, during and after the flood, another client's requests come through a real Envoy at a
fixed, low rate: their statuses and latencies are shown. 503 is what could not be decided; *shed* is
what the service counted, without the calls that gRPC's core refuses. The overload is over when all
of these requests are allowed again, in at most twice the slowest hundredth before the flood.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Final

from tests.bench.pace import let_pass
from tests.bench.serving.open_loop import Answer, offer, read_quantile
from tests.bench.serving.stand import run_stand, write_probe
from tests.bench.tables import Row

TITLE = "Overload: three times as much as can be decided"
HOSTS: Final = ("envoy", "grpcio")
TIMES: Final = 3
PER_S: Final = 200
BEFORE_S: Final = 8
FLOOD_S: Final = 10
AFTER_S: Final = 10
UNAVAILABLE: Final = 503
_SLICE_S: Final = 0.25


def measure() -> list[Row]:
    """One row for each host and phase."""
    return [row for host in HOSTS for row in asyncio.run(_measure(host))]


async def _measure(host: str) -> list[Row]:
    async with run_stand(host=host, core_of_its_own=True) as stand:
        capacity = median([await stand.find_grpc_capacity() for _ in range(3)])
        print(
            f"  {host}, capacity: {capacity:,.0f} decisions a second", file=sys.stderr, flush=True
        )
        seconds = BEFORE_S + FLOOD_S + AFTER_S
        offering = asyncio.create_task(
            asyncio.to_thread(offer, stand.proxy, write_probe(), per_s=PER_S, seconds=seconds)
        )
        await let_pass(BEFORE_S)
        before, shed_before = await stand.read_metrics()
        flooded_at_s = time.perf_counter()
        print(f"  flooding: {TIMES * capacity:,.0f} a second", file=sys.stderr, flush=True)
        answered = await stand.flood(TIMES * capacity, FLOOD_S)
        calm_at_s = time.perf_counter()
        after, _ = await stand.read_metrics()
        offered = await offering
        _, shed_after = await stand.read_metrics()  # known a second late
    answers = offered.answers
    flooded_s, calm_s = flooded_at_s - offered.began_s, calm_at_s - offered.began_s
    decisions = sum(after.values()) - sum(before.values())
    rows = [
        _write_row("before", answers, 0, flooded_s),
        {
            **_write_row("overload", answers, flooded_s, calm_s),
            "flood/s": round(TIMES * capacity),
            "answered/s": round(answered),
            "capacity/s": round(capacity),
            "decided/s": round(decisions / (calm_s - flooded_s)),
            "shed/s": round((shed_after - shed_before) / (calm_s - flooded_s)),
        },
        _write_row("after", answers, calm_s, seconds),
    ]
    usual_us = read_quantile(_list_took(answers, 0, flooded_s), 0.99)
    rows[-1]["over after s"] = _find_recovery_s(answers, calm_s, 2 * usual_us)
    return [{"host": host, **row} for row in rows]


def _write_row(
    name: str, answers: Sequence[Answer], from_s: float, until_s: float
) -> dict[str, object]:
    statuses = [answer.status for answer in answers if from_s <= answer.due_s < until_s]
    took_us = _list_took(answers, from_s, until_s)
    return {
        "phase": name,
        "asked": len(statuses),
        "let through": statuses.count(200),
        "unavailable": statuses.count(UNAVAILABLE),
        "other": sum(status not in {200, UNAVAILABLE} for status in statuses),
        "p50 of 200 ms": round(read_quantile(took_us, 0.5) / 1000, 2),
        "p99 of 200 ms": round(read_quantile(took_us, 0.99) / 1000, 2),
    }


def _list_took(answers: Sequence[Answer], from_s: float, until_s: float) -> list[float]:
    return [
        answer.took_us
        for answer in answers
        if answer.status == 200 and from_s <= answer.due_s < until_s
    ]


def _find_recovery_s(answers: Sequence[Answer], since_s: float, slow_us: float) -> float | None:
    """From when on every quarter of a second was as before the flood; None when none was."""
    slices: dict[int, list[Answer]] = {}
    for answer in answers:
        if answer.due_s >= since_s:
            slices.setdefault(int((answer.due_s - since_s) / _SLICE_S), []).append(answer)
    bad = [
        number
        for number, of_slice in slices.items()
        if any(answer.status != 200 for answer in of_slice)
        or read_quantile([answer.took_us for answer in of_slice], 0.9) > slow_us
    ]
    if not bad:
        return 0.0
    return None if max(bad) == max(slices) else (max(bad) + 1) * _SLICE_S


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("overload")))
