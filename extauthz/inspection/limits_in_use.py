"""Lists the limits of which the largest share is used, with what is left of them now.

Which counters these are is remembered from takings (`extauthz.policy.limits.most_used`). When
somebody asks, they are read again from where they are counted, and sorted by what is found. So the
numbers are exact, and a limit is listed once one of its requests has come to this process.

Callers can make up addresses and values, and use up a small limit with each: half of what is listed
is kept for subjects that the catalog names, as long as there are such.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple, TypeVar

from extauthz.documents.document import write_duration
from extauthz.errors import CounterStoreError
from extauthz.inspection.catalog_entries import write_us
from extauthz.inspection.slices import LOOK, Turn
from extauthz.model.limits import Algorithm, Charge, Limit, LimitLevel, Reading
from extauthz.policy.limits.calendar_windows import plan_calendar_bounds
from extauthz.policy.limits.most_used import MostUsed, UsedLimit, find_share, is_open
from extauthz.ports import Clock
from extauthz.telemetry.decision_log.masking import (
    ClientAddress,
    ConsumerKey,
    Masks,
    Name,
    User,
    list_fields,
    write_fields,
)

MOST_LISTED: Final = 200
_Row = TypeVar("_Row")
_AT_ONCE: Final = 100
"""Counters that are read in one call."""


@dataclass(frozen=True, slots=True)
class CounterReading:
    """What a counter holds.

    Attributes:
        limit: the limit that `reading` was read with.
        leased: units that this process has charged in advance and not spent.
        is_of_outage: this process counts by itself, up to its share of the limit.
    """

    limit: int
    reading: Reading
    leased: int = 0
    is_of_outage: bool = False


ReadCounters = Callable[[Sequence[Charge]], Awaitable[Sequence[CounterReading]]]
"""Reads counters, and takes nothing. Raises CounterStoreError when they cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitFilter:
    """Which limits are wanted; empty for all. `most` is how many at most."""

    most: int = 50
    level: str = ""
    application: str = ""
    api: str = ""

    def fits(self, used: UsedLimit) -> bool:
        """Whether a limit is wanted."""
        return (
            self.level in ("", used.planned.level.value)
            and self.application in ("", used.application)
            and self.api in ("", used.api)
        )


class LimitInUse(NamedTuple):
    """One limit with what is left of it. One of the consumer's fields is not empty, or none."""

    level: Name
    tier: Name
    api: Name
    version: Name
    resource: Name
    application: Name
    consumer_key: ConsumerKey
    user: User
    client_address: ClientAddress
    subject: ConsumerKey
    consumer_kind: Name
    algorithm: Name
    window: Name
    unit: Name
    limit: int
    used: int
    remaining: int
    leased: int
    resets: Name
    enforced: bool
    counted: Name
    is_fresh: bool


_FIELDS: Final = list_fields(LimitInUse)
_CONSUMERS: Final = ("application", "consumer_key", "user", "client_address", "subject")


class LimitsInUse:
    """Lists limits of one process.

    Args:
        is_shared: whether other processes count in the same place.
    """

    def __init__(
        self,
        most_used: MostUsed,
        read: ReadCounters,
        clock: Clock,
        masks: Masks,
        *,
        is_shared: bool,
    ) -> None:
        self._most_used = most_used
        self._read = read
        self._clock = clock
        self._masks = masks
        self._is_shared = is_shared

    async def find(self, wanted: LimitFilter) -> list[dict[str, Any]]:
        """The limits, the nearest to its end first; values that JSON can hold.

        Each has the key of its counter, by which `merge` knows it, and `is_open`; the key is not
        masked, and neither must be shown.
        """
        fitting = [used for used in self._most_used.rank() if wanted.fits(used)]
        in_use: list[tuple[float, UsedLimit, CounterReading, bool]] = []
        turn = Turn()
        for start in range(0, len(fitting), _AT_ONCE):
            for used, found, is_fresh in await self._read_again(fitting[start : start + _AT_ONCE]):
                share = find_share(found.limit, found.reading.remaining)
                if share > 0:
                    in_use.append((share, used, found, is_fresh))
            await turn.pass_on()
        in_use.sort(key=lambda it: it[0], reverse=True)
        now_us, rows = self._clock.now_us(), []
        chosen = _choose(in_use, wanted.most, lambda it: is_open(it[1]))
        for number, (_, used, found, is_fresh) in enumerate(chosen, 1):
            row = self._write(used, found, now_us, is_fresh=is_fresh)
            rows.append({"key": used.planned.charge.key, "is_open": is_open(used), **row})
            if number % LOOK == 0 and turn.is_over:
                await turn.pass_on()
        return rows

    async def _read_again(
        self, some: Sequence[UsedLimit]
    ) -> list[tuple[UsedLimit, CounterReading, bool]]:
        now_us = self._clock.now_us()
        try:
            found = await self._read([_find_charge(used, now_us) for used in some])
        except CounterStoreError:
            return [
                (used, CounterReading(used.planned.charge.limit, used.reading), False)
                for used in some
            ]
        return [(used, one, True) for used, one in zip(some, found, strict=True)]

    def _write(
        self, used: UsedLimit, found: CounterReading, now_us: int, *, is_fresh: bool
    ) -> dict[str, Any]:
        planned, limit = used.planned, used.limit
        counted = "shared" if self._is_shared else "process"
        record = LimitInUse(
            level=Name(planned.level.value),
            tier=Name(planned.name),
            api=Name(used.api),
            version=Name(used.version),
            resource=Name(used.resource),
            application=Name(used.application),
            consumer_key=ConsumerKey(used.consumer_key),
            user=User(used.user),
            client_address=ClientAddress(used.client_address),
            subject=ConsumerKey(used.subject),
            consumer_kind=Name(next((it for it in _CONSUMERS if getattr(used, it)), "")),
            algorithm=Name(limit.algorithm.value),
            window=Name(_write_window(limit)),
            unit=Name(limit.quota_unit.value),
            limit=found.limit,
            used=max(0, found.limit - found.reading.remaining),
            remaining=found.reading.remaining,
            leased=found.leased,
            resets=Name(write_us(now_us + found.reading.reset_us)),
            enforced=planned.charge.enforced,
            counted=Name("outage" if found.is_of_outage else counted),
            is_fresh=is_fresh,
        )
        written: dict[str, Any] = write_fields(record, _FIELDS, self._masks)
        return written


def merge(answers: Iterable[Sequence[Mapping[str, Any]]], *, most: int) -> list[dict[str, Any]]:
    """The limits that several processes list, each once, without the keys of counters.

    A counter that processes share is the same in all of them, but for the units that each holds in
    advance. Where each counts by itself, the one that has used most is shown.
    """
    by_key: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for listed in answer:
            one = dict(listed)
            key = one.pop("key")
            known = by_key.get(key)
            if known is not None:
                leased = one["leased"] + known["leased"]
                one = {**(one if _rank(one) > _rank(known) else known), "leased": leased}
            by_key[key] = one
    merged = sorted(by_key.values(), key=_rank, reverse=True)
    chosen = _choose(merged, most, lambda one: bool(one["is_open"]))
    return [_show_consumer(one) for one in chosen]


def _choose(ranked: Sequence[_Row], most: int, is_open: Callable[[_Row], bool]) -> list[_Row]:
    """The first of them. Open subjects get half of the places, and those that others leave."""
    kinds = [is_open(one) for one in ranked]
    places = max(most // 2, most - kinds.count(False))
    chosen: list[_Row] = []
    for one, of_open in zip(ranked, kinds, strict=True):
        if len(chosen) < most and (not of_open or places > 0):
            chosen.append(one)
            places -= of_open
    return chosen


def _rank(one: Mapping[str, Any]) -> tuple[bool, float]:
    return one["is_fresh"], find_share(one["limit"], one["remaining"])


def _show_consumer(one: Mapping[str, Any]) -> dict[str, Any]:
    hidden = (*_CONSUMERS, "is_open")
    shown = {name: value for name, value in one.items() if name not in hidden}
    kind = one["consumer_kind"]
    shown["application"] = one["application"]
    shown["consumer"] = one[kind] if kind else ""
    shown["share"] = round(find_share(one["limit"], one["remaining"]), 4)
    return shown


def _find_charge(used: UsedLimit, now_us: int) -> Charge:
    charge, limit = used.planned.charge, used.limit
    if limit.algorithm is not Algorithm.CALENDAR:
        return charge
    assert limit.unit is not None and limit.timezone is not None
    return replace(charge, bounds=plan_calendar_bounds(limit.unit, limit.timezone, now_us))


def _write_window(limit: Limit) -> str:
    return limit.unit.value if limit.unit else write_duration(limit.window_us)


LEVELS: Final = tuple(level.value for level in LimitLevel)
"""The words that `LimitFilter.level` may have."""
