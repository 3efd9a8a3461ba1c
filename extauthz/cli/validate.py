"""``extauthz validate``: checks settings and catalog, and prints every problem."""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from extauthz.app.catalog import find_copy, open_source
from extauthz.app.service import list_file_problems
from extauthz.catalog.documents.faults import find_hint
from extauthz.catalog.files.source import FileCatalogSource
from extauthz.documents.document import Fault, decode_source, locate, read_file, read_mapping
from extauthz.documents.values import SourceText, read_values
from extauthz.emergency.files import list_misfits, read_blocks_file
from extauthz.envoy.configuration.check import check_config
from extauthz.errors import ConfigError, ExtauthzError, Problem
from extauthz.model.catalog import UNLIMITED_TIER, Catalog
from extauthz.settings.reading import DEFAULT_FILE, name_settings, read_settings
from extauthz.settings.tree import Settings

_DOCUMENT_START: Final = re.compile(r"^---(?=\s|$)", re.MULTILINE)


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

    parser.add_argument(
        "--envoy",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="an Envoy configuration, or Kubernetes objects of Istio or Envoy Gateway: says what "
        "in it is unsafe for extauthz; may be given several times",
    )
    parser.add_argument(
        "--blocks",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a file with blocks and revocations that is not named in the settings; may be given several times",
    )
    parser.add_argument(
        "--pull",
        action="store_true",
        help="read the API Manager that the settings name, instead of its last good copy",
    )


def run(arguments: argparse.Namespace) -> int:
    """Exit code 1 when there is any problem."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="warning: %(message)s")
    problems: list[Problem] = []
    for path in arguments.envoy:
        problems += _check_envoy(path)
    blocks: list[Path] = list(arguments.blocks)
    for path in blocks:
        try:
            problems += read_blocks_file(path)[0].problems
        except ConfigError as error:
            problems += error.problems
    is_default = not arguments.envoy and not blocks
    paths: list[Path] = arguments.paths or ([Path(DEFAULT_FILE)] if is_default else [])
    catalog_files: list[Path] = []
    read: dict[Path, Settings] = {}
    for path in paths:
        try:
            if path.is_file() and _is_settings(path):
                settings = read[path] = read_settings(path)
                problems += list_file_problems(settings)
                catalog_files += settings.catalog.files
                copy = None if arguments.pull else find_copy(settings)
                catalog_files += [] if copy is None else [copy]
                blocks += settings.emergency.files
            else:
                catalog_files.append(path)
        except ConfigError as error:
            problems += error.problems
    catalog: Catalog | None = None
    followed = [settings for settings in read.values() if settings.catalog.wso2 is not None]
    is_pulled = bool(arguments.pull and followed and not problems)
    if catalog_files or is_pulled:
        try:
            catalog = asyncio.run(_load(_once(catalog_files), followed if is_pulled else []))
        except ConfigError as error:
            problems += error.problems
        except ExtauthzError as error:
            problems.append(Problem(message=str(error)))
    for path, settings in read.items():
        problems = list(name_settings(problems, path, settings))
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"{len(problems)} {'problem' if len(problems) == 1 else 'problems'}", file=sys.stderr)
        return 1
    for settings in followed:
        if not is_pulled and find_copy(settings) is None:
            assert settings.catalog.wso2 is not None
            print(
                f"good: catalog.wso2, as far as is known; --pull reads {settings.catalog.wso2.url}"
            )
    if catalog is not None:
        for warning in _list_warnings(catalog, blocks, read):
            print(f"warning: {warning}", file=sys.stderr)
        print(_summary(catalog))
    for path in arguments.envoy:
        print(f"good: {path}, as far as is known")
    for path in arguments.blocks:
        print(f"good: {path}")
    return 0


async def _load(files: Sequence[Path], followed: Sequence[Settings]) -> Catalog:
    """The catalog of some files, together with what an API Manager has.

    Raises:
        ConfigError, CatalogError: there is no valid catalog.
    """
    if not followed:
        return await FileCatalogSource(files).load()
    first = followed[0]
    settings = first.with_catalog_files(tuple(files))
    async with open_source(settings, has_pepper=True) as source:
        return await source.load()


def _check_envoy(path: Path) -> Iterator[Problem]:
    """What is unsafe in a file of an operator's; each of its documents is read by itself."""
    asks = False
    try:
        source = decode_source(str(path), read_file(path))
        for lines_before, part in _split(source):
            faults, is_asking = check_config(read_values(part))
            asks = asks or is_asking
            for problem in locate(part, faults):
                yield replace(problem, line=problem.line + lines_before)
    except ConfigError as error:
        yield from error.problems
    else:
        if not asks:
            message = (
                "nothing in it asks an external authorizer (ext_authz, envoyExtAuthzGrpc, extAuth)"
            )
            yield Problem(file=str(path), message=message)


def _split(source: SourceText) -> Iterator[tuple[int, SourceText]]:
    """Each document of a file, and how many lines stand before it."""
    if source.is_json:
        yield 0, source
        return
    before = 0
    for text in _DOCUMENT_START.split(source.text):
        if text.strip():
            yield before, SourceText(file=source.file, text=text)
        before += text.count("\n")


def _list_warnings(
    catalog: Catalog, blocks: Iterable[Path], read: Mapping[Path, Settings]
) -> Iterator[Problem]:
    """What is good by the letter, and can hardly be meant."""
    yield from catalog.warnings
    for file in blocks:
        yield from list_misfits(file, catalog)
    for path, settings in read.items():
        faults = [
            Fault(
                path=("mixer", "quota_tiers", instance),
                message=f"there is no tier {tier!a}{find_hint(tier, catalog.tiers)}",
            )
            for instance, tier in settings.mixer.quota_tiers.items()
            if tier not in catalog.tiers
        ]
        yield from locate(decode_source(str(path), read_file(path)), faults)


def _once(files: list[Path]) -> tuple[Path, ...]:
    """Each file once, by its first name: settings may name what is also given."""
    return tuple({file.absolute(): file for file in reversed(files)}.values())[::-1]


def _is_settings(path: Path) -> bool:
    """Settings and catalogs share no section's name."""
    tree = read_mapping(decode_source(str(path), read_file(path)))
    if "openapi" in tree or "swagger" in tree:
        message = "is an OpenAPI document; name the catalog that refers to it"
        raise ConfigError([Problem(file=str(path), line=1, message=message)])
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
