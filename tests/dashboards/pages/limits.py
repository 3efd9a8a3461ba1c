"""Which tiers are near their limits, and whether counts are shared and whole."""

from __future__ import annotations

from typing import Final

from tests.dashboards.panels import Dashboard, Panel, Query, Row
from tests.dashboards.promql import rate, top

_LIMIT_CHECKS: Final = "extauthz_limit_checks_total"
_NEAR: Final = 'state!="within"'


def _store(metric: str, legend: str) -> Query:
    return Query(rate(f"extauthz_counters_{metric}_total"), legend)


LIMITS: Final = Dashboard(
    name="limits",
    title="extauthz / Limits",
    description="Which tiers are near their limits, and whether counts are shared and whole.",
    rows=(
        Row(
            "Limits",
            (
                Panel(
                    title="Limits checked, by state",
                    description="near: 80 % or more is used. over: the request did not fit.",
                    unit="reqps",
                    stacked=True,
                    queries=(Query(rate(_LIMIT_CHECKS, "state"), "{{state}}"),),
                ),
                Panel(
                    title="Near or over, by tier",
                    description="The share of checks in which 80 % or more of the limit was used. "
                    "Who is behind a tier: extauthz top, or the page of the admin listener.",
                    unit="percentunit",
                    queries=(
                        Query(
                            top(
                                f"{rate(_LIMIT_CHECKS, 'tier', _NEAR)} / "
                                f"{rate(_LIMIT_CHECKS, 'tier')}"
                            ),
                            "{{tier}}",
                        ),
                    ),
                ),
                Panel(
                    title="Over, by tier and level",
                    description="Requests that did not fit, by the limit that had no room. Limits "
                    "in shadow count, too.",
                    unit="reqps",
                    queries=(
                        Query(
                            top(rate(_LIMIT_CHECKS, "tier, level", 'state="over"')),
                            "{{level}} {{tier}}",
                        ),
                    ),
                ),
                Panel(
                    title="Rate limited, by API",
                    description="Requests that were denied with 429.",
                    unit="reqps",
                    queries=(
                        Query(
                            top(rate("extauthz_decisions_total", "api", 'reason="rate_limited"')),
                            "{{api}}",
                        ),
                    ),
                ),
                Panel(
                    title="Refused without asking Redis",
                    description="The share of requests over a limit that the process knew to be "
                    "over, from what Redis had said before.",
                    unit="percentunit",
                    queries=(
                        Query(
                            rate(
                                "extauthz_cache_requests_total",
                                "",
                                'cache="refusals", result="hit"',
                            )
                            + " / "
                            + rate("extauthz_cache_requests_total", "", 'cache="refusals"'),
                            "refusals",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Counters",
            (
                Panel(
                    title="Counts are shared",
                    description="1 while a replica counts in the store, as it should. 0: it counts "
                    "in its own memory, or refuses, as on_outage says.",
                    unit="short",
                    queries=(
                        Query("min by (instance) (extauthz_counters_up{SELECTED})", "{{instance}}"),
                    ),
                ),
                Panel(
                    title="Outages of the store",
                    description="Calls of the store without an answer, and requests that were "
                    "admitted in memory meanwhile.",
                    unit="reqps",
                    queries=(
                        _store("failures", "calls without an answer"),
                        _store("local", "admitted in memory"),
                    ),
                ),
                Panel(
                    title="Debts",
                    description="Counters whose costs still have to be charged at the store after "
                    "an outage. It goes down to 0 within seconds after the outage.",
                    unit="short",
                    queries=(
                        Query(
                            "sum by (instance) (extauthz_counters_owed{SELECTED})", "{{instance}}"
                        ),
                    ),
                ),
                Panel(
                    title="Charged after outages",
                    description="Costs that were charged after an outage, and those that were given "
                    "up: for these a limit was exceeded.",
                    unit="short",
                    queries=(
                        _store("charged_back", "charged"),
                        _store("given_up", "given up"),
                    ),
                ),
                Panel(
                    title="Losses of the store",
                    description="Times that the store was found without what it had counted: it "
                    "was started again without persistence, or failed over to a replica that lacked "
                    "the last writes.",
                    unit="short",
                    alarm_at=1,
                    queries=(
                        Query(
                            "sum(increase(extauthz_counters_losses_total{SELECTED}"
                            "[$__rate_interval]))",
                            "losses",
                        ),
                    ),
                ),
                Panel(
                    title="Counters in memory",
                    description="Counters that a process holds, and limits that had no counter of "
                    "their own, as memory was full: these count newcomers together.",
                    unit="short",
                    queries=(
                        Query(
                            "sum by (instance) (extauthz_counters_held{SELECTED})", "{{instance}}"
                        ),
                        Query(
                            "sum(increase(extauthz_counters_crowded_total{SELECTED}"
                            "[$__rate_interval]))",
                            "without an own counter",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
