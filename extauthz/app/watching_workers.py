"""Serves the readiness and the metrics of several workers together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from extauthz.app.admin.listener import running_admin
from extauthz.app.admin.processes import ANSWER_S, AskedWorkers
from extauthz.app.service import CHECKS, METRICS
from extauthz.serving.admin.readiness import ReadyCheck, ReadyState, find_worst, read_check
from extauthz.serving.workers.workers import Workers
from extauthz.settings.tree import Settings
from extauthz.telemetry import names
from extauthz.telemetry.metrics import CONTENT_TYPE, Metrics
from extauthz.telemetry.summed_metrics import SummedMetrics


@asynccontextmanager
async def watching_workers(settings: Settings, workers: Workers) -> AsyncIterator[None]:
    """Serves the admin listener for all workers until the block ends.

    Raises:
        ListenError: the address cannot be listened on.
        ConfigError: a file that the settings name cannot be used.
    """
    own, process, summed = make_worker_metrics(workers), Metrics(), SummedMetrics()
    process.show_process()

    async def list_checks() -> Sequence[ReadyCheck]:
        answers = await workers.ask(CHECKS, within_s=ANSWER_S)
        return [judge_workers(workers), *merge_checks(answers.values())]

    async def write_metrics() -> tuple[bytes, str]:
        answers = await workers.ask(METRICS, within_s=ANSWER_S)
        # This process is one of them, under a serial number that no worker has.
        summed.update({0: process.write(), **answers}, {0, *workers.serials})
        return own.write() + summed.write(), CONTENT_TYPE

    asked = AskedWorkers(workers)
    async with running_admin(settings, asked, checks=list_checks, metrics=write_metrics):
        yield


def make_worker_metrics(workers: Workers) -> Metrics:
    """The metrics of this process: the numbers of workers and of restarts."""
    metrics = Metrics()
    metrics.gauge(names.WORKERS, "Workers that serve.", lambda: len(workers.serials))
    metrics.count(
        names.WORKER_RESTARTS, "Workers that were started again.", lambda: workers.restarts
    )
    return metrics


def judge_workers(workers: Workers) -> ReadyCheck:
    """Ready when all serve, degraded when some do."""
    serving = len(workers.serials)
    if serving == 0 or not workers.addresses:
        state = ReadyState.NOT_READY
    else:
        state = ReadyState.READY if serving == workers.wanted else ReadyState.DEGRADED
    facts = {"serving": serving, "wanted": workers.wanted, "restarts": workers.restarts}
    return ReadyCheck(name="workers", state=state, facts=facts)


def merge_checks(answers: Iterable[Sequence[Mapping[str, Any]]]) -> list[ReadyCheck]:
    """For each check, the worst answer of all workers."""
    by_name: dict[str, list[ReadyCheck]] = {}
    for answer in answers:
        for written in answer:
            check = read_check(written)
            by_name.setdefault(check.name, []).append(check)
    return [find_worst(checks) for checks in by_name.values()]
