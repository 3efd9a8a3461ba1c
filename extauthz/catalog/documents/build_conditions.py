"""Builds conditions and costs from documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from extauthz.catalog.documents.faults import CatalogFile, Faults
from extauthz.catalog.documents.limit_shapes import (
    AddressRangeDocument,
    ConditionDocument,
    CostDocument,
    TextMatchDocument,
)
from extauthz.catalog.documents.networks import read_network
from extauthz.documents.lines import NodePath
from extauthz.model.apis import CostSource
from extauthz.model.conditions import (
    AddressCondition,
    Condition,
    Pattern,
    TextCondition,
    TextSource,
)
from extauthz.model.deny_rules import read_address
from extauthz.model.identity import Place, PlaceKind

_KINDS: Final = ("ip", "ip_range", "header", "query", "claim")


def build_conditions(
    file: CatalogFile, path: NodePath, documents: Sequence[ConditionDocument], faults: Faults
) -> tuple[Condition, ...]:
    """Builds a list of conditions. A wrong one is left out, with a fault."""
    built = (
        _build_condition(file, (*path, position), document, faults)
        for position, document in enumerate(documents)
    )
    return tuple(condition for condition in built if condition is not None)


def _build_condition(
    file: CatalogFile, path: NodePath, document: ConditionDocument, faults: Faults
) -> Condition | None:
    given = [kind for kind in _KINDS if getattr(document, kind) is not None]
    if len(given) != 1:
        what = "has several conditions; write each" if given else "has no condition; write it"
        faults.add(file, path, f"{what} as an entry of its own, with one of {', '.join(_KINDS)}")
        return None
    (kind,) = given
    at = (*path, kind)
    if document.ip is not None:
        network = read_network(file, at, document.ip, faults)
        if network is None:
            return None
        return AddressCondition(
            family=network.version,
            first=int(network.network_address),
            last=int(network.broadcast_address),
            invert=document.invert,
        )
    if document.ip_range is not None:
        return _build_range(file, at, document.ip_range, faults, invert=document.invert)
    match: TextMatchDocument = getattr(document, kind)
    source = TextSource(kind)
    try:
        pattern = Pattern(match.matches)
    except ValueError as exc:
        faults.add(file, (*at, "matches"), f"is no regular expression that RE2 takes: {exc}")
        return None
    return TextCondition(
        source=source,
        name=match.name.lower() if source is TextSource.HEADER else match.name,
        pattern=pattern,
        invert=document.invert,
    )


def _build_range(
    file: CatalogFile,
    path: NodePath,
    document: AddressRangeDocument,
    faults: Faults,
    *,
    invert: bool,
) -> AddressCondition | None:
    family, first = read_address(document.first)
    family_of_last, last = read_address(document.last)
    wrong = [key for key, of in (("from", family), ("to", family_of_last)) if not of]
    for key in wrong:
        faults.add(file, (*path, key), "is no address; write one like 203.0.113.7")
    if wrong:
        return None
    if family != family_of_last:
        faults.add(file, (*path, "to"), "is of another IP version than from; write two ranges")
        return None
    if last < first:
        faults.add(file, (*path, "to"), "is before from, so nothing lies between; swap them")
        return None
    return AddressCondition(family=family, first=first, last=last, invert=invert)


def build_cost(
    file: CatalogFile, path: NodePath, document: CostDocument, faults: Faults
) -> tuple[int, CostSource | None]:
    """Builds a resource's cost, and where its requests may state another one."""
    if document.header is not None and document.query is not None:
        faults.add(file, path, "has both header and query; keep one")
        return document.default, None
    if document.header is not None:
        place = Place(PlaceKind.HEADER, document.header.lower())
    elif document.query is not None:
        place = Place(PlaceKind.QUERY, document.query)
    else:
        if "max" in document.model_fields_set:
            faults.add(file, (*path, "max"), "is for a header or query; add one, or remove max")
        return document.default, None
    if document.default > document.max:
        faults.add(file, (*path, "default"), "is more than max; lower it, or raise max")
    return document.default, CostSource(place=place, maximum=document.max)
