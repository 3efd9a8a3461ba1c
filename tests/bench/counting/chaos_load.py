"""Two replicas, a steady load on them, and what each request came to: for `chaos`.

The load is open: a request is sent when its time has come, however long the others take. It has
Envoy's default deadline. Just before the edge of a window nothing is sent, so that each request
is decided in the window that it was sent in.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import httpx2
import yaml

from extauthz.demo.ports import find_free_port
from extauthz.demo.processes import run_extauthz
from tests.bench.pace import let_pass
from tests.e2e.replicas import CHECK, DECADE, read_status, write_catalog, write_check

MODES: Final = ("local", "deny")
REPLICAS: Final = 2
LIMIT: Final = 150
WINDOW_S: Final = 5
RATE: Final = 300
"""Requests a second in all: 75 of each consumer, 350 or so in a window."""
DEADLINE_S: Final = 0.2
QUIET_S: Final = 0.25
LAST_S: Final = 15.0
"""How long the load lasts: three windows."""
_LOOK_S: Final = 0.05
_PATIENCE_S: Final = 30.0

# For each mode a consumer with a limit that is exceeded, and one with a limit that never is, of
# whom everything is counted.
CONSUMERS: Final = tuple(f"{mode}{kind}" for kind in ("", "-all") for mode in MODES)


def _write_tier(consumer: str) -> Mapping[str, Any]:
    limit = (
        {"requests": 10**9, "per": DECADE}
        if consumer.endswith("-all")
        else {"requests": LIMIT, "per": f"{WINDOW_S}s"}
    )
    return {
        "limits": [{**limit, "algorithm": "fixed_window"}],
        "on_outage": consumer.removesuffix("-all"),
    }


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: who, when (seconds of the load), how long, and the status; 504 is no answer."""

    consumer: str
    sent_s: float
    took_s: float
    status: int


@dataclass(frozen=True, slots=True)
class Replica:
    """A running service."""

    pid: int
    channel: grpc.aio.Channel
    admin: httpx2.AsyncClient

    async def read_counters(self) -> dict[str, Any]:
        """What ``/readyz`` says of them."""
        answer = await self.admin.get("/readyz")
        counters: dict[str, Any] = json.loads(answer.text)["checks"]["counters"]
        return counters

    def read_rss_mib(self) -> float:
        """Memory of the process."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        (kib,) = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
        return int(kib) / 1024


@contextmanager
def _run_processes(folder: Path, url: str) -> Iterator[list[tuple[int, str, str]]]:
    """Processes with their gRPC and admin addresses."""
    catalog = folder / "catalog.yaml"
    write_catalog(catalog, {consumer: _write_tier(consumer) for consumer in CONSUMERS})
    started = []
    with ExitStack() as stack:
        for number in range(REPLICAS):
            address, admin = (f"127.0.0.1:{find_free_port()}" for _ in range(2))
            file = folder / f"extauthz-{number}.yaml"
            settings = {
                "listen": {"grpc": address, "admin": admin},
                "catalog": {"files": [str(catalog)]},
                "counters": {"store": "redis", "url": url, "replicas": REPLICAS},
            }
            file.write_text(yaml.safe_dump(settings))
            process = stack.enter_context(run_extauthz(file, address, file.with_suffix(".log")))
            started.append((process.pid, address, admin))
        yield started


@asynccontextmanager
async def run_replicas(folder: Path, url: str) -> AsyncIterator[list[Replica]]:
    """Services that count at the URL, with the tiers of the consumers, until the block ends."""
    options = [("grpc.enable_http_proxy", 0)]
    with _run_processes(folder, url) as started:
        replicas = [
            Replica(
                pid,
                grpc.aio.insecure_channel(address, options),
                httpx2.AsyncClient(base_url=f"http://{admin}", timeout=10, trust_env=False),
            )
            for pid, address, admin in started
        ]
        try:
            yield replicas
        finally:
            for replica in replicas:
                await replica.channel.close()
                await replica.admin.aclose()


@dataclass(slots=True)
class Load:
    """A load on replicas, from the edge of a window on.

    Attributes:
        degraded_s: when a replica was seen without its store.
        rss_mib: of the larger replica, after two seconds and at the end.
    """

    replicas: list[Replica]
    samples: list[Sample] = field(default_factory=list)
    degraded_s: list[float] = field(default_factory=list)
    rss_mib: tuple[float, float] = (0.0, 0.0)
    _began_s: float = 0.0

    @property
    def now_s(self) -> float:
        """Seconds since the load began."""
        return time.time() - self._began_s

    async def wait_until(self, at_s: float) -> None:
        """Returns at that second of the load."""
        await let_pass(at_s - self.now_s)

    async def run(self, disturb: Callable[[], Any]) -> None:
        """Sends, watches and disturbs; and waits until both replicas have their store again."""
        self._began_s = (time.time() // WINDOW_S + 1) * WINDOW_S
        await self.wait_until(0)
        watching = asyncio.create_task(self._watch())
        disturbing = asyncio.create_task(disturb())
        try:
            await self._send()
            await disturbing
            async with asyncio.timeout(_PATIENCE_S):
                while not await self._are_settled():
                    await let_pass(_LOOK_S)
        finally:
            for task in (watching, disturbing):
                task.cancel()
            await asyncio.gather(watching, disturbing, return_exceptions=True)
        self.rss_mib = (self.rss_mib[0], self._read_rss_mib())

    def _read_rss_mib(self) -> float:
        return max(replica.read_rss_mib() for replica in self.replicas)

    async def _are_settled(self) -> bool:
        seen = [await replica.read_counters() for replica in self.replicas]
        return all(one["status"] == "ready" and not one["owed_counters"] for one in seen)

    async def _watch(self) -> None:
        await self.wait_until(2)
        self.rss_mib = (self._read_rss_mib(), 0.0)
        while True:
            seen = [await replica.read_counters() for replica in self.replicas]
            if any(one["status"] != "ready" for one in seen):
                self.degraded_s.append(self.now_s)
            await let_pass(_LOOK_S)

    async def _send(self) -> None:
        checks: list[Any] = [replica.channel.unary_unary(CHECK) for replica in self.replicas]
        questions = {consumer: write_check(consumer) for consumer in CONSUMERS}
        asking: set[asyncio.Task[None]] = set()

        async def ask(consumer: str, check: Any) -> None:
            sent_s, began_s = self.now_s, time.perf_counter()
            try:
                status = read_status(await check(questions[consumer], timeout=DEADLINE_S))
            except grpc.aio.AioRpcError as error:
                status = 503 if error.code() is grpc.StatusCode.UNAVAILABLE else 504
            took_s = time.perf_counter() - began_s
            self.samples.append(Sample(consumer, sent_s, took_s, status))

        for number in range(int(LAST_S * RATE)):
            await self.wait_until(number / RATE)
            if self.now_s % WINDOW_S > WINDOW_S - QUIET_S:
                continue
            turn, which = divmod(number, len(CONSUMERS))
            asking.add(asyncio.create_task(ask(CONSUMERS[which], checks[turn % len(checks)])))
        await asyncio.gather(*asking)
