"""Caches refusals, so that a flood of refused requests costs Redis little.

A refusal says when the same cost will fit. Until then a request that takes from the same
counter is refused from memory, when all of this holds:

- its cost is at least the refused one, and its limit is the same number;
- the charge is enforced;
- the refusal is younger than `longest_us`. So other events that make room (a cost given back by
  another replica, a deleted key, a Redis that lost its data) are seen at most that much later.

Time is this process's monotonic clock, read before Redis was asked, so a refusal never lasts
longer than Redis said. The reading of a charge without a cached refusal is that of the last refused
request with this charge, or else that of an unused counter: its real value is not known here, and
nothing depends on it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from extauthz.model.limits import Charge, Reading, Taking

MAX_KEYS: Final = 10_000
LONGEST_US: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class _Known:
    """The cached refusal of one counter."""

    limit: int
    cost: int
    reading: Reading
    asked_us: int
    """Monotonic time before the store was asked."""
    store_us: int
    """The store's time when it answered."""


class DenyCache:
    """Refusals of the last `longest_us`, for `max_keys` counters at most.

    Args:
        monotonic_us: a clock that never goes back.
    """

    def __init__(
        self,
        monotonic_us: Callable[[], int],
        *,
        max_keys: int = MAX_KEYS,
        longest_us: int = LONGEST_US,
    ) -> None:
        self._monotonic_us = monotonic_us
        self._max_keys = max_keys
        self._longest_us = longest_us
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self.hits = 0
        """Requests that were refused from memory, since the start."""
        self.misses = 0
        """Requests that were not, since the start."""

    def __len__(self) -> int:
        return len(self._known)

    def find(self, charges: Sequence[Charge]) -> Taking | None:
        """The refusal of these charges, when one of them is known to have no room."""
        known = self._known
        for charge in charges if known else ():
            entry = known.get(charge.key)
            if entry is not None and charge.enforced:
                elapsed_us = self._monotonic_us() - entry.asked_us
                if self._refuses(entry, charge, elapsed_us):
                    known.move_to_end(charge.key)
                    self.hits += 1
                    return self._refuse(charges, entry.store_us + elapsed_us)
        self.misses += 1
        return None

    def note(self, charges: Sequence[Charge], taking: Taking, asked_us: int) -> None:
        """Remembers a refusal.

        Args:
            asked_us: the monotonic clock before the store was asked.
        """
        for charge, reading in zip(charges, taking.readings, strict=True):
            self._known[charge.key] = _Known(
                charge.limit, charge.cost, reading, asked_us, taking.at_us
            )
            self._known.move_to_end(charge.key)
        while len(self._known) > self._max_keys:
            self._known.popitem(last=False)

    def forget(self, charges: Sequence[Charge]) -> None:
        """Drops the refusals of these counters, which may have room again."""
        for charge in charges:
            self._known.pop(charge.key, None)

    def _refuses(self, entry: _Known, charge: Charge, elapsed_us: int) -> bool:
        return (
            entry.reading.exceeded
            and charge.limit == entry.limit
            and charge.cost >= entry.cost
            and elapsed_us < min(entry.reading.retry_after_us, self._longest_us)
        )

    def _refuse(self, charges: Sequence[Charge], store_us: int) -> Taking:
        now_us = self._monotonic_us()
        readings = tuple([self._read(charge, now_us) for charge in charges])
        return Taking(charged=False, readings=readings, at_us=store_us)

    def _read(self, charge: Charge, now_us: int) -> Reading:
        entry = self._known.get(charge.key)
        if entry is None or entry.limit != charge.limit:
            exceeded = charge.cost > charge.limit
            return Reading(exceeded, charge.limit, 0, charge.window_us if exceeded else 0)
        elapsed_us = now_us - entry.asked_us
        reading = entry.reading
        if self._refuses(entry, charge, elapsed_us):
            return Reading(
                exceeded=True,
                remaining=reading.remaining,
                reset_us=reading.reset_us - elapsed_us,
                retry_after_us=reading.retry_after_us - elapsed_us,
            )
        exceeded = charge.cost > reading.remaining
        reset_us = max(0, reading.reset_us - elapsed_us)
        return Reading(exceeded, reading.remaining, reset_us, reset_us if exceeded else 0)
