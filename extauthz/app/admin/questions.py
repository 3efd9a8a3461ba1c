"""Everything that a process which decides can be asked for the API of the admin listener.

Answers are values that JSON can hold: with several workers they come from other processes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from typing_extensions import TypedDict

from extauthz.app.core import Core
from extauthz.catalog.refresh import CatalogRefresher
from extauthz.errors import ConfigError
from extauthz.model.limits import US_PER_S
from extauthz.serving.workers.control import Questions
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.decision_log.record import LoggedDecision
from extauthz.telemetry.recent.facts import Filter
from extauthz.telemetry.recent.recent_decisions import RecentDecisions

DEPENDENCIES: Final = "dependencies"
"""The calls of dependencies, as `merge_states` takes them."""
DECISIONS: Final = "recent decisions"
DENIALS: Final = "recent denials"
RATES: Final = "recent rates"
CATALOG: Final = "catalog state"
MAX_PROBLEMS: Final = 20
_AT_ONCE: Final = 25
"""Records that are written in one step."""


def answer_admin(core: Core, recent: RecentDecisions | None) -> Questions:
    """The questions of every endpoint, by name; without `recent`, those that need it are left out."""

    async def tell_dependencies(_: object) -> list[dict[str, Any]]:
        return core.dependencies.list_counts()

    return {
        DEPENDENCIES: tell_dependencies,
        **answer_catalog(core.refresher),
        **({} if recent is None else answer_recent(recent)),
    }


def write_time(unix_s: float) -> str:
    """A time as RFC 3339 writes it, in UTC."""
    time_of = datetime.fromtimestamp(unix_s, UTC)
    return time_of.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class CatalogState(TypedDict):
    """The catalog in force."""

    version: str
    loaded: str
    apis: int
    applications: int
    subscriptions: int
    problems: list[str]
    """Why the last load failed; empty when it did not."""


def answer_catalog(refresher: CatalogRefresher) -> Questions:
    """The question for the catalog of this process."""

    async def tell_catalog(_: object) -> CatalogState:
        catalog, error = refresher.catalog, refresher.last_error
        problems = list(error.problems) if isinstance(error, ConfigError) else [error]
        return {
            "version": catalog.revision,
            "loaded": write_time(refresher.loaded_at_us / US_PER_S),
            "apis": len(catalog.apis),
            "applications": len(catalog.applications),
            "subscriptions": len(catalog.subscriptions),
            "problems": [str(it) for it in problems[:MAX_PROBLEMS] if it is not None],
        }

    return {CATALOG: tell_catalog}


def answer_recent(recent: RecentDecisions) -> Questions:
    """The questions about what this process remembers."""

    async def tell_decisions(of: Mapping[str, Any]) -> dict[str, Any]:
        wanted = Filter(**of["filter"])
        if of["watch"]:
            recent.watch(wanted)
        page = recent.find(wanted, limit=of["limit"], after_s=of["after_s"])
        records = await _write_records([it.noted for it in page.entries], recent.masks)
        return {
            "entries": [
                (it.noted.time, it.number, it.noted.decision, record)
                for it, record in zip(page.entries, records, strict=True)
            ],
            "next": page.next,
            "matched": page.matched,
            "complete_since_s": page.complete_since_s,
            "since_s": recent.started_s,
        }

    async def tell_denials(_: object) -> dict[str, Any]:
        groups = [it for it in recent.denials.read() if it.example is not None]
        records = await _write_records([it.example for it in groups if it.example], recent.masks)
        told = [
            {
                **it.facts._asdict(),
                "consumer": recent.masks.hash_text(it.facts.consumer),
                "is_folded": it.is_folded,
                "first_s": it.first_s,
                "last_s": it.last_s,
                "count": it.count,
                "example": record,
            }
            for it, record in zip(groups, records, strict=True)
        ]
        return {"groups": told, "since_s": recent.started_s}

    async def tell_rates(last_step: int) -> dict[str, Any]:
        series = [[*key, counts] for key, counts in recent.rates.read(last_step).items()]
        return {"series": series, "since_s": recent.started_s}

    return {DECISIONS: tell_decisions, DENIALS: tell_denials, RATES: tell_rates}


async def _write_records(noted: Sequence[LoggedDecision], masks: Masks) -> list[str]:
    """The records as JSON. Decisions are made in between: each takes some 20 us to write."""
    written: list[str] = []
    for start in range(0, len(noted), _AT_ONCE):
        written += [json.dumps(it.write(masks)) for it in noted[start : start + _AT_ONCE]]
        await asyncio.sleep(0)
    return written
