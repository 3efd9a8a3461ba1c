"""The access logs of a printed Envoy configuration: lines on standard output, and reports to us.

A line says what was decided and why, from the dynamic metadata that a decision comes with
(`extauthz.envoy.decision_metadata`). No line holds a query or a header that may be a credential.

It imports `envoy-data-plane`, like `extauthz.envoy.configuration.typed`, so it must be imported
inside functions only.
"""

from __future__ import annotations

from typing import Final

from envoy_data_plane.envoy.config.accesslog.v3 import AccessLog
from envoy_data_plane.envoy.config.core.v3 import (
    ApiVersion,
    GrpcService,
    GrpcServiceEnvoyGrpc,
    RetryPolicy,
    SubstitutionFormatString,
)
from envoy_data_plane.envoy.extensions.access_loggers.grpc.v3 import (
    CommonGrpcAccessLogConfig,
    HttpGrpcAccessLogConfig,
)
from envoy_data_plane.envoy.extensions.access_loggers.stream.v3 import StdoutAccessLog
from envoy_data_plane.google.protobuf import Any as AnyMessage
from envoy_data_plane.google.protobuf import Struct

from extauthz.envoy.configuration.parameters import EXTAUTHZ_CLUSTER, USAGE_CLUSTER
from extauthz.envoy.decision_metadata import NAMESPACE

DECISION_FIELDS: Final = (
    "reason", "api", "version", "resource", "application", "consumer_key", "user", "tier",
    "limits", "remaining", "level", "decision_id", "ext_authz_duration",
)  # fmt: skip
"""Of the decision's metadata. The last is Envoy's own: milliseconds, on allows only."""

_REQUEST_FIELDS: Final = {
    "time": "%START_TIME%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "method": "%REQ(:METHOD)%",
    "host": "%REQ(:AUTHORITY)%",
    "path": "%PATH(NQ)%",
    "protocol": "%PROTOCOL%",
    "upgrade": "%REQ(UPGRADE)%",
    "status": "%RESPONSE_CODE%",
    "status_details": "%RESPONSE_CODE_DETAILS%",
    "grpc_status": "%GRPC_STATUS_NUMBER%",
    "flags": "%RESPONSE_FLAGS%",
    "duration_ms": "%DURATION%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "request_id": "%REQ(X-REQUEST-ID)%",
}


_STREAM_RETRIES: Final = 10


def make_stdout_log() -> AccessLog:
    """A line of JSON on standard output for each finished request."""
    decision = {name: f"%DYNAMIC_METADATA({NAMESPACE}:{name})%" for name in DECISION_FIELDS}
    line = Struct.from_dict({**_REQUEST_FIELDS, "decision": decision})
    config = StdoutAccessLog(log_format=SubstitutionFormatString(json_format=line))
    return AccessLog(name="envoy.access_loggers.stdout", typed_config=AnyMessage.pack(config))


def make_grpc_log() -> AccessLog:
    """A report to extauthz (ALS v3) for each finished request."""
    common = CommonGrpcAccessLogConfig(
        log_name=EXTAUTHZ_CLUSTER,
        grpc_service=GrpcService(envoy_grpc=GrpcServiceEnvoyGrpc(cluster_name=USAGE_CLUSTER)),
        transport_api_version=ApiVersion.V3,
        # Without it, the entries of the moment in which the service is away are lost.
        grpc_stream_retry_policy=RetryPolicy(num_retries=_STREAM_RETRIES),
    )
    return AccessLog(
        name="envoy.access_loggers.http_grpc",
        typed_config=AnyMessage.pack(HttpGrpcAccessLogConfig(common_config=common)),
    )
