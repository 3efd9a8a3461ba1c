"""Reads where an OpenAPI document says its operations are served.

A catalog's API has one base path, and its hosts are the catalog's to name. So an operation whose
own ``servers`` put it at another base path is left out. One at another host is kept where no other
operation that asks for something else could be meant by the same requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from extauthz.catalog.openapi.document import MergedNode, Node, OpenApiDocument
from extauthz.catalog.openapi.security import PUBLIC
from extauthz.documents.messages import show_name
from extauthz.model.routing.segments import is_respelled
from extauthz.model.routing.templates import TemplateError, split_template

if TYPE_CHECKING:
    from extauthz.catalog.openapi.operations import OpenApiResource, PlacedOperation

MAX_COMPARED: Final = 2_000_000
"""Most comparisons of operations that are served elsewhere with all others."""
_MAX_NAMED: Final = 50


@dataclass(frozen=True, slots=True)
class ServerPlace:
    """A server's host in lower case, and its base path. Empty host: where the document is served.

    base_path: as `Api.base_paths`; None when the URL does not tell.
    """

    host: str
    base_path: str | None


def read_base_path(document: OpenApiDocument, version: int) -> str | None:
    """The base path that the document states beside ``servers``; None when it states none."""
    for name in ("x-wso2-basePath", "basePath") if version == 2 else ("x-wso2-basePath",):
        node = document.root.below(name)
        if node.value is not None:
            return check_base_path(document, node, node.value or "/")
    return None


def read_servers(
    document: OpenApiDocument, holder: Node | MergedNode
) -> tuple[ServerPlace, ...] | None:
    """The places that a ``servers`` field names, in its order; None when there is no such field."""
    if holder.below("servers").value is None:
        return None
    node = document.resolve(holder.below("servers"))
    if node is None:
        return ()
    if not isinstance(node.value, list) or not all(isinstance(one, Mapping) for one in node.value):
        document.report(node, "servers is a list of mappings, each with a url")
        return ()
    places: list[ServerPlace] = []
    for position in range(len(node.value)):
        server = document.resolve(node.below(position))
        if server is not None:
            place = _read_server(document, server)
            places += [] if place is None or place in places else [place]
    return tuple(places)


def _read_server(document: OpenApiDocument, server: Node) -> ServerPlace | None:
    """A server, with its variables' defaults put in."""
    node = server.below("url")
    url = node.value
    if not isinstance(url, str):
        document.report(node, "a server has a url, like https://api.example.com/v1")
        return None
    variables = document.read_mapping(server, "variables")
    for name, variable in variables.items() if variables is not None else ():
        if isinstance(variable.value, Mapping) and "default" in variable.value:
            url = url.replace(f"{{{name}}}", str(variable.value["default"]))
    try:
        parts = urlsplit(url)
    except ValueError:
        document.report(node, f"{url!r} is no URL")
        return None
    host = parts.netloc.rpartition("@")[2].lower()
    if "{" in parts.path or not (parts.netloc or parts.path.startswith("/")):
        return ServerPlace(host, None)
    return ServerPlace(host, check_base_path(document, node, parts.path or "/"))


def check_base_path(document: OpenApiDocument, node: Node, path: Any) -> str | None:
    """A base path as requests are matched with it."""
    if not isinstance(path, str) or any(mark in path for mark in "{}*"):
        document.report(node, f"a base path is plain text, not {path!r}")
        return None
    try:
        segments = split_template(path.rstrip("/") or path[:1])
    except TemplateError as error:
        document.report(node, str(error).replace("path template", "base path"))
        return None
    if is_respelled(path):
        document.report(
            node,
            f"{show_name(path)} has escapes that are not needed, and nobody knows how the upstream "
            "spells them; write the characters themselves",
        )
        return None
    return "".join(f"/{segment}" for segment in segments)


def may_meet(one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    """Whether a path may fit both of two shapes (`write_shape`). Says yes when in doubt."""
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

    Others are left out with a warning: who asks for one gets `resource_not_found`. It is a problem
    where that request would be taken for another operation, which asks for less.
    """
    servers = read_servers(document, document.root) if version == 3 else None
    if not servers:
        # Whoever states it at the operations, and only there, states it for the document.
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
        # Who asks for an operation that is public may well be asked for more.
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
        """An operation that the same requests may be meant for, and that asks for something else."""
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
