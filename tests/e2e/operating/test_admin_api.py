"""The admin API over several workers: one answer of all, live too, and what a dead one leaves."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from tests.child_processes import children_of
from tests.e2e.replicas import Replica, read_status, write_catalog
from tests.e2e.running import Deployment
from tests.e2e.serving.test_workers import LIMIT, RULES, WORKERS, ask, connect_to_all, running
from tests.redis_server import RedisServer

pytestmark = pytest.mark.e2e

ROUNDS: Final = 30
MOST_CALLS: Final = 100_000
SECRETS: Final = ("key-of-strict", "key-of-wide")


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with tempfile.TemporaryDirectory(prefix="admin-") as folder:
        server = RedisServer(Path(folder)).start()
        yield server
        server.kill()


def read_process(decision_id: str) -> str:
    """The part of an id that each process has of its own."""
    return decision_id.partition("-")[0]


def follow_until(replica: Replica, is_enough: Callable[[list[dict[str, Any]]], bool]) -> list[Any]:
    """Live denials, until there are enough of them."""
    records: list[dict[str, Any]] = []
    with replica.follow("?outcome=deny&application=strict") as stream:
        for line in stream.iter_lines():
            if line.startswith('data: {"time"'):
                records.append(json.loads(line.removeprefix("data: ")))
                if is_enough(records):
                    break
    return records


def count_denials(replica: Replica) -> int:
    groups = replica.read_api("/api/denials")["groups"]
    return sum(it["count"] for it in groups if it["application"] == "strict")


def test_workers_answer_together(
    deployment: Deployment, server: RedisServer, tmp_path: Path
) -> None:
    catalog = tmp_path / "catalog.yaml"
    write_catalog(catalog, RULES)
    with (
        running(deployment, server, catalog) as replica,
        ExitStack() as stack,
        ThreadPoolExecutor(1) as pool,
    ):
        status = replica.read_api("/api/status")
        assert status["workers"] == {"serving": WORKERS, "wanted": WORKERS, "restarts": 0}
        states = {it["name"]: it["state"] for it in status["dependencies"]}
        assert states["redis"] == "ok"
        channels = connect_to_all(stack, replica)

        def of_all(records: list[dict[str, Any]]) -> bool:
            return len({read_process(it["decision"]) for it in records}) == WORKERS

        following = pool.submit(follow_until, replica, of_all)
        statuses: list[int] = []
        while len(statuses) < LIMIT + ROUNDS * len(channels) or not following.done():
            calls = [ask(channel, name) for channel in channels for name in ("strict", "wide")]
            statuses += [read_status(call.result()) for call in calls]
            assert len(statuses) < MOST_CALLS, "a worker's decisions do not come live"
        live = following.result()
        assert {(it["outcome"], it["reason"]) for it in live} == {("deny", "rate_limited")}
        denied = statuses.count(429)
        assert count_denials(replica) == denied

        def all_are_counted() -> bool:
            series = replica.read_api("/api/rates")["series"]
            sums = {(it["outcome"], it["reason"]): sum(it["counts"]) for it in series}
            return sums == {
                ("allow", ""): statuses.count(200),
                ("deny", "rate_limited"): denied,
            }

        replica.wait_until(all_are_counted, "the step ends")
        before = replica.read_api("/api/decisions?limit=1000")
        assert {read_process(it["decision"]) for it in before["decisions"]} >= {
            read_process(it["decision"]) for it in live
        }
        times = [it["time"] for it in before["decisions"]]
        assert times == sorted(times, reverse=True)
        assert not [it for it in SECRETS if it in json.dumps([before, live])]
        # What a worker that is killed had seen is gone, and the answer says since when all is there.
        os.kill(min(children_of(replica.process.pid)), signal.SIGKILL)

        def is_replaced() -> bool:
            workers = replica.read_api("/api/status")["workers"]
            return bool(workers == {"serving": WORKERS, "wanted": WORKERS, "restarts": 1})

        replica.wait_until(is_replaced, "the worker is started again")
        after = replica.read_api("/api/decisions?limit=1000")
        assert (after["processes"], before["processes"]) == (WORKERS, WORKERS)
        assert after["since"] > before["since"]
        assert 0 < count_denials(replica) < denied
