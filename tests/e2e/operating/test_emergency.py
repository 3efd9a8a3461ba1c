"""Blocks come into force on all replicas, at both doors, with a broken catalog or without Redis."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import httpx2
import pytest

from tests.commands import run_command
from tests.e2e.doors.both_doors import ALLOWED, Asked, BothDoors
from tests.e2e.load import steady_load
from tests.e2e.replicas import PATH, key_of, write_catalog
from tests.e2e.running import Deployment, Gateway, Service, next_client
from tests.free_ports import find_free_port
from tests.redis_server import RedisServer

pytestmark = pytest.mark.e2e

CONSUMERS: Final = ("web", "mobile", "keyed", "filed", "survivor")
TURN_S: Final = 60.0
ENTRIES: Final = "extauthz:{blocks}"


@dataclass(frozen=True, slots=True)
class Stage:
    """Services that share a catalog, and how each is asked."""

    services: tuple[Service, ...]
    doors: tuple[BothDoors, ...]
    admins: tuple[httpx2.Client, ...]
    catalog: Path

    def order(self, *words: str, stdin: str = "") -> dict[str, Any]:
        """Gives an order with the settings of the first service; what the command says."""
        config = self.services[0].log_file.parent / "extauthz.yaml"
        done = run_command(*words, "--config", str(config), "--json", stdin=stdin.encode())
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def ask(self, consumer: str) -> set[str]:
        """What all doors of all services say to a consumer."""
        headers = (("x-api-key", key_of(consumer)),)
        asked = Asked(path=PATH, headers=headers, client=next_client())
        answers = [ask(asked) for it in self.doors for ask in (it.ask_envoy, it.ask_mixer)]
        return {answer.reason for answer in answers}

    def check(self, admin: httpx2.Client, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(admin.get("/readyz").text)["checks"][name]
        return found

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Looks again and again, while the services run."""
        end_s = time.monotonic() + TURN_S
        while not happened():
            assert time.monotonic() < end_s, f"{what}: did not happen"
            assert all(service.process.poll() is None for service in self.services)

    def break_catalog(self) -> str:
        """Leaves a typing mistake in the catalog, and gives what mends it."""
        good = self.catalog.read_text()
        self.catalog.write_text(f"{good}aplications: []\n")
        for admin in self.admins:
            self.wait_until(
                lambda admin=admin: self.check(admin, "catalog")["last_load_failed"],  # type: ignore[misc]
                "the mistake is noticed",
            )
        return good


def start(
    stack: ExitStack, deployment: Deployment, name: str, count: int, catalog: Path, **sections: Any
) -> Stage:
    services, doors, admins = [], [], []
    options = [("grpc.enable_http_proxy", 0)]
    for _ in range(count):
        mixer, admin = (f"127.0.0.1:{find_free_port()}" for _ in range(2))
        settings = {
            "listen": {"mixer": mixer, "admin": admin},
            "credentials": {"trusted_hops": 0},
            **sections,
        }
        service = stack.enter_context(deployment.run_service(name, settings, catalog=catalog))
        channels = [
            stack.enter_context(grpc.insecure_channel(address, options))
            for address in (service.grpc_address, mixer)
        ]
        client = httpx2.Client(base_url=f"http://{admin}", timeout=TURN_S, trust_env=False)
        services.append(service)
        doors.append(BothDoors(channels[0], channels[1]))
        admins.append(stack.enter_context(client))
    return Stage(tuple(services), tuple(doors), tuple(admins), catalog)


@dataclass(frozen=True, slots=True)
class Replicas:
    """Two of them on one Redis, and an Envoy before the first."""

    stage: Stage
    gateway: Gateway
    redis: RedisServer


@pytest.fixture(scope="module")
def replicas(
    deployment: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    catalog = tmp_path_factory.mktemp("emergency") / "catalog.yaml"
    write_catalog(catalog, {name: {} for name in CONSUMERS})
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="blocks-")))
        server = RedisServer(folder).start()
        stack.callback(server.kill)
        counters = {"store": "redis", "url": f"redis://127.0.0.1:{server.port}", "timeout": "20s"}
        stage = start(stack, deployment, "blocked", 2, catalog, counters=counters)
        gateway = stack.enter_context(deployment.run_gateway(stage.services[0].grpc_address))
        yield Replicas(stage, gateway, server)


async def test_a_block_is_in_force_everywhere_while_the_catalog_is_broken(
    replicas: Replicas,
) -> None:
    stage = replicas.stage
    good = stage.break_catalog()
    try:
        assert stage.ask("web") == {ALLOWED}
        async with steady_load(replicas.gateway, PATH, {"x-api-key": key_of("web")}) as load:
            await load.wait_for_more(20)
            assert load.statuses == {200}
            told = stage.order("block", "--application", "web", "--reason", "leaked")
            # The command waits until all who speak have it in force.
            assert (told["processes"], told["in_force"]) == (2, 2)
            assert stage.ask("web") == {"blocked"}
            await load.wait_for_status(403)
            assert load.statuses == {200, 403}
            stage.order("unblock", "--application", "web")
            assert stage.ask("web") == {ALLOWED}
            await load.wait_for_status(200)
        assert stage.ask("mobile") == {ALLOWED}
    finally:
        stage.catalog.write_text(good)


def test_a_key_is_revoked_everywhere(replicas: Replicas) -> None:
    stage = replicas.stage
    assert stage.ask("keyed") == {ALLOWED}
    told = stage.order("revoke", "--api-key-file", "-", stdin=key_of("keyed"))
    assert told["in_force"] == 2
    assert stage.ask("keyed") == {"token_revoked"}
    stage.order("unblock", told["id"])
    assert stage.ask("keyed") == {ALLOWED}


def test_a_block_outlives_a_redis_that_dies_and_comes_back_empty(replicas: Replicas) -> None:
    stage, redis = replicas.stage, replicas.redis
    stage.order("block", "--application", "survivor")
    assert stage.ask("survivor") == {"blocked"}
    redis.kill()
    for admin in stage.admins:
        stage.wait_until(
            lambda admin=admin: stage.check(admin, "emergency")["status"] == "degraded",  # type: ignore[misc]
            "that Redis is away is seen",
        )
    assert stage.ask("survivor") == {"blocked"}
    redis.start()
    stage.wait_until(lambda: redis.ask("HLEN", ENTRIES) == 1, "what Redis lost is written back")
    for admin in stage.admins:
        stage.wait_until(
            lambda admin=admin: stage.check(admin, "emergency")["status"] == "ready",  # type: ignore[misc]
            "Redis is read again",
        )
    assert stage.ask("survivor") == {"blocked"}
    assert stage.order("unblock", "--all")["taken_back"]
    assert stage.ask("survivor") == {ALLOWED}


def test_a_file_is_in_force_while_the_catalog_is_broken(
    deployment: Deployment, tmp_path: Path
) -> None:
    catalog, blocks = tmp_path / "catalog.yaml", tmp_path / "blocks.yaml"
    write_catalog(catalog, {name: {} for name in CONSUMERS})
    with ExitStack() as stack:
        emergency = {"files": [str(blocks)]}
        stage = start(stack, deployment, "filed", 1, catalog, emergency=emergency)
        stage.break_catalog()
        assert stage.ask("filed") == {ALLOWED}
        blocks.write_text("deny:\n- {application: filed}\n- {aplication: web}\n")
        stage.wait_until(lambda: stage.ask("filed") == {"blocked"}, "the block is in force")
        assert stage.ask("web") == {ALLOWED}
        check = stage.check(stage.admins[0], "emergency")
        assert (check["status"], check["in_force"], check["problems"]) == ("degraded", 1, 1)
        assert check["last_error"].startswith(f"{blocks}:3: deny[1].aplication: unknown key")
        assert f"{blocks}:3: " in stage.services[0].log_file.read_text()
        blocks.write_text("deny: []\n")
        stage.wait_until(lambda: stage.ask("filed") == {ALLOWED}, "the block is taken back")


def test_a_service_does_not_start_without_the_blocks_it_requires(
    deployment: Deployment, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.yaml"
    write_catalog(catalog, {"web": {}})
    settings = tmp_path / "extauthz.yaml"
    settings.write_text(
        f"listen: {{grpc: '127.0.0.1:{find_free_port()}'}}\n"
        f"server: {{host: {deployment.host}}}\n"
        f"catalog: {{files: [{catalog}]}}\n"
        "emergency: {required: true, redis: {url: 'redis://127.0.0.1:1'}}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "extauthz", "serve", "--config", str(settings)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TURN_S,
    )
    assert done.returncode == 3
    assert "did not answer" in done.stderr and "emergency.required is true" in done.stderr
    assert "Traceback" not in done.stderr
