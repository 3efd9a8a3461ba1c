"""References ($ref) in OpenAPI documents, where they stand, and what becomes of them."""

from __future__ import annotations

from tests.catalog.openapi.access import (
    BY_KEY,
    BY_SCOPE,
    CREATE,
    OPENAPI_3,
    TOKEN,
    Row,
    operation,
    paths,
)

OTHER = {"ops/create.yaml": f"{CREATE}\n"}
A_DOCUMENT = (
    "openapi: 3.1.0\nsecurity: [{t: []}]\npaths:\n  /a:\n    get: {responses: {}}\n"
    "  /b: {get: {security: [{k: []}]}}\n"
)

REFERENCES = (
    Row(
        place="operation, to a path item",
        text=paths("/a: {get: {$ref: '#/x-a'}}", "x-a:", f"  get: {CREATE}  # here"),
        refused="unknown key 'get' in a place where access is said",
    ),
    Row(
        place="operation, to a path item in another case",
        text=paths("/a: {get: {$ref: '#/x-a'}}", "x-a:", f"  GET: {CREATE}  # here"),
        refused="unknown key 'GET' in a place where access is said",
    ),
    Row(
        place="operation, to a path",
        text=paths("/a: {get: {$ref: ops.yaml}}"),
        files={"ops.yaml": f"paths: {{/a: {{get: {CREATE}}}}}  # here\n"},
        refused="unknown key 'paths' in a place where access is said",
    ),
    Row(
        place="path item, to an operation",
        text=paths(
            "/a: {$ref: '#/x-ops/create'}", "x-ops:", "  create:", "    security: []  # here"
        ),
        refused="'security' is no method",
    ),
    Row(
        place="security scheme, to all schemes",
        text=operation("security: [{u: []}]"),
        head=OPENAPI_3 + "    u: {$ref: '#/x-schemes'}\n"
        "x-schemes:  # here\n  u: {type: mutualTLS}\n",
        refused="no type that is known",
    ),
    Row(
        place="operation",
        text=paths("/a: {get: {$ref: '#/x-ops/create'}}", f"x-ops: {{create: {CREATE}}}"),
        access=BY_SCOPE,
    ),
    Row(
        place="operation, other file",
        text=paths("/a: {get: {$ref: ops/create.yaml}}"),
        files=OTHER,
        access=BY_SCOPE,
    ),
    Row(
        place="operation, other file with a dot and an empty fragment",
        text=paths("/a: {get: {$ref: './ops/create.yaml#'}}"),
        files=OTHER,
        access=BY_SCOPE,
    ),
    Row(
        place="operation, other file with a pointer",
        text=paths("/a: {get: {$ref: 'ops.yaml#/all/create'}}"),
        files={"ops.yaml": f"all: {{create: {CREATE}}}\n"},
        access=BY_SCOPE,
    ),
    Row(
        place="operation, JSON file",
        text=paths("/a: {get: {$ref: create.json}}"),
        files={"create.json": '{"security": [{"t": ["write"]}]}'},
        access=BY_SCOPE,
    ),
    Row(
        place="operation, escapes in the pointer",
        text=paths(
            "/a: {get: {$ref: '#/x-ops/a~1b~0c%20d%7Ee'}}", f"x-ops: {{a/b~c d~e: {CREATE}}}"
        ),
        access=BY_SCOPE,
    ),
    Row(
        place="operation, ~01 is ~1",
        text=paths("/a: {get: {$ref: '#/x-ops/~01'}}", f"x-ops: {{~1: {CREATE}}}"),
        access=BY_SCOPE,
    ),
    Row(
        place="operation, escapes in the file's name",
        text=paths("/a: {get: {$ref: 'my%20ops.yaml'}}"),
        files={"my ops.yaml": CREATE},
        access=BY_SCOPE,
    ),
    Row(
        place="operation, item of a list",
        text=paths("/a: {get: {$ref: '#/x-ops/1'}}", f"x-ops: [{{}}, {CREATE}]"),
        access=BY_SCOPE,
    ),
    Row(
        place="operation, a chain through files",
        text=paths("/a: {get: {$ref: one.yaml}}"),
        files={
            "one.yaml": "$ref: sub/two.yaml#/x\n",
            "sub/two.yaml": "x: {$ref: ../three.yaml}\n",
            "three.yaml": "$ref: 'api.yaml#/x-ops/create'\n",
        },
        access=BY_SCOPE,
        head=OPENAPI_3 + f"x-ops: {{create: {CREATE}}}\n",
    ),
    Row(
        place="operation, by alias",
        text=paths(f"/a: {{get: &x {CREATE}}}\n/b: {{get: *x}}"),
        access=f"{BY_SCOPE}\nGET /b: {TOKEN} [write]",
    ),
    Row(
        place="operation, by merge key",
        text=paths("/a:\n  get:\n    <<: *x  # here"),
        head=OPENAPI_3 + f"x-ops: &x {CREATE}\n",
        refused="merge keys (<<) are not taken",
    ),
    Row(
        place="operation, a circle",
        text=paths("/a:\n  get: {$ref: '#/paths/~1a/get'}  # here"),
        refused="in a circle",
    ),
    Row(
        place="operation, a circle through a file",
        text=paths("/a:\n  get: {$ref: one.yaml}  # here"),
        files={"one.yaml": "$ref: 'api.yaml#/paths/~1a/get'\n"},
        refused="in a circle",
    ),
    Row(
        place="operation, leads nowhere",
        text=paths("/a:\n  get: {$ref: '#/x-ops/gone'}  # here"),
        refused="leads nowhere in this document",
    ),
    Row(
        place="operation, through another reference",
        text=paths(
            "/a:\n  get: {$ref: '#/x-ops/other/create'}  # here",
            f"x-ops: {{all: {{create: {CREATE}}}, other: {{$ref: '#/x-ops/all'}}}}",
        ),
        refused="leads nowhere",
    ),
    Row(
        place="operation, by an anchor",
        text=paths("/a:\n  get: {$ref: '#create'}  # here"),
        refused="stands a path, like #/a/b",
    ),
    Row(
        place="operation, no text",
        text=paths("/a:\n  get: {$ref: [x]}  # here"),
        refused="a reference is text",
    ),
    Row(
        place="operation, a file that is not there",
        text=paths("/a:\n  get: {$ref: gone.yaml}  # here"),
        refused="gone.yaml does not exist",
    ),
    Row(
        place="operation, a file that is broken",
        text=paths("/a: {get: {$ref: ops.yaml}}"),
        files={"ops.yaml": "a: 1\na: 2  # here\n"},
        refused="stands twice",
    ),
    Row(
        place="operation, an empty file",
        text=paths("/a:\n  get: {$ref: ops.yaml}  # here"),
        files={"ops.yaml": ""},
        refused="leads nowhere in that file",
    ),
    Row(
        place="operation, a file of a list",
        text=paths("/a: {get: {$ref: ops.yaml}}"),
        files={"ops.yaml": "- {}  # here\n"},
        refused="an operation is a mapping",
    ),
    Row(
        place="operation, over the network",
        text=paths("/a:\n  get: {$ref: 'https://example.com/ops.yaml'}  # here"),
        refused="is not fetched",
    ),
    Row(
        place="operation, over the network without scheme",
        text=paths("/a:\n  get: {$ref: '//example.com/ops.yaml'}  # here"),
        refused="is not fetched",
    ),
    Row(
        place="operation, by file URL",
        text=paths("/a:\n  get: {$ref: 'file:ops.yaml'}  # here"),
        files={"ops.yaml": CREATE},
        refused="is not fetched",
    ),
    Row(
        place="operation, out of the folder",
        text=paths("/a:\n  get: {$ref: ../ops.yaml}  # here"),
        refused="leads out of the folder",
    ),
    Row(
        place="operation, out of the folder by escapes",
        text=paths("/a:\n  get: {$ref: 'x/%2e%2e/%2E%2E/ops.yaml'}  # here"),
        refused="leads out of the folder",
    ),
    Row(
        place="operation, an absolute name",
        text=paths("/a:\n  get: {$ref: /etc/hostname}  # here"),
        refused="leads out of the folder",
    ),
    Row(
        place="operation, beside its access",
        text=paths(
            "/a:\n  get:\n    $ref: '#/x-ops/create'\n    security: []  # here",
            f"x-ops: {{create: {CREATE}}}",
        ),
        refused="readers differ on 'security' beside a $ref",
    ),
    Row(
        place="operation, beside an extension about access",
        text=paths(
            "/a:\n  get:\n    $ref: '#/x-ops/create'\n    x-auth-type: None  # here",
            f"x-ops: {{create: {CREATE}}}",
        ),
        refused="readers differ on 'x-auth-type' beside a $ref",
    ),
    Row(
        place="operation, beside words",
        access=BY_SCOPE,
        because="words and ids say nothing of access",
        text=paths(
            "/a: {get: {$ref: '#/x-ops/create', summary: s, operationId: o, tags: []}}",
            f"x-ops: {{create: {CREATE}}}",
        ),
    ),
    Row(
        place="operation of another document with other access",
        text=paths("/a: {get: {$ref: 'other.yaml#/paths/~1a/get'}}"),
        files={
            "other.yaml": A_DOCUMENT.replace("get: {responses: {}}", "get: {responses: {}}  # here")
        },
        refused="belongs to another document, whose security differ",
    ),
    Row(
        place="operation of another document that says its access itself",
        text=paths("/a: {get: {$ref: 'other.yaml#/paths/~1b/get'}}"),
        files={"other.yaml": A_DOCUMENT},
        access=BY_KEY,
    ),
    Row(
        place="operation of another document with other schemes",
        text=paths("/a: {get: {$ref: 'other.yaml#/paths/~1b/get'}}"),
        files={
            "other.yaml": "swagger: '2.0'\nsecurityDefinitions: {k: {type: basic}}\npaths:\n"
            "  /b:\n    get: {security: [{k: []}]}  # here\n"
        },
        refused="whose securityDefinitions differ",
    ),
    Row(
        place="path item",
        text=paths("/a: {$ref: '#/components/pathItems/a'}"),
        head=OPENAPI_3 + f"  pathItems: {{a: {{get: {CREATE}}}}}\n",
        access=BY_SCOPE,
    ),
    Row(
        place="path item, other file",
        text=paths("/a: {$ref: items.yaml#/a}"),
        files={"items.yaml": f"a: {{get: {CREATE}}}\n"},
        access=BY_SCOPE,
    ),
    Row(
        place="path item, with others beside it",
        text=paths("/a: {$ref: '#/x-a', post: {security: [{t: [write]}]}}", "x-a: {get: {}}"),
        access=f"POST /a: {TOKEN} [write]\n{BY_KEY}",
    ),
    Row(
        place="path item, with the same method beside it",
        text=paths("/a:\n  $ref: '#/x-a'\n  get: {security: []}  # here", "x-a: {get: {}}"),
        refused="'get' stands here and in what the $ref beside it leads to",
    ),
    Row(
        place="path item, with an extension on both sides",
        text=paths(
            "/a:\n  $ref: '#/x-a'\n  x-wso2-disable-security: true  # here",
            "x-a: {x-wso2-disable-security: false, get: {}}",
        ),
        refused="readers differ on which counts",
    ),
    Row(
        place="path item, a circle",
        text=paths("/a:\n  $ref: '#/paths/~1a'  # here"),
        refused="in a circle",
    ),
    Row(
        place="paths",
        text="paths: {$ref: paths.yaml}\n",
        files={"paths.yaml": f"/a: {{get: {CREATE}}}\n"},
        access=BY_SCOPE,
    ),
    Row(
        place="components",
        text=operation("security: [{u: []}]", "components: {$ref: components.yaml}"),
        head="openapi: 3.0.0\n",
        files={"components.yaml": "securitySchemes: {u: {type: mutualTLS}}\n"},
        access="GET /a: mtls",
    ),
    Row(
        place="securitySchemes",
        text=operation(
            "security: [{u: []}]", "components: {securitySchemes: {$ref: schemes.yaml}}"
        ),
        head="openapi: 3.0.0\n",
        files={"schemes.yaml": "u: {type: mutualTLS}\n"},
        access="GET /a: mtls",
    ),
    Row(
        place="security scheme",
        text=operation("security: [{u: []}]"),
        head=OPENAPI_3 + "    u: {$ref: '#/components/securitySchemes/m'}\n",
        access="GET /a: mtls",
    ),
    Row(
        place="security scheme, other file",
        text=operation("security: [{u: []}]"),
        head=OPENAPI_3 + "    u: {$ref: schemes.yaml#/u}\n",
        files={"schemes.yaml": "u: {type: mutualTLS}\n"},
        access="GET /a: mtls",
    ),
    Row(
        place="security scheme, beside its type",
        text=operation("security: [{u: []}]"),
        head=OPENAPI_3
        + "    u:\n      $ref: '#/components/securitySchemes/m'\n      type: oauth2  # here\n",
        refused="readers differ on 'type' beside a $ref",
    ),
    Row(
        place="security",
        text=operation("security: {$ref: '#/x-security'}", "x-security: [{t: [write]}]"),
        access=BY_SCOPE,
    ),
    Row(
        place="requirement",
        text=operation("security: [{$ref: '#/x-need'}]", "x-need: {t: [write]}"),
        access=BY_SCOPE,
    ),
    Row(
        place="scopes",
        text=operation("security:\n  - t: {$ref: '#/x-scopes'}  # here", "x-scopes: [write]"),
        refused="a list of scopes stands here",
    ),
    Row(
        place="parameter",
        text=operation("parameters: [{$ref: gone.yaml}]"),
        access=BY_KEY,
        because="parameters are the upstream's to check",
    ),
    Row(
        place="request body, response",
        access=BY_KEY,
        because="bodies are the upstream's to check",
        text=operation("requestBody: {$ref: gone.yaml}\nresponses: {'200': {$ref: gone.yaml}}"),
    ),
    Row(
        place="schema",
        text=operation("{}", "x-any: {$ref: gone.yaml}"),
        access=BY_KEY,
        because="what is not about access is not followed",
    ),
)
