"""``extauthz doctor``: says why a running Envoy does not ask the service, or gets no answer.

It reads Envoy's admin interface, and sends no request through Envoy. Of the configuration, it
prints only names, addresses and numbers.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from extauthz.cli.watching.admin_tls import make_admin_tls
from extauthz.envoy.diagnosis.admin import EXTAUTHZ, AdminClient, ask_envoy
from extauthz.envoy.diagnosis.diagnose import diagnose, list_addresses
from extauthz.envoy.diagnosis.findings import Finding, Weight, sort_findings
from extauthz.envoy.diagnosis.service import ServiceState, read_service
from extauthz.envoy.diagnosis.state import EnvoyState
from extauthz.plain_text import write_plain

_ENVOY_ADMIN: Final = "http://127.0.0.1:9901"
_MAX_PROBED: Final = 8
"""The most hosts that are connected to; each step of a connection takes at most two seconds."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument(
        "--envoy-admin",
        default=_ENVOY_ADMIN,
        metavar="URL",
        help=f"Envoy's admin interface: a URL, or unix:/path (default: {_ENVOY_ADMIN})",
    )
    parser.add_argument(
        "--listener", default="", metavar="NAME", help="look at this listener only (default: all)"
    )
    parser.add_argument(
        "--extauthz-admin",
        metavar="URL",
        help="the service's own admin listener (listen.admin), to ask it, too: a URL, or "
        "unix:/path",
    )
    parser.add_argument(
        "--extauthz-ca",
        type=Path,
        metavar="FILE",
        help="a PEM file: who may have signed that listener's certificate, with https (default: "
        "the system's authorities)",
    )
    parser.add_argument(
        "--no-probe",
        action="store_true",
        help="do not connect to the hosts that Envoy asks (default: see what they speak, and ask "
        "for their gRPC health)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Runs the command.

    Returns:
        The exit code: 1 when there is an error or a warning, 3 when Envoy could not be asked.
    """
    client = AdminClient(arguments.envoy_admin, option="--envoy-admin")
    state = ask_envoy(client)
    names = sorted(
        {one.listener.partition(" (")[0] for one in state.managers}
        | {one.name for one in state.rejected if one.kind == "listener"}
    )
    if arguments.listener and arguments.listener not in names:
        print(
            write_plain(
                f"extauthz: --listener {arguments.listener}: there is no such listener with HTTP; "
                f"there are: {', '.join(names) or 'none'}"
            ),
            file=sys.stderr,
        )
        return 2
    ports = {}
    if not arguments.no_probe:
        # grpc takes long to import, and the command's help does not need it.
        from extauthz.cli.probing import probe

        addresses = list_addresses(state, arguments.listener)[:_MAX_PROBED]
        with ThreadPoolExecutor(max_workers=_MAX_PROBED) as threads:
            ports = dict(zip(addresses, threads.map(probe, addresses), strict=True))
    service = None
    if arguments.extauthz_admin:
        url = arguments.extauthz_admin
        own = AdminClient(
            url,
            option="--extauthz-admin",
            interface=replace(EXTAUTHZ, ca_option="--extauthz-ca"),
            tls=make_admin_tls(url, ca=arguments.extauthz_ca),
        )
        service = _ask_service(own)
    diagnosis = diagnose(state, arguments.listener, ports, service)
    findings = sort_findings(diagnosis.findings)
    looked_at = (_say_envoy(state, client.url), *diagnosis.looked_at)
    if arguments.json:
        print(json.dumps(_write(looked_at, findings), indent=2))
    else:
        _print(looked_at, findings)
    return int(any(one.weight is not Weight.NOTE for one in findings))


def _ask_service(client: AdminClient) -> ServiceState:
    """Reads the service's own state.

    Raises:
        AdminError: it does not answer, or is not extauthz.
    """
    readyz = client.get_json("/readyz", accepted=(200, 503))
    status, metrics = client.get("/metrics")
    text = metrics.decode(errors="replace")
    if status != 200 or "extauthz_" not in text:
        raise client.fail("/metrics is not that of extauthz: this is not its admin listener")
    return read_service(readyz, text)


def _say_envoy(state: EnvoyState, url: str) -> str:
    version = ".".join(map(str, state.version)) or "of an unknown version"
    return f"Envoy {version} at {url}: {state.state}, up for {state.uptime or 'an unknown time'}"


def _write(looked_at: Sequence[str], findings: Sequence[Finding]) -> dict[str, Any]:
    return {
        "looked_at": list(looked_at),
        "findings": [{**asdict(one), "weight": one.weight.value} for one in findings],
    }


def _print(looked_at: Sequence[str], findings: Sequence[Finding]) -> None:
    print("Looked at:")
    for words in looked_at:
        print(write_plain(f"  {words}"))
    for one in findings:
        print(f"\n{one.weight.value}: {write_plain(one.code)}")
        for label, words in (("seen", one.seen), ("why", one.why), ("do", one.todo)):
            print(write_plain(f"  {label + ':':<6}{words}"))
    print(f"\n{_summary(findings)}")


def _summary(findings: Sequence[Finding]) -> str:
    if not findings:
        return "Nothing was found that keeps requests from being decided."
    counts = [
        f"{count} {weight.value}{'' if count == 1 else 's'}"
        for weight in Weight
        if (count := sum(one.weight is weight for one in findings))
    ]
    return ", ".join(counts)
