"""Writes the OpenAPI 3.1 document of the API, from the same table that its routes are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from extauthz.serving.admin.endpoints import Endpoint

_REFS: Final = "#/components/schemas/{model}"


class _Fault(TypedDict):
    code: str
    message: str


class Fault(TypedDict):
    """What every refusal is: a stable code for programs, and a message for people."""

    error: _Fault


def write_document(endpoints: Sequence[Endpoint], *, version: str) -> dict[str, Any]:
    """The document, as values that JSON can hold."""
    types: dict[str, Any] = {"fault": Fault}
    for endpoint in endpoints:
        key = _key(endpoint)
        if endpoint.answers is not None:
            types[f"{key} answer"] = endpoint.answers
        if endpoint.body is not None:
            types[f"{key} body"] = endpoint.body
    adapters = [(key, "validation", TypeAdapter(each)) for key, each in types.items()]
    schemas, shared = TypeAdapter.json_schemas(adapters, ref_template=_REFS)  # type: ignore[arg-type]
    by_key = {key: schema for (key, _), schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        operation = _write_operation(endpoint, by_key)
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "extauthz admin API",
            "version": version,
            "description": (
                "What an extauthz decides, why, and what it decides by. No answer holds a "
                "credential, a user in the clear, or a path as it was sent."
            ),
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}, {"certificate": []}],
        "paths": paths,
        "components": {
            "schemas": shared.get("$defs", {}),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "certificate": {"type": "mutualTLS"},
            },
        },
    }


def _key(endpoint: Endpoint) -> str:
    return f"{endpoint.method} {endpoint.path}"


def _write_operation(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _name(endpoint),
        "summary": endpoint.summary,
        "parameters": [
            {
                "name": parameter.name,
                "in": "query",
                "description": parameter.meaning,
                "schema": dict(parameter.schema),
            }
            for parameter in endpoint.parameters
        ]
        + [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in endpoint.names_in_path
        ],
        "responses": {
            str(endpoint.status): _write_answer(endpoint, schemas),
            "default": {
                "description": "The request was refused, or could not be answered.",
                "content": {"application/json": {"schema": schemas["fault"]}},
            },
        },
    }
    if endpoint.needs_known_caller:
        operation["security"] = [{"token": []}, {"certificate": []}]
    if endpoint.body is not None:
        schema = schemas[f"{_key(endpoint)} body"]
        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _write_answer(endpoint: Endpoint, schemas: dict[str, Any]) -> dict[str, Any]:
    if endpoint.answers is None:
        return {"description": "It is done."}
    schema = schemas[f"{_key(endpoint)} answer"]
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if endpoint.has_events:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    return {"description": "The answer.", "content": content}


def _name(endpoint: Endpoint) -> str:
    words = endpoint.path.removeprefix("/api/").replace(".", "/").replace("{", "").replace("}", "")
    return "_".join([endpoint.method.lower(), *words.split("/")])
