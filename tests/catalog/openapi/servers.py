"""Servers in OpenAPI documents and in Swagger 2, which has another form: the resulting access."""

from __future__ import annotations

from tests.catalog.openapi.access import (
    A_RESOURCE,
    BY_KEY,
    BY_SCOPE,
    CATALOG,
    CREATE,
    SWAGGER_2,
    Row,
    operation,
    paths,
)

_AT_API = "servers: [{url: 'https://api.example.com/v1'}]"
SERVERS = (
    Row(
        place="operation: the document's, written otherwise",
        access=BY_KEY,
        text=operation(
            "servers: [{url: 'https://API.example.com/{v}/', variables: {v: {default: v1}}}]",
            _AT_API,
        ),
    ),
    Row(
        place="operation: the document's among others",
        access=BY_KEY,
        text=operation(
            "servers: [{url: 'https://x.example'}, {url: 'https://api.example.com/v1'}]", _AT_API
        ),
    ),
    Row(
        place="operation: another base path",
        access="GET /b: api_key",
        text=paths("/a: {get: {servers: [{url: /v2}], security: []}}\n/b: {get: {}}", _AT_API),
        warned="put it at base path /v2, and an API has one base path, here /v1; requests for "
        "GET /a are denied",
    ),
    Row(
        place="path item: another base path",
        access="GET /b: api_key",
        text=paths("/a: {servers: [{url: /v2}], get: {}, put: {}}\n/b: {get: {}}", _AT_API),
        warned="requests for GET /a, PUT /a are denied",
    ),
    Row(
        place="operation: another base path, and nothing is left",
        text=paths("/a: {get: {servers: [{url: /v2}]}}", _AT_API).replace(":", ":  # here", 1),
        refused="no operation is served here",
    ),
    Row(
        place="operation: another base path, where another operation asks for less",
        text=paths(
            "/a:\n  get:  # here\n    security: [{t: [write]}]\n    servers: [{url: /v2}]\n"
            "/{b}: {get: {}}",
            _AT_API,
        ),
        refused="here the same request may be meant for GET /{b}, which asks for something else",
    ),
    Row(
        place="operation: another base path, where another operation asks for the same",
        access=BY_KEY.replace("/a", "/{b}"),
        text=paths("/a: {get: {servers: [{url: /v2}]}}\n/{b}: {get: {}}", _AT_API),
        warned="requests for GET /a are denied",
    ),
    Row(
        place="operation: another base path for the public, where another operation asks for more",
        access=BY_KEY.replace("/a", "/{b}"),
        text=paths("/a: {get: {security: [], servers: [{url: /v2}]}}\n/{b}: {get: {}}", _AT_API),
        warned="requests for GET /a are denied",
    ),
    Row(
        place="a base path that is not told",
        access=BY_KEY,
        text=operation("{}", "servers: [{url: v1}]"),
        warned="the servers do not tell the base path",
    ),
    Row(
        place="operation: another base path, and in the catalog",
        text=paths("/{a}: {get: {servers: [{url: /v2}]}}", _AT_API),
        access="GET /{x}: mtls",
        catalog=CATALOG + A_RESOURCE,
    ),
    Row(
        place="operation: another host, which nothing else is at",
        access=BY_KEY,
        text=operation("servers: [{url: 'https://up.example.com/v1'}]", _AT_API),
        warned="put it at host up.example.com",
    ),
    Row(
        place="operation: another host, where another operation may be meant",
        text=paths(
            "/status:\n  servers: [{url: 'https://s.example/v1'}]\n  get:  # here\n"
            "    security: [{t: [write]}]\n/{page}: {get: {}}",
            _AT_API,
        ),
        refused="the same request may be meant for GET /{page}",
    ),
    Row(
        place="operation: another host for the public, where another operation may be meant",
        access="GET /{page}: api_key",
        text=paths(
            "/status: {servers: [{url: 'https://s.example/v1'}], get: {security: []}}\n"
            "/{page}: {get: {}}",
            _AT_API,
        ),
        warned="requests for GET /status are denied",
    ),
    Row(
        place="operation: another host, where another operation asks for the same",
        access="GET /status: api_key\nGET /{page}: api_key",
        text=paths(
            "/status: {servers: [{url: 'https://s.example/v1'}], get: {}}\n/{page}: {get: {}}",
            _AT_API,
        ),
        warned="at host s.example: here it is served at all hosts",
    ),
    Row(
        place="path items: each states the same",
        access="GET /a: api_key\nGET /b: api_key",
        text=paths("/a: {servers: [{url: /v2}], get: {}}\n/b: {servers: [{url: /v2}], get: {}}"),
    ),
    Row(
        place="path items: different ones, and none in the document",
        text=paths(
            "/a: {servers: [{url: 'https://a.example'}], get: {}}\n"
            "/b: {servers: [{url: 'https://a.example'}], get: {}}\n"
            "/{c}:\n  servers: [{url: 'https://c.example'}]\n  get:  # here\n"
            "    security: [{t: [write]}]"
        ),
        refused="may be meant for GET /a",
    ),
    Row(
        place="path item and operation differ",
        text=paths("/a:\n  servers: [{url: /v1}]\n  get:\n    servers: [{url: /v2}]  # here"),
        refused="readers differ on which of the two count",
    ),
    Row(
        place="an empty list",
        text=paths("/a:\n  get: {servers: []}  # here", _AT_API),
        refused="an empty list of servers",
    ),
    Row(
        place="by reference",
        access="GET /b: api_key",
        text=paths(
            "/a: {get: {servers: {$ref: '#/x-s'}}}\n/b: {get: {}}", _AT_API, "x-s: [{url: /v2}]"
        ),
        warned="put it at base path /v2",
    ),
    Row(
        place="no list",
        text=paths("/a:\n  get:\n    servers: {url: /v2}  # here", _AT_API),
        refused="servers is a list",
    ),
    Row(
        place="no URL",
        text=paths("/a:\n  get:\n    servers: [{uri: /v2}]  # here", _AT_API),
        refused="a server has a url",
    ),
)

SWAGGER = (
    Row(
        place="operation",
        text=paths("/a: {get: {$ref: '#/x-ops/create'}}", f"x-ops: {{create: {CREATE}}}"),
        access=BY_SCOPE,
    ),
    Row(
        place="path item",
        text=paths("/a: {$ref: items.yaml#/a}"),
        files={"items.yaml": f"a: {{get: {CREATE}}}\n"},
        access=BY_SCOPE,
    ),
    Row(
        place="HTTP Basic",
        text=operation("security: [{basic: []}]  # here"),
        refused="basic cannot be checked",
    ),
    Row(
        place="HTTP Basic beside a token",
        text=operation("security: [{basic: []}, {t: [write]}]"),
        access=BY_SCOPE,
    ),
    Row(place="securityDefinitions", text=operation("security: [{t: [write]}]"), access=BY_SCOPE),
    Row(
        place="security scheme by reference",
        text=operation("security: [{u: [write]}]"),
        head=SWAGGER_2 + "  u: {$ref: '#/securityDefinitions/t'}\n",
        access=BY_SCOPE,
    ),
    Row(
        place="a misspelled securityDefinitions",
        text=operation("{}", "securityDefinition: {}  # here"),
        refused="did you mean 'securityDefinitions'?",
    ),
    Row(
        place="components of OpenAPI 3",
        text=operation(
            "{}", "components: {securitySchemes: {k: {type: http, scheme: basic}}}  # here"
        ),
        refused="unknown key 'components'",
    ),
    Row(
        place="servers of OpenAPI 3",
        text=operation("servers: [{url: /v2}]  # here"),
        refused="unknown key 'servers'",
    ),
    Row(
        place="schemes, host",
        text=operation("schemes: [https]", "host: api.example.com"),
        access=BY_KEY,
        because="hosts are the catalog's to name, and TLS the proxy's to ask for",
    ),
)
