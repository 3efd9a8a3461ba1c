# mypy: disable-error-code="type-arg,misc"
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class Params(_message.Message):
    __slots__ = ("validate_subscription", "disable_hostname_verification", "request_stream_app_url", "fault_stream_app_url", "throttle_stream_app_url", "grpc_pool_size", "grpc_pool_initial_size")
    VALIDATE_SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    DISABLE_HOSTNAME_VERIFICATION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_STREAM_APP_URL_FIELD_NUMBER: _ClassVar[int]
    FAULT_STREAM_APP_URL_FIELD_NUMBER: _ClassVar[int]
    THROTTLE_STREAM_APP_URL_FIELD_NUMBER: _ClassVar[int]
    GRPC_POOL_SIZE_FIELD_NUMBER: _ClassVar[int]
    GRPC_POOL_INITIAL_SIZE_FIELD_NUMBER: _ClassVar[int]
    validate_subscription: str
    disable_hostname_verification: str
    request_stream_app_url: str
    fault_stream_app_url: str
    throttle_stream_app_url: str
    grpc_pool_size: str
    grpc_pool_initial_size: str
    def __init__(self, validate_subscription: _Optional[str] = ..., disable_hostname_verification: _Optional[str] = ..., request_stream_app_url: _Optional[str] = ..., fault_stream_app_url: _Optional[str] = ..., throttle_stream_app_url: _Optional[str] = ..., grpc_pool_size: _Optional[str] = ..., grpc_pool_initial_size: _Optional[str] = ...) -> None: ...
