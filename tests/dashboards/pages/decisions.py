"""Who is denied, why, and since when; what is in force."""

from __future__ import annotations

from typing import Final

from tests.dashboards.panels import Dashboard, Panel, Query, Row
from tests.dashboards.promql import ALL_DECISIONS, DURATION, quantile, rate, share, top

_DENIED: Final = rate("extauthz_decisions_total", matchers='outcome="deny"')
_UNDECIDED: Final = rate("extauthz_decisions_total", matchers='reason="unavailable"')

DECISIONS: Final = Dashboard(
    name="decisions",
    title="extauthz / Decisions",
    description="Who is denied, why, and since when; what is in force.",
    rows=(
        Row(
            "Now",
            (
                Panel(
                    title="Decisions",
                    description="Decisions each second, at both doors.",
                    unit="reqps",
                    kind="stat",
                    width=4,
                    height=4,
                    queries=(Query(ALL_DECISIONS),),
                ),
                Panel(
                    title="Denied",
                    description="The share of decisions that were denials, for whatever reason.",
                    unit="percentunit",
                    kind="stat",
                    width=4,
                    height=4,
                    queries=(Query(share(_DENIED, ALL_DECISIONS)),),
                ),
                Panel(
                    title="Could not decide",
                    description="The share of requests about which nothing could be decided, as a "
                    "dependency did not answer. failure_mode_allow applies to them.",
                    unit="percentunit",
                    kind="stat",
                    width=4,
                    height=4,
                    warn_at=0.0001,
                    alarm_at=0.01,
                    queries=(Query(share(_UNDECIDED, ALL_DECISIONS)),),
                ),
                Panel(
                    title="Shed",
                    description="Calls each second that were refused for load, before a decision.",
                    unit="reqps",
                    kind="stat",
                    width=4,
                    height=4,
                    warn_at=0.1,
                    alarm_at=10,
                    queries=(Query(rate("extauthz_calls_shed_total")),),
                ),
                Panel(
                    title="p99",
                    description="99 of 100 decisions took no longer than this.",
                    unit="s",
                    kind="stat",
                    width=4,
                    height=4,
                    warn_at=0.02,
                    alarm_at=0.1,
                    queries=(Query(quantile(0.99, DURATION)),),
                ),
                Panel(
                    title="Replicas",
                    description="Replicas that Prometheus can read.",
                    unit="short",
                    kind="stat",
                    width=4,
                    height=4,
                    queries=(Query("count(extauthz_build_info{SELECTED})"),),
                ),
            ),
        ),
        Row(
            "What is decided",
            (
                Panel(
                    title="Decisions by outcome",
                    description="would_allow and would_deny are decisions of a door in shadow.",
                    unit="reqps",
                    stacked=True,
                    queries=(Query(rate("extauthz_decisions_total", "outcome"), "{{outcome}}"),),
                ),
                Panel(
                    title="Denials by reason",
                    description="A new reason, or one that grows, is where to look first. The "
                    "reasons are explained in docs/reference/reasons.md.",
                    unit="reqps",
                    stacked=True,
                    queries=(
                        Query(
                            rate("extauthz_decisions_total", "reason", 'outcome=~".*deny"'),
                            "{{reason}}",
                        ),
                    ),
                ),
                Panel(
                    title="Denials by API",
                    description="The ten APIs with the most denials. Requests for no API have "
                    "no name.",
                    unit="reqps",
                    queries=(
                        Query(
                            top(
                                rate("extauthz_decisions_total", "api, reason", 'outcome=~".*deny"')
                            ),
                            "{{api}} {{reason}}",
                        ),
                    ),
                ),
                Panel(
                    title="Decisions by API",
                    description="The ten APIs that are called most.",
                    unit="reqps",
                    queries=(Query(top(rate("extauthz_decisions_total", "api")), "{{api}}"),),
                ),
                Panel(
                    title="Rate limited, by level and rule",
                    description="The rule is the tier or the custom limit that had no room.",
                    unit="reqps",
                    queries=(
                        Query(
                            top(
                                rate(
                                    "extauthz_decisions_total",
                                    "level, rule",
                                    'reason="rate_limited"',
                                )
                            ),
                            "{{level}} {{rule}}",
                        ),
                    ),
                ),
                Panel(
                    title="Blocked, by rule",
                    description="Requests that a deny rule refused, or a block in an emergency.",
                    unit="reqps",
                    queries=(
                        Query(
                            top(rate("extauthz_decisions_total", "rule", 'reason="blocked"')),
                            "{{rule}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "What is in force",
            (
                Panel(
                    title="Age of the catalog",
                    description="Time since each replica loaded the catalog that it decides by. "
                    "Replicas that differ for longer than a reload takes do not decide alike.",
                    unit="s",
                    queries=(
                        Query(
                            "time() - max by (instance) (extauthz_catalog_loaded{SELECTED})",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    title="Entries of the catalog",
                    description="What the catalog in force holds. A sudden drop is a loss.",
                    unit="short",
                    queries=(
                        Query("min by (kind) (extauthz_catalog_entries{SELECTED})", "{{kind}}"),
                    ),
                ),
                Panel(
                    title="Problems",
                    description="Problems keep a catalog, or an entry among blocks, from being "
                    "used; the one before stays in force.",
                    unit="short",
                    queries=(
                        Query("max(extauthz_catalog_problems{SELECTED})", "catalog: problems"),
                        Query("max(extauthz_catalog_warnings{SELECTED})", "catalog: warnings"),
                        Query("max(extauthz_emergency_problems{SELECTED})", "blocks: problems"),
                    ),
                ),
                Panel(
                    title="Blocks and revocations",
                    description="Those in force, by replica; they should be equal.",
                    unit="short",
                    queries=(
                        Query(
                            "max by (instance) (extauthz_emergency_in_force{SELECTED})",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    title="What runs",
                    description="Versions and hosts of all replicas.",
                    unit="short",
                    kind="table",
                    width=16,
                    queries=(
                        Query(
                            "count by (version, python, compiled, host) "
                            "(extauthz_build_info{SELECTED})"
                        ),
                    ),
                ),
            ),
        ),
    ),
)
