"""``extauthz explain``: decides one request and shows each step. Charges nothing."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import assert_never
from urllib.parse import urlsplit

from rich.console import Console
from rich.table import Table
from rich.text import Text

from extauthz.answers.denial import HttpAnswer, write_denial
from extauthz.answers.upstream import UpstreamChanges, write_upstream_changes
from extauthz.app import Core, open_core, read_answer_style
from extauthz.config import DEFAULT_FILE, Settings, read_settings
from extauthz.envoy.check_request import read_host
from extauthz.model.decision import Allow, Decision, Denial, Deny
from extauthz.model.deny_rules import DenyRule
from extauthz.model.identity import Identity, SecurityScheme
from extauthz.model.limits import LimitStatus
from extauthz.model.request import ApiRequest, Headers, Peer
from extauthz.policy.match import Match
from extauthz.policy.pipeline import Step
from extauthz.policy.subscription import Subscribed

_MARKS = {True: Text("pass", style="green"), False: Text("deny", style="bold red")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's arguments."""
    parser.add_argument("--method", default="GET", help="default: GET")
    parser.add_argument("--url", required=True, help="http://host/path?query, or only /path")
    parser.add_argument(
        "-H",
        "--header",
        action="append",
        default=[],
        metavar="'NAME: VALUE'",
        help="a request header; may be repeated",
    )
    parser.add_argument("--client", default="127.0.0.1", help="the client's address")
    parser.add_argument("--principal", default="", help="name in the client's certificate")
    parser.add_argument(
        "--context",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a context extension of the route",
    )
    parser.add_argument("--config", type=Path, default=Path(DEFAULT_FILE), metavar="FILE")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Exit code 2 when the request is not well given; else 0, whatever was decided."""
    try:
        request = _read_request(arguments)
    except ValueError as error:
        print(f"extauthz: {error}", file=sys.stderr)
        return 2
    settings = read_settings(arguments.config)
    explanation = asyncio.run(_explain(request, settings))
    if arguments.json:
        print(json.dumps(_write_json(explanation), indent=2, ensure_ascii=False))
    else:
        _print(explanation, request)
    return 0


@dataclass(frozen=True, slots=True)
class _Finding:
    """What one step found, in words."""

    step: Step
    passed: bool
    text: str


@dataclass(frozen=True, slots=True)
class _Explanation:
    decision: Decision
    findings: tuple[_Finding, ...]
    answer: HttpAnswer | None
    changes: UpstreamChanges | None


def _read_request(arguments: argparse.Namespace) -> ApiRequest:
    url = urlsplit(arguments.url)
    if not url.path.startswith("/"):
        raise ValueError("--url needs a path: write http://host/path or /path")
    fields = [_read_pair(text, ":", "--header 'name: value'") for text in arguments.header]
    context = dict(_read_pair(text, "=", "--context key=value") for text in arguments.context)
    return ApiRequest(
        method=arguments.method.upper(),
        host=read_host(url.netloc or "localhost"),
        path=url.path,
        query=url.query,
        scheme=url.scheme or "http",
        headers=Headers(fields),
        source=Peer(address=arguments.client, principal=arguments.principal),
        context=context,
    )


def _read_pair(text: str, separator: str, form: str) -> tuple[str, str]:
    name, found, value = text.partition(separator)
    if not found or not name.strip():
        raise ValueError(f"{name!r} is not of the form {form}")
    return name.strip(), value.strip()


async def _explain(request: ApiRequest, settings: Settings) -> _Explanation:
    findings: list[_Finding] = []
    async with open_core(settings) as core:

        def note(step: Step, found: object) -> None:
            passed = not isinstance(found, Denial | DenyRule)
            findings.append(_Finding(step, passed, _say(step, found)))

        decision = await core.pipeline.decide(request, charge=False, note=note)
        return _answer(decision, tuple(findings), request, settings, core)


def _answer(
    decision: Decision,
    findings: tuple[_Finding, ...],
    request: ApiRequest,
    settings: Settings,
    core: Core,
) -> _Explanation:
    style = read_answer_style(settings.responses)
    match decision:
        case Allow():
            changes = write_upstream_changes(decision, request, style.upstream)
            return _Explanation(decision, findings, None, changes)
        case Deny():
            answer = write_denial(decision, request, style.denial, core.clock.now_us())
            return _Explanation(decision, findings, answer, None)
        case _:
            assert_never(decision)


def _say(step: Step, found: object) -> str:
    match found:
        case Denial():
            return f"{found.reason.value}: {found.detail}"
        case DenyRule():
            return f"the deny rule {found.name!r} fits"
        case Match():
            api, resource = found.route.api, found.route.resource
            text = f"{api.name} {api.version}, resource {' '.join(resource.methods)} "
            text += resource.template
            if found.rewritten_path is not None:
                text += f"; the upstream gets {found.rewritten_path}"
            return text
        case Identity():
            return _say_identity(found)
        case Subscribed():
            if found.subscription is None and found.tier is None:
                return "none is needed"
            state = "" if found.subscription is None else f"{found.subscription.state.value}, "
            return f"{state}tier {found.tier.name if found.tier else 'without limits'}"
        case tuple():
            return "; ".join(map(_say_limit, found)) or "none apply"
        case None if step is Step.SCOPES:
            return "cover what the resource asks for"
        case None:
            return "no deny rule fits"
        case _:
            raise TypeError(f"no words for {type(found).__name__}")


def _say_identity(identity: Identity) -> str:
    if identity.scheme is SecurityScheme.NONE:
        return "no credential is needed"
    parts = [f"by {identity.scheme.value}"]
    if identity.application is not None:
        parts.append(f"application {identity.application.name}")
    elif identity.consumer_key:
        parts.append(f"consumer key {identity.consumer_key}, which no application has")
    if identity.user:
        parts.append(f"user {identity.user}")
    if identity.key_type is not None:
        parts.append(identity.key_type.value)
    if identity.scopes is not None:
        parts.append(f"scopes {' '.join(sorted(identity.scopes)) or 'none'}")
    return ", ".join(parts)


def _say_limit(status: LimitStatus) -> str:
    limit = status.limit
    window = limit.unit.value if limit.unit else f"{limit.window_us / 1_000_000:g} s"
    text = f"{status.level.value} ({status.name}): {status.reading.remaining} left of "
    text += f"{limit.requests} per {window}"
    return text if status.enforced else f"{text}, not enforced"


def _print(explanation: _Explanation, request: ApiRequest) -> None:
    console = Console(highlight=False, soft_wrap=True)
    decision = explanation.decision
    query = f"?{request.query}" if request.query else ""
    console.print(f"{request.method} {request.host}{request.path}{query}", markup=False)
    steps = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    reached = [finding.step for finding in explanation.findings]
    for finding in explanation.findings:
        steps.add_row(finding.step.value, _MARKS[finding.passed], Text(finding.text))
    for step in Step:
        if step not in reached and step is not Step.DENY_RULES:
            steps.add_row(Text(step.value, style="dim"), Text("-", style="dim"), "")
    console.print(steps)
    match decision:
        case Allow():
            console.print(Text("ALLOW", style="bold green"))
        case Deny():
            console.print(Text(f"DENY {decision.reason.value}", style="bold red"))
    if explanation.answer is not None:
        console.print(f"the client gets {explanation.answer.status}", markup=False)
        for name, value in explanation.answer.headers:
            console.print(f"  {name}: {value}", markup=False)
        console.print(f"  {explanation.answer.body}", markup=False)
    if explanation.changes is not None:
        changes = explanation.changes
        for name, value in changes.set_headers:
            console.print(f"  the upstream gets {name}: {value}", markup=False)
        gone = (*changes.remove_headers, *(f"?{name}=" for name in changes.remove_query))
        if gone:
            console.print(f"  the upstream never sees {', '.join(gone)}", markup=False)
        for name, value in changes.response_headers:
            console.print(f"  the client gets {name}: {value}", markup=False)


def _write_json(explanation: _Explanation) -> dict[str, object]:
    decision = explanation.decision
    return {
        "decision": "allow" if isinstance(decision, Allow) else "deny",
        "reason": None if isinstance(decision, Allow) else decision.reason.value,
        "steps": [
            {"step": finding.step.value, "passed": finding.passed, "found": finding.text}
            for finding in explanation.findings
        ],
        "client": None if explanation.answer is None else asdict(explanation.answer),
        "upstream": None if explanation.changes is None else asdict(explanation.changes),
    }
