"""Routes requests of the API to its endpoints, and writes their answers as JSON.

Who may ask is checked before anything is read (`extauthz.serving.admin.access`). Nothing here lets
a page of another origin read an answer: there are no CORS headers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

from aiohttp import web
from pydantic import BaseModel, ValidationError

from extauthz.documents.lines import write_path
from extauthz.documents.messages import say_what_is_wrong
from extauthz.errors import ExtauthzError
from extauthz.serving.admin.access import Access, Caller
from extauthz.serving.admin.bodies import JSON, Bodies
from extauthz.serving.admin.endpoints import (
    Answer,
    ApiCall,
    Endpoint,
    EventStream,
    WrittenJson,
)
from extauthz.serving.admin.errors import ApiError
from extauthz.serving.admin.http import Hold, TooManyStreams, in_pieces
from extauthz.serving.admin.openapi import write_document
from extauthz.serving.admin.streams import CONTENT_TYPE, send_events

DOCUMENT: Final = "/api/openapi.json"
MAX_AT_ONCE: Final = 20
"""Requests that are answered at the same time; further ones get 503."""
HEADERS: Final = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}
_log = logging.getLogger(__name__)


class ClosedApi:
    """Answers that the API is not served, and what would open it."""

    async def answer(self, request: web.BaseRequest, hold: Hold) -> web.StreamResponse:
        """See `extauthz.serving.admin.http.Api`."""
        message = (
            "the API is closed where other machines can connect; set admin.token_file or "
            "admin.tls.client_ca, or listen on loopback or a unix socket"
        )
        return write_error(ApiError(403, "api_closed", message))


class AdminApi:
    """The endpoints, and who may use them.

    Args:
        endpoints: one for each method of each path; the OpenAPI document of them is added.
        access: checks each request.
        version: of the program, for the document.
        bodies: reads the bodies of requests.
    """

    def __init__(
        self,
        endpoints: Sequence[Endpoint],
        access: Access,
        *,
        version: str,
        bodies: Bodies | None = None,
    ) -> None:
        document = Endpoint(
            method="GET",
            path=DOCUMENT,
            summary="This document: everything that the API answers, as OpenAPI 3.1.",
            answers=dict[str, Any],
            handle=self._write_document,
        )
        self.endpoints = (*endpoints, document)
        self._access = access
        self._version = version
        self._bodies = bodies or Bodies()
        self._document: str | None = None
        self._routes: dict[str, dict[str, Endpoint]] = {}
        """By path and method."""
        for endpoint in self.endpoints:
            methods = self._routes.setdefault(endpoint.path, {})
            if endpoint.method in methods:
                raise ValueError(f"{endpoint.method} {endpoint.path} is there twice")
            methods[endpoint.method] = endpoint
        self._answering = 0

    async def answer(self, request: web.BaseRequest, hold: Hold) -> web.StreamResponse:
        """See `extauthz.serving.admin.http.Api`."""
        try:
            return await self._answer(request, hold)
        except ApiError as exc:
            return write_error(exc)
        except ExtauthzError as exc:
            return write_error(ApiError(503, exc.code, str(exc)))
        except Exception:  # noqa: BLE001 - whatever it was, the answer has the API's form
            _log.exception("the admin API could not answer a request")
            message = "the answer could not be made; the log says more"
            return write_error(ApiError(500, "internal", message))

    async def _answer(self, request: web.BaseRequest, hold: Hold) -> web.StreamResponse:
        caller = self._access.check(request)
        endpoint, in_path = self._find(request)
        if endpoint.needs_known_caller and not caller.is_known:
            message = (
                "this changes what is decided, so a token or a client certificate must say who "
                "asks; set admin.token_file or admin.tls.client_ca"
            )
            raise ApiError(403, "caller_not_known", message)
        call = await self._read(endpoint, request, in_path, caller)
        # From here on nothing waits for the client.
        if self._answering >= MAX_AT_ONCE:
            raise ApiError(503, "busy", "too many requests at once", {"retry-after": "1"})
        self._answering += 1
        try:
            answer = await endpoint.handle(call)
        finally:
            self._answering -= 1
        if isinstance(answer, EventStream):
            return await _stream(request, answer, hold)
        return _write_answer(endpoint, answer)

    def _find(self, request: web.BaseRequest) -> tuple[Endpoint, Mapping[str, str]]:
        methods, in_path = self._find_path(request.path)
        # RFC 9110 9.3.2: whatever can be got can be asked for its head.
        method = "GET" if request.method == "HEAD" else request.method
        endpoint = methods.get(method)
        if endpoint is None:
            allow = sorted({*methods, *(("HEAD",) if "GET" in methods else ())})
            message = f"this path has {', '.join(allow)}"
            raise ApiError(405, "method_not_allowed", message, {"allow": ", ".join(allow)})
        return endpoint, in_path

    def _find_path(self, path: str) -> tuple[dict[str, Endpoint], Mapping[str, str]]:
        methods = self._routes.get(path)
        if methods is not None:
            return methods, {}
        segments = path.split("/")
        for template, methods in self._routes.items():
            in_path = _match(template.split("/"), segments)
            if in_path is not None:
                return methods, in_path
        raise ApiError(404, "not_found", f"there is nothing here; {DOCUMENT} lists what there is")

    async def _read(
        self,
        endpoint: Endpoint,
        request: web.BaseRequest,
        in_path: Mapping[str, str],
        caller: Caller,
    ) -> ApiCall:
        query = endpoint.read_query(list(request.rel_url.query.items()))
        wants_events = endpoint.has_events and CONTENT_TYPE in request.headers.get("accept", "")
        body = None
        if endpoint.body is not None:
            text = await self._bodies.read(request)
            try:
                body = endpoint.body.model_validate_json(text)
            except ValidationError as exc:
                raise ApiError(400, "bad_body", _write_fault(exc, text, endpoint.body)) from None
        return ApiCall(
            query=query,
            path=in_path,
            body=body,
            caller=caller,
            wants_events=wants_events and request.method == "GET",
        )

    async def _write_document(self, call: ApiCall) -> WrittenJson:
        if self._document is None:
            self._document = json.dumps(write_document(self.endpoints, version=self._version))
        return WrittenJson(self._document)


def write_error(error: ApiError) -> web.Response:
    """The answer of a refusal."""
    body = {"error": {"code": error.code, "message": error.message}}
    response = web.Response(
        status=error.status,
        text=json.dumps(body) + "\n",
        content_type=JSON,
        headers={**HEADERS, **error.headers},
    )
    response.force_close()  # what it has sent besides is not read
    return response


def _write_answer(endpoint: Endpoint, answer: Answer) -> web.Response:
    if endpoint.answers is None:
        return web.Response(status=endpoint.status, headers=HEADERS)
    text = answer.text if isinstance(answer, WrittenJson) else json.dumps(answer)
    return web.Response(
        status=endpoint.status,
        body=in_pieces(f"{text}\n".encode()),
        content_type=JSON,
        headers=HEADERS,
    )


async def _stream(request: web.BaseRequest, stream: EventStream, hold: Hold) -> web.StreamResponse:
    try:
        with hold():
            return await send_events(request, stream, dict(HEADERS))
    except TooManyStreams:
        message = "too many live streams are open; close one"
        raise ApiError(503, "too_many_streams", message, {"retry-after": "10"}) from None


def _write_fault(error: ValidationError, text: bytes, model: type[BaseModel]) -> str:
    """Where a body is wrong, and what is wrong; values are not shown."""
    faults = error.errors(include_url=False, include_input=False)
    if any(fault["type"] == "json_invalid" for fault in faults):
        return "the body is not JSON"
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        tree = None
    told = (say_what_is_wrong(fault, (), tree, model) for fault in faults[:5])
    shown = [f"{write_path(path) or 'the body'}: {message}" for path, message in told]
    return "; ".join(shown)[:1_000]


def _match(template: Sequence[str], segments: Sequence[str]) -> Mapping[str, str] | None:
    """The values of the names in a template's segments; None when the path does not fit."""
    if len(template) != len(segments):
        return None
    found: dict[str, str] = {}
    for part, segment in zip(template, segments, strict=True):
        if part.startswith("{"):
            if not segment:
                return None
            found[part.strip("{}")] = segment
        elif part != segment:
            return None
    return found
