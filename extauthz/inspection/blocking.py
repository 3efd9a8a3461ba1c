"""Lists who is blocked and what is revoked, and blocks and unblocks where the command line does.

What is listed is in force in this process. A change is written to the first place of blocks and
revocations (Redis, else a file), and logged with who asked for it. Repeating one changes nothing
more: a block is named by what it refuses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from pydantic import Field, ValidationError

from extauthz.catalog.documents.networks import parse_network
from extauthz.documents.document import Line, PositiveDuration, StrictModel
from extauthz.documents.document import Name as GivenName
from extauthz.emergency.entries import BlockDocument, Entry, make_entry, write_time
from extauthz.emergency.names import CatalogNames
from extauthz.emergency.placing import place
from extauthz.emergency.reading import EmergencyStore, Reading
from extauthz.emergency.watch import EmergencyWatch
from extauthz.errors import ExtauthzError
from extauthz.inspection.slices import LOOK, Turn
from extauthz.model.catalog import Catalog
from extauthz.plain_text import write_plain
from extauthz.ports import Clock
from extauthz.telemetry.decision_log.masking import (
    ConsumerKey,
    Digest,
    Masks,
    Name,
    Sentence,
    User,
    list_fields,
    write_fields,
)

MOST_LISTED: Final = 1_000
CONFIRM_S: Final = 1.0
"""Longest wait for processes to confirm a change; they poll four times a second."""
_MOST_TOLD: Final = 20
"""Problems that are told."""
_DIGITS: Final = 12
"""Of a hash that are shown."""

_log: Final = logging.getLogger(__name__)

OpenStores = Callable[[], AbstractAsyncContextManager[Sequence[EmergencyStore]]]
"""Opens the places of blocks and revocations, the first one for new entries."""


class NotBlocked(ExtauthzError):
    """A block was not written, as it would not do what is meant; `force` writes it all the same."""

    code = "not_blocked"


class BadBlock(ExtauthzError):
    """What a block is to refuse is not said, or contradicts itself."""

    code = "bad_block"


class BlockOrder(StrictModel):
    """Refuses what fits all that is given."""

    ip: GivenName | None = None
    """Client address or network, like 203.0.113.0/24."""
    api: GivenName | None = None
    """Name of an API."""
    version: GivenName | None = None
    """Version of that API; all versions when left out."""
    application: GivenName | None = None
    """Name of an application."""
    consumer_key: GivenName | None = None
    """Consumer key (client id) of OAuth2 tokens."""
    user: GivenName | None = None
    """Name of a user."""
    reason: Line = ""
    """Why, for whoever finds it later."""
    duration: PositiveDuration | None = Field(default=None, alias="for")
    """It ends by itself after this time, like 30m or 1h; never if left out."""
    force: bool = False
    """Write it even if it fits nothing in the catalog, or everybody."""


class ListedEntry(NamedTuple):
    """A block or a revocation."""

    id: Name
    kind: Name
    source: Name
    in_force: bool
    ip: Name
    api: Name
    version: Name
    application: Name
    consumer_key: ConsumerKey
    user: User
    jti: ConsumerKey
    sha256: Digest
    issuer: Name
    issued_before: Name
    reason: Sentence
    by: Name
    at: Name
    until: Name


_FIELDS: Final = list_fields(ListedEntry)


class Blocking:
    """The blocks and revocations of a service. `open_stores` is as in `OpenStores`."""

    def __init__(
        self,
        watch: EmergencyWatch,
        catalog: Callable[[], Catalog],
        open_stores: OpenStores,
        clock: Clock,
        masks: Masks,
    ) -> None:
        self._watch = watch
        self._catalog = catalog
        self._open_stores = open_stores
        self._clock = clock
        self._masks = masks

    async def list(self, most: int) -> dict[str, Any]:
        """What is in force here, and what of its sources cannot be read or is wrong."""
        entries = self._watch.entries
        turn, now_us, listed = Turn(), self._clock.now_us(), []
        for number, entry in enumerate(entries[:most], 1):
            listed.append(self._write(entry, now_us))
            if number % LOOK == 0 and turn.is_over:
                await turn.pass_on()
        problems = [str(problem) for problem in self._watch.problems]
        problems += [
            f"{name} cannot be read: {error}" for name, error in self._watch.errors.items()
        ]
        return {"blocks": listed, "count": len(entries), "problems": problems[:_MOST_TOLD]}

    async def block(self, order: BlockOrder, who: str) -> dict[str, Any]:
        """Writes a block, and tells where it is in force.

        Args:
            who: is written into it, and logged.

        Raises:
            BadBlock: it says nothing, or contradicts itself.
            NotBlocked: it fits nothing in the catalog, or everybody.
            ConfigError, EmergencyError: it was not written, or it is not known whether it was.
        """
        entry = self._make(order, who)
        names = CatalogNames(self._catalog(), is_discreet=True)
        # The names of a large catalog are gathered for this; meanwhile decisions go on.
        misfits = await asyncio.to_thread(lambda: list(names.list_misfits(entry.document)))
        if order.ip and not parse_network(order.ip).prefixlen:
            misfits.append(f"ip {order.ip} is every client")
        if misfits and not order.force:
            raise NotBlocked(f"{'; '.join(misfits)}; with force it is blocked all the same")
        fits = await asyncio.to_thread(names.say_fits, entry.document)
        async with self._open_stores() as stores:
            was_there = entry.id in (await _look(stores[0])).entries
            placed = await place(stores[0], {entry.id: entry}, within_s=CONFIRM_S)
        _log.warning(
            "%s has %s %s in %s", write_plain(who), "renewed" if was_there else "written",
            entry.id, placed.where,
        )  # fmt: skip
        return {
            "id": entry.id,
            "created": not was_there,
            "written_to": placed.where,
            "processes": placed.alive,
            "in_force": placed.in_force,
            "fits": fits,
            "warnings": misfits,
        }

    async def unblock(self, entry_id: str, who: str) -> dict[str, Any]:
        """Takes a block or revocation out of every place that has it.

        Raises:
            ConfigError, EmergencyError: a place could not be read or written; those before it were.
        """
        taken_from: list[str] = []
        async with self._open_stores() as stores:
            for store in stores:
                if entry_id in (await _look(store)).entries:
                    placed = await place(store, {entry_id: None}, within_s=CONFIRM_S)
                    taken_from.append(placed.where)
        if taken_from:
            where = " and ".join(taken_from)
            _log.warning("%s has taken %s back from %s", write_plain(who), entry_id, where)
        return {"id": entry_id, "removed": bool(taken_from), "taken_from": taken_from}

    def _make(self, order: BlockOrder, who: str) -> Entry:
        now = datetime.fromtimestamp(self._clock.now_us() // 1_000_000, UTC)
        fields = order.model_dump(exclude={"duration", "force"}, exclude_none=True)
        fields |= {"by": who, "at": now}
        if order.duration is not None:
            fields["until"] = now + timedelta(microseconds=order.duration)
        try:
            return make_entry("deny", BlockDocument.model_validate(fields))
        except ValidationError as exc:
            raise BadBlock(_say_invalid(exc)) from None

    def _write(self, entry: Entry, now_us: int) -> dict[str, Any]:
        document = entry.document
        given: Mapping[str, str] = document.conditions
        issued_before = getattr(document, "issued_before", None)
        record = ListedEntry(
            id=Name(entry.id),
            kind=Name("block" if entry.section == "deny" else "revocation"),
            source=Name(entry.source),
            in_force=not entry.is_over(now_us),
            ip=Name(given.get("ip", "")),
            api=Name(given.get("api", "")),
            version=Name(given.get("version", "")),
            application=Name(given.get("application", "")),
            consumer_key=ConsumerKey(given.get("consumer_key", "")),
            user=User(given.get("user", "")),
            jti=ConsumerKey(given.get("jti", "")),
            sha256=Digest(given.get("sha256", "")[:_DIGITS]),
            issuer=Name(given.get("issuer", "")),
            issued_before=_write_time(issued_before),
            reason=Sentence(document.reason),
            by=Name(document.by),
            at=_write_time(document.at),
            until=_write_time(document.until),
        )
        written: dict[str, Any] = write_fields(record, _FIELDS, self._masks)
        return written


async def _look(store: EmergencyStore) -> Reading:
    return await store.look() or Reading()


def _write_time(time: datetime | None) -> Name:
    return Name("" if time is None else write_time(time))


def _say_invalid(error: ValidationError) -> str:
    """What is wrong with a block, without the values."""
    said = []
    for details in error.errors(include_url=False, include_input=False):
        place_of = "".join(f"{part}: " for part in details["loc"][:1])
        said.append(place_of + str(details.get("ctx", {}).get("error", details["msg"])))
    return "; ".join(said)
