"""``extauthz schema``: JSON Schema of a file that users write, for editors."""

from __future__ import annotations

import argparse
import json

from extauthz.catalog.documents.shapes import catalog_schema
from extauthz.emergency.entries import emergency_schema
from extauthz.settings.tree import settings_schema

_SCHEMAS = {"settings": settings_schema, "catalog": catalog_schema, "emergency": emergency_schema}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("which", choices=list(_SCHEMAS))


def run(arguments: argparse.Namespace) -> int:
    """Prints the schema."""
    print(json.dumps(_SCHEMAS[arguments.which](), indent=2, ensure_ascii=False))
    return 0
