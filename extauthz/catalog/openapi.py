"""Reads what an OpenAPI document says about access: resources, schemes, scopes and tiers.

OpenAPI 3.0 and 3.1 and Swagger 2.0, with the extensions that WSO2 API Manager, its
Microgateway and Choreo Connect write (``x-wso2-*``, ``x-auth-type``, ``x-throttling-tier``,
``x-scope``). The document comes parsed; nothing in here reads files or follows remote references.

Rules:
- What a catalog cannot express is a problem, never something weaker. An operation with a problem
  is left out, and a document with problems must not be served.
- Alternatives of a security requirement are any-of; what stands in one alternative is all-of.
- The nearest statement counts: operation, then path item, then document.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from extauthz.catalog.openapi_document import OpenApiDocument, below
from extauthz.catalog.openapi_security import PUBLIC, SecurityNeed, SecurityReader
from extauthz.model.identity import Place, PlaceKind, SecurityScheme
from extauthz.model.routes import TemplateError, split_template

MAX_OPERATIONS: Final = 10_000

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_NOT_METHODS: Final = frozenset({"$ref", "summary", "description", "servers", "parameters"})

_SECURED_AUTH_TYPES: Final = frozenset(
    {"any", "application", "application user", "application & application user"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApiResource:
    """One operation of a document.

    Attributes:
        scopes: any of them is enough unless `all_scopes`; empty asks for none.
        security: None when the operation takes what its API takes.
        tier: name of the tier that limits the operation; None for no limit.
    """

    methods: tuple[str, ...]
    path: str
    scopes: tuple[str, ...] = ()
    all_scopes: bool = False
    security: tuple[SecurityScheme, ...] | None = None
    tier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApiResources:
    """What a document says. None stands for all that it does not say.

    Attributes:
        problems: place in the document (``paths./pets.get.security[0]``) and what is wrong.
        base_path: without a slash at its end; empty for the root.
        bearer_header: lower-case.
        api_key_places: of all API key schemes that operations ask for.
        tier: name of the tier that limits the API as a whole.
        security: schemes of operations that say nothing themselves.
    """

    resources: tuple[OpenApiResource, ...]
    problems: tuple[tuple[str, str], ...]
    base_path: str | None = None
    bearer_header: str | None = None
    api_key_places: tuple[Place, ...] | None = None
    tier: str | None = None
    security: tuple[SecurityScheme, ...] | None = None
    allow_preflight: bool | None = None


def read_openapi(tree: Mapping[str, Any]) -> OpenApiResources:
    """The resources of a parsed document, and every problem with it."""
    document = OpenApiDocument(tree)
    version = _read_version(document)
    if version is None:
        return OpenApiResources(resources=(), problems=tuple(document.problems))
    holder, name = (tree, "securityDefinitions")
    if version == 3:
        holder, name = document.read_mapping(tree, "components", "components"), "securitySchemes"
    declared = document.read_mapping(holder, name, name if version == 2 else f"components.{name}")
    reader = _Reader(document, SecurityReader(document, declared))
    resources = reader.read_paths()
    key_header = document.read_header_name(
        tree.get("x-wso2-api-key-header"), "x-wso2-api-key-header"
    )
    if key_header is not None:
        reader.security.places[Place(PlaceKind.HEADER, key_header)] = None
    cors = document.read_mapping(tree, "x-wso2-cors", "x-wso2-cors")
    return OpenApiResources(
        resources=resources,
        base_path=_read_base_path(document, version),
        bearer_header=document.read_header_name(
            tree.get("x-wso2-auth-header"), "x-wso2-auth-header"
        ),
        api_key_places=tuple(reader.security.places) or None,
        tier=_read_tier(document, (tree, "")),
        security=PUBLIC if reader.is_public else reader.security.default_schemes,
        allow_preflight=document.read_flag(cors, "corsConfigurationEnabled", "x-wso2-cors"),
        # Last: everything above may find some.
        problems=tuple(document.problems),
    )


def _read_version(document: OpenApiDocument) -> int | None:
    tree = document.tree
    if "swagger" in tree:
        if str(tree["swagger"]) == "2.0":
            return 2
        document.report("swagger", "only Swagger 2.0 is read; convert the document")
    elif "openapi" in tree:
        if re.fullmatch(r"3\.[01](\..+)?", str(tree["openapi"])):
            return 3
        document.report("openapi", "only OpenAPI 3.0 and 3.1 are read; convert the document")
    else:
        document.report("", 'this is no OpenAPI document: it has neither "openapi" nor "swagger"')
    return None


class _Reader:
    """Goes through paths and operations. `is_public`: security is off unless said otherwise."""

    def __init__(self, document: OpenApiDocument, security: SecurityReader) -> None:
        self._document = document
        self.security = security
        self.is_public = self._is_disabled(document.tree, "") or False

    def read_paths(self) -> tuple[OpenApiResource, ...]:
        resources: list[OpenApiResource] = []
        paths = self._document.read_mapping(self._document.tree, "paths", "paths")
        for template, item in paths.items():
            if str(template).startswith("x-"):
                continue
            place = f"paths.{template}"
            try:
                split_template(str(template))
            except TemplateError as error:
                self._document.report(place, str(error))
                continue
            resources.extend(self._read_path_item(template, item, place))
            if len(resources) > MAX_OPERATIONS:
                self._document.report(
                    "paths", f"more than {MAX_OPERATIONS} operations; split the document"
                )
                break
        if not resources and not self._document.problems:
            self._document.report("paths", "no operation is described: nothing could be called")
        return tuple(resources)

    def _read_path_item(self, template: str, item: Any, place: str) -> Iterator[OpenApiResource]:
        if not isinstance(item, Mapping):
            self._document.report(place, "a path item is a mapping from methods to operations")
            return
        if "$ref" in item:
            target = self._document.resolve(item, place)
            if target is None:
                return
            # What both say is undefined by OpenAPI; the nearer one counts here, as elsewhere.
            item = {**target, **item}
        for name in item:
            if name in METHODS:
                resource = self._read_operation(template, name, item, place)
                if resource is not None:
                    yield resource
            elif name not in _NOT_METHODS and not str(name).startswith("x-"):
                self._document.report(
                    below(place, name),
                    f"{name!r} is no method; methods are {', '.join(METHODS)}, in lower case",
                )

    def _read_operation(
        self, template: str, method: str, item: Mapping[str, Any], item_place: str
    ) -> OpenApiResource | None:
        place = below(item_place, method)
        operation = item[method]
        if not isinstance(operation, Mapping):
            self._document.report(place, "an operation is a mapping")
            return None
        tier = _read_tier(self._document, (operation, place), (item, item_place))
        need: SecurityNeed | None = SecurityNeed(PUBLIC)
        if not self._is_operation_public(operation, place, item, item_place):
            need = self.security.read_need(operation, place)
        if need is None:
            return None
        schemes = need.schemes
        if schemes is None and self.is_public:
            # Security is switched off for the document and on again here.
            schemes = self.security.default_schemes
            if schemes in (None, PUBLIC):
                self._document.report(place, "security is switched on, but none is described")
                return None
        return OpenApiResource(
            methods=(method.upper(),),
            path=template,
            scopes=need.scopes,
            all_scopes=need.all_scopes,
            security=schemes,
            tier=tier,
        )

    def _is_operation_public(
        self, operation: Mapping[str, Any], place: str, item: Mapping[str, Any], item_place: str
    ) -> bool:
        auth_type = operation.get("x-auth-type")
        if auth_type is not None:
            word = str(auth_type).replace("_", " ").lower()
            if word == "none":
                return True
            if word not in _SECURED_AUTH_TYPES:
                self._document.report(
                    below(place, "x-auth-type"),
                    f"{auth_type!r} is not known; write None, Any, Application, "
                    "Application User or Application & Application User",
                )
        for node, where in ((operation, place), (item, item_place)):
            is_disabled = self._is_disabled(node, where)
            if is_disabled is not None:
                return is_disabled
        return self.is_public

    def _is_disabled(self, node: Mapping[str, Any], place: str) -> bool | None:
        return self._document.read_flag(node, "x-wso2-disable-security", place)


def _read_tier(document: OpenApiDocument, *nodes: tuple[Mapping[str, Any], str]) -> str | None:
    """The nearest tier's name; None when there is none, or when it is "Unlimited"."""
    for node, place in nodes:
        for name in ("x-wso2-throttling-tier", "x-throttling-tier"):
            tier = node.get(name)
            if tier is None:
                continue
            if not isinstance(tier, str) or not tier:
                document.report(below(place, name), "the name of a tier stands here")
                return None
            return None if tier.lower() == "unlimited" else tier
    return None


def _read_base_path(document: OpenApiDocument, version: int) -> str | None:
    for name in ("x-wso2-basePath", "basePath") if version == 2 else ("x-wso2-basePath",):
        path = document.tree.get(name)
        if path is not None:
            return _check_base_path(document, name, path)
    return _read_server_path(document) if version == 3 else None


def _read_server_path(document: OpenApiDocument) -> str | None:
    """The path of the first server's URL, with its variables' defaults put in.

    None for a URL relative to where the document is served, which nobody knows here.
    """
    servers = document.tree.get("servers")
    server = servers[0] if isinstance(servers, list | tuple) and servers else None
    url = server.get("url") if isinstance(server, Mapping) else None
    if not isinstance(server, Mapping) or not isinstance(url, str):
        return None
    variables = document.read_mapping(server, "variables", "servers[0].variables")
    for name, variable in variables.items():
        if isinstance(variable, Mapping) and "default" in variable:
            url = url.replace(f"{{{name}}}", str(variable["default"]))
    try:
        parts = urlsplit(url)
    except ValueError:
        document.report("servers[0].url", f"{url!r} is no URL")
        return None
    if "{" in url or not (parts.netloc or parts.path.startswith("/")):
        return None
    return _check_base_path(document, "servers[0].url", parts.path or "/")


def _check_base_path(document: OpenApiDocument, place: str, path: Any) -> str | None:
    """A base path as requests are matched with it."""
    if not isinstance(path, str) or any(mark in path for mark in "{}*"):
        document.report(place, f"a base path is plain text, not {path!r}")
        return None
    try:
        segments = split_template(path.rstrip("/") or path[:1])
    except TemplateError as error:
        document.report(place, str(error).replace("path template", "base path"))
        return None
    return "".join(f"/{segment}" for segment in segments)
