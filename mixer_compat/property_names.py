"""The names of an instance's properties, by the part of a request that each one has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class PropertyNames:
    """The names of the properties (or dimensions, variables, tags) for each part of a request.

    Attributes:
        credential: the value of the field Authorization, with its scheme.
        operation: the path template that the proxy matched; it is used when there is no path.
        scope: scopes that the proxy requires in addition to the resource's.
        principal: name of the caller's certificate.
        response_code ... duration: further values of reports.
    """

    credential: str = "credential"
    api_key: str = "api_key"
    principal: str = "principal"
    api: str = "api"
    version: str = "version"
    context: str = "context"
    path: str = "path"
    operation: str = "operation"
    method: str = "method"
    scope: str = "scope"
    host: str = "host"
    client_ip: str = "client_ip"
    user_agent: str = "user_agent"
    request_id: str = "request_id"
    protocol: str = "protocol"
    destination: str = "destination"
    response_code: str = "response_code"
    request_size: str = "request_size"
    response_size: str = "response_size"
    request_time: str = "request_time"
    response_time: str = "response_time"
    duration: str = "duration"


OWN_NAMES: Final = PropertyNames()
WSO2_NAMES: Final = PropertyNames(
    credential="auth_header_value",
    api="api_name",
    version="api_version",
    context="api_context",
    path="resource_path",
    operation="request_resource",
    method="request_method",
    scope="request_scope",
    host="request_host",
    client_ip="user_ip",
    protocol="api_protocol",
    request_time="request_timestamp",
    response_time="response_timestamp",
)
"""The names in the instances of WSO2's adapter, since its release 1.0."""
