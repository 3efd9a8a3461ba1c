"""Reads Mixer's instances into the neutral request.

The API of a request is found in this order:

1. The instance names it (`api`, and `version`; without a version the API's default version). It
   must be in the catalog. The path may begin with the API's base path or not.
2. Otherwise it is found by host and base path, as at Envoy's door. When the instance has the base
   path in a property of its own (`context`), it is put before a path that lacks it.

Whether a path has the base path is not the caller's choice: see docs/reference/matching.md.

The handler says which property holds which part (`mixer_compat.params`). An expression gives an
empty text for a missing attribute, so an empty property counts as absent. A request without a
method or a path cannot be judged. When there is no path, the operation is used instead: the
template that the proxy matched leads to the resource with the same template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus

from extauthz.errors import MalformedRequest
from extauthz.model.deny_rules import read_address
from extauthz.model.identity import Secret
from extauthz.model.request import NO_PEER, ApiRequest, Headers, Peer
from extauthz.model.routing.authority import find_host
from extauthz.policy.matching.match import (
    API_EXTENSION,
    CONTEXT_EXTENSION,
    MAX_PATH_BYTES,
    VERSION_EXTENSION,
)
from extauthz.policy.scopes import SCOPE_EXTENSION
from mixer_compat.params import HandlerParams
from mixer_compat.proto.apikey_pb2 import InstanceMsg as ApiKeyInstance
from mixer_compat.proto.authorization_pb2 import InstanceMsg as AuthorizationInstance
from mixer_compat.values import Values, check_count, find_text, read_text, strip_quotes

DOOR: Final = "mixer"
"""See `ApiRequest.door`."""

_VARIABLE: Final = re.compile(r"\{[^{}/]*\}")
_MAX_VARIABLES: Final = 128
"""As many as a path may have segments."""
_BEARER: Final = "bearer"


def read_authorization(instance: AuthorizationInstance, params: HandlerParams) -> ApiRequest:
    """Reads the request of an authorization instance.

    A property may be in the subject or in the action. The action's own method and path are used
    when those properties are empty. Raises as `read_properties` does.
    """
    check_count(instance.action.properties, instance.subject.properties)
    values = dict(instance.action.properties)
    for name, value in instance.subject.properties.items():
        # An empty property is absent: it must not hide the action's.
        if name not in values or read_text(value):
            values[name] = value
    return read_properties(values, params, method=instance.action.method, path=instance.action.path)


def read_apikey(instance: ApiKeyInstance) -> ApiRequest:
    """Reads the request of an apikey instance.

    Its operation is a method and a path or path template: ``GET /pets/7``, ``GET /pets/{id}``.

    Raises:
        MalformedRequest: the operation is anything else.
    """
    method, _, target = strip_quotes(instance.api_operation).partition(" ")
    target = target.lstrip(" ")
    if not (method.isascii() and method.isalpha()) or not target:
        raise MalformedRequest(
            "api_operation is no method and path; write the instance's api_operation as "
            'request.method + " " + request.path'
        )
    path, query = _split_target(target)
    return ApiRequest(
        method=method.upper(),
        host="",
        path=_fill_template(path),
        query=query,
        context=_write_context(instance.api, instance.api_version),
        api_key=Secret(instance.api_key) if instance.api_key else None,
        door=DOOR,
    )


def read_properties(
    values: Values, params: HandlerParams, *, method: str = "", path: str = ""
) -> ApiRequest:
    """Reads the request of properties (or dimensions, variables, tags).

    Args:
        method, path: used when the properties have none.

    Raises:
        MalformedRequest: there is no method or no path, or the client's address is none; or there
            are too many properties.
    """
    check_count(values)
    names = params.names
    method = find_text(values, names.method) or method
    target = find_text(values, names.path) or path
    if not target:
        target = _fill_template(strip_quotes(find_text(values, names.operation)))
    if not method or not target:
        raise MalformedRequest(
            f"the instance tells no method or no path; give it the properties {names.method!r} "
            f"(request.method) and {names.path!r} (request.path)"
        )
    api = find_text(values, names.api)
    path, query = _split_target(target)
    if not query:
        query = "&".join(_read_query(values, params))
    base = find_text(values, names.context).strip("/")
    api_key = find_text(values, names.api_key)
    client_address = find_text(values, names.client_ip)
    if client_address and not read_address(client_address)[0]:
        # Such an address would fit no deny rule's network.
        raise MalformedRequest(
            f"the property {names.client_ip!r} is no IP address; give it source.ip, without a port"
        )
    principal = find_text(values, names.principal)
    source = NO_PEER
    if client_address or principal:
        source = Peer(address=client_address, principal=_read_principal(principal))
    # The same value twice counts once; two different values are refused by the core.
    headers = Headers(tuple(dict.fromkeys(_read_headers(values, params))))
    host = find_text(values, names.host)
    return ApiRequest(
        method=method,
        host=find_host((*([host] if host else ()), *headers.get_all("host"))),
        path=path,
        query=query,
        protocol=find_text(values, names.protocol),
        headers=headers,
        source=source,
        context=_write_context(
            api, find_text(values, names.version), base, find_text(values, names.scope)
        ),
        request_id=find_text(values, names.request_id),
        api_key=Secret(api_key) if api_key else None,
        door=DOOR,
    )


def _read_headers(values: Values, params: HandlerParams) -> Iterator[tuple[str, str]]:
    names = params.names
    credential = find_text(values, names.credential)
    if credential:
        if params.as_wso2_adapter:
            credential = _drop_rest(credential)
        yield "authorization", credential
    agent = find_text(values, names.user_agent)
    if agent:
        yield "user-agent", agent
    for name, field in params.headers.items():
        value = find_text(values, name)
        if value:
            yield field, value


def _read_query(values: Values, params: HandlerParams) -> Iterator[str]:
    for name, parameter in params.query.items():
        value = find_text(values, name)
        if value:
            yield f"{parameter}={quote_plus(value)}"


def _drop_rest(credential: str) -> str:
    """Removes the words after a bearer token, which WSO2's adapter ignored.

    Comma-joined fields stay what they are: ambiguous.
    """
    words = credential.split()
    if len(words) > 2 and words[0].lower() == _BEARER and "," not in credential:
        return f"{words[0]} {words[1]}"
    return credential


def _write_context(api: str, version: str, base: str = "", scope: str = "") -> dict[str, str]:
    """Context extensions, as a route of Envoy's would have them."""
    context = {}
    if api:
        context[API_EXTENSION] = api
        if version:
            context[VERSION_EXTENSION] = version
    elif base:
        context[CONTEXT_EXTENSION] = f"/{base}"
    if scope:
        context[SCOPE_EXTENSION] = scope
    return context


def _split_target(target: str) -> tuple[str, str]:
    path, _, query = target.partition("?")
    return path, query.partition("#")[0]


def _fill_template(template: str) -> str:
    """A path that a path template fits: each variable stands for itself, with its braces escaped.

    It is not known whether the text is a template that the proxy matched, or a client's path that
    looks like one. So variables are not replaced: the resource is the one that the service finds
    for the same text.

    Raises:
        MalformedRequest: it has more variables than any path has.
    """
    if len(template) > MAX_PATH_BYTES:
        return template  # which is no path in any case
    if template.count("{") > _MAX_VARIABLES:
        raise MalformedRequest(f"the operation has more than {_MAX_VARIABLES} variables")
    return _VARIABLE.sub(lambda variable: quote(variable[0], safe="%"), template)


def _read_principal(principal: str) -> str:
    """A certificate's URI, from which Mixer's attributes leave the ``spiffe://`` out."""
    return principal if not principal or "://" in principal else f"spiffe://{principal}"
