# mypy: disable-error-code="type-arg,misc"
from google.protobuf import any_pb2 as _any_pb2
from mixer_compat.proto import model_pb2 as _model_pb2
from mixer_compat.proto import policy_pb2 as _policy_pb2
from mixer_compat.proto import template_pb2 as _template_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class HandleTraceSpanRequest(_message.Message):
    __slots__ = ("instances", "adapter_config", "dedup_id")
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_CONFIG_FIELD_NUMBER: _ClassVar[int]
    DEDUP_ID_FIELD_NUMBER: _ClassVar[int]
    instances: _containers.RepeatedCompositeFieldContainer[InstanceMsg]
    adapter_config: _any_pb2.Any
    dedup_id: str
    def __init__(self, instances: _Optional[_Iterable[_Union[InstanceMsg, _Mapping]]] = ..., adapter_config: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., dedup_id: _Optional[str] = ...) -> None: ...

class InstanceMsg(_message.Message):
    __slots__ = ("trace_id", "span_id", "parent_span_id", "span_name", "start_time", "end_time", "span_tags", "httpStatusCode", "client_span", "rewrite_client_span_id", "source_name", "source_ip", "destination_name", "destination_ip", "request_size", "request_total_size", "response_size", "response_total_size", "api_protocol", "name")
    class SpanTagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _policy_pb2.Value
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_policy_pb2.Value, _Mapping]] = ...) -> None: ...
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    PARENT_SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    SPAN_NAME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    SPAN_TAGS_FIELD_NUMBER: _ClassVar[int]
    HTTPSTATUSCODE_FIELD_NUMBER: _ClassVar[int]
    CLIENT_SPAN_FIELD_NUMBER: _ClassVar[int]
    REWRITE_CLIENT_SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    SOURCE_NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_IP_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_NAME_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_IP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_SIZE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_SIZE_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_TOTAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    API_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    trace_id: str
    span_id: str
    parent_span_id: str
    span_name: str
    start_time: _policy_pb2.TimeStamp
    end_time: _policy_pb2.TimeStamp
    span_tags: _containers.MessageMap[str, _policy_pb2.Value]
    httpStatusCode: int
    client_span: bool
    rewrite_client_span_id: bool
    source_name: str
    source_ip: _policy_pb2.IPAddress
    destination_name: str
    destination_ip: _policy_pb2.IPAddress
    request_size: int
    request_total_size: int
    response_size: int
    response_total_size: int
    api_protocol: str
    name: str
    def __init__(self, trace_id: _Optional[str] = ..., span_id: _Optional[str] = ..., parent_span_id: _Optional[str] = ..., span_name: _Optional[str] = ..., start_time: _Optional[_Union[_policy_pb2.TimeStamp, _Mapping]] = ..., end_time: _Optional[_Union[_policy_pb2.TimeStamp, _Mapping]] = ..., span_tags: _Optional[_Mapping[str, _policy_pb2.Value]] = ..., httpStatusCode: _Optional[int] = ..., client_span: _Optional[bool] = ..., rewrite_client_span_id: _Optional[bool] = ..., source_name: _Optional[str] = ..., source_ip: _Optional[_Union[_policy_pb2.IPAddress, _Mapping]] = ..., destination_name: _Optional[str] = ..., destination_ip: _Optional[_Union[_policy_pb2.IPAddress, _Mapping]] = ..., request_size: _Optional[int] = ..., request_total_size: _Optional[int] = ..., response_size: _Optional[int] = ..., response_total_size: _Optional[int] = ..., api_protocol: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...
