"""``extauthz explain``: decides one request and shows each step. Charges nothing.

Neither credentials nor the values of query parameters are shown, so that the output can go into
a ticket. What comes from the request is shown with its control characters written out: it must
not speak to the terminal.
"""

from __future__ import annotations

import argparse
import asyncio
import ipaddress
import json
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from extauthz.app.answers import make_explainer
from extauthz.app.core import open_core
from extauthz.inspection.example_request import (
    UnknownName,
    find_api,
    find_application,
    name_api,
)
from extauthz.inspection.explanation import (
    Explanation,
    hide_values,
    write_explanation,
)
from extauthz.model.catalog import Catalog
from extauthz.model.decision import Allow, Deny
from extauthz.model.identity import KeyType
from extauthz.model.request import ApiRequest, Headers, Peer
from extauthz.model.routing.authority import find_host
from extauthz.plain_text import write_plain
from extauthz.policy.authentication.assumed import AssumedCaller
from extauthz.policy.progress import Step
from extauthz.settings.reading import DEFAULT_FILE, read_settings, say_where_files_are_named
from extauthz.settings.tree import Settings

_MARKS: Final = {True: Text("pass", style="green"), False: Text("deny", style="bold red")}
_NOT_REACHED: Final = Text("-", style="dim")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("-X", "--method", help="default: GET, or one that the resource takes")
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--url", help="http://host/path?query, or only /path")
    asked.add_argument("--api", metavar="NAME", help="an API, instead of a URL")
    parser.add_argument("--version", help="its version; left out: the default one, or the only one")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--resource", metavar="TEMPLATE", help="its resource, like '/pets/{id}'")
    place.add_argument("--path", help="instead: a path, with the API's base path or without")
    parser.add_argument(
        "--application",
        metavar="NAME",
        help="assume a good credential of this application, so that none has to be sent",
    )
    parser.add_argument(
        "--key-type",
        choices=[each.value for each in KeyType],
        help="of the credential that is assumed; default: PRODUCTION",
    )
    parser.add_argument(
        "--scopes", help="of the credential that is assumed; left out: scopes are not checked"
    )
    parser.add_argument(
        "-H",
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a request header; may be repeated",
    )
    parser.add_argument(
        "--client",
        default="127.0.0.1",
        help="the client's address; with X-Forwarded-For, the address that Envoy sees",
    )
    parser.add_argument("--principal", default="", help="name in the client's certificate")
    parser.add_argument(
        "--context",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a context extension of the route",
    )
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(DEFAULT_FILE),
        metavar="FILE",
        help=f"settings file (default: {DEFAULT_FILE})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 2 when the request is not well given; else 0, whatever was decided."""
    try:
        _check_arguments(arguments)
        request = _read_request(arguments)
    except ValueError as error:
        return _complain(error)
    settings = read_settings(arguments.config)
    try:
        with say_where_files_are_named(arguments.config, settings):
            explanation, request = asyncio.run(_explain(arguments, request, settings))
    except UnknownName as error:
        return _complain(error)
    if arguments.json:
        # ASCII alone: JSON takes control characters above 0x7f as they are.
        print(json.dumps(write_explanation(explanation), indent=2))
    else:
        _print(explanation, request)
    return 0


def _complain(error: Exception) -> int:
    print(f"extauthz: {write_plain(str(error))}", file=sys.stderr)
    return 2


def _check_arguments(arguments: argparse.Namespace) -> None:
    """Refuses arguments that contradict each other.

    Raises:
        ValueError: the text says what to write.
    """
    for word in ("version", "resource", "path"):
        if arguments.api is None and getattr(arguments, word) is not None:
            raise ValueError(f"--{word} goes with --api")
    for word in ("key-type", "scopes"):
        if arguments.application is None and getattr(arguments, word.replace("-", "_")) is not None:
            raise ValueError(f"--{word} goes with --application")


def _read_request(arguments: argparse.Namespace) -> ApiRequest:
    """The request; without a path when that is to be made from an API's resource."""
    option, text = ("--path", arguments.path) if arguments.url is None else ("--url", arguments.url)
    try:
        url = urlsplit(text or "")
    except ValueError as exc:
        raise ValueError(f"{option} is no URL: {exc}") from None
    path = url.path or ("/" if url.netloc else "")
    if text is not None and not path.startswith("/"):
        raise ValueError(f"{option} needs a path: write http://host/path or /path")
    fields = [
        _read_pair(text, ":", f"--header number {number}", "'name: value'")
        for number, text in enumerate(arguments.header, 1)
    ]
    context = dict(
        _read_pair(text, "=", f"--context number {number}", "key=value")
        for number, text in enumerate(arguments.context, 1)
    )
    try:
        ipaddress.ip_address(arguments.client)
    except ValueError:
        raise ValueError("--client must be an IP address") from None
    # As a client's Host becomes the authority that Envoy sends; user and password stay at home.
    hosts = [value for name, value in fields if name.lower() == "host"]
    hosts = hosts or [url.netloc.rpartition("@")[2] or "localhost"]
    return ApiRequest(
        method=(arguments.method or "GET").upper(),
        host=find_host(hosts) if len(hosts) == 1 else None,
        path=path,
        query=url.query,
        scheme=url.scheme or "http",
        headers=Headers([field for field in fields if field[0].lower() != "host"], are_apart=True),
        source=Peer(address=arguments.client, principal=arguments.principal),
        context=context,
    )


def _read_pair(text: str, separator: str, what: str, form: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found or not name.strip():
        # Without the text itself: it may be a credential.
        raise ValueError(f"{what} is not of the form {form}")
    return name.strip(), value.strip()


async def _explain(
    arguments: argparse.Namespace, request: ApiRequest, settings: Settings
) -> tuple[Explanation, ApiRequest]:
    """The explanation, and the request that it is about.

    Raises:
        UnknownName: a name is not in the catalog.
    """
    async with open_core(settings, is_command=True) as core:
        catalog = core.refresher.catalog
        if arguments.api is not None:
            api = await find_api(catalog, arguments.api, arguments.version or "")
            request = name_api(
                request,
                catalog,
                api,
                resource=arguments.resource or "",
                method=(arguments.method or "").upper(),
            )
        assumed = await _read_assumed(arguments, catalog)
        return await make_explainer(core, settings).explain(request, assumed), request


async def _read_assumed(arguments: argparse.Namespace, catalog: Catalog) -> AssumedCaller | None:
    if arguments.application is None:
        return None
    scopes = arguments.scopes
    return AssumedCaller(
        application=await find_application(catalog, arguments.application),
        key_type=KeyType(arguments.key_type or KeyType.PRODUCTION.value),
        scopes=None if scopes is None else frozenset(scopes.replace(",", " ").split()),
    )


def _print(explanation: Explanation, request: ApiRequest) -> None:
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def say(line: str, style: str = "") -> None:
        console.print(Text(write_plain(line), style=style))

    query = f"?{hide_values(request.query)}" if request.query else ""
    say(f"{request.method} {request.host or ''}{request.path}{query}", "bold")
    say("")
    console.print(_table(explanation))
    for line in explanation.log:
        say(f"log: {line}", "yellow")
    say("")
    answer, changes = explanation.answer, explanation.changes
    if answer is not None:
        say(f"The client gets {answer.status}:")
        for name, value in answer.headers:
            say(f"  {name}: {value}")
        for line in _body_lines(answer.body):
            say(f"  {line}")
    if changes is not None:
        say("The upstream gets the request:")
        for name, value in changes.set_headers:
            say(f"  with {name}: {value}")
        gone = (*changes.remove_headers, *(f"?{name}=" for name in changes.removed_query))
        if gone:
            say(f"  without {', '.join(gone)}")
        if changes.response_headers:
            say("The client gets the response:")
            for name, value in changes.response_headers:
                say(f"  with {name}: {value}")
    say("")
    for line in explanation.advice:
        say(line)
    if explanation.advice:
        say("")
    match explanation.decision:
        case Allow():
            say("ALLOW", "bold green")
        case Deny() as deny:
            say(f"DENY {deny.reason.value}", "bold red")


def _body_lines(body: str) -> list[str]:
    with suppress(ValueError):  # XML, or a text for gRPC
        body = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    return body.splitlines()


def _table(explanation: Explanation) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in explanation.findings:
        text = Text(write_plain(finding.text))
        table.add_row(Text(finding.step.value), _MARKS[finding.passed], text)
    reached = {finding.step for finding in explanation.findings}
    for step in Step:
        if step not in reached and step is not Step.DENY_RULES:
            table.add_row(Text(step.value, style="dim"), _NOT_REACHED, Text(""))
    return table
