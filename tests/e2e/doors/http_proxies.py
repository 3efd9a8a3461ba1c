"""Runs the proxies that docs/how-to/http-check.md describes, with the page's own configuration."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml

from tests.e2e.running import Deployment
from tests.free_ports import find_free_port

PAGE: Final = Path(__file__).resolve().parents[3] / "docs" / "how-to" / "http-check.md"
_START_S: Final = 60


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything is, as ``host:port``."""

    proxy: str
    extauthz: str
    upstream: str

    def put_into(self, text: str) -> str:
        """The text of the page with these addresses in place of its own."""
        return (
            text.replace("127.0.0.1:8080", self.proxy)
            .replace("127.0.0.1:9002", self.extauthz)
            .replace("127.0.0.1:8081", self.upstream)
        )


def read_block(language: str) -> str:
    """The only fenced block of the page in this language."""
    (block,) = re.findall(
        rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE
    )
    return str(block)


@contextmanager
def run_nginx(folder: Path, addresses: Addresses) -> Iterator[None]:
    server = addresses.put_into(read_block("nginx"))
    places = "".join(
        f"{name}_temp_path {folder}/{name};"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = "user root;" if os.geteuid() == 0 else ""
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; {user} pid {folder}/nginx.pid; error_log {folder}/nginx.log;"
        f"events {{}} http {{ access_log off; {places}\n{server} }}"
    )
    with _run(("nginx", "-p", str(folder), "-c", str(file)), folder, addresses.proxy):
        yield


@contextmanager
def run_caddy(folder: Path, addresses: Addresses) -> Iterator[None]:
    site = addresses.put_into(read_block("caddyfile"))
    file = folder / "Caddyfile"
    file.write_text(f"{{\n\tadmin off\n\tauto_https off\n}}\n{site}")
    command = ("caddy", "run", "--config", str(file), "--adapter", "caddyfile")
    with _run(command, folder, addresses.proxy):
        yield


@contextmanager
def run_envoy_over_http(deployment: Deployment, addresses: Addresses) -> Iterator[httpx2.Client]:
    """An Envoy with the page's filter in place of the one that asks over gRPC; a client of it."""
    (written,) = (
        tree["http_filters"][0]
        for tree in map(yaml.safe_load, _list_yaml_blocks())
        if "http_filters" in tree
    )
    cluster = {
        "name": "extauthz",
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": "extauthz",
            "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": _write(addresses.extauthz)}}]}
            ],
        },
    }
    written["typed_config"]["http_service"]["server_uri"]["timeout"] = "20s"

    def change(bootstrap: dict[str, Any]) -> None:
        resources = bootstrap["static_resources"]
        manager = resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
        filters = manager["http_filters"]
        (place,) = (
            at for at, one in enumerate(filters) if one["name"] == "envoy.filters.http.ext_authz"
        )
        filters[place] = written
        clusters = [one for one in resources["clusters"] if one["name"] != "extauthz"]
        resources["clusters"] = [*clusters, cluster]

    with deployment.run_gateway(addresses.extauthz, change=change) as gateway:
        yield gateway.http


def _write(address: str) -> Mapping[str, Any]:
    host, port = address.rsplit(":", 1)
    return {"socket_address": {"address": host, "port_value": int(port)}}


def _list_yaml_blocks() -> list[str]:
    return re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@contextmanager
def _run(command: tuple[str, ...], folder: Path, address: str) -> Iterator[None]:
    program = shutil.which(command[0])
    assert program, f"{command[0]} is not on the PATH: .ci/setup proxies installs it"
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            (program, *command[1:]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "HOME": str(folder)},
        )
    try:
        _wait_until_listening(process, address, log)
        yield
    finally:
        process.terminate()
        process.wait(_START_S)


def _wait_until_listening(process: subprocess.Popen[bytes], address: str, log: Path) -> None:
    host, port = address.rsplit(":", 1)
    until = time.monotonic() + _START_S
    while True:
        assert process.poll() is None, log.read_text()
        try:
            socket.create_connection((host, int(port)), timeout=1).close()
        except OSError:
            assert time.monotonic() < until, log.read_text()
        else:
            return


RUN: Final[Mapping[str, Callable[[Path, Addresses], Any]]] = {
    "nginx": run_nginx,
    "caddy": run_caddy,
}


@contextmanager
def run_proxy(
    name: str, deployment: Deployment, folder: Path, extauthz: str
) -> Iterator[httpx2.Client]:
    """A client of the proxy, which asks the service at this address and has the echo behind it."""
    addresses = Addresses(f"127.0.0.1:{find_free_port()}", extauthz, deployment.http_upstream)
    if name == "envoy":
        with run_envoy_over_http(deployment, addresses) as http:
            yield http
        return
    url = f"http://{addresses.proxy}"
    with (
        RUN[name](folder, addresses),
        httpx2.Client(base_url=url, timeout=60, trust_env=False) as http,
    ):
        yield http
