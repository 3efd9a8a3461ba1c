"""The scripted calls of the demonstration, with the expected answer to each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from extauthz.demo.stage import BASE_PATH, Stage

SPOOFED: Final = "root"
_CREDENTIALS: Final = frozenset({"authorization", "x-api-key"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request and its expected answer; `expected_reason` is None when it is allowed."""

    title: str
    path: str
    expected_status: int
    expected_reason: str | None = None
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    repeat: int = 1


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a call.

    Attributes:
        reason: the service's reason code; empty when the request was allowed.
        remark: further facts for the reader.
    """

    call: Call
    status: int
    reason: str
    remark: str
    as_expected: bool


def script_calls(stage: Stage) -> tuple[Call, ...]:
    """The calls, in the order in which they are made."""
    ip, status = f"{BASE_PATH}/ip", f"{BASE_PATH}/status/200"
    mobile = {"x-api-key": stage.keys["mobile"]}
    with_scope = {"authorization": f"Bearer {stage.sign_token('scope_ip', 'scope_headers')}"}
    without_scope = {"authorization": f"Bearer {stage.sign_token('scope_headers')}"}
    unsubscribed = {"x-api-key": stage.keys["partner"]}
    return (
        Call(
            title="no credential",
            path=ip,
            expected_status=401,
            expected_reason="missing_credentials",
        ),
        Call(
            title="bad API key",
            path=ip,
            headers={"x-api-key": "not-a-key"},
            expected_status=401,
            expected_reason="invalid_credentials",
        ),
        Call(title="good API key", path=ip, headers=mobile, expected_status=200),
        Call(
            title="JWT without the scope",
            path=ip,
            headers=without_scope,
            expected_status=403,
            expected_reason="insufficient_scope",
        ),
        Call(title="JWT with the scope", path=ip, headers=with_scope, expected_status=200),
        Call(
            title="unknown resource",
            path=f"{BASE_PATH}/nothing",
            headers=mobile,
            expected_status=404,
            expected_reason="resource_not_found",
        ),
        Call(
            title="wrong method",
            path=ip,
            method="DELETE",
            headers=mobile,
            expected_status=405,
            expected_reason="method_not_allowed",
        ),
        Call(
            title="not subscribed",
            path=ip,
            headers=unsubscribed,
            expected_status=403,
            expected_reason="subscription_not_found",
        ),
        Call(
            title="blocked subscription",
            path=ip,
            headers={"x-api-key": stage.keys["rogue"]},
            expected_status=403,
            expected_reason="subscription_blocked",
        ),
        Call(
            title="spoofed identity header",
            path=f"{BASE_PATH}/headers",
            headers={
                **with_scope,
                "x-extauthz-application": SPOOFED,
                "x-extauthz-user": SPOOFED,
            },
            expected_status=200,
        ),
        Call(
            title="11th of 10 a minute",
            path=status,
            headers=mobile,
            repeat=11,
            expected_status=429,
            expected_reason="rate_limited",
        ),
    )


def make_call(client: httpx2.Client, call: Call) -> Outcome:
    """Makes a call as many times as it says, and returns the outcome of the last one."""
    answer = client.request(call.method, call.path, headers=dict(call.headers))
    for _ in range(call.repeat - 1):
        answer = client.request(call.method, call.path, headers=dict(call.headers))
    denied = answer.headers.get("content-type") == "application/problem+json"
    is_json = "json" in answer.headers.get("content-type", "")
    body: dict[str, Any] = answer.json() if is_json and answer.content else {}
    reason = str(body["reason"]) if denied else ""
    as_expected = answer.status_code == call.expected_status and reason == (
        call.expected_reason or ""
    )
    if denied:
        remark = _remark_denied(answer, body)
    else:
        seen = body.get("headers", {})
        remark = _remark_allowed(seen)
        as_expected = as_expected and SPOOFED not in seen.values()
        as_expected = as_expected and _CREDENTIALS.isdisjoint(seen)
    return Outcome(call, answer.status_code, reason, remark, as_expected)


def _remark_denied(answer: httpx2.Response, body: Mapping[str, Any]) -> str:
    for name in ("retry-after", "allow"):
        if name in answer.headers:
            return f"{name.title()}: {answer.headers[name]}"
    return f"needs {' '.join(body['scopes'])}" if body.get("scopes") else ""


def _remark_allowed(seen: Mapping[str, str]) -> str:
    """Describes what the upstream saw of the caller, and that it saw no credential."""
    caller = f"{seen.get('x-extauthz-application')}/{seen.get('x-extauthz-user')}"
    leaked = sorted(_CREDENTIALS & seen.keys())
    return f"as {caller}" + (f" and {', '.join(leaked)}" if leaked else "")
