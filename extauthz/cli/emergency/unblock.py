"""``extauthz unblock``: removes blocks and revocations, by their ids or by what they name."""

from __future__ import annotations

import argparse
import asyncio
import json

from extauthz.app.emergency import opened_stores
from extauthz.cli.emergency.block import SELECTORS, add_selectors
from extauthz.cli.emergency.orders import (
    add_common_arguments,
    complain,
    say_entry,
    say_placed,
)
from extauthz.emergency.entries import BlockDocument, Entry
from extauthz.emergency.placing import Placed, place
from extauthz.emergency.reading import Reading
from extauthz.errors import ExtauthzError
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.description = (
        "Take back what `extauthz block` and `extauthz revoke` have ordered, by its ids or by "
        "what a block names. Deny rules of the catalog are taken back in the catalog."
    )
    parser.add_argument("ids", nargs="*", metavar="ID", help="as `extauthz blocks` lists it")
    parser.add_argument("--all", action="store_true", help="everything")
    add_selectors(parser)
    add_common_arguments(parser, places_order=False)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when there is nothing of the kind, or a process still has it in force."""
    given = {name: getattr(arguments, name) for name in SELECTORS}
    selected = {name: text for name, text in given.items() if text is not None}
    if [bool(arguments.ids), bool(selected), arguments.all].count(True) != 1:
        complain("write ids, or what the block names, or --all")
        return 2
    conditions: dict[str, str] = {}
    if selected:
        try:
            conditions = BlockDocument.model_validate(selected).conditions
        except ValueError:
            complain("this names no block; write it as for `extauthz block`")
            return 2
    settings = read_settings(arguments.config)
    return asyncio.run(_take_back(settings, arguments, conditions))


async def _take_back(
    settings: Settings, arguments: argparse.Namespace, conditions: dict[str, str]
) -> int:
    def is_meant(entry_id: str, entry: Entry | None) -> bool:
        if arguments.all or entry_id in arguments.ids:
            return True
        return (
            entry is not None
            and bool(conditions)
            and entry.section == "deny"
            and entry.document.conditions == conditions
        )

    taken: list[tuple[str, Entry | None, Placed]] = []
    is_good = True
    async with opened_stores(settings) as stores:
        for store in stores:
            try:
                reading = await store.look() or Reading()
            except ExtauthzError as error:
                complain(f"nothing is taken from {store.name}: {error}")
                is_good = False
                continue
            ids = dict.fromkeys((*reading.entries, *arguments.ids))
            meant = {
                it: reading.entries.get(it) for it in ids if is_meant(it, reading.entries.get(it))
            }
            if not any(meant.values()) and not (meant and reading.problems):
                continue
            placed = await place(store, dict.fromkeys(meant))
            taken += [(it, entry, placed) for it, entry in meant.items() if entry is not None]
            is_good = is_good and placed.alive == placed.in_force
            for problem in reading.problems:
                complain(str(problem))
            if reading.problems and placed.where != "redis":
                complain(f"{placed.where} takes nothing back until that is mended")
                is_good = False
    if arguments.json:
        told = [{"id": it, "taken_from": placed.where} for it, _, placed in taken]
        print(json.dumps({"taken_back": told}, indent=2))
    for entry_id, entry, placed in () if arguments.json else taken:
        if entry is not None:
            print(f"{entry_id} is taken back: {say_entry(entry)}; {say_placed(placed)}")
    if not taken and not is_good:
        return 1
    if not taken:
        complain("nothing of the kind is blocked or revoked; `extauthz blocks` lists what is")
        return 1
    return 0 if is_good else 1
