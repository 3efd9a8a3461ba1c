"""``extauthz blocks``: lists what is blocked and revoked beside the catalog."""

from __future__ import annotations

import argparse
import asyncio
import json
import time

from extauthz.app.emergency import opened_stores
from extauthz.cli.emergency.orders import add_common_arguments, complain, say_entry
from extauthz.emergency.entries import Entry, write_tree
from extauthz.emergency.reading import Reading
from extauthz.errors import ExtauthzError
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    add_common_arguments(parser, places_order=False)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when a place cannot be read, or something there is wrong."""
    return asyncio.run(_list(read_settings(arguments.config), is_json=arguments.json))


async def _list(settings: Settings, *, is_json: bool) -> int:
    entries: list[Entry] = []
    problems: list[str] = []
    async with opened_stores(settings) as stores:
        for store in stores:
            try:
                reading = await store.look() or Reading()
            except ExtauthzError as error:
                problems.append(str(error))
                continue
            entries += reading.entries.values()
            problems += map(str, reading.problems)
    now_us = time.time_ns() // 1000
    if is_json:
        told = [
            {
                "id": entry.id,
                "kind": entry.section,
                "from": entry.source,
                "is_over": entry.is_over(now_us),
                **write_tree(entry.document),
            }
            for entry in entries
        ]
        print(json.dumps({"entries": told, "problems": problems}, indent=2))
    else:
        for entry in entries:
            over = " [is over]" if entry.is_over(now_us) else ""
            who = f", by {entry.document.by}" if entry.document.by else ""
            print(f"{entry.id}{over}: {say_entry(entry)}{who}, from {entry.source}")
        if not entries:
            print("nothing is blocked or revoked beside the catalog")
        for problem in problems:
            complain(problem)
    return 1 if problems else 0
