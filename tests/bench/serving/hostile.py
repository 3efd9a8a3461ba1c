"""Hostile callers: what becomes of everybody else's requests, 100 a second, on both hosts.

Run with ``python -m tests.bench.serving.hostile``. The service (limits in memory, 1,500 counters at most)
has one processor, everything else the others. For each hostile caller it is started anew; then a
victim asks it over gRPC at a fixed rate, with Envoy's usual deadline of 200 ms, counted from when a
request was due. Half of the victim's requests are good and from another consumer each, half have no
key: *right* is an allow for the ones and 401 for the others. On a machine that is busy
with others the first row, with no hostile caller, shows what it takes away.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Final

import grpc
import yaml

from extauthz.demo.ports import find_free_port
from extauthz.demo.processes import run_extauthz
from extauthz.envoy.proto.ext_authz_pb2 import CheckResponse
from tests.bench.pace import let_pass
from tests.bench.serving.hostile_callers import CALLERS, DEADLINE_S, OPEN, SHOP, write_question
from tests.bench.serving.hosts import PATH
from tests.bench.serving.open_loop import read_quantile
from tests.bench.tables import Row

TITLE = "Hostile callers: a victim's requests, 100 a second"
HOSTS: Final = ("envoy", "grpcio")
NOBODY: Final = "nobody"
PER_S: Final = 100
SECONDS: Final = 8.0
AHEAD_S: Final = 2.0
"""How long the hostile caller is there before the victim."""
CONSUMERS: Final = round(PER_S * SECONDS / 2)
MAX_KEYS: Final = 1_500
_OK, _UNAUTHENTICATED = 0, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """One of the victim's requests.

    Attributes:
        took_s: from when it was due.
        failure: the status of a call that was not answered.
    """

    took_s: float
    is_right: bool = False
    failure: str = ""


def measure() -> list[Row]:
    """One row for each host and hostile caller."""
    return [asyncio.run(_measure(host, caller)) for host in HOSTS for caller in (NOBODY, *CALLERS)]


async def _measure(host: str, caller: str) -> Row:
    print(f"  {host}: {caller} …", file=sys.stderr, flush=True)
    async with _run_service(host) as address:
        begun = None
        if caller != NOBODY:
            begun = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.bench.serving.hostile_callers"),
                *(caller, address, str(AHEAD_S + SECONDS)),
                stdout=asyncio.subprocess.PIPE,
            )
            assert begun.stdout is not None
            await begun.stdout.readline()  # it is ready
            await let_pass(AHEAD_S)
        answered = await _ask(address)
        count = 0 if begun is None else int((await begun.communicate())[0])
    took_ms = [one.took_s * 1000 for one in answered if not one.failure]
    failures = [one.failure for one in answered if one.failure]
    return {
        "host": host,
        "hostile caller": caller,
        "begun": count,
        "asked": len(answered),
        "right, within 200 ms": sum(
            one.is_right and not one.failure and one.took_s <= DEADLINE_S for one in answered
        ),
        "wrong": sum(not one.is_right and not one.failure for one in answered),
        "not answered": len(failures),
        "as": ", ".join(sorted(set(failures))),
        "p50 ms": round(read_quantile(took_ms, 0.5), 1),
        "p99 ms": round(read_quantile(took_ms, 0.99), 1),
    }


async def _ask(address: str) -> Sequence[Answered]:
    """Asks at the fixed rate."""
    good = [
        write_question(SHOP, credential=("x-api-key", _key(number))) for number in range(CONSUMERS)
    ]
    bad = write_question(SHOP)
    async with grpc.aio.insecure_channel(address) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)
        await channel.channel_ready()

        async def ask(number: int, due_s: float) -> Answered:
            await let_pass(due_s - perf_counter())
            is_good = number % 2 == 0
            question = good[number // 2] if is_good else bad
            try:
                left_s = max(0.001, due_s + DEADLINE_S - perf_counter())
                raw = await check(question, timeout=left_s)
            except grpc.aio.AioRpcError as error:
                return Answered(took_s=perf_counter() - due_s, failure=error.code().name)
            code = CheckResponse.FromString(raw).status.code
            return Answered(
                took_s=perf_counter() - due_s,
                is_right=code == (_OK if is_good else _UNAUTHENTICATED),
            )

        began_s = perf_counter() + 0.1
        return await asyncio.gather(
            *(ask(number, began_s + number / PER_S) for number in range(2 * CONSUMERS))
        )


@asynccontextmanager
async def _run_service(host: str) -> AsyncIterator[str]:
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hostile-")))
        address = f"127.0.0.1:{find_free_port()}"
        _write_catalog(folder)
        settings = {
            "listen": {"grpc": address},
            "server": {"host": host},
            "catalog": {"files": ["catalog.yaml"]},
            "counters": {"store": "memory", "max_keys": MAX_KEYS},
            "credentials": {
                "api_key": [{"header": "x-api-key"}, {"query": "apikey"}, {"cookie": "apikey"}],
                "trusted_hops": 1,
            },
            "log": {"level": "error"},
        }
        (folder / "extauthz.yaml").write_text(yaml.safe_dump(settings))
        processors = sorted(os.sched_getaffinity(0))
        stack.callback(os.sched_setaffinity, 0, processors)
        os.sched_setaffinity(0, processors[:1])  # those that it starts have it, too
        stack.enter_context(run_extauthz(folder / "extauthz.yaml", address, folder / "log"))
        os.sched_setaffinity(0, processors[1:] or processors)
        yield address


def _write_catalog(folder: Path) -> None:
    limit = {"limits": [{"requests": 1_000_000, "per": "1m"}]}
    names = [f"consumer-{number}" for number in range(CONSUMERS)]
    catalog = {
        "apis": [
            _api("Shop", SHOP, security=["api_key"]),
            _api("Open", OPEN, security=["none"]),
        ],
        "tiers": {"Gold": limit, "Unauthenticated": limit, "PerTenant": limit},
        "custom_limits": [
            {"name": "by-tenant", "key": "$header.x-tenant", "tier": "PerTenant"},
        ],
        "applications": [
            {
                "name": name,
                "api_keys": [{"sha256": hashlib.sha256(_key(number).encode()).hexdigest()}],
            }
            for number, name in enumerate(names)
        ],
        "subscriptions": [
            {"application": name, "api": "Shop", "version": "v1", "tier": "Gold"} for name in names
        ],
    }
    (folder / "catalog.yaml").write_text(yaml.safe_dump(catalog))


def _api(name: str, path: str, *, security: list[str]) -> dict[str, object]:
    base = path.rpartition("/things")[0]
    resources = [{"methods": ["GET"], "path": "/things/{id}"}]
    return {
        "name": name, "version": "v1", "context": base, "security": security,
        "resources": resources,
    }  # fmt: skip


def _key(number: int) -> str:
    return f"key-of-consumer-{number}"


if __name__ == "__main__":
    from tests.bench.tables import run, write_table

    print(write_table(run("hostile")))
