"""Makes the readiness checks and the metrics of a running service."""

from __future__ import annotations

from collections.abc import Iterable

from extauthz.app.core import Core
from extauthz.app.emergency import check_ready
from extauthz.app.tracing import Tracing
from extauthz.model.limits import US_PER_S
from extauthz.serving.admin.readiness import ReadyCheck, ReadyState
from extauthz.serving.health import OVERALL, HealthState, HealthStatus
from extauthz.serving.load import Load
from extauthz.telemetry import names
from extauthz.telemetry.decision_counts import DecisionCounts
from extauthz.telemetry.decision_log.log import DecisionLog
from extauthz.telemetry.metrics import Metrics
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
        check_ready(core.emergency),
        core.counting.check(),
    ]


def make_metrics(core: Core, load: Load, decisions: DecisionCounts) -> Metrics:
    """Every metric of a service."""
    metrics, refresher, shared = Metrics(), core.refresher, core.counting.shared
    metrics.count(
        names.DECISIONS_FOLDED,
        "Decisions that were counted without their API, as there were too many series.",
        lambda: decisions.folded,
    )
    metrics.count(names.CALLS_SHED, "Calls refused for load.", lambda: load.shed)
    metrics.gauge(names.CALLS_IN_FLIGHT, "Calls being decided.", lambda: load.in_flight)
    metrics.gauge(
        names.CATALOG_LOADED,
        "Unix time at which the catalog in force was loaded.",
        lambda: refresher.loaded_at_us / US_PER_S,
    )
    metrics.count(
        names.CATALOG_FAILURES, "Loads of a catalog that failed.", lambda: refresher.failures
    )
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
    metrics.add_text(core.dependencies.write)
    return metrics


def count_log(metrics: Metrics, log: DecisionLog) -> None:
    """Adds the number of lines that the log of decisions has lost."""
    metrics.count(
        names.LOG_DROPPED,
        "Decisions that were not written to the log of decisions.",
        lambda: log.dropped,
    )


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


def count_reports(metrics: Metrics, reports: Reports) -> None:
    """Adds the numbers of Mixer's reports."""
    metrics.count(names.REPORTS_RECORDS, "Requests that were reported.", lambda: reports.records)
    metrics.count(
        names.REPORTS_DROPPED, "Reports for which there was no place.", lambda: reports.dropped
    )
    metrics.count(
        names.REPORTS_UNREADABLE, "Reports that could not be read.", lambda: reports.unreadable
    )
    metrics.gauge(names.REPORTS_WAITING, "Reports that wait to be read.", lambda: reports.waiting)
