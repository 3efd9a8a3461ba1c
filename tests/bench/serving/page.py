"""What the live page takes from decisions: their latency and CPU, with the page open or not.

A service on the host in Envoy, limits in memory, is asked over gRPC by h2load for 2,000 decisions a
second; every second one is denied. Rounds go by turns: nobody looks; a reader asks what the page
asks, and follows its events; the page itself is open in Chromium. A user's browser is on a machine
of its own: here it runs with the policy SCHED_IDLE, so that it gets what others leave of the cores.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Final

import httpx2
from playwright.async_api import async_playwright

from tests.bench.pace import let_pass
from tests.bench.serving.hosts import read_cpu_s
from tests.bench.serving.open_loop import read_quantile
from tests.bench.tables import Row
from tests.child_processes import children_of
from tests.serving.admin.watched_service import WatchedService, run_watched

TITLE = "The live page at 2,000 decisions a second"
PER_S: Final = 2_000
SECONDS: Final = 6
ROUNDS: Final = 7
LOOKERS: Final = ("nobody", "a reader", "Chromium")
_PATHS: Final = ("status", "rates", "limits?limit=50")
_EVERY_S: Final = 5


def measure() -> list[Row]:
    """One row for each way to look."""
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    p50_ms: defaultdict[str, list[float]] = defaultdict(list)
    p99_ms: defaultdict[str, list[float]] = defaultdict(list)
    cpu_us: defaultdict[str, list[float]] = defaultdict(list)
    with (
        tempfile.TemporaryDirectory() as made,
        run_watched(Path(made), server={"host": "envoy"}) as service,
    ):
        for number in range(ROUNDS + 1):
            print(f"  round {number} of {ROUNDS}", file=sys.stderr, flush=True)
            for looker in LOOKERS:
                async with _look(looker, service.admin, Path(made)):
                    before_s = _read_cpu(service)
                    async with service.flood(Path(made), PER_S):
                        await let_pass(SECONDS)
                    used_s = _read_cpu(service) - before_s
                took_us = _read_latencies(Path(made))
                if number:  # the first one warms up
                    p50_ms[looker].append(read_quantile(took_us, 0.5) / 1000)
                    p99_ms[looker].append(read_quantile(took_us, 0.99) / 1000)
                    cpu_us[looker].append(used_s * 1e6 / len(took_us))
    return [
        {
            "who looks": looker,
            "p50 ms": round(median(p50_ms[looker]), 2),
            "p99 ms": round(median(p99_ms[looker]), 2),
            "spread of p99 ms": round(max(p99_ms[looker]) - min(p99_ms[looker]), 2),
            "p99, times nobody": _compare(p99_ms[looker], p99_ms["nobody"]),
            "CPU of the service, us/decision": round(median(cpu_us[looker]), 1),
            "CPU, times nobody": _compare(cpu_us[looker], cpu_us["nobody"]),
        }
        for looker in LOOKERS
    ]


def _compare(figures: list[float], others: list[float]) -> float:
    """The median of the ratios of each round: the machine's speed changes between rounds."""
    return round(median(one / other for one, other in zip(figures, others, strict=True)), 2)


def _read_cpu(service: WatchedService) -> float:
    """Of the service and of the Envoy that it has started."""
    return sum(map(read_cpu_s, (service.process.pid, *children_of(service.process.pid))))


def _read_latencies(folder: Path) -> list[float]:
    logs = [file.read_text().splitlines() for file in folder.glob("flood-*.tsv")]
    return [float(line.split("\t")[2]) for lines in logs for line in lines if line.count("\t") == 2]


@asynccontextmanager
async def _look(looker: str, url: str, folder: Path) -> AsyncIterator[None]:
    if looker == "nobody":
        yield
    elif looker == "a reader":
        async with httpx2.AsyncClient(base_url=f"{url}/api/", trust_env=False) as client:
            tasks = [asyncio.create_task(it(client)) for it in (_ask, _follow)]
            yield
            for task in tasks:
                assert not task.done(), task
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    else:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=_write_idle_chromium(folder), args=["--no-sandbox"]
            )
            page = await browser.new_page()
            await page.goto(f"{url}/")
            await page.get_by_text("Live", exact=True).wait_for()
            yield
            assert await page.get_by_text("Live", exact=True).count() == 1
            await browser.close()


def _write_idle_chromium(folder: Path) -> Path:
    """A script that runs Chromium only while nothing else wants a core (sched(7))."""
    found = shutil.which("chromium")
    assert found is not None, "there is no chromium on the PATH; .ci/setup chromium installs it"
    script = folder / "idle-chromium"
    script.write_text(f'#!/bin/sh\nexec nice -n 19 chrt --idle 0 {found} "$@"\n')
    script.chmod(0o700)
    return script


async def _ask(client: httpx2.AsyncClient) -> None:
    while True:
        for path in _PATHS:
            (await client.get(path)).raise_for_status()
        await let_pass(_EVERY_S)


async def _follow(client: httpx2.AsyncClient) -> None:
    headers = {"accept": "text/event-stream"}
    path = "decisions?outcome=deny"
    async with client.stream("GET", path, headers=headers, timeout=None) as events:
        events.raise_for_status()
        async for _ in events.aiter_raw():
            pass


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("page")))
