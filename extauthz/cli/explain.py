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
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, assert_never
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from extauthz.answers.denial import HttpAnswer, write_denial
from extauthz.answers.upstream import UpstreamChanges, write_upstream_changes
from extauthz.app.answers import read_answer_style
from extauthz.app.core import Core, open_core
from extauthz.cli.advice import list_advice
from extauthz.cli.findings import Finding, say_finding
from extauthz.envoy.authorization import UNSENDABLE
from extauthz.envoy.check_response import AnswerError, write_allow
from extauthz.model.decision import Allow, Decision, Denial, Deny, Reason
from extauthz.model.deny_rules import DenyRule
from extauthz.model.request import ApiRequest, Headers, Peer
from extauthz.model.routing.authority import find_host
from extauthz.plain_text import write_plain
from extauthz.policy.progress import Step
from extauthz.settings.reading import DEFAULT_FILE, read_settings, say_where_files_are_named
from extauthz.settings.tree import Settings

_MARKS: Final = {True: Text("pass", style="green"), False: Text("deny", style="bold red")}
_NOT_REACHED: Final = Text("-", style="dim")
_HIDDEN: Final = "…"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("-X", "--method", default="GET", help="default: GET")
    parser.add_argument("--url", required=True, help="http://host/path?query, or only /path")
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
        request = _read_request(arguments)
    except ValueError as error:
        print(f"extauthz: {write_plain(str(error))}", file=sys.stderr)
        return 2
    settings = read_settings(arguments.config)
    if "x-forwarded-for" not in request.headers:
        settings = settings.with_trusted_hops(0)
    with say_where_files_are_named(arguments.config, settings):
        explanation = asyncio.run(_explain(request, settings))
    if arguments.json:
        # ASCII alone: JSON takes control characters above 0x7f as they are.
        print(json.dumps(_write_json(explanation), indent=2))
    else:
        _print(explanation, request)
    return 0


@dataclass(frozen=True, slots=True)
class _Explanation:
    """All that is shown. `log`: what the service would have logged meanwhile."""

    decision: Decision
    findings: tuple[Finding, ...]
    log: tuple[str, ...]
    advice: tuple[str, ...] = ()
    answer: HttpAnswer | None = None
    changes: UpstreamChanges | None = None


def _read_request(arguments: argparse.Namespace) -> ApiRequest:
    try:
        url = urlsplit(arguments.url)
    except ValueError as exc:
        raise ValueError(f"--url is no URL: {exc}") from None
    path = url.path or ("/" if url.netloc else "")
    if not path.startswith("/"):
        raise ValueError("--url needs a path: write http://host/path or /path")
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
        method=arguments.method.upper(),
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


async def _explain(request: ApiRequest, settings: Settings) -> _Explanation:
    findings: list[Finding] = []
    with _collected_log() as log:
        async with open_core(settings) as core:

            def note(step: Step, found: object) -> None:
                passed = not isinstance(found, Denial | DenyRule)
                # Deny rules are asked twice, before and after it is known who calls.
                if not (passed and any(finding.step is step for finding in findings)):
                    text = say_finding(step, found, core.refresher.catalog)
                    findings.append(Finding(step, passed, text))

            decision = await core.pipeline.decide(request, charge=False, note=note)
            if isinstance(decision, Deny) and decision.reason is Reason.UNAVAILABLE:
                reached = {Step.DENY_RULES, *(finding.step for finding in findings)}
                step = next((step for step in Step if step not in reached), Step.RATE_LIMITS)
                findings.append(Finding(step, passed=False, text="could not be decided"))
            return _answer(
                _Explanation(decision, tuple(findings), tuple(log)), request, settings, core
            )


@contextmanager
def _collected_log() -> Iterator[list[str]]:
    """Warnings and errors of the service, which say why something could not be had."""
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("extauthz")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)


def _answer(
    explanation: _Explanation, request: ApiRequest, settings: Settings, core: Core
) -> _Explanation:
    style = read_answer_style(settings.responses, core.clock)
    advice: tuple[str, ...]
    match explanation.decision:
        case Allow() as allow:
            changes = write_upstream_changes(allow, request, style.upstream)
            try:
                write_allow(
                    set_headers=changes.set_headers,
                    remove_headers=changes.remove_headers,
                    response_headers=changes.response_headers,
                )
            except AnswerError as error:
                deny = Deny(id=allow.id, denial=UNSENDABLE, route=allow.route)
                advice = (f"The caller's identity cannot be sent on: {error}.",)
            else:
                hidden = {"cookie"}
                if style.upstream.backend_jwt is not None:
                    hidden.add(style.upstream.backend_jwt.header)
                return replace(explanation, changes=_hide(changes, hidden))
        case Deny() as deny:
            advice = tuple(list_advice(deny, request, core.refresher.catalog, core.places))
            if deny.reason is Reason.UNAVAILABLE and not style.error_response:
                return replace(explanation, advice=advice)  # Envoy answers the client
        case _:
            assert_never(explanation.decision)
    answer = write_denial(deny, request, style.denial, core.clock.now_us())
    return replace(explanation, decision=deny, answer=answer, advice=advice)


def _hide(changes: UpstreamChanges, names: set[str]) -> UpstreamChanges:
    """The same changes without what is secret in them."""
    fields = []
    for name, value in changes.set_headers:
        if name in names:
            value = _HIDDEN
        elif name == ":path":
            path, mark, query = value.partition("?")
            value = path + mark + _hide_values(query)
        fields.append((name, value))
    return replace(changes, set_headers=tuple(fields))


def _hide_values(query: str) -> str:
    pairs = (part.partition("=") for part in query.split("&"))
    return "&".join(f"{name}={_HIDDEN}" if mark else name for name, mark, _ in pairs)


def _print(explanation: _Explanation, request: ApiRequest) -> None:
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)

    def say(line: str, style: str = "") -> None:
        console.print(Text(write_plain(line), style=style))

    query = f"?{_hide_values(request.query)}" if request.query else ""
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


def _table(explanation: _Explanation) -> Table:
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


def _write_json(explanation: _Explanation) -> dict[str, object]:
    decision, answer, changes = explanation.decision, explanation.answer, explanation.changes
    return {
        "decision": "allow" if isinstance(decision, Allow) else "deny",
        "reason": None if isinstance(decision, Allow) else decision.reason.value,
        "steps": [
            {"step": finding.step.value, "passed": finding.passed, "found": finding.text}
            for finding in explanation.findings
        ],
        "log": explanation.log,
        "advice": explanation.advice,
        "client": None
        if answer is None
        else {"status": answer.status, "headers": answer.headers, "body": answer.body},
        "upstream": None
        if changes is None
        else {
            "set_headers": changes.set_headers,
            "remove_headers": changes.remove_headers,
            "removed_query": changes.removed_query,
            "response_headers": changes.response_headers,
        },
    }
