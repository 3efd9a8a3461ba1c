"""How long decisions take, and what the processes need for them."""

from __future__ import annotations

from typing import Final

from tests.dashboards.panels import Dashboard, Panel, Query, Row
from tests.dashboards.promql import ALL_DECISIONS, DURATION, quantile, rate

LATENCY: Final = Dashboard(
    name="latency",
    title="extauthz / Latency and load",
    description="How long decisions take, and what the processes need for them.",
    rows=(
        Row(
            "How long decisions take",
            (
                Panel(
                    title="Quantiles",
                    description="From the request, once it is read, to its decision. Envoy waits "
                    "for 200 ms unless its timeout says otherwise.",
                    unit="s",
                    queries=tuple(
                        Query(quantile(share, DURATION), name)
                        for share, name in ((0.5, "p50"), (0.9, "p90"), (0.99, "p99"))
                    ),
                ),
                Panel(
                    title="p99 by door",
                    description="envoy: ext_authz; mixer: the Mixer adapter.",
                    unit="s",
                    queries=(Query(quantile(0.99, DURATION, "door"), "{{door}}"),),
                ),
                Panel(
                    title="p99 by outcome",
                    description="A denial usually takes less time than an allow: it ends earlier.",
                    unit="s",
                    queries=(Query(quantile(0.99, DURATION, "outcome"), "{{outcome}}"),),
                ),
                Panel(
                    title="Durations",
                    description="How many decisions took how long. Two bands are two kinds of "
                    "requests, such as those that wait for Redis and those that do not.",
                    unit="s",
                    kind="heatmap",
                    width=16,
                    queries=(
                        Query(
                            f"sum by (le) (increase({DURATION}_bucket{{SELECTED}}"
                            "[$__rate_interval]))",
                            "{{le}}",
                        ),
                    ),
                ),
                Panel(
                    title="Mean by reason",
                    description="Which denials are slow. An empty reason is an allow.",
                    unit="s",
                    queries=(
                        Query(
                            f"{rate(f'{DURATION}_sum', 'reason')} / "
                            f"{rate(f'{DURATION}_count', 'reason')}",
                            "{{reason}}",
                        ),
                    ),
                ),
                Panel(
                    title="Within a bound",
                    description="The share of decisions that took no longer than this.",
                    unit="percentunit",
                    queries=tuple(
                        Query(
                            rate(f"{DURATION}_bucket", matchers=f'le="{bound}"')
                            + " / "
                            + rate(f"{DURATION}_count"),
                            name,
                        )
                        for bound, name in (
                            ("0.0005", "500 µs"),
                            ("0.005", "5 ms"),
                            ("0.05", "50 ms"),
                        )
                    ),
                ),
            ),
        ),
        Row(
            "Load",
            (
                Panel(
                    title="Calls in flight",
                    description="Calls that are being decided, by replica.",
                    unit="short",
                    queries=(
                        Query(
                            "sum by (instance) (extauthz_calls_in_flight{SELECTED})",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    title="Calls shed",
                    description="Calls that were refused for load, by replica.",
                    unit="reqps",
                    queries=(Query(rate("extauthz_calls_shed_total", "instance"), "{{instance}}"),),
                ),
                Panel(
                    title="Decisions by replica",
                    description="They should be alike: gRPC connections are long-lived, so a new "
                    "replica gets calls only once callers connect again.",
                    unit="reqps",
                    queries=(Query(rate("extauthz_decisions_total", "instance"), "{{instance}}"),),
                ),
                Panel(
                    title="Workers",
                    description="Workers that serve, and workers that were started again.",
                    unit="short",
                    queries=(
                        Query("sum(extauthz_workers{SELECTED})", "serving"),
                        Query(
                            "sum(increase(extauthz_worker_restarts_total{SELECTED}"
                            "[$__rate_interval]))",
                            "started again",
                        ),
                    ),
                ),
            ),
        ),
        Row(
            "Processes",
            (
                Panel(
                    title="CPU",
                    description="Processors in use, by replica. One worker uses one at most.",
                    unit="short",
                    queries=(Query(rate("process_cpu_seconds_total", "instance"), "{{instance}}"),),
                ),
                Panel(
                    title="CPU for each decision",
                    description="Processor time by decisions: what a change of the catalog, of the "
                    "traffic or of the version costs.",
                    unit="s",
                    queries=(
                        Query(
                            f"{rate('process_cpu_seconds_total')} / {ALL_DECISIONS}",
                            "each decision",
                        ),
                    ),
                ),
                Panel(
                    title="Memory",
                    description="Resident memory, by replica.",
                    unit="bytes",
                    queries=(
                        Query(
                            "sum by (instance) (process_resident_memory_bytes{SELECTED})",
                            "{{instance}}",
                        ),
                    ),
                ),
                Panel(
                    title="Open files",
                    description="The share of files and connections that may be open.",
                    unit="percentunit",
                    warn_at=0.7,
                    alarm_at=0.9,
                    queries=(
                        Query(
                            "max by (instance) (process_open_fds{SELECTED} / "
                            "process_max_fds{SELECTED})",
                            "{{instance}}",
                        ),
                    ),
                ),
            ),
        ),
    ),
)
