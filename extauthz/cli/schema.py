"""``extauthz schema``: JSON Schema of the settings or of a catalog file, for editors."""

from __future__ import annotations

import argparse
import json

from extauthz.catalog.document import catalog_schema
from extauthz.settings import settings_schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("which", choices=["settings", "catalog"])


def run(arguments: argparse.Namespace) -> int:
    """Prints the schema."""
    schema = settings_schema() if arguments.which == "settings" else catalog_schema()
    print(json.dumps(schema, indent=2, ensure_ascii=False))
    return 0
