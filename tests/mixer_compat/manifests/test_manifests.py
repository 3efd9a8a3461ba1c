"""Mixer takes what we make of a configuration, and would not take it with a mistake in it.

`tests.mixer_compat.standin.config` stands in for Mixer: each object that it rejects is an error.
"""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from hypothesis import given, settings
from hypothesis import strategies as st

from extauthz.errors import ConfigError
from extauthz.model.apis import Api, Resource
from extauthz.model.identity import SecurityScheme
from mixer_compat.manifests.instances import Compat
from mixer_compat.manifests.objects import (
    Manifest,
    ManifestOptions,
    MeshService,
    MutualAuthentication,
    TokenAuthentication,
    make_manifests,
)
from mixer_compat.manifests.parts import RequestParts
from mixer_compat.proto.authorization_pb2 import InstanceMsg
from mixer_compat.proto.params_pb2 import Params
from tests.mixer_compat.standin.config import CHECK, QUOTA, REPORT, read_snapshot
from tests.mixer_compat.standin.expressions import Bag

API = Api(
    name="HttpbinAPI",
    version="1.0.0",
    resources=(Resource(methods=("GET",), template="/ip", security=(SecurityScheme.API_KEY,)),),
)
PARTS = RequestParts(headers=("x-api-key", "x-tenant"), query=True)
SERVICE = MeshService(name="httpbin", namespace="default")
OPTIONS = ManifestOptions(address="127.0.0.1:44225")
EVERYTHING = replace(
    OPTIONS, services=(SERVICE, MeshService(name="pets", namespace="shop", api=API)),
    with_quota=True, shadow=True,
)  # fmt: skip
WSO2 = replace(OPTIONS, compat=Compat.WSO2_ADAPTER)


def find(objects: list[Manifest], kind: str, name: str = "") -> Any:
    """The spec of an object."""
    (found,) = [
        each["spec"]
        for each in objects
        if each["kind"] == kind and name in ("", each["metadata"]["name"])
    ]
    return found


def names_of(objects: list[Manifest], kind: str) -> list[str]:
    return [each["metadata"]["name"] for each in objects if each["kind"] == kind]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(OPTIONS, id="every service"),
        pytest.param(replace(OPTIONS, services=(SERVICE,)), id="one service"),
        pytest.param(EVERYTHING, id="APIs, quotas, shadow"),
        pytest.param(WSO2, id="WSO2's names"),
        pytest.param(
            replace(WSO2, services=(SERVICE,), with_quota=True), id="WSO2's names, with a rule"
        ),
        pytest.param(replace(OPTIONS, namespace="mixers"), id="another namespace"),
        pytest.param(
            replace(
                OPTIONS,
                authentication=TokenAuthentication(
                    ca_file="/ca.crt", server_name="extauthz", token_file="/token"
                ),
            ),
            id="TLS and a token",
        ),
        pytest.param(
            replace(
                OPTIONS,
                authentication=MutualAuthentication(
                    ca_file="/ca.crt",
                    server_name="extauthz",
                    certificate_file="/tls.crt",
                    key_file="/tls.key",
                ),
            ),
            id="mutual TLS",
        ),
    ],
)
@pytest.mark.parametrize("parts", [PARTS, RequestParts(), replace(PARTS, principal=True)])
def test_mixer_takes_every_object(options: ManifestOptions, parts: RequestParts) -> None:
    objects = make_manifests(options, parts)
    snapshot = read_snapshot(objects)
    assert snapshot.errors == []
    made = [len(names_of(objects, kind)) for kind in ("template", "adapter", "handler", "rule")]
    kept = (snapshot.templates, snapshot.adapters, snapshot.handlers, snapshot.rules)
    assert made == [len(each) for each in kept]
    varieties = {instance.template.variety for instance in snapshot.instances.values()}
    assert varieties == {CHECK, REPORT} | ({QUOTA} if options.with_quota else set())
    assert {each["metadata"]["namespace"] for each in objects} == {options.namespace}


def test_templates_lead_to_the_methods_that_the_adapter_serves() -> None:
    snapshot = read_snapshot(make_manifests(EVERYTHING, PARTS))
    assert {each.method for each in snapshot.templates.values()} == {
        "/authorization.HandleAuthorizationService/HandleAuthorization",
        "/metric.HandleMetricService/HandleMetric",
        "/quota.HandleQuotaService/HandleQuota",
    }


def test_a_handler_has_one_template_of_reports() -> None:
    """With several, the Mixer of Istio 1.1 fails reports that do not use them all."""
    for options in (OPTIONS, EVERYTHING, WSO2):
        (adapter,) = read_snapshot(make_manifests(options, PARTS)).adapters.values()
        assert [each.variety for each in adapter.templates].count(REPORT) == 1


def test_the_descriptors_hold_all_that_they_refer_to() -> None:
    for each in make_manifests(EVERYTHING, PARTS):
        text = each["spec"].get("descriptor", each["spec"].get("config"))
        if text is None:
            continue
        pool = DescriptorPool()  # links each file with what it imports, or raises
        for file in FileDescriptorSet.FromString(base64.b64decode(text)).file:
            pool.AddSerializedFile(file.SerializeToString())
            assert pool.FindFileByName(file.name).package == file.package


def test_params_come_to_the_adapter_as_they_were_meant() -> None:
    objects = make_manifests(replace(EVERYTHING, compat=Compat.WSO2_ADAPTER), PARTS)
    (handler,) = read_snapshot(objects).handlers.values()
    assert handler.adapter_config is not None
    type_url, data = handler.adapter_config
    assert type_url == "type.googleapis.com/extauthz.mixer.v1.Params"
    params = Params.FromString(data)
    assert dict(params.properties.headers) == {
        "header_x-api-key": "x-api-key",
        "header_x-tenant": "x-tenant",
    }
    assert params.limits_in_quota and params.shadow
    assert params.compat == "wso2-adapter"


def test_params_that_say_nothing_are_left_out() -> None:
    assert "params" not in find(make_manifests(OPTIONS, RequestParts()), "handler")


@pytest.mark.parametrize(
    ("timeout_ms", "text"), [(1000, "1s"), (250, "0.25s"), (1, "0.001s"), (600_000, "600s")]
)
def test_the_timeout_is_a_duration_of_protobufs_json(timeout_ms: int, text: str) -> None:
    handler = find(make_manifests(replace(OPTIONS, timeout_ms=timeout_ms), PARTS), "handler")
    assert handler["connection"]["timeout"] == text


def test_an_api_of_a_service_is_named_by_the_instance() -> None:
    objects = make_manifests(EVERYTHING, PARTS)
    properties = find(objects, "instance", "extauthz-check-httpbinapi-1-0-0")["params"]["subject"][
        "properties"
    ]
    assert (properties["api"], properties["version"]) == ('"HttpbinAPI"', '"1.0.0"')
    rule = find(objects, "rule", "extauthz-httpbinapi-1-0-0")
    assert '== "pets"' in rule["match"] and '== "shop"' in rule["match"]
    assert "httpbin" not in rule["match"]
    assert rule["actions"] == [
        {
            "handler": "extauthz.istio-system",
            "instances": [
                "extauthz-check-httpbinapi-1-0-0",
                "extauthz-report-httpbinapi-1-0-0",
                "extauthz-quota-httpbinapi-1-0-0",
            ],
        }
    ]


@settings(deadline=None, max_examples=50)  # a machine may be busy
@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1), version=st.text("0.v"))
def test_any_name_of_an_api_arrives_as_it_is(name: str, version: str) -> None:
    api = Api(name=name, version=version, resources=API.resources)
    service = MeshService(name="a", namespace="b", api=api)
    objects = make_manifests(replace(OPTIONS, services=(service,)), RequestParts())
    # As they are written and read again.
    snapshot = read_snapshot(yaml.safe_load_all(yaml.safe_dump_all(objects)))
    (encode,) = [
        each.encode for each in snapshot.instances.values() if each.template.variety == CHECK
    ]
    properties = InstanceMsg.FromString(encode(Bag({}))).subject.properties
    assert properties["api"].string_value == name
    assert properties["version"].string_value == version


def test_no_rule_depends_on_what_a_client_writes() -> None:
    """A rule that does not match is a request that is not checked."""
    for rule in read_snapshot(make_manifests(EVERYTHING, PARTS)).rules:
        assert rule.match is not None
        assert "request." not in rule.match.text


def test_quotas_are_bound_to_the_services_that_ask_for_them() -> None:
    objects = make_manifests(EVERYTHING, PARTS)
    instances = names_of(objects, "instance")
    for name in ("extauthz-quota", "extauthz-quota-httpbinapi-1-0-0"):
        assert find(objects, "QuotaSpec", name)["rules"] == [
            {"quotas": [{"quota": name, "charge": 1}]}
        ]
        binding = find(objects, "QuotaSpecBinding", name)
        assert binding["quotaSpecs"] == [{"name": name, "namespace": "istio-system"}]
        assert name in instances
    assert find(objects, "QuotaSpecBinding", "extauthz-quota")["services"] == [
        {"name": "httpbin", "namespace": "default"}
    ]


def test_rules_of_the_api_manager_are_not_doubled() -> None:
    """Two rules with the same instance would ask, and count, twice."""
    objects = make_manifests(WSO2, PARTS)
    assert names_of(objects, "rule") == []
    assert names_of(objects, "instance") == ["wso2-authorization", "wso2-metrics"]
    assert names_of(objects, "handler") == ["wso2-handler"]


@pytest.mark.parametrize(
    ("query", "expression"), [(True, 'request.path | ""'), (False, 'request.url_path | ""')]
)
def test_the_query_is_sent_only_where_it_is_asked_for(query: bool, expression: str) -> None:  # noqa: FBT001  (a row of the table)
    objects = make_manifests(OPTIONS, replace(PARTS, query=query))
    properties = find(objects, "instance", "extauthz-check")["params"]["subject"]["properties"]
    assert properties["path"] == expression


@pytest.mark.parametrize(
    ("name", "namespace", "said"),
    [
        ("Httpbin", "default", "is no name of a service"),
        ("httpbin", "", "is no name of a service"),
        ('a" || true || "', "default", "is no name of a service"),
        ("httpbin", "5s", "as a duration"),
        ("0", "default", "as a duration"),
    ],
)
def test_a_service_must_have_a_name_that_mixer_reads(name: str, namespace: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        MeshService(name=name, namespace=namespace)


def test_quotas_without_services_are_refused() -> None:
    with pytest.raises(ConfigError, match="name them"):
        make_manifests(replace(OPTIONS, with_quota=True), PARTS)


def test_apis_whose_objects_would_have_the_same_name_are_refused() -> None:
    services = tuple(
        MeshService(name=service, namespace="b", api=replace_name(name))
        for service, name in (("a", "A b"), ("c", "a_b"))
    )
    with pytest.raises(ConfigError, match="rename one of them"):
        make_manifests(replace(OPTIONS, services=services), PARTS)


def test_a_service_is_checked_once() -> None:
    twice = (SERVICE, replace(SERVICE, api=API))
    with pytest.raises(ConfigError, match=r"httpbin\.default is named twice"):
        make_manifests(replace(OPTIONS, services=twice), PARTS)


def replace_name(name: str) -> Api:
    return Api(name=name, version=API.version, resources=API.resources)


# Each of these mistakes makes Mixer drop objects, and lets requests pass.


def _two_varieties(spec: Any) -> None:
    found = FileDescriptorSet.FromString(base64.b64decode(spec["descriptor"]))
    found.file[0].options.MergeFrom(found.file[-1].options)
    spec["descriptor"] = base64.b64encode(found.SerializeToString()).decode()


def _no_variety(spec: Any) -> None:
    found = FileDescriptorSet.FromString(base64.b64decode(spec["descriptor"]))
    found.file[-1].ClearField("options")
    spec["descriptor"] = base64.b64encode(found.SerializeToString()).decode()


def _other_name(spec: Any) -> None:
    found = FileDescriptorSet.FromString(base64.b64decode(spec["descriptor"]))
    options = found.file[-1].options.SerializeToString()
    found.file[-1].options.ParseFromString(options.replace(b"authorization", b"authorizati.n"))
    spec["descriptor"] = base64.b64encode(found.SerializeToString()).decode()


def _no_imports(spec: Any) -> None:
    found = FileDescriptorSet.FromString(base64.b64decode(spec["descriptor"]))
    del found.file[:-1]
    spec["descriptor"] = base64.b64encode(found.SerializeToString()).decode()


def _no_params(spec: Any) -> None:
    found = FileDescriptorSet.FromString(base64.b64decode(spec["config"]))
    found.file[-1].message_type[0].name = "Parameters"
    spec["config"] = base64.b64encode(found.SerializeToString()).decode()


Mistake = Callable[[Any], object]


@pytest.mark.parametrize(
    ("kind", "name", "mistake", "said"),
    [
        ("template", "extauthz-authorization", lambda spec: spec.update(descriptor="CuQBC"),
         "unable to parse descriptor"),
        ("template", "extauthz-authorization", lambda spec: spec.update(descriptor="////"),
         "unable to parse descriptor"),
        ("template", "extauthz-authorization", _two_varieties, "both have the option"),
        ("template", "extauthz-authorization", _no_variety, "there has to be one proto file"),
        ("template", "extauthz-authorization", _other_name, "must match"),
        ("template", "extauthz-authorization", _no_imports,
         "unable to resolve message '.istio.policy.v1beta1.Value'"),
        ("adapter", "extauthz", lambda spec: spec["templates"].append("x"),
         "unable to find template 'x'"),
        ("adapter", "extauthz", _no_params, "cannot find message named 'Params'"),
        ("handler", "extauthz", lambda spec: spec.update(adapter="zzz"),
         "adapter 'zzz' not found"),
        ("handler", "extauthz", lambda spec: spec["params"].update(nope=1),
         "field 'nope' not found in message 'Params'"),
        ("handler", "extauthz", lambda spec: spec["params"].update(valid_for_s="soon"),
         "field 'valid_for_s' is of type 'string' instead of expected type 'int'"),
        ("handler", "extauthz", lambda spec: spec["params"].update(shadow="true"),
         "instead of expected type 'bool'"),
        ("handler", "extauthz",
         lambda spec: spec["connection"].update(authentication={"tls": {"serverName": "a"}}),
         "unexpected tls token source type"),
        ("handler", "extauthz", lambda spec: spec["connection"].update(authentication={}),
         "unexpected authentication type"),
        ("instance", "extauthz-check", lambda spec: spec.update(template="quota"),
         "template 'quota' not found"),
        ("instance", "extauthz-check",
         lambda spec: spec["params"]["subject"].update(user="response.code | 0"),
         "for type TYPE_STRING does not accept INT64"),
        ("instance", "extauthz-check",
         lambda spec: spec["params"]["subject"].update(nope='""'),
         "fieldEncoder 'nope' not found in message 'SubjectMsg'"),
        ("instance", "extauthz-check",
         lambda spec: spec["params"]["subject"]["properties"].update(a="foo.bar"),
         "unknown attribute foo.bar"),
        ("instance", "extauthz-check",
         lambda spec: spec["params"]["subject"]["properties"].update(a="request.headers"),
         "unsupported type: STRING_MAP"),
        ("instance", "extauthz-check",
         lambda spec: spec["params"]["subject"]["properties"].update(a='request.host | "5s"'),
         "got DURATION, expected STRING"),
        ("instance", "extauthz-check",
         lambda spec: spec["params"]["subject"]["properties"].update(a="request.host |"),
         "unable to parse expression"),
        ("rule", "extauthz", lambda spec: spec["actions"][0].update(handler="x"),
         "Handler not found"),
        ("rule", "extauthz", lambda spec: spec["actions"][0]["instances"].append("x"),
         "Instance not found"),
        ("rule", "extauthz",
         lambda spec: spec["actions"][0]["instances"].append("extauthz-check"),
         "the same instance multiple times"),
        ("rule", "extauthz", lambda spec: spec.update(match="request.size"),
         "evaluated to type INT64, expected type BOOL"),
        ("rule", "extauthz", lambda spec: spec.update(actions=[]), "No valid actions"),
    ],
)  # fmt: skip
def test_mixer_drops_what_has_a_mistake(kind: str, name: str, mistake: Mistake, said: str) -> None:
    objects = copy.deepcopy(make_manifests(replace(OPTIONS, shadow=True), PARTS))
    mistake(find(objects, kind, name))
    snapshot = read_snapshot(objects)
    assert any(said in error for error in snapshot.errors), snapshot.errors


def test_one_bad_template_leaves_no_rule() -> None:
    """What makes a mistake dangerous: all that refers to it goes, down to the rule."""
    objects = make_manifests(OPTIONS, PARTS)
    _no_variety(find(objects, "template", "extauthz-metric"))
    snapshot = read_snapshot(objects)
    assert (snapshot.adapters, snapshot.handlers, snapshot.rules) == ({}, {}, [])
