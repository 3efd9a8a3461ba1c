"""A service that runs, with the admin API and traffic to look at."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import TimeoutExpired
from typing import Any, Final

import grpc
import httpx2
import yaml

from extauthz.demo.processes import wait_until_healthy
from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest, CheckResponse
from extauthz.serving.inside_envoy.grpc_wire import write_frame
from tests.commands import Command, running_command
from tests.free_ports import find_free_port

CHECK: Final = "/envoy.service.auth.v3.Authorization/Check"
HOSTILE: Final = "<img src=x onerror=alert(1)>"
"""An application, whose name a page must not take for HTML."""
FLOOD_S: Final = 120
"""When a load ends by itself: no test takes so long."""
SPARE: Final = 1_000_000
"""Requests of a limit that no test uses up."""


def key_of(application: str) -> str:
    """The API key of an application."""
    return f"key-of-{application}"


def _application(name: str) -> dict[str, Any]:
    digest = hashlib.sha256(key_of(name).encode()).hexdigest()
    return {"name": name, "owner": "alice", "api_keys": [{"sha256": digest}]}


CATALOG: Final[Mapping[str, Any]] = {
    "apis": [
        {
            "name": "PetsAPI",
            "version": "v1",
            "context": "/pets/v1",
            "security": ["api_key"],
            "resources": [{"methods": ["GET"], "path": "/{id}"}],
        },
        {
            "name": "OrdersAPI",
            "version": "v2",
            "context": "/orders/v2",
            "security": ["api_key"],
            "resources": [{"methods": ["GET", "POST"], "path": "/{id}"}],
        },
    ],
    "applications": [_application(name) for name in ("mobile", "batch", HOSTILE)],
    "subscriptions": [
        {"application": "mobile", "api": "PetsAPI", "version": "v1", "tier": "Gold"},
        {"application": "batch", "api": "PetsAPI", "version": "v1", "tier": "Tiny"},
    ],
    "tiers": {
        "Gold": {"limits": [{"requests": SPARE, "per": "1h"}]},
        "Tiny": {"limits": [{"requests": 10, "per": "1h"}]},
    },
}


@dataclass(frozen=True, slots=True)
class WatchedService:
    """A service that runs; `admin` is the URL of its admin listener."""

    process: Command
    grpc_address: str
    admin: str
    log_file: Path

    def ask(self, path: str, application: str = "", *, times: int = 1) -> int:
        """Sends checks as Envoy does; gives the gRPC code of the last answer."""
        body = write_check(path, application)
        options = [("grpc.enable_http_proxy", 0)]
        code = -1
        with grpc.insecure_channel(self.grpc_address, options) as channel:
            check: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(CHECK)
            for _ in range(times):
                code = CheckResponse.FromString(check(body, timeout=60)).status.code
        return code

    def wait_for_rates(self) -> None:
        """Returns when a step with decisions has ended, which is told from then on."""
        with httpx2.Client(base_url=self.admin, trust_env=False) as client:
            while not client.get("/api/rates").json()["series"]:
                with suppress(TimeoutExpired):
                    self.process.wait(0.1)

    @asynccontextmanager
    async def flood(self, folder: Path, per_s: int) -> AsyncIterator[None]:
        """Offers checks at a fixed rate while the block runs; every second one is denied.

        When it ends, ``flood-*.tsv`` in the folder have what h2load wrote of each request.
        """
        commands = []
        for number, application in enumerate(("mobile", HOSTILE)):
            body = folder / f"body-{number}"
            body.write_bytes(write_frame(write_check("/pets/v1/7", application)))
            log_file = folder / f"flood-{number}.tsv"
            log_file.unlink(missing_ok=True)
            commands.append(
                await asyncio.create_subprocess_exec(
                    *("h2load", "-c", "2", "-m", "50", f"--rps={per_s / 4}", "-D", str(FLOOD_S)),
                    *("-H", "content-type: application/grpc", "-H", "te: trailers"),
                    *("-d", str(body), f"--log-file={log_file}"),
                    f"http://{self.grpc_address}{CHECK}",
                    stdout=asyncio.subprocess.DEVNULL,
                )
            )
        try:
            yield
            assert [one.returncode for one in commands] == [None, None], "the load ended too soon"
        finally:
            for one in commands:
                if one.returncode is None:
                    one.terminate()
                await one.wait()


def write_check(path: str, application: str = "") -> bytes:
    """A CheckRequest, with the key of an application."""
    question = CheckRequest()
    http = question.attributes.request.http
    http.method, http.path, http.host = "GET", path, "api.example.com"
    if application:
        http.headers["x-api-key"] = key_of(application)
    return question.SerializeToString()


@contextmanager
def run_watched(
    folder: Path, *, port: int = 0, **settings: Mapping[str, Any]
) -> Iterator[WatchedService]:
    """The service, until the block ends.

    Args:
        folder: for its files.
        port: of the admin listener; any when left out.
        settings: are added to what it needs.
    """
    address, admin = f"127.0.0.1:{find_free_port()}", f"127.0.0.1:{port or find_free_port()}"
    listen = {"grpc": address, "admin": admin, **settings.pop("listen", {})}
    (folder / "catalog.yaml").write_text(yaml.safe_dump(dict(CATALOG)))
    written = {"listen": listen, "catalog": {"files": [str(folder / "catalog.yaml")]}, **settings}
    file, log_file = folder / "extauthz.yaml", folder / "extauthz.log"
    file.write_text(yaml.safe_dump(written))
    with running_command("serve", "--config", str(file), log_file=log_file) as process:
        wait_until_healthy(process, address, log_file)
        yield WatchedService(process, address, f"http://{admin}", log_file)
