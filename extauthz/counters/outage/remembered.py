"""Remembers how takings with a deduplication id were answered, for a while and not too many."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import TypeAlias

from extauthz.model.limits import Charge, Taking

TakingKey: TypeAlias = tuple[str, ...]
"""A deduplication id and the keys that were taken from: the same id with others is another."""


def name_taking(dedup_id: str, charges: Sequence[Charge]) -> TakingKey:
    """What a repetition has in common with the first."""
    return (dedup_id, *[charge.key for charge in charges])


class RememberedTakings:
    """Answers of the last `ttl_us` microseconds, the latest `most` of them."""

    def __init__(self, *, ttl_us: int, most: int) -> None:
        self._ttl_us = ttl_us
        self._most = most
        self._answers: OrderedDict[TakingKey, tuple[int, Taking]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, key: TakingKey, now_us: int) -> Taking | None:
        """The answer that was given before."""
        answers = self._answers
        while answers and next(iter(answers.values()))[0] <= now_us - self._ttl_us:
            answers.popitem(last=False)
        found = answers.get(key)
        return None if found is None else found[1]

    def add(self, key: TakingKey, taking: Taking, now_us: int) -> None:
        """Remembers an answer, from now on; one that is remembered already stays."""
        if key in self._answers:
            return
        self._answers[key] = (now_us, taking)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def forget(self, key: TakingKey) -> None:
        """As if it had never been answered."""
        self._answers.pop(key, None)
