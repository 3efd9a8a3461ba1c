"""Events over a real broker: a change is followed at once, and a lost connection hides nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from extauthz.app.catalog import open_source
from extauthz.catalog.wso2.events.listener import Broker, Listener
from extauthz.catalog.wso2.events.reading import Event
from extauthz.clock import SystemClock
from extauthz.demo.api_manager.event_hub import EventHub, telling
from extauthz.demo.api_manager.server import ApiManager, run_api_manager
from extauthz.model.catalog import Catalog
from extauthz.policy.authentication.revocations import Revocations
from extauthz.ports import CatalogSource
from extauthz.settings.tree import Settings
from tests.brokers.broker_j import USER, BrokerJ

pytestmark = pytest.mark.e2e

PASSWORD: Final = "a-password"
BROKER_PASSWORD: Final = "a-password-of-the-broker"
WAIT_S: Final = 60
_NAMES = (f"Api{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerJ]:
    running = BrokerJ(tmp_path_factory.mktemp("broker"), BROKER_PASSWORD).start()
    yield running
    running.kill()


@pytest.fixture(scope="module")
def manager(broker: BrokerJ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiManager]:
    folder = tmp_path_factory.mktemp("manager")
    hub = EventHub(broker.url, USER, BROKER_PASSWORD)
    with run_api_manager(folder, password=PASSWORD) as running, telling(running.tables, hub):
        running.tables.publish_api("First", "1", "/first/1", [{"method": "GET", "path": "/x"}])
        yield running


def write_settings(manager: ApiManager, broker: BrokerJ, folder: Path) -> Settings:
    (folder / "password").write_text(PASSWORD)
    (folder / "broker-password").write_text(BROKER_PASSWORD)
    wso2 = {
        "url": manager.url,
        "username": "admin",
        "password_file": folder / "password",
        "ca": manager.ca_file,
        # Only events can tell of a change.
        "refresh": "1h",
        "events": {
            "urls": [broker.url],
            "username": USER,
            "password_file": folder / "broker-password",
        },
    }
    return Settings.model_validate({"catalog": {"wso2": wso2}})


async def load_until(source: CatalogSource, name: str) -> Catalog:
    async with asyncio.timeout(WAIT_S):
        while (name, "1") not in (catalog := await source.load()).apis:
            await source.wait_for_change()
    return catalog


async def wait_for_broker(source: CatalogSource) -> None:
    async with asyncio.timeout(WAIT_S):
        while not all((states := source.brokers).values()) or not states:  # type: ignore[attr-defined]  # noqa: ASYNC110
            await asyncio.sleep(0)


def publish(manager: ApiManager) -> str:
    name = next(_NAMES)
    manager.tables.publish_api(name, "1", f"/{name}/1", [{"method": "GET", "path": "/x"}])
    return name


async def test_a_change_is_followed_without_waiting_for_the_next_reading(
    manager: ApiManager, broker: BrokerJ, tmp_path: Path
) -> None:
    settings = write_settings(manager, broker, tmp_path)
    async with open_source(settings, has_pepper=False) as source:
        await source.load()
        await wait_for_broker(source)
        for _ in range(3):
            await load_until(source, publish(manager))


async def test_a_revoked_token_is_refused_at_once_on_every_replica(
    manager: ApiManager, broker: BrokerJ, tmp_path: Path
) -> None:
    settings = write_settings(manager, broker, tmp_path)
    replicas = [Revocations(SystemClock()) for _ in range(2)]
    async with (
        open_source(settings, has_pepper=False, revocations=replicas[0]) as one,
        open_source(settings, has_pepper=False, revocations=replicas[1]) as other,
    ):
        for source in (one, other):
            await source.load()
            await wait_for_broker(source)
        manager.tables.revoke("taken-back")
        async with asyncio.timeout(WAIT_S):
            while not all(is_revoked(it, "taken-back") for it in replicas):  # noqa: ASYNC110
                await asyncio.sleep(0)


def is_revoked(revocations: Revocations, token_id: str) -> bool:
    found = revocations.judge(
        token_id=token_id, digest=b"", consumer_key="", user="", issuer="", issued_at_us=None
    )
    return found is not None


async def test_what_was_changed_while_the_broker_was_away_is_read_after_it_is_back(
    manager: ApiManager, broker: BrokerJ, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = write_settings(manager, broker, tmp_path)
    async with open_source(settings, has_pepper=False) as source:
        await source.load()
        await wait_for_broker(source)
        broker.kill()
        async with asyncio.timeout(WAIT_S):
            while any(source.brokers.values()):  # type: ignore[attr-defined]  # noqa: ASYNC110
                await asyncio.sleep(0)
        tell, manager.tables.tell = manager.tables.tell, lambda _, __: None
        name = publish(manager)
        manager.tables.tell = tell
        await asyncio.to_thread(broker.start)
        await load_until(source, name)
        await wait_for_broker(source)
        await load_until(source, publish(manager))
    assert "no events come from the broker" in caplog.text
    assert BROKER_PASSWORD not in caplog.text


async def test_what_is_no_event_stops_nothing(
    manager: ApiManager, broker: BrokerJ, tmp_path: Path
) -> None:
    settings = write_settings(manager, broker, tmp_path)
    hub = EventHub(broker.url, USER, BROKER_PASSWORD)
    async with open_source(settings, has_pepper=False) as source:
        await source.load()
        await wait_for_broker(source)
        for body in (b"", b"\xff\xfe", b'{"event": {"payloadData": {"eventType": []}}}'):
            for topic in ("notification", "tokenRevocation", "throttleData"):
                hub.send_bytes(topic, body)
        await load_until(source, publish(manager))
        assert source.events["ignored_unreadable"] == 9  # type: ignore[attr-defined]


def test_a_wrong_password_is_told_and_tried_again(broker: BrokerJ) -> None:
    told: list[str] = []

    def note(is_up: bool, why: str) -> None:  # noqa: FBT001  (as the listener calls it)
        assert not is_up
        told.append(why)

    def take(event: Event) -> None:
        raise AssertionError(event)

    wrong = Broker(url=broker.url, username=USER, password="wrong")
    Listener(wrong, take, note, wait=lambda _: len(told) == 2).run()
    assert told == ["it refused the user; check username and password_file"] * 2
