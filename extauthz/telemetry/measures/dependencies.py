"""Counts the calls of what decisions depend on, and measures them.

A call is one exchange with the other side: a batch of counters in Redis, a fetch of keys, a
question about one token. What is answered from a cache is no call.

To measure another source, register its calls where it is made, and make each of them within
`CallMeasure.measure`::

    calls = dependencies.add("api_manager", "validate_key")
    with calls.measure():
        ...
"""

from __future__ import annotations

import time
from asyncio import CancelledError
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import TracebackType
from typing import Any, Final, Self

from extauthz.telemetry import names
from extauthz.telemetry.measures.histogram import Histogram, find_quantile_us

RECENT_NS: Final = 60_000_000_000
"""`DependencyState` tells of the calls of this time, at least, and of twice as much at most."""


class CallResult(Enum):
    """How a call ended."""

    OK = "ok"
    ERROR = "error"
    TIMEOUT = "timeout"


class CallMeasure:
    """The calls of one operation of a dependency.

    Attributes:
        counts: calls since the start, by result.
        durations: of all calls, also those that failed.
        last: the result of the last call; None before the first.
    """

    def __init__(self, monotonic_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self.counts = dict.fromkeys(CallResult, 0)
        self.durations = Histogram()
        self.last: CallResult | None = None
        self._recent, self._before = Histogram(), Histogram()
        self._recent_since_ns = monotonic_ns()

    def measure(self, *timeouts: type[Exception]) -> MeasuredCall:
        """Measures a call, which is made in a ``with`` block.

        The call fails when the block raises an error. A call that is cancelled is not counted, so
        the block contains the bound on its time.

        Args:
            timeouts: the errors, beside TimeoutError, that say that no answer came in time.
        """
        return MeasuredCall(self, (TimeoutError, *timeouts), self._monotonic_ns())

    def count(self, result: CallResult, began_ns: int) -> None:
        """Counts a call that began at this time, and ends now."""
        now_ns = self._monotonic_ns()
        duration_us = (now_ns - began_ns) // 1000
        self.counts[result] += 1
        self.last = result
        self.durations.observe(duration_us)
        self._turn(now_ns)
        self._recent.observe(duration_us)

    def list_recent(self) -> list[int]:
        """The recent calls by bucket of their duration, as in `Histogram.buckets`."""
        self._turn(self._monotonic_ns())
        pairs = zip(self._recent.buckets, self._before.buckets, strict=True)
        return [recent + before for recent, before in pairs]

    def _turn(self, now_ns: int) -> None:
        since_ns = now_ns - self._recent_since_ns
        if since_ns >= RECENT_NS:
            self._before = self._recent if since_ns < 2 * RECENT_NS else Histogram()
            self._recent = Histogram()
            self._recent_since_ns = now_ns


class MeasuredCall:
    """A call that is being made."""

    __slots__ = ("_began_ns", "_has_failed", "_measure", "_timeouts")

    def __init__(
        self, measure: CallMeasure, timeouts: tuple[type[Exception], ...], began_ns: int
    ) -> None:
        self._measure = measure
        self._timeouts = timeouts
        self._began_ns = began_ns
        self._has_failed = False

    def fail(self) -> None:
        """Says that the answer is of no use, though no error is raised."""
        self._has_failed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if isinstance(error, CancelledError):
            return
        if isinstance(error, self._timeouts):
            result = CallResult.TIMEOUT
        else:
            result = CallResult.ERROR if error or self._has_failed else CallResult.OK
        self._measure.count(result, self._began_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class DependencyState:
    """A dependency, for people.

    Attributes:
        state: ``ok``; ``failing`` when the last call of any of its operations failed, in any
            process; ``unused`` before the first call.
        calls, failures: since the start.
        p50_ms, p99_ms: of the calls of the last one to two minutes; None when there were none.
    """

    name: str
    state: str
    calls: int
    failures: int
    p50_ms: float | None
    p99_ms: float | None


class Dependencies:
    """The calls of all dependencies of a process."""

    def __init__(self, monotonic_ns: Callable[[], int] = time.perf_counter_ns) -> None:
        self._monotonic_ns = monotonic_ns
        self._measures: dict[tuple[str, str], CallMeasure] = {}

    def add(self, dependency: str, operation: str) -> CallMeasure:
        """Registers calls; they are shown from now on, also before the first one.

        Args:
            dependency: what is asked, like ``redis``.
            operation: what it is asked for, like ``count``. Both are from closed sets.
        """
        measure = CallMeasure(self._monotonic_ns)
        return self._measures.setdefault((dependency, operation), measure)

    def write(self) -> bytes:
        """Writes the calls and their durations in Prometheus's text format."""
        calls, durations = names.DEPENDENCY_CALLS_SHOWN, names.DEPENDENCY_DURATION_SHOWN
        counted = [f"# HELP {calls} Calls of dependencies.\n# TYPE {calls} counter\n"]
        measured = [
            f"# HELP {durations} How long calls of dependencies took.\n"
            f"# TYPE {durations} histogram\n"
        ]
        for (dependency, operation), measure in self._measures.items():
            shown = f'{names.DEPENDENCY}="{dependency}",{names.OPERATION}="{operation}"'
            counted += [
                f'{calls}{{{shown},{names.RESULT}="{result.value}"}} {count}\n'
                for result, count in measure.counts.items()
            ]
            measured.append(measure.durations.write(durations, shown))
        return "".join(counted + measured).encode()

    def list_counts(self) -> list[dict[str, Any]]:
        """This process's part of `merge_states`, as JSON can carry it."""
        return [
            {
                "name": dependency,
                "calls": sum(measure.counts.values()),
                "failures": sum(measure.counts.values()) - measure.counts[CallResult.OK],
                "is_failing": measure.last not in {None, CallResult.OK},
                "recent": measure.list_recent(),
            }
            for (dependency, _), measure in self._measures.items()
        ]


def merge_states(answers: Iterable[Iterable[Mapping[str, Any]]]) -> list[DependencyState]:
    """The state of each dependency, over all processes and operations.

    Args:
        answers: `Dependencies.list_counts` of each process.
    """
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for answer in answers:
        for counts in answer:
            by_name.setdefault(counts["name"], []).append(counts)
    return [_merge(name, told) for name, told in by_name.items()]


def _merge(name: str, told: list[Mapping[str, Any]]) -> DependencyState:
    calls = sum(counts["calls"] for counts in told)
    recent = [sum(column) for column in zip(*(counts["recent"] for counts in told), strict=True)]
    state = "ok" if calls else "unused"
    return DependencyState(
        name=name,
        state="failing" if any(counts["is_failing"] for counts in told) else state,
        calls=calls,
        failures=sum(counts["failures"] for counts in told),
        p50_ms=_in_ms(find_quantile_us(recent, 0.5)),
        p99_ms=_in_ms(find_quantile_us(recent, 0.99)),
    )


def _in_ms(duration_us: float | None) -> float | None:
    return None if duration_us is None else round(duration_us / 1000, 3)
