"""Builds a catalog from documents. All problems are gathered, then raised at once.

There are two passes: first each file by itself (its shape), then all of them together (names,
references, routes). The second is made only when the first found no problem: a file that cannot be
read would make the references of others dangle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from extauthz.catalog.documents.build_api_keys import add_keys_of_apis
from extauthz.catalog.documents.build_apis import build_apis
from extauthz.catalog.documents.build_consumers import (
    build_consumers,
    build_revoked_tokens,
    build_subscriptions,
)
from extauthz.catalog.documents.build_issuers import build_api_key_signers, build_issuers
from extauthz.catalog.documents.build_limits import (
    build_custom_limits,
    build_deny_rules,
    build_tiers,
)
from extauthz.catalog.documents.faults import CatalogFile, Faults, ReadBytes
from extauthz.catalog.documents.shapes import SUBSCRIPTIONS, CatalogDocument, SubscriptionDocument
from extauthz.catalog.parts import CatalogParts, index_catalog
from extauthz.documents.document import check_model, list_problems, read_file, read_mapping
from extauthz.documents.values import SourceText
from extauthz.errors import ConfigError, Problem
from extauthz.model.catalog import Catalog

CHUNK: Final = 10_000
"""Subscriptions that are checked in one step; between two steps other threads can run."""


def read_catalog_file(
    source: SourceText, folder: Path, tree: Mapping[str, Any] | None = None
) -> CatalogFile:
    """Reads one file of a catalog and checks its shape.

    Args:
        folder: where its references start from.
        tree: the result of `read_mapping` for the text, when it was read already.

        Raises:
            ConfigError: with every problem of the file.
    """
    tree = read_mapping(source) if tree is None else tree
    rows = tree.get("subscriptions")
    if not isinstance(rows, list) or len(rows) <= CHUNK:
        document = check_model(CatalogDocument, tree, source)
        return CatalogFile(source=source, document=document, folder=folder)
    problems: list[Problem] = []
    subscriptions: list[SubscriptionDocument] = []
    document = CatalogDocument()
    try:
        document = check_model(CatalogDocument, {**tree, "subscriptions": []}, source)
    except ConfigError as exc:
        problems.extend(exc.problems)
    for start in range(0, len(rows), CHUNK):
        try:
            subscriptions.extend(SUBSCRIPTIONS.validate_python(rows[start : start + CHUNK]))
        except ValidationError as exc:
            problems.extend(_list_row_problems(exc, source, tree, start))
            break
    if problems:
        raise ConfigError(problems)
    document = document.model_copy(update={"subscriptions": tuple(subscriptions)})
    return CatalogFile(source=source, document=document, folder=folder)


def _list_row_problems(
    error: ValidationError, source: SourceText, tree: Mapping[str, Any], start: int
) -> Iterable[Problem]:
    return list_problems(
        error, source, tree, CatalogDocument, below=("subscriptions",), shift=start
    )


def build_catalog(
    files: Sequence[CatalogFile], *, read: ReadBytes = read_file, has_pepper: bool = True
) -> Catalog:
    """Builds the catalog of some files; see `build_parts`."""
    return index_catalog(build_parts(files, read=read, has_pepper=has_pepper))


def build_parts(
    files: Sequence[CatalogFile], *, read: ReadBytes = read_file, has_pepper: bool = True
) -> CatalogParts:
    """Builds the parts of a catalog from some files.

    Args:
        read: reads the files that they refer to.
        has_pepper: whether the settings hold the secret that hmac_sha256 keys need.

    Raises:
        ConfigError: with every problem of all files and of those they refer to.
    """
    faults = Faults(read)
    tiers = build_tiers(files, faults)
    issuers = build_issuers(files, faults)
    api_key_signers = build_api_key_signers(files, issuers, faults)
    apis = build_apis(files, tiers, faults)
    consumers = build_consumers(files, tiers, issuers, faults, has_pepper=has_pepper)
    add_keys_of_apis(
        files, consumers.applications, consumers.api_keys, faults, has_pepper=has_pepper
    )
    subscriptions = build_subscriptions(files, apis, consumers.applications, tiers, faults)
    custom_limits = build_custom_limits(files, tiers, apis, faults)
    deny_rules = build_deny_rules(files, apis, consumers.applications, issuers, faults)
    revoked = build_revoked_tokens(files, faults)
    faults.raise_if_any()
    return CatalogParts(
        tiers=tuple(tiers.values()),
        issuers=tuple(issuers.values()),
        api_key_signers=api_key_signers,
        deny_rules=deny_rules,
        custom_limits=custom_limits,
        apis=tuple(apis.values()),
        applications=tuple(consumers.applications.values()),
        api_keys=tuple(consumers.api_keys.values()),
        consumer_keys=consumers.consumer_keys,
        certificates=consumers.certificates,
        subscriptions=subscriptions,
        revoked=revoked,
        warnings=faults.list_warnings(),
    )
