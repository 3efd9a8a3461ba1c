"""Writes blocks and revocations, and waits until they are in force."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from extauthz.emergency.entries import Entry
from extauthz.emergency.reading import EmergencyStore
from extauthz.emergency.redis_scripts import find_counter

CONFIRM_S: Final = 3.0
"""Longest wait for processes to confirm an order. They poll four times a second."""
_LOOK_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Where an order was written.

    Attributes:
        alive: the number of processes that confirm what they have in force.
        in_force: the number of those that have the order in force.
    """

    where: str
    alive: int = 0
    in_force: int = 0


async def place(
    store: EmergencyStore, entries: Mapping[str, Entry | None], *, within_s: float = CONFIRM_S
) -> Placed:
    """Writes an order, and waits until the processes that read it have it in force.

    Raises:
        ConfigError, EmergencyError: it was not written, or it is not known whether it was.
    """
    revision = await store.write(entries)
    if not revision:
        return Placed(where=store.name)
    wanted = find_counter(revision)
    try:
        async with asyncio.timeout(within_s):
            while True:
                said = await store.list_confirmed()
                done = sum(find_counter(its) >= wanted for its in said.values())
                if done == len(said):
                    return Placed(where=store.name, alive=len(said), in_force=done)
                await asyncio.sleep(_LOOK_S)
    except TimeoutError:
        said = await store.list_confirmed()
        done = sum(find_counter(its) >= wanted for its in said.values())
        return Placed(where=store.name, alive=len(said), in_force=done)
