"""What Redis's errors mean: said by a real server where one can be brought to it."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from extauthz.clock import SystemClock
from extauthz.counters.memory import MemoryCounterStore
from extauthz.counters.outage.breaker import BreakerRules, BreakerState
from extauthz.counters.outage.fallback import FallbackCounterStore
from extauthz.counters.outage.mode import FallbackRules, FallbackState
from extauthz.counters.redis.refusals import (
    REFUSALS,
    Redirect,
    RedisRefusal,
    find_meaning,
    find_redirect,
)
from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.errors import CounterStoreError
from extauthz.model.limits import Algorithm, Charge
from tests.builders import FakeClock, S
from tests.redis_server import RedisServer, find_free_port, find_shared, make_folder, settings_of

CHARGE = Charge("{a}k", Algorithm.FIXED_WINDOW, 3, 36_500 * 86_400 * S)
SHA = "694a5fe1ddb97a4c6a1bf299d9537c7d3d0f84e7"
IN_7 = f" script: {SHA}, on @user_script:540."
IN_6 = f"ERR Error running script (call to f_{SHA}): @user_script:540: @user_script: 540: -"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"NOREPLICAS Not enough good replicas to write.{IN_7}", (True, True)),
        (f"{IN_6}NOREPLICAS Not enough good replicas to write.", (True, True)),
        (f"MISCONF Errors writing to the AOF file: No space left on device{IN_7}", (True, False)),
        (f"{IN_6}MISCONF Redis is configured to save RDB snapshots", (True, False)),
        (f"OOM command not allowed when used memory > 'maxmemory'.{IN_7}", (True, False)),
        (f"{IN_6}OOM command not allowed when used memory > 'maxmemory'.", (True, False)),
        (f"READONLY You can't write against a read only replica.{IN_7}", (True, True)),
        (f"{IN_6}READONLY You can't write against a read only replica.", (True, True)),
        (f"ERR Script killed by user with SCRIPT KILL...{IN_7}", (True, False)),
        (f"{IN_6}ERR Script killed by user with SCRIPT KILL...", (True, False)),
        (f"ERR attempt to index a nil value{IN_7}", (False, False)),
        (f"NOPERM User counter has no permissions to run the 'del' command{IN_7}", (False, False)),
        (
            f"WRONGTYPE Operation against a key holding the wrong kind of value{IN_7}",
            (False, False),
        ),
        ("ERR max number of clients reached", (True, True)),
        ("ERR max number of clients + cluster connections reached", (True, True)),
        ("ERR unknown command 'evalsha', with args beginning with: ", (True, False)),
        ("ERR Protocol error: invalid bulk length", (True, True)),
        ("LOADING Redis is loading the dataset in memory", (True, True)),
        ("DENIED Redis is running in protected mode", (True, True)),
        ("NOAUTH Authentication required.", (True, True)),
        ("REDIRECT 10.0.0.7:6379", (True, True)),
        ("no upstream host", (True, False)),
        ("upstream failure", (False, False)),
        ("ERR Connection refused", (True, False)),
        ("ERR Connection timed out", (False, False)),
        ("SOMETHING of a version to come", (False, False)),
        ("", (False, False)),
    ],
)
def test_what_a_refusal_says_of_what_was_charged(text: str, expected: tuple[bool, bool]) -> None:
    meaning = find_meaning(RedisRefusal(text))
    assert (meaning.charged_nothing, meaning.is_elsewhere) == expected


def test_no_code_of_the_table_may_have_been_charged() -> None:
    assert all(meaning.charged_nothing for meaning in REFUSALS.values())


@pytest.mark.parametrize(
    ("text", "redirect"),
    [
        ("MOVED 3999 127.0.0.1:6381", Redirect(True, 3999, "127.0.0.1", 6381)),
        ("ASK 3999 node-7:6381", Redirect(False, 3999, "node-7", 6381)),
        ("MOVED 3999 :6381", Redirect(True, 3999, "", 6381)),
        ("MOVED 3999 2001:db8::1:6381", Redirect(True, 3999, "2001:db8::1", 6381)),
        ("MOVED 16384 127.0.0.1:6381", None),
        ("MOVED 3999 127.0.0.1:0", None),
        ("MOVED 3999 127.0.0.1:65536", None),
        ("MOVED 3999", None),
        ("MOVED x y", None),
        ("MOVED 99999999999999999999 h:1", None),
        ("CLUSTERDOWN The cluster is down", None),
    ],
)
def test_reads_where_a_node_sends_an_order_on_to(text: str, redirect: Redirect | None) -> None:
    assert find_redirect(RedisRefusal(text)) == redirect


class Replica:
    """A fallback store whose one process may admit all of a limit by itself."""

    def __init__(self, url: str) -> None:
        self.changes: asyncio.Queue[BreakerState] = asyncio.Queue()
        self.failed: list[str] = []
        settings = RedisSettings(address=read_redis_url(url), timeout_s=5, connect_timeout_s=5)
        self.redis = RedisCounterStore(replace(settings, first_pause_s=0.001))
        self.store = FallbackCounterStore(
            self.redis,
            MemoryCounterStore(SystemClock()),
            SystemClock(),
            share=1,
            rules=FallbackRules(
                timeout_s=5, breaker=BreakerRules(failures=1, cooldown_s=0.02, max_cooldown_s=0.1)
            ),
            observe=self.note,
        )

    def note(self, state: FallbackState) -> None:
        self.failed.append(state.last_error)
        self.changes.put_nowait(state.breaker)

    async def offer(self, times: int) -> int:
        """How many of these, one after the other, were admitted."""
        return sum([(await self.store.take([CHARGE])).charged for _ in range(times)])

    async def wait_until_back(self) -> None:
        async with asyncio.timeout(60):
            while await self.changes.get() is not BreakerState.CLOSED:
                pass


@asynccontextmanager
async def a_replica(url: str) -> AsyncIterator[Replica]:
    replica = Replica(url)
    yield replica
    await replica.store.close()


@contextmanager
def configured(admin: Any, name: str, value: object, back: object) -> Iterator[None]:
    admin.config_set(name, value)
    yield
    admin.config_set(name, back)


@contextmanager
def without_a_disk(admin: Any, server: RedisServer) -> Iterator[None]:
    admin.config_set("save", "3600 1")
    shutil.rmtree(server.folder)
    admin.bgsave()
    server.wait_for_log("Background saving error")
    yield
    admin.config_set("save", "")


@contextmanager
def as_a_replica(admin: Any, serve_stale_data: str) -> Iterator[None]:
    admin.config_set("replica-serve-stale-data", serve_stale_data)
    admin.execute_command("REPLICAOF", "127.0.0.1", find_free_port())
    yield
    admin.execute_command("REPLICAOF", "NO", "ONE")


@contextmanager
def with_a_script_that_does_not_end(admin: Any, server: RedisServer) -> Iterator[None]:
    admin.config_set("lua-time-limit", 1)
    with socket.create_connection(("127.0.0.1", server.port)) as other:
        other.sendall(b"EVAL 'while true do end' 0\r\n")
        server.wait_for_log("Slow script detected")
        yield
        admin.script_kill()
        assert find_meaning(RedisRefusal(other.recv(1000)[1:-2].decode())).charged_nothing


@contextmanager
def with_no_connection_left(admin: Any) -> Iterator[None]:
    admin.config_set("maxclients", 1)
    yield
    admin.config_set("maxclients", 100)


@contextmanager
def forbidden(admin: Any) -> Iterator[None]:
    admin.execute_command("ACL", "SETUSER", "default", "-evalsha")
    yield
    admin.execute_command("ACL", "SETUSER", "default", "+evalsha")


@contextmanager
def locked(admin: Any) -> Iterator[None]:
    admin.config_set("requirepass", "secret")
    yield
    admin.config_set("requirepass", "")


Bring = Callable[[Any, RedisServer], Any]

REAL: dict[str, Bring] = {
    "NOREPLICAS": lambda admin, _: configured(admin, "min-replicas-to-write", 1, 0),
    "MISCONF": without_a_disk,
    "OOM": lambda admin, _: configured(admin, "maxmemory", 1, 0),
    "READONLY": lambda admin, _: as_a_replica(admin, "yes"),
    "MASTERDOWN": lambda admin, _: as_a_replica(admin, "no"),
    "BUSY": with_a_script_that_does_not_end,
    "max number of clients": lambda admin, _: with_no_connection_left(admin),
    "permission": lambda admin, _: forbidden(admin),
    "NOAUTH": lambda admin, _: locked(admin),
}


@pytest.mark.parametrize("word", REAL)
async def test_what_memory_admits_while_redis_refuses_is_charged_afterwards_exactly(
    word: str,
) -> None:
    server = RedisServer(make_folder()).start()
    with ExitStack() as stack:
        stack.callback(server.kill)
        admin = stack.enter_context(server.asking())
        admin.ping()
        async with a_replica(f"redis://127.0.0.1:{server.port}") as replica:
            with REAL[word](admin, server):
                assert await replica.offer(6) == 3
                assert word in replica.failed[0]
            await replica.wait_until_back()
            assert replica.store.state.charged_back == 3
            assert replica.store.state.given_up == 0
            assert await replica.offer(3) == 0
            taking = await replica.redis.take([replace(CHARGE, limit=100, cost=0)])
            assert taking.readings[0].remaining == 97


async def test_what_memory_admits_while_redis_loads_its_data_is_charged_afterwards_exactly() -> (
    None
):
    folder = make_folder()
    server = RedisServer(folder).start()
    with server.asking() as admin:
        admin.mset({f"k{number}": "x" * 100 for number in range(2000)})
        admin.save()
    server.kill()
    slowly = ("--key-load-delay", "10000", "--loading-process-events-interval-bytes", "1024")
    server = RedisServer(folder, *slowly, port=server.port)
    server.start(sign="Loading RDB")
    async with a_replica(f"redis://127.0.0.1:{server.port}") as replica:
        assert await replica.offer(6) == 3
        assert "LOADING" in replica.failed[0]
        server.ask("CONFIG", "SET", "key-load-delay", "0")
        await replica.wait_until_back()
        assert await replica.offer(3) == 0
        assert replica.store.state.charged_back == 3
    server.kill()


async def test_a_cluster_that_is_addressed_as_one_redis_says_how_to_address_it() -> None:
    cluster = find_shared("redis, cluster")
    for node in cluster.servers:
        settings = settings_of(cluster, address=read_redis_url(f"redis://127.0.0.1:{node.port}"))
        store = RedisCounterStore(settings, monotonic_us=FakeClock().now_us)
        with pytest.raises(CounterStoreError, match=r"write redis\+cluster://") as caught:
            await store.take([CHARGE])
        assert caught.value.charged_nothing
        assert not caught.value.transient
        await store.close()


async def test_a_cluster_without_slots_that_is_addressed_as_one_redis_says_so_too() -> None:
    server = RedisServer(make_folder(), "--cluster-enabled", "yes").start()
    store = RedisCounterStore(
        RedisSettings(address=read_redis_url(f"redis://127.0.0.1:{server.port}"), timeout_s=5)
    )
    with pytest.raises(CounterStoreError, match=r"write redis\+cluster://"):
        await store.take([CHARGE])
    await store.close()
    server.kill()


async def test_on_a_cluster_what_the_first_slot_refuses_was_surely_not_charged() -> None:
    cluster = find_shared("redis, cluster")
    store = RedisCounterStore(settings_of(cluster), monotonic_us=FakeClock().now_us)
    charges = [replace(CHARGE, key=key) for key in ("{a1}own", "{k2}shared")]
    assert (await store.take(charges)).charged
    first, second = cluster.servers[:2], cluster.servers[2:]
    for servers, is_sure in ((first + second, True), ([_holder(cluster.servers, "k2")], False)):
        for server in servers:
            server.ask("CONFIG", "SET", "min-replicas-to-write", 1)
        try:
            with pytest.raises(CounterStoreError, match="NOREPLICAS") as caught:
                await store.take(charges)
            assert caught.value.charged_nothing is is_sure
        finally:
            for server in servers:
                server.ask("CONFIG", "SET", "min-replicas-to-write", 0)
    await store.close()


def _holder(servers: list[RedisServer], tag: str) -> RedisServer:
    for server in servers:
        slot = server.ask("CLUSTER", "KEYSLOT", tag)
        for first, last, (_, port, *_), *_replicas in server.ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(one for one in servers if one.port == port)
    raise AssertionError
