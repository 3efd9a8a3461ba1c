"""HTTPAPISpecs as APIs: names with versions, several specs on a service, overlapping patterns."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.builders import a_request
from tests.keys import ISSUER, a_jwk, a_jwks, a_jwt, rsa_key
from tests.mixer_compat.migrate.conftest import FIXTURES, Migrate, Migrated

HANDLER = (
    (FIXTURES / "wso2.yaml")
    .read_text()
    .split("---\napiVersion: config.istio.io/v1alpha2\nkind: rule")[0]
)
RULE = """\
apiVersion: config.istio.io/v1alpha2
kind: rule
metadata: {name: all, namespace: istio-system}
spec: {actions: [{handler: wso2-handler, instances: [wso2-authorization]}]}
"""


def a_spec(
    object_name: str, name: str, version: str, services: list[str], *patterns: tuple[str, str, str],
    **more: str,
) -> str:  # fmt: skip
    """Patterns are a method, a template (or ~regex), and a scope."""
    attributes = {"api.service": name, "api.version": version, **more}

    def write(values: dict[str, str]) -> dict[str, Any]:
        return {"attributes": {key: {"stringValue": value} for key, value in values.items()}}

    spec = {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": "HTTPAPISpec",
        "metadata": {"name": object_name},
        "spec": {
            "attributes": write(attributes),
            "patterns": [
                {
                    "httpMethod": method,
                    "regex" if path.startswith("~") else "uriTemplate": path.removeprefix("~"),
                    "attributes": write({"resource.scope": scope} if scope else {}),
                }
                for method, path, scope in patterns
            ],
        },
    }
    binding = {
        "apiVersion": "config.istio.io/v1alpha2",
        "kind": "HTTPAPISpecBinding",
        "metadata": {"name": object_name},
        "spec": {
            "services": [{"name": service} for service in services],
            "api_specs": [{"name": object_name}],
        },
    }
    return f"---\n{json.dumps(spec)}\n---\n{json.dumps(binding)}\n"


async def ask(
    migrated: Migrated, path: str, *scopes: str, host: str = "s", method: str = "GET"
) -> str:
    """The answer to a request with a good token of some scopes; and the API that it was for."""
    (migrated.out / "jwks.json").write_text(a_jwks(a_jwk(rsa_key())))
    deciding = await migrated.decide_by(
        added=f"issuers: [{{issuer: {ISSUER}, audiences: [httpbin], jwks_file: jwks.json}}]"
    )
    headers = {"authorization": f"Bearer {a_jwt(scope=' '.join(scopes))}"}
    request = a_request(path, host=host, method=method, headers=headers)
    decision = await deciding.decide(request)
    answer = await deciding.reason(request)
    if decision.route is None:
        return answer
    return f"{answer} {decision.route.api.name} {decision.route.api.version}"


def unsubscribed(*specs: str) -> str:
    handler = HANDLER.replace('validate_subscription: "true"', 'validate_subscription: "false"')
    return f"{handler}---\n{RULE}{''.join(specs)}"


async def test_versions_of_an_api_on_services_of_their_own_are_two_apis(migrate: Migrate) -> None:
    migrated = migrate(
        unsubscribed(
            a_spec("v1", "Pets", "1.0.0", ["s"], ("GET", "/pets", "old")),
            a_spec("v2", "Pets", "2.0.0", ["t"], ("GET", "/pets", "new")),
        )
    )
    assert await ask(migrated, "/pets", "old", host="s") == "allowed Pets 1.0.0"
    assert await ask(migrated, "/pets", "new", host="t") == "allowed Pets 2.0.0"
    assert await ask(migrated, "/pets", "old", host="t") == "insufficient_scope Pets 2.0.0"


@pytest.mark.parametrize(
    ("context", "base"),
    [("/pets/1.0.0", "/pets/1.0.0"), ("/pets", "/pets/1.0.0"), ("/{version}/p", "/1.0.0/p"),
     ("", "/Pets/1.0.0")],
)  # fmt: skip
async def test_of_versions_on_one_service_the_last_one_is_the_api_there(
    context: str, base: str, migrate: Migrate
) -> None:
    more = {"api.context": context} if context else {}
    migrated = migrate(
        unsubscribed(
            a_spec(
                "v1", "Pets", "1.0.0", ["s"], ("GET", "/pets", "old"), ("GET", "/cats", "c"), **more
            ),
            a_spec("v2", "Pets", "2.0.0", ["s"], ("GET", "/pets", "new")),
        )
    )
    assert await ask(migrated, "/pets", "new", "old") == "allowed Pets 2.0.0"
    assert await ask(migrated, "/pets", "old") == "insufficient_scope Pets 2.0.0"
    assert await ask(migrated, "/cats") == "insufficient_scope Pets 2.0.0"
    assert await ask(migrated, "/cats", "c") == "allowed Pets 2.0.0"
    assert await ask(migrated, f"{base}/pets", "old") == "allowed Pets 1.0.0"
    assert any("same services as API Pets 2.0.0" in line for line in migrated.told("check"))


@pytest.mark.parametrize(
    ("pattern", "path", "scopes", "answer"),
    [
        ("~/a/.*", "/a/7", ["r"], "allowed"),
        ("~/a/.*", "/a/7", [], "insufficient_scope"),
        ("~/a/.*", "/a/named", ["n"], "insufficient_scope"),
        ("~/a/.*", "/a/named", ["n", "r"], "allowed"),
        (r"~/a/\d+/b", "/a/7/b", [], "insufficient_scope"),
        ("~/x/[a-c]{2}y", "/x/aby", [], "insufficient_scope"),
        ("~/x/[a-c]{2}y", "/y", [], "allowed"),
        ("/a/**/z", "/a/b/z", [], "insufficient_scope"),
        ("/v/{id}:run", "/v/7:run", [], "insufficient_scope"),
        ("/v/{id}:run", "/v/7/run", [], "insufficient_scope"),
        ("/v/{id}:run", "/v/7", [], "allowed"),
        ("/w/*", "/w/1", [], "insufficient_scope"),
        ("/w/*", "/w/1/", [], "insufficient_scope"),
        ("/w/*", "/w/1/2", [], "allowed"),
        ("/w/**", "/w/1/2", [], "insufficient_scope"),
    ],
)
async def test_a_pattern_asks_for_its_scope_on_all_its_paths(
    pattern: str, path: str, scopes: list[str], answer: str, migrate: Migrate
) -> None:
    spec = a_spec("a", "A", "v1", ["s"], ("GET", "/a/named", "n"), ("GET", pattern, "r"))
    migrated = migrate(unsubscribed(spec))
    assert await ask(migrated, path, *scopes) == f"{answer} A v1"
    assert bool([line for line in migrated.told("stricter") if "both" in line]) is (
        pattern == "~/a/.*"
    )


async def test_the_first_of_two_patterns_of_a_spec_counts(migrate: Migrate) -> None:
    spec = a_spec("a", "A", "v1", ["s"], ("GET", "/{x}", "first"), ("GET", "/{y}", "second"))
    migrated = migrate(unsubscribed(spec))
    assert await ask(migrated, "/7", "first") == "allowed A v1"
    assert await ask(migrated, "/7", "second") == "insufficient_scope A v1"
    assert await ask(migrated, "/7", method="POST") == "allowed A v1"


async def test_a_scope_of_the_whole_spec_is_asked_for_everywhere(migrate: Migrate) -> None:
    spec = a_spec("a", "A", "v1", ["s"], ("GET", "/own", "own"), ("GET", "/none", ""),
                  **{"resource.scope": "all"})  # fmt: skip
    migrated = migrate(unsubscribed(spec))
    assert await ask(migrated, "/none", "all") == "allowed A v1"
    assert await ask(migrated, "/other") == "insufficient_scope A v1"
    assert await ask(migrated, "/own", "own") == "allowed A v1"
    assert await ask(migrated, "/own", "all") == "insufficient_scope A v1"


def test_a_spec_that_is_bound_to_nothing_is_told(migrate: Migrate) -> None:
    spec = a_spec("a", "A", "v1", [], ("GET", "/a", ""))
    migrated = migrate(unsubscribed(spec))
    assert any("HTTPAPISpec default/a" in line and "bound to no service" in line
               for line in migrated.told("not_carried"))  # fmt: skip
    assert "name: A\n" not in migrated.text("catalog/catalog.yaml")


@pytest.mark.parametrize(
    ("expression", "header", "answer"),
    [
        ('request.headers["authorization"] | ""', "authorization", "allowed"),
        ('request.headers["X-Token"]', "x-token", "allowed"),
        ('request.headers["X-Token"]', "authorization", "missing_credentials"),
        ("request.auth.principal", "authorization", "allowed"),
    ],
)
async def test_the_token_stands_where_the_instance_took_it_from(
    expression: str, header: str, answer: str, migrate: Migrate
) -> None:
    text = unsubscribed(a_spec("a", "A", "v1", ["s"]))
    migrated = migrate(text.replace('request.headers["authorization"]', f"'{expression}'", 1))
    (migrated.out / "jwks.json").write_text(a_jwks(a_jwk(rsa_key())))
    deciding = await migrated.decide_by(
        added=f"issuers: [{{issuer: {ISSUER}, audiences: [httpbin], jwks_file: jwks.json}}]"
    )
    request = a_request("/", headers={header: f"Bearer {a_jwt()}"})
    assert await deciding.reason(request) == answer


async def test_an_api_that_two_adapters_guarded_is_refused(migrate: Migrate) -> None:
    apigee = (FIXTURES / "apigee.yaml").read_text().replace('== "shop"', '== "default"')
    migrated = migrate(unsubscribed(a_spec("a", "A", "v1", ["s"])), apigee)
    assert await ask(migrated, "/") == "blocked A v1"
    assert any("both had to allow" in line for line in migrated.told("stricter"))
