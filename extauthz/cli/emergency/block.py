"""``extauthz block``: refuses a client, consumer, user or API on every replica, at once."""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Sequence

from extauthz.app.emergency import opened_stores
from extauthz.catalog.documents.networks import parse_network
from extauthz.cli.emergency.orders import (
    add_common_arguments,
    choose_store,
    complain,
    list_misfits,
    load_names,
    make_order,
    say_entry,
    say_placed,
)
from extauthz.emergency.entries import Entry
from extauthz.emergency.names import CatalogNames
from extauthz.emergency.placing import place
from extauthz.settings.reading import read_settings
from extauthz.settings.tree import Settings

SELECTORS = {
    "ip": "client address or network, like 203.0.113.0/24",
    "api": "name of an API",
    "version": "version of that API; all when left out",
    "application": "name of an application",
    "consumer_key": "consumer key (client id) of OAuth2 tokens",
    "user": "name of a user",
}


def add_selectors(parser: argparse.ArgumentParser) -> None:
    """Adds what a block names."""
    for name, meaning in SELECTORS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=meaning)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.description = (
        "Refuse whatever fits all that is given, on every replica within a second, whatever is "
        "wrong in the catalog. `extauthz unblock` takes it back."
    )
    add_selectors(parser)
    add_common_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when nothing was done, or a process does not have it in force."""
    selected = {name: getattr(arguments, name) for name in SELECTORS}
    try:
        order = make_order("deny", arguments, **selected)
    except ValueError as error:
        complain(str(error))
        return 2
    if arguments.ip and not arguments.force and not parse_network(arguments.ip).prefixlen:
        complain(f"--ip {arguments.ip} is every client; with --force it is blocked all the same")
        return 1
    return asyncio.run(give(order, read_settings(arguments.config), arguments))


async def give(
    order: Entry, settings: Settings, arguments: argparse.Namespace, keys: Sequence[bytes] = ()
) -> int:
    """Checks an order against the catalog, writes it, and prints what was done.

    Args:
        keys: ways in which a catalog may know the API key that is meant.
    """
    catalog, unchecked = await load_names(settings)
    misfits = list_misfits(catalog, order)
    found = (
        [] if catalog is None else [catalog.api_keys[it] for it in keys if it in catalog.api_keys]
    )
    if keys and catalog is not None and not found:
        misfits.append("no API key in the catalog has this hash")
    for misfit in misfits:
        complain(misfit)
    if misfits and not arguments.force:
        complain("nothing was done; with --force it is written all the same")
        return 1
    async with opened_stores(settings) as stores:
        store = choose_store(stores, wants_file=arguments.file)
        placed = await place(store, {order.id: order})
    fits = "" if catalog is None else CatalogNames(catalog).say_fits(order.document)
    if found:
        holder = found[0].application
        fits = "an API key" if holder is None else f"an API key of application {holder.name!a}"
    warnings = [*misfits, *([f"names were not checked: {unchecked}"] if unchecked else [])]
    if arguments.json:
        told = {
            "id": order.id,
            "written_to": placed.where,
            "processes": placed.alive,
            "in_force": placed.in_force,
            "fits": fits,
            "warnings": warnings,
        }
        print(json.dumps(told, indent=2))
    else:
        print(f"{order.id}: {say_entry(order)}")
        if fits:
            print(f"fits {fits}")
        print(say_placed(placed))
        if unchecked:
            complain(warnings[-1])
    return 0 if placed.in_force == placed.alive else 1
