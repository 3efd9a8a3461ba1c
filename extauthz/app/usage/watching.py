"""Adds the numbers of usage to the metrics."""

from __future__ import annotations

from extauthz.app.usage.opening import OpenUsage
from extauthz.app.watching import watch_queue
from extauthz.telemetry import names
from extauthz.telemetry.metrics import Metrics
from extauthz.usage.queues import SinkQueue


def count_usage(metrics: Metrics, usage: OpenUsage) -> None:
    """Shows what came in, and what became of it."""
    logs = usage.access_logs
    metrics.count(
        names.USAGE_RECORDS,
        "Finished requests that Envoy's access logs reported.",
        lambda: logs.records,
    )
    metrics.count(
        names.USAGE_SKIPPED,
        "Entries of Envoy's access logs that are not about a finished request.",
        lambda: logs.skipped,
    )
    metrics.count(
        names.USAGE_UNREADABLE,
        "Messages and entries of access logs that could not be read.",
        lambda: logs.unreadable,
    )
    metrics.count(
        names.USAGE_UNCHARGED,
        "Requests whose bytes could not be charged to limits in bytes.",
        lambda: logs.uncharged,
    )
    metrics.gauge(
        names.USAGE_STREAMS, "Streams of access logs that are open.", lambda: logs.streams
    )
    watch_queue(metrics, "access_logs", lambda: logs.waiting_bytes, logs.max_waiting_bytes)
    for queue in usage.log.queues:
        _count_sink(metrics, queue)
    metrics.count(
        names.USAGE_LOST,
        "Lines of usage that the process before this one perhaps did not write.",
        lambda: usage.lost,
    )


def _count_sink(metrics: Metrics, queue: SinkQueue) -> None:
    labels = {names.SINK: queue.name}
    metrics.count(
        names.USAGE_WRITTEN,
        "Lines of usage that a sink has taken.",
        lambda: queue.written,
        **labels,
    )
    metrics.count(
        names.USAGE_DROPPED,
        "Lines of usage that were dropped: too many waited for the sink, or a stop came.",
        lambda: queue.dropped,
        **labels,
    )
    metrics.count(
        names.USAGE_FAILURES,
        "Batches of lines of usage that a sink did not take at once.",
        lambda: queue.failures,
        **labels,
    )
    watch_queue(metrics, f"usage_{queue.name}", lambda: queue.waiting, queue.max_waiting)
