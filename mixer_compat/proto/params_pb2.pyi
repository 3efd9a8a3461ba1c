# mypy: disable-error-code="type-arg,misc"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Params(_message.Message):
    __slots__ = ("properties", "quota_tiers", "limits_in_quota", "valid_for_s", "valid_uses", "compat", "shadow")
    class QuotaTiersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    QUOTA_TIERS_FIELD_NUMBER: _ClassVar[int]
    LIMITS_IN_QUOTA_FIELD_NUMBER: _ClassVar[int]
    VALID_FOR_S_FIELD_NUMBER: _ClassVar[int]
    VALID_USES_FIELD_NUMBER: _ClassVar[int]
    COMPAT_FIELD_NUMBER: _ClassVar[int]
    SHADOW_FIELD_NUMBER: _ClassVar[int]
    properties: Properties
    quota_tiers: _containers.ScalarMap[str, str]
    limits_in_quota: bool
    valid_for_s: int
    valid_uses: int
    compat: str
    shadow: bool
    def __init__(self, properties: _Optional[_Union[Properties, _Mapping]] = ..., quota_tiers: _Optional[_Mapping[str, str]] = ..., limits_in_quota: _Optional[bool] = ..., valid_for_s: _Optional[int] = ..., valid_uses: _Optional[int] = ..., compat: _Optional[str] = ..., shadow: _Optional[bool] = ...) -> None: ...

class Properties(_message.Message):
    __slots__ = ("credential", "api", "version", "context", "path", "method", "scope", "client_ip", "host", "response_code", "request_size", "response_size", "request_time", "response_time", "user_agent", "destination", "protocol", "duration", "request_id", "headers", "query", "api_key", "operation", "principal")
    class HeadersEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class QueryEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CREDENTIAL_FIELD_NUMBER: _ClassVar[int]
    API_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_IP_FIELD_NUMBER: _ClassVar[int]
    HOST_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_CODE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_SIZE_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_SIZE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TIME_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TIME_FIELD_NUMBER: _ClassVar[int]
    USER_AGENT_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    HEADERS_FIELD_NUMBER: _ClassVar[int]
    QUERY_FIELD_NUMBER: _ClassVar[int]
    API_KEY_FIELD_NUMBER: _ClassVar[int]
    OPERATION_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    credential: str
    api: str
    version: str
    context: str
    path: str
    method: str
    scope: str
    client_ip: str
    host: str
    response_code: str
    request_size: str
    response_size: str
    request_time: str
    response_time: str
    user_agent: str
    destination: str
    protocol: str
    duration: str
    request_id: str
    headers: _containers.ScalarMap[str, str]
    query: _containers.ScalarMap[str, str]
    api_key: str
    operation: str
    principal: str
    def __init__(self, credential: _Optional[str] = ..., api: _Optional[str] = ..., version: _Optional[str] = ..., context: _Optional[str] = ..., path: _Optional[str] = ..., method: _Optional[str] = ..., scope: _Optional[str] = ..., client_ip: _Optional[str] = ..., host: _Optional[str] = ..., response_code: _Optional[str] = ..., request_size: _Optional[str] = ..., response_size: _Optional[str] = ..., request_time: _Optional[str] = ..., response_time: _Optional[str] = ..., user_agent: _Optional[str] = ..., destination: _Optional[str] = ..., protocol: _Optional[str] = ..., duration: _Optional[str] = ..., request_id: _Optional[str] = ..., headers: _Optional[_Mapping[str, str]] = ..., query: _Optional[_Mapping[str, str]] = ..., api_key: _Optional[str] = ..., operation: _Optional[str] = ..., principal: _Optional[str] = ...) -> None: ...
