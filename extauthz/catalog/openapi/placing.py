"""Finds out which operations of an OpenAPI document are served at its base path.

An API of a catalog has one base path, and its hosts are named in the catalog. So an operation whose
own ``servers`` put it at another base path is left out. One at another host is kept when no other
operation with different requirements could match the same requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from extauthz.catalog.openapi.document import OpenApiDocument
from extauthz.catalog.openapi.operations import OpenApiResource, PlacedOperation
from extauthz.catalog.openapi.security import PUBLIC
from extauthz.catalog.openapi.servers import ServerPlace, read_base_path, read_servers

MAX_COMPARED: Final = 2_000_000
"""Most comparisons of operations that are served elsewhere with all others."""
_MAX_NAMED: Final = 50


def may_meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether a path may fit both of two shapes (`write_shape`). True when in doubt."""
    for left, right in zip(one, other, strict=False):
        if "**" in (left, right):
            return True
        if left != right and "{}" not in left and "{}" not in right:
            return False
    return len(one) == len(other) or "**" in (one[-1:] + other[-1:])


def place_operations(
    document: OpenApiDocument, version: int, operations: Sequence[PlacedOperation]
) -> tuple[str | None, list[PlacedOperation]]:
    """The base path of the document, and the operations that are served there.

    Others are left out with a warning: their requests get `resource_not_found`. It is a problem
    when such a request would match another operation, which requires less.
    """
    servers = read_servers(document, document.root) if version == 3 else None
    if not servers:
        # When only the operations state it, they state it for the whole document.
        own = Counter(one.servers for one in operations).most_common(1)
        servers = own[0][0] if own else None
    stated = read_base_path(document, version)
    if stated is None:
        _check_base_paths(document, servers or ())
    kept = _Placing(document, servers or (ServerPlace("", ""),), operations).keep()
    if stated is not None:
        return stated, kept
    return servers[0].base_path if servers else None, kept


def _check_base_paths(document: OpenApiDocument, servers: tuple[ServerPlace, ...]) -> None:
    base_paths = {place.base_path for place in servers}
    node = document.root.below("servers")
    if len(base_paths) > 1:
        document.warn(
            node,
            "the servers have different base paths: without a context in the catalog, the API "
            "is served at the first one alone",
        )
    elif None in base_paths and not document.problem_count:
        document.warn(
            node,
            "the servers do not tell the base path: without a context in the catalog, the API is "
            "served at the root",
        )


class _Placing:
    """Finds out which operations are served at the document's base path.

    Args:
        servers: those of the document.
    """

    def __init__(
        self,
        document: OpenApiDocument,
        servers: tuple[ServerPlace, ...],
        operations: Sequence[PlacedOperation],
    ) -> None:
        self._document, self._servers = document, servers
        self._base_path = servers[0].base_path
        self._hosts = {"", *(place.host for place in servers)}
        self._compared = 0
        self._by_access: dict[OpenApiResource, list[PlacedOperation]] = {}
        for one in operations:
            self._by_access.setdefault(_access(one), []).append(one)
        self._operations = operations
        self._left_out: dict[str, list[PlacedOperation]] = {}

    def keep(self) -> list[PlacedOperation]:
        """The operations that are served. Warns of the others by name."""
        kept = [one for one in self._operations if self._is_served(one)]
        for why, ones in self._left_out.items():
            names = [f"{one.resource.methods[0]} {one.resource.path}" for one in ones[:_MAX_NAMED]]
            more = f" and {len(ones) - len(names)} more" if len(ones) > len(names) else ""
            self._document.warn(
                ones[0].node,
                f"{why}; requests for {', '.join(names)}{more} are denied: to serve them, write "
                "resources into the catalog, or make them an API of their own",
            )
        return kept

    def _is_served(self, one: PlacedOperation) -> bool:
        if one.unmatched is not None:
            self._leave_out(one, one.unmatched)
            return False
        if one.servers is None or one.servers == self._servers:
            return True
        if not one.servers:
            self._document.report(one.node, "an empty list of servers: name one, or remove the key")
            return False
        if any(it.base_path == self._base_path and it.host in self._hosts for it in one.servers):
            return True
        own = one.servers[0]
        if all(it.base_path not in (self._base_path, None) for it in one.servers):
            self._leave_out(
                one,
                f"servers of its own put it at base path {own.base_path or '/'}, and an API has "
                f"one base path, here {self._base_path or '/'}",
            )
            return False
        why = f"servers of its own put it at host {own.host or 'that is not known'}"
        if self._find_other(one) is not None:
            self._leave_out(one, why)
            return False
        self._document.warn(
            one.node, f"{why}: here it is served at all hosts of the API, on its own terms"
        )
        return True

    def _leave_out(self, one: PlacedOperation, why: str) -> None:
        # A request for a public operation may match one that requires more.
        is_safe = not one.shape or one.resource.security == PUBLIC
        other = None if is_safe else self._find_other(one)
        if other is None:
            self._left_out.setdefault(why, []).append(one)
        else:
            self._document.report(
                one.node,
                f"{why}, and here the same request may be meant for {other.resource.methods[0]} "
                f"{other.resource.path}, which asks for something else: write a resource for it "
                "into the catalog, or make it an API of its own",
            )

    def _find_other(self, one: PlacedOperation) -> PlacedOperation | None:
        """An operation that the same requests may match, and that has other requirements."""
        for access, others in self._by_access.items():
            if access == _access(one):
                continue
            self._compared += len(others)
            if self._compared > MAX_COMPARED:
                return others[0]
            for other in others:
                if other.unmatched is None and _may_be_meant(other, one):
                    return other
        return None


def _access(one: PlacedOperation) -> OpenApiResource:
    return replace(one.resource, methods=(), path="")


def _may_be_meant(other: PlacedOperation, one: PlacedOperation) -> bool:
    methods = {*one.resource.methods, *other.resource.methods}
    return (
        (other.servers != one.servers or one.unmatched is not None)
        and (len(methods) == 1 or methods == {"GET", "HEAD"})
        and may_meet(other.shape, one.shape)
    )
