"""Decides which charges get a counter of their own in memory, and how the others are counted.

A store holds at most `max_keys` counters. Subjects that callers choose (addresses, values of
headers and query parameters) or issuers name (users, claims) are unbounded, so their counters get
at most half of the places; the rest is for subjects that the catalog names. A counter in use is
never dropped.

When a limit's counter has no place, its outage mode says what happens to the request:

LOCAL   it is counted in a *shared counter*: new subjects with the same rule are spread over a few
        of these by a hash of their origin, of their key, or of both. A shared counter counts each
        of them in full, so no limit is ever exceeded. It may refuse early when many new subjects
        share it; subjects that one caller makes up share one counter, and others have theirs.
ALLOW   it is not counted.
DENY    CounterStoreError, so the request is unavailable.

A subject that is counted in a shared counter stays there until that counter has expired, even when
there is a place again: a counter of its own would begin at zero. For each of the two kinds, a
sixteenth of all places is reserved for shared counters. A rule gets a quarter of what other rules
have left of them.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from extauthz.errors import CounterStoreError
from extauthz.model.limits import US_PER_S, Algorithm, Charge

_log = logging.getLogger(__name__)

KINDS: Final = ("named", "caller")
"""Kinds of counters: the catalog names the subject, or a caller or an issuer does."""
SHARED: Final = 2
"""Added to a kind's number for its shared counters."""
_PREFIX: Final = "\0shared"
_PARTS: Final = 16
_RULES: Final = 4
_FEWEST_SHARED: Final = 64
"""Places for shared counters in a small store, unless that is more than a quarter."""
FULL_FOR_US: Final = 60 * US_PER_S
"""A kind is reported as full for this long after a new counter found no place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupancy:
    """How full a store is: for readiness and metrics.

    Attributes:
        held: counters by kind, shared ones included.
        full: kinds without a free place recently.
        crowded: limits of requests that were counted in a shared counter or not at all, since
            the start.
    """

    held: dict[str, int]
    full: tuple[str, ...]
    crowded: int


class Places:
    """The places of one store: how many each kind has, and how many are taken.

    Attributes:
        held: number of counters of each kind, then of the shared ones of each kind.
        crowded: see `Occupancy`.
    """

    def __init__(self, max_keys: int) -> None:
        self.max_keys = max_keys
        shared = max(min(_FEWEST_SHARED, max_keys // 4), max_keys // _PARTS)
        self._most_shared = shared
        self._sizes: tuple[dict[str, int], dict[str, int]] = ({}, {})
        """Number of shared counters of each rule, by kind."""
        self._most = max_keys - 2 * shared
        self._most_of_callers = max(1, max_keys // 2 - shared)
        self.held = [0, 0, 0, 0]
        self.crowded = 0
        self._full_until_us = [0, 0]

    def is_crowded(self, newcomers: int) -> bool:
        """Whether this many new counters may not all find a place, or some counters are shared."""
        held = self.held
        return (
            held[0] + held[1] + newcomers > self._most
            or held[1] + newcomers > self._most_of_callers
            or held[2] + held[3] > 0
        )

    def has_room(self, kind: int, newcomers: Sequence[int]) -> bool:
        """Whether there is a place of this kind, after the new counters of each kind."""
        held = self.held
        if kind >= SHARED:
            return held[kind] + newcomers[kind] < self._most_shared
        if kind and held[1] + newcomers[1] >= self._most_of_callers:
            return False
        return held[0] + held[1] + newcomers[0] + newcomers[1] < self._most

    def name_shared(self, charge: Charge) -> tuple[str, ...]:
        """The shared counters of a charge; the first one counts its key in full.

        A key that comes from one origin only is counted together with all others of that origin. A
        key that roams is counted by its hash, and the counter of its origin must have room as well:
        a caller that makes up keys uses its origin's counter up first, and does not affect others.
        """
        rule = _name_rule(charge)
        if not charge.origin:
            return (self._name_shared(charge, f"key|{rule}", charge.key),)
        of_origin = self._name_shared(charge, f"origin|{rule}", charge.origin)
        if not charge.roams:
            return (of_origin,)
        return (self._name_shared(charge, f"key|{rule}", charge.key), of_origin)

    def forget_rules(self) -> None:
        """Drops the rules of kinds that have no shared counter now; called before `name_shared`."""
        for sizes, held in zip(self._sizes, self.held[SHARED:], strict=True):
            if sizes and not held:
                sizes.clear()

    def _name_shared(self, charge: Charge, rule: str, spread_by: str) -> str:
        kind = _kind_of(charge)
        sizes = self._sizes[kind]
        size = sizes.get(rule)
        if size is None:
            left = self._most_shared - sum(sizes.values())
            size = sizes[rule] = max(1, left // _RULES)
        return f"{_PREFIX}|{kind}|{hash(spread_by) % size}|{rule}"

    def note_full(self, kind: int, now_us: int) -> None:
        """Notes that a new counter found no place, and logs that once in a while."""
        if now_us >= self._full_until_us[kind]:
            _log.warning(
                "%s: no more counters fit into memory for %s; new ones follow the outage "
                "mode of their limit (local: they share counters, and their requests may "
                "be refused early); raise counters.max_keys (%d), or count in Redis",
                CounterStoreError.code,
                "addresses, users, and values of headers, query parameters and claims"
                if kind
                else "consumers and APIs of the catalog",
                self.max_keys,
                extra={"code": CounterStoreError.code},
            )
        self._full_until_us[kind] = now_us + FULL_FOR_US

    def tell(self, now_us: int) -> Occupancy:
        """How full the store is now."""
        held = self.held
        return Occupancy(
            held={kind: held[n] + held[n + SHARED] for n, kind in enumerate(KINDS)},
            full=tuple([kind for n, kind in enumerate(KINDS) if now_us < self._full_until_us[n]]),
            crowded=self.crowded,
        )


def find_kind(key: str, charge: Charge) -> int:
    """The number of a new counter's kind."""
    return _kind_of(charge) + (SHARED if key.startswith(_PREFIX) else 0)


def _name_rule(charge: Charge) -> str:
    """The part of a key that all charges of one rule at one level have in common."""
    _, *rule = charge.key.rsplit("|", 2)
    if len(rule) > 1 and not rule[1].isdigit():
        del rule[0]  # It belongs to the subject; a repeated rule's number comes after the rule.
    of_limit = charge.limit if charge.algorithm is Algorithm.BURST else ""
    level = charge.key[:2]
    return f"{level}|{charge.algorithm.value}|{charge.window_us}|{of_limit}|{'|'.join(rule)}"


def _kind_of(charge: Charge) -> int:
    return 1 if charge.origin else 0
