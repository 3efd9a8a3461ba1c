"""``extauthz envoy-config``: prints a whole Envoy bootstrap, or the filter and its cluster."""

from __future__ import annotations

import argparse
from pathlib import Path

from extauthz.config import DEFAULT_FILE, read_settings
from extauthz.envoy.bootstrap import EnvoyParameters, Upstream, render_bootstrap, render_filter

_DEFAULTS = EnvoyParameters(upstreams=())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "--upstream",
        default="127.0.0.1:8080",
        metavar="HOST:PORT",
        help="the service behind Envoy (default: 127.0.0.1:8080)",
    )
    parser.add_argument("--http2", action="store_true", help="the upstream speaks HTTP/2 (gRPC)")
    parser.add_argument(
        "--filter", action="store_true", help="only the filter and its cluster, to paste"
    )
    parser.add_argument("--listen", default=_DEFAULTS.listen, metavar="IP:PORT")
    parser.add_argument(
        "--extauthz",
        metavar="HOST:PORT",
        help=f"where the service listens (default: listen.grpc in {DEFAULT_FILE}, if it is there)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings to take it from")
    parser.add_argument("--timeout-ms", type=int, default=_DEFAULTS.timeout_ms)
    parser.add_argument(
        "--max-body-bytes", type=int, default=0, help="send up to so much of each body along"
    )
    parser.add_argument("--admin-port", type=int, default=_DEFAULTS.admin_port)


def run(arguments: argparse.Namespace) -> int:
    """Prints YAML."""
    parameters = EnvoyParameters(
        upstreams=(Upstream(address=arguments.upstream, speaks_http2=arguments.http2),),
        extauthz=arguments.extauthz or _find_listener(arguments.config),
        listen=arguments.listen,
        timeout_ms=arguments.timeout_ms,
        max_body_bytes=arguments.max_body_bytes,
        admin_port=arguments.admin_port,
    )
    print(render_filter(parameters) if arguments.filter else render_bootstrap(parameters), end="")
    return 0


def _find_listener(config: Path | None) -> str:
    if config is None and not Path(DEFAULT_FILE).exists():
        return _DEFAULTS.extauthz
    address = read_settings(config or Path(DEFAULT_FILE)).listen.grpc
    # What listens on every address is reached on this one.
    return address.replace("0.0.0.0:", "127.0.0.1:").replace("[::]:", "[::1]:")
