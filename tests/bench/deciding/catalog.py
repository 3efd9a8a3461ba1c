"""What a catalog costs at scale: to load, to hold, to decide by, and to replace under load.

Run with ``python -m tests.bench.deciding.catalog``; ``--scale 0.01`` makes it a hundredth as large. At its
full size it reads the catalog six times: that takes more than four minutes, and several times as
long on a busy machine. The figures of JSON are printed before those of YAML are measured.

A catalog of 10,000 APIs with 20 resources each, 100,000 applications and 1,000,000 subscriptions is
written in several files, once in JSON and once in YAML. It is loaded, decides at a steady rate,
and is replaced by a changed one meanwhile. A heartbeat that is due every millisecond shows how
long the event loop did nothing else. A machine that is busy with others delays it, too, and the
idle figure shows by how much; the processor time that this process spent in a gap, on all of its
threads, does not depend on others. That is what the service itself holds decisions up for:
whatever may keep Python's lock runs in this process, and is in it.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import multiprocessing
import random
import re
import resource
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter, perf_counter_ns, process_time, process_time_ns
from typing import Final

from extauthz.catalog.files.source import FileCatalogSource
from extauthz.catalog.refresh import CatalogRefresher
from extauthz.clients.introspection import IntrospectionClient
from extauthz.clients.issuer_http import IssuerHttp
from extauthz.clients.jwks import JwksKeySource
from extauthz.clock import SystemClock
from extauthz.counters.memory import MemoryCounterStore
from extauthz.envoy.authorization import AnswerStyle, AuthorizationService
from extauthz.model.catalog import Catalog
from extauthz.policy.authentication.authenticate import AuthenticationRules, Authenticator
from extauthz.policy.authentication.failed_attempts import FailedAttempts
from extauthz.policy.authentication.revocations import Revocations
from extauthz.policy.pipeline import Pipeline
from extauthz.policy.steps import PipelineRules
from extauthz.process import collector
from extauthz.serving.methods import Call
from tests.bench.deciding.core import make_check_request
from tests.bench.pace import let_pass
from tests.builders import sha256

TITLE = "A large catalog"
APIS: Final = 10_000
RESOURCES: Final = 20
APPLICATIONS: Final = 100_000
SUBSCRIPTIONS_EACH: Final = 10
"""Of each application."""
PER_FILE: Final = 250_000
"""Subscriptions in one file."""
RELOADS: Final = 2
IDLE_S: Final = 10.0
PER_SECOND: Final = 500
"""Decisions offered."""
DECISIONS: Final = 2_000
REPEATS: Final = 9
_BEGAN_S: Final = perf_counter()
_KEY: Final = re.compile(r'"(\w+)": ')


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure for each way to write the catalog, and what it should be."""

    figure: str
    json: float
    yaml: float
    goal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a catalog is."""

    apis: int
    applications: int

    def subscribed(self, application: int) -> Iterator[int]:
        """The APIs that an application is subscribed to."""
        step = max(1, self.apis // SUBSCRIPTIONS_EACH)
        for turn in range(min(SUBSCRIPTIONS_EACH, self.apis)):
            yield (application * 7 + turn * step) % self.apis


FEW: Final = Size(apis=10, applications=1)


def write_catalog(folder: Path, size: Size, kind: str) -> None:
    """Writes the catalog's files; `kind` is json or yaml."""
    _write(folder / f"apis.{kind}", "apis", (_make_api(number) for number in range(size.apis)))
    _write(
        folder / f"applications.{kind}",
        "applications",
        (_make_application(number) for number in range(size.applications)),
    )
    subscriptions = [
        (application, api)
        for application in range(size.applications)
        for api in size.subscribed(application)
    ]
    for start in range(0, len(subscriptions), PER_FILE):
        _write(
            folder / f"subscriptions-{start // PER_FILE}.{kind}",
            "subscriptions",
            (
                {"application": f"app{application}", "api": f"api{api}", "version": "1.0.0",
                 "tier": "Gold"}
                for application, api in subscriptions[start : start + PER_FILE]
            ),
        )  # fmt: skip
    write_edition(folder, size, kind, 0)


def write_edition(folder: Path, size: Size, kind: str, edition: int) -> None:
    """Writes what makes a catalog another one: its tier, and the resources of a new API."""
    tier = {"limits": [{"requests": 10**9 + edition, "per": "1m"}]}
    (folder / f"tiers.{kind}").write_text(json.dumps({"tiers": {"Gold": tier}}))
    _write(folder / f"newest.{kind}", "apis", [_make_api(size.apis + edition)])


def _make_api(number: int) -> dict[str, object]:
    resources = [
        {"methods": ["GET"], "path": f"/things{index}/{{id}}", "scopes": ["things:read"]}
        for index in range(RESOURCES)
    ]
    name = f"api{number}"
    return {"name": name, "version": "1.0.0", "context": f"/{name}", "resources": resources}


def _make_application(number: int) -> dict[str, object]:
    return {
        "name": f"app{number}",
        "owner": "alice",
        "api_keys": [{"sha256": sha256(f"key-{number}").hex()}],
        "consumer_keys": [{"id": f"client{number}", "issuer": "*"}],
    }


def _write(path: Path, key: str, rows: Iterable[object]) -> None:
    is_json = path.suffix == ".json"
    with path.open("w") as stream:
        stream.write(f'{{"{key}": [\n' if is_json else f"{key}:\n")
        for number, row in enumerate(rows):
            text = json.dumps(row)
            before = (",\n" if number else "") if is_json else "- "
            # A mapping in JSON is one in YAML, too; people write the keys without quotes.
            stream.write(before + (text if is_json else _KEY.sub(r"\1: ", text) + "\n"))
        if is_json:
            stream.write("\n]}\n")


@dataclass(slots=True)
class Gaps:
    """What a heartbeat and the decisions beside it saw."""

    longest_ms: float = 0.0
    longest_cpu_ms: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)

    def p99_ms(self) -> float:
        """Of the decisions."""
        return quantiles(self.latencies_ms, n=100)[98]


@asynccontextmanager
async def watching(service: AuthorizationService, requests: list[bytes]) -> AsyncIterator[Gaps]:
    """Beats and decides meanwhile. A decision's latency counts from when it was due."""
    gaps = Gaps()

    async def beat() -> None:
        while True:
            due, cpu = perf_counter() + 0.001, process_time()
            await let_pass(0.001)
            gaps.longest_ms = max(gaps.longest_ms, (perf_counter() - due) * 1000)
            gaps.longest_cpu_ms = max(gaps.longest_cpu_ms, (process_time() - cpu) * 1000)

    async def decide() -> None:
        due = perf_counter()
        for turn in range(sys.maxsize):
            due += 1 / PER_SECOND
            await let_pass(due - perf_counter())
            # Each request is a task of its own in the service: those that are late take turns, and
            # do not lengthen the gap that delayed them.
            await asyncio.sleep(0)
            await service.check(requests[turn % len(requests)], Call())
            gaps.latencies_ms.append((perf_counter() - due) * 1000)

    tasks = [asyncio.create_task(beat()), asyncio.create_task(decide())]
    try:
        yield gaps
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def make_service(catalog: Callable[[], Catalog], http: IssuerHttp) -> AuthorizationService:
    """All that decides, by the catalog of the moment."""
    clock = SystemClock()
    pipeline = Pipeline(
        catalog=catalog,
        authenticator=Authenticator(
            rules=AuthenticationRules(),
            keys=JwksKeySource(http, clock),
            introspector=IntrospectionClient(http, clock),
            revocations=Revocations(clock),
            failed_attempts=FailedAttempts(None, MemoryCounterStore(clock)),
            clock=clock,
        ),
        counters=MemoryCounterStore(clock),
        clock=clock,
        rules=PipelineRules(),
    )
    return AuthorizationService(decide=pipeline.decide, style=AnswerStyle(), clock=clock)


def make_requests(size: Size) -> list[bytes]:
    """A hundred, or as many as there are, of subscribed applications all over the catalog."""
    choose = random.Random(7)  # repeatable, not secret
    requests = []
    for turn in range(100):
        application = choose.randrange(size.applications)
        api = list(size.subscribed(application))[turn % min(SUBSCRIPTIONS_EACH, size.apis)]
        path = f"/api{api}/1.0.0/things7/4711"
        requests.append(make_check_request(path, ("x-api-key", f"key-{application}")))
    return requests


async def measure_kind(kind: str, size: Size, idle_s: float) -> dict[str, float]:
    """Every figure for one way to write the catalog."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "catalog")
        few_folder = Path(name, "few")
        for place, its_size in ((folder, size), (few_folder, FEW)):
            place.mkdir()
            write_catalog(place, its_size, kind)
        gc.collect()
        figures = {"memory before, MiB": _read_memory_mib("VmRSS")}
        refresher = CatalogRefresher(FileCatalogSource([folder]), SystemClock())
        refresher.subscribe(lambda _: collector.keep_for_good())
        _say(f"{kind}: loading")
        began = perf_counter()
        await refresher.start()
        figures["loaded in, s"] = perf_counter() - began
        figures["memory with the catalog, MiB"] = _read_memory_mib("VmRSS")
        async with IssuerHttp() as http:
            service = make_service(lambda: refresher.catalog, http)
            few = await FileCatalogSource([few_folder]).load()
            figures |= await _compare(service, size, make_service(lambda: few, http))
            figures |= await _replace(service, refresher, folder, kind, size, idle_s)
        figures["memory, highest, MiB"] = _read_memory_mib("VmHWM")
        children_kib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        figures["memory of the reading process, highest, MiB"] = children_kib / 1024
        return figures


async def _compare(
    many: AuthorizationService, size: Size, few: AuthorizationService
) -> dict[str, float]:
    """CPU time of a decision by a small catalog and by the large one, in turn."""
    _say("deciding")
    services = {"few": (few, make_requests(FEW)), "many": (many, make_requests(size))}
    taken: dict[str, list[float]] = {name: [] for name in services}
    for repeat in range(REPEATS + 1):
        for name, (service, requests) in services.items():
            began_ns = process_time_ns()
            for turn in range(DECISIONS):
                await service.check(requests[turn % len(requests)], Call())
            if repeat:  # the first one warms up
                taken[name].append((process_time_ns() - began_ns) / DECISIONS / 1000)
    return {
        "decision, 10 APIs and 10 subscriptions, µs": median(taken["few"]),
        "decision, all APIs and subscriptions, µs": median(taken["many"]),
        "ratio of the two": median(
            large / small for large, small in zip(taken["many"], taken["few"], strict=True)
        ),
    }


async def _replace(
    service: AuthorizationService,
    refresher: CatalogRefresher,
    folder: Path,
    kind: str,
    size: Size,
    idle_s: float,
) -> dict[str, float]:
    requests = make_requests(size)
    _say("deciding, nothing is replaced")
    async with watching(service, requests) as idle:
        await let_pass(idle_s)
    took_s: list[float] = []
    async with watching(service, requests) as replacing:
        for edition in range(1, RELOADS + 1):
            _say(f"replacing, {edition} of {RELOADS}")
            await asyncio.to_thread(write_edition, folder, size, kind, edition)
            began_ns = perf_counter_ns()
            assert await refresher.reload()
            took_s.append((perf_counter_ns() - began_ns) / 1e9)
        await let_pass(2.0)  # the last one is let go of
    assert refresher.swaps == 1 + RELOADS
    return {
        "replaced in, s": median(took_s),
        "longest gap, idle, ms": idle.longest_ms,
        "longest gap, idle, ms of this process's CPU": idle.longest_cpu_ms,
        "longest gap, replacing, ms": replacing.longest_ms,
        "longest gap, replacing, ms of this process's CPU": replacing.longest_cpu_ms,
        "p99 of a decision, idle, ms": idle.p99_ms(),
        "p99 of a decision, replacing, ms": replacing.p99_ms(),
    }


GOALS: Final = {
    "loaded in, s": "<= 30",
    "memory with the catalog, MiB": "<= 1,430",
    "memory, highest, MiB": "<= 1,430",
    "memory of the reading process, highest, MiB": "<= 1,430",
    "longest gap, replacing, ms of this process's CPU": "<= 20",
    "ratio of the two": "<= 1.2",
}


def measure(*, scale: float = 1.0, idle_s: float = IDLE_S) -> list[Row]:
    """Every figure for JSON and for YAML, in processes of their own for their memory's sake."""
    size = Size(apis=max(10, round(APIS * scale)), applications=max(1, round(APPLICATIONS * scale)))
    kinds: dict[str, dict[str, float]] = {}
    for kind in ("json", "yaml"):
        kinds[kind] = run_kind(kind, size, idle_s)
        # What was measured is worth something if the rest does not end in time.
        for figure, value in kinds[kind].items():
            _say(f"{kind}: {figure}: {value:.2f}")
    return [
        Row(
            figure=figure,
            json=round(kinds["json"][figure], 2),
            yaml=round(kinds["yaml"][figure], 2),
            goal=GOALS.get(figure, ""),
        )
        for figure in kinds["json"]
    ]


def run_kind(kind: str, size: Size, idle_s: float) -> dict[str, float]:
    """Measures one kind in a fresh process."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=context) as process:
        return process.submit(_run_kind, kind, size, idle_s).result()


def _run_kind(kind: str, size: Size, idle_s: float) -> dict[str, float]:
    return asyncio.run(measure_kind(kind, size, idle_s))


def _read_memory_mib(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise LookupError(name)


def _say(what: str) -> None:
    print(f"  {perf_counter() - _BEGAN_S:.0f} s: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    from tests.bench.tables import Table, write_table

    parser = argparse.ArgumentParser(prog="python -m tests.bench.deciding.catalog")
    parser.add_argument("--scale", type=float, default=1.0, help="1 is the full size")
    parser.add_argument("--idle", type=float, default=IDLE_S, help="seconds without a reload")
    arguments = parser.parse_args()
    rows = measure(scale=arguments.scale, idle_s=arguments.idle)
    print(write_table(Table(name="catalog", title=TITLE, rows=list(map(asdict, rows)), took_s=0)))
