"""Makes the readiness checks and the metrics of a running service."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from importlib.metadata import version
from platform import python_version

from extauthz.app.catalog import check_source, watch_source
from extauthz.app.core import Core
from extauthz.app.emergency import check_ready
from extauthz.app.tracing import Tracing
from extauthz.model.catalog import Catalog
from extauthz.model.limits import US_PER_S
from extauthz.policy import pipeline
from extauthz.ports import DecisionObserver
from extauthz.serving.admin.readiness import ReadyCheck, ReadyState
from extauthz.serving.certificates import CertificateFile, find_first_end_s
from extauthz.serving.health import OVERALL, HealthState, HealthStatus
from extauthz.serving.load import Load
from extauthz.settings.files import list_files
from extauthz.settings.tree import Settings
from extauthz.telemetry import names
from extauthz.telemetry.decision_counts import DecisionCounts
from extauthz.telemetry.decision_durations import DecisionDurations
from extauthz.telemetry.decision_log.log import DecisionLog
from extauthz.telemetry.decision_log.sinks import SinkThread
from extauthz.telemetry.measures.limit_checks import LimitCheckCounts
from extauthz.telemetry.metrics import CountedCache, Metrics
from mixer_compat.reports import Reports


def list_ready_checks(core: Core, doors: Iterable[HealthState]) -> list[ReadyCheck]:
    """The checks of readiness: the health of every door, and the parts that decisions need."""
    serving = all(health.find(OVERALL) is HealthStatus.SERVING for health in doors)
    refresher = core.refresher
    return [
        ReadyCheck(name="serving", state=ReadyState.READY if serving else ReadyState.NOT_READY),
        ReadyCheck(
            name="catalog",
            # The last valid catalog stays in force, and decisions use it.
            state=ReadyState.READY if refresher.last_error is None else ReadyState.DEGRADED,
            facts={
                "revision": refresher.catalog.revision[:12],
                "loaded_at": refresher.loaded_at_us // US_PER_S,
                "last_load_failed": refresher.last_error is not None,
            },
        ),
        *check_source(core.source),
        check_ready(core.emergency),
        core.counting.check(),
    ]


@dataclass(frozen=True, slots=True)
class DecisionMeasures:
    """What is counted and measured of every decision."""

    counts: DecisionCounts = field(default_factory=DecisionCounts)
    durations: DecisionDurations = field(default_factory=DecisionDurations)
    limit_checks: LimitCheckCounts = field(default_factory=LimitCheckCounts)

    def list_observers(self) -> list[DecisionObserver]:
        """All of them, in a new list."""
        return [self.counts, self.durations, self.limit_checks]


def make_metrics(core: Core, load: Load, decisions: DecisionMeasures, host: str) -> Metrics:
    """Every metric of a service but the counts of decisions. `host` is that of the settings."""
    metrics, refresher, shared = Metrics(), core.refresher, core.counting.shared
    show_build(metrics, host)
    metrics.show_process()
    metrics.count(
        names.DECISIONS_FOLDED,
        "Decisions that were counted without their API, as there were too many series.",
        lambda: decisions.counts.folded,
    )
    metrics.count(names.CALLS_SHED, "Calls refused for load.", lambda: load.shed)
    metrics.gauge(names.CALLS_IN_FLIGHT, "Calls being decided.", lambda: load.in_flight)
    metrics.gauge(
        names.CATALOG_LOADED,
        "Unix time at which the catalog in force was loaded.",
        lambda: refresher.loaded_at_us / US_PER_S,
    )
    metrics.gauge(
        names.CATALOG_PROBLEMS,
        "Problems of the catalog that was refused; 0 when the last one was not.",
        lambda: refresher.problems,
    )
    metrics.gauge(
        names.CATALOG_WARNINGS,
        "Warnings about the catalog in force.",
        lambda: len(refresher.catalog.warnings),
    )
    entries: dict[str, Callable[[], int]] = {
        "apis": lambda: len(refresher.catalog.apis),
        "applications": lambda: len(refresher.catalog.applications),
        "subscriptions": lambda: len(refresher.catalog.subscriptions),
    }
    for kind, read in entries.items():
        metrics.gauge(names.CATALOG_ENTRIES, "What the catalog in force holds.", read, kind=kind)
    metrics.count(
        names.CATALOG_FAILURES, "Loads of a catalog that failed.", lambda: refresher.failures
    )
    watch_source(metrics, core.source)
    metrics.gauge(
        names.EMERGENCY_IN_FORCE, "Blocks and revocations in force.", core.emergency.count
    )
    metrics.gauge(
        names.EMERGENCY_PROBLEMS,
        "Entries among blocks and revocations that are wrong.",
        lambda: len(core.emergency.problems),
    )
    metrics.gauge(
        names.EMERGENCY_UP,
        "1 while all sources of blocks and revocations can be read.",
        lambda: int(not core.emergency.errors),
    )
    metrics.gauge(
        names.COUNTERS_UP,
        "1 while counts are shared as they should be.",
        lambda: int(core.counting.is_up),
    )
    memory = core.counting.memory
    metrics.gauge(names.COUNTERS_HELD, "Counters that are held in memory.", lambda: len(memory))
    metrics.count(
        names.COUNTERS_CROWDED,
        "Limits of requests that had no counter of their own because memory was full.",
        lambda: memory.occupancy.crowded,
    )
    if shared is not None:
        metrics.count(
            names.COUNTERS_LOCAL,
            "Requests admitted in memory because the counter store was away.",
            lambda: shared.state.admitted_locally,
        )
        metrics.count(
            names.COUNTERS_FAILURES,
            "Calls of the counter store that went unanswered.",
            lambda: shared.state.failures,
        )
        metrics.count(
            names.COUNTERS_CHARGED_BACK,
            "Costs that were charged at the store after an outage.",
            lambda: shared.state.charged_back,
        )
        metrics.count(
            names.COUNTERS_GIVEN_UP,
            "Costs that were never charged at the store, or are not known to have been.",
            lambda: shared.state.given_up,
        )
        metrics.gauge(
            names.COUNTERS_OWED,
            "Counters that still have to be charged at the store.",
            lambda: shared.state.debts,
        )
        metrics.count(
            names.COUNTERS_LOSSES,
            "Times that the counter store was found without what it had counted.",
            lambda: core.counting.losses,
        )
    redis = core.counting.redis
    if redis is not None:
        watch_queue(metrics, "redis", lambda: redis.waiting, redis.max_waiting)
    for name, cache in core.caches.items():
        _count_cache(metrics, name, cache)
    for write in (decisions.durations, decisions.limit_checks, core.dependencies):
        metrics.add_text(write.write)
    return metrics


def show_build(metrics: Metrics, host: str) -> None:
    """Shows what runs: versions, whether decisions are compiled, and the host of the settings."""
    metrics.gauge(
        names.BUILD_INFO,
        "What runs here; always 1.",
        lambda: 1,
        version=version("extauthz"),
        python=python_version(),
        compiled=str(pipeline.__file__.endswith(".so")).lower(),
        host=host,
    )


def _count_cache(metrics: Metrics, name: str, cache: CountedCache) -> None:
    said = "Look-ups in caches."
    labels = {names.CACHE: name}
    metrics.count(names.CACHE_REQUESTS, said, lambda: cache.hits, **labels, result="hit")
    metrics.count(names.CACHE_REQUESTS, said, lambda: cache.misses, **labels, result="miss")


def watch_certificates(
    metrics: Metrics, settings: Settings, catalog: Callable[[], Catalog]
) -> None:
    """Shows when the certificates in the files of the settings, and those of issuers, expire."""
    expiries: dict[str, Callable[[], float | None]] = {
        ".".join(map(str, path)): CertificateFile(
            file, holds_authorities=path[-1] != "cert"
        ).find_expiry_s
        for path, file in list_files(settings)
        if path[-2:-1] == ("tls",) and path[-1] != "key"
    }
    expiries["issuers.tls.ca"] = lambda: find_first_end_s(
        issuer.ca for issuer in catalog().issuers.values() if issuer.ca
    )
    for name, find_expiry_s in expiries.items():
        metrics.gauge(
            names.CERTIFICATE_EXPIRY,
            "Unix time at which certificates expire, by what names their file.",
            find_expiry_s,
            certificate=name,
        )


def watch_queue(metrics: Metrics, name: str, read: Callable[[], int], capacity: int) -> None:
    """Shows how much waits in a queue, and how much it takes."""
    metrics.gauge(names.QUEUE_DEPTH, "What waits.", read, queue=name)
    metrics.gauge(names.QUEUE_CAPACITY, "How much may wait.", lambda: capacity, queue=name)


def count_log(metrics: Metrics, log: DecisionLog) -> None:
    """Shows what waits for the sinks of the log of decisions, and what they have lost."""
    for sink in log.sinks:
        _count_sink(metrics, sink)


def _count_sink(metrics: Metrics, sink: SinkThread) -> None:
    metrics.count(
        names.LOG_DROPPED,
        "Decisions that were not written to the log of decisions.",
        lambda: sink.dropped,
        sink=sink.name,
    )
    watch_queue(metrics, f"decision_log_{sink.name}", lambda: sink.waiting, sink.max_waiting)


def count_traces(metrics: Metrics, tracing: Tracing) -> None:
    """Shows how many spans were made, and what became of them."""
    sender, tracer = tracing.sender, tracing.tracer
    metrics.count(names.TRACES_SPANS, "Spans that were made.", lambda: sender.spans)
    metrics.count(names.TRACES_SENT, "Spans that a collector has taken.", lambda: sender.sent)
    metrics.count(
        names.TRACES_SKIPPED,
        "Calls that were not traced, as too many were in the same second.",
        lambda: tracer.skipped,
    )
    watch_queue(metrics, "spans", lambda: sender.waiting, sender.capacity)


def count_reports(metrics: Metrics, reports: Reports) -> None:
    """Adds the numbers of Mixer's reports."""
    metrics.count(names.REPORTS_RECORDS, "Requests that were reported.", lambda: reports.records)
    metrics.count(
        names.REPORTS_DROPPED, "Reports for which there was no place.", lambda: reports.dropped
    )
    metrics.count(
        names.REPORTS_UNREADABLE, "Reports that could not be read.", lambda: reports.unreadable
    )
    watch_queue(metrics, "reports", lambda: reports.waiting, reports.max_waiting)
