"""An API Manager knows of a gateway that follows it, and learns of it again after a restart."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from extauthz.catalog.wso2.announcing import (
    ABSENT_RETRY_S,
    FIRST_RETRY_S,
    HEARTBEAT_S,
    MAX_RETRY_S,
    Announcer,
    find_own_address,
)
from extauthz.catalog.wso2.messages import Message, Parameters, Told
from extauthz.catalog.wso2.process import open_api
from extauthz.demo.api_manager.server import ApiManager, run_api_manager

PASSWORD = "a-password"


def announce(
    manager: ApiManager, folder: Path, steps: list[object]
) -> tuple[list[float], list[Message]]:
    """Announces; before each further time, the next step is done. Gives pauses and messages."""
    (folder / "password").write_text(PASSWORD)
    parameters = Parameters(
        url=manager.url,
        username="admin",
        password_file=str(folder / "password"),
        ca_file=str(manager.ca_file),
        tenants=("ALL",),
        folder=str(folder),
    )
    pauses: list[float] = []
    said: list[Message] = []

    def wait(seconds: float) -> bool:
        pauses.append(seconds)
        if not steps:
            return False
        step = steps.pop(0)
        if callable(step):
            step()
        return True

    Announcer(parameters, open_api, said.append, wait).run()
    return pauses, said


def test_it_registers_and_registers_again_when_it_was_forgotten(tmp_path: Path) -> None:
    with run_api_manager(tmp_path, password=PASSWORD) as manager:
        known: list[set[str]] = []

        def forget() -> None:
            known.append(set(manager.gateways))
            manager.gateways.clear()

        pauses, said = announce(manager, tmp_path, [None, forget])
        known.append(set(manager.gateways))
    (gateway,) = known[0]
    assert known == [{gateway}, {gateway}]
    assert pauses == [HEARTBEAT_S] * 3
    assert said == [Told(level=logging.INFO, message=f"this gateway is registered as {gateway}")]


def test_it_tries_again_while_the_api_manager_is_away_and_says_so_once(tmp_path: Path) -> None:
    with run_api_manager(tmp_path, password=PASSWORD) as manager:
        manager.stop()
        pauses, said = announce(manager, tmp_path, [None, manager.start])
        assert len(manager.gateways) == 1
    assert pauses == [FIRST_RETRY_S, 2 * FIRST_RETRY_S, HEARTBEAT_S]
    assert [it.level for it in said if isinstance(it, Told)] == [logging.WARNING, logging.INFO]
    assert PASSWORD not in str(said)


def test_an_earlier_release_is_asked_rarely_and_nothing_is_said(tmp_path: Path) -> None:
    with run_api_manager(tmp_path, password=PASSWORD, release="4.2") as manager:
        assert announce(manager, tmp_path, [None]) == ([ABSENT_RETRY_S] * 2, [])


def test_an_api_manager_that_lets_it_not_in_is_asked_rarely(tmp_path: Path) -> None:
    with run_api_manager(tmp_path, password="another") as manager:
        pauses, (said,) = announce(manager, tmp_path, [None])
    assert pauses == [MAX_RETRY_S] * 2
    assert isinstance(said, Told) and "refused with 401" in said.message


@pytest.mark.parametrize(
    ("url", "address"),
    [("https://127.0.0.1:9443", "127.0.0.1"), ("https://no-such-host.invalid", "")],
)
def test_its_own_address_is_the_one_that_the_api_manager_sees(url: str, address: str) -> None:
    assert find_own_address(url) == address
