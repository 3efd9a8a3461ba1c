"""What proxies report of finished requests."""

from __future__ import annotations

from typing import Final

from tests.dashboards.panels import Dashboard, Panel, Query, Row
from tests.dashboards.promql import rate, top

USAGE: Final = Dashboard(
    name="usage",
    title="extauthz / Usage",
    description="Who is served how much, and whether reports of finished requests are whole.",
    rows=(
        Row(
            "Served",
            (
                Panel(
                    title="Allowed, by API",
                    description="The ten APIs with the most allowed requests.",
                    unit="reqps",
                    width=12,
                    queries=(
                        Query(
                            top(rate("extauthz_decisions_total", "api", 'outcome="allow"')),
                            "{{api}}",
                        ),
                    ),
                ),
                Panel(
                    title="Limits checked, by tier",
                    description="The ten tiers whose limits are checked most: who uses the "
                    "service, as far as it is sold by tiers.",
                    unit="reqps",
                    width=12,
                    queries=(
                        Query(
                            top(rate("extauthz_limit_checks_total", "level, tier")),
                            "{{level}} {{tier}}",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Reports of finished requests",
            (
                Panel(
                    title="Requests reported",
                    description="Finished requests that Envoy's access logs and Mixer reported.",
                    unit="reqps",
                    queries=(
                        Query(rate("extauthz_usage_records_total"), "Envoy"),
                        Query(rate("extauthz_reports_records_total"), "Mixer"),
                    ),
                ),
                Panel(
                    title="Records written",
                    description="Records that each sink has taken. Where they are fewer than the "
                    "requests reported for long, the sink is away or slow.",
                    unit="wps",
                    queries=(Query(rate("extauthz_usage_written_total", "sink"), "{{sink}}"),),
                ),
                Panel(
                    title="Lost",
                    description="What is missing in the records: lines for which there was no "
                    "place, and lines that a process which was killed had not written.",
                    unit="short",
                    alarm_at=1,
                    queries=(
                        Query(rate("extauthz_usage_dropped_total", "sink"), "{{sink}}: no place"),
                        Query(rate("extauthz_usage_lost_total"), "killed"),
                        Query(rate("extauthz_reports_dropped_total"), "Mixer: no place"),
                    ),
                ),
                Panel(
                    title="Not understood",
                    description="Reports that could not be read, and entries of access logs that are "
                    "about no finished request.",
                    unit="reqps",
                    queries=(
                        Query(rate("extauthz_usage_unreadable_total"), "Envoy: unreadable"),
                        Query(rate("extauthz_usage_skipped_total"), "Envoy: not finished"),
                        Query(rate("extauthz_reports_unreadable_total"), "Mixer: unreadable"),
                    ),
                ),
                Panel(
                    title="Bytes not charged",
                    description="Requests whose bytes could not be charged to limits in bytes, as "
                    "the counter store did not take them.",
                    unit="reqps",
                    queries=(Query(rate("extauthz_usage_uncharged_total"), "requests"),),
                ),
                Panel(
                    title="Envoys that report",
                    description="Streams of access logs that are open: one for each worker of each "
                    "Envoy. A drop is an Envoy whose requests are not reported.",
                    unit="short",
                    queries=(
                        Query(
                            "sum by (instance) (extauthz_usage_streams{SELECTED})", "{{instance}}"
                        ),
                    ),
                ),
            ),
        ),
    ),
)
