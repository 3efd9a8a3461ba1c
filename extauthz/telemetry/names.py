"""Names of metrics and their attributes. Attributes take values from closed sets only.

The form is OpenTelemetry's (general metric semantic conventions); Prometheus shows the dots as
underscores and adds units and ``_total``.
"""

from __future__ import annotations

from typing import Final

DECISIONS: Final = "extauthz.decisions"
"""Decisions, by API, outcome, reason and the level of the limit that refused."""
CALLS_SHED: Final = "extauthz.calls.shed"
"""Calls that were refused because too many were in flight."""
CALLS_IN_FLIGHT: Final = "extauthz.calls.in_flight"
CATALOG_LOADED: Final = "extauthz.catalog.loaded"
"""When the catalog in force was loaded, in seconds of Unix time."""
CATALOG_FAILURES: Final = "extauthz.catalog.failures"
"""Loads of a catalog that failed; the last good one stayed in force."""
COUNTERS_UP: Final = "extauthz.counters.up"
"""1 while the counter store answers, 0 while it does not or its circuit is open."""
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
"""Requests that Mixer's reports told of."""
REPORTS_DROPPED: Final = "extauthz.reports.dropped"
"""Reports that were dropped because too many waited to be read."""
REPORTS_UNREADABLE: Final = "extauthz.reports.unreadable"
"""Reports that could not be read."""
REPORTS_WAITING: Final = "extauthz.reports.waiting"
"""Reports that are answered and not yet read."""

API: Final = "api"
OUTCOME: Final = "outcome"
REASON: Final = "reason"
LEVEL: Final = "level"
