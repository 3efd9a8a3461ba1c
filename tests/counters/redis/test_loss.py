"""A Redis that has lost its counts is noticed at the next connection, once, by every replica."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import Final

import pytest

from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge
from tests.builders import FakeClock, S
from tests.redis_server import (
    DEPLOYMENTS,
    Deployment,
    RedisServer,
    find_shared,
    make_folder,
    settings_of,
)

CHARGES: Final = [
    Charge(key, Algorithm.FIXED_WINDOW, 10**6, 36_500 * 86_400 * S)
    for key in ("{a1}own", "{k2}shared", "{p5}widest")
]
"""On a cluster each lies on another node."""


class Watched:
    """A store, and the losses that it noticed."""

    def __init__(self, deployment: Deployment, **settings: object) -> None:
        self.deployment = deployment
        self.clock = FakeClock()
        self.store = RedisCounterStore(
            settings_of(deployment, **settings), monotonic_us=self.clock.now_us
        )

    async def count(self) -> None:
        """Counts something on every node, with new connections where the old ones are gone."""
        async with asyncio.timeout(60):
            for charge in CHARGES:
                while True:
                    try:
                        await self.store.take([charge])
                        break
                    except CounterStoreError:
                        self.clock.advance(60)
                        await asyncio.sleep(0)

    async def hang_up(self) -> None:
        """Redis closes every connection, and the loop sees it."""
        for server in self.deployment.servers:
            server.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.mark.parametrize("name", DEPLOYMENTS)
async def test_a_redis_without_its_counts_is_noticed_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(find_shared(name))
    nodes = 3 if "cluster" in name else 1
    await watched.count()
    for times in range(1, 4):
        await watched.hang_up()
        await watched.count()  # with its counts
        watched.deployment.flush()
        await watched.count()  # over the connections that it has
        assert watched.store.losses == (times - 1) * nodes
        await watched.hang_up()
        await watched.count()
        assert watched.store.losses == times * nodes
    await watched.store.close()
    warned = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warned) == watched.store.losses
    assert {record.__dict__["code"] for record in warned} == {"counter_store_failed"}
    assert all("has lost its counters" in record.message for record in warned)


@pytest.mark.parametrize("name", DEPLOYMENTS)
async def test_a_replica_that_connects_later_notices_too(name: str) -> None:
    first, second = Watched(find_shared(name)), Watched(find_shared(name))
    late = Watched(first.deployment)
    nodes = 3 if "cluster" in name else 1
    await first.count()
    await second.count()
    first.deployment.flush()
    await first.hang_up()
    await first.count()
    await second.hang_up()
    await second.count()
    await late.count()
    assert [one.store.losses for one in (first, second, late)] == [nodes, nodes, 0]
    for one in (first, second, late):
        await one.store.close()


@pytest.fixture
def single() -> Iterator[Deployment]:
    """One of its own, with a user who may do what the documentation says, and no more."""
    rights = "on >secret ~extauthz:* +evalsha +eval +mget +set +del +time"
    server = RedisServer(
        make_folder(),
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--user",
        "counter",
        *rights.split(),
    ).start()
    yield Deployment([server], [], f"redis://counter:secret@127.0.0.1:{server.port}")
    server.kill()


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_redis_that_was_killed_has_lost_what_it_did_not_write_down(
    single: Deployment,
    keeps: bool,  # noqa: FBT001  (a parameter of the test)
) -> None:
    watched = Watched(single)
    if not keeps:
        single.primary.ask("CONFIG", "SET", "appendonly", "no")
        for file in (single.primary.folder).glob("append*"):
            file.rename(file.with_name("not-read"))
    await watched.count()
    single.primary.kill()
    single.primary.start()
    await watched.count()
    assert watched.store.losses == (0 if keeps else 1)
    await watched.store.close()


async def test_a_server_that_does_not_let_us_look_is_not_watched(
    single: Deployment, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(single)
    single.primary.ask("ACL", "SETUSER", "counter", "-mget")
    with pytest.raises(CounterStoreError, match="refused to count"):
        await watched.store.take(CHARGES[:1])
    assert watched.store.losses == 0
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]
    await watched.store.close()


async def test_each_prefix_has_a_marker_of_its_own(single: Deployment) -> None:
    for server in single.servers:
        server.ask("ACL", "SETUSER", "counter", "~mesh:*")
    watched, other = Watched(single), Watched(single, prefix="mesh:")
    await watched.count()
    await other.count()
    single.primary.ask("DEL", "mesh:{0}marker")
    await watched.hang_up()
    await watched.count()
    await other.count()
    assert (watched.store.losses, other.store.losses) == (0, 1)
    for one in (watched, other):
        await one.store.close()
