"""What the live page takes from decisions: their latency through a real Envoy, with it open or not.

2,000 requests a second for 200 consumers, limits in Redis, one in ten denied. The service has one
processor, and everything else the others. Rounds go by turns: nobody looks; a reader asks what the
page asks, and follows its events; the page itself is open in Chromium, on this machine.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median
from typing import Final

import httpx2
from playwright.async_api import async_playwright

from tests.bench.pace import let_pass
from tests.bench.serving.open_loop import read_quantile
from tests.bench.serving.stand import Stand, run_stand
from tests.bench.tables import Row

TITLE = "The live page at 2,000 decisions a second"
PER_S: Final = 2_000
SECONDS: Final = 8
ROUNDS: Final = 5
LOOKERS: Final = ("nobody", "a reader", "Chromium")
_PATHS: Final = ("status", "rates", "limits?limit=50")
_EVERY_S: Final = 5


def measure() -> list[Row]:
    """One row for each way to look."""
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    p50_ms: defaultdict[str, list[float]] = defaultdict(list)
    p99_ms: defaultdict[str, list[float]] = defaultdict(list)
    failed: defaultdict[str, int] = defaultdict(int)
    async with run_stand(core_of_its_own=True) as stand:
        for number in range(ROUNDS + 1):
            print(f"  round {number} of {ROUNDS}", file=sys.stderr, flush=True)
            for looker in LOOKERS:
                async with _look(looker, stand):
                    asked = await stand.offer(PER_S, SECONDS)
                if number:  # the first one warms up
                    took_us = [float(one.took_us) for one in asked]
                    p50_ms[looker].append(read_quantile(took_us, 0.5) / 1000)
                    p99_ms[looker].append(read_quantile(took_us, 0.99) / 1000)
                    failed[looker] += sum(one.status in (0, 500, 503) for one in asked)
    return [
        {
            "who looks": looker,
            "p50 ms": round(median(p50_ms[looker]), 2),
            "p99 ms": round(median(p99_ms[looker]), 2),
            "spread of p99 ms": round(max(p99_ms[looker]) - min(p99_ms[looker]), 2),
            # Of the same round: the machine's speed changes between rounds.
            "p99, times nobody": round(
                median(
                    one / other for one, other in zip(p99_ms[looker], p99_ms["nobody"], strict=True)
                ),
                2,
            ),
            "failed": failed[looker],
        }
        for looker in LOOKERS
    ]


@asynccontextmanager
async def _look(looker: str, stand: Stand) -> AsyncIterator[None]:
    url = f"http://{stand.admin}"
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
                executable_path=shutil.which("chromium"), args=["--no-sandbox"]
            )
            page = await browser.new_page()
            await page.goto(f"{url}/")
            await page.get_by_text("Live", exact=True).wait_for()
            yield
            assert await page.get_by_text("Live", exact=True).count() == 1
            await browser.close()


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
