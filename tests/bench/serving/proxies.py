"""The proxy of the benchmarks: an Envoy as `extauthz envoy-config` would set it up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from extauthz.demo.ports import find_free_port
from extauthz.demo.processes import run_envoy
from extauthz.envoy.configuration.bootstrap import write_bootstrap
from extauthz.envoy.configuration.parameters import EnvoyParameters, Upstream

_NOBODY: Final = "127.0.0.1:9"
"""Stands where nobody is asked."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """An Envoy that runs."""

    address: str
    process_id: int


@contextmanager
def run_proxy(folder: Path, upstream: str, extauthz: str | None) -> Iterator[Proxy]:
    """An Envoy in front of an upstream that asks about each request; nobody when it is None."""
    folder.mkdir()
    admin_port, port = find_free_port(), find_free_port()
    parameters = EnvoyParameters(
        upstreams=(Upstream(address=upstream),),
        listen=f"127.0.0.1:{port}",
        admin_port=admin_port,
        extauthz=extauthz or _NOBODY,
        stdout_log=False,
    )
    bootstrap = write_bootstrap(parameters)
    if extauthz is None:
        (listener,) = bootstrap["static_resources"]["listeners"]
        manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
        del manager["http_filters"][0]
    file = folder / "envoy.json"
    file.write_text(json.dumps(bootstrap))
    with run_envoy(file, admin_port, folder / "envoy.log") as process:
        yield Proxy(parameters.listen, process.pid)
