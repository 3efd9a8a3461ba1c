"""A real Chromium, one for all tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from tests.serving.admin.watched_service import WatchedService, run_watched

PATIENCE_MS: Final = 60_000
"""A busy machine must not fail a test."""


@dataclass(slots=True)
class Tab:
    """A page in a tab of its own, and all that went wrong in it."""

    page: Page
    context: BrowserContext
    faults: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Every address that it asked for."""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedService]:
    """A service for every test that does not change it."""
    with run_watched(tmp_path_factory.mktemp("watched")) as service:
        yield service


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    """Chromium of the distribution."""
    found = shutil.which("chromium")
    assert found is not None, "there is no chromium on the PATH; .ci/setup chromium installs it"
    async with async_playwright() as playwright:
        # Its sandbox does not run for root, as which tests run in containers.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = await playwright.chromium.launch(executable_path=found, args=arguments)
        yield browser
        await browser.close()


@asynccontextmanager
async def open_tab(browser: Browser, url: str, **options: Any) -> AsyncIterator[Tab]:
    """The page at this URL, in a tab that knows nothing of others.

    When the block ends, nothing may have gone wrong in it: no error in its console, no violation
    of its policy, no request to somewhere else.
    """
    context = await browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    tab = Tab(page, context)

    def hear(message: ConsoleMessage) -> None:
        # Chromium writes a line for each answer that is no success; that is no fault of the page.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            tab.faults.append(message.text)

    page.on("console", hear)
    page.on("pageerror", lambda error: tab.faults.append(str(error)))
    page.on("dialog", lambda dialog: tab.faults.append(f"dialog: {dialog.message}"))
    page.on("request", lambda request: tab.asked.append(request.url))
    try:
        await page.goto(f"{url}/")
        yield tab
        assert tab.faults == []
        assert [it for it in tab.asked if not it.startswith(f"{url}/")] == []
    finally:
        await context.close()
