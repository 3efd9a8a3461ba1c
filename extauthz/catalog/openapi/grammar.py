"""The keys that the objects of an OpenAPI document may have, as far as access is said in them.

Sources: Swagger 2.0, OpenAPI 3.0.4 and 3.1.1; extensions of WSO2 API Manager, its Microgateway and
Choreo Connect.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import Final

METHODS: Final = ("get", "put", "post", "delete", "options", "head", "patch", "trace")

EXTENSIONS: Final = frozenset(
    {
        "x-auth-type", "x-scope", "x-throttling-tier", "x-wso2-api-key-header",
        "x-wso2-application-security", "x-wso2-auth-header", "x-wso2-basePath", "x-wso2-cors",
        "x-wso2-disable-security", "x-wso2-mutual-ssl", "x-wso2-throttling-tier",
    }
)  # fmt: skip
"""The extensions that are read."""

_NOT_ABOUT_A_REQUEST: Final = frozenset(
    {
        # Where the upstream is, and how the gateway shows itself to it.
        "x-wso2-production-endpoints", "x-wso2-sandbox-endpoints", "x-wso2-transports",
        # Which scopes there are, and whom API Manager's server gives them to.
        "x-scopes-bindings", "x-wso2-security",
    }
)  # fmt: skip

_ROOT_3: Final = frozenset(
    {
        "openapi", "info", "jsonSchemaDialect", "servers", "paths", "webhooks", "components",
        "security", "tags", "externalDocs",
    }
)  # fmt: skip
_ROOT_2: Final = frozenset(
    {
        "swagger", "info", "host", "basePath", "schemes", "consumes", "produces", "paths",
        "definitions", "parameters", "responses", "securityDefinitions", "security", "tags",
        "externalDocs",
    }
)  # fmt: skip
_OPERATION: Final = frozenset(
    {
        "tags", "summary", "description", "externalDocs", "operationId", "parameters",
        "responses", "deprecated", "security",
    }
)  # fmt: skip
_PATH_ITEM: Final = frozenset({"$ref", "summary", "description", "parameters", *METHODS})
COMPONENTS: Final = frozenset(
    {
        "schemas", "responses", "parameters", "examples", "requestBodies", "headers",
        "securitySchemes", "links", "callbacks", "pathItems",
    }
)  # fmt: skip
SCHEME: Final = frozenset(
    {
        "type", "description", "name", "in", "scheme", "bearerFormat", "flows",
        "openIdConnectUrl", "flow", "authorizationUrl", "tokenUrl", "scopes",
    }
)  # fmt: skip

ROOT: Final = {2: _ROOT_2, 3: _ROOT_3}
PATH_ITEM: Final = {2: _PATH_ITEM, 3: _PATH_ITEM | {"servers"}}
OPERATION: Final = {
    2: _OPERATION | {"consumes", "produces", "schemes"},
    3: _OPERATION | {"requestBody", "callbacks", "servers"},
}

HARMLESS_BESIDE_A_REFERENCE: Final = (_OPERATION - {"security"}) | {
    "$ref", "requestBody", "consumes", "produces",
}  # fmt: skip
"""What may be lost beside a $ref: it says nothing about access."""

_ACCESS: Final = re.compile(
    "secur|secr|auth(?!ors?$)|scope|permission|permit|role|credential|api_?-?key|\\bacl\\b|public|anonym"
)
_HOLDERS: Final = frozenset(
    {
        "openapi", "swagger", "paths", "components", *METHODS,
        "allof", "anyof", "oneof", "$dynamicref", "$recursiveref",
        "x-ms-paths", "x-amazon-apigateway-any-method",
    }
)  # fmt: skip
"""What holds access elsewhere: other objects' keys, to which a reference led by mistake; what puts
schemas together, and no operations; operations by another name.
"""
_ACCESS_KEYS: Final = ("security", "securityschemes", "securitydefinitions", "servers", "$ref")


def reads_like_access(key: str) -> bool:
    """Whether a key that means nothing here may have been meant to say who gets in.

    >>> [reads_like_access(key) for key in ("securty", "Security", "x-required-roles", "tagz")]
    [True, True, True, False]
    """
    word = key.casefold()
    if key in EXTENSIONS or word in _HOLDERS:
        return True
    if key in _NOT_ABOUT_A_REQUEST:
        return False
    word = word.removeprefix("x-")
    return bool(_ACCESS.search(word) or get_close_matches(word, _ACCESS_KEYS, n=1, cutoff=0.75))
