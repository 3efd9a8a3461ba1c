"""Metrics: counted in plain dictionaries, handed to OpenTelemetry when somebody asks.

A call into the SDK costs microseconds, an addition costs almost nothing: decisions are added
up here, and observable instruments read the sums when Prometheus scrapes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from extauthz.model.decision import Allow, Decision
from extauthz.model.request import ApiRequest
from extauthz.telemetry import names

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST

Number = int | float
_Labels = tuple[str, str, str, str]


class DecisionCounts:
    """A `DecisionObserver` that counts decisions by API, outcome, reason and level."""

    def __init__(self) -> None:
        self._counts: Counter[_Labels] = Counter()

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        api = "" if decision.route is None else decision.route.api.name
        if isinstance(decision, Allow):
            self._counts[api, "would_allow" if decision.shadow else "allow", "", ""] += 1
        else:
            level = decision.denial.level
            outcome = "would_deny" if decision.shadow else "deny"
            labels = (api, outcome, decision.reason.value, "" if level is None else level.value)
            self._counts[labels] += 1

    def read(self) -> Iterable[tuple[Mapping[str, str], int]]:
        """Each combination of labels that was seen, with its count since the start."""
        keys = (names.API, names.OUTCOME, names.REASON, names.LEVEL)
        for labels, count in list(self._counts.items()):
            yield dict(zip(keys, labels, strict=True)), count


class Metrics:
    """A meter whose instruments read callables, and the text that Prometheus scrapes."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        reader = PrometheusMetricReader(
            disable_target_info=True, scope_info_enabled=False, registry=self._registry
        )
        self._provider = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
        self._meter = self._provider.get_meter("extauthz")

    def count_decisions(self, counts: DecisionCounts) -> None:
        """Shows decisions by their labels."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(count, dict(labels)) for labels, count in counts.read()]

        self._meter.create_observable_counter(
            names.DECISIONS, [observe], description="Decisions that were made."
        )

    def count(self, name: str, description: str, read: Callable[[], Number]) -> None:
        """Shows a sum that only grows."""
        self._meter.create_observable_counter(name, [_observer(read)], description=description)

    def gauge(self, name: str, description: str, read: Callable[[], Number]) -> None:
        """Shows a value that goes up and down."""
        self._meter.create_observable_gauge(name, [_observer(read)], description=description)

    def write(self) -> bytes:
        """Everything, in Prometheus's text format (`CONTENT_TYPE`)."""
        return generate_latest(self._registry)

    def close(self) -> None:
        """Lets go of the reader."""
        self._provider.shutdown()


def _observer(
    read: Callable[[], Number],
) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(read())]

    return observe
