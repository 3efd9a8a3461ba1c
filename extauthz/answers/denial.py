"""Writes the answer to a denied client: status, header fields and body, in one of two profiles.

`standard` follows the web's conventions: RFC 9110, RFC 6750 for bearer challenges, RFC 9457
for the body. `wso2` gives the codes, statuses and bodies that clients of WSO2 API Manager
parse. Both say the reason and never how it was found.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from email.utils import formatdate
from enum import Enum
from typing import Final
from xml.sax.saxutils import escape

from extauthz.answers.limit_headers import LimitHeaderStyle, retry_after_s, write_limit_headers
from extauthz.answers.reasons import MEANINGS, wso2_code
from extauthz.model.decision import Deny, Reason
from extauthz.model.identity import SecurityScheme
from extauthz.model.limits import US_PER_S
from extauthz.model.request import ApiRequest
from extauthz.model.values import request_value

Fields = tuple[tuple[str, str], ...]


class Profile(Enum):
    """How denials look. The value is the word in the settings."""

    STANDARD = "standard"
    WSO2 = "wso2"


@request_value(frozen=True, slots=True)
class HttpAnswer:
    """A whole answer to a client.

    Attributes:
        rpc_code: the code for a gRPC client (google.rpc.Code).
    """

    status: int
    rpc_code: int
    headers: Fields
    body: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DenialStyle:
    """The style of an installation's denials. `realm` is that of challenges (RFC 9110 11.5)."""

    profile: Profile = Profile.STANDARD
    realm: str = "extauthz"
    limit_headers: LimitHeaderStyle = LimitHeaderStyle.IETF


# RFC 6750 section 3.1.
_BEARER_ERRORS: Final = {
    Reason.INVALID_CREDENTIALS: "invalid_token",
    Reason.TOKEN_EXPIRED: "invalid_token",
    Reason.TOKEN_INACTIVE: "invalid_token",
    Reason.TOKEN_REVOKED: "invalid_token",
    Reason.WRONG_KEY_TYPE: "invalid_token",
    Reason.AUDIENCE_NOT_ALLOWED: "invalid_token",
    Reason.INSUFFICIENT_SCOPE: "insufficient_scope",
    Reason.AMBIGUOUS_CREDENTIALS: "invalid_request",
}
# RFC 6750 section 3: what a scope is made of.
_NO_SCOPE: Final = re.compile(r"[^\x21\x23-\x5b\x5d-\x7e]")
_NO_QUOTED_TEXT: Final = re.compile(r"[^\t\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]")
_LAST_DATE_S: Final = 253_402_300_799
"""The end of the year 9999, the last that a date can name."""
# `json.dumps` makes a new encoder for settings other than its defaults, which takes 3 µs.
_write_json: Final = json.JSONEncoder(ensure_ascii=False).encode
_BEARER: Final = frozenset({SecurityScheme.JWT, SecurityScheme.OPAQUE})


def write_denial(deny: Deny, request: ApiRequest, style: DenialStyle, now_us: int) -> HttpAnswer:
    """Writes the answer to a denied client. `now_us` is for the dates in WSO2's answers."""
    meaning = MEANINGS[deny.reason]
    is_wso2 = style.profile is Profile.WSO2
    status = meaning.wso2_status if is_wso2 else meaning.http_status
    headers: list[tuple[str, str]] = []
    # RFC 9110 15.5.2: every 401 has a challenge. RFC 6750 3.1: a missing scope too.
    if status == 401 or deny.reason is Reason.INSUFFICIENT_SCOPE:
        headers.append(("www-authenticate", _challenge(deny, style)))
    if deny.reason is Reason.METHOD_NOT_ALLOWED:
        headers.append(("allow", ", ".join(deny.denial.allowed_methods)))
    if deny.reason is Reason.RATE_LIMITED:
        # WSO2's gateways send a date here; both forms are RFC 9110's.
        seconds = retry_after_s(deny.denial.retry_after_us)
        headers.append(("retry-after", _next_access(deny, now_us) if is_wso2 else str(seconds)))
    headers.extend(write_limit_headers(deny.limits, style.limit_headers))
    if request.is_grpc:
        # A proxy would turn 429 into UNAVAILABLE; the precise code may be set as it is.
        headers.append(("grpc-status", str(meaning.rpc_code)))
        return HttpAnswer(
            status, meaning.rpc_code, tuple(headers), f"{deny.reason.value}: {meaning.title}"
        )
    content_type, body = (
        _wso2_body(deny, request, now_us) if is_wso2 else _problem(deny, status, meaning.title)
    )
    headers.append(("content-type", content_type))
    headers.append(("cache-control", "no-store"))
    return HttpAnswer(status, meaning.rpc_code, tuple(headers), body)


def _challenge(deny: Deny, style: DenialStyle) -> str:
    security = deny.route.resource.security if deny.route is not None else ()
    if security and _BEARER.isdisjoint(security):
        # No scheme is registered for API keys or client certificates (IANA, HTTP schemes);
        # this is what others send.
        return f"ApiKey realm={_quote(style.realm)}"
    if style.profile is Profile.WSO2:
        challenge = 'OAuth2 realm="WSO2 API Manager"'
    else:
        challenge = f"Bearer realm={_quote(style.realm)}"
    error = _BEARER_ERRORS.get(deny.reason)
    if error is None:
        return challenge
    challenge += f', error="{error}", error_description="{MEANINGS[deny.reason].title}"'
    scopes = [scope for scope in deny.denial.scopes if scope and not _NO_SCOPE.search(scope)]
    if scopes:
        challenge += f', scope="{" ".join(scopes)}"'
    return challenge


def _quote(text: str) -> str:
    """A quoted-string (RFC 9110 section 5.6.4), without characters that it may not have."""
    text = _NO_QUOTED_TEXT.sub("", text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{text}"'


def _next_access(deny: Deny, now_us: int) -> str:
    """The date after which the client may try again, rounded up (RFC 9110 section 5.6.7)."""
    at_us = now_us + retry_after_s(deny.denial.retry_after_us) * US_PER_S
    return formatdate(min(-(-at_us // US_PER_S), _LAST_DATE_S), usegmt=True)


def _problem(deny: Deny, status: int, title: str) -> tuple[str, str]:
    problem: dict[str, object] = {
        "type": f"urn:extauthz:reason:{deny.reason.value}",
        "title": title,
        "status": status,
        "detail": deny.denial.detail,
        "reason": deny.reason.value,
        "decision_id": deny.id,
    }
    if not deny.denial.detail:
        del problem["detail"]
    if deny.denial.level is not None:
        problem["level"] = deny.denial.level.value
    if deny.denial.scopes:
        problem["scopes"] = deny.denial.scopes
    return "application/problem+json", _write_json(problem)


def _wso2_body(deny: Deny, request: ApiRequest, now_us: int) -> tuple[str, str]:
    meaning = MEANINGS[deny.reason]
    code = wso2_code(deny.denial)
    description = meaning.wso2_description
    accepted = request.headers.get("accept") or ""
    sent = request.headers.get("content-type") or ""
    if "soapaction" in request.headers or sent.startswith("application/soap+xml"):
        return _soap_fault(code, meaning.wso2_message, description, is_12="soap+xml" in sent)
    next_access = _next_access(deny, now_us) if deny.reason is Reason.RATE_LIMITED else ""
    if "xml" in accepted and "json" not in accepted:
        prefix, area = ("amt", "throttling") if next_access else ("ams", "security")
        namespace = f"http://wso2.org/apimanager/{area}"
        later = f"<{prefix}:nextAccessTime>{next_access}</{prefix}:nextAccessTime>"
        return "application/xml; charset=UTF-8", (
            f'<{prefix}:fault xmlns:{prefix}="{namespace}"><{prefix}:code>{code}</{prefix}:code>'
            f"<{prefix}:message>{escape(meaning.wso2_message)}</{prefix}:message>"
            f"<{prefix}:description>{escape(description)}</{prefix}:description>"
            f"{later if next_access else ''}</{prefix}:fault>"
        )
    fault = {"code": str(code), "message": meaning.wso2_message, "description": description}
    if next_access:
        fault["nextAccessTime"] = next_access
    return "application/json; charset=UTF-8", json.dumps(fault)


def _soap_fault(code: int, message: str, description: str, *, is_12: bool) -> tuple[str, str]:
    if is_12:
        envelope = "http://www.w3.org/2003/05/soap-envelope"
        fault = (
            "<soapenv:Code><soapenv:Value>soapenv:Sender</soapenv:Value></soapenv:Code>"
            f'<soapenv:Reason><soapenv:Text xml:lang="en">{escape(message)}</soapenv:Text>'
            f"</soapenv:Reason><soapenv:Detail>{code}:{escape(description)}</soapenv:Detail>"
        )
        content_type = "application/soap+xml; charset=UTF-8"
    else:
        envelope = "http://schemas.xmlsoap.org/soap/envelope/"
        fault = (
            f"<faultcode>soapenv:Server</faultcode><faultstring>{escape(message)}</faultstring>"
            f"<detail>{code}:{escape(description)}</detail>"
        )
        content_type = "text/xml; charset=UTF-8"
    return content_type, (
        f'<soapenv:Envelope xmlns:soapenv="{envelope}"><soapenv:Body><soapenv:Fault>'
        f"{fault}</soapenv:Fault></soapenv:Body></soapenv:Envelope>"
    )
