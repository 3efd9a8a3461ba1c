"""``extauthz mixer-manifests``: prints the objects that an Istio Mixer (1.1 to 1.7) needs."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from extauthz.answers.denial import Profile
from extauthz.app.catalog import load_catalog
from extauthz.app.core import read_authentication_rules
from extauthz.errors import ConfigError, Problem
from extauthz.model.apis import Api
from extauthz.model.catalog import Catalog
from extauthz.serving.listen import read_listen_address
from extauthz.settings.reading import DEFAULT_FILE, read_settings
from extauthz.settings.tree import Settings
from mixer_compat.manifests.instances import Compat
from mixer_compat.manifests.objects import (
    DEFAULT_PORT,
    ISTIO_VERSIONS,
    ManifestOptions,
    MeshService,
    MutualAuthentication,
    TokenAuthentication,
    make_manifests,
)
from mixer_compat.manifests.parts import find_request_parts
from mixer_compat.manifests.text import render_manifests

_HOST = "extauthz.extauthz.svc.cluster.local"
"""A Service `extauthz` in a namespace `extauthz`."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "--istio",
        choices=ISTIO_VERSIONS,
        default="1.5",
        metavar="VERSION",
        help=f"{ISTIO_VERSIONS[0]} to {ISTIO_VERSIONS[-1]} (default: 1.5)",
    )
    parser.add_argument(
        "--namespace",
        default="istio-system",
        help="Mixer's own namespace, where rules apply to every service (default: istio-system)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help=f"where Mixer reaches the adapter (default: {_HOST} and the port of listen.mixer)",
    )
    parser.add_argument(
        "--service",
        action="append",
        default=[],
        metavar="NAME.NAMESPACE[=API[:VERSION]]",
        help="check only this service, which serves that API whatever the path; may be repeated "
        "(default: every service of the mesh)",
    )
    parser.add_argument(
        "--quota",
        action="store_true",
        help="ask for limits by quota instances, so that proxies can reuse checks",
    )
    parser.add_argument(
        "--compat",
        choices=[Compat.WSO2_ADAPTER.value],
        help="the names, codes and messages of WSO2's Mixer adapter",
    )
    parser.add_argument("--shadow", action="store_true", help="decide and log, but deny nothing")
    parser.add_argument(
        "--timeout-ms",
        type=_milliseconds,
        default=1000,
        metavar="MS",
        help="how long Mixer waits for the adapter (default: 1000)",
    )
    parser.add_argument(
        "--ca", metavar="FILE", help="speak TLS with the adapter, and trust this CA (Mixer's file)"
    )
    parser.add_argument(
        "--server-name", metavar="NAME", help="the name in the adapter's certificate; with --ca"
    )
    parser.add_argument(
        "--token", metavar="FILE", help="the bearer token that Mixer sends over TLS (Mixer's file)"
    )
    parser.add_argument(
        "--cert", metavar="FILE", help="Mixer's own certificate, in place of a token"
    )
    parser.add_argument("--key", metavar="FILE", help="the private key of --cert")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help=f"settings (default: {DEFAULT_FILE})"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints YAML. Exit code 2 when Mixer could not take what was asked for."""
    settings = read_settings(arguments.config or Path(DEFAULT_FILE))
    wrong = _find_wrong_usage(arguments, settings)
    if wrong is not None:
        print(f"extauthz: {wrong}", file=sys.stderr)
        return 2
    rules = read_authentication_rules(settings)
    catalog = asyncio.run(load_catalog(settings, has_pepper=rules.pepper is not None))
    parts = find_request_parts(
        catalog,
        rules.places,
        trusted_hops=settings.credentials.trusted_hops,
        trust_xfcc=settings.credentials.trust_xfcc,
        speaks_wso2=settings.responses.profile is Profile.WSO2,
        compares_doors=arguments.shadow or settings.server.shadow is not None,
    )
    try:
        options = ManifestOptions(
            address=_find_address(arguments, settings),
            namespace=arguments.namespace,
            services=tuple(_read_service(text, catalog) for text in arguments.service),
            with_quota=arguments.quota,
            compat=Compat(arguments.compat) if arguments.compat else Compat.OWN,
            shadow=arguments.shadow,
            authentication=_read_authentication(arguments, settings),
            timeout_ms=arguments.timeout_ms,
        )
        manifests = make_manifests(options, parts)
    except ConfigError as error:
        for problem in error.problems:
            print(f"extauthz: {problem}", file=sys.stderr)
        return 2
    if settings.listen.mixer is None and arguments.address is None:
        print("extauthz: nobody listens for Mixer yet: set listen.mixer", file=sys.stderr)
    text = render_manifests(
        manifests,
        istio=arguments.istio,
        namespace=arguments.namespace,
        denied_with="nothing is denied, see the metrics" if arguments.shadow else "401",
    )
    print(text, end="")
    return 0


def _find_wrong_usage(arguments: argparse.Namespace, settings: Settings) -> str | None:
    if (arguments.ca is None) != (arguments.server_name is None):
        return "--ca and --server-name go together"
    if (arguments.cert is None) != (arguments.key is None):
        return "--cert and --key go together"
    proofs = [proof for proof in (arguments.token, arguments.cert) if proof is not None]
    if arguments.ca is not None and len(proofs) != 1:
        return "with --ca, Mixer wants one proof of itself: --token FILE, or --cert and --key"
    if arguments.ca is None and proofs:
        return "--token and --cert go with --ca and --server-name"
    mixer = settings.mixer
    if mixer.tls is not None and arguments.ca is None:
        return (
            "the adapter takes TLS only (mixer.tls): name who signed its certificate, "
            "with --ca FILE and --server-name NAME"
        )
    if mixer.tls is not None and mixer.tls.client_ca is not None and arguments.cert is None:
        return (
            "the adapter asks for a certificate (mixer.tls.client_ca): name Mixer's, "
            "with --cert FILE and --key FILE"
        )
    if mixer.callers.token_file is not None and arguments.token is None:
        return (
            "the adapter asks for a token (mixer.callers.token_file): name Mixer's copy, "
            "with --token FILE"
        )
    return None


def _find_address(arguments: argparse.Namespace, settings: Settings) -> str:
    if arguments.address is not None:
        address = read_listen_address(arguments.address)
        if address.path or not address.port:
            message = f"--address {arguments.address}: Mixer needs HOST:PORT"
            raise ConfigError([Problem(message=message)])
        return str(arguments.address)
    text = settings.listen.mixer
    if text is None:
        return f"{_HOST}:{DEFAULT_PORT}"
    listens = read_listen_address(text)
    if listens.path:
        message = f"Mixer cannot reach {text}; say where it can, with --address HOST:PORT"
        raise ConfigError([Problem(message=message)])
    if listens.host in {"0.0.0.0", "::"}:  # noqa: S104  (compared)
        return f"{_HOST}:{listens.port}"
    return str(listens)


def _read_service(text: str, catalog: Catalog) -> MeshService:
    service, _, wanted = text.partition("=")
    name, _, namespace = service.partition(".")
    api = _find_api(wanted, catalog) if wanted else None
    return MeshService(name=name, namespace=namespace, api=api)


def _find_api(wanted: str, catalog: Catalog) -> Api:
    """By name and version, or by a name that has one version."""
    found = [
        api for api in catalog.apis.values() if wanted in (api.name, f"{api.name}:{api.version}")
    ]
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"{api.name}:{api.version}" for api in catalog.apis.values())
    said = "has several versions" if found else "is not in the catalog"
    raise ConfigError([Problem(message=f"the API {wanted} {said}; there are {known}")])


def _read_authentication(
    arguments: argparse.Namespace, settings: Settings
) -> TokenAuthentication | MutualAuthentication | None:
    if arguments.ca is None:
        return None
    if arguments.token is not None:
        return TokenAuthentication(
            ca_file=arguments.ca,
            server_name=arguments.server_name,
            token_file=arguments.token,
            header=settings.mixer.callers.token_header,
        )
    return MutualAuthentication(
        ca_file=arguments.ca,
        server_name=arguments.server_name,
        certificate_file=arguments.cert,
        key_file=arguments.key,
    )


def _milliseconds(text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = 0
    if not 1 <= value <= 600_000:
        raise argparse.ArgumentTypeError("must be a number from 1 to 600000")
    return value
