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

class HandleEdgeRequest(_message.Message):
    __slots__ = ("instances", "adapter_config", "dedup_id")
    INSTANCES_FIELD_NUMBER: _ClassVar[int]
    ADAPTER_CONFIG_FIELD_NUMBER: _ClassVar[int]
    DEDUP_ID_FIELD_NUMBER: _ClassVar[int]
    instances: _containers.RepeatedCompositeFieldContainer[InstanceMsg]
    adapter_config: _any_pb2.Any
    dedup_id: str
    def __init__(self, instances: _Optional[_Iterable[_Union[InstanceMsg, _Mapping]]] = ..., adapter_config: _Optional[_Union[_any_pb2.Any, _Mapping]] = ..., dedup_id: _Optional[str] = ...) -> None: ...

class InstanceMsg(_message.Message):
    __slots__ = ("timestamp", "source_workload_namespace", "source_workload_name", "source_owner", "source_uid", "destination_workload_namespace", "destination_workload_name", "destination_owner", "destination_uid", "destination_service_namespace", "destination_service_name", "context_protocol", "api_protocol", "name")
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    SOURCE_WORKLOAD_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    SOURCE_WORKLOAD_NAME_FIELD_NUMBER: _ClassVar[int]
    SOURCE_OWNER_FIELD_NUMBER: _ClassVar[int]
    SOURCE_UID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_WORKLOAD_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_WORKLOAD_NAME_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_OWNER_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_UID_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_SERVICE_NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    DESTINATION_SERVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    CONTEXT_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    API_PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    timestamp: _policy_pb2.TimeStamp
    source_workload_namespace: str
    source_workload_name: str
    source_owner: str
    source_uid: str
    destination_workload_namespace: str
    destination_workload_name: str
    destination_owner: str
    destination_uid: str
    destination_service_namespace: str
    destination_service_name: str
    context_protocol: str
    api_protocol: str
    name: str
    def __init__(self, timestamp: _Optional[_Union[_policy_pb2.TimeStamp, _Mapping]] = ..., source_workload_namespace: _Optional[str] = ..., source_workload_name: _Optional[str] = ..., source_owner: _Optional[str] = ..., source_uid: _Optional[str] = ..., destination_workload_namespace: _Optional[str] = ..., destination_workload_name: _Optional[str] = ..., destination_owner: _Optional[str] = ..., destination_uid: _Optional[str] = ..., destination_service_namespace: _Optional[str] = ..., destination_service_name: _Optional[str] = ..., context_protocol: _Optional[str] = ..., api_protocol: _Optional[str] = ..., name: _Optional[str] = ...) -> None: ...
