"""``extauthz validate``: checks settings and catalog, and prints every problem."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path

from extauthz.app.service import list_file_problems
from extauthz.catalog.file import FileCatalogSource
from extauthz.config import DEFAULT_FILE, read_settings
from extauthz.document import decode_source, read_file, read_mapping
from extauthz.errors import ConfigError, ExtauthzError, Problem
from extauthz.model.catalog import UNLIMITED_TIER, Catalog
from extauthz.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "paths",
        nargs="*",
        type=Path,
        metavar="FILE|DIR",
        help="settings files, catalog files or folders of catalog files; what is given together "
        f"is one catalog (default: {DEFAULT_FILE} and the catalog that it names)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when there is any problem."""
    paths: list[Path] = arguments.paths or [Path(DEFAULT_FILE)]
    problems: list[Problem] = []
    catalog_files: list[Path] = []
    for path in paths:
        try:
            if path.is_file() and _is_settings(path):
                settings = read_settings(path)
                problems += list_file_problems(settings)
                catalog_files += settings.catalog.files
            else:
                catalog_files.append(path)
        except ConfigError as error:
            problems += error.problems
    catalog: Catalog | None = None
    if catalog_files:
        try:
            catalog = asyncio.run(FileCatalogSource(_once(catalog_files)).load())
        except ConfigError as error:
            problems += error.problems
        except ExtauthzError as error:
            problems.append(Problem(message=str(error)))
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}", file=sys.stderr)
        return 1
    if catalog is not None:
        print(_summary(catalog))
    return 0


def _once(files: list[Path]) -> tuple[Path, ...]:
    """Each file once, by its first name: settings may name what is also given."""
    return tuple({file.absolute(): file for file in reversed(files)}.values())[::-1]


def _is_settings(path: Path) -> bool:
    """Settings and catalogs share no section's name."""
    tree = read_mapping(decode_source(str(path), read_file(path)))
    return not Settings.model_fields.keys().isdisjoint(tree)


def _summary(catalog: Catalog) -> str:
    counts: Iterable[tuple[int, str, str]] = (
        (len(catalog.apis), "API", "APIs"),
        (sum(len(api.resources) for api in catalog.apis.values()), "resource", "resources"),
        (len(catalog.applications), "application", "applications"),
        (len(catalog.subscriptions), "subscription", "subscriptions"),
        (len(catalog.tiers.keys() - {UNLIMITED_TIER}), "tier", "tiers"),
        (len(catalog.issuers), "issuer", "issuers"),
    )
    return "good: " + ", ".join(
        f"{count} {one if count == 1 else many}" for count, one, many in counts
    )
