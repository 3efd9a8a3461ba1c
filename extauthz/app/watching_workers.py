"""Serves the readiness and the metrics of several workers together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

from extauthz.app.service import CHECKS, METRICS
from extauthz.serving.admin.readiness import ReadyCheck, ReadyState, find_worst, read_check
from extauthz.serving.listen import ListenAddress
from extauthz.serving.workers.workers import Workers
from extauthz.telemetry import names
from extauthz.telemetry.metrics import CONTENT_TYPE, Metrics
from extauthz.telemetry.summed_metrics import SummedMetrics

ANSWER_S: Final = 2.0
"""Seconds that a worker may take to answer; one that takes longer counts as busy, not as dead."""


@asynccontextmanager
async def watching_workers(address: ListenAddress, workers: Workers) -> AsyncIterator[None]:
    """Serves the admin paths for all workers until the block ends.

    Raises:
        ListenError: the address cannot be listened on.
    """
    from extauthz.serving.admin.listener import AdminListener  # brings aiohttp

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

    admin = AdminListener(address, checks=list_checks, metrics=write_metrics)
    await admin.start()
    try:
        yield
    finally:
        await admin.stop()


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
