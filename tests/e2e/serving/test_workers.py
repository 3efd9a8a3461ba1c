"""Several workers behind one port: they count together, and one that dies is replaced."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import grpc
import httpx2
import pytest
import yaml

from extauthz.http_check.answer import Asker
from extauthz.serving.workers.private_folder import PrivateFolder
from tests.child_processes import children_of, is_running
from tests.e2e.doors.both_doors import Asked
from tests.e2e.doors.http_door import ask_http
from tests.e2e.load import steady_load
from tests.e2e.replicas import (
    CHECK,
    DECADE,
    Replica,
    read_status,
    run_replica,
    write_catalog,
    write_check,
)
from tests.e2e.running import Deployment
from tests.e2e.serving.test_start import CATALOG, problems_of, run, write
from tests.e2e.world import World
from tests.free_ports import find_free_port
from tests.redis_server import RedisServer

pytestmark = pytest.mark.e2e

LIMIT: Final = 100
AT_ONCE: Final = 10
"""Calls on one connection. Envoy sheds what is too much for a worker that has just started."""
WORKERS: Final = 2
TURN_S: Final = 60
MAX_CHANNELS: Final = 200
"""So many connections do not all go to one of two workers."""
PATIENT: Final = {"timeout": "20s"}
OPEN: Final = "/world/1.0.0/open"
RULES: Final = {
    "strict": {"limits": [{"requests": LIMIT, "per": DECADE}]},
    "wide": {"limits": [{"requests": 10**9, "per": DECADE}]},
}


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="workers-") as folder:
        server = RedisServer(Path(folder)).start()
        yield server
        server.kill()


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    file = tmp_path / "catalog.yaml"
    write_catalog(file, RULES)
    return file


@contextmanager
def running(
    deployment: Deployment, server: RedisServer, *catalog: Path, **settings: Any
) -> Iterator[Replica]:
    """A service with workers, once all of them serve."""
    url = f"redis://127.0.0.1:{server.port}"
    # Each test counts from the beginning.
    counters = {"url": url, "prefix": f"{secrets.token_hex(8)}:", **PATIENT}
    of_server = {"workers": WORKERS, **settings}
    with run_replica(deployment, catalog, counters, server=of_server) as replica:
        replica.wait_until_it_says("ready")
        yield replica


def serves(process_id: int, port: int) -> bool:
    """Whether the process has a connection that came to the port."""
    inodes = set()
    # gRPC's core listens with sockets of IPv6, which take IPv4 too.
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{process_id}/net/{family}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].partition(":")[2], 16) == port and fields[3] == "01":
                inodes.add(f"socket:[{fields[9]}]")
    for entry in Path(f"/proc/{process_id}/fd").iterdir():
        with suppress(FileNotFoundError):
            if str(entry.readlink()) in inodes:
                return True
    return False


def connect_to_all(stack: ExitStack, replica: Replica) -> list[grpc.Channel]:
    """Connections, one of them at least to each worker: the kernel chooses for each."""
    workers = children_of(replica.process.pid)
    port = int(replica.grpc_address.rpartition(":")[2])
    options = [("grpc.enable_http_proxy", 0), ("grpc.use_local_subchannel_pool", 1)]
    channels: list[grpc.Channel] = []
    while not channels or not all(serves(worker, port) for worker in workers):
        channel = stack.enter_context(grpc.insecure_channel(replica.grpc_address, options))
        grpc.channel_ready_future(channel).result(TURN_S)
        channels.append(channel)
        assert len(channels) < MAX_CHANNELS, "a worker gets no connections"
    return channels


def ask(channel: grpc.Channel, consumer: str) -> Any:
    """Begins one decision."""
    check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
    return check.future(write_check(consumer), timeout=TURN_S)


def test_questions_are_answered_for_all_workers(
    deployment: Deployment, server: RedisServer, catalog: Path, tmp_path: Path
) -> None:
    token = secrets.token_hex(16)
    (tmp_path / "tokens").write_text(f"{token}\n")
    url = f"redis://127.0.0.1:{server.port}"
    counters = {"url": url, "prefix": f"{secrets.token_hex(8)}:", **PATIENT}
    admin = {"token_file": str(tmp_path / "tokens")}
    workers = {"workers": WORKERS}
    as_strict = {"api": "Counted", "as": {"application": "strict"}}
    with (
        run_replica(deployment, (catalog,), counters, server=workers, admin=admin) as replica,
        ExitStack() as stack,
    ):
        replica.wait_until_it_says("ready")
        http = replica.admin
        http.headers["authorization"] = f"Bearer {token}"
        channels = connect_to_all(stack, replica)
        for call in [ask(channel, "strict") for channel in channels]:
            assert read_status(call.result()) == 200
        limits = http.get("/api/limits?application=strict").json()
        (row,) = limits["limits"]
        assert (row["used"], row["limit"], row["counted"]) == (len(channels), LIMIT, "shared")
        assert limits["processes"] == WORKERS
        explained = http.post("/api/explain", json=as_strict).json()
        left = LIMIT - len(channels)
        assert f"{left} left of {LIMIT}" in explained["steps"][-1]["found"]
        found = http.get("/api/catalog?search=strict&kind=application").json()["results"]
        assert [it["name"] for it in found] == ["strict"]
        blocked = http.post("/api/blocks", json={"application": "strict"}).json()
        assert (blocked["processes"], blocked["in_force"]) == (WORKERS, WORKERS)
        for channel in channels:
            assert read_status(ask(channel, "strict").result()) == 403
        assert http.post("/api/explain", json=as_strict).json()["reason"] == "blocked"
        assert [it["by"][:6] for it in http.get("/api/blocks").json()["blocks"]] == ["token "]
        gone = http.delete(f"/api/blocks/{blocked['id']}").json()
        assert (gone["removed"], gone["taken_from"]) == (True, ["redis"])
        again = http.get("/api/limits?application=strict").json()["limits"]
        assert [it["used"] for it in again] == [len(channels)], "a question takes something"


def test_workers_count_a_limit_together(
    deployment: Deployment, server: RedisServer, catalog: Path
) -> None:
    with running(deployment, server, catalog) as replica, ExitStack() as stack:
        channels = connect_to_all(stack, replica)
        statuses = []
        for _ in range(LIMIT // AT_ONCE):
            calls = [ask(channel, "strict") for _ in range(AT_ONCE) for channel in channels]
            statuses += [read_status(call.result()) for call in calls]
        assert statuses.count(200) == LIMIT
        assert statuses.count(429) == (len(channels) - 1) * LIMIT
        decided = sum(
            float(line.rpartition(" ")[2])
            for line in replica.read_metrics().splitlines()
            if line.startswith("extauthz_decisions_total{")
        )
        assert decided == len(statuses)
        assert replica.read_metric("extauthz_workers") == WORKERS
        assert replica.read_metric("extauthz_counters_failures_total") == 0
        # What is added up, what is not, and each family once: a scrape with one twice fails.
        assert replica.read_metric('extauthz_queue_capacity{queue="redis"}') == WORKERS * 10_000
        assert replica.read_metric('extauthz_catalog_entries{kind="applications"}') > 0
        families = re.findall(r"^# TYPE (\S+)", replica.read_metrics(), re.MULTILINE)
        assert len(set(families)) == len(families)
        assert {"extauthz_build_info", "process_cpu_seconds_total"} <= set(families)


def test_workers_share_the_port_for_checks_over_http(
    deployment: Deployment, server: RedisServer, world: World
) -> None:
    http = f"127.0.0.1:{find_free_port()}"
    port = int(http.rpartition(":")[2])
    counters = {
        "store": "redis",
        "url": f"redis://127.0.0.1:{server.port}",
        "prefix": f"{secrets.token_hex(8)}:",
        **PATIENT,
    }
    settings = {
        "listen": {"http": http},
        "server": {"workers": WORKERS},
        "counters": counters,
        "credentials": {"trusted_hops": 0},
    }
    headers = (("x-api-key", world.keys["counted"]),)
    asked = Asked(path=OPEN, headers=headers, client="192.0.2.77")
    with deployment.run_service("workers-over-http", settings) as service, ExitStack() as stack:
        waiting = children_of(service.process.pid)
        assert len(waiting) == WORKERS
        connections = 0
        while waiting:  # the kernel chooses a worker for each connection
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            connections += 1
            assert connections < MAX_CHANNELS, "a worker gets no connections"
            waiting = {worker for worker in waiting if not serves(worker, port)}
        statuses = [ask_http(http, asked, Asker.FORWARD_AUTH).status for _ in range(20)]
        assert (statuses.count(200), statuses.count(429)) == (1, 19)


async def test_a_worker_that_is_killed_under_load_is_replaced(
    deployment: Deployment, server: RedisServer, world: World
) -> None:
    with (
        running(deployment, server, world.catalog) as replica,
        deployment.run_gateway(replica.grpc_address) as gateway,
    ):
        before = children_of(replica.process.pid)
        assert len(before) == WORKERS
        async with steady_load(gateway, OPEN, {"x-api-key": world.keys["mobile"]}) as load:
            await load.wait_for_more(100)
            assert load.statuses == {200}
            port = int(replica.grpc_address.rpartition(":")[2])
            victim = next(worker for worker in before if serves(worker, port))
            counted = replica.read_metric(ALLOWED)
            os.kill(victim, signal.SIGKILL)
            await load.wait_for(
                lambda: replica.read_metric("extauthz_worker_restarts_total") == 1, "a restart"
            )
            assert (await asyncio.to_thread(replica.read_readiness))[:2] == (200, "ready")
            known = len(load.answers)
            await load.wait_for_more(200)
            assert {answer.status for answer in load.answers[known + 50 :]} == {200}
            # What the dead worker had counted is still in the sum.
            assert replica.read_metric(ALLOWED) > counted
        assert load.statuses <= {200, 503}
        after = children_of(replica.process.pid)
        assert victim not in after and len(after) == WORKERS
    log = replica.log_file.read_text()
    assert "signal 9" in log and "it is started again in 0 s" in log


ALLOWED: Final = 'extauthz_decisions_total{api="World",level="",outcome="allow",reason="",rule=""}'


def test_a_new_catalog_reaches_every_worker_at_sighup(
    deployment: Deployment, server: RedisServer, catalog: Path
) -> None:
    with running(deployment, server, catalog) as replica, ExitStack() as stack:
        channels = connect_to_all(stack, replica)
        assert {read_status(ask(channel, "late").result()) for channel in channels} == {401}
        write_catalog(catalog, {**RULES, "late": RULES["wide"]})
        replica.process.send_signal(signal.SIGHUP)
        replica.wait_until(
            lambda: {read_status(ask(channel, "late").result()) for channel in channels} == {200},
            "every worker has the new catalog",
        )


def test_calls_of_every_worker_are_answered_when_it_is_told_to_stop(
    deployment: Deployment, server: RedisServer, world: World
) -> None:
    with (
        running(deployment, server, world.catalog) as replica,
        ExitStack() as stack,
    ):
        gateways = [
            stack.enter_context(deployment.run_gateway(replica.grpc_address)) for _ in range(2)
        ]
        workers = children_of(replica.process.pid)
        threads = stack.enter_context(ThreadPoolExecutor(max_workers=8))
        tokens = [world.make_opaque() for _ in range(8)]
        world.introspection.hold(*tokens)
        calls = [
            threads.submit(
                gateways[number % 2].call, "POST", OPEN, {"authorization": f"Bearer {token}"}
            )
            for number, token in enumerate(tokens)
        ]
        world.introspection.wait_until_asked(len(tokens))
        replica.process.send_signal(signal.SIGTERM)
        replica.wait_until(
            lambda: "stopping" in replica.log_file.read_text(), "it has heard the signal"
        )
        world.introspection.release()
        assert [call.result(TURN_S).status_code for call in calls] == [200] * len(tokens)
        assert replica.process.wait(TURN_S) == 0
        assert not any(map(is_running, workers))


def test_a_worker_that_cannot_come_back_leaves_the_rest_degraded(
    deployment: Deployment, server: RedisServer, catalog: Path
) -> None:
    good = catalog.read_text()
    with running(deployment, server, catalog) as replica:
        catalog.write_text("apis: [\n")
        os.kill(min(children_of(replica.process.pid)), signal.SIGKILL)
        replica.wait_until(
            lambda: "could not be started" in replica.log_file.read_text(), "a start has failed"
        )
        assert replica.read_readiness()[:2] == (200, "degraded")
        assert replica.ask("wide") == 200
        catalog.write_text(good)
        replica.wait_until_it_says("ready")


def write_settings(folder: Path, server: RedisServer, **sections: Any) -> None:
    tree = {
        "listen": {"grpc": f"127.0.0.1:{find_free_port()}"},
        "catalog": {"files": ["catalog"]},
        "counters": {"store": "redis", "url": f"redis://127.0.0.1:{server.port}"},
        "server": {"workers": WORKERS},
        **sections,
    }
    write(folder / "extauthz.yaml", tree)
    (folder / "catalog").mkdir(exist_ok=True)
    write(folder / "catalog" / "apis.yaml", CATALOG)


def test_nothing_is_left_when_the_supervisor_is_killed(
    server: RedisServer,
    tmp_path: Path,
    temporary: Path,
    host: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    admin = f"127.0.0.1:{find_free_port()}"
    address = f"127.0.0.1:{find_free_port()}"
    write_settings(tmp_path, server, listen={"grpc": address, "admin": admin})
    process = subprocess.Popen(
        [sys.executable, "-m", "extauthz", "serve", "--host", host],
        cwd=tmp_path,
        env={
            **os.environ,
            "TMPDIR": str(temporary),
            "PYTHONPATH": str(Path(__file__).parents[3]),
        },
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx2.Client(base_url=f"http://{admin}", timeout=TURN_S, trust_env=False) as http:
            wait_for(process, lambda: is_ready(http))
        workers = children_of(process.pid)
        assert len(workers) == WORKERS
    finally:
        process.kill()
        process.wait()
    until = subprocess.Popen(["sleep", str(TURN_S)])
    try:
        wait_for(until, lambda: not any(map(is_running, workers)))
    finally:
        until.kill()
        until.wait()
    # A worker that had no time to tidy up leaves its folder to the next start.
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    PrivateFolder().remove()
    assert list(temporary.iterdir()) == []


def is_ready(http: httpx2.Client) -> bool:
    try:
        return bool(http.get("/readyz").json()["status"] == "ready")
    except httpx2.TransportError:
        return False


def wait_for(process: subprocess.Popen[bytes], happened: Callable[[], bool]) -> None:
    """Looks each moment whether something has happened, while the process runs."""
    while not happened():
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
            raise AssertionError("the process ended before")


def test_a_start_that_fails_says_why_once(server: RedisServer, tmp_path: Path, host: str) -> None:
    write_settings(tmp_path, server)
    (tmp_path / "catalog" / "apis.yaml").write_text("apis: [\n")
    (problem,) = problems_of(run("serve", "--host", host, folder=tmp_path))
    assert "apis.yaml:1" in problem or "apis.yaml:2" in problem


def test_a_port_that_is_taken_is_named(server: RedisServer, tmp_path: Path, host: str) -> None:
    write_settings(tmp_path, server, listen={"grpc": f"127.0.0.1:{server.port}"})
    (problem,) = problems_of(run("serve", "--host", host, folder=tmp_path))
    assert problem.startswith(f"extauthz: 127.0.0.1:{server.port}: cannot be listened on")


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"counters": {"store": "memory"}}, "counters.store: memory counts in one process"),
        ({"listen": {"grpc": "unix:/run/s"}}, "listen.grpc: workers cannot share a unix socket"),
    ],
)
def test_what_workers_cannot_share_is_refused(
    sections: dict[str, Any], words: str, server: RedisServer, tmp_path: Path
) -> None:
    write_settings(tmp_path, server, **sections)
    (problem,) = problems_of(run("serve", folder=tmp_path))
    assert words in problem
    tree = yaml.safe_load((tmp_path / "extauthz.yaml").read_text())
    write(tmp_path / "extauthz.yaml", {**tree, "server": {}})
    (problem,) = problems_of(run("serve", "--workers", "2", folder=tmp_path))
    assert problem.startswith(words)
