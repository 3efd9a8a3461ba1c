"""Makes the properties of instances: their names, and the expressions that fill them.

An expression without a default fails the whole check when its attribute is missing, so all
expressions of a check have one. A text in quotes is a literal: Mixer only removes the quotes.
"""

from __future__ import annotations

import json
from enum import Enum
from typing import Final

from extauthz.model.apis import Api
from mixer_compat.manifests.parts import RequestParts


class Compat(Enum):
    """Whose names handlers, instances and properties have. The value is that of the option."""

    OWN = "extauthz"
    WSO2_ADAPTER = "wso2-adapter"
    """Those of WSO2's Mixer adapter, so that rules published by the API Manager keep working."""


_OWN_CHECK: Final = {
    "credential": 'request.headers["authorization"] | ""',
    "api": 'api.service | ""',
    "version": 'api.version | ""',
    "method": 'request.method | ""',
    "host": 'request.host | ""',
    "client_ip": 'source.ip | ip("0.0.0.0")',
}
_OWN_REPORT: Final = {
    "response_code": "response.code | 0",
    "request_size": "request.size | 0",
    "response_size": "response.size | 0",
    "request_time": "request.time",
    "response_time": "response.time",
    "duration": 'response.duration | "0ms"',
    "user_agent": 'request.useragent | ""',
    "destination": 'destination.service.host | ""',
    "protocol": 'api.protocol | context.protocol | ""',
}
_WSO2_CHECK: Final = {
    "auth_header_value": 'request.headers["authorization"] | ""',
    "api_name": 'api.service | ""',
    "api_version": 'api.version | ""',
    "api_context": 'api.context | ""',
    "resource_path": 'request.url_path | ""',
    "request_method": 'request.method | ""',
    "request_resource": 'api.operation | ""',
    "request_scope": 'resource.scope | ""',
}
_WSO2_REPORT: Final = {
    "auth_header_value": 'request.headers["authorization"] | ""',
    "api_context": 'api.context | ""',
    "api_name": 'api.service | ""',
    "api_version": 'api.version | ""',
    "resource_path": 'request.url_path | ""',
    "resource_path_template": 'api.operation | ""',
    "request_method": 'request.method | ""',
    "user_ip": 'source.ip | ip("0.0.0.0")',
    "user_agent": 'request.useragent | ""',
    "request_timestamp": "request.time",
    "response_timestamp": "response.time",
    "response_size": "response.size | 0",
    "api_protocol": 'api.protocol | "http"',
    "response_code": "response.code | 0",
    "destination": 'destination.service.host | ""',
    "request_host": 'request.host | ""',
}
_REQUEST_ID: Final = {"request_id": 'request.headers["x-request-id"] | ""'}


def write_check_properties(compat: Compat, parts: RequestParts, api: Api | None) -> dict[str, str]:
    """Writes the properties of checks and of quotas; Mixer does not pass those of checks to quotas.

    Args:
        compat: whose names the properties have.
        parts: the parts of a request that the catalog needs.
        api: the API of all requests; None when the request determines it.
    """
    if compat is Compat.OWN:
        # The query is part of the proxy's cache key, so it is sent only when it is needed.
        path = "request.path" if parts.query else "request.url_path"
        found = {**_OWN_CHECK, "path": f'{path} | ""'}
    else:
        found = dict(_WSO2_CHECK)
    if parts.principal:
        found["principal"] = 'source.principal | ""'
    if parts.request_id:
        found |= _REQUEST_ID
    return found | _write_headers(parts) | _write_api(compat, api)


def write_report_dimensions(compat: Compat, parts: RequestParts, api: Api | None) -> dict[str, str]:
    """Writes the dimensions of reports: the credentials of checks, and facts of the response."""
    if compat is Compat.OWN:
        return write_check_properties(compat, parts, api) | _OWN_REPORT | _REQUEST_ID
    return _WSO2_REPORT | _REQUEST_ID | _write_headers(parts) | _write_api(compat, api)


def name_property(header: str) -> str:
    """The property that carries a header."""
    return f"header_{header}"


def _write_api(compat: Compat, api: Api | None) -> dict[str, str]:
    if api is None:
        return {}
    if compat is Compat.OWN:
        return {"api": f'"{api.name}"', "version": f'"{api.version}"'}
    return {"api_name": f'"{api.name}"', "api_version": f'"{api.version}"'}


def _write_headers(parts: RequestParts) -> dict[str, str]:
    # Texts in expressions are Go strings; for names of headers, JSON has the same syntax.
    return {
        name_property(name): f'request.headers[{json.dumps(name)}] | ""' for name in parts.headers
    }
