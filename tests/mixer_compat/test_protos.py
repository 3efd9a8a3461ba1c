"""Our Mixer protos have the names, numbers and types of Istio's, and live beside other protos."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message

import mixer_compat.proto as protos
from extauthz.envoy.proto import ext_authz_pb2
from extauthz.serving.proto import health_pb2
from mixer_compat.proto import (
    apikey_pb2,
    authorization_pb2,
    params_pb2,
    policy_pb2,
    quota_pb2,
    tracespan_pb2,
    wso2_params_pb2,
)
from tests.mixer_compat.standin.encoding import (
    TEMPLATE_NAME,
    TEMPLATE_VARIETY,
    read_options,
)

FIGURES = dict(
    line.split("|")
    for line in (Path(__file__).parent / "mixer_interface.txt").read_text().splitlines()
    if not line.startswith("#")
)
SHORT = {
    "google.protobuf.": "pb.",
    "istio.policy.v1beta1.": "policy.",
    "istio.mixer.adapter.model.v1beta1.": "model.",
}
OTHERWISE = {"extauthz.wire.mixer.Status": "google.rpc.Status"}
"""Own name to Istio's, where another package may bring Istio's into the same process."""
OWN = "extauthz.mixer.v1"
TEMPLATES = {
    "authorization": 0, "apikey": 0, "listentry": 0, "checknothing": 0, "quota": 2,
    "metric": 1, "logentry": 1, "tracespan": 1, "edge": 1, "reportnothing": 1,
}  # fmt: skip
"""Name to variety: CHECK, REPORT, QUOTA."""

MODULES = [
    importlib.import_module(f"{protos.__name__}.{module.name}")
    for module in pkgutil.iter_modules(protos.__path__)
]
FILES: list[FileDescriptor] = [module.DESCRIPTOR for module in MODULES]


def _messages(found: Iterable[Descriptor]) -> Iterator[Descriptor]:
    for message in found:
        if not message.GetOptions().map_entry:
            yield message
            yield from _messages(message.nested_types)


MESSAGES = {
    OTHERWISE.get(message.full_name, message.full_name): message
    for file in FILES
    if file.package != OWN
    for message in _messages(file.message_types_by_name.values())
}


def _type_of(field: FieldDescriptor) -> str:
    message = field.message_type
    if message is None:
        return {1: "double", 3: "int64", 5: "int32", 8: "bool", 9: "string", 12: "bytes"}[
            field.type
        ]
    if message.GetOptions().map_entry:
        inner = message.fields_by_name
        return f"map<{_type_of(inner['key'])},{_type_of(inner['value'])}>"
    name: str = OTHERWISE.get(message.full_name, message.full_name)
    for long, short in SHORT.items():
        name = name.replace(long, short)
    repeated = "*" if field.is_repeated else ""
    assert field.containing_type is not None
    return repeated + name.removeprefix(field.containing_type.file.package)


def _figures_of(message: Descriptor) -> str:
    fields = sorted(message.fields, key=lambda field: field.number)
    return " ".join(f"{field.number}:{field.name}:{_type_of(field)}" for field in fields)


def test_every_message_has_a_figure_and_every_figure_a_message() -> None:
    assert MESSAGES.keys() == FIGURES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_a_message_has_the_names_numbers_and_types_of_istio(name: str) -> None:
    # An enum is an int32 on the wire, and any number may come.
    wanted = FIGURES[name].replace("policy.HttpStatusCode", "int32")
    assert _figures_of(MESSAGES[name]) == wanted


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_template_has_one_handler_service_and_its_options(template: str) -> None:
    (file,) = [file for file in FILES if file.package == template]
    options = read_options(FileDescriptorProto.FromString(file.serialized_pb))
    assert options[TEMPLATE_NAME] == template.encode()
    assert options[TEMPLATE_VARIETY] == TEMPLATES[template]
    # The number 0 must stand there too: a file without the option is no template.
    assert b"\xf8\xd2\xe4\x93\x02" + bytes([TEMPLATES[template]]) in file.serialized_pb
    (service,) = file.services_by_name.values()
    (method,) = service.methods
    assert service.name == f"{method.name}Service" and method.name.startswith("Handle")
    assert method.input_type.full_name == f"{template}.{method.name}Request"
    answer = ("CheckResult", "ReportResult", "QuotaResult")[TEMPLATES[template]]
    assert method.output_type.full_name == f"istio.mixer.adapter.model.v1beta1.{answer}"


def test_handler_services_are_called_as_in_istio() -> None:
    found = {service for file in FILES for service in file.services_by_name}
    assert found == {
        "HandleAuthorizationService", "HandleApiKeyService", "HandleListEntryService",
        "HandleCheckNothingService", "HandleQuotaService", "HandleMetricService",
        "HandleLogEntryService", "HandleTraceSpanService", "HandleEdgeService",
        "HandleReportNothingService", "InfrastructureBackend",
    }  # fmt: skip


def test_all_protos_and_other_copies_fit_into_one_pool() -> None:
    """A pool refuses a file or a name that it holds with another content."""
    pool = descriptor_pool.DescriptorPool()
    done: set[str] = set()

    def add(file: FileDescriptor) -> None:
        for needed in file.dependencies:
            add(needed)
        if file.name not in done:
            done.add(file.name)
            pool.AddSerializedFile(file.serialized_pb)

    for file in [*FILES, ext_authz_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR]:
        add(file)
    other = FileDescriptorProto(name="google/rpc/status.proto", package="google.rpc")
    other.message_type.add(name="Status")
    pool.AddSerializedFile(other.SerializeToString())
    assert len(done) == len({*done}) >= len(FILES) + 2
    assert pool.FindMessageTypeByName("google.rpc.Status").file.name == other.name
    assert pool.FindMessageTypeByName("quota.InstanceMsg").file.name.startswith("mixer_compat/")


@pytest.mark.parametrize(
    ("message", "type_url"),
    [
        (policy_pb2.DirectHttpResponse(), "istio.policy.v1beta1.DirectHttpResponse"),
        (params_pb2.Params(), "extauthz.mixer.v1.Params"),
        (wso2_params_pb2.Params(), "adapter.wso2.config.Params"),
    ],
    ids=["direct response", "our params", "wso2's params"],
)
def test_what_travels_in_an_any_has_the_name_that_is_looked_for(
    message: Message, type_url: str
) -> None:
    packed = Any()
    packed.Pack(message)
    assert packed.type_url == f"type.googleapis.com/{type_url}"


NAME = "fad2e49302"
"""The tag of the field 72295727."""


@pytest.mark.parametrize(
    ("module", "request_name", "data", "found"),
    [
        pytest.param(
            quota_pb2,
            "HandleQuotaRequest",
            "0a2c0a0c0a047061746812040a022f7a" + NAME
            + "1872712e696e7374616e63652e697374696f2d73797374656d1a0b383434303333343532727122220a"
            "200a1872712e696e7374616e63652e697374696f2d73797374656d120408021001",
            ("rq.instance.istio-system", "844033452rq", "/z", 2, True),
            id="quota",
        ),
        pytest.param(
            apikey_pb2,
            "HandleApiKeyRequest",
            "0a380a00120276311a0347455422024b312a080a0608a5bbb5f005" + NAME
            + "196b65792e696e7374616e63652e697374696f2d73797374656d1a0137",
            ("key.instance.istio-system", "7", "v1", "K1", 1577934245),
            id="apikey",
        ),
        pytest.param(
            tracespan_pb2,
            "HandleTraceSpanRequest",
            "0a3d0a01741201732a080a060880c2aff0053a94000a0b687474702e6d6574686f6412050a0347455440"
            "c801" + NAME + "0d7370616e2e696e7374616e63651a0131",
            ("span.instance", "1", "t", 200, "GET"),
            id="tracespan, with lengths longer than they need be",
        ),
    ],
)  # fmt: skip
def test_reads_what_a_real_mixer_sends(
    module: ModuleType, request_name: str, data: str, found: tuple[object, ...]
) -> None:
    read = getattr(module, request_name).FromString(bytes.fromhex(data))
    instance = read.instances[0] if hasattr(read, "instances") else read.instance
    match module.DESCRIPTOR.package:
        case "quota":
            asked = read.quota_request.quotas[instance.name]
            told = (instance.dimensions["path"].string_value, asked.amount, asked.best_effort)
        case "apikey":
            moment = instance.timestamp.value.seconds
            told = (instance.api_version, instance.api_key, moment)
        case _:
            tag = instance.span_tags["http.method"].string_value
            told = (instance.trace_id, instance.httpStatusCode, tag)
    assert (instance.name, read.dedup_id, *told) == found


def test_ip_addresses_come_in_four_bytes_or_sixteen() -> None:
    properties = {
        "v4": policy_pb2.Value(ip_address_value=policy_pb2.IPAddress(value=bytes(4))),
        "v6": policy_pb2.Value(ip_address_value=policy_pb2.IPAddress(value=bytes(16))),
    }
    subject = authorization_pb2.SubjectMsg(properties=properties)
    read = authorization_pb2.SubjectMsg.FromString(subject.SerializeToString())
    assert {len(each.ip_address_value.value) for each in read.properties.values()} == {4, 16}
