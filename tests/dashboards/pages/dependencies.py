"""What decisions wait for, and what surrounds them."""

from __future__ import annotations

from typing import Final

from tests.dashboards.panels import Dashboard, Panel, Query, Row
from tests.dashboards.promql import quantile, rate

_CALLS: Final = "extauthz_dependency_calls_total"
_CALL_S: Final = "extauthz_dependency_duration_seconds"
_FAILED: Final = 'result!="ok"'

DEPENDENCIES: Final = Dashboard(
    name="dependencies",
    title="extauthz / Dependencies",
    description="What decisions wait for: Redis and issuers; caches, queues and certificates.",
    rows=(
        Row(
            "Calls",
            (
                Panel(
                    title="Calls",
                    description="Calls of each dependency. Decisions that come together share one "
                    "call of Redis.",
                    unit="reqps",
                    queries=(
                        Query(
                            rate(_CALLS, "dependency, operation"), "{{dependency}} {{operation}}"
                        ),
                    ),
                ),
                Panel(
                    title="Failures",
                    description="Calls that ended in an error or without an answer in time.",
                    unit="reqps",
                    queries=(
                        Query(
                            rate(_CALLS, "dependency, operation, result", _FAILED),
                            "{{dependency}} {{operation}}: {{result}}",
                        ),
                    ),
                ),
                Panel(
                    title="Failing share",
                    description="Failed calls by all calls, for each dependency.",
                    unit="percentunit",
                    kind="bargauge",
                    warn_at=0.01,
                    alarm_at=0.1,
                    queries=(
                        Query(
                            f"({rate(_CALLS, 'dependency', _FAILED)} or "
                            f"0 * {rate(_CALLS, 'dependency')}) / {rate(_CALLS, 'dependency')}",
                            "{{dependency}}",
                        ),
                    ),
                ),
                Panel(
                    title="p50",
                    description="Half of the calls took no longer than this.",
                    unit="s",
                    width=12,
                    queries=(
                        Query(
                            quantile(0.5, _CALL_S, "dependency, operation"),
                            "{{dependency}} {{operation}}",
                        ),
                    ),
                ),
                Panel(
                    title="p99",
                    description="99 of 100 calls took no longer than this. Decisions wait for "
                    "redis count and introspection; keys are fetched beside them.",
                    unit="s",
                    width=12,
                    queries=(
                        Query(
                            quantile(0.99, _CALL_S, "dependency, operation"),
                            "{{dependency}} {{operation}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Caches, queues, certificates",
            (
                Panel(
                    title="Found in caches",
                    description="The share of look-ups that a cache could answer.",
                    unit="percentunit",
                    queries=(
                        Query(
                            rate("extauthz_cache_requests_total", "cache", 'result="hit"')
                            + " / "
                            + rate("extauthz_cache_requests_total", "cache"),
                            "{{cache}}",
                        ),
                    ),
                ),
                Panel(
                    title="Queues",
                    description="How full the fullest queue of each kind is. A full one drops, or "
                    "lets decisions fail.",
                    unit="percentunit",
                    warn_at=0.5,
                    alarm_at=0.8,
                    queries=(
                        Query(
                            "max by (queue) (extauthz_queue_depth{SELECTED} / "
                            "extauthz_queue_capacity{SELECTED})",
                            "{{queue}}",
                        ),
                    ),
                ),
                Panel(
                    title="Days until a certificate expires",
                    description="Of each certificate that the service shows or trusts, the one "
                    "that expires first.",
                    unit="d",
                    kind="bargauge",
                    queries=(
                        Query(
                            "min by (certificate) "
                            "(extauthz_certificate_expiry_timestamp_seconds{SELECTED} - time()) "
                            "/ 86400",
                            "{{certificate}}",
                        ),
                    ),
                ),
                Panel(
                    title="Blocks can be read",
                    description="1 while a replica can read all sources of blocks and "
                    "revocations. 0: those that it knew stay in force, new ones are not seen.",
                    unit="short",
                    queries=(
                        Query(
                            "min by (instance) (extauthz_emergency_up{SELECTED})", "{{instance}}"
                        ),
                    ),
                ),
                Panel(
                    title="Catalogs that were refused",
                    description="Loads of a catalog that failed; the one before stays in force.",
                    unit="short",
                    queries=(
                        Query(
                            "sum by (instance) (increase(extauthz_catalog_failures_total{SELECTED}"
                            "[$__rate_interval]))",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    title="Age of what was read of the API Manager",
                    description="Seconds since a replica has last read all of it. Much more than "
                    "catalog.wso2.refresh: it cannot be read, and the last good copy is in force.",
                    unit="s",
                    queries=(
                        Query(
                            "max by (instance) (time() - extauthz_catalog_source_read{SELECTED})",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    title="API Manager",
                    description="Readings that failed, events that came, rows that could not be "
                    "carried over, and whether it can be read and its brokers are connected.",
                    unit="short",
                    queries=(
                        Query(
                            "sum(increase(extauthz_catalog_source_failures_total{SELECTED}"
                            "[$__rate_interval]))",
                            "failed readings",
                        ),
                        Query(
                            "sum(increase(extauthz_catalog_source_events_total{SELECTED}"
                            "[$__rate_interval]))",
                            "events",
                        ),
                        Query("max(extauthz_catalog_source_left_out{SELECTED})", "rows left out"),
                        Query("min(extauthz_catalog_source_up{SELECTED})", "up"),
                    ),
                ),
                Panel(
                    title="Spans",
                    description="Spans that were made, and those that the collector has taken. "
                    "While the second is lower for long, the collector is away.",
                    unit="reqps",
                    queries=(
                        Query(rate("extauthz_traces_spans_total"), "made"),
                        Query(rate("extauthz_traces_sent_total"), "taken"),
                    ),
                ),
                Panel(
                    title="Telemetry that was lost",
                    description="Decisions that are missing in the decision log, calls that were "
                    "not traced as there were too many, and decisions counted without their API.",
                    unit="reqps",
                    queries=(
                        Query(rate("extauthz_decision_log_dropped_total"), "decision log"),
                        Query(rate("extauthz_traces_skipped_total"), "calls not traced"),
                        Query(rate("extauthz_decisions_folded_total"), "counted without API"),
                    ),
                ),
            ),
        ),
    ),
)
