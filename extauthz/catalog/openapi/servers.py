"""Reads the servers of an OpenAPI document and of its operations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from extauthz.catalog.openapi.document import MergedNode, Node, OpenApiDocument
from extauthz.documents.messages import show_name
from extauthz.model.routing.segments import is_respelled
from extauthz.model.routing.templates import TemplateError, split_template


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
