"""OpenAPI documents become resources, and what cannot be expressed is said."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml

from extauthz.catalog.openapi.document import OpenApiDocument
from extauthz.catalog.openapi.operations import CatalogWord, OpenApiResource
from extauthz.catalog.openapi.read import OpenApiResources
from extauthz.catalog.openapi.read import read_openapi as read_document
from extauthz.documents.values import SourceText
from extauthz.errors import Problem
from extauthz.model.identity import Place, PlaceKind, SecurityScheme

FIXTURES = Path(__file__).parent / "documents"
BEARER = (SecurityScheme.JWT, SecurityScheme.OPAQUE)
API_KEY = (SecurityScheme.API_KEY,)
MTLS = (SecurityScheme.MTLS,)
NONE = (SecurityScheme.NONE,)

SCHEMES = {
    "token": {"type": "oauth2", "flows": {}},
    "login": {"type": "openIdConnect", "openIdConnectUrl": "https://idp.example/"},
    "key": {"type": "apiKey", "in": "header", "name": "X-Key"},
    "app_id": {"type": "apiKey", "in": "query", "name": "app_id"},
    "certificate": {"type": "mutualTLS"},
    "basic": {"type": "http", "scheme": "Basic"},
}


class Read(OpenApiResources):
    """What a document says, and what was told about it: each (place, message)."""

    __slots__ = ("problems", "warnings")
    problems: tuple[tuple[str, str], ...]
    warnings: tuple[tuple[str, str], ...]


def read_openapi(tree: dict[str, Any], of_catalog: CatalogWord | None = None) -> Read:
    def refuse(path: Path) -> SourceText:
        raise AssertionError(f"{path} was read")

    source = SourceText(file="api.json", text=json.dumps(tree))
    document = OpenApiDocument(source, tree, folder=Path(), read=refuse)
    said = read_document(document, of_catalog)
    read = Read(**{field.name: getattr(said, field.name) for field in fields(said)})
    object.__setattr__(read, "problems", tuple(map(place, document.list_problems())))
    object.__setattr__(read, "warnings", tuple(map(place, document.list_warnings())))
    return read


def place(problem: Problem) -> tuple[str, str]:
    """``paths./pets.get``, and the message."""
    return re.sub(r"\['(.*?)'\]", r".\1", problem.path).lstrip("."), problem.message


def read_fixture(name: str) -> Read:
    text = (FIXTURES / name).read_text()
    tree = json.loads(text) if name.endswith(".json") else yaml.safe_load(text)
    read = read_openapi(tree)
    assert read.problems == ()
    return read


def by_operation(read: Read) -> dict[str, OpenApiResource]:
    return {f"{resource.methods[0]} {resource.path}": resource for resource in read.resources}


def a_document(operation: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "openapi": "3.0.3",
        "paths": {"/pets": {"get": {} if operation is None else operation}},
        "components": {"securitySchemes": SCHEMES},
        **fields,
    }


def an_extension(*types: str, optional: bool = False) -> dict[str, Any]:
    return {
        "x-wso2-application-security": {"security-types": list(types), "optional": optional},
    }


def the_operation(tree: dict[str, Any]) -> OpenApiResource:
    read = read_openapi(tree)
    assert read.problems == ()
    (resource,) = read.resources
    return resource


def problems_of(tree: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    read = read_openapi(tree)
    assert read.problems
    return read.problems


def test_reads_openapi_3_0() -> None:
    read = read_fixture("petstore-3.0.yaml")

    assert read.base_path == "/petstore/v3"
    assert read.security == BEARER
    # The cookie's scheme is declared, but nothing asks for it.
    assert set(read.api_key_places or ()) == {
        Place(PlaceKind.HEADER, "x-pet-key"),
        Place(PlaceKind.QUERY, "Key"),
    }
    assert (read.tier, read.bearer_header, read.allow_preflight) == (None, None, None)
    pets = "/pets/{petId}"
    assert by_operation(read) == {
        "GET /pets": OpenApiResource(methods=("GET",), path="/pets", scopes=("read:pets",)),
        "POST /pets": OpenApiResource(
            methods=("POST",),
            path="/pets",
            scopes=("write:pets", "read:pets"),
            all_scopes=True,
            security=BEARER,
        ),
        f"GET {pets}": OpenApiResource(
            methods=("GET",),
            path=pets,
            scopes=("write:pets", "read:pets"),
            all_scopes=True,
            security=(*API_KEY, *BEARER),
        ),
        f"DELETE {pets}": OpenApiResource(
            methods=("DELETE",), path=pets, scopes=("write:pets",), security=BEARER
        ),
        "GET /pets/findByStatus": OpenApiResource(
            methods=("GET",),
            path="/pets/findByStatus",
            scopes=("read:pets", "admin"),
            security=BEARER,
        ),
        "GET /store/inventory": OpenApiResource(
            methods=("GET",), path="/store/inventory", security=API_KEY
        ),
        "GET /health": OpenApiResource(methods=("GET",), path="/health", security=NONE),
        "HEAD /health": OpenApiResource(methods=("HEAD",), path="/health", security=NONE),
    }


def test_reads_openapi_3_1() -> None:
    read = read_fixture("petstore-3.1.yaml")

    assert read.base_path == "/petstore/v31"
    assert read.security is None
    assert by_operation(read) == {
        # The path item's own field wins over what it refers to.
        "GET /pets/{petId}": OpenApiResource(methods=("GET",), path="/pets/{petId}", security=MTLS),
        "PATCH /pets/{petId}": OpenApiResource(
            methods=("PATCH",), path="/pets/{petId}", security=BEARER
        ),
        "GET /me": OpenApiResource(
            methods=("GET",), path="/me", scopes=("profile", "openid"), security=BEARER
        ),
        "PUT /me": OpenApiResource(
            methods=("PUT",),
            path="/me",
            scopes=("profile", "openid"),
            all_scopes=True,
            security=BEARER,
        ),
    }


def test_reads_swagger_2_0() -> None:
    read = read_fixture("petstore-2.0.json")

    assert read.base_path == "/v2"
    assert read.api_key_places == (Place(PlaceKind.HEADER, "api_key"),)
    assert by_operation(read) == {
        "GET /pets": OpenApiResource(
            methods=("GET",), path="/pets", scopes=("read:pets",), security=BEARER
        ),
        "POST /pets": OpenApiResource(methods=("POST",), path="/pets"),
        "OPTIONS /pets/{petId}": OpenApiResource(
            methods=("OPTIONS",), path="/pets/{petId}", security=NONE
        ),
        "GET /pets/{petId}": OpenApiResource(
            methods=("GET",),
            path="/pets/{petId}",
            scopes=("read:pets", "admin"),
            security=API_KEY,
        ),
    }


def test_reads_an_api_that_wso2_api_manager_exported() -> None:
    read = read_fixture("wso2-export.json")

    assert read.base_path == "/pizzashack/1.0.0"
    assert read.bearer_header == "x-pizza-authorization"
    assert read.api_key_places == (Place(PlaceKind.HEADER, "apikey"),)
    assert read.tier == "Gold"
    assert read.allow_preflight is True
    assert read.security == (*BEARER, *API_KEY)
    assert by_operation(read) == {
        "POST /order": OpenApiResource(
            methods=("POST",),
            path="/order",
            scopes=("order:write",),
            security=(*BEARER, *API_KEY),
            tier="10KPerMin",
        ),
        "GET /menu": OpenApiResource(methods=("GET",), path="/menu", security=NONE),
        "PUT /menu": OpenApiResource(
            methods=("PUT",),
            path="/menu",
            scopes=("menu:write",),
            security=(*BEARER, *API_KEY),
            tier="50KPerMin",
        ),
        "GET /status/*": OpenApiResource(methods=("GET",), path="/status/*", security=NONE),
        "DELETE /status/*": OpenApiResource(
            methods=("DELETE",),
            path="/status/*",
            scopes=("menu:write",),
            security=(*BEARER, *API_KEY),
        ),
        "GET /keys": OpenApiResource(methods=("GET",), path="/keys", security=API_KEY),
        "HEAD /keys": OpenApiResource(
            methods=("HEAD",), path="/keys", scopes=("keys:read", "admin")
        ),
    }


@pytest.mark.parametrize("version", ["3.0", "3.0.4", "3.1", "3.1.1", 3.0, 3.1])
def test_takes_versions_as_text_or_number(version: Any) -> None:
    assert the_operation(a_document(openapi=version)).path == "/pets"


def test_takes_swagger_as_a_number() -> None:
    read = read_openapi({"swagger": 2.0, "paths": {"/pets": {"get": {}}}})
    assert read.problems == () and len(read.resources) == 1


@pytest.mark.parametrize(
    ("requirement", "security", "scopes", "all_scopes"),
    [
        ([], NONE, (), False),
        ([{}], NONE, (), False),
        ([{"token": []}], BEARER, (), False),
        ([{"token": ["a"]}], BEARER, ("a",), False),
        ([{"token": ["a", "b"]}], BEARER, ("a", "b"), True),
        ([{"token": ["a"]}, {"token": ["b"]}], BEARER, ("a", "b"), False),
        ([{"token": ["a"]}, {"login": ["b"]}], BEARER, ("a", "b"), False),
        ([{"token": ["a"], "login": ["b"]}], BEARER, ("a", "b"), True),
        ([{"token": ["a", "b"]}, {"login": ["b", "a"]}], BEARER, ("a", "b"), True),
        ([{"key": []}, {"token": ["a"]}], (*API_KEY, *BEARER), ("a",), False),
        ([{"key": []}, {"app_id": []}], API_KEY, (), False),
        ([{"certificate": []}, {"token": []}], (*MTLS, *BEARER), (), False),
        # Optional.
        ([{"key": []}, {}], (*API_KEY, *NONE), (), False),
        ([{}, {"token": ["a"]}], (*BEARER, *NONE), ("a",), False),
        ([{}, {}], NONE, (), False),
        # What cannot be checked is left out beside what can: fewer get in, not more.
        ([{"token": []}, {"basic": []}], BEARER, (), False),
        ([{"basic": []}, {"token": ["a"]}], BEARER, ("a",), False),
        ([{"basic": ["b"]}, {"token": ["a"]}], BEARER, ("a",), False),
        ([{"key": [], "app_id": []}, {"token": []}], BEARER, (), False),
        ([{"key": [], "token": ["b"]}, {"token": ["a"]}], BEARER, ("a",), False),
        ([{"key": ["admin"]}, {"token": []}], BEARER, (), False),
        ([{"basic": []}, {"key": []}, {}], (*API_KEY, *NONE), (), False),
    ],
)
def test_reads_security_requirements(
    requirement: Any, security: Any, scopes: tuple[str, ...], *, all_scopes: bool
) -> None:
    wanted = OpenApiResource(
        methods=("GET",), path="/pets", scopes=scopes, all_scopes=all_scopes, security=security
    )
    assert the_operation(a_document({"security": requirement})) == wanted

    of_document = read_openapi(a_document(security=requirement))
    assert of_document.security == security
    assert of_document.resources == (
        OpenApiResource(methods=("GET",), path="/pets", scopes=scopes, all_scopes=all_scopes),
    )


@pytest.mark.parametrize(
    ("requirement", "place", "message"),
    [
        ("none", "", "is a list"),
        (None, "", "is a list"),
        (["token"], "[0]", "mapping from scheme names"),
        ([{"basic": []}, {}], "[0]", "'basic': http basic cannot be checked"),
        ([{"oauth": []}], "[0].oauth", "'oauth' is not declared"),
        ([{"default": []}], "[0].default", "not declared"),
        ([{"basic": []}], "[0]", "'basic': http basic cannot be checked"),
        ([{"token": []}, {"basic": [], "ghost": []}], "[1].ghost", "not declared"),
        ([{"$ref": "#/x-none"}], "[0].$ref", "leads nowhere"),
        ([{"token": "a"}], "[0].token", "list of scopes"),
        ([{"token": ["a b"]}], "[0].token", "list of scopes"),
        ([{"token": [1]}], "[0].token", "list of scopes"),
        ([{"key": ["admin"]}], "[0]", "roles"),
        ([{"certificate": ["admin"]}], "[0]", "roles"),
        ([{"token": [], "key": []}], "[0]", "token and key together"),
        ([{"key": [], "app_id": []}], "[0]", "key and app_id together"),
        ([{"token": ["a"]}, {"token": []}], "", "different sets of scopes"),
        ([{"token": ["a", "b"]}, {"token": ["c"]}], "", "different sets of scopes"),
        ([{"token": ["a", "b"]}, {"login": ["a", "c"]}], "", "different sets of scopes"),
    ],
)
def test_reports_security_that_cannot_be_expressed(
    requirement: Any, place: str, message: str
) -> None:
    of_operation = read_openapi(a_document({"security": requirement}))
    assert [path for path, _ in of_operation.problems] == [f"paths./pets.get.security{place}"]
    assert message in of_operation.problems[0][1]
    assert of_operation.resources == ()

    # In the document it is reported once, and no operation takes the weaker reading.
    of_document = read_openapi(a_document(security=requirement))
    assert [path for path, _ in of_document.problems] == [f"security{place}"]
    assert of_document.resources == ()


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        ("key", "is not a mapping"),
        ({"type": "apiKey", "in": "body", "name": "key"}, "in is header, query or cookie"),
        ({"type": "apiKey", "in": "query"}, "name says which query"),
        ({"type": "apiKey", "in": "header", "name": "X Key"}, "cannot name a header"),
        ({"type": "apiKey", "in": "header", "name": "x" * 257}, "cannot name a header"),
        ({"type": "http", "scheme": "digest"}, "http digest cannot be checked"),
        ({"type": "basic"}, "basic cannot be checked"),
        ({"type": "http"}, "no type that is known"),
        ({"type": "magic"}, "no type that is known"),
        ({"typ": "oauth2"}, "no type that is known"),
        ({"type": "oauth2", "securty": []}, "unknown key 'securty'"),
        ({"$ref": "#/components/securitySchemes/gone"}, "leads nowhere"),
        ({"$ref": "#/components/securitySchemes/odd"}, "in a circle"),
        ({"$ref": "https://example.com/schemes#/odd"}, "is not fetched"),
    ],
)
def test_reports_schemes_that_cannot_be_checked(scheme: Any, message: str) -> None:
    tree = a_document({"security": [{"odd": []}]}, components={"securitySchemes": {"odd": scheme}})
    ((place, text),) = problems_of(tree)
    assert place.startswith(("paths./pets.get.security[0]", "components.securitySchemes.odd"))
    assert message in text


@pytest.mark.parametrize(
    ("tree", "place", "message"),
    [
        ({}, "", "no OpenAPI document"),
        ({"openapi": "3.2.0"}, "openapi", "3.0 and 3.1"),
        ({"openapi": "4.0"}, "openapi", "3.0 and 3.1"),
        ({"swagger": "1.2"}, "swagger", "2.0"),
        ({"openapi": "3.0.0"}, "paths", "no operation"),
        (a_document(paths={}), "paths", "no operation"),
        (a_document(paths=["/pets"]), "paths", "a mapping"),
        (a_document(paths={"/pets": None}), "paths./pets", "a path item is a mapping"),
        (a_document(paths={"/pets": {"get": None}}), "paths./pets.get", "operation is a mapping"),
        (a_document(paths={"/pets": {"GET": {}}}), "paths./pets.GET", "is no method"),
        (a_document(paths={"/pets": {"fetch": {}}}), "paths./pets.fetch", "is no method"),
        (a_document(paths={"pets": {"get": {}}}), "paths.pets", "write /pets"),
        (a_document(paths={"/{a}-{b": {"get": {}}}), "paths./{a}-{b", "without its other half"),
        (a_document(paths={"/a": {"$ref": "#/nowhere"}}), "paths./a.$ref", "leads nowhere"),
        (a_document(paths={"/a": {"$ref": "#/paths/~1a"}}), "paths./a.$ref", "in a circle"),
        (a_document(components=[]), "components", "a mapping"),
        (a_document({"x-auth-type": "Nobody"}), "paths./pets.get.x-auth-type", "not known"),
        (a_document({"x-scope": "a b"}), "paths./pets.get.x-scope", "commas"),
        (a_document({"x-scope": ["a"]}), "paths./pets.get.x-scope", "commas"),
        (
            a_document({"x-scope": "b", "security": [{"token": ["a"]}]}),
            "paths./pets.get.x-scope",
            "different scopes",
        ),
        (a_document({"x-scope": "a", "security": []}), "paths./pets.get", "but no security"),
        (a_document({"x-scope": "a"}, security=[]), "paths./pets.get", "but no security"),
        (
            a_document({"x-throttling-tier": 10}),
            "paths./pets.get.x-throttling-tier",
            "name of a tier",
        ),
        (
            a_document({"x-wso2-disable-security": "true"}),
            "paths./pets.get.x-wso2-disable-security",
            "write true or false",
        ),
        (
            a_document({"x-wso2-disable-security": False}, **{"x-wso2-disable-security": True}),
            "paths./pets.get",
            "none is described",
        ),
        (a_document(**{"x-wso2-auth-header": "a b"}), "x-wso2-auth-header", "cannot name"),
        (a_document(**{"x-wso2-api-key-header": ""}), "x-wso2-api-key-header", "cannot name"),
        (
            a_document(**{"x-wso2-basePath": "v1"}),
            "x-wso2-basePath",
            "a base path starts with a slash",
        ),
        (a_document(**{"x-wso2-basePath": ["/v1"]}), "x-wso2-basePath", "plain text"),
        (a_document(**{"x-wso2-basePath": "/a/%40b"}), "x-wso2-basePath", "not needed"),
        (a_document(**{"x-wso2-basePath": "/a/{version}"}), "x-wso2-basePath", "plain text"),
        (a_document(servers=[{"url": "https://example.com/a//b"}]), "servers[0].url", "empty"),
        (a_document(**{"x-wso2-cors": True}), "x-wso2-cors", "a mapping"),
        (
            a_document(**{"x-wso2-cors": {"corsConfigurationEnabled": "yes"}}),
            "x-wso2-cors.corsConfigurationEnabled",
            "write true or false",
        ),
        (a_document(servers=[{"url": "https://[::1/"}]), "servers[0].url", "is no URL"),
        (a_document(**{"x-wso2-mutual-ssl": "yes"}), "x-wso2-mutual-ssl", "mandatory"),
        (a_document(**{"x-wso2-mutual-ssl": "mandatory"}), "x-wso2-mutual-ssl", "together"),
    ],
)
def test_reports_broken_documents(tree: dict[str, Any], place: str, message: str) -> None:
    ((found_place, found_message),) = problems_of(tree)
    assert found_place == place
    assert message in found_message


def test_reports_every_problem_and_keeps_what_is_good() -> None:
    tree = a_document(
        paths={"/a": {"get": {"security": [{"x": []}]}, "put": {}, "Post": {}}, "b": {"get": {}}}
    )
    read = read_openapi(tree)
    assert {place for place, _ in read.problems} == {
        "paths./a.get.security[0].x",
        "paths./a.Post",
        "paths.b",
    }
    assert [resource.methods for resource in read.resources] == [("PUT",)]


def test_refuses_more_operations_than_it_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extauthz.catalog.openapi.operations.MAX_OPERATIONS", 3)
    paths: dict[str, Any] = {f"/pets/{number}": {"get": {}} for number in range(10)}
    ((place, message),) = problems_of(a_document(paths=paths))
    assert place == "paths" and "more than 3 operations" in message


@pytest.mark.parametrize(
    ("mutual", "extension", "security"),
    [
        (None, an_extension("oauth2"), BEARER),
        (None, an_extension("api_key", "oauth2"), (*API_KEY, *BEARER)),
        (None, an_extension("oauth2", "basic_auth"), BEARER),
        ("optional", an_extension("oauth2"), BEARER),
        ("optional", an_extension("oauth2", optional=True), (*BEARER, *MTLS)),
        ("mandatory", an_extension("oauth2", optional=True), MTLS),
        ("mandatory", an_extension(), MTLS),
    ],
)
def test_reads_wso2_application_security(
    mutual: str | None, extension: dict[str, Any], security: tuple[SecurityScheme, ...]
) -> None:
    fields = extension if mutual is None else {**extension, "x-wso2-mutual-ssl": mutual}
    read = read_openapi(a_document({"security": [{"default": []}]}, **fields))
    assert read.problems == ()
    assert read.security == security
    assert read.resources[0].security == security


@pytest.mark.parametrize(
    ("mutual", "extension", "message"),
    [
        (None, an_extension("basic_auth"), "'basic_auth' cannot be checked"),
        (None, an_extension("oauth2", optional=True), "without mutual SSL"),
        (None, an_extension(), "no security type is named"),
        (None, {"x-wso2-application-security": ["oauth2"]}, "is a list of oauth2"),
        ("mandatory", an_extension("oauth2"), "asked for together"),
    ],
)
def test_reports_wso2_application_security_that_cannot_be_expressed(
    mutual: str | None, extension: dict[str, Any], message: str
) -> None:
    fields = extension if mutual is None else {**extension, "x-wso2-mutual-ssl": mutual}
    ((place, text),) = problems_of(a_document(**fields))
    assert place == "x-wso2-application-security" and message in text


def test_takes_a_wso2_default_scheme_that_is_not_declared_as_oauth2() -> None:
    operation = {"security": [{"default": ["a"]}]}
    resource = the_operation(a_document(operation, **{"x-wso2-auth-header": "Authorization"}))
    assert (resource.security, resource.scopes) == (BEARER, ("a",))


@pytest.mark.parametrize(
    ("document", "item", "operation", "security"),
    [
        (True, None, None, NONE),
        (True, False, None, BEARER),
        (True, True, False, BEARER),
        (None, True, None, NONE),
        (None, True, False, None),
        (None, None, True, NONE),
        (False, None, None, None),
    ],
)
def test_takes_the_nearest_word_on_disabled_security(
    *,
    document: bool | None,
    item: bool | None,
    operation: bool | None,
    security: tuple[SecurityScheme, ...] | None,
) -> None:
    def flag(*, value: bool | None) -> dict[str, Any]:
        return {} if value is None else {"x-wso2-disable-security": value}

    tree = a_document(
        paths={"/pets": {**flag(value=item), "get": flag(value=operation)}},
        security=[{"token": []}],
        **flag(value=document),
    )
    assert the_operation(tree).security == security
    assert read_openapi(tree).security == (NONE if document else BEARER)


@pytest.mark.parametrize(
    ("fields", "base_path"),
    [
        ({}, None),
        ({"servers": []}, None),
        ({"servers": [{"url": "https://api.example.com"}]}, ""),
        ({"servers": [{"url": "https://api.example.com/v1/"}]}, "/v1"),
        ({"servers": [{"url": "//api.example.com/v1"}]}, "/v1"),
        ({"servers": [{"url": "/"}]}, ""),
        ({"servers": [{"url": "v1"}]}, None),
        ({"servers": [{"url": "/straße"}]}, "/stra%C3%9Fe"),
        ({"servers": [{"url": "https://api.example.com/{unknown}"}]}, None),
        ({"servers": [{"url": "/v1"}], "x-wso2-basePath": "/ctx/1.0.0"}, "/ctx/1.0.0"),
        # Swagger 2.0's field means nothing in OpenAPI 3.
        ({"basePath": "/v2"}, None),
    ],
)
def test_reads_the_base_path(fields: dict[str, Any], base_path: str | None) -> None:
    read = read_openapi(a_document(**fields))
    assert read.problems == ()
    assert read.base_path == base_path


def test_prefers_the_wso2_name_of_a_tier_and_takes_unlimited_as_none() -> None:
    both = {"x-wso2-throttling-tier": "Gold", "x-throttling-tier": "Silver"}
    assert the_operation(a_document(both)).tier == "Gold"
    unlimited = {"x-throttling-tier": "Unlimited"}
    tree = a_document(paths={"/pets": {"x-throttling-tier": "Gold", "get": unlimited}})
    assert the_operation(tree).tier is None
