"""Each host around a handler that does nothing and around whole decisions, under h2load.

The server runs in a process of its own; h2load (Debian's nghttp2-client) sends framed
CheckRequests of 13 header fields over cleartext HTTP/2. Hosts and handlers take turns, many
times over, and so does compiled logic (docs/adr/0023) once `make test-compiled` or `make
bench-compiled` has built it; the medians stand in the table, and the ratios are those of the
medians. The handler that does nothing parses the request, as every authorizer does. Requests that
were not allowed, though nothing speaks against them, are counted in a column. The CPU is that of
the server's process alone, user and system, from /proc.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final, TypeAlias

import grpc
from cryptography.hazmat.primitives.asymmetric import rsa

from extauthz.clients.issuer_http import IssuerHttp
from extauthz.counters.redis.settings import RedisSettings, read_redis_url
from extauthz.counters.redis.store import RedisCounterStore
from extauthz.envoy.check_response import write_allow
from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest, CheckResponse
from extauthz.serving.door import Door, DoorListener, Host
from extauthz.serving.grpcio.host import GrpcioHost
from extauthz.serving.health import HealthState
from extauthz.serving.inside_envoy.asgi_life import OpenedDoors, make_app
from extauthz.serving.inside_envoy.grpc_wire import write_frame
from extauthz.serving.inside_envoy.host import EnvoyHost
from extauthz.serving.listen import read_listen_address
from extauthz.serving.load import Load
from extauthz.serving.methods import Call, Method, UnaryMethod
from tests.bench.builds import Build, list_builds
from tests.bench.deciding.core import Bench, make_catalog, make_check_request
from tests.bench.tables import Row
from tests.builders import API_KEY
from tests.redis_server import RedisServer, stop_shared

TITLE = "Hosts: requests a second and CPU of the server, by h2load"
PATH: Final = "/envoy.service.auth.v3.Authorization/Check"
HOSTS: Final = ("grpcio", "envoy")
HANDLERS: Final = ("null", "full", "redis")
"""Nothing; a whole decision with limits in memory; the same with limits in Redis."""
ALLOWED_PATH: Final = "/tests.bench.Hosts/Allowed"
"""A method that tells how many requests were allowed so far."""
REQUESTS: Final = {"grpcio": 5_000, "envoy": 20_000}
CONNECTIONS, STREAMS = 4, 16
REPEATS: Final = 5
Key: TypeAlias = tuple[str, str, str]
"""Logic, host, handler."""
Figures: TypeAlias = defaultdict[Key, list[float]]
ALLOWED: Final = write_allow()
_ALLOW: Final = ALLOWED[:2]
"""The tag of `status` and its length, which is 0 in an allow alone."""

_FINISHED: Final = re.compile(r"finished in .*?, ([\d.]+) req/s")
_SUCCEEDED: Final = re.compile(r"(\d+) succeeded")


@dataclass(frozen=True, slots=True)
class Server:
    """A host that runs in a process of its own."""

    address: str
    process_id: int


def measure() -> list[Row]:
    """One row for each build, host and handler."""
    return asyncio.run(_measure())


async def _measure() -> list[Row]:
    rates: Figures = defaultdict(list)
    costs_us: Figures = defaultdict(list)
    missing: Counter[Key] = Counter()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        stack.callback(stop_shared)
        redis_url = f"redis://127.0.0.1:{RedisServer(folder).start().port}"
        builds = list_builds()
        servers = {
            (build.logic, host, handler): await stack.enter_async_context(
                run_server(host, redis_url if handler == "redis" else handler, build)
            )
            for host in HOSTS
            for handler in HANDLERS
            for build in builds
        }
        body = folder / "body"
        body.write_bytes(write_frame(_question()))
        for repeat in range(REPEATS + 1):
            for key, server in servers.items():
                before_s, before = read_cpu_s(server.process_id), await _ask_allowed(server.address)
                rate = await _load(server, body, REQUESTS[key[1]])
                if repeat:  # the first one warms up
                    rates[key].append(rate)
                    cpu_s = read_cpu_s(server.process_id) - before_s
                    costs_us[key].append(cpu_s * 1e6 / REQUESTS[key[1]])
                    allowed = await _ask_allowed(server.address) - before
                    missing[key] += REQUESTS[key[1]] - allowed
    return [{**_write_row(key, rates, costs_us), "not allowed": missing[key]} for key in servers]


def _write_row(key: Key, rates: Figures, costs_us: Figures) -> Row:
    logic, host, handler = key
    rate, cost_us = median(rates[key]), median(costs_us[key])
    plain = costs_us.get(("Python", host, handler))
    return {
        "logic": logic,
        "host": host,
        "handler": handler,
        "requests/s": round(rate),
        "CPU of the server, us/request": round(cost_us, 1),
        "spread us": round(max(costs_us[key]) - min(costs_us[key]), 1),
        "requests/s, times grpcio": round(rate / median(rates[logic, "grpcio", handler]), 2),
        "CPU, times the null handler": round(cost_us / median(costs_us[logic, host, "null"]), 2),
        "CPU, times Python": None if plain is None else round(cost_us / median(plain), 2),
    }


async def _load(server: Server, body: Path, requests: int) -> float:
    """Requests a second."""
    process = await asyncio.create_subprocess_exec(
        "h2load",
        *("-n", str(requests), "-c", str(CONNECTIONS), "-m", str(STREAMS), "-d", str(body)),
        *("-H", "content-type: application/grpc", "-H", "te: trailers"),
        f"http://{server.address}{PATH}",
        stdout=asyncio.subprocess.PIPE,
    )
    out = (await process.communicate())[0].decode()
    finished, succeeded = _FINISHED.search(out), _SUCCEEDED.search(out)
    assert finished is not None and succeeded is not None, out
    assert int(succeeded[1]) == requests, out
    return float(finished[1])


def read_cpu_s(process_id: int) -> float:
    """What a process has used since its start, user and system, on all of its threads."""
    fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _question() -> bytes:
    return make_check_request("/api3/1.0.0/things7/4711", ("x-api-key", API_KEY))


# The server


@asynccontextmanager
async def run_server(host: str, handler: str, build: Build | None = None) -> AsyncIterator[Server]:
    """A host around a handler, in a process of its own.

    Args:
        handler: ``null``, ``full``, or the URL of a Redis for a whole decision that counts there.
        build: this checkout when left out.
    """
    build = build or list_builds()[0]
    process = await asyncio.create_subprocess_exec(
        *(build.python, "-m", "tests.bench.serving.hosts", host, handler),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=build.folder,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        address, process_id = (await process.stdout.readline()).decode().split()
        await _check_answer(address)
        yield Server(address, int(process_id))
    finally:
        process.stdin.close()
        await process.wait()


async def _check_answer(address: str) -> None:
    """A refusal would be quick, too."""
    async with grpc.aio.insecure_channel(address) as channel:
        check: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(PATH)
        answer = CheckResponse.FromString(await check(_question()))
    assert answer.status.code == 0, answer


async def _ask_allowed(address: str) -> int:
    async with grpc.aio.insecure_channel(address) as channel:
        ask: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(ALLOWED_PATH)
        return int(await ask(b""))


@asynccontextmanager
async def open_doors(handler: str) -> AsyncIterator[OpenedDoors]:
    """A door with the handler."""
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(IssuerHttp())
        counters = None
        if handler.startswith("redis:"):
            counters = RedisCounterStore(RedisSettings(address=read_redis_url(handler)))
            stack.push_async_callback(counters.close)
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        full = Bench(make_catalog(10, key), http, counters).service.method()
        method = _make_null_method() if handler == "null" else full
        door = Door(_count_allowed(method), health=HealthState(), load=Load())
        yield OpenedDoors(doors={"grpc": door})


def _count_allowed(check: UnaryMethod[Any, bytes]) -> tuple[Method, ...]:
    """The method, and one that tells how many of its answers were an allow."""
    statuses: Counter[bytes] = Counter()

    def encode(answer: bytes) -> bytes:
        statuses[answer[:2]] += 1
        return answer

    async def tell(_: bytes, __: Call) -> bytes:
        return str(statuses[_ALLOW]).encode()

    told = UnaryMethod(path=ALLOWED_PATH, decode=bytes, handle=tell, encode=bytes, exempt=True)
    return replace(check, encode=encode), told


def _make_null_method() -> UnaryMethod[Any, bytes]:
    async def answer(_: CheckRequest, __: Call) -> bytes:
        return ALLOWED

    return UnaryMethod(path=PATH, decode=CheckRequest.FromString, handle=answer, encode=bytes)


app = make_app(open_doors)


async def _serve(host: str, handler: str) -> None:
    listen = (DoorListener(door="grpc", addresses=(read_listen_address("127.0.0.1:0"),)),)
    async with AsyncExitStack() as stack:
        served: Host
        if host == "envoy":
            envoy = EnvoyHost("tests.bench.serving.hosts:app", listen, parameters=handler)
            served = envoy
        else:
            opened = await stack.enter_async_context(open_doors(handler))
            served, envoy = GrpcioHost(opened.doors, listen), None
        await served.start()
        process_id = os.getpid() if envoy is None else envoy.process_id
        print(served.addresses[0], process_id, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await served.stop(0)


if __name__ == "__main__":
    import uvloop

    uvloop.run(_serve(*sys.argv[1:]))
