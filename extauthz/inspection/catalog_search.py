"""Searches a catalog, which may have a million subscriptions, without holding up decisions.

Entries are compared one after the other, in turns (`extauthz.inspection.slices`), and for
`SEARCH_S` at most. A search that has not come to the end by then gives what it has found, and a
cursor from which the next one goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from extauthz.errors import ExtauthzError
from extauthz.inspection.catalog_entries import (
    LOOKS,
    Asked,
    FoundApplication,
    FoundSubscription,
    Search,
    write_found,
    write_subscription,
)
from extauthz.inspection.slices import LOOK, Turn
from extauthz.model.catalog import Catalog
from extauthz.telemetry.decision_log.masking import Masks

SEARCH_S: Final = 0.2
"""How long one search goes on, so that none keeps a worker busy for long."""
MOST_FOUND: Final = 100
MOST_SUBSCRIPTIONS: Final = 50
"""Subscriptions that are listed with an application."""
_REVISION_DIGITS: Final = 12
KINDS: Final = tuple(LOOKS)
_OF_APPLICATIONS: Final = ("application", "api_key", "consumer_key", "certificate")
_SKIPPED_AT_ONCE: Final = 10_000


class CatalogChanged(ExtauthzError):
    """The cursor is of another catalog than the one in force."""

    code = "catalog_changed"


@dataclass(frozen=True, slots=True)
class Page:
    """What was found, and the cursor of what may follow; empty at the end."""

    results: list[dict[str, Any]]
    next: str


async def search_catalog(
    catalog: Catalog,
    wanted: Search,
    masks: Masks,
    *,
    within_s: float = SEARCH_S,
    monotonic: Callable[[], float] = time.monotonic,
) -> Page:
    """Searches for at most `within_s` seconds.

    Raises:
        CatalogChanged: the cursor is of another catalog, or of none.
    """
    until_s = monotonic() + within_s
    asked, revision = Asked(wanted, masks), catalog.revision[:_REVISION_DIGITS]
    kinds = _choose_kinds(wanted)
    first, skipped = _read_cursor(wanted.after, revision, kinds)
    results: list[dict[str, Any]] = []
    turn = Turn()
    for kind in kinds[kinds.index(first) :]:
        begin = 0
        for table in LOOKS[kind](catalog, asked):
            end = begin + len(table.rows)
            rows = iter(table.rows)
            place = min(max(begin, skipped), end)
            await _skip(rows, place - begin, turn)
            for row in rows:
                place += 1
                found = table.find(row)
                if found is not None:
                    if isinstance(found, FoundApplication):
                        found = await _add_subscriptions(found, catalog, turn)
                    results.append(write_found(found, masks))
                    if len(results) == wanted.most:
                        return Page(results, f"{revision}.{kind}.{place}")
                if place % LOOK == 0 and turn.is_over:
                    if monotonic() >= until_s:
                        return Page(results, f"{revision}.{kind}.{place}")
                    await turn.pass_on()
            begin = end
        skipped = 0
    return Page(results, "")


def _choose_kinds(wanted: Search) -> tuple[str, ...]:
    """The kinds of which something can be found. An exact name leaves out those without it."""
    if wanted.kind:
        return (wanted.kind,)
    kinds = KINDS
    if wanted.application:
        kinds = tuple(it for it in kinds if it not in ("api", "tier"))
    if wanted.api:
        kinds = tuple(it for it in kinds if it not in (*_OF_APPLICATIONS, "tier"))
    return kinds


def _read_cursor(cursor: str, revision: str, kinds: tuple[str, ...]) -> tuple[str, int]:
    if not cursor:
        return kinds[0], 0
    its, _, place = cursor.rpartition(".")
    its, _, kind = its.rpartition(".")
    if its != revision or kind not in kinds or not (place.isascii() and place.isdecimal()):
        raise CatalogChanged("the cursor is not of the catalog in force; search again without it")
    return kind, int(place[:12])


async def _skip(rows: Iterator[object], count: int, turn: Turn) -> None:
    while count > 0:
        deque(islice(rows, min(count, _SKIPPED_AT_ONCE)), maxlen=0)
        count -= _SKIPPED_AT_ONCE
        if turn.is_over:
            await turn.pass_on()


async def _add_subscriptions(
    found: FoundApplication, catalog: Catalog, turn: Turn
) -> FoundApplication:
    listed: list[FoundSubscription] = []
    count = 0
    for number, (api, version, of_api) in enumerate(catalog.subscriptions.list_by_api(), 1):
        terms = of_api.get(found.name)
        if terms is not None:
            count += 1
            if len(listed) < MOST_SUBSCRIPTIONS:
                listed.append(write_subscription(found.name, api, version, terms))
        if number % LOOK == 0 and turn.is_over:
            await turn.pass_on()
    return found._replace(subscription_count=count, subscriptions=tuple(listed))
