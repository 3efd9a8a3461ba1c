"""Counts decisions in steps of five seconds, for the last quarter of an hour."""

from __future__ import annotations

from collections import deque
from typing import Final, TypeAlias

STEP_S: Final = 5
STEPS: Final = 180

Series: TypeAlias = tuple[str, str]
"""What is counted apart: the outcome, as metrics name it, and the reason of a denial."""


class DecisionRates:
    """Counts of the last `STEPS` steps. A step is a whole multiple of `STEP_S` in Unix time."""

    def __init__(self) -> None:
        self._step = 0
        self._counts: dict[Series, int] = {}
        self._past: deque[tuple[int, dict[Series, int]]] = deque(maxlen=STEPS)

    def begin(self, second: int) -> None:
        """Says which second has begun; a clock that went back counts into the step that was last."""
        step = second // STEP_S
        if step > self._step:
            if self._counts:
                self._past.append((self._step, self._counts))
                self._counts = {}
            self._step = step

    def add(self, outcome: str, reason: str) -> None:
        """Counts a decision of the second that has begun."""
        series = (outcome, reason)
        self._counts[series] = self._counts.get(series, 0) + 1

    def read(self, last_step: int) -> dict[Series, list[int]]:
        """The counts of `STEPS` steps, of which `last_step` is the last."""
        first = last_step - STEPS + 1
        read: dict[Series, list[int]] = {}
        for step, counts in (*self._past, (self._step, self._counts)):
            if first <= step <= last_step:
                for series, count in counts.items():
                    read.setdefault(series, [0] * STEPS)[step - first] += count
        return read
