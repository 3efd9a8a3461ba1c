"""Takes the pictures of the live page that the documentation shows, of a real service.

Run with ``python -m tests.serving.admin.page.pictures FOLDER [MINUTES]``: so long the service is
asked before, at a rate that goes up and down.
"""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

import grpc
from playwright.async_api import async_playwright

from tests.bench.pace import let_pass
from tests.serving.admin.watched_service import CHECK, WatchedService, run_watched, write_check

_SIZE: Final = {"width": 1280, "height": 800}
_STEP_S: Final = 0.5
_MIX: Final = (
    (60, "/pets/v1/7", "mobile"),
    (2, "/pets/v1/7", "batch"),
    (2, "/orders/v2/1", "mobile"),
    (1, "/pets/v1/7", ""),
    (1, "/pets/v1/7", "nobody"),
    (1, "/pets/v1/7/toys", "mobile"),
)
"""Weight, path and application of the checks."""


async def offer(service: WatchedService, minutes: float) -> None:
    """Asks for so long."""
    weights = [weight for weight, _, _ in _MIX]
    loop = asyncio.get_running_loop()
    end_s = loop.time() + minutes * 60
    async with grpc.aio.insecure_channel(service.grpc_address) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
        while (left_s := end_s - loop.time()) > 0:
            wave = 1 + 0.4 * math.sin(left_s / 70) + random.uniform(-0.1, 0.1)
            asked = random.choices(_MIX, weights, k=round(20 * wave))
            await asyncio.gather(*(check(write_check(path, name)) for _, path, name in asked))
            await let_pass(_STEP_S)


async def take(service: WatchedService, folder: Path) -> None:
    """The whole page in light, and in dark with an explanation."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        for scheme in ("light", "dark"):
            page = await browser.new_page(viewport=_SIZE, color_scheme=scheme)  # type: ignore[arg-type]
            await page.goto(f"{service.admin}/")
            await page.locator("#reasons button").first.wait_for()
            await page.locator("#decision-list tr.opens").first.wait_for()
            if scheme == "dark":
                row = page.locator("#decision-list tr.opens", has_text="subscription_not_found")
                await row.first.click()
                await page.locator("#details pre").first.wait_for()
            await page.screenshot(path=folder / f"page-{scheme}.png", animations="disabled")
        await browser.close()


async def _main(folder: Path, minutes: float) -> None:
    with tempfile.TemporaryDirectory() as temporary, run_watched(Path(temporary)) as service:
        traffic = asyncio.create_task(offer(service, minutes + 1))
        await let_pass(minutes * 60)
        await take(service, folder)
        traffic.cancel()


if __name__ == "__main__":
    asyncio.run(_main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 14))
