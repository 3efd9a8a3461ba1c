"""Real Redis servers for tests: single, with a replica and Sentinels, and as a cluster.

They listen on loopback at free ports and on a socket in a folder of their own, write nothing
to disk, and are waited for by what they log: nothing here sleeps. `find_shared` starts a
deployment when a test first asks for it; `stop_shared` ends them all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import redis

from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.demo.ports import is_free
from extauthz.ports import CounterStore
from tests import free_ports
from tests.builders import FakeClock

SERVICE = "counters"


_PORTS = range(10_000, 14_000)
"""Neither these nor the ports of a cluster's bus are among those that Linux gives to clients, or
that other programs of the tests get."""
_BUS = 10_000
"""A cluster's nodes talk to each other at a port so much higher."""


def find_free_port() -> int:
    """One that nobody else is given, and whose port for a cluster's bus is free too."""
    return free_ports.find_free_port(_PORTS, lambda port: is_free(port) and is_free(port + _BUS))


def find_program() -> str:
    """The server under test: `redis-server`, or what EXTAUTHZ_TEST_REDIS_SERVER names.

    Any of Redis 6.0 or later and of Valkey.
    """
    program = os.environ.get("EXTAUTHZ_TEST_REDIS_SERVER") or shutil.which("redis-server")
    assert program is not None, "these tests need redis-server: apt-get install redis-server"
    return program


class RedisServer:
    """One process. Starts with `start`, and can be started again after it was killed."""

    def __init__(
        self, folder: Path, *options: str, port: int = 0, is_encrypted: bool = False
    ) -> None:
        self.folder = folder
        self.port = port or find_free_port()
        self.socket = folder / f"{self.port}.sock"
        self._options = options
        self._ports = ("--port", "0", "--tls-port") if is_encrypted else ("--port",)
        self._process: subprocess.Popen[str] | None = None

    def start(self, sign: str = "Ready to accept connections") -> RedisServer:
        settings = {"dir": str(self.folder), "unixsocket": str(self.socket)}
        return self._start(
            [
                find_program(),
                *self._ports,
                *(str(self.port), "--bind", "127.0.0.1"),
                *("--save", "", "--appendonly", "no"),
                *[word for name, value in settings.items() for word in (f"--{name}", value)],
                *self._options,
            ],
            sign,
        )

    def start_sentinel(self, primary_port: int, quorum: int) -> RedisServer:
        file = self.folder / f"sentinel-{self.port}.conf"
        file.write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {primary_port} {quorum}\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\n"
            f"sentinel failover-timeout {SERVICE} 5000\n"
        )
        return self._start([find_program(), str(file), "--sentinel"], "+monitor master")

    def _start(self, command: list[str], sign: str) -> RedisServer:
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        _running.add(self)
        self.wait_for_log(sign)
        return self

    def wait_for_log(self, sign: str) -> str:
        """Reads the log on, to the line that holds the sign."""
        assert self._process is not None and self._process.stdout is not None
        seen = []
        for line in self._process.stdout:
            if sign in line:
                return line
            seen.append(line)
        raise AssertionError(f"redis-server ended before it said {sign!r}:\n{''.join(seen)}")

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal. After SIGSTOP the process has stopped: it reads nothing any more."""
        assert self._process is not None
        os.kill(self._process.pid, number)
        if number is signal.SIGSTOP:
            os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def kill(self) -> None:
        """As when the machine dies; and waits for its end."""
        process, self._process = self._process, None
        _running.discard(self)
        if process is not None:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()

    @contextmanager
    def asking(self) -> Iterator[redis.Redis]:
        """A client to look at the server with."""
        with redis.Redis(port=self.port, driver_info=None) as client:
            yield client

    def ask(self, *command: str | int) -> Any:
        with self.asking() as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]

    def find_calls(self) -> Mapping[str, int]:
        """How often each command was called since the statistics were reset, scripts' own too."""
        with self.asking() as client:
            stats: dict[str, dict[str, int]] = client.info("commandstats")
        return {
            name.removeprefix("cmdstat_"): int(fields["calls"]) for name, fields in stats.items()
        }

    def dump(self) -> dict[bytes, bytes | None]:
        """Every key of `list_keys` as the server would write it down."""
        with self.asking() as client:
            return {key: client.dump(key) for key in self.list_keys()}

    def list_keys(self) -> list[bytes]:
        """Every key but the store's marker."""
        keys: list[bytes] = self.ask("KEYS", "*")
        return [key for key in keys if not key.endswith(b"}marker")]


class Deployment:
    """Servers that belong together, and the URL that they are found by."""

    def __init__(self, servers: list[RedisServer], sentinels: list[RedisServer], url: str) -> None:
        self.servers = servers
        self.sentinels = sentinels
        self.url = url

    @property
    def primary(self) -> RedisServer:
        return self.servers[0]

    def flush(self) -> None:
        for server in self.servers:
            if server.ask("ROLE")[0] == b"master":
                server.ask("FLUSHALL")

    def stop(self) -> None:
        for server in (*self.sentinels, *self.servers):
            server.kill()


def start_single(folder: Path) -> Deployment:
    server = RedisServer(folder).start()
    return Deployment([server], [], f"redis://127.0.0.1:{server.port}")


def start_unix(folder: Path) -> Deployment:
    server = RedisServer(folder).start()
    return Deployment([server], [], f"unix://{server.socket}")


def start_sentinel(folder: Path) -> Deployment:
    primary = RedisServer(folder, "--repl-diskless-sync-delay", "0").start()
    replica = RedisServer(
        folder, "--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0"
    ).start()
    replica.wait_for_log("REPLICA sync: Finished with success")
    sentinels = [RedisServer(folder).start_sentinel(primary.port, 2) for _ in range(3)]
    for sentinel in sentinels:
        sentinel.wait_for_log("+slave")
    hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in sentinels)
    return Deployment([primary, replica], sentinels, f"redis+sentinel://{hosts}/?service={SERVICE}")


def start_cluster(folder: Path) -> Deployment:
    nodes = [
        RedisServer(
            folder,
            *("--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{number}.conf"),
        ).start()
        for number in range(3)
    ]
    edges = [0, 5461, 10_923, 16_384]
    for number, node in enumerate(nodes):
        node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        node.ask("CLUSTER", "ADDSLOTS", *range(edges[number], edges[number + 1]))
    for node in nodes[1:]:
        node.ask("CLUSTER", "MEET", "127.0.0.1", nodes[0].port)
    for node in nodes:
        node.wait_for_log("Cluster state changed: ok")
    hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes)
    return Deployment(nodes, [], f"redis+cluster://{hosts}")


_START: dict[str, Callable[[Path], Deployment]] = {
    "redis": start_single,
    "redis, unix socket": start_unix,
    "redis, sentinel": start_sentinel,
    "redis, cluster": start_cluster,
}
DEPLOYMENTS = tuple(_START)
_shared: dict[str, Deployment] = {}
_running: set[RedisServer] = set()
_folders: list[tempfile.TemporaryDirectory[str]] = []


def make_folder() -> Path:
    """A folder that goes with `stop_shared`; its path is short enough for a socket."""
    folder = tempfile.TemporaryDirectory(prefix="redis-")
    _folders.append(folder)
    return Path(folder.name)


def find_shared(name: str) -> Deployment:
    """The deployment of that name, started when it does not run yet, and emptied."""
    if name not in _shared:
        _shared[name] = _START[name](make_folder())
    _shared[name].flush()
    return _shared[name]


def stop_shared() -> None:
    _shared.clear()
    for server in list(_running):
        server.kill()
    while _folders:
        _folders.pop().cleanup()


def settings_of(deployment: Deployment, **fields: Any) -> RedisSettings:
    """Settings with a timeout that a busy machine does not exceed by chance."""
    settings = RedisSettings(
        address=read_redis_url(deployment.url), timeout_s=20, connect_timeout_s=20
    )
    return replace(settings, **fields)


def make_redis(name: str) -> Callable[[FakeClock], Any]:
    """Makes stores that go by a test's clock, as the contract suite wants it."""

    async def make(clock: FakeClock) -> CounterStore:
        settings = settings_of(find_shared(name))
        return RedisCounterStore(settings, clock=clock, monotonic_us=clock.now_us)

    return make
