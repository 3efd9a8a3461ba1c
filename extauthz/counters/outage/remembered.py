"""Remembers the answers to takings with a deduplication id, bounded in time and number."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeAlias

from extauthz.model.limits import Charge, Taking

TakingKey: TypeAlias = tuple[str, ...]
"""A deduplication id and the keys of the charges: the same id with other keys is another taking."""


def name_taking(dedup_id: str, charges: Sequence[Charge]) -> TakingKey:
    """The key under which a taking is remembered; equal for a repetition."""
    return (dedup_id, *[charge.key for charge in charges])


class RememberedTakings:
    """Answers of the last `ttl_us` microseconds, at most `most`; the oldest is dropped first."""

    def __init__(self, *, ttl_us: int, most: int) -> None:
        self._ttl_us = ttl_us
        self._most = most
        self._answers: OrderedDict[TakingKey, tuple[int, Taking]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, key: TakingKey, now_us: int) -> Taking | None:
        """The answer that was remembered; None when there is none."""
        answers = self._answers
        while answers and next(iter(answers.values()))[0] <= now_us - self._ttl_us:
            answers.popitem(last=False)
        found = answers.get(key)
        return None if found is None else found[1]

    def add(self, key: TakingKey, taking: Taking, now_us: int) -> None:
        """Remembers an answer, unless one is remembered already."""
        if key in self._answers:
            return
        self._answers[key] = (now_us, taking)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def forget(self, key: TakingKey) -> None:
        """Removes the answer."""
        self._answers.pop(key, None)
