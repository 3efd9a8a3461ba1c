"""``extauthz envoy-config``: prints a whole Envoy bootstrap, or the filter and its cluster."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from extauthz.envoy.configuration.bootstrap import render_bootstrap, render_filter
from extauthz.envoy.configuration.parameters import ClientTls, EnvoyParameters, Upstream
from extauthz.errors import ConfigError
from extauthz.serving.listen import read_listen_address
from extauthz.settings.reading import DEFAULT_FILE, read_settings
from extauthz.settings.tree import Settings

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
    parser.add_argument(
        "--usage", action="store_true", help="Envoy reports each finished request to the service"
    )
    parser.add_argument(
        "--listen",
        default=_DEFAULTS.listen,
        metavar="IP:PORT",
        help=f"where Envoy listens (default: {_DEFAULTS.listen})",
    )
    parser.add_argument(
        "--extauthz",
        metavar="HOST:PORT",
        help=f"where the service listens (default: listen.grpc in {DEFAULT_FILE}, if it is there)",
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="settings that --extauthz is taken from"
    )
    parser.add_argument(
        "--ca", type=Path, metavar="FILE", help="speak TLS with the service, and trust this CA"
    )
    parser.add_argument(
        "--server-name", metavar="NAME", help="the name in the service's certificate; with --ca"
    )
    parser.add_argument(
        "--timeout-ms",
        type=_number(1, 600_000),
        default=_DEFAULTS.timeout_ms,
        metavar="MS",
        help=f"how long Envoy waits for a decision (default: {_DEFAULTS.timeout_ms})",
    )
    parser.add_argument(
        "--cert", type=Path, metavar="FILE", help="Envoy's own certificate, if it is asked for"
    )
    parser.add_argument("--key", type=Path, metavar="FILE", help="the private key of --cert")
    parser.add_argument(
        "--max-body-bytes",
        type=_number(0, 0x7FFFFFFF),
        default=0,
        metavar="BYTES",
        help="also send each body, up to this size (default: none)",
    )
    parser.add_argument(
        "--admin-port",
        type=_number(0, 65535),
        default=_DEFAULTS.admin_port,
        metavar="PORT",
        help=f"Envoy's admin port on 127.0.0.1 (default: {_DEFAULTS.admin_port})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints YAML. Exit code 2 when Envoy could not take what was asked for."""
    if (arguments.ca is None) != (arguments.server_name is None):
        print("extauthz: --ca and --server-name go together", file=sys.stderr)
        return 2
    if (arguments.cert is None) != (arguments.key is None):
        print("extauthz: --cert and --key go together", file=sys.stderr)
        return 2
    settings = _find_settings(arguments.config)
    wanted = None if settings is None or arguments.extauthz else settings.server.tls
    if wanted is not None and arguments.ca is None:
        print(
            "extauthz: the service takes TLS only (server.tls): name who signed its certificate, "
            "with --ca FILE and --server-name NAME",
            file=sys.stderr,
        )
        return 2
    if wanted is not None and wanted.client_ca is not None and arguments.cert is None:
        print(
            "extauthz: the service asks for a certificate (server.tls.client_ca): name Envoy's, "
            "with --cert FILE and --key FILE",
            file=sys.stderr,
        )
        return 2
    tls = None
    if arguments.ca is not None:
        tls = ClientTls(
            ca_file=str(arguments.ca),
            server_name=arguments.server_name,
            certificate_file=None if arguments.cert is None else str(arguments.cert),
            key_file=None if arguments.key is None else str(arguments.key),
        )
    credentials = None if settings is None else settings.credentials
    parameters = EnvoyParameters(
        upstreams=(Upstream(address=arguments.upstream, speaks_http2=arguments.http2),),
        extauthz=arguments.extauthz or _find_listener(settings),
        extauthz_tls=tls,
        listen=arguments.listen,
        timeout_ms=arguments.timeout_ms,
        max_body_bytes=arguments.max_body_bytes,
        admin_port=arguments.admin_port,
        trusted_hops=0 if credentials is None else credentials.trusted_hops,
        use_remote_address=credentials is None or credentials.use_remote_address is not False,
        access_logs=arguments.usage,
        own_headers=_DEFAULTS.own_headers if settings is None else settings.responses.own_headers,
    )
    render = render_filter if arguments.filter else render_bootstrap
    try:
        print(render(parameters), end="")
    except ConfigError as error:
        for problem in error.problems:
            print(f"extauthz: {problem}", file=sys.stderr)
        return 2
    return 0


def _number(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least} to {most}")
        return value

    return number


def _find_settings(config: Path | None) -> Settings | None:
    if config is None and not Path(DEFAULT_FILE).exists():
        return None
    return read_settings(config or Path(DEFAULT_FILE))


def _find_listener(settings: Settings | None) -> str:
    """Where Envoy reaches the service. What listens on every address is reached on this one."""
    if settings is None:
        return _DEFAULTS.extauthz
    text = settings.listen.grpc
    address = read_listen_address(text)
    loopback = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address.host)  # noqa: S104  (compared)
    return f"{loopback}:{address.port}" if loopback else text
