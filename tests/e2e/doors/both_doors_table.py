"""Requests of all kinds, each with the one answer that both doors must give."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from extauthz.model.decision import Reason
from tests.e2e.deciding.test_reasons import CASES, OPEN, UNAVAILABLE
from tests.e2e.doors.both_doors import ALLOWED, HOST, Asked
from tests.e2e.running import next_client
from tests.e2e.world import AWAY, DENIED_CLIENT, PERMITTED_CLIENT, REVOKED, World
from tests.keys import rsa_key

Headers = tuple[tuple[str, str], ...]

STANDARD: Final = "standard"
WSO2: Final = "wso2"
"""Services by their response profile. The other one sends error_response."""

DEVICE: Final = "spiffe://mesh.example/ns/field/sa/device"
TOY: Final = "spiffe://mesh.example/ns/field/sa/toy"
MUTUAL: Final = "/mutual/1.0.0/open"
CERTIFIED: Final = "/certified/1.0.0/open"
"""Where a certificate or a key may be shown, and need not be."""
SCOPED: Final = "/world/1.0.0/scoped"
TOKENS: Final = "/tokens/1.0.0/open"
KEYS: Final = "/keys/1.0.0/open"
SIDES: Final = "/sides/1.0.0"
BY_HOST: Final = "/by-host/1.0.0/x"
GUARDED: Final = "admin.example.com"
"""Where `BY_HOST` takes a key. At all other hosts it takes none."""
OPTIONAL: Final = "/optional/1.0.0/open"
ESCAPED: Final = "/escaped/1.0.0"
UNSIGNED: Final = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJub2JvZHkifQ."
DESCRIBED: Final = "/described/1.0.0"

EXTRA: Final[Mapping[str, Any]] = {
    "apis": [
        {
            "name": "Mutual",
            "version": "1.0.0",
            "context": "/mutual",
            "security": ["mtls", "api_key"],
            "key_types": ["PRODUCTION"],
            "resources": [{"methods": ["POST"], "path": "/open"}],
        },
        {
            "name": "Certified",
            "version": "1.0.0",
            "context": "/certified",
            "security": ["mtls", "api_key", "none"],
            "resources": [{"methods": ["POST"], "path": "/open"}],
        },
        {
            "name": "Hosted",
            "version": "1.0.0",
            "context": "/hosted",
            "hosts": [HOST],
            "security": ["none"],
            "resources": [{"methods": ["GET"], "path": "/{id}/parts"}],
        },
        {
            "name": "Guarded",
            "version": "1.0.0",
            "context": "/by-host",
            "hosts": [f"{GUARDED}.", "[2001:DB8:0::1]"],
            "security": ["api_key"],
            "resources": [{"methods": ["GET"], "path": "/*"}],
        },
        {
            "name": "Elsewhere",
            "version": "1.0.0",
            "context": "/by-host",
            "security": ["none"],
            "resources": [{"methods": ["GET"], "path": "/*"}],
        },
        *(
            {
                "name": name,
                "version": "v1",
                "context": f"/{name.lower()}",
                "default_version": True,
                "security": ["api_key"],
                **fields,
                "resources": [
                    {"methods": ["GET"], "path": "/{x}", "security": ["none"]},
                    {"methods": ["GET"], "path": f"/{name.lower()}/{{id}}"},
                ],
            }
            for name, fields in (
                ("Either", {}),
                ("Stripped", {"base_path": "stripped"}),
                ("Sent", {"base_path": "sent"}),
            )
        ),
        {
            "name": "Escaped",
            "version": "1.0.0",
            "context": "/escaped",
            "security": ["none"],
            "resources": [
                {"methods": ["GET"], "path": "/@me", "security": ["api_key"]},
                {"methods": ["GET"], "path": "/{id}:purge", "security": ["api_key"]},
                {"methods": ["GET"], "path": "/{id}"},
                {"methods": ["GET"], "path": "/{base}...{head}", "security": ["api_key"]},
                {"methods": ["GET"], "path": "/pub/{id}"},
                {"methods": ["GET"], "path": "/pub/@admin", "security": ["api_key"]},
                {"methods": ["GET"], "path": "/items/$count"},
            ],
        },
        {
            "name": "Optional",
            "version": "1.0.0",
            "context": "/optional",
            "security": ["jwt", "api_key", "none"],
            "resources": [{"methods": ["POST"], "path": "/open", "scopes": ["read"]}],
        },
        {
            "name": "Described",
            "version": "1.0.0",
            "context": "/described",
            "openapi": "described.yaml",
        },
    ],
    "applications": [
        {
            "name": "device",
            "certificates": [
                {"principal": DEVICE},
                {"principal": TOY, "key_type": "SANDBOX"},
            ],
        },
    ],
    "subscriptions": [
        {"application": "device", "api": "Mutual", "version": "1.0.0"},
        {"application": "device", "api": "Certified", "version": "1.0.0"},
        {"application": "mobile", "api": "Optional", "version": "1.0.0"},
        {"application": "mobile", "api": "Described", "version": "1.0.0"},
    ],
}
"""What the catalog has beside the world: certificates, and APIs of some hosts."""

DOCUMENTS: Final[Mapping[str, str]] = {
    "described.yaml": """\
openapi: 3.0.3
info: {title: Described, version: 1.0.0}
components:
  securitySchemes:
    token: {type: oauth2, flows: {}}
    key: {type: apiKey, in: header, name: x-api-key}
    basic: {type: http, scheme: basic}
security: [{key: []}]
paths:
  /by-file: {post: {$ref: ops/create.yaml}}
  /by-pointer: {post: {$ref: "#/x-ops/create"}}
  /optional: {post: {security: [{key: []}, {}]}}
  /basic: {post: {security: [{basic: []}, {token: []}]}}
  /points/{lat},{lon}: {post: {}}
  /points/{name}: {post: {security: []}}
x-ops:
  create: {security: [{token: [write]}], responses: {}}
""",
    "ops/create.yaml": "{security: [{token: [write]}], responses: {}}\n",
}
"""What the extra catalog refers to."""


def write_extra(folder: Path) -> Path:
    """The file of the extra catalog, beside what it refers to."""
    file = folder / "extra.yaml"
    file.write_text(yaml.safe_dump(dict(EXTRA), sort_keys=False))
    for name, text in DOCUMENTS.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return file


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A request and its answer.

    Attributes:
        outcome: "allowed", or the reason.
        calls: so many of the same; the last one counts.
        services: where the doors must agree on it.
    """

    title: str
    outcome: str
    method: str = "POST"
    path: str = OPEN
    headers: Callable[[World], Headers] = lambda _: ()
    client: str = ""
    principal: str = ""
    host: str = HOST
    api: str = ""
    calls: int = 1
    services: tuple[str, ...] = (STANDARD, WSO2)

    def ask(self, world: World, request_id: str = "") -> Asked:
        """The request, from an address of its own where none is named."""
        return Asked(
            method=self.method,
            path=self.path,
            headers=self.headers(world),
            client=self.client or next_client(),
            principal=self.principal,
            host=self.host,
            api=self.api,
            request_id=request_id,
        )


def _sent(**fields: str) -> Callable[[World], Headers]:
    sent = tuple((name.replace("_", "-"), value) for name, value in fields.items())
    return lambda _: sent


def _key(application: str = "mobile", **more: str) -> Callable[[World], Headers]:
    return lambda world: (("x-api-key", world.keys[application]), *_sent(**more)(world))


def _token(*, scheme: str = "Bearer", **how: Any) -> Callable[[World], Headers]:
    return lambda world: (("authorization", f"{scheme} {world.sign(**how)}"),)


def _bearer(token: str) -> Headers:
    return (("authorization", f"Bearer {token}"),)


def _opaque(**members: Any) -> Callable[[World], Headers]:
    return lambda world: _bearer(world.make_opaque(**members))


def _signed(**claims: Any) -> Callable[[World], Headers]:
    return lambda world: (("apikey", world.sign_key(**claims)),)


def _internal(**claims: Any) -> Callable[[World], Headers]:
    return lambda world: (("internal-key", world.sign_key(internal=True, **claims)),)


def _refused(status: int, body: str) -> Callable[[World], Headers]:
    return lambda world: _bearer(world.make_refused(status, body))


def _from_reasons() -> list[Scenario]:
    """The cases in which clients of Envoy meet every reason, and every level of limits."""

    def send(case: Any) -> Callable[[World], Headers]:
        def write(world: World) -> Headers:
            repeated = [(name, world.keys["sandbox"]) for name in case.repeated]
            return (*case.headers(world).items(), *repeated)

        return write

    return [
        Scenario(
            title=case.title,
            outcome=case.reason.value,
            path=case.path,
            headers=send(case),
            client=case.client,
            calls=case.calls,
            # A failed call is no answer: see the differences.
            services=(WSO2,) if case is UNAVAILABLE else (STANDARD, WSO2),
        )
        for case in (*CASES, UNAVAILABLE)
    ]


def _allowed(title: str, **fields: Any) -> Scenario:
    return Scenario(title=title, outcome=ALLOWED, **fields)


def _denied(title: str, reason: Reason, **fields: Any) -> Scenario:
    return Scenario(title=title, outcome=reason.value, **fields)


def _at_host(host: str, outcome: Reason) -> Scenario:
    return _denied(f"the host {host[:50]!r}", outcome, method="GET", path=BY_HOST, host=host)


def _malformed(title: str, path: str, **fields: Any) -> Scenario:
    fields = {"headers": _key(), **fields}
    return _denied(title, Reason.MALFORMED_REQUEST, path=path, **fields)


_EVERYBODY: Final = (
    _allowed("a key", headers=_key()),
    _allowed("a token", headers=_token()),
    _allowed("a token, its scheme in lower case", headers=_token(scheme="bearer")),
    _allowed("an opaque token", headers=_opaque()),
    _allowed(
        "an opaque token of type bearer, and members that are null",
        headers=_opaque(token_type="bearer", exp=None, sub=None, cnf=None),
    ),
    _allowed("a token with members that are null", headers=_token(nbf=None, scope=None)),
    _allowed("a signed key", headers=_signed()),
    _allowed("a signed key, which no scopes bound", path=SCOPED, headers=_signed()),
    _allowed(
        "a signed key from its network",
        headers=_signed(permittedIP="203.0.113.9/24"),
        client=PERMITTED_CLIENT,
    ),
    _allowed(
        "a signed key from its page",
        headers=lambda world: (
            ("apikey", world.sign_key(permittedReferer="*.shop.example/*")),
            ("referer", "https://www.shop.example/cart"),
        ),
    ),
    _allowed("an internal key, of no application", headers=_internal()),
    _allowed("a key from its network", headers=_key("pinned"), client=PERMITTED_CLIENT),
    _allowed("a key from its site", headers=_key("referred", referer="https://shop.example/cart")),
    _allowed("a token where only tokens are taken", path=TOKENS, headers=_token()),
    _allowed("a key where only keys are taken, and with a tier", path=KEYS, headers=_key()),
    _allowed(
        "a key in a cookie",
        path=KEYS,
        headers=lambda world: (("cookie", f"a=1; session={world.keys['mobile']}; b=2"),),
    ),
    _allowed("nobody where everybody may come", path="/world/1.0.0/public"),
    _allowed(
        "a bad key where everybody may come", path="/world/1.0.0/public", headers=_key("stranger")
    ),
    _allowed("nobody where a credential is optional", path=OPTIONAL),
    _allowed("a key where it is optional", path=OPTIONAL, headers=_key()),
    _allowed("a token where it is optional", path=OPTIONAL, headers=_token(scope="read")),
    _allowed(
        "the scope of a document's file", path=f"{DESCRIBED}/by-file", headers=_token(scope="write")
    ),
    _allowed(
        "the scope of a document's reference",
        path=f"{DESCRIBED}/by-pointer",
        headers=_token(scope="write"),
    ),
    _allowed("nobody where a document lets everybody in", path=f"{DESCRIBED}/optional"),
    _allowed(
        "a key where a document makes it optional", path=f"{DESCRIBED}/optional", headers=_key()
    ),
    _allowed("a token beside what cannot be checked", path=f"{DESCRIBED}/basic", headers=_token()),
    _allowed("a key for two names", path=f"{DESCRIBED}/points/1,2", headers=_key()),
    _allowed("nobody for one name", path=f"{DESCRIBED}/points/1"),
    _allowed("both scopes", path=SCOPED, headers=_token(scope="write read more")),
    _allowed("scopes as a list", path=SCOPED, headers=_token(scope=["read", "write"])),
    _allowed("a key, which no scopes bound", path=SCOPED, headers=_key()),
    _allowed("one of the scopes", path=SCOPED, headers=_token(scope="read")),
    _allowed("GET", method="GET", path="/world/1.0.0/get-only", headers=_key()),
    _allowed("HEAD for GET", method="HEAD", path="/world/1.0.0/get-only", headers=_key()),
    _allowed("a query", path=f"{OPEN}?a=1&a=2&b=%2F", headers=_key()),
    _allowed("a wildcard", method="GET", path=f"{SIDES}/public/a/b"),
    _allowed("a variable", method="GET", path="/hosted/1.0.0/7/parts"),
    _allowed("a host with its port", method="GET", path="/hosted/1.0.0/7/parts", host=f"{HOST}:80"),
    _allowed("a certificate", path=MUTUAL, principal=DEVICE),
    _allowed("an optional certificate", path=CERTIFIED, principal=DEVICE),
    _allowed("no optional certificate", path=CERTIFIED),
    _allowed(
        "a bad key behind an optional certificate",
        path=CERTIFIED,
        principal=DEVICE,
        headers=_sent(x_api_key="made-up"),
    ),
    _allowed("a key beside a certificate that means nothing", headers=_key(), principal=TOY),
    _allowed("gRPC", headers=_key(content_type="application/grpc")),
    _allowed("an escape in a name", method="GET", path=f"{ESCAPED}/user%40example.com"),
    _allowed(
        "an escape in a text that nothing else fits", method="GET", path=f"{ESCAPED}/items/%24count"
    ),
    _allowed("an upper-case escape", method="GET", path="/hosted/1.0.0/%C3%A9/parts"),
    _allowed("a lower-case escape", method="GET", path="/hosted/1.0.0/%c3%a9/parts"),
)

_SPELLED: Final = tuple(
    _denied(f"{path} and nobody", outcome, method="GET", path=ESCAPED + path)
    for path, outcome in (
        ("/@me", Reason.MISSING_CREDENTIALS),
        ("/%40me", Reason.MALFORMED_REQUEST),
        ("/7:purge", Reason.MISSING_CREDENTIALS),
        ("/7%3Apurge", Reason.MALFORMED_REQUEST),
        ("/main...next", Reason.MISSING_CREDENTIALS),
        ("/pub/@admin", Reason.MISSING_CREDENTIALS),
        ("/pub/%40admin", Reason.MALFORMED_REQUEST),
        ("/pub/%2540admin", Reason.MALFORMED_REQUEST),
        ("/pub/..%23", Reason.MALFORMED_REQUEST),
        ("/pub/x%3Fy", Reason.MALFORMED_REQUEST),
        ("/pub/x#y", Reason.MALFORMED_REQUEST),
    )
)

_NAMED: Final = tuple(
    Scenario(title=f"{path} of {api}", outcome=outcome, method="GET", path=path, api=api)
    for api, path, outcome in (
        ("Either", "/7", ALLOWED),
        ("Either", "/either/7", Reason.MALFORMED_REQUEST.value),
        ("Either", "/either/v1/7", ALLOWED),
        ("Stripped", "/7", ALLOWED),
        ("Stripped", "/stripped/7", Reason.MISSING_CREDENTIALS.value),
        ("Stripped", "/stripped/v1/7", Reason.RESOURCE_NOT_FOUND.value),
        ("Sent", "/7", Reason.RESOURCE_NOT_FOUND.value),
        ("Sent", "/sent/7", ALLOWED),
        ("Sent", "/sent/sent/7", Reason.MISSING_CREDENTIALS.value),
        ("Sent", "/stripped/7", Reason.RESOURCE_NOT_FOUND.value),
    )
)

_REFUSED: Final = (
    _denied("a token where only keys are taken", Reason.MISSING_CREDENTIALS, path=KEYS,
            headers=_token()),
    _denied("a key where only tokens are taken", Reason.MISSING_CREDENTIALS, path=TOKENS,
            headers=_key()),
    _denied("Basic credentials", Reason.MISSING_CREDENTIALS,
            headers=_sent(authorization="Basic dXNlcjpwYXNz")),
    _denied("a bad key where it is optional", Reason.INVALID_CREDENTIALS, path=OPTIONAL,
            headers=_sent(x_api_key="made-up")),
    _denied("a key without a subscription where it is optional", Reason.SUBSCRIPTION_NOT_FOUND,
            path=OPTIONAL, headers=_key("sandbox")),
    _denied("an old token where it is optional", Reason.TOKEN_EXPIRED, path=OPTIONAL,
            headers=_token(exp=1_000_000_001)),
    _denied("a token without the scope where it is optional", Reason.INSUFFICIENT_SCOPE,
            path=OPTIONAL, headers=_token(scope="other")),
    _denied("two keys where one is optional", Reason.AMBIGUOUS_CREDENTIALS,
            path=f"{OPTIONAL}?apikey=x", headers=_key()),
    _denied("Basic credentials where a token is optional", Reason.MISSING_CREDENTIALS,
            path=OPTIONAL, headers=_sent(authorization="Basic dXNlcjpwYXNz")),
    _denied("a key for a document's file", Reason.MISSING_CREDENTIALS,
            path=f"{DESCRIBED}/by-file", headers=_key()),
    _denied("no scope of a document's file", Reason.INSUFFICIENT_SCOPE,
            path=f"{DESCRIBED}/by-file", headers=_token(scope="read")),
    _denied("no scope of a document's reference", Reason.INSUFFICIENT_SCOPE,
            path=f"{DESCRIBED}/by-pointer", headers=_token(scope="read")),
    _denied("a bad key where a document makes it optional", Reason.INVALID_CREDENTIALS,
            path=f"{DESCRIBED}/optional", headers=_sent(x_api_key="made-up")),
    _denied("Basic credentials, which cannot be checked", Reason.MISSING_CREDENTIALS,
            path=f"{DESCRIBED}/basic", headers=_sent(authorization="Basic dXNlcjpwYXNz")),
    _denied("nobody for two names", Reason.MISSING_CREDENTIALS, path=f"{DESCRIBED}/points/1,2"),
    _denied("no certificate", Reason.MISSING_CREDENTIALS, path=MUTUAL),
    _denied("an unknown certificate", Reason.INVALID_CREDENTIALS, path=MUTUAL,
            principal="spiffe://mesh.example/ns/field/sa/unknown"),
    _denied("an unknown optional certificate", Reason.INVALID_CREDENTIALS, path=CERTIFIED,
            principal="spiffe://mesh.example/ns/field/sa/unknown"),
    _denied("a key, by which the caller is known, beside an unknown optional certificate",
            Reason.SUBSCRIPTION_NOT_FOUND, path=CERTIFIED, headers=_key(),
            principal="spiffe://mesh.example/ns/field/sa/unknown"),
    _denied("a bad key beside no optional certificate", Reason.INVALID_CREDENTIALS,
            path=CERTIFIED, headers=_sent(x_api_key="made-up")),
    _denied("a sandbox certificate", Reason.WRONG_KEY_TYPE, path=MUTUAL, principal=TOY),
    _denied("a key without a subscription beside no certificate", Reason.SUBSCRIPTION_NOT_FOUND,
            path=MUTUAL, headers=_key()),
    _denied("a signed key of tomorrow", Reason.TOKEN_INACTIVE,
            headers=_signed(nbf=int(time.time()) + 86_400)),
    _denied("an old signed key", Reason.TOKEN_EXPIRED, headers=_signed(exp=1_000_000_001)),
    _denied("a revoked signed key", Reason.TOKEN_REVOKED, headers=_signed(jti=REVOKED)),
    _denied("a signed key from another network", Reason.CREDENTIAL_NOT_PERMITTED,
            headers=_signed(permittedIP="203.0.113.9")),
    _denied("a signed key from another page", Reason.CREDENTIAL_NOT_PERMITTED,
            headers=_signed(permittedReferer="www.shop.example/*")),
    _denied("a signed key with what tokens have", Reason.INVALID_CREDENTIALS,
            headers=_signed(azp="mobile-client")),
    _denied("a signed key where only tokens are taken", Reason.MISSING_CREDENTIALS, path=TOKENS,
            headers=_signed()),
    _denied("an internal key for another API", Reason.SUBSCRIPTION_NOT_FOUND, path=TOKENS,
            headers=_internal()),
    _denied("an internal key where keys stand", Reason.INVALID_CREDENTIALS,
            headers=lambda world: (("apikey", world.sign_key(internal=True)),)),
    _denied("no token at all", Reason.INVALID_CREDENTIALS, path=TOKENS,
            headers=_sent(authorization="Bearer a.b.c")),
    _denied("a token of a foreign key", Reason.INVALID_CREDENTIALS,
            headers=lambda world: (
                ("authorization", f"Bearer {world.sign(key=rsa_key('foreign'))}"),)),
    _denied("a token of a foreign issuer", Reason.INVALID_CREDENTIALS, path=TOKENS,
            headers=_token(iss="https://foreign.example/")),
    _denied("a token without an end", Reason.INVALID_CREDENTIALS, headers=_token(exp=...)),
    _denied("a token that critical extensions are in", Reason.INVALID_CREDENTIALS,
            headers=_token(header={"crit": ["b64"], "b64": False})),
    _denied("an old token where only tokens are taken", Reason.TOKEN_EXPIRED, path=TOKENS,
            headers=_token(exp=1_000_000_001)),
    _denied("an issue date of tomorrow", Reason.TOKEN_INACTIVE,
            headers=_token(nbf=int(time.time()) + 86_400)),
    _denied("a revoked token where scopes are missing too", Reason.TOKEN_REVOKED, path=SCOPED,
            headers=_token(jti=REVOKED, scope="other")),
    _denied("a token of nobody", Reason.SUBSCRIPTION_NOT_FOUND, headers=_token(azp="nobody")),
    _denied("two tokens in one field", Reason.AMBIGUOUS_CREDENTIALS,
            headers=lambda world: (
                ("authorization", f"Bearer {world.sign()}, Bearer {world.sign()}"),)),
    _denied("two fields with tokens", Reason.AMBIGUOUS_CREDENTIALS,
            headers=lambda world: (*_token()(world), *_token()(world))),
    _denied("different keys in two places", Reason.AMBIGUOUS_CREDENTIALS, path=f"{KEYS}?apikey=x",
            headers=_key()),
    _denied("a second key, its name with an escape", Reason.AMBIGUOUS_CREDENTIALS,
            path=f"{KEYS}?api%6Bey=x", headers=_key()),
    _denied("a second key behind a semicolon", Reason.AMBIGUOUS_CREDENTIALS,
            path=f"{KEYS}?a=1;apikey=x", headers=_key()),
    _denied("a query of 50,000 signs", Reason.MALFORMED_REQUEST, path=f"{KEYS}?{'&' * 50_000}",
            headers=_key()),
    _denied("an unknown key in the query", Reason.INVALID_CREDENTIALS, path=f"{KEYS}?apikey=x"),
    _denied("no scope at all", Reason.INSUFFICIENT_SCOPE, path=SCOPED, headers=_token()),
    _denied("a token of another issuer, which nobody is asked about", Reason.INVALID_CREDENTIALS,
            headers=_token(iss="https://foreign.example/")),
    _denied("a JWT that nobody signed", Reason.INVALID_CREDENTIALS,
            headers=lambda _: _bearer(UNSIGNED)),
    _denied("JWTs that nobody signed, one after the other", Reason.RATE_LIMITED, calls=6,
            headers=lambda _: _bearer(UNSIGNED)),
    _denied("text that no token has", Reason.INVALID_CREDENTIALS, headers=lambda _: _bearer("a|b")),
    _denied("a token that its issuer refuses with 400", Reason.TOKEN_INACTIVE,
            headers=_refused(400, '{"error": "invalid_request"}')),
    _denied("a token that its issuer refuses with 401", Reason.TOKEN_INACTIVE,
            headers=_refused(401, '{"error": "unsupported_token_type"}')),
    _denied("a token that its issuer calls too long", Reason.TOKEN_INACTIVE,
            headers=_refused(413, "<html>")),
    _denied("refused tokens, one after the other", Reason.RATE_LIMITED, calls=6,
            headers=_refused(400, "no")),
    _denied("a refresh token that is active", Reason.INVALID_CREDENTIALS,
            headers=_opaque(token_type="Refresh")),
    _denied("an ID token that is active", Reason.INVALID_CREDENTIALS,
            headers=_opaque(token_type="ID")),
    _denied("an ID token that is signed", Reason.INVALID_CREDENTIALS, headers=_token(typ="ID")),
    _denied("a token bound to a key", Reason.INVALID_CREDENTIALS,
            headers=_token(cnf={"jkt": "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"})),
    _denied("an opaque token bound to a certificate", Reason.INVALID_CREDENTIALS,
            headers=_opaque(cnf={"x5t#S256": "bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2"})),
    _denied("a logout token by its media type", Reason.INVALID_CREDENTIALS,
            headers=_token(header={"typ": "Logout+JWT; charset=utf-8"})),
    _denied("a denied address with a token", Reason.BLOCKED, headers=_token(),
            client=DENIED_CLIENT),
    _denied("a denied address where everybody may come", Reason.BLOCKED, client=DENIED_CLIENT,
            path="/world/1.0.0/public"),
    _denied("a blocked API and nobody", Reason.API_BLOCKED, path="/blocked/1.0.0/open"),
    _denied("another version", Reason.API_NOT_FOUND, path="/world/2.0.0/open", headers=_key()),
    _denied("a name that only begins alike", Reason.API_NOT_FOUND, path="/world/1.0.0x/open",
            headers=_key()),
    _denied("another host", Reason.API_NOT_FOUND, path="/hosted/1.0.0/7/parts",
            host="other.example", method="GET"),
    _denied("the base path alone", Reason.RESOURCE_NOT_FOUND, path="/world/1.0.0",
            headers=_key()),
    _denied("a method in lower case", Reason.METHOD_NOT_ALLOWED, method="post", headers=_key()),
    _denied("DELETE", Reason.METHOD_NOT_ALLOWED, method="DELETE", headers=_key()),
    _denied("gRPC and nobody", Reason.MISSING_CREDENTIALS,
            headers=_sent(content_type="application/grpc")),
    _denied("gRPC and no scope", Reason.INSUFFICIENT_SCOPE, path=SCOPED,
            headers=lambda world: (
                *_token()(world), ("content-type", "application/grpc+proto"))),
    _denied("gRPC that is limited", Reason.RATE_LIMITED,
            headers=_key("bronze", content_type="application/grpc"), calls=2),
    _denied("one who takes XML", Reason.MISSING_CREDENTIALS, headers=_sent(accept="text/xml")),
    _denied("one who takes XML and is limited", Reason.RATE_LIMITED, path="/world/1.0.0/metered",
            headers=_key(accept="application/xml"), calls=2),
    _denied("one who speaks SOAP", Reason.SUBSCRIPTION_BLOCKED,
            headers=_key("blocked", soapaction="urn:ask")),
    _denied("one who speaks SOAP 1.2", Reason.SUBSCRIPTION_INACTIVE,
            headers=_key("waiting", content_type="application/soap+xml")),
    _malformed("an encoded slash", "/world/1.0.0/op%2Fen"),
    _malformed("an encoded backslash", "/world/1.0.0/op%5Cen"),
    _malformed("an encoded NUL", f"{OPEN}%00"),
    _malformed("an escape of an escape", "/world/1.0.0/%252e%252e/open"),
    _malformed("an overlong slash", "/world/1.0.0/op%C0%AFen"),
    _malformed("an escape that is none", f"{OPEN}%zz"),
    _malformed("a climb above the root", "/../world/1.0.0/open"),
    _malformed("a path of nobody's", "*", method="OPTIONS"),
    _malformed("a path without end", f"/world/1.0.0/{'a' * 8200}"),
    _malformed("dot segments", "/world/1.0.0/x/../open"),
    _malformed("a doubled slash", "/world/1.0.0//open"),
    _malformed("an encoded letter", "/world/1.0.0/op%65n"),
)  # fmt: skip

_THE_SAME_HOST: Final = (
    GUARDED, "ADMIN.example.com:80", f"{GUARDED}.", f"{GUARDED}.:443", f"{GUARDED}:",
    "[2001:db8::1]", "[2001:DB8:0:0::1]:443",
)  # fmt: skip
_NO_HOST: Final = (
    f"{GUARDED}:80:80", f"{GUARDED}:x", f"{GUARDED}:99999", f"{GUARDED}..", f".{GUARDED}",
    "admin..example.com", f"x@{GUARDED}", f"x:y@{GUARDED}", "admin%2eexample.com", f"{GUARDED}%00",
    f"{GUARDED},{GUARDED}", f"{GUARDED},other.example", f"{GUARDED} ", f"{GUARDED}/", f"{GUARDED}#",
    f"http://{GUARDED}", "\uff41dmin.example.com", "admin\u3002example.com", "2001:db8::1",
    "[2001:db8::1%25lo]", "[2001:db8::1", "[2001:db8::1].", f"{'a' * 64}.{GUARDED}", "a." * 5000,
)  # fmt: skip

SCENARIOS: Final = (
    *_from_reasons(),
    *_EVERYBODY,
    *_REFUSED,
    *_SPELLED,
    *_NAMED,
    *(_at_host(host, Reason.MISSING_CREDENTIALS) for host in _THE_SAME_HOST),
    *(_at_host(host, Reason.MALFORMED_REQUEST) for host in _NO_HOST),
    *(
        _allowed(f"the host {host!r}", method="GET", path=BY_HOST, host=host)
        for host in ("other.example.com", "admin_x.example.com", "xn--dmin-moa.example.com")
    ),
)

UNDECIDED: Final[Mapping[str, Callable[[World], Headers]]] = {
    "keys that cannot be fetched": _token(iss=AWAY),
    "an issuer that does not know us": _refused(401, '{"error": "invalid_client"}'),
    "an issuer with a fault": _refused(500, "no"),
    "an issuer that says nothing": _refused(200, "{}"),
}
"""Requests that could not be decided."""
