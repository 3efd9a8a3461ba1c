"""The committed `*_pb2` files are what the `.proto` files give, and live beside other copies."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from extauthz.envoy.proto import ext_authz_pb2
from extauthz.serving.proto import health_pb2

ROOT = Path(__file__).resolve().parents[2]


def test_generated_code_is_up_to_date() -> None:
    command = [sys.executable, str(ROOT / ".ci" / "protoc"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("file", "package", "message"),
    [
        ("envoy/service/auth/v3/external_auth.proto", "envoy.service.auth.v3", "CheckRequest"),
        ("grpc_health/v1/health.proto", "grpc.health.v1", "HealthCheckRequest"),
        ("google/rpc/status.proto", "google.rpc", "Status"),
    ],
)
def test_other_copies_of_the_same_messages_can_be_loaded(
    file: str, package: str, message: str
) -> None:
    assert ext_authz_pb2.DESCRIPTOR.package.startswith("extauthz.wire.")
    assert health_pb2.DESCRIPTOR.package.startswith("extauthz.wire.")
    other = FileDescriptorProto(name=file, package=package)
    other.message_type.add(name=message)
    # A pool refuses a file or a message whose name it holds with another content.
    pool = descriptor_pool.DescriptorPool()
    for ours in (ext_authz_pb2, health_pb2):
        for needed in ours.DESCRIPTOR.dependencies:
            pool.AddSerializedFile(needed.serialized_pb)
        pool.AddSerializedFile(ours.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(other.SerializeToString())
    assert pool.FindMessageTypeByName(f"{package}.{message}").full_name == f"{package}.{message}"


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (health_pb2.HealthCheckRequest(service="a"), b"\x0a\x01a"),
        (health_pb2.HealthCheckResponse(status="SERVING"), b"\x08\x01"),
        (health_pb2.HealthCheckResponse(status="NOT_SERVING"), b"\x08\x02"),
        (health_pb2.HealthCheckResponse(status="SERVICE_UNKNOWN"), b"\x08\x03"),
        (health_pb2.HealthListRequest(), b""),
        (
            health_pb2.HealthListResponse(
                statuses={"a": health_pb2.HealthCheckResponse(status="SERVING")}
            ),
            b"\x0a\x07\x0a\x01a\x12\x02\x08\x01",
        ),
    ],
    ids=["request", "serving", "not serving", "unknown", "list", "listed"],
)
def test_health_messages_have_the_wire_format_of_grpc_health_v1(
    message: health_pb2.HealthCheckRequest, data: bytes
) -> None:
    assert message.SerializeToString() == data
    assert type(message).FromString(data) == message
