"""Reads what an OpenAPI document says about access: resources, schemes, scopes and tiers.

OpenAPI 3.0 and 3.1 and Swagger 2.0, with the extensions that WSO2 API Manager, its
Microgateway and Choreo Connect write.

Rules:
- What a catalog cannot express is a problem; it is never replaced by something weaker. An operation
  with a problem is left out, and a document with problems must not be served.
- What the catalog itself defines (a resource for the operation, security of the API) need not be
  expressible from the document.
- Nothing about access is ignored silently: it is read, or it is a problem or a warning.
- Of the alternatives of a security requirement any is enough; of one alternative all is required.
- The nearest statement counts: operation, then path item, then document.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from extauthz.catalog.openapi.document import OpenApiDocument
from extauthz.catalog.openapi.grammar import COMPONENTS, ROOT
from extauthz.catalog.openapi.operations import CatalogWord, OpenApiResource, OperationReader
from extauthz.catalog.openapi.placing import place_operations
from extauthz.catalog.openapi.wso2 import read_tier
from extauthz.model.identity import Place, PlaceKind, SecurityScheme


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenApiResources:
    """What a document says. An attribute is None when the document does not say it.

    Attributes:
        base_path: without a slash at its end; empty for the root.
        bearer_header: lower-case.
        api_key_places: of all API key schemes that operations ask for.
        tier: name of the tier that limits the API as a whole.
        security: schemes of operations that say nothing themselves.
    """

    resources: tuple[OpenApiResource, ...] = ()
    base_path: str | None = None
    bearer_header: str | None = None
    api_key_places: tuple[Place, ...] | None = None
    tier: str | None = None
    security: tuple[SecurityScheme, ...] | None = None
    allow_preflight: bool | None = None


def read_openapi(
    document: OpenApiDocument, of_catalog: CatalogWord | None = None
) -> OpenApiResources:
    """What the document says. Problems and warnings are the document's to list."""
    version = _read_version(document)
    if version is None:
        return OpenApiResources()
    root = document.root
    document.check_keys(root, ROOT[version])
    declared = None
    if version == 2:
        declared = document.read_mapping(root, "securityDefinitions")
    else:
        components = document.read_mapping(root, "components")
        if components is not None:
            document.check_keys(components, COMPONENTS)
            declared = document.read_mapping(components, "securitySchemes")
    reader = OperationReader(document, version, declared, of_catalog or CatalogWord())
    base_path, operations = place_operations(document, version, list(reader.read_paths()))
    if not operations and not reader.is_decided and not document.problem_count:
        document.report(root.below("paths"), "no operation is served here: nothing could be called")
    places = reader.places
    key_header = document.read_header_name(root.below("x-wso2-api-key-header"))
    if key_header is not None:
        places = tuple(dict.fromkeys((*places, Place(PlaceKind.HEADER, key_header))))
    cors = document.read_mapping(root, "x-wso2-cors")
    preflight = None
    if cors is not None:
        preflight = document.read_flag(cors, "corsConfigurationEnabled")
    return OpenApiResources(
        resources=tuple(one.resource for one in operations),
        base_path=base_path,
        bearer_header=document.read_header_name(root.below("x-wso2-auth-header")),
        api_key_places=places or None,
        tier=read_tier(document, root),
        security=reader.default_schemes,
        allow_preflight=preflight,
    )


def _read_version(document: OpenApiDocument) -> int | None:
    root = document.root
    if root.has("swagger"):
        if str(root.value["swagger"]) == "2.0":
            return 2
        document.report(root.below("swagger"), "only Swagger 2.0 is read; convert the document")
    elif root.has("openapi"):
        if re.fullmatch(r"3\.[01](\..+)?", str(root.value["openapi"])):
            return 3
        document.report(
            root.below("openapi"), "only OpenAPI 3.0 and 3.1 are read; convert the document"
        )
    else:
        document.report(root, 'this is no OpenAPI document: it has neither "openapi" nor "swagger"')
    return None
