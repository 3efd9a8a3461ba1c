"""``extauthz doctor`` on a real Envoy with a listener for each mistake that it knows."""

from __future__ import annotations

import json
import re
import shlex
import socketserver
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import h2.config
import h2.connection
import httpx2
import pytest
import trustme
import yaml

from extauthz.cli import main
from extauthz.demo.ports import find_free_port
from extauthz.demo.processes import run_envoy, wait_until_healthy
from extauthz.envoy.configuration.bootstrap import write_bootstrap
from extauthz.envoy.configuration.parameters import ClientTls, EnvoyParameters, Upstream
from tests.commands import running_command
from tests.e2e.backends import hold_dead_port, run_echo, run_grpc_echo
from tests.e2e.envoys import EnvoyVersion, find_envoy_binary
from tests.e2e.raw_upstreams import serve

pytestmark = pytest.mark.e2e

Tree = dict[str, Any]
REQUESTS: Final = 3
SECRET: Final = "a-secret-of-the-configuration"
CATALOG: Final = """\
apis:
  - name: Open
    version: v1
    context: /open/v1
    security: [none]
    resources: [{methods: [GET], path: "/*"}]
"""
_TYPES: Final = "type.googleapis.com/envoy.extensions"
PER_ROUTE: Final = f"{_TYPES}.filters.http.ext_authz.v3.ExtAuthzPerRoute"
EXT_AUTHZ: Final = "envoy.filters.http.ext_authz"


class SilentHttp2(socketserver.BaseRequestHandler):
    """Speaks HTTP/2, takes every request, and answers none."""

    def handle(self) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        self.request.sendall(connection.data_to_send())
        # Whoever looked at what is spoken here goes without a word.
        with suppress(ConnectionError):
            while data := self.request.recv(65_536):
                connection.receive_data(data)
                self.request.sendall(connection.data_to_send())


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What stands around: addresses of services, and the authorities of their certificates."""

    plain: str
    admin: str
    mutual_tls: str
    silent: str
    http1: str
    other_grpc: str
    dead: str
    server_ca: Path
    other_ca: Path


Change = Callable[[Tree, Tree], None]
"""Changes a connection manager and the cluster that its filter asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A listener, and what must be said of it.

    Attributes:
        says: for each code, the weight and words that must be in the finding, as patterns.
        probed: likewise, where the hosts' ports are tried, too; the same when None.
    """

    says: Mapping[str, tuple[str, str]]
    probed: Mapping[str, tuple[str, str]] | None = None
    change: Change = lambda _manager, _cluster: None
    asks: str = "plain"
    tls: Callable[[Place], ClientTls] | None = None
    status: int = 503


def _filter(**fields: Any) -> Change:
    return lambda manager, _: manager["http_filters"][0]["typed_config"].update(fields)


def _service(**fields: Any) -> Change:
    return lambda manager, _: manager["http_filters"][0]["typed_config"]["grpc_service"].update(
        fields
    )


def _cluster(**fields: Any) -> Change:
    return lambda _, cluster: cluster.update(fields)


def _no_filter(manager: Tree, _: Tree) -> None:
    del manager["http_filters"][0]


def _disable(manager: Tree, _: Tree) -> None:
    manager["http_filters"][0]["disabled"] = True
    del manager["route_config"]["typed_per_filter_config"]


def _disable_in_vain(manager: Tree, _: Tree) -> None:
    """What the printed bootstrap has for all routes switches it on again."""
    manager["http_filters"][0]["disabled"] = True


def _disable_host(manager: Tree, _: Tree) -> None:
    manager["route_config"]["virtual_hosts"][0]["typed_per_filter_config"] = {
        EXT_AUTHZ: {"@type": PER_ROUTE, "disabled": True}
    }


def _disable_route(manager: Tree, _: Tree) -> None:
    manager["route_config"]["virtual_hosts"][0]["routes"][0]["typed_per_filter_config"] = {
        EXT_AUTHZ: {
            "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
            "disabled": True,
            "config": {},
        }
    }


def _rename(manager: Tree, _: Tree) -> None:
    manager["http_filters"][0]["name"] = "authz"


def _limit_first(manager: Tree, _: Tree) -> None:
    kind = f"{_TYPES}.filters.http.local_ratelimit.v3.LocalRateLimit"
    manager["http_filters"].insert(
        0,
        {
            "name": "limits",
            "typed_config": {"@type": kind, "stat_prefix": "limits"},
        },
    )


def _share(manager: Tree, _: Tree) -> None:
    _filter(filter_enabled={"default_value": {"numerator": 0}})(manager, {})


def _http1(_: Tree, cluster: Tree) -> None:
    del cluster["typed_extension_protocol_options"]


def _no_hosts(_: Tree, cluster: Tree) -> None:
    cluster["load_assignment"]["endpoints"] = []


def _check_health(_: Tree, cluster: Tree) -> None:
    cluster["health_checks"] = [
        {
            "timeout": "1s",
            "interval": "1s",
            "unhealthy_threshold": 1,
            "healthy_threshold": 1,
            "grpc_health_check": {"service_name": "of.another"},
        }
    ]


def _fill_breaker(_: Tree, cluster: Tree) -> None:
    cluster["circuit_breakers"] = {"thresholds": [{"max_requests": 0}]}


def _low_breaker(_: Tree, cluster: Tree) -> None:
    cluster["circuit_breakers"] = {"thresholds": [{"max_requests": 16}]}


def _tls(*, ca: str, name: str = "localhost") -> Callable[[Place], ClientTls]:
    return lambda place: ClientTls(ca_file=str(getattr(place, ca)), server_name=name)


BROKEN: Final[Mapping[str, Broken]] = {
    "healthy": Broken(says={}, status=200),
    "no filter": Broken(
        change=_no_filter,
        status=200,
        says={
            "not_in_chain": (
                "note",
                r"no ext_authz filter \(its filters: router\); it received 3 requests",
            )
        },
    ),
    "disabled": Broken(
        change=_disable, status=200, says={"filter_disabled": ("error", "disabled: true.*: none")}
    ),
    "disabled in vain": Broken(
        change=_disable_in_vain,
        status=200,
        says={"filter_disabled": ("note", "enabled again .*: the route configuration 'ingress'")},
    ),
    "host disabled": Broken(
        change=_disable_host,
        status=200,
        says={"disabled_on_route": ("error", r"disabled on the virtual host")},
    ),
    "route disabled": Broken(
        change=_disable_route,
        status=200,
        says={"disabled_on_route": ("warning", r"disabled on the route '/' of")},
    ),
    "renamed": Broken(
        change=_rename,
        status=200,
        says={"route_config_unused": ("warning", r"the filter's name is 'authz'")},
    ),
    "a share": Broken(
        change=_share,
        status=200,
        says={"filter_enabled": ("error", r"selects 0 % .*; 3 requests were not checked")},
    ),
    "limit first": Broken(
        change=_limit_first,
        status=200,
        says={"rate_limit_first": ("warning", r"'limits' \(local rate limit\) stands before")},
    ),
    "http service": Broken(
        change=lambda manager, _: manager["http_filters"][0]["typed_config"].update(
            grpc_service=None,
            http_service={
                "server_uri": {"uri": "http://x", "cluster": "upstream", "timeout": "1s"}
            },
        ),
        status=200,
        says={"http_service": ("error", "extauthz answers gRPC")},
    ),
    "wrong cluster": Broken(
        change=_service(envoy_grpc={"cluster_name": "healthi"}),
        says={"cluster_missing": ("error", r"'healthi', which Envoy does not have .*'healthy'")},
    ),
    "no hosts": Broken(change=_no_hosts, says={"no_hosts": ("error", r"has no host \(\d+ calls")}),
    "unhealthy": Broken(
        change=_check_health,
        status=200,
        says={
            "unhealthy_hosts": (
                "warning",
                r"(?s)1 of 1 hosts .*its health check fails.*uses all hosts \(3 times",
            )
        },
    ),
    "nobody there": Broken(
        asks="dead",
        says={"cannot_connect": ("error", r"\d connections to 127\.0\.0\.1:\d+ failed")},
        probed={"nobody_listens": ("error", r"nobody answers; \d connections of Envoy's failed")},
    ),
    "http/1": Broken(
        change=_http1,
        says={
            "cluster_without_http2": ("error", r"3 connections with HTTP/1\.1, \d protocol errors")
        },
    ),
    "an http/1 server": Broken(
        asks="http1",
        says={"connections_closed": ("error", "plain HTTP/2")},
        probed={"not_grpc": ("error", "it speaks HTTP/1")},
    ),
    "no tls": Broken(
        asks="mutual_tls",
        says={"connections_closed": ("error", r"closed .*without an answer")},
        probed={"tls_wanted": ("error", "plain text with .* it speaks TLS and asks")},
    ),
    "tls to plain": Broken(
        tls=_tls(ca="server_ca"),
        says={"tls_failed": ("error", r"\d handshakes failed, 0 were made")},
        probed={
            "tls_not_spoken": (
                "error",
                "TLS with .*it speaks HTTP/2 without TLS, grpc.health.v1: serving",
            )
        },
    ),
    "untrusted": Broken(
        asks="mutual_tls",
        tls=_tls(ca="other_ca"),
        says={"certificate_not_trusted": ("error", "no authority that Envoy trusts signed it")},
        probed={
            "certificate_not_trusted": ("error", "no authority that Envoy trusts"),
            "certificate_wanted": ("error", "asks for a client"),
        },
    ),
    "another name": Broken(
        asks="mutual_tls",
        tls=_tls(ca="server_ca", name="extauthz.example"),
        says={"certificate_not_trusted": ("error", "it does not have the expected name")},
        probed={
            "certificate_not_trusted": ("error", "the expected name"),
            "certificate_wanted": ("error", "asks for a client"),
        },
    ),
    "no certificate": Broken(
        asks="mutual_tls",
        tls=_tls(ca="server_ca"),
        says={"cannot_connect": ("error", "asks for a client certificate")},
        probed={"certificate_wanted": ("error", "it speaks TLS and asks for a client certificate")},
    ),
    "timed out": Broken(
        asks="silent",
        change=_service(timeout="0.010s"),
        says={"timed_out": ("error", r"3 calls were not answered in time \(10 ms\); 0 were")},
    ),
    "patient": Broken(
        change=_service(timeout="600s"),
        status=200,
        says={"timeout_too_long": ("warning", "waits 600000 ms")},
    ),
    "open": Broken(
        asks="dead",
        change=_filter(failure_mode_allow=True),
        status=200,
        says={
            "failure_mode_allow": ("error", r"is true, and 3 requests passed without a decision"),
            "cannot_connect": ("error", "failed"),
        },
        probed={
            "nobody_listens": ("error", "nobody answers"),
            "failure_mode_allow": ("error", "3 requests passed"),
        },
    ),
    "hidden headers": Broken(
        change=_filter(allowed_headers={"patterns": [{"exact": "X-API-Key", "ignore_case": True}]}),
        status=200,
        says={
            "allowed_headers": ("error", r"hides from extauthz: authorization, apikey, cookie, ")
        },
    ),
    "retries": Broken(
        change=_service(retry_policy={"retry_on": "unavailable", "num_retries": 1}),
        status=200,
        says={"retry_policy": ("warning", r"is set; 0 checks were sent again")},
    ),
    "retried": Broken(
        asks="dead",
        change=_service(retry_policy={"retry_on": "connect-failure", "num_retries": 1}),
        says={
            "retry_policy": ("warning", r"is set; 3 checks were sent again"),
            "cannot_connect": ("error", "failed"),
        },
        probed={
            "nobody_listens": ("error", "nobody answers"),
            "retry_policy": ("warning", "3 checks"),
        },
    ),
    "full breaker": Broken(
        change=_fill_breaker,
        says={"breaker_full": ("error", r"_overflow 3\); max_requests is 0")},
    ),
    "low breaker": Broken(
        change=_low_breaker,
        status=200,
        says={"breaker_too_low": ("warning", "max_requests is 16")},
    ),
    "another service": Broken(
        asks="other_grpc", says={"unanswered": ("warning", "3 checks were not answered, 0 were")}
    ),
}


@dataclass(frozen=True, slots=True)
class Patient:
    """A running Envoy: where its admin interface is, and the status that each listener answers."""

    admin: str
    statuses: Mapping[str, set[int]]
    socket: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("services")
    (folder / "catalog.yaml").write_text(CATALOG)
    ours, other = trustme.CA(), trustme.CA()
    server, client = ours.issue_cert("localhost"), ours.issue_cert("envoy.example")
    server.private_key_pem.write_to_path(str(folder / "server.key"))
    server.cert_chain_pems[0].write_to_path(str(folder / "server.crt"))
    ours.cert_pem.write_to_path(str(folder / "ours.crt"))
    other.cert_pem.write_to_path(str(folder / "other.crt"))
    tls = {
        "cert": str(folder / "server.crt"),
        "key": str(folder / "server.key"),
        "client_ca": str(folder / "ours.crt"),
    }
    credentials = grpc.ssl_channel_credentials(
        ours.cert_pem.bytes(), client.private_key_pem.bytes(), client.cert_chain_pems[0].bytes()
    )
    with ExitStack() as stack:
        addresses = {}
        admin = f"127.0.0.1:{find_free_port()}"
        for name, server_tls, shown in (("plain", None, None), ("mutual", tls, credentials)):
            port = find_free_port()
            address = addresses[name] = f"{'localhost' if shown else '127.0.0.1'}:{port}"
            settings = {
                "listen": {"grpc": f"127.0.0.1:{port}", **({} if shown else {"admin": admin})},
                "catalog": {"files": ["catalog.yaml"]},
                "server": {"host": "grpcio", **({"tls": server_tls} if server_tls else {})},
            }
            file = folder / f"{name}.yaml"
            file.write_text(yaml.safe_dump(settings))
            log_file = folder / f"{name}.log"
            process = stack.enter_context(
                running_command("serve", "--config", str(file), log_file=log_file)
            )
            wait_until_healthy(process, address, log_file, shown)
        yield Place(
            plain=addresses["plain"],
            admin=admin,
            mutual_tls=addresses["mutual"].replace("localhost", "127.0.0.1"),
            silent=stack.enter_context(serve(SilentHttp2)),
            http1=stack.enter_context(run_echo()),
            other_grpc=stack.enter_context(run_grpc_echo()),
            dead=f"127.0.0.1:{stack.enter_context(hold_dead_port())}",
            server_ca=folder / "ours.crt",
            other_ca=folder / "other.crt",
        )


def _write_envoy(place: Place, ports: Mapping[str, int], admin: int, upstream: str) -> Tree:
    """The printed bootstrap, with a listener and a cluster for each way to be broken."""
    whole: Tree = {}
    for name, broken in BROKEN.items():
        one = write_bootstrap(
            EnvoyParameters(
                upstreams=(Upstream(address=upstream),),
                extauthz=getattr(place, broken.asks),
                extauthz_tls=broken.tls(place) if broken.tls else None,
                listen=f"127.0.0.1:{ports[name]}",
                admin_port=admin,
                timeout_ms=2000,
                stdout_log=False,
            )
        )
        (listener,) = one["static_resources"]["listeners"]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        cluster = next(
            each for each in one["static_resources"]["clusters"] if each["name"] == "extauthz"
        )
        listener["name"] = cluster["name"] = cluster["load_assignment"]["cluster_name"] = name
        manager["stat_prefix"] = name.replace(" ", "_")
        manager["http_filters"][0]["typed_config"]["grpc_service"]["envoy_grpc"] = {
            "cluster_name": name,
            "authority": "extauthz",
        }
        headers = [{"header": {"key": "x-of-the-config", "value": SECRET}}]
        manager["route_config"]["request_headers_to_add"] = headers
        broken.change(manager, cluster)
        if not whole:
            whole = one
            continue
        whole["static_resources"]["listeners"].append(listener)
        whole["static_resources"]["clusters"].append(cluster)
    return whole


def _add_rejected(whole: Tree, folder: Path) -> None:
    """A listener that comes by LDS, and has ext_authz behind the router."""
    (listener,) = json.loads(json.dumps(whole["static_resources"]["listeners"][:1]))
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"].reverse()
    listener["name"] = "backwards"
    listener["address"]["socket_address"]["port_value"] = find_free_port()
    kind = "type.googleapis.com/envoy.config.listener.v3.Listener"
    resources = {"version_info": "1", "resources": [{"@type": kind, **listener}]}
    (folder / "lds.yaml").write_text(yaml.safe_dump(resources))
    whole["node"] = {"id": "test", "cluster": "test"}
    whole["dynamic_resources"] = {
        "lds_config": {"path_config_source": {"path": str(folder / "lds.yaml")}}
    }


def _add_socket(whole: Tree, admin: int, path: Path) -> None:
    """A Unix socket that leads to the admin interface."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": admin}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    whole["static_resources"]["clusters"].append(
        {
            "name": "admin",
            "type": "STATIC",
            "load_assignment": {"cluster_name": "admin", "endpoints": endpoints},
        }
    )
    proxy = {
        "@type": f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "admin",
        "cluster": "admin",
    }
    filters = [{"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}]
    whole["static_resources"]["listeners"].append(
        {
            "name": "socket",
            "address": {"pipe": {"path": str(path)}},
            "filter_chains": [{"filters": filters}],
        }
    )


@pytest.fixture(scope="module", params=list(EnvoyVersion), ids=lambda version: version.value)
def patient(
    request: pytest.FixtureRequest, place: Place, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Patient]:
    folder = tmp_path_factory.mktemp("patient")
    ports = {name: find_free_port() for name in BROKEN}
    admin = find_free_port()
    with ExitStack() as stack:
        whole = _write_envoy(place, ports, admin, stack.enter_context(run_echo()))
        _add_rejected(whole, folder)
        _add_socket(whole, admin, folder / "admin")
        file = folder / "envoy.yaml"
        file.write_text(yaml.safe_dump(whole))
        stack.enter_context(
            run_envoy(file, admin, folder / "envoy.log", find_envoy_binary(request.param))
        )
        http = stack.enter_context(httpx2.Client(trust_env=False, timeout=60))
        statuses = {
            name: {
                http.get(f"http://127.0.0.1:{port}/open/v1/x").status_code for _ in range(REQUESTS)
            }
            for name, port in ports.items()
        }
        yield Patient(f"http://127.0.0.1:{admin}", statuses, folder / "admin")


def _examine(
    patient: Patient, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, Tree]:
    capsys.readouterr()
    code = main(["doctor", "--envoy-admin", patient.admin, "--json", *arguments])
    said = capsys.readouterr()
    assert not said.err
    assert SECRET not in said.out
    return code, json.loads(said.out)


@pytest.mark.parametrize("name", BROKEN)
def test_says_what_is_broken(
    name: str, patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = BROKEN[name]
    assert patient.statuses[name] == {broken.status}
    probed = broken.says if broken.probed is None else broken.probed
    for says, options in ((broken.says, ["--no-probe"]), (probed, [])):
        code, said = _examine(patient, capsys, "--listener", name, *options)
        found = {one["code"]: one for one in said["findings"]}
        assert found.keys() == says.keys()
        for key, (weight, words) in says.items():
            assert found[key]["weight"] == weight
            assert re.search(words, f"{found[key]['seen']}\n{found[key]['why']}"), found[key]
        assert code == (1 if {weight for weight, _ in says.values()} - {"note"} else 0)


def test_says_of_a_healthy_one_what_it_looked_at(
    place: Place, patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    ours = ("--extauthz-admin", f"http://{place.admin}")
    code, said = _examine(patient, capsys, "--listener", "healthy", *ours)
    assert (code, said["findings"]) == (0, [])
    envoy, listener, cluster, host, service = said["looked_at"]
    assert (
        host == f"{place.plain}, from here: it speaks HTTP/2 without TLS, grpc.health.v1: serving"
    )
    assert re.fullmatch(r"extauthz: ready, \d+ decisions, 0 calls shed", service)
    assert re.fullmatch(r"Envoy 1\.\d+\.\d+ at http://127\.0\.0\.1:\d+: LIVE, up for \d+s", envoy)
    assert listener == (
        "listener 'healthy': filters ext_authz, router; 3 requests, 3 allowed, 0 denied, 0 not "
        "answered"
    )
    assert cluster == (
        "cluster 'healthy': plain text, 1 of 1 hosts healthy, 1 connections open, 3 answers"
    )


def test_says_that_a_filter_behind_the_router_was_rejected(
    patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = _examine(patient, capsys, "--listener", "backwards")
    (found,) = said["findings"]
    assert (code, found["code"], found["weight"]) == (1, "update_rejected", "error")
    assert "the listener 'backwards'" in found["seen"]
    assert "behind it would never be called" in found["why"]


def test_prints_all_of_it_as_a_program_with_the_weightiest_first(patient: Patient) -> None:
    command = [sys.executable, "-m", "extauthz", "doctor", "--envoy-admin", patient.admin]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert SECRET not in done.stdout
    weights = re.findall(r"^(error|warning|note): ", done.stdout, re.MULTILINE)
    assert weights == sorted(weights, key=["error", "warning", "note"].index)
    assert {"error", "warning", "note"} <= set(weights)
    assert done.stdout.count("  seen: ") == done.stdout.count("  do:   ") == len(weights)


def test_an_admin_interface_on_a_unix_socket_is_asked(
    patient: Patient, capsys: pytest.CaptureFixture[str]
) -> None:
    through = Patient(f"unix:{patient.socket}", {}, patient.socket)
    code, said = _examine(through, capsys, "--listener", "healthy")
    assert (code, said["findings"]) == (0, [])


PAGE: Final = Path(__file__).parents[3] / "docs" / "how-to" / "not-authorized-as-expected.md"
SHOWN: Final = dict(
    re.findall(
        r"^```text\n\$ (extauthz doctor[^\n]*)\n(.*?)^```$",
        PAGE.read_text(),
        re.MULTILINE | re.DOTALL,
    )
)


@pytest.mark.parametrize("command", SHOWN)
def test_the_page_shows_what_is_printed(
    command: str, patient: Patient, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """ "…" in a line stands for any text."""
    arguments = shlex.split(command)[1:]
    where = {"http://127.0.0.1:9902": f"http://{place.admin}"}
    capsys.readouterr()
    main([*(where.get(one, one) for one in arguments), "--envoy-admin", patient.admin])
    printed = capsys.readouterr().out
    pattern = ".*".join(map(re.escape, SHOWN[command].split("…")))
    assert re.fullmatch(pattern, printed), printed


def test_the_page_shows_most_of_what_is_found() -> None:
    assert len(SHOWN) >= 5
