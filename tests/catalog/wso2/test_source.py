"""The catalog of an API Manager, as a service gets it: read, kept through outages, never weaker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from extauthz.app.catalog import open_source
from extauthz.demo.api_manager.server import ApiManager, Fault, run_api_manager
from extauthz.errors import CatalogError
from extauthz.model.catalog import Catalog
from extauthz.ports import CatalogSource
from extauthz.settings.tree import Settings

PASSWORD = "a-password"
WAIT_S = 60
HTTPBIN = (
    {"method": "GET", "path": "/ip", "scopes": ["scope_ip"]},
    {"method": "GET", "path": "/headers", "scopes": ["scope_headers"]},
    {"method": "GET", "path": "/delay/{delay}"},
    {"method": "GET", "path": "/status/{status_code}", "policy": "10KPerMin"},
)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ApiManager]:
    with run_api_manager(tmp_path, password=PASSWORD) as running:
        tables = running.tables
        api = tables.publish_api("HttpbinAPI", "1.0.0", "/httpbin/1.0.0", HTTPBIN)
        application = tables.create_application("ShopApp", "bob", policy="10PerMin")
        tables.generate_keys(application)
        tables.subscribe(application, api, "Gold")
        yield running


@asynccontextmanager
async def opened(
    manager: ApiManager, folder: Path, *, password: str = PASSWORD, **changed: Any
) -> AsyncIterator[CatalogSource]:
    (folder / "password").write_text(f"{password}\n")
    wso2 = {
        "url": manager.url,
        "username": "admin",
        "password_file": folder / "password",
        "ca": manager.ca_file,
        "refresh": "50ms",
        "start_timeout": "20s",
        "state_dir": folder / "state",
        **changed,
    }
    settings = Settings.model_validate({"catalog": {"wso2": wso2}})
    async with open_source(settings, has_pepper=False) as source:
        yield source


async def load_until(source: CatalogSource, fits: Any) -> Catalog:
    """Loads after each change until a catalog fits."""
    async with asyncio.timeout(WAIT_S):
        while not fits(catalog := await source.load()):
            await source.wait_for_change()
    return catalog


def names_of(catalog: Catalog) -> set[str]:
    return {name for name, _ in catalog.apis}


async def test_what_is_published_is_in_the_catalog(manager: ApiManager, tmp_path: Path) -> None:
    async with opened(manager, tmp_path) as source:
        catalog = await source.load()
        api = catalog.apis["HttpbinAPI", "1.0.0"]
        assert api.base_paths == ("/httpbin/1.0.0",)
        assert {(it.template, it.scopes) for it in api.resources} == {
            ("/ip", ("scope_ip",)),
            ("/headers", ("scope_headers",)),
            ("/delay/{delay}", ()),
            ("/status/{status_code}", ()),
        }
        ((_, consumer_key),) = catalog.consumer_keys
        assert consumer_key == manager.tables.key_mappings[0]["consumerKey"]
        (subscription,) = catalog.subscriptions.values()
        assert (subscription.application, subscription.tier) == (
            "bob:ShopApp",
            catalog.tiers["Gold"],
        )
        manager.tables.publish_api("Pets", "v1", "/pets/v1", [{"method": "GET", "path": "/*"}])
        await load_until(source, lambda it: "Pets" in names_of(it))


@pytest.mark.parametrize("release", ["4.0", "4.2", "4.3", "4.7"])
async def test_every_release_is_read(release: str, tmp_path: Path) -> None:
    with run_api_manager(tmp_path, password=PASSWORD, release=release) as manager:
        api = manager.tables.publish_api("A", "1", "/a/1", [{"method": "GET", "path": "/x"}])
        application = manager.tables.create_application("App", "alice")
        manager.tables.generate_keys(application)
        manager.tables.subscribe(application, api)
        manager.tables.revoke("revoked-1")
        async with opened(manager, tmp_path) as source:
            catalog = await source.load()
    assert [it.token_id for it in catalog.revoked] == ["revoked-1"]
    assert list(catalog.subscriptions) == [("alice:App", "A", "1")]
    assert len(catalog.consumer_keys) == 1


@pytest.mark.parametrize("fault", [it for it in Fault if it is not Fault.SLOW])
async def test_whatever_goes_wrong_the_last_good_catalog_stays(
    manager: ApiManager, tmp_path: Path, fault: Fault
) -> None:
    """Empty lists are believed once they come twice; until then the last good catalog stays."""
    async with opened(manager, tmp_path, refresh="1h") as source:
        first = await source.load()
        asked = len(manager.asked)
        manager.fault = fault
        source.pull_now()  # type: ignore[attr-defined]
        async with asyncio.timeout(WAIT_S):
            while source.failures == 0:  # type: ignore[attr-defined]  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert len(manager.asked) > asked
        assert names_of(await source.load()) == names_of(first)


async def test_a_replica_starts_from_the_last_good_copy_and_decides_on_no_token(
    manager: ApiManager, tmp_path: Path
) -> None:
    async with opened(manager, tmp_path) as source:
        await source.load()
    manager.stop()
    async with opened(manager, tmp_path) as source:
        catalog = await source.load()
        assert names_of(catalog) == {"HttpbinAPI"}
        assert all(issuer.suspended for issuer in catalog.issuers.values())
        manager.start()
        catalog = await load_until(
            source, lambda it: not any(issuer.suspended for issuer in it.issuers.values())
        )
        assert names_of(catalog) == {"HttpbinAPI"}


async def test_the_operator_may_trust_the_last_good_copy(
    manager: ApiManager, tmp_path: Path
) -> None:
    async with opened(manager, tmp_path) as source:
        await source.load()
    manager.stop()
    async with opened(manager, tmp_path, accept_tokens_before_revocations=True) as source:
        catalog = await source.load()
        assert not any(issuer.suspended for issuer in catalog.issuers.values())


async def test_without_a_copy_a_start_says_what_is_wrong(
    manager: ApiManager, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(manager, tmp_path, password="wrong") as source:
        with pytest.raises(CatalogError, match="refused with 401; check username"):
            await source.load()
    assert "wrong" not in caplog.text.replace("what is wrong", "")


async def test_a_start_waits_for_an_api_manager_that_still_starts(
    manager: ApiManager, tmp_path: Path
) -> None:
    manager.fault = Fault.NOT_FOUND
    async with opened(manager, tmp_path) as source:
        loading = asyncio.create_task(source.load())
        async with asyncio.timeout(WAIT_S):
            while len(manager.asked) < 2:  # noqa: ASYNC110  (another thread counts)
                await asyncio.sleep(0)
        manager.fault = None
        assert names_of(await loading) == {"HttpbinAPI"}


async def test_files_stand_beside_it(manager: ApiManager, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("apis: [{name: Own, version: v1, resources: [{methods: [GET], path: /own}]}]")
    (tmp_path / "password").write_text(PASSWORD)
    wso2 = {
        "url": manager.url,
        "username": "admin",
        "password_file": tmp_path / "password",
        "ca": manager.ca_file,
    }
    settings = Settings.model_validate({"catalog": {"files": [file], "wso2": wso2}})
    async with open_source(settings, has_pepper=False) as source:
        assert names_of(await source.load()) == {"HttpbinAPI", "Own"}


async def test_a_row_that_cannot_be_carried_over_loses_no_other(
    manager: ApiManager, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tables = manager.tables
    tables.publish_api("Odd", "1", "/odd/1", [{"method": "GET", "path": "/a*b"}])
    tables.publish_api("Strict", "1", "/strict/1", [
        {"method": "GET", "path": "/x", "policy": "NoSuchPolicy"}
    ])  # fmt: skip
    tables.apis.append({"name": None, "version": "9", "organization": "carbon.super"})
    application = tables.create_application("Lost", "eve", policy="NoSuchPolicy")
    tables.generate_keys(application)
    async with opened(manager, tmp_path) as source:
        catalog = await source.load()
    assert names_of(catalog) == {"HttpbinAPI"}
    assert set(catalog.applications) == {"bob:ShopApp"}
    for told in ("'Odd' '1'", "'Strict' '1'", "version '9'", "'eve:Lost'"):
        assert told in caplog.text


async def test_no_secret_is_written_or_logged(
    manager: ApiManager, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager.tables.key_managers[0]["configuration"]["Password"] = "hidden-in-the-configuration"
    async with opened(manager, tmp_path) as source:
        await source.load()
    written = "".join(file.read_text() for file in (tmp_path / "state").iterdir())
    for secret in (PASSWORD, "hidden-in-the-configuration"):
        assert secret not in caplog.text
        assert secret not in written
    for file in (tmp_path / "state").iterdir():
        assert file.stat().st_mode & 0o077 == 0
