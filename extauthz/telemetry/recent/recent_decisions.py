"""Remembers decisions of late: their records, the groups of denials, and how many there were.

This stands on the way of every decision, so in a flood most of them are only counted. What makes
a record, which takes some seven microseconds to note, is kept

- of 50 allowed and 50 denied decisions in each second, so that below that rate all are there;
- of the first denial of a group;
- of 20 decisions in each second for each filter that somebody watches, so that a consumer of one
  call a second is seen among thousands.

The last 1,000 are kept, as `extauthz.telemetry.decision_log.record` notes them: neither request nor
credential. They are masked when they are shown.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from extauthz.model.decision import Allow, Decision
from extauthz.model.request import ApiRequest
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.decision_log.record import LoggedDecision, note_decision
from extauthz.telemetry.names import name_outcome
from extauthz.telemetry.recent.denial_groups import DenialGroups
from extauthz.telemetry.recent.facts import Facts, Filter, Fits, read_facts
from extauthz.telemetry.recent.rates import DecisionRates

MAX_RECORDS: Final = 1_000
RECORDS_A_SECOND: Final = 50
WATCHED_A_SECOND: Final = 20
MAX_WATCHES: Final = 16
_DEFAULT_MASKS: Final = Masks()
WATCH_S: Final = 15.0
"""A filter is watched for so long after it was last asked for: longer than a stream waits for a
slow reader."""


class Entry(NamedTuple):
    """A decision that is kept. `number` counts those that this process has kept, from 1."""

    number: int
    at_s: float
    facts: Facts
    noted: LoggedDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some of those that are kept, the newest first.

    Attributes:
        next: the number of the next one that will be kept.
        matched: decisions that fitted the filter while it was watched, whether kept or not.
        complete_since_s: the Unix time since which the record of every decision is kept.
    """

    entries: list[Entry]
    next: int
    matched: int
    complete_since_s: float


@dataclass(slots=True)
class _Watch:
    until_s: float
    fits: Fits
    matched: int = 0
    left: int = WATCHED_A_SECOND


class RecentDecisions:
    """A `DecisionObserver` that remembers.

    Args:
        masks: how records are shown, for filters by what is masked.
        now: the Unix time in seconds.
    """

    def __init__(
        self, masks: Masks = _DEFAULT_MASKS, *, now: Callable[[], float] = time.time
    ) -> None:
        self.masks = masks
        self._now = now
        self._second = 0
        self._allowed_left = self._denied_left = RECORDS_A_SECOND
        self._kept: deque[Entry] = deque(maxlen=MAX_RECORDS)
        self._next = 1
        self._watches: dict[Filter, _Watch] = {}
        self.started_s = self._complete_since_s = now()
        """When it began to remember, in Unix time."""
        self.rates = DecisionRates()
        self.denials = DenialGroups()

    def observe(self, request: ApiRequest, decision: Decision, duration_us: int) -> None:
        """See `DecisionObserver.observe`."""
        now_s = self._now()
        second = int(now_s)
        if second != self._second:
            self._begin(second, now_s)
        group, facts = None, None
        if isinstance(decision, Allow):
            self.rates.add(name_outcome(decision), "")
            self._allowed_left -= 1
            is_kept = self._allowed_left >= 0
        else:
            facts = read_facts(decision)
            self.rates.add(facts.outcome, facts.reason)
            group = self.denials.add(facts, now_s)
            self._denied_left -= 1
            is_kept = self._denied_left >= 0 or group.example is None
        if self._watches and self._is_watched(facts or read_facts(decision), request.door):
            is_kept = True
        if not is_kept:
            self._complete_since_s = now_s
            return
        noted = note_decision(request, decision, duration_us)
        if group is not None:
            group.example = noted
        self._keep(now_s, facts or read_facts(decision), noted)

    def find(self, wanted: Filter, *, limit: int, after_s: float = 0.0) -> Page:
        """Records that fit, the newest first, of those that are not older than `after_s`."""
        found: list[Entry] = []
        fits = wanted.make_test(self.masks)
        for entry in reversed(self._kept):
            if entry.at_s < after_s or len(found) >= limit:
                break
            if fits(entry.facts, entry.noted.door):
                found.append(entry)
        watch = self._watches.get(wanted)
        return Page(
            entries=found,
            next=self._next,
            matched=0 if watch is None else watch.matched,
            complete_since_s=self._complete_since_s,
        )

    def watch(self, wanted: Filter) -> None:
        """Keeps records that fit, for the next `WATCH_S` seconds, and counts what fits."""
        until_s = self._now() + WATCH_S
        watch = self._watches.get(wanted)
        if watch is not None:
            watch.until_s = until_s
            return
        if len(self._watches) >= MAX_WATCHES:
            # Those of open streams are renewed again and again, so it is somebody's who has left.
            self._watches.pop(min(self._watches, key=lambda it: self._watches[it].until_s))
        self._watches[wanted] = _Watch(until_s, wanted.make_test(self.masks))

    def _begin(self, second: int, now_s: float) -> None:
        self._second = second
        self._allowed_left = self._denied_left = RECORDS_A_SECOND
        self.rates.begin(second)
        if self._watches:
            self._watches = {
                wanted: watch for wanted, watch in self._watches.items() if watch.until_s > now_s
            }
            for watch in self._watches.values():
                watch.left = WATCHED_A_SECOND

    def _is_watched(self, facts: Facts, door: str) -> bool:
        is_kept = False
        for watch in self._watches.values():
            if watch.fits(facts, door):
                watch.matched += 1
                watch.left -= 1
                is_kept = is_kept or watch.left >= 0
        return is_kept

    def _keep(self, at_s: float, facts: Facts, noted: LoggedDecision) -> None:
        kept = self._kept
        if len(kept) == MAX_RECORDS:
            self._complete_since_s = max(self._complete_since_s, kept[0].at_s)
        kept.append(Entry(self._next, at_s, facts, noted))
        self._next += 1
