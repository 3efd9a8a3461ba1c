"""What is unsafe in an operator's configuration is said; what is printed here is not."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytest

from extauthz.envoy.configuration.bootstrap import write_bootstrap, write_filter
from extauthz.envoy.configuration.check import check_config
from extauthz.envoy.configuration.parameters import EnvoyParameters, Upstream

PRINTED = EnvoyParameters(
    upstreams=(
        Upstream(address="127.0.0.1:8080", hosts=("a.example",)),
        Upstream(address="127.0.0.1:8081", name="grpc", speaks_http2=True),
    )
)
FILTER, BOOTSTRAP = write_filter(PRINTED), write_bootstrap(PRINTED)
TYPES = "type.googleapis.com/envoy.extensions."


def said(document: Any) -> list[str]:
    faults, _ = check_config(document)
    return [fault.message for fault in faults]


def a_filter(*without: str, **fields: Any) -> dict[str, Any]:
    """The printed filter, changed."""
    made = deepcopy(FILTER)
    made["typed_config"] = {
        name: value
        for name, value in {**made["typed_config"], **fields}.items()
        if name not in without
    }
    return made


def a_manager(*without: str, **fields: Any) -> dict[str, Any]:
    """The printed connection manager, changed."""
    listener = deepcopy(BOOTSTRAP)["static_resources"]["listeners"][0]
    made: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return {name: value for name, value in {**made, **fields}.items() if name not in without}


def a_provider(**fields: Any) -> dict[str, Any]:
    asked = {"service": "a", "timeout": "200ms", "statusOnError": "503", **fields}
    return {"name": "extauthz", "envoyExtAuthzGrpc": asked}


def a_security_policy(**fields: Any) -> dict[str, Any]:
    return {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "SecurityPolicy",
        "spec": {"extAuth": {"grpc": {}, "statusOnError": "503", **fields}},
    }


def a_cluster(name: str = "upstream", **options: Any) -> dict[str, Any]:
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    typed = {"@type": f"type.googleapis.com/{kind}", **options}
    return {"name": name, "typed_extension_protocol_options": {kind: typed}}


def a_server(*, required: bool = True, **common: Any) -> dict[str, Any]:
    """How a listener speaks TLS."""
    return {
        "@type": f"{TYPES}transport_sockets.tls.v3.DownstreamTlsContext",
        "requireClientCertificate": required,
        "commonTlsContext": common,
    }


def a_policy(**spec: Any) -> dict[str, Any]:
    return {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "spec": spec}


@pytest.mark.parametrize(
    "document",
    [
        write_bootstrap(PRINTED),
        {"http_filters": [write_filter(PRINTED)]},
        {"extensionProviders": [a_provider()]},
        a_security_policy(),
    ],
    ids=["bootstrap", "filter", "provider", "security policy"],
)
def test_what_is_as_it_should_be_is_good(document: Any) -> None:
    assert check_config(document) == ([], True)


@pytest.mark.parametrize("document", [None, "", [], {"a": [1, None]}, a_policy(action="ALLOW")])
def test_what_asks_nobody_is_told_apart(document: Any) -> None:
    assert check_config(document) == ([], False)


RULES = "decoder_header_mutation_rules"
MESH = "outbound|9001||extauthz.default.svc.cluster.local"


@pytest.mark.parametrize(
    ("filter_", "at", "words"),
    [
        (a_filter(failure_mode_allow=True), "failure_mode_allow", "lets every request pass"),
        (
            a_filter("failure_mode_allow", failureModeAllow=True),
            "failureModeAllow",
            "lets every request pass",
        ),
        (a_filter("status_on_error"), "", "as if they were denied"),
        (a_filter("encode_raw_headers"), "", "joined by a comma"),
        (a_filter("validate_mutations"), "", "does not check the answers"),
        (a_filter(transport_api_version="V2"), "transport_api_version", "must be V3"),
        (a_filter(http_service={}), "http_service", "answers gRPC"),
        (a_filter(clear_route_cache=True), "clear_route_cache", "another route"),
        (a_filter(allowed_headers={}), "allowed_headers", "hides header fields"),
        (a_filter(disallowed_headers={}), "disallowed_headers", "hides header fields"),
        (a_filter(filter_enabled={}), "filter_enabled", "pass unchecked"),
        (a_filter(**{RULES: {"disallow_all": True}}), "disallow_all", "forged"),
        (
            a_filter(**{RULES: {"disallow_all": True, "disallow_is_error": True}}),
            "disallow_all",
            "answered with 500",
        ),
        (a_filter(**{RULES: {"disallow_system": True}}), "disallow_system", "stays there"),
        (
            a_filter(**{RULES: {"disallow_system": True, "disallow_is_error": True}}),
            "disallow_system",
            "answered with 500",
        ),
        (
            a_filter(**{RULES: {"disallow_expression": {"regex": "x-.*"}}}),
            "disallow_expression",
            "add disallow_is_error",
        ),
        (
            a_filter(grpc_service={"envoy_grpc": {"cluster_name": MESH}}),
            "cluster_name",
            "set authority",
        ),
        (
            a_filter(grpc_service={"retry_policy": {"retry_on": "unavailable"}}),
            "retry_policy",
            "again",
        ),
    ],
)
def test_says_what_is_unsafe_in_a_filter(filter_: Any, at: str, words: str) -> None:
    (fault,), asks = check_config({"a": [filter_]})
    assert asks
    assert words in fault.message
    assert fault.path[:3] == ("a", 0, "typed_config")
    assert str(fault.path[-1]) == (at or "typed_config")


def test_a_cluster_of_a_mesh_with_an_authority_is_good() -> None:
    service = {"envoy_grpc": {"cluster_name": MESH, "authority": "extauthz"}}
    assert not said(a_filter(grpc_service=service))


@pytest.mark.parametrize(
    ("manager", "words"),
    [
        (a_manager("normalize_path"), "normalize_path is not true"),
        (a_manager("merge_slashes"), "merge_slashes is not true"),
        (
            a_manager("use_remote_address", route_config={"virtual_hosts": [{"domains": ["*"]}]}),
            "credentials.use_remote_address",
        ),
        (a_manager("strip_trailing_host_dot"), "strip_trailing_host_dot is not true"),
        (a_manager(route_config={"virtual_hosts": [{"domains": ["a"]}]}), "ignore_port"),
        (a_manager(local_reply_config={"body_format": {"json_format": {}}}), "content type"),
    ],
)
def test_says_what_is_unsafe_around_a_filter(manager: dict[str, Any], words: str) -> None:
    (message,) = said({"filters": [{"typed_config": manager}]})
    assert words in message
    # A listener that asks nobody is nobody's business.
    assert not said({**manager, "http_filters": []})


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (
            {"@type": f"{TYPES}filters.http.ext_authz.v3.ExtAuthzPerRoute", "disabled": True},
            "not asked",
        ),
        (
            a_cluster(explicit_http_config={"http2_protocol_options": {}}),
            "request trailers",
        ),
        (a_cluster(auto_config={}), "request trailers"),
        ({"name": "a", "http2_protocol_options": {}}, "request trailers"),
        (
            {
                "kind": "List",
                "items": [
                    {"kind": "ConfigMap", "data": {"mesh": "a: {envoyExtAuthzHttp: {}}"}},
                    {"kind": "ConfigMap", "data": {"other": "1"}},
                ],
            },
            "write envoyExtAuthzGrpc",
        ),
        (
            a_cluster(use_downstream_protocol_config={}, http_filters=[{"name": "other"}]),
            "request trailers",
        ),
        (a_server(), "asks clients for no certificate"),
        (a_server(validation_context={}), "asks clients for no certificate"),
        (
            a_server(
                required=False,
                validation_context={
                    "trusted_ca": {"filename": "ca.pem"},
                    "trust_chain_verification": "ACCEPT_UNTRUSTED",
                },
            ),
            "any certificate",
        ),
        (
            a_server(
                combined_validation_context={
                    "default_validation_context": {"trust_chain_verification": "ACCEPT_UNTRUSTED"}
                }
            ),
            "any certificate",
        ),
        (a_provider(failOpen=True), "lets every request pass"),
        ({"envoyExtAuthzGrpc": {"timeout": "1s"}}, "statusOnError"),
        ({"envoyExtAuthzGrpc": {"statusOnError": "503"}}, "600 s"),
        ({"envoyExtAuthzHttp": {}}, "write envoyExtAuthzGrpc"),
        (a_policy(action="CUSTOM"), "no service is asked"),
        (a_security_policy(failOpen=True), "lets every request pass"),
        (a_security_policy(recomputeRoute=True), "another route"),
        (a_security_policy(headersToExtAuth=["x-api-key"]), "whole list"),
        (
            {"kind": "ConfigMap", "data": {"mesh": "a: {envoyExtAuthzHttp: {}}"}},
            "write envoyExtAuthzGrpc",
        ),
    ],
)
def test_says_what_is_unsafe_elsewhere(document: Mapping[str, Any], words: str) -> None:
    (message,) = said(document)
    assert words in message


@pytest.mark.parametrize(
    ("manager", "words"),
    [
        (a_manager(skip_xff_append=True), "must be 'false'"),
        (a_manager("use_remote_address"), "must be 'false'"),
        (a_manager(use_remote_address=False), "must be 'false'"),
    ],
)
def test_what_is_said_of_envoys_peer_must_be_so(manager: dict[str, Any], words: str) -> None:
    faults, _ = check_config(manager)
    told = [fault for fault in faults if words in fault.message]
    assert told
    for fault in told:
        assert fault.path[-2:] == ("context_extensions", "extauthz.use_remote_address")


@pytest.mark.parametrize(
    "tls",
    [
        a_server(required=False),
        a_server(validation_context={"trusted_ca": {"filename": "ca.pem"}}),
        a_server(validation_context={"verify_certificate_hash": ["00"]}),
        a_server(validation_context_sds_secret_config={"name": "ROOTCA"}),
        a_server(combined_validation_context={"default_validation_context": {}}),
    ],
)
def test_listeners_that_take_certificates_of_some_signers_are_good(tls: dict[str, Any]) -> None:
    assert not said(tls)


def test_upstreams_that_get_no_trailers_are_good() -> None:
    http1: dict[str, Any] = {"http_protocol_options": {}}
    assert not said(a_cluster(explicit_http_config=http1))
    # The authorizer itself reads none.
    asked = a_cluster("extauthz", explicit_http_config={"http2_protocol_options": {}})
    assert not said({"filter": a_filter(), "cluster": asked})


def test_a_mesh_configuration_that_cannot_be_read_is_passed_over() -> None:
    assert check_config({"kind": "ConfigMap", "data": {"mesh": "a: ["}}) == ([], False)
