"""Debts: what was admitted here while the shared store was away, and is still to be charged there.

The debt of a key is itself a counter, kept by the arithmetic of `formulas` against the whole limit.
So there is one entry for each key, however many requests there were, and it changes with time as
the real counter does:

FIXED_WINDOW, CALENDAR: what was admitted in the current window; nothing once that is over.
SLIDING_WINDOW: what still counts; at the store it counts anew from the payment, which is longer.
BURST: what has not drained yet, in whole requests, rounded up.

A payment is drawn from debts: the charges of one hash tag, which any store can take in one step on
one node, under a deduplication id of its own. Once drawn, an amount is no debt any more: a payment
without an answer is tried again with the same id, and is given up when the store may have forgotten
that id. It must never be charged twice.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from itertools import count
from typing import Final

from extauthz.counters.formulas import (
    State,
    add_cost,
    find_edge_us,
    read_state,
    room_in,
    take_back,
)
from extauthz.errors import CounterStoreError
from extauthz.model.limits import US_PER_S, Algorithm, Charge

_SWEPT_AT_ONCE: Final = 2
_SWEPT_WHEN_FULL: Final = 16
_SET_BACK_US: Final = 60 * US_PER_S


@dataclass(frozen=True, slots=True)
class Payment:
    """Charges that are sent together under one deduplication id.

    Attributes:
        edges: for each charge the end of the window that it belongs to; 0 for any window.
        begun_s: monotonic time since which it may have been charged.
    """

    id: str
    charges: tuple[Charge, ...]
    edges: tuple[int, ...]
    begun_s: float

    @property
    def cost(self) -> int:
        """The sum of all charges' costs."""
        return sum(charge.cost for charge in self.charges)

    def find_misplaced(self, at_us: int) -> tuple[Charge, ...]:
        """The charges that were counted in another window than their own, when taken at `at_us`."""
        return tuple(
            charge
            for charge, edge_us in zip(self.charges, self.edges, strict=True)
            if edge_us and find_edge_us(charge, at_us) != edge_us
        )


class _Debt:
    """One key's entry. A plain class, because it changes with every admission."""

    __slots__ = ("charge", "since_us", "state")

    def __init__(self, charge: Charge, state: State, since_us: int) -> None:
        self.charge = charge
        self.state = state
        self.since_us = since_us


class Debts:
    """The debts of at most `max_counters` keys."""

    def __init__(self, max_counters: int) -> None:
        self._max_counters = max_counters
        self._entries: OrderedDict[str, _Debt] = OrderedDict()
        self._open = 0
        """Number of entries whose keys callers can make up."""
        self._prefix = f"owed-{secrets.token_hex(8)}-"
        self._ids = count(1)

    def __len__(self) -> int:
        """The number of counters with a debt, including those that have expired."""
        return len(self._entries)

    def add(self, charge: Charge, at_us: int) -> bool:
        """Adds a charge that was taken locally at `at_us`; False when there is no place for it."""
        entry = self._entries.get(charge.key)
        if entry is not None and at_us >= entry.since_us - _SET_BACK_US:
            entry.charge = charge
            entry.state = add_cost(charge, read_state(charge, entry.state, at_us), at_us)
            return True
        if entry is None and not self._has_room(charge):
            self._sweep(_SWEPT_WHEN_FULL, at_us)
            if not self._has_room(charge):
                return False
        # A debt of a future time was noted before the clock was corrected.
        state = add_cost(charge, read_state(charge, None, at_us), at_us)
        self._open += entry is None and charge.origin != ""
        self._entries[charge.key] = _Debt(charge, state, at_us)
        self._sweep(_SWEPT_AT_ONCE, at_us)
        return True

    def _has_room(self, charge: Charge) -> bool:
        # As in memory: keys that callers can make up get at most half of the places.
        if charge.origin and self._open >= max(1, self._max_counters // 2):
            return False
        return len(self._entries) < self._max_counters

    def _pop(self) -> tuple[str, _Debt]:
        key, entry = self._entries.popitem(last=False)
        self._open -= entry.charge.origin != ""
        return key, entry

    def forgive(self, charge: Charge, at_us: int, now_us: int) -> None:
        """Removes the debt of a charge that was taken at `at_us`, unless it was drawn already."""
        entry = self._entries.get(charge.key)
        if entry is not None and entry.since_us <= at_us:
            entry.state = take_back(charge, entry.state, at_us, now_us)

    def draw(self, counters: int, now_us: int, now_s: float) -> list[Payment]:
        """Payments for the debts of up to `counters` counters; expired debts are dropped."""
        by_tag: dict[str, list[tuple[Charge, int]]] = {}
        for _ in range(min(counters, len(self._entries))):
            key, entry = self._pop()
            if entry.state[0] <= now_us:
                continue
            charge = entry.charge
            # When the clock was set back, the time must stay in the charge's calendar windows.
            at_us = max(now_us, entry.since_us)
            try:
                state = read_state(charge, entry.state, at_us)
            except CounterStoreError:
                continue  # The clock was set since then: now is in none of those windows.
            cost = _read_cost(charge, state, at_us)
            if cost:
                aligned = charge.algorithm in (Algorithm.FIXED_WINDOW, Algorithm.CALENDAR)
                edge_us = state[1] if aligned else 0
                charge = replace(charge, cost=cost, enforced=False)
                by_tag.setdefault(key.partition("}")[0], []).append((charge, edge_us))
        return [
            Payment(
                f"{self._prefix}{next(self._ids)}",
                tuple([charge for charge, _ in part]),
                tuple([edge_us for _, edge_us in part]),
                now_s,
            )
            for part in by_tag.values()
        ]

    def _sweep(self, looks: int, now_us: int) -> None:
        """Examines the entries that were examined least recently, and drops those that expired."""
        for _ in range(min(looks, len(self._entries))):
            key, entry = self._pop()
            if entry.state[0] > now_us:
                self._entries[key] = entry
                self._open += entry.charge.origin != ""


def _read_cost(charge: Charge, state: State, now_us: int) -> int:
    """The amount of a counter that still counts."""
    if charge.algorithm is Algorithm.BURST:
        return charge.limit - room_in(charge, state, now_us)
    return state[2]
