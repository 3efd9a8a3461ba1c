"""Adds the numbers of usage to the metrics."""

from __future__ import annotations

from extauthz.app.usage.opening import OpenUsage
from extauthz.app.watching import watch_queue
from extauthz.telemetry import names
from extauthz.telemetry.decision_log.sinks import SinkThread
from extauthz.telemetry.metrics import Metrics


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
    for sink in usage.log.sinks:
        _count_sink(metrics, sink)
    metrics.count(
        names.USAGE_LOST,
        "Lines of usage that the process before this one perhaps did not write.",
        lambda: usage.log.lost,
    )


def _count_sink(metrics: Metrics, sink: SinkThread) -> None:
    labels = {names.SINK: sink.name}
    metrics.count(
        names.USAGE_WRITTEN,
        "Requests that a sink has taken.",
        lambda: sink.written,
        **labels,
    )
    metrics.count(
        names.USAGE_DROPPED,
        "Requests that a sink did not get: too many waited, writing failed, or a stop came.",
        lambda: sink.dropped,
        **labels,
    )
    watch_queue(metrics, f"usage_{sink.name}", lambda: sink.waiting, sink.max_waiting)
