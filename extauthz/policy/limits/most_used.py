"""Remembers the counters that are used most, so that an operator can ask who is near a limit.

A counter store cannot say this: its keys are many, and name neither the limit nor, where they are
long, the consumer. So each taking is noted here with its limit and its reading, and the counters of
which the largest share is used are kept, `MOST_KEPT` at most. What is kept says which counters to
read again when somebody asks; the readings themselves are as old as the last taking.

Anybody can make up addresses and values without an end, and use up a small limit with each. So the
counters of subjects that the catalog does not name have places of their own, `MOST_OPEN_KEPT`, and
never take one of an application, API or resource.

The limits of a consumer on a resource are noted once in a second, however many of its requests
come: what is counted meanwhile is found when they are read again. A counter that is unused again
makes room for others first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from extauthz.model.limits import LimitLevel, Reading
from extauthz.policy.limits.limited_request import LimitedRequest
from extauthz.policy.limits.tier_limits import PlannedLimit

MOST_KEPT: Final = 1_000
MOST_OPEN_KEPT: Final = MOST_KEPT // 2
_NOTED_AGAIN_US: Final = 1_000_000
_MOST_NOTED: Final = 10_000
"""Consumers on resources that are known to be noted in the current second."""
_FLOOR_US: Final = 10_000_000
"""How long less used counters are turned away after others had no place."""

_API: Final = LimitLevel.API
_RESOURCE: Final = LimitLevel.RESOURCE
_CUSTOM: Final = LimitLevel.CUSTOM
_CLIENT: Final = LimitLevel.CLIENT
_SUBSCRIPTION: Final = LimitLevel.SUBSCRIPTION


class UsedLimit:
    """One counter, with what it counts, and its last reading.

    Attributes:
        api, version: empty where the counter is of all APIs.
        resource: the template, at level RESOURCE.
        application: empty where the counter is of all callers, or the catalog knows no application.
        consumer_key, user, client_address: who is counted where no application is known.
        subject: what a custom limit counts; it may hold anything of the request.
        reading: the last one.
        at_us: its time, by the store's clock.
    """

    __slots__ = (
        "api",
        "application",
        "at_us",
        "client_address",
        "consumer_key",
        "limit",
        "planned",
        "reading",
        "resource",
        "subject",
        "user",
        "version",
    )

    def __init__(
        self, planned: PlannedLimit, limited: LimitedRequest, reading: Reading, at_us: int
    ) -> None:
        level, api, identity = planned.counted, limited.route.api, limited.identity
        is_of_api = level is _API or level is _RESOURCE or level is _SUBSCRIPTION
        self.planned = planned
        self.limit = planned.limit
        self.reading = reading
        self.at_us = at_us
        self.api = api.name if is_of_api else ""
        self.version = api.version if is_of_api else ""
        self.resource = limited.route.resource.template if level is _RESOURCE else ""
        self.application = ""
        self.consumer_key = ""
        self.user = ""
        self.client_address = ""
        self.subject = ""
        if level is _CUSTOM:
            self.subject = planned.charge.key.partition("|")[0]
        elif level is _CLIENT:
            self.client_address = limited.client_address
        elif level is not _API and level is not _RESOURCE:
            if identity.application is not None:
                self.application = identity.application.name
            elif identity.consumer_key:
                self.consumer_key = identity.consumer_key
            elif identity.user:
                self.user = identity.user
            else:
                self.client_address = limited.client_address

    @property
    def share(self) -> float:
        """How much of the limit is used, from 0 to 1."""
        return find_share(self.planned.charge.limit, self.reading.remaining)


def find_share(limit: int, remaining: int) -> float:
    """How much of a limit is used, from 0 to 1. A limit of 0 is always used up."""
    return 1.0 - remaining / limit if limit else 1.0


def is_open(used: UsedLimit) -> bool:
    """Whether the catalog does not name what is counted, so that there can be any number of it."""
    return _is_open(used.planned, has_application=bool(used.application))


class MostUsed:
    """The counters of this process's takings of which the largest share is used."""

    __slots__ = ("_named", "_noted", "_noted_until_us", "_open")

    def __init__(self) -> None:
        self._noted: dict[int, Sequence[PlannedLimit]] = {}
        """By identity: what the planner gives for a consumer on a resource is one object."""
        self._noted_until_us = 0
        self._named = _Shelf(MOST_KEPT)
        self._open = _Shelf(MOST_OPEN_KEPT)

    def __len__(self) -> int:
        """The number of counters that are held."""
        return len(self._named.used) + len(self._open.used)

    def note(
        self,
        limited: LimitedRequest,
        planned: Sequence[PlannedLimit],
        readings: Sequence[Reading],
        at_us: int,
    ) -> None:
        """Notes what a taking found: a reading for each limit; `at_us` is the store's time."""
        noted = self._noted
        if at_us >= self._noted_until_us or len(noted) >= _MOST_NOTED:
            noted.clear()
            self._noted_until_us = at_us + _NOTED_AGAIN_US
        elif noted.get(id(planned)) is planned:
            return
        noted[id(planned)] = planned
        has_application = limited.identity.application is not None
        for one, reading in zip(planned, readings):  # noqa: B905  (`strict` takes longer)
            of_open = _is_open(one, has_application=has_application)
            shelf = self._open if of_open else self._named
            known = shelf.used.get(one.charge.key)
            if known is not None and known.limit is one.limit:
                known.reading = reading
                known.at_us = at_us
            elif shelf.has_place(one.charge.limit, reading.remaining, at_us):
                shelf.used[one.charge.key] = UsedLimit(one, limited, reading, at_us)

    def rank(self) -> list[UsedLimit]:
        """The counters, most used first by their last reading; `MOST_KEPT` at most."""
        of_open = self._open.rank()
        named = self._named.rank()[: MOST_KEPT - len(of_open)]
        return sorted((*named, *of_open), key=_by_use, reverse=True)


class _Shelf:
    """The counters of one kind: twice `most` at most, of which `most` are kept."""

    __slots__ = ("_floor", "_floor_until_us", "_most", "used")

    def __init__(self, most: int) -> None:
        self.used: dict[str, UsedLimit] = {}
        """By key."""
        self._most = most
        self._floor = 0.0
        """The least share for which a counter is taken in."""
        self._floor_until_us = 0

    def rank(self) -> list[UsedLimit]:
        return sorted(self.used.values(), key=_by_use, reverse=True)[: self._most]

    def has_place(self, limit: int, remaining: int, at_us: int) -> bool:
        """Whether a counter is taken in; makes room for it."""
        if self._is_below_floor(limit, remaining, at_us):
            return False
        if len(self.used) >= 2 * self._most:
            self._make_room(at_us)
        return True

    def _is_below_floor(self, limit: int, remaining: int, at_us: int) -> bool:
        if not self._floor:
            return False
        if at_us >= self._floor_until_us:
            self._floor = 0.0
            return False
        return find_share(limit, remaining) < self._floor

    def _make_room(self, at_us: int) -> None:
        """Keeps the most used half, of those that are used at all now."""
        still = [it for it in self.used.values() if it.at_us + it.reading.reset_us > at_us]
        still.sort(key=_by_use, reverse=True)
        if len(still) > self._most:
            self._floor = still[self._most].share
            self._floor_until_us = at_us + _FLOOR_US
            del still[self._most :]
        self.used.clear()
        for it in still:
            self.used[it.planned.charge.key] = it


def _is_open(planned: PlannedLimit, *, has_application: bool) -> bool:
    level = planned.counted
    if level is _API or level is _RESOURCE:
        return False
    if level is _CUSTOM:
        return bool(planned.charge.origin)
    return level is _CLIENT or not has_application


def _by_use(used: UsedLimit) -> tuple[float, int]:
    """The largest share first; of equal ones, the one of which most was used."""
    limit, remaining = used.planned.charge.limit, used.reading.remaining
    return find_share(limit, remaining), limit - remaining
