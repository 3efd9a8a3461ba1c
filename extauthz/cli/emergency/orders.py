"""Makes and writes orders, for ``extauthz block``, ``unblock``, ``revoke`` and ``blocks``.

Orders are written to Redis, where every replica reads them; without one, or with ``--file``, to the
first file of ``emergency.files``. The catalog is read only to check whether names fit: a wrong
catalog does not prevent an order.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import socket
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from extauthz.app.catalog import load_catalog
from extauthz.documents.document import read_duration_us
from extauthz.emergency.entries import SECTIONS, Entry, make_entry, write_tree
from extauthz.emergency.files import EmergencyFile
from extauthz.emergency.names import CatalogNames
from extauthz.emergency.placing import Placed
from extauthz.emergency.reading import EmergencyStore
from extauthz.errors import ConfigError, ExtauthzError, Problem
from extauthz.model.catalog import Catalog
from extauthz.plain_text import write_plain
from extauthz.settings.reading import DEFAULT_FILE
from extauthz.settings.tree import Settings

CATALOG_S: Final = 10.0
"""Longest time that an order waits for the catalog."""


def add_common_arguments(parser: argparse.ArgumentParser, *, places_order: bool = True) -> None:
    """Adds the arguments that all of these commands have."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(DEFAULT_FILE),
        metavar="FILE",
        help=f"settings file (default: {DEFAULT_FILE})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    if places_order:
        parser.add_argument("--reason", default="", help="the reason, for those who find it later")
        parser.add_argument("--by", default="", help="who asks for it (default: you, on this host)")
        parser.add_argument(
            "--for",
            dest="duration",
            metavar="DURATION",
            help="it ends by itself after this time, like 30m or 1h",
        )
        parser.add_argument(
            "--file",
            action="store_true",
            help="write to emergency.files, even when there is a Redis",
        )
        parser.add_argument(
            "--force", action="store_true", help="write it even if it fits nothing, or everybody"
        )


def make_order(section: str, arguments: argparse.Namespace, **fields: Any) -> Entry:
    """The entry that the arguments ask for.

    Raises:
        ValueError: they are not valid; the text says why.
    """
    now = datetime.now(UTC).replace(microsecond=0)
    fields |= {"reason": arguments.reason, "by": arguments.by or _say_who(), "at": now}
    if arguments.duration is not None:
        try:
            length = timedelta(microseconds=read_duration_us(arguments.duration))
        except ValueError as exc:
            raise ValueError(f"--for {exc}") from None
        fields["until"] = now + length
    given = {key: value for key, value in fields.items() if value is not None}
    try:
        return make_entry(section, SECTIONS[section].model_validate(given))
    except ValidationError as exc:
        raise ValueError(say_invalid(exc)) from None


def say_invalid(error: ValidationError) -> str:
    """What is wrong with arguments, in the words of options."""
    said = []
    for details in error.errors(include_url=False, include_input=False):
        option = "".join(f"--{str(part).replace('_', '-')}: " for part in details["loc"][:1])
        said.append(option + str(details.get("ctx", {}).get("error", details["msg"])))
    return "; ".join(said)


def _say_who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as in many containers
        user = f"uid {os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def choose_store(stores: list[EmergencyStore], *, wants_file: bool) -> EmergencyStore:
    """The one that a new order goes to.

    Raises:
        ConfigError: a file is wanted, and none is set.
    """
    if not wants_file:
        return stores[0]
    for store in stores:
        if isinstance(store, EmergencyFile):
            return store
    raise ConfigError([Problem(path="emergency.files", message="is empty; name a file")])


def say_placed(placed: Placed) -> str:
    """One line, without what was written."""
    if placed.where != "redis":
        return f"written to {placed.where}; all that read this file apply it within a second"
    if not placed.alive:
        return "written to Redis; no running process has told there yet what it has in force"
    number = f"{placed.in_force} of {placed.alive} processes"
    if placed.in_force == placed.alive:
        return f"written to Redis; in force in {number}"
    return f"written to Redis; in force in {number}: look at /readyz of the others"


async def load_names(settings: Settings) -> tuple[Catalog | None, str]:
    """The catalog; None with the reason when names cannot be checked against it."""
    try:
        async with asyncio.timeout(CATALOG_S):
            return await load_catalog(settings, has_pepper=True), ""
    except TimeoutError:
        return None, f"the catalog takes longer than {CATALOG_S:g} s to read"
    except ConfigError as exc:
        more = f" and {len(exc.problems) - 1} more" if len(exc.problems) > 1 else ""
        return None, f"the catalog cannot be read ({exc.problems[0]}{more})"
    except ExtauthzError as exc:
        return None, f"the catalog cannot be read ({exc})"


def list_misfits(catalog: Catalog | None, entry: Entry) -> list[str]:
    """Names of an entry that are not in the catalog."""
    return [] if catalog is None else list(CatalogNames(catalog).list_misfits(entry.document))


def say_entry(entry: Entry) -> str:
    """An entry on one line."""
    document = entry.document
    parts = [", ".join(f"{key} {text}" for key, text in document.conditions.items())]
    tree = write_tree(document)
    for key, word in (("issued_before", "issued before"), ("until", "until")):
        if key in tree:
            parts.append(f"{word} {tree[key]}")
    told = ", ".join(parts)
    return f"{told} ({document.reason})" if document.reason else told


def complain(text: str) -> None:
    """A line on standard error, safe for a terminal."""
    print(f"extauthz: {write_plain(text)}", file=sys.stderr)
