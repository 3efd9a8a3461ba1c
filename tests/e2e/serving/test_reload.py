"""A catalog is replaced under load: at once, as a whole, and never by a bad one."""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.e2e.load import Load, steady_load
from tests.e2e.running import Deployment, Gateway, Service

pytestmark = pytest.mark.e2e

KEY: Final = "a-key-for-reloading"
PATH: Final = "/reload/1.0.0/open"
HEADERS: Final = {"x-api-key": KEY}
QUIET: Final = {"log": {"level": "info"}}


def write_catalog(*, blocked: bool = False) -> str:
    """A catalog in which the one subscription is blocked or not."""
    name = {"application": "mobile", "api": "Reload", "version": "1.0.0"}
    tree: dict[str, Any] = {
        "apis": [
            {
                "name": "Reload",
                "version": "1.0.0",
                "context": "/reload",
                "security": ["api_key"],
                "resources": [{"methods": ["POST"], "path": "/open"}],
            }
        ],
        "applications": [
            {"name": "mobile", "api_keys": [{"sha256": hashlib.sha256(KEY.encode()).hexdigest()}]}
        ],
        "subscriptions": [{**name, "state": "BLOCKED" if blocked else "UNBLOCKED"}],
    }
    return yaml.safe_dump(tree, sort_keys=False)


@dataclass(frozen=True, slots=True)
class Stage:
    """A service on a catalog of its own, mounted as Kubernetes mounts a ConfigMap."""

    mount: Path
    service: Service
    gateway: Gateway

    @property
    def log(self) -> str:
        return self.service.log_file.read_text()

    def swap(self, catalog: str) -> None:
        """Puts a new version beside the old one and moves the link, as the kubelet does."""
        version = self.mount / f"..{len(list(self.mount.iterdir()))}"
        version.mkdir()
        (version / "catalog.yaml").write_text(catalog)
        link = self.mount / "..new"
        link.symlink_to(version.name)
        link.replace(self.mount / "..data")


@pytest.fixture(scope="module")
def stage(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    deployment.world.secrets.add(KEY)
    mount = tmp_path_factory.mktemp("mount")
    first = mount / "..1"
    first.mkdir()
    (first / "catalog.yaml").write_text(write_catalog())
    (mount / "..data").symlink_to("..1")
    (mount / "catalog.yaml").symlink_to("..data/catalog.yaml")
    with (
        deployment.run_service("reload", QUIET, catalog=mount) as service,
        deployment.run_gateway(service.grpc_address) as gateway,
    ):
        yield Stage(mount, service, gateway)


def check_switched(load: Load, status: int) -> None:
    """What was asked after the first new answer had come is answered in the new way."""
    first = next(answer for answer in load.answers if answer.status == status)
    late = [answer.status for answer in load.answers if answer.asked_s > first.came_s]
    assert late, "nothing was asked after the switch"
    assert set(late) == {status}


async def test_a_swapped_config_map_switches_decisions_and_fails_no_request(stage: Stage) -> None:
    async with steady_load(stage.gateway, PATH, HEADERS) as load:
        await load.wait_for_more(50)
        assert load.statuses == {200}
        stage.swap(write_catalog(blocked=True))
        await load.wait_for_status(403)
        await load.wait_for_more(50)
    assert load.statuses == {200, 403}
    check_switched(load, 403)

    async with steady_load(stage.gateway, PATH, HEADERS) as load:
        stage.swap(write_catalog())
        await load.wait_for_status(200)
        await load.wait_for_more(50)
    assert load.statuses <= {200, 403}
    check_switched(load, 200)


BAD: Final = {
    "no YAML": ("apis:\n  - name: [\n", 3),
    "an unknown key": (write_catalog() + "surprise: 1\n", write_catalog().count("\n") + 1),
    "a tier that is not there": (
        write_catalog() + "  tier: Golden\n",
        write_catalog().count("\n") + 1,
    ),
    "nothing at all": ("", 1),
}


@pytest.mark.parametrize(("catalog", "line"), BAD.values(), ids=BAD)
async def test_a_bad_catalog_changes_nothing_and_is_logged_with_its_place(
    stage: Stage, catalog: str, line: int
) -> None:
    file = stage.mount / "catalog.yaml"
    place = f"{file}:{line}: "
    before = len(stage.log)
    async with steady_load(stage.gateway, PATH, HEADERS) as load:
        stage.swap(catalog)
        await load.wait_for(lambda: "stays in force" in stage.log[before:], "a logged failure")
        await load.wait_for_more(50)
        assert place in stage.log[before:]
        assert "ERROR" in stage.log[before:]
        # The same again is not said again, and SIGHUP does not make it better.
        stage.service.process.send_signal(signal.SIGHUP)
        await load.wait_for_more(50)
        stage.swap(write_catalog())
        await load.wait_for(
            lambda: "the catalog is valid again" in stage.log[before:], "a good one"
        )
        await load.wait_for_more(50)
    assert load.statuses == {200}
    assert stage.log[before:].count("stays in force") == 1


async def test_sighup_reads_the_catalog_again(deployment: Deployment, tmp_path: Path) -> None:
    file = tmp_path / "catalog.yaml"
    good, blocked = write_catalog(), write_catalog(blocked=True)
    file.write_text(good)
    stamp = file.stat()
    with (
        deployment.run_service("sighup", QUIET, catalog=file) as service,
        deployment.run_gateway(service.grpc_address) as gateway,
    ):
        async with steady_load(gateway, PATH, HEADERS) as load:
            await load.wait_for_more(20)
            # Of the same size and time: nothing but the signal brings the news.
            file.write_text(blocked.ljust(len(good), "#"))
            os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
            service.process.send_signal(signal.SIGHUP)
            await load.wait_for_status(403)
            await load.wait_for_more(20)
        assert load.statuses == {200, 403}
        check_switched(load, 403)
