"""Names of metrics, spans and their attributes. Attributes take values from closed sets only, or
from the catalog.

The form is OpenTelemetry's (general metric semantic conventions); Prometheus shows the dots as
underscores and adds units and ``_total``.
"""

from __future__ import annotations

from typing import Final

from extauthz.model.decision import Allow, Decision

DECISIONS_SHOWN: Final = "extauthz_decisions_total"
"""Decisions, by API, outcome, reason, and the level and the rule that refused. The name has
Prometheus's form."""
DURATION_SHOWN: Final = "extauthz_decision_duration_seconds"
"""The duration of decisions, by door, outcome and reason. The name has Prometheus's form."""
DECISIONS_FOLDED: Final = "extauthz.decisions.folded"
"""Decisions that were counted without their API, as there were too many series."""
CALLS_SHED: Final = "extauthz.calls.shed"
"""Calls that were refused because too many were in flight."""
CALLS_IN_FLIGHT: Final = "extauthz.calls.in_flight"
CATALOG_LOADED: Final = "extauthz.catalog.loaded"
"""When the catalog in force was loaded, in seconds of Unix time."""
CATALOG_FAILURES: Final = "extauthz.catalog.failures"
"""Loads of a catalog that failed; the last good one stayed in force."""
EMERGENCY_IN_FORCE: Final = "extauthz.emergency.in_force"
"""Blocks and revocations in force that are not the catalog's."""
EMERGENCY_PROBLEMS: Final = "extauthz.emergency.problems"
"""Entries that are wrong, and what else is wrong in their sources."""
EMERGENCY_UP: Final = "extauthz.emergency.up"
"""1 while all sources of blocks and revocations can be read, 0 while one cannot."""
COUNTERS_UP: Final = "extauthz.counters.up"
"""1 while the counter store answers, 0 while it does not or its circuit is open."""
COUNTERS_HELD: Final = "extauthz.counters.held"
"""Counters that are held in memory."""
COUNTERS_CROWDED: Final = "extauthz.counters.crowded"
"""Limits of requests that had no counter of their own because memory was full."""
COUNTERS_LOCAL: Final = "extauthz.counters.local"
"""Requests that were admitted in memory because the counter store was away."""
COUNTERS_FAILURES: Final = "extauthz.counters.failures"
"""Calls of the counter store that went unanswered."""
COUNTERS_CHARGED_BACK: Final = "extauthz.counters.charged_back"
"""Costs that were charged at the store after an outage."""
COUNTERS_GIVEN_UP: Final = "extauthz.counters.given_up"
"""Costs that were never charged at the store, or are not known to have been."""
COUNTERS_OWED: Final = "extauthz.counters.owed"
"""Counters that were charged in memory and still have to be charged at the store."""
COUNTERS_LOSSES: Final = "extauthz.counters.losses"
"""Times that the counter store was found to have lost what it had counted."""
LOG_DROPPED: Final = "extauthz.decision_log.dropped"
"""Decisions that were not written to the log of decisions."""
WORKERS: Final = "extauthz.workers"
"""Workers that serve; shown when there are several."""
WORKER_RESTARTS: Final = "extauthz.worker.restarts"
"""Workers that were started again; shown when there are several."""
REPORTS_RECORDS: Final = "extauthz.reports.records"
"""Requests that Mixer reported."""
REPORTS_DROPPED: Final = "extauthz.reports.dropped"
"""Reports that were dropped because too many waited to be read."""
REPORTS_UNREADABLE: Final = "extauthz.reports.unreadable"
"""Reports that could not be read."""
REPORTS_WAITING: Final = "extauthz.reports.waiting"
"""Reports that are answered and not yet read."""

TRACES_SPANS: Final = "extauthz.traces.spans"
"""Spans that have ended."""
TRACES_SENT: Final = "extauthz.traces.sent"
"""Spans that a collector has accepted."""
TRACES_SKIPPED: Final = "extauthz.traces.skipped"
"""Calls that were not traced because too many had been in the same second."""

DEPENDENCY_CALLS_SHOWN: Final = "extauthz_dependency_calls_total"
"""Calls of dependencies, by dependency, operation and result. The name has Prometheus's form."""
DEPENDENCY_DURATION_SHOWN: Final = "extauthz_dependency_duration_seconds"
"""The duration of these calls, by dependency and operation. The name has Prometheus's form."""

DOOR: Final = "door"
API: Final = "api"
OUTCOME: Final = "outcome"
REASON: Final = "reason"
LEVEL: Final = "level"
RULE: Final = "rule"
DEPENDENCY: Final = "dependency"
OPERATION: Final = "operation"
RESULT: Final = "result"

SPAN_TAKE: Final = "take limits"
SPAN_GIVE_BACK: Final = "give back limits"
SPAN_KEYS: Final = "find keys"
SPAN_INTROSPECT: Final = "introspect token"

SPAN_DECISION: Final = "extauthz.decision"
SPAN_DOOR: Final = "extauthz.door"
SPAN_OUTCOME: Final = "extauthz.outcome"
SPAN_REASON: Final = "extauthz.reason"
SPAN_LEVEL: Final = "extauthz.level"
SPAN_API: Final = "extauthz.api"
SPAN_API_VERSION: Final = "extauthz.api.version"
SPAN_RESOURCE: Final = "extauthz.resource"
SPAN_ISSUER: Final = "extauthz.issuer"
RPC_SYSTEM: Final = "rpc.system.name"
RPC_METHOD: Final = "rpc.method"
RPC_STATUS: Final = "rpc.response.status_code"
DB_SYSTEM: Final = "db.system.name"
ERROR_TYPE: Final = "error.type"


def name_outcome(decision: Decision) -> str:
    """The value of `OUTCOME`, which tells decisions of a door in shadow mode from others."""
    if isinstance(decision, Allow):
        return "would_allow" if decision.shadow else "allow"
    return "would_deny" if decision.shadow else "deny"
