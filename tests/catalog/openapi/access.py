"""Places in the grammar of OpenAPI, what documents say there, and what becomes of it."""

from __future__ import annotations

from dataclasses import dataclass, field

CATALOG = "apis:\n  - name: A\n    version: v1\n    context: /a\n    openapi: api.yaml\n"
OPENAPI_3 = """\
openapi: 3.1.0
info: {title: A, version: v1}
security: [{k: []}]
components:
  securitySchemes:
    k: {type: apiKey, in: header, name: x-api-key}
    t: {type: oauth2, flows: {}}
    m: {type: mutualTLS}
    basic: {type: http, scheme: basic}
"""
SWAGGER_2 = """\
swagger: "2.0"
info: {title: A, version: v1}
security: [{k: []}]
securityDefinitions:
  k: {type: apiKey, in: header, name: x-api-key}
  t: {type: oauth2, flow: implicit, authorizationUrl: "https://idp.example/", scopes: {}}
  basic: {type: basic}
"""
MARK = "  # here"
KEY = "api_key"
TOKEN = "jwt,opaque"
BY_KEY = f"GET /a: {KEY}"
BY_SCOPE = f"GET /a: {TOKEN} [write]"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A place, what stands there, and what becomes of it.

    Attributes:
        text: what follows the head of a document that asks for a key.
        access: what the catalog asks for then, resource by resource.
        refused: what is said of the line that is marked.
        warned: what is said in the log.
        files: others, by name.
        because: why it changes nothing.
    """

    place: str
    text: str
    access: str = ""
    refused: str = ""
    warned: str = ""
    because: str = ""
    files: dict[str, str] = field(default_factory=dict)
    head: str = OPENAPI_3
    catalog: str = CATALOG


def paths(text: str, *more: str) -> str:
    """Paths, and what stands beside them."""
    lines = "".join(f"  {line}\n" for line in text.splitlines())
    return f"paths:\n{lines}" + "".join(f"{line}\n" for line in more)


def operation(text: str, *more: str) -> str:
    """GET /a with these fields, and what stands beside the paths."""
    return paths("/a:\n  get:\n" + "".join(f"    {line}\n" for line in text.splitlines()), *more)


CREATE = "{security: [{t: [write]}]}"

KEYS = (
    Row(
        place="operation: a misspelled security",
        text=operation("securty: [{t: []}]  # here"),
        refused="unknown key 'securty' in a place where access is said; did you mean 'security'?",
    ),
    Row(
        place="operation: security in upper case",
        text=operation("Security: []  # here"),
        refused="did you mean 'security'?",
    ),
    Row(
        place="operation: scopes of its own",
        text=operation("scopes: [write]  # here"),
        refused="unknown key 'scopes'",
    ),
    Row(
        place="operation: schemes of its own",
        text=operation("securitySchemes: {}  # here"),
        refused="unknown key 'securitySchemes'",
    ),
    Row(
        place="operation: words",
        text=operation("note: x"),
        access=BY_KEY,
        warned="unknown key 'note' is passed over",
        because="it does not read like access",
    ),
    Row(
        place="operation: an extension about access",
        text=operation("x-required-scopes: [write]"),
        access=BY_KEY,
        warned="extension 'x-required-scopes' is not read",
    ),
    Row(
        place="operation: another extension",
        text=operation("x-order: 1"),
        access=BY_KEY,
        because="it does not read like access",
    ),
    Row(
        place="operation: the key twice",
        text=operation("security: [{t: []}]\nsecurity: []  # here"),
        refused="stands twice",
    ),
    Row(
        place="path item: what belongs into an operation",
        access=BY_KEY,
        text=paths("/a: {tags: [a], operationId: a, get: {}}"),
        warned="unknown key 'tags' is passed over",
    ),
    Row(
        place="path item: operations by another name",
        access=BY_KEY,
        text=paths(f"/a: {{get: {{}}, x-amazon-apigateway-any-method: {CREATE}}}"),
        warned="extension 'x-amazon-apigateway-any-method' is not read",
    ),
    Row(
        place="document: paths by another name",
        access=BY_KEY,
        text=operation("{}", f"x-ms-paths: {{'/a?b=c': {{get: {CREATE}}}}}"),
        warned="extension 'x-ms-paths' is not read",
    ),
    Row(
        place="path item: security",
        text=paths("/a:\n  get: {}\n  security: [{t: []}]  # here"),
        refused="'security' is no method",
    ),
    Row(
        place="path item: a method in upper case",
        text=paths("/a:\n  GET: {}  # here"),
        refused="'GET' is no method",
    ),
    Row(
        place="path item: query of 3.2",
        text=paths("/a:\n  query: {}  # here"),
        refused="is no method",
    ),
    Row(
        place="path item: additionalOperations of 3.2",
        text=paths("/a:\n  additionalOperations: {COPY: {}}  # here"),
        refused="is no method",
    ),
    Row(
        place="path item: an extension about access",
        text=paths("/a: {x-public: true, get: {}}"),
        access=BY_KEY,
        warned="extension 'x-public' is not read",
    ),
    Row(place="paths: no path", text=paths("a: {get: {}}  # here"), refused="starts with a slash"),
    Row(
        place="paths: a path twice",
        text=paths("/a: {get: {}}\n/a: {post: {}}  # here"),
        refused="stands twice",
    ),
    Row(
        place="paths: an extension",
        text=paths("/a: {get: {}}\nx-b: {get: {security: []}}"),
        access=BY_KEY,
        because="an extension is no path",
    ),
    Row(
        place="document: a misspelled security",
        text=operation("{}", "secutity: [{t: []}]  # here"),
        refused="did you mean 'security'?",
    ),
    Row(
        place="document: schemes outside of components",
        text=operation("{}", "securitySchemes: {k: {type: http}}  # here"),
        refused="unknown key 'securitySchemes'",
    ),
    Row(
        place="document: Swagger's schemes in OpenAPI 3",
        text=operation("{}", "securityDefinitions: {k: {type: basic}}  # here"),
        refused="unknown key 'securityDefinitions'",
    ),
    Row(
        place="document: security in upper case",
        text=operation("{}", "Security: []  # here"),
        refused="did you mean 'security'?",
    ),
    Row(
        place="document: basePath in OpenAPI 3",
        text=operation("{}", "basePath: /v1"),
        access=BY_KEY,
        warned="unknown key 'basePath' is passed over",
    ),
    Row(
        place="components: misspelled schemes",
        text=operation("{}"),
        head=OPENAPI_3 + "  SecuritySchemes: {}  # here\n",
        refused="did you mean 'securitySchemes'?",
    ),
    Row(
        place="security scheme: a misspelled key",
        text=operation("security: [{u: []}]"),
        head=OPENAPI_3
        + "    u:\n      type: oauth2\n      scops: [a]\n      scopees: [a]  # here\n",
        refused="did you mean 'scopes'?",
    ),
    Row(
        place="webhooks",
        access=BY_KEY,
        because="they are requests of the API, not to it",
        text=operation("{}", "webhooks: {new: {post: {security: []}}}"),
    ),
    Row(
        place="callbacks",
        access=BY_KEY,
        because="they are requests of the API, not to it",
        text=operation("callbacks: {done: {'{$url}': {post: {security: []}}}}"),
    ),
    Row(
        place="path items that no path refers to",
        text=operation("{}"),
        access=BY_KEY,
        head=OPENAPI_3 + "  pathItems: {b: {get: {security: []}}}\n",
        because="they have no path",
    ),
    Row(
        place="version 3.2",
        text=operation("{}"),
        head="openapi: 3.2.0  # here\n",
        refused="only OpenAPI 3.0 and 3.1 are read",
    ),
)

REQUIREMENTS = (
    Row(
        place="HTTP Basic beside a token, for the document",
        text=operation("{}"),
        head=OPENAPI_3.replace("security: [{k: []}]", "security: [{basic: []}, {t: [write]}]"),
        access=BY_SCOPE,
    ),
    Row(
        place="HTTP Basic for the document",
        text=operation("{}"),
        head=OPENAPI_3.replace("security: [{k: []}]", "security: [{basic: []}]  # here"),
        refused="http basic cannot be checked",
    ),
    Row(place="none stated", text=operation("{}"), access=BY_KEY),
    Row(place="an empty list", text=operation("security: []"), access="GET /a: none"),
    Row(place="an empty requirement", text=operation("security: [{}]"), access="GET /a: none"),
    Row(
        place="null",
        text=operation("security:  # here"),
        refused="security is a list of requirements",
    ),
    Row(
        place="a mapping", text=operation("security: {k: []}  # here"), refused="security is a list"
    ),
    Row(
        place="an empty mapping",
        text=operation("security: {}  # here"),
        refused="security is a list",
    ),
    Row(
        place="a word", text=operation("security: [k]  # here"), refused="mapping from scheme names"
    ),
    Row(
        place="null in the list",
        text=operation("security: [null]  # here"),
        refused="mapping from scheme names",
    ),
    Row(place="optional", text=operation("security: [{k: []}, {}]"), access="GET /a: api_key,none"),
    Row(
        place="optional for the document",
        text=operation("{}"),
        access="GET /a: api_key,none",
        head=OPENAPI_3.replace("security: [{k: []}]", "security: [{}, {k: []}]"),
    ),
    Row(
        place="an unknown scheme",
        text=operation("security: [{ghost: []}]  # here"),
        refused="'ghost' is not declared",
    ),
    Row(
        place="an unknown scheme beside a good one",
        text=operation("security: [{k: []}, {ghost: []}]  # here"),
        refused="'ghost' is not declared",
    ),
    Row(
        place="HTTP Basic",
        text=operation("security: [{basic: []}]  # here"),
        refused="http basic cannot be checked; say in the catalog",
    ),
    Row(
        place="HTTP Basic beside a token",
        text=operation("security: [{basic: []}, {t: [write]}]"),
        access=BY_SCOPE,
        warned="it is left out, and who uses it is denied",
    ),
    Row(
        place="HTTP Basic or nothing",
        text=operation("security: [{basic: []}, {}]  # here"),
        refused="http basic cannot be checked",
    ),
    Row(
        place="two credentials",
        text=operation("security: [{k: [], t: [write]}]  # here"),
        refused="k and t together cannot be asked for",
    ),
    Row(
        place="two credentials beside one",
        text=operation("security: [{k: [], t: []}, {t: [write]}]"),
        access=BY_SCOPE,
        warned="k and t together",
    ),
    Row(place="roles of keys", text=operation("security: [{k: [admin]}]  # here"), refused="roles"),
    Row(
        place="all scopes",
        text=operation("security: [{t: [read, write]}]"),
        access=f"GET /a: {TOKEN} [read and write]",
    ),
    Row(
        place="any scope",
        text=operation("security: [{t: [read]}, {t: [write]}]"),
        access=f"GET /a: {TOKEN} [read or write]",
    ),
    Row(
        place="different sets of scopes",
        text=operation("security: [{t: [read, write]}, {t: [admin]}]  # here"),
        refused="different sets of scopes",
    ),
    Row(
        place="a token without scopes beside one of another scheme with them",
        access=BY_SCOPE,
        head=OPENAPI_3 + "    p: {type: http, scheme: bearer}\n",
        text=operation("security: [{p: []}, {t: [write]}]"),
        warned="a token of p cannot be told from one of another scheme, which needs scopes: it is "
        "left",
    ),
    Row(
        place="a token without scopes beside one of the same scheme with them",
        text=operation("security: [{t: []}, {t: [write]}]  # here"),
        refused="different sets of scopes",
    ),
    Row(
        place="a bearer token with scopes",
        text=operation("security: [{u: [write]}]"),
        access=BY_SCOPE,
        head=OPENAPI_3 + "    u: {type: http, scheme: BEARER}\n",
    ),
    Row(
        place="OpenID Connect with scopes",
        text=operation("security: [{u: [write]}]"),
        access=BY_SCOPE,
        head=OPENAPI_3 + "    u: {type: openIdConnect, openIdConnectUrl: x}\n",
    ),
    Row(place="mutual TLS", text=operation("security: [{m: []}]"), access="GET /a: mtls"),
    Row(
        place="a scheme of no known type",
        text=operation("security: [{u: []}]"),
        head=OPENAPI_3 + "    u: {type: magic}  # here\n",
        refused="no type that is known",
    ),
)

A_RESOURCE = "    resources: [{methods: [GET], path: '/{x}', security: [mtls]}]\n"
TEMPLATES = (
    Row(
        place="what cannot be checked in the document, and the catalog decides who takes it",
        text=paths("/{a}: {get: {}}\n/b: {get: {security: [{k: []}]}}"),
        head=OPENAPI_3.replace("security: [{k: []}]", "security: [{basic: []}]"),
        access="GET /{x}: mtls\nGET /b: api_key",
        catalog=CATALOG + A_RESOURCE,
    ),
    Row(
        place="what cannot be checked in the document, and a resource that takes it",
        text=paths("/{a}: {get: {}}\n/b: {get: {security: [{k: []}]}}"),
        head=OPENAPI_3.replace("security: [{k: []}]", "security: [{basic: []}]  # here"),
        refused="http basic cannot be checked",
        catalog=CATALOG + "    resources: [{methods: [GET], path: '/{x}'}]\n",
    ),
    Row(
        place="what is wrong in the document, though nobody takes it",
        text=paths("/b: {get: {security: [{k: []}]}}"),
        head=OPENAPI_3.replace("security: [{k: []}]", "security: k  # here"),
        refused="security is a list of requirements",
    ),
    Row(
        place="operations, and any method in the catalog",
        text=paths("/{a}: {get: {security: []}, post: {security: [{basic: []}]}}\n/b: {get: {}}"),
        access="* /{x}: mtls\nGET /b: api_key",
        catalog=CATALOG + "    resources: [{methods: ['*'], path: '/{x}', security: [mtls]}]\n",
    ),
    Row(
        place="one template twice, different access",
        text=paths("/{a}: {get: {security: []}}\n/{b}:\n  get: {}  # here"),
        refused="GET '/{b}' matches the same requests as '/{a}' before it",
    ),
    Row(
        place="one template twice, different scopes",
        text=paths(
            "/{a}: {get: {security: [{t: [a]}]}}\n/{b}:\n  get: {security: [{t: [b]}]}  # here"
        ),
        refused="asks for something else",
    ),
    Row(
        place="one template twice, different tiers",
        text=paths("/{a}: {get: {}}\n/{b}:\n  get: {x-throttling-tier: Gold}  # here"),
        refused="asks for something else",
    ),
    Row(
        place="one template twice, the same access",
        text=paths("/{a}: {get: {}}\n/{b}: {get: {}}"),
        access="GET /{a}: api_key",
        because="either says the same",
    ),
    Row(
        place="one template twice, other methods",
        text=paths("/{a}: {get: {}}\n/{b}: {post: {security: []}}"),
        access="GET /{a}: api_key\nPOST /{b}: none",
    ),
    Row(
        place="one template twice, deeper",
        text=paths("/x/{a}.{f}/y: {get: {}}\n/x/{b}.{g}/y:\n  get: {security: []}  # here"),
        refused="matches the same requests",
    ),
    Row(
        place="one template twice, by an escape",
        text=paths("/a~: {get: {}}\n/a%7e:\n  get: {security: []}  # here"),
        refused="matches the same requests",
    ),
    Row(
        place="one template twice, by a query",
        text=paths("/a: {get: {}}\n/a?x=1:\n  get: {security: []}  # here"),
        refused="matches the same requests",
    ),
    Row(
        place="a query in a path",
        text=paths("/a?x=1: {get: {}}"),
        access=BY_KEY,
        warned="the path alone decides",
    ),
    Row(
        place="one template twice, and in the catalog",
        text=paths("/{a}: {get: {security: []}}\n/{b}: {get: {}}"),
        access="GET /{x}: mtls",
        catalog=CATALOG + A_RESOURCE,
    ),
    Row(
        place="what cannot be checked, and in the catalog",
        text=paths("/{a}: {get: {security: [{basic: []}]}, post: {}}"),
        access="GET /{x}: mtls\nPOST /{a}: api_key",
        catalog=CATALOG + A_RESOURCE,
    ),
    Row(
        place="a reference into nothing, and in the catalog",
        text=paths("/{a}: {get: {$ref: gone.yaml}}"),
        access="GET /{x}: mtls",
        catalog=CATALOG + A_RESOURCE,
    ),
    Row(
        place="what cannot be checked, and security in the catalog",
        text=operation("security: [{basic: []}]"),
        access="GET /a: mtls",
        catalog=CATALOG + "    security: [mtls]\n",
        warned="the catalog's security stands in its place",
    ),
    Row(
        place="what cannot be checked in the document, and security in the catalog",
        text=operation("{}"),
        head=OPENAPI_3.replace("security: [{k: []}]", "security: [{basic: []}]"),
        access="GET /a: mtls",
        catalog=CATALOG + "    security: [mtls]\n",
    ),
    Row(
        place="what cannot be checked, and a public API in the catalog",
        text=operation("security: [{basic: []}]  # here"),
        catalog=CATALOG + "    security: [none]\n",
        refused="http basic cannot be checked",
    ),
    Row(
        place="what cannot be checked, with scopes, and security in the catalog",
        text=operation("security: [{k: [], t: [write]}]  # here"),
        refused="together",
        catalog=CATALOG + "    security: [jwt]\n",
    ),
    Row(
        place="what no request matches",
        access=BY_KEY,
        text=paths("/a: {get: {}}\n/b;c: {get: {security: [{t: [write]}]}}"),
        warned="; requests for GET /b;c are denied",
    ),
    Row(
        place="a name with a star",
        access=BY_KEY,
        text=paths("/a: {get: {}}\n'/b/{c*}': {get: {security: [{t: [write]}]}}"),
        warned="; requests for GET /b/{c*} are denied",
    ),
    Row(
        place="a query in a name",
        access=BY_KEY,
        text=paths("/a: {get: {}}\n'/b{?c,d}': {get: {}}"),
        warned="; requests for GET /b{?c,d} are denied",
    ),
    Row(
        place="a name with a star, where another operation asks for less",
        text=paths("/b/{d}: {get: {}}\n'/b/{c*}':\n  get:  # here\n    security: [{t: [write]}]"),
        refused="here the same request may be meant for GET /b/{d}",
    ),
    Row(
        place="a name with a star, and in the catalog",
        access="GET /b/**: mtls\nGET /b/{d}: api_key",
        text=paths("/b/{d}: {get: {}}\n'/b/{c*}': {get: {security: [{t: [write]}]}}"),
        catalog=CATALOG + A_RESOURCE.replace("/{x}", "/b/**"),
    ),
    Row(
        place="half a name",
        text=paths("'/b/{c': {get: {}}  # here"),
        refused="without its other half",
    ),
    Row(
        place="several names in one segment",
        text=paths("/{lat},{lon}: {get: {security: [{t: [write]}]}}"),
        access=f"GET /{{lat}},{{lon}}: {TOKEN} [write]",
    ),
)
