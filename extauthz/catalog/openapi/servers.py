"""Reads where an OpenAPI document says its operations are served.

A catalog's API has one base path, and its hosts are the catalog's to name. So an operation whose
own ``servers`` put it at another base path is a problem. One at another host is kept where no other
operation could be meant by the same requests, and is a problem where one could.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from extauthz.catalog.openapi.document import MergedNode, Node, OpenApiDocument
from extauthz.document_messages import show_name
from extauthz.model.segments import is_respelled
from extauthz.model.templates import TemplateError, split_template

if TYPE_CHECKING:
    from extauthz.catalog.openapi.operations import PlacedOperation

MAX_ELSEWHERE: Final = 200
"""Most operations at other hosts: each is compared with all."""


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
            return check_base_path(document, node, node.value)
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
) -> str | None:
    """The base path of the document; reports operations whose own servers do not go with it."""
    servers = read_servers(document, document.root) if version == 3 else None
    if not servers:
        # Whoever states it at the operations, and only there, states it for the document.
        own = Counter(one.servers for one in operations).most_common(1)
        servers = own[0][0] if own else None
    stated = read_base_path(document, version)
    if len({place.base_path for place in servers or ()}) > 1 and stated is None:
        document.warn(
            document.root.below("servers"),
            "the servers have different base paths: without a context in the catalog, the API "
            "is served at the first one alone",
        )
    _check_places(document, servers or (ServerPlace("", ""),), operations)
    if stated is not None:
        return stated
    return servers[0].base_path if servers else None


def _check_places(
    document: OpenApiDocument,
    servers: tuple[ServerPlace, ...],
    operations: Sequence[PlacedOperation],
) -> None:
    base_path = servers[0].base_path
    hosts = {"", *(place.host for place in servers)}
    elsewhere: list[PlacedOperation] = []
    for one in operations:
        if one.servers is None or one.servers == servers:
            continue
        if not one.servers:
            document.report(one.node, "an empty list of servers: name one, or remove the key")
            continue
        if any(it.base_path == base_path and it.host in hosts for it in one.servers):
            continue
        if any(it.base_path in (base_path, None) for it in one.servers):
            elsewhere.append(one)
            continue
        document.report(
            one.node,
            f"servers of its own put it at base path {one.servers[0].base_path or '/'}, and an API has one base "
            f"path, here {base_path or '/'}: write a resource for it into the catalog, or make "
            "it an API of its own",
        )
    for one in elsewhere[:MAX_ELSEWHERE]:
        host = (one.servers[0].host if one.servers else "") or "that is not known"
        other = next((it for it in operations if _may_be_meant(it, one)), None)
        if other is None:
            document.warn(
                one.node,
                f"servers of its own put it at host {host}: here it is served at all hosts of "
                "the API, on its own terms",
            )
        else:
            document.report(
                one.node,
                f"servers of its own put it at host {host}, and elsewhere the same request may "
                f"be meant for {other.resource.methods[0]} {other.resource.path}: write a "
                "resource for it into the catalog, or make it an API of its own",
            )
    for one in elsewhere[MAX_ELSEWHERE:]:
        document.report(
            one.node, f"more than {MAX_ELSEWHERE} operations have servers of their own; split them"
        )


def _may_be_meant(other: PlacedOperation, one: PlacedOperation) -> bool:
    methods = {*one.resource.methods, *other.resource.methods}
    return (
        other.servers != one.servers
        and (len(methods) == 1 or methods == {"GET", "HEAD"})
        and may_meet(other.shape, one.shape)
    )
