"""Starts extauthz and Envoy, each combination once, and stops them together."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import grpc
import httpx2
import yaml

from extauthz.demo.processes import run_envoy, wait_until_healthy
from extauthz.envoy.configuration.bootstrap import write_bootstrap
from extauthz.envoy.configuration.parameters import EnvoyParameters, Upstream
from tests.commands import Command, running_command
from tests.e2e.envoys import EnvoyVersion, find_envoy_binary
from tests.e2e.told import Told
from tests.e2e.world import World
from tests.free_ports import find_free_port

GRPC_HOST: Final = "grpc.example"
"""Requests for this host go to the gRPC upstream."""
PATIENT_MS: Final = 20_000
"""Long enough for a busy machine: only tests about deadlines may meet one."""

VARIANTS: Final[dict[str, dict[str, Any]]] = {
    "standard": {},
    "wso2": {"responses": {"profile": "wso2"}},
    "error_response": {"responses": {"error_response": True}},
}
"""What the settings of each service add to what all have."""

_BASE: Final[dict[str, Any]] = {
    # Tests choose their client address in X-Forwarded-For, to be limited by themselves only.
    "credentials": {"trusted_hops": 1, "failed_attempts": {"requests": 5, "per": "1h"}},
    # All that could ever be logged is: the logs are searched for secrets.
    "log": {"level": "debug"},
}
_ADDRESSES: Final = itertools.count(1)


def next_client() -> str:
    """A client address that no test has used."""
    number = next(_ADDRESSES)
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


@dataclass(frozen=True, slots=True)
class Service:
    """A running ``extauthz serve``."""

    process: Command
    grpc_address: str
    log_file: Path


@dataclass(frozen=True, slots=True)
class Gateway:
    """A running Envoy, and a client of it. Each call comes from an address of its own."""

    port: int
    http: httpx2.Client
    channel: grpc.Channel
    log_file: Path
    told: Told

    def call_grpc(
        self, path: str, metadata: Iterable[tuple[str, str]] = (), *, client: str = ""
    ) -> list[list[str]]:
        """One unary gRPC call; gives the metadata that the upstream saw, or raises RpcError."""
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self.channel.unary_unary(path)
        sent = (*metadata, ("x-forwarded-for", client or next_client()))
        try:
            seen: list[list[str]] = json.loads(call(b"x", metadata=sent, timeout=60))
        except grpc.RpcError as error:
            self.told.keep_error(error)
            raise
        return seen

    def call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | list[tuple[str, str]] | None = None,
        *,
        client: str = "",
    ) -> httpx2.Response:
        """One request over HTTP/1.1."""
        pairs = list(headers.items()) if isinstance(headers, Mapping) else list(headers or ())
        pairs.append(("x-forwarded-for", client or next_client()))
        encoded = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
        return self.http.request(method, path, headers=encoded)


@dataclass(slots=True)
class Deployment:
    """Everything that runs for a session on one host. Ask it, and it is there."""

    host: str
    world: World
    folder: Path
    http_upstream: str
    grpc_upstream: str
    stack: ExitStack
    told: Told
    services: dict[str, Service] = field(default_factory=dict)
    gateways: dict[tuple[Any, ...], Gateway] = field(default_factory=dict)

    def service(self, variant: str = "standard") -> Service:
        """The extauthz with these settings, on the world's catalog."""
        if variant not in self.services:
            self.services[variant] = self.stack.enter_context(
                self.run_service(variant, VARIANTS[variant], tells_all=True)
            )
        return self.services[variant]

    def gateway(
        self,
        version: EnvoyVersion = EnvoyVersion.NEWEST,
        variant: str = "standard",
        **parameters: Any,
    ) -> Gateway:
        """An Envoy with these parameters in front of `service(variant)`."""
        key = (version, variant, *sorted(parameters.items()))
        if key not in self.gateways:
            address = self.service(variant).grpc_address
            self.gateways[key] = self.stack.enter_context(
                self.run_gateway(address, version, told=self.told, **parameters)
            )
        return self.gateways[key]

    @contextmanager
    def run_service(
        self,
        name: str,
        settings: Mapping[str, Any],
        *,
        catalog: Path | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        environment: dict[str, str] | None = None,
        tells_all: bool = False,
    ) -> Iterator[Service]:
        """An extauthz of a test's own, until the block ends.

        Its log is searched at the end of the run; with `tells_all` so are its spans, decisions and
        pages, and `settings` say nothing of these.
        """
        folder = self._make_folder(name)
        address = f"127.0.0.1:{find_free_port()}"
        written = merge(
            _BASE,
            self.told.settings(folder) if tells_all else {},
            {
                "listen": {"grpc": address},
                "catalog": {"files": [str(catalog or self.world.catalog)]},
                "server": {"host": self.host},
            },
            settings,
        )
        file, log_file = folder / "extauthz.yaml", folder / "extauthz.log"
        file.write_text(yaml.safe_dump(written))
        address = written["listen"]["grpc"]
        self.told.logs.append(log_file)
        # No proxy of this machine's stands before the collector.
        environment = {"no_grpc_proxy": "127.0.0.1", **(environment or {})}
        with running_command(
            "serve", "--config", str(file), log_file=log_file, environment=environment
        ) as process:
            wait_until_healthy(process, address, log_file, credentials)
            yield Service(process, address, log_file)
            if tells_all:
                self.told.keep_pages(folder)

    @contextmanager
    def run_gateway(
        self,
        extauthz: str,
        version: EnvoyVersion = EnvoyVersion.NEWEST,
        *,
        change: Callable[[dict[str, Any]], None] = lambda _: None,
        told: Told | None = None,
        **parameters: Any,
    ) -> Iterator[Gateway]:
        """An Envoy of a test's own, until the block ends.

        Args:
            change: of what it is told.
            told: keeps the refusals that its clients see.
        """
        told = told or Told()
        folder = self._make_folder("envoy")
        port, admin_port = find_free_port(), find_free_port()
        parameters = {"timeout_ms": PATIENT_MS, **parameters}
        file, log_file = folder / "envoy.yaml", folder / "envoy.log"
        bootstrap = write_bootstrap(
            EnvoyParameters(
                upstreams=(
                    Upstream(
                        address=self.grpc_upstream,
                        name="grpc",
                        hosts=(GRPC_HOST,),
                        speaks_http2=True,
                    ),
                    Upstream(address=self.http_upstream),
                ),
                extauthz=extauthz,
                listen=f"127.0.0.1:{port}",
                admin_port=admin_port,
                **parameters,
            )
        )
        change(bootstrap)
        file.write_text(yaml.safe_dump(bootstrap, sort_keys=False))
        url = f"http://127.0.0.1:{port}"
        options = [("grpc.default_authority", GRPC_HOST), ("grpc.enable_http_proxy", 0)]
        with (
            run_envoy(file, admin_port, log_file, find_envoy_binary(version)),
            httpx2.Client(
                base_url=url,
                timeout=60,
                trust_env=False,
                event_hooks={"response": [told.keep_answer]},
            ) as http,
            grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel,
        ):
            yield Gateway(port, http, channel, log_file, told)

    def _make_folder(self, name: str) -> Path:
        folder = self.folder / f"{len(list(self.folder.iterdir()))}-{name}"
        folder.mkdir()
        return folder


def merge(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Trees of settings laid over each other; later ones win."""
    merged: dict[str, Any] = {}
    for tree in trees:
        for key, value in tree.items():
            below = merged.get(key)
            if isinstance(below, dict) and isinstance(value, Mapping):
                merged[key] = merge(below, value)
            else:
                merged[key] = value
    return merged
