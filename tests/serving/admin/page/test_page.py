"""The live page in a real Chromium, before a real service with real decisions."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any, Final

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, expect

from tests.certificates import MutualFiles
from tests.free_ports import find_free_port
from tests.serving.admin.page.conftest import PATIENCE_MS, Tab, open_tab
from tests.serving.admin.watched_service import HOSTILE, WatchedService, run_watched

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN: Final = "a-token-that-nobody-guesses"
ROWS: Final = "#decision-list tbody tr.opens"
expect.set_options(timeout=PATIENCE_MS)


async def be_live(tab: Tab) -> None:
    """Waits until the page shows what the service says."""
    await expect(tab.page.locator("#state-words")).to_have_text("Live")


async def find_axe_violations(tab: Tab) -> list[Any]:
    """What axe-core says, each with where it is."""
    found = await Axe().run(tab.page)
    return [
        (it["id"], [node["target"] for node in it["nodes"]]) for it in found.response["violations"]
    ]


async def test_a_denial_shows_up_and_its_explanation_is_one_click_away(
    browser: Browser, service: WatchedService
) -> None:
    async with open_tab(browser, service.admin) as tab:
        page = tab.page
        await be_live(tab)
        await asyncio.to_thread(service.ask, "/orders/v2/1", "mobile")
        row = page.locator(ROWS).first
        await expect(row).to_contain_text("subscription_not_found")
        await expect(row).to_contain_text("OrdersAPI v2")
        await expect(row).to_contain_text("mobile")
        await row.locator("td").nth(2).click()
        drawer = page.locator("#details")
        await expect(drawer.locator("h2")).to_have_text("Denied: The application is not subscribed")
        await expect(drawer).to_contain_text("{application: mobile, api: OrdersAPI, version: v2}")
        assert await find_axe_violations(tab) == []
        await page.keyboard.press("Escape")
        await expect(drawer).to_be_hidden()
        # What was allowed has neither a reason nor advice.
        await asyncio.to_thread(service.ask, "/pets/v1/7", "mobile")
        await page.select_option("#filter [name=view]", "")
        await page.locator(ROWS, has_text="allowed").first.click()
        await expect(drawer.locator("h2")).to_have_text("Allowed")
        await expect(drawer).to_contain_text("The upstream gets")
        await expect(drawer).to_contain_text("requests left, reset in")
        await expect(drawer).not_to_contain_text("null")
        await page.keyboard.press("Escape")
        # Grouped, the same denial is an example of its kind.
        await page.select_option("#filter [name=view]", "groups")
        await page.get_by_role("button", name="subscription_not_found: explain").first.click()
        await expect(drawer).to_contain_text("What was decided")


async def test_rates_reasons_and_limits_are_those_of_the_traffic(
    browser: Browser, service: WatchedService
) -> None:
    await asyncio.to_thread(service.ask, "/pets/v1/7", "batch", times=12)
    async with open_tab(browser, service.admin) as tab:
        page = tab.page
        await expect(page.locator("#reasons")).to_contain_text("rate_limited")
        await expect(page.locator("#rates-chart [role=img]")).to_have_attribute(
            "aria-label", re.compile("10 allowed|[1-9][0-9]* allowed")
        )
        limit = page.locator("#limit-list tbody tr", has_text="batch")
        await expect(limit).to_contain_text("10 of 10")
        await expect(page.locator(".tile", has_text="Near or over")).to_contain_text("1")
        # A click on a reason lists its denials alone.
        await page.locator("#reasons").get_by_role("button", name="rate_limited").click()
        await expect(page.locator(ROWS).first).to_contain_text("rate_limited")
        await expect(page.locator(ROWS, has_text="subscription_not_found")).to_have_count(0)


async def test_names_are_text_wherever_they_come_from(
    browser: Browser, service: WatchedService
) -> None:
    await asyncio.to_thread(service.ask, "/pets/v1/7", HOSTILE)
    async with open_tab(browser, service.admin) as tab:
        page = tab.page
        await expect(page.locator(ROWS, has_text=HOSTILE).first).to_be_visible()
        await page.locator(ROWS, has_text=HOSTILE).first.click()
        await expect(page.locator("#details .lead").first).to_contain_text(HOSTILE)
        await page.keyboard.press("Escape")
        await page.fill("#search [name=search]", "<img")
        await page.keyboard.press("Enter")
        await expect(page.locator("#results")).to_contain_text(HOSTILE)
        assert await page.locator("img").count() == 0


async def test_the_keyboard_alone_reaches_everything(
    browser: Browser, service: WatchedService
) -> None:
    await asyncio.to_thread(service.ask, "/pets/v1/7")
    async with open_tab(browser, service.admin) as tab:
        page, press = tab.page, tab.page.keyboard.press
        await be_live(tab)
        await expect(page.locator(ROWS).first).to_be_visible()
        await press("Tab")
        await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        await press("Enter")
        await _tab_to(tab, "#filter [name=view]")
        await _tab_to(tab, f"{ROWS} button")
        await press("Enter")
        await expect(page.locator("#details")).to_be_visible()
        await press("Escape")
        await expect(page.locator(f"{ROWS} button").first).to_be_focused()
        await _tab_to(tab, "#explain-form [name=application]", most=150)
        await page.keyboard.type("mobile")
        await _tab_to(tab, "#explain-form [name=path]")
        await page.keyboard.type("/orders/v2/1")
        await press("Enter")
        answer = page.locator("#explanation")
        await expect(answer).to_contain_text("subscription_not_found")
        await expect(answer).to_contain_text("To subscribe, add to the catalog")


async def _tab_to(tab: Tab, selector: str, most: int = 40) -> None:
    for _ in range(most):
        await tab.page.keyboard.press("Tab")
        if await tab.page.evaluate("(it) => document.activeElement.matches(it)", selector):
            return
    raise AssertionError(f"{selector} is not reached by the tabulator")


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_axe_finds_nothing_in_either_scheme_and_on_a_small_screen(
    scheme: str, browser: Browser, service: WatchedService
) -> None:
    await asyncio.to_thread(service.ask, "/pets/v1/7")
    options: dict[str, Any] = {"color_scheme": scheme}
    async with open_tab(browser, service.admin, **options) as tab:
        page = tab.page
        await be_live(tab)
        await expect(page.locator(ROWS).first).to_be_visible()
        await page.get_by_text("As a table").click()
        await page.fill("#search [name=search]", "mobile")
        await page.keyboard.press("Enter")
        await expect(page.locator("#results li").first).to_be_visible()
        assert await find_axe_violations(tab) == []
        ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (ground == "rgb(14, 19, 24)") is (scheme == "dark")
        await page.set_viewport_size({"width": 360, "height": 720})
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360
        assert await find_axe_violations(tab) == []


async def test_it_stays_live_under_load(
    browser: Browser, service: WatchedService, tmp_path: Path
) -> None:
    async with open_tab(browser, service.admin) as tab:
        page = tab.page
        await be_live(tab)
        async with service.flood(tmp_path, per_s=2_000):
            await expect(page.locator("#decisions-note")).to_contain_text("a sample")
            first = await page.locator(ROWS).first.inner_text()
            await expect(page.locator(ROWS).first).not_to_have_text(first)
            assert await page.locator(ROWS).count() <= 100
            # It is held still under the pointer, and answers a click.
            await page.locator(ROWS).nth(3).click()
            await expect(page.locator("#details")).to_contain_text("What was decided")
            await page.keyboard.press("Escape")
            await page.get_by_role("button", name="Pause").click()
            await expect(page.locator("#state-words")).to_have_text("Paused")
            await page.get_by_role("button", name="Go on").click()
            await be_live(tab)


async def test_it_says_when_it_is_not_connected_and_recovers(
    browser: Browser, tmp_path: Path
) -> None:
    with run_watched(tmp_path) as service:
        url, port = service.admin, int(service.admin.rpartition(":")[2])
        context = open_tab(browser, url)
        tab = await context.__aenter__()
        await be_live(tab)
    notice = tab.page.locator("#notice")
    await expect(tab.page.locator("#state-words")).to_have_text("Not connected")
    await expect(notice).to_contain_text("Shown is what was known at")
    assert await find_axe_violations(tab) == []
    with run_watched(tmp_path, port=port) as service:
        await be_live(tab)
        await expect(notice).to_be_hidden()
        await asyncio.to_thread(service.ask, "/pets/v1/7")
        await expect(tab.page.locator(ROWS).first).to_contain_text("missing_credentials")
        await context.__aexit__(None, None, None)


async def test_it_asks_for_the_token_and_keeps_it_in_its_tab_alone(
    browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN}\n")
    with run_watched(tmp_path, admin={"token_file": str(tmp_path / "tokens")}) as service:
        async with open_tab(browser, service.admin) as tab:
            page = tab.page
            dialog = page.locator("#token")
            await expect(dialog).to_be_visible()
            assert await find_axe_violations(tab) == []
            await page.keyboard.type("a wrong one")
            await page.keyboard.press("Enter")
            await expect(page.locator("#token-error")).to_contain_text("It was not taken")
            await page.keyboard.type(TOKEN)
            await page.keyboard.press("Enter")
            await be_live(tab)
            await asyncio.to_thread(service.ask, "/pets/v1/7")
            await expect(page.locator(ROWS).first).to_contain_text("missing_credentials")
            await page.reload()
            await be_live(tab)
            assert await page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
            assert not [it for it in tab.asked if TOKEN in it]
            await page.get_by_role("button", name="Forget the token").click()
            await expect(dialog).to_be_visible()


@pytest.mark.parametrize("host", ["grpcio", "envoy"])
async def test_it_is_live_over_mtls_on_each_host(
    browser: Browser, host: str, tmp_path: Path
) -> None:
    files = MutualFiles(tmp_path)
    leaf = files.authority.issue(common_name="operator")
    port = find_free_port()
    url = f"https://127.0.0.1:{port}"
    tls = {"cert": str(files.cert), "key": str(files.key), "client_ca": str(files.client_ca)}
    shown = {"origin": url, "cert": leaf.cert, "key": leaf.key}
    known: dict[str, Any] = {"client_certificates": [shown], "ignore_https_errors": True}
    listen, server = {"admin": f"0.0.0.0:{port}"}, {"host": host}
    with run_watched(tmp_path, listen=listen, admin={"tls": tls}, server=server) as it:
        async with open_tab(browser, url, **known) as tab:
            await be_live(tab)
            await asyncio.to_thread(it.ask, "/orders/v2/1", "mobile")
            await expect(tab.page.locator(ROWS).first).to_contain_text("subscription_not_found")
