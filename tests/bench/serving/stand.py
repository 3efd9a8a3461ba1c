"""A whole installation to put under load: proxy, service, Redis and upstream.

h2load (Debian's nghttp2-client) asks the proxy over HTTP/2, at a fixed rate or as fast as it
can, for 200 consumers in turn. What it wrote of each request is read back. The rate is kept
whatever becomes of earlier requests, as long as fewer than `MAX_IN_FLIGHT` wait.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx2
import yaml

from extauthz.demo.ports import find_free_port
from extauthz.demo.processes import run_extauthz
from extauthz.serving.inside_envoy.grpc_wire import write_frame
from tests.bench.deciding.core import make_check_request
from tests.bench.serving.hosts import PATH
from tests.bench.serving.proxies import run_proxy
from tests.bench.serving.upstream import run_upstream
from tests.redis_server import RedisServer, stop_shared

CONSUMERS: Final = 200
CONNECTIONS: Final = 8
MAX_IN_FLIGHT: Final = 6_400
LIMITED_SHARE: Final = 20
"""One request in so many is of a consumer that may make few; one is for no resource."""
CAPACITY_S: Final = 5

_BASE: Final = "/shop/v1"
PROBE: Final = f"{_BASE}/things/1"
_FINISHED: Final = re.compile(r"finished in .*?, ([\d.]+) req/s")
_DECISIONS: Final = re.compile(
    r'^extauthz_decisions_total\{.*reason="(\w*)".*\} ([\d.e+]+)$', re.MULTILINE
)
_SHED: Final = re.compile(r"^extauthz_calls_shed_total ([\d.e+]+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was sent (Unix time), its HTTP status (0 for none), and how long."""

    sent_us: int
    status: int
    took_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stand:
    """What runs."""

    folder: Path
    proxy: str
    grpc: str
    admin: str
    redis: RedisServer
    service_id: int

    async def find_capacity(self) -> float:
        """Requests a second of a closed loop, through the proxy."""
        return await self._find_rate(*self._through_proxy, "-m", "16", "-D", str(CAPACITY_S))

    async def find_grpc_capacity(self) -> float:
        """Decisions a second of a closed loop, without the proxy."""
        return await self._find_rate(*self._without_proxy, "-m", "16", "-D", str(CAPACITY_S))

    async def flood(self, per_s: float, seconds: float) -> float:
        """Asks the service itself at a fixed rate for so long; gives the rate of its answers."""
        return await self._find_rate(
            *(*self._without_proxy, "-m", str(MAX_IN_FLIGHT // CONNECTIONS)),
            *(f"--rps={per_s / CONNECTIONS:.3f}", "-D", f"{round(seconds)}"),
        )

    async def offer(self, per_s: float, seconds: float) -> list[Asked]:
        """Sends at a fixed rate for so long. Gives every request, in the order of their ends."""
        log = self.folder / "asked.tsv"
        log.unlink(missing_ok=True)
        await self._load(
            *self._through_proxy,
            *("-m", str(MAX_IN_FLIGHT // CONNECTIONS), f"--rps={per_s / CONNECTIONS:.3f}"),
            *("-D", f"{round(seconds)}", f"--log-file={log}"),
        )
        asked = []
        with log.open() as lines:
            for line in lines:
                sent_us, status, took_us = line.split("\t")[:3]
                asked.append(Asked(int(sent_us), max(0, int(status)), int(took_us)))
        return asked

    @property
    def _through_proxy(self) -> tuple[str, ...]:
        return "-i", str(self.folder / "uris")

    @property
    def _without_proxy(self) -> tuple[str, ...]:
        headers = ("-H", "content-type: application/grpc", "-H", "te: trailers")
        timeout = ("-H", "grpc-timeout: 200m")
        body = ("-d", str(self.folder / "body"))
        return (*headers, *timeout, *body, f"http://{self.grpc}{PATH}")

    async def _find_rate(self, *arguments: str) -> float:
        out = await self._load(*arguments)
        found = _FINISHED.search(out)
        assert found is not None, out
        return float(found[1])

    async def _load(self, *arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *("h2load", "-c", str(CONNECTIONS), *arguments),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            return (await process.communicate())[0].decode()
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()

    def reload(self) -> None:
        """Tells the service to read its catalog again."""
        os.kill(self.service_id, signal.SIGHUP)

    def change_catalog(self, number: int) -> None:
        """Writes another catalog: one application more or less."""
        write_catalog(self.folder, spare=number % 2)

    async def read_metrics(self) -> tuple[dict[str, int], int]:
        """Decisions by reason since the start (allows under ``allowed``), and calls shed."""
        async with httpx2.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"http://{self.admin}/metrics")).text
        reasons: dict[str, int] = {}
        for reason, count in _DECISIONS.findall(text):
            reason = reason or "allowed"
            reasons[reason] = reasons.get(reason, 0) + round(float(count))
        shed = _SHED.search(text)
        return reasons, 0 if shed is None else round(float(shed[1]))

    def read_rss_mib(self) -> float:
        """What the service and the Envoy that it started have in memory."""
        return sum(_read_rss_kib(one) for one in _list_family(self.service_id)) / 1024


@asynccontextmanager
async def run_stand(*, host: str = "envoy", core_of_its_own: bool = False) -> AsyncIterator[Stand]:
    """Everything, until the block ends.

    Args:
        host: what carries the service's calls.
        core_of_its_own: the service has one processor, and everything else the others; so that
            whoever asks does not take away the time in which it could answer.
    """
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stand-")))
        stack.callback(stop_shared)
        redis = RedisServer(folder).start()
        grpc, admin = (f"127.0.0.1:{find_free_port()}" for _ in range(2))
        write_catalog(folder)
        settings = {
            "listen": {"grpc": grpc, "admin": admin},
            "server": {"host": host},
            "catalog": {"files": ["catalog.yaml"]},
            "counters": {"store": "redis", "url": f"redis://127.0.0.1:{redis.port}"},
            "log": {"level": "error"},
        }
        (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
        processors = sorted(os.sched_getaffinity(0))
        if core_of_its_own:
            stack.callback(os.sched_setaffinity, 0, processors)
            os.sched_setaffinity(0, processors[:1])  # those that it starts have it, too
        service = stack.enter_context(
            run_extauthz(folder / "extauthz.yaml", grpc, folder / "extauthz.log")
        )
        if core_of_its_own:
            os.sched_setaffinity(0, processors[1:])
        upstream = await stack.enter_async_context(run_upstream())
        proxy = stack.enter_context(run_proxy(folder / "proxy", upstream, grpc))
        (folder / "uris").write_text("".join(f"{uri}\n" for uri in _list_uris(proxy.address)))
        credential = ("x-api-key", _key(_consumer(0)))
        (folder / "body").write_bytes(write_frame(make_check_request(PROBE, credential)))
        yield Stand(
            folder=folder,
            proxy=proxy.address,
            grpc=grpc,
            admin=admin,
            redis=redis,
            service_id=service.pid,
        )


def write_catalog(folder: Path, *, spare: int = 0) -> None:
    """One API, its consumers, and `spare` applications that nobody uses."""
    names = [_consumer(number) for number in range(CONSUMERS)]
    applications = [
        {"name": name, "api_keys": [{"sha256": hashlib.sha256(_key(name).encode()).hexdigest()}]}
        for name in (*names, "limited")
    ]
    applications += [{"name": f"spare-{number}"} for number in range(spare)]
    catalog = {
        "apis": [
            {
                "name": "Shop",
                "version": "v1",
                "context": _BASE,
                "security": ["api_key"],
                "resources": [{"methods": ["GET"], "path": "/things/{id}"}],
            }
        ],
        "tiers": {
            "Gold": {
                "limits": [{"requests": 1_000_000, "per": "1m"}],
                "burst": {"requests": 100_000, "per": "1s"},
            },
            "Few": {"limits": [{"requests": 50, "per": "1s"}]},
        },
        "applications": applications,
        "subscriptions": [
            *(
                {"application": name, "api": "Shop", "version": "v1", "tier": "Gold"}
                for name in names
            ),
            {"application": "limited", "api": "Shop", "version": "v1", "tier": "Few"},
        ],
    }
    new = folder / "catalog.new"
    new.write_text(yaml.safe_dump(catalog))
    new.rename(folder / "catalog.yaml")


def write_probe() -> bytes:
    """A good request over HTTP/1.1, for `tests.bench.serving.open_loop`."""
    key = _key(_consumer(1))
    return f"GET {PROBE} HTTP/1.1\r\nhost: shop.example\r\nx-api-key: {key}\r\n\r\n".encode()


def _consumer(number: int) -> str:
    return f"consumer-{number}"


def _key(name: str) -> str:
    return f"key-of-{name}"


def _list_uris(address: str) -> Sequence[str]:
    uris = []
    for number in range(CONSUMERS):
        path = f"{_BASE}/things/{number}"
        name = _consumer(number)
        if number % LIMITED_SHARE == 7:
            name = "limited"
        elif number % LIMITED_SHARE == 13:
            path = f"{_BASE}/nothing/here"
        uris.append(f"http://{address}{path}?apikey={_key(name)}")
    return uris


def _list_family(process_id: int) -> list[int]:
    """A process and all that it started."""
    family = [process_id]
    for parent in family:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            family += map(int, task.read_text().split())
    return family


def _read_rss_kib(process_id: int) -> int:
    status = Path(f"/proc/{process_id}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    return 0 if found is None else int(found[1])
