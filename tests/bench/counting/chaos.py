"""Two replicas under a steady load while Redis is killed, hangs, is slow, fails over or moves.

For each disturbance and outage mode: how long decisions took, as a client with Envoy's default
deadline of 200 ms saw it; what was not decided; how much passed a limit of 150 in five seconds in
the worst window, beside the stated bound; how long after its end both replicas counted in Redis
again; and what Redis had counted in the end, beside what was admitted, of a consumer without a
limit to meet. When Redis died with its counts, only what was answered afterwards is compared.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from tests.bench.counting.chaos_load import (
    LIMIT,
    MODES,
    REPLICAS,
    WINDOW_S,
    Load,
    Sample,
    run_replicas,
)
from tests.bench.pace import let_pass
from tests.bench.tables import Row
from tests.redis_server import (
    Deployment,
    RedisServer,
    start_cluster,
    start_sentinel,
    start_single,
    stop_shared,
)
from tests.relay import Relay

TITLE = "Outages of Redis under load: 300 requests a second, two replicas"

RESULTS: Final = Path(__file__).resolve().parents[3] / "build" / "bench"
WARM_S: Final = 2.5
"""What was sent before is not measured: connections and caches are new."""
AT_S: Final = 7.2
"""In the middle of a window, when the limits are used up: the worst moment."""
SHAKING: Final = (3.0, 12.0)
"""From when to when what shakes goes on."""


@dataclass(slots=True)
class Disturbance:
    """What is done to Redis, and when, in seconds of the load.

    Attributes:
        lost_s: Redis has lost all that it had counted until then.
    """

    redis: Deployment
    load: Load
    from_s: float = 0.0
    until_s: float = 0.0
    lost_s: float = 0.0


Disturb = Callable[[Disturbance], Awaitable[None]]


class _Relayed(Deployment):
    """A Redis behind a relay that can be slow. What is asked here goes to Redis itself."""

    def __init__(self, redis: Deployment) -> None:
        self.relay = Relay(redis.primary.port).start()
        super().__init__(redis.servers, [], f"redis://127.0.0.1:{self.relay.port}")

    def stop(self) -> None:
        self.relay.stop()
        super().stop()


def _start_relayed(folder: Path) -> Deployment:
    return _Relayed(start_single(folder))


async def _kill(it: Disturbance, away_s: float = 2) -> None:
    server = it.redis.primary
    await it.load.wait_until(AT_S)
    it.from_s = it.load.now_s
    await asyncio.to_thread(server.kill)
    it.lost_s = it.load.now_s
    await it.load.wait_until(AT_S + away_s)
    await asyncio.to_thread(server.start)
    it.until_s = it.load.now_s


async def _restart(it: Disturbance) -> None:
    await _kill(it, away_s=0)


async def _hang(it: Disturbance) -> None:
    await it.load.wait_until(AT_S)
    it.from_s = it.load.now_s
    it.redis.primary.signal(signal.SIGSTOP)
    try:
        await it.load.wait_until(AT_S + 3)
    finally:
        it.redis.primary.signal(signal.SIGCONT)
    it.until_s = it.load.now_s


async def _slow_down(it: Disturbance) -> None:
    assert isinstance(it.redis, _Relayed)
    await it.load.wait_until(AT_S)
    it.from_s = it.load.now_s
    it.redis.relay.delay_s = 2.5
    await it.load.wait_until(AT_S + 4)
    it.redis.relay.delay_s = 0.0
    it.until_s = it.load.now_s


async def _fail_over(it: Disturbance) -> None:
    primary, replica = it.redis.servers
    await it.load.wait_until(AT_S)
    it.from_s = it.load.now_s
    await asyncio.to_thread(primary.kill)
    it.redis.servers = [replica]
    async with asyncio.timeout(30):
        while (await asyncio.to_thread(replica.ask, "ROLE"))[0] != b"master":
            await let_pass(0.02)
    it.until_s = it.load.now_s


async def _move_slots(it: Disturbance) -> None:
    await it.load.wait_until(SHAKING[0])
    it.from_s = it.load.now_s
    while it.load.now_s < SHAKING[1]:
        for slot in await asyncio.to_thread(_find_slots, it.redis):
            source, target = await asyncio.to_thread(_begin_move, it.redis, slot)
            await let_pass(0.15)  # the slot is on its way
            await asyncio.to_thread(_end_move, it.redis, slot, source, target)
    it.until_s = it.load.now_s


async def _hang_up(it: Disturbance) -> None:
    await it.load.wait_until(SHAKING[0])
    it.from_s = it.load.now_s
    while it.load.now_s < SHAKING[1]:
        await asyncio.to_thread(it.redis.primary.ask, "CLIENT", "KILL", "TYPE", "normal")
        await let_pass(0.2)
    it.until_s = it.load.now_s


def _find_slots(redis: Deployment) -> list[int]:
    """The slots in which something is counted."""
    keys = [key for server in redis.servers for key in server.ask("KEYS", "*")]
    return sorted({int(redis.primary.ask("CLUSTER", "KEYSLOT", key)) for key in keys})


def _begin_move(redis: Deployment, slot: int) -> tuple[RedisServer, RedisServer]:
    """Says that a slot moves to the next node; gives who holds it, and who is to get it."""
    holders = {
        port
        for first, last, (_, port, *_), *_replicas in redis.primary.ask("CLUSTER", "SLOTS")
        if first <= slot <= last
    }
    (number,) = [n for n, server in enumerate(redis.servers) if server.port in holders]
    source, target = redis.servers[number], redis.servers[(number + 1) % len(redis.servers)]
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", _id_of(source))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", _id_of(target))
    return source, target


def _end_move(redis: Deployment, slot: int, source: RedisServer, target: RedisServer) -> None:
    while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    others = [server for server in redis.servers if server not in (source, target)]
    for server in (target, source, *others):
        server.ask("CLUSTER", "SETSLOT", slot, "NODE", _id_of(target))


def _id_of(server: RedisServer) -> str:
    return bytes(server.ask("CLUSTER", "MYID")).decode()


SCENARIOS: Final[dict[str, tuple[Callable[[Path], Deployment], Disturb]]] = {
    "killed, back after 2 s": (start_single, _kill),
    "killed, back at once": (start_single, _restart),
    "hangs for 3 s": (start_single, _hang),
    "answers 2.5 s late, for 4 s": (_start_relayed, _slow_down),
    "Sentinel failover": (start_sentinel, _fail_over),
    "cluster slots move": (start_cluster, _move_slots),
    "hung up every 200 ms": (start_single, _hang_up),
}


def measure() -> Iterator[Row]:
    """A row for each disturbance and outage mode."""
    kept = []
    for title, (start, disturb) in SCENARIOS.items():
        print(f"  {title} …", file=sys.stderr, flush=True)
        it, counted = uvloop.run(_run(start, disturb))
        kept.append(_keep(title, it))
        for mode in MODES:
            row = _write_row(title, mode, it, counted[f"{mode}-all"])
            print(f"    {row}", file=sys.stderr, flush=True)
            yield row
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / "chaos.json").write_text(json.dumps(kept))


async def _run(
    start: Callable[[Path], Deployment], disturb: Disturb
) -> tuple[Disturbance, dict[str, int]]:
    """What happened, and what Redis has counted in the end of those of whom all is counted."""
    with tempfile.TemporaryDirectory(prefix="chaos-") as name:
        folder = Path(name)
        redis = await asyncio.to_thread(start, folder)
        try:
            async with run_replicas(folder, redis.url) as replicas:
                it = Disturbance(redis, Load(replicas))
                await it.load.run(lambda: disturb(it))
            return it, {f"{mode}-all": _read_count(redis, f"{mode}-all") for mode in MODES}
        finally:
            redis.stop()
            stop_shared()


def _read_count(redis: Deployment, consumer: str) -> int:
    values = [
        server.ask("GET", key)
        for server in redis.servers
        if server.ask("ROLE")[0] == b"master"
        for key in server.ask("KEYS", f"*:{consumer}}}*fixed_window*")
    ]
    return sum(int(value.split()[1]) for value in values)


def _write_row(title: str, mode: str, it: Disturbance, counted: int) -> Row:
    samples = [sample for sample in it.load.samples if sample.consumer.removesuffix("-all") == mode]
    took_ms = sorted(1000 * sample.took_s for sample in samples if sample.sent_s >= WARM_S)
    statuses = Counter(sample.status for sample in samples)
    if odd := statuses.keys() - {200, 429, 503, 504}:
        raise RuntimeError(f"{title}: answers with {odd}, which nothing here should give")
    windows = Counter(
        int(sample.sent_s // WINDOW_S)
        for sample in samples
        if sample.status == 200 and sample.consumer == mode and _is_within_window(sample)
    )
    admitted = [s for s in samples if s.status == 200 and s.consumer != mode]
    known = [s for s in admitted if s.sent_s + s.took_s >= it.lost_s]
    return {
        "what happens": title,
        "on_outage": mode,
        "decisions": len(samples),
        "longest (ms)": round(took_ms[-1], 1),
        "p99 (ms)": round(took_ms[len(took_ms) * 99 // 100], 1),
        "unavailable": statuses[503],
        "no answer": statuses[504],
        "worst window": max(windows.values()),
        "bound": LIMIT + (REPLICAS * -(-LIMIT // REPLICAS) if mode == "local" else 0),
        "back after (s)": round(max([0.0, *it.load.degraded_s]) - it.until_s, 2)
        if any(at_s > it.until_s for at_s in it.load.degraded_s)
        else 0.0,
        "admitted": len(known),
        "counted": counted,
        "MiB before": round(it.load.rss_mib[0], 1),
        "MiB after": round(it.load.rss_mib[1], 1),
    }


def _is_within_window(sample: Sample) -> bool:
    """False when it is not known which of two windows it was counted in."""
    return sample.sent_s // WINDOW_S == (sample.sent_s + sample.took_s) // WINDOW_S


def _keep(title: str, it: Disturbance) -> dict[str, object]:
    """For the plots."""
    samples: list[Sample] = it.load.samples
    return {
        "title": title,
        "from_s": it.from_s,
        "until_s": it.until_s,
        "degraded_s": it.load.degraded_s,
        "samples": [
            (s.consumer, round(s.sent_s, 4), round(1000 * s.took_s, 2), s.status) for s in samples
        ],
    }


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("chaos")))
