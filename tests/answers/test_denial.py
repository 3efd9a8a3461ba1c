"""What a denied client gets, in both profiles."""

from __future__ import annotations

import json
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.answers.denial import DenialStyle, HttpAnswer, Profile, write_denial
from extauthz.answers.reasons import MEANINGS, wso2_code
from extauthz.model.decision import Denial, Deny, Reason
from extauthz.model.identity import SecurityScheme
from extauthz.model.limits import LimitLevel, LimitStatus, Reading
from extauthz.model.request import ApiRequest
from extauthz.model.routing.routes import Route
from tests.builders import START_US, S, a_limit, a_request, a_resource, an_api

STANDARD, WSO2 = DenialStyle(), DenialStyle(profile=Profile.WSO2)
GRPC = a_request(headers={"content-type": "application/grpc+proto"})


def a_route(*security: SecurityScheme) -> Route:
    resource = a_resource(security=security or (SecurityScheme.JWT, SecurityScheme.API_KEY))
    return Route(an_api(resource), resource)


def a_deny(reason: Reason, *, route: Route | None = None, **fields: Any) -> Deny:
    limits = fields.pop("limits", ())
    fields.setdefault("detail", "One sentence.")
    denial = Denial(reason=reason, **fields)
    return Deny(id="d-1", denial=denial, route=route or a_route(), limits=limits)


def answer(
    deny: Deny, style: DenialStyle = STANDARD, request: ApiRequest | None = None
) -> HttpAnswer:
    return write_denial(deny, request or a_request(), style, START_US)


def fields_of(deny: Deny, style: DenialStyle = STANDARD, **how: Any) -> dict[str, str]:
    headers = answer(deny, style, **how).headers
    assert len({name.lower() for name, _ in headers}) == len(headers)
    return dict(headers)


# Status and body


@pytest.mark.parametrize("reason", Reason)
def test_the_standard_profile_describes_the_problem(reason: Reason) -> None:
    written = answer(a_deny(reason))
    meaning = MEANINGS[reason]
    assert (written.status, written.rpc_code) == (meaning.http_status, meaning.rpc_code)
    assert dict(written.headers)["content-type"] == "application/problem+json"
    assert dict(written.headers)["cache-control"] == "no-store"
    assert json.loads(written.body) == {
        "type": f"urn:extauthz:reason:{reason.value}",
        "title": meaning.title,
        "status": meaning.http_status,
        "detail": "One sentence.",
        "reason": reason.value,
        "decision_id": "d-1",
    }


def test_a_problem_names_the_level_and_the_scopes() -> None:
    body = json.loads(answer(a_deny(Reason.RATE_LIMITED, level=LimitLevel.BURST)).body)
    assert body["level"] == "burst"
    body = json.loads(answer(a_deny(Reason.INSUFFICIENT_SCOPE, scopes=("a", "b"))).body)
    assert body["scopes"] == ["a", "b"]
    assert "detail" not in json.loads(answer(a_deny(Reason.BLOCKED, detail="")).body)


@pytest.mark.parametrize("reason", Reason)
def test_the_wso2_profile_answers_as_the_gateways_do(reason: Reason) -> None:
    deny = a_deny(reason)
    written = answer(deny, WSO2)
    meaning = MEANINGS[reason]
    assert (written.status, written.rpc_code) == (meaning.wso2_status, meaning.rpc_code)
    assert dict(written.headers)["content-type"] == "application/json; charset=UTF-8"
    body = json.loads(written.body)
    assert body.pop("nextAccessTime", None) is not None or reason is not Reason.RATE_LIMITED
    assert body == {
        "code": str(wso2_code(deny.denial)),
        "message": meaning.wso2_message,
        "description": meaning.wso2_description,
    }


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("style", [STANDARD, WSO2])
def test_a_grpc_client_gets_a_code_and_a_short_text(reason: Reason, style: DenialStyle) -> None:
    written = answer(a_deny(reason), style, GRPC)
    fields = dict(written.headers)
    assert fields["grpc-status"] == str(MEANINGS[reason].rpc_code)
    assert "content-type" not in fields
    assert written.body == f"{reason.value}: {MEANINGS[reason].title}"


# XML and SOAP, for those who ask for it

AMS = "{http://wso2.org/apimanager/security}"
AMT = "{http://wso2.org/apimanager/throttling}"


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("accept", ["application/xml", "text/xml, */*;q=0.1"])
def test_wso2_speaks_xml(reason: Reason, accept: str) -> None:
    deny = a_deny(reason)
    written = answer(deny, WSO2, a_request(headers={"accept": accept}))
    assert dict(written.headers)["content-type"] == "application/xml; charset=UTF-8"
    fault = ET.fromstring(written.body)
    namespace = AMT if reason is Reason.RATE_LIMITED else AMS
    assert fault.tag == f"{namespace}fault"
    assert fault.findtext(f"{namespace}code") == str(wso2_code(deny.denial))
    assert fault.findtext(f"{namespace}message") == MEANINGS[reason].wso2_message
    assert fault.findtext(f"{namespace}description") == MEANINGS[reason].wso2_description
    later = fault.findtext(f"{namespace}nextAccessTime")
    assert (later is not None) is (reason is Reason.RATE_LIMITED)


@pytest.mark.parametrize("accept", ["application/json", "application/xml, application/json", "*/*"])
def test_wso2_speaks_json_to_those_who_take_it(accept: str) -> None:
    written = answer(a_deny(Reason.BLOCKED), WSO2, a_request(headers={"accept": accept}))
    assert json.loads(written.body)["code"] == "900805"


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize(
    ("headers", "content_type", "envelope"),
    [
        (
            {"soapaction": "urn:x"},
            "text/xml; charset=UTF-8",
            "http://schemas.xmlsoap.org/soap/envelope/",
        ),
        (
            {"content-type": "application/soap+xml; charset=utf-8"},
            "application/soap+xml; charset=UTF-8",
            "http://www.w3.org/2003/05/soap-envelope",
        ),
    ],
)
def test_wso2_speaks_soap(
    reason: Reason, headers: dict[str, str], content_type: str, envelope: str
) -> None:
    deny = a_deny(reason)
    written = answer(deny, WSO2, a_request(headers=headers))
    assert dict(written.headers)["content-type"] == content_type
    root = ET.fromstring(written.body)
    fault = root.find(f"{{{envelope}}}Body/{{{envelope}}}Fault")
    assert fault is not None
    text = " ".join(fault.itertext())
    assert MEANINGS[reason].wso2_message in text and str(wso2_code(deny.denial)) in text


def test_the_standard_profile_speaks_neither() -> None:
    request = a_request(headers={"accept": "text/xml", "soapaction": "urn:x"})
    assert json.loads(answer(a_deny(Reason.BLOCKED), request=request).body)["reason"] == "blocked"


# Challenges

INVALID_TOKEN = {
    Reason.INVALID_CREDENTIALS,
    Reason.TOKEN_EXPIRED,
    Reason.TOKEN_INACTIVE,
    Reason.TOKEN_REVOKED,
    Reason.WRONG_KEY_TYPE,
    Reason.AUDIENCE_NOT_ALLOWED,
}


@pytest.mark.parametrize("reason", Reason)
def test_challenges_as_rfc_6750_says(reason: Reason) -> None:
    challenge = fields_of(a_deny(reason)).get("www-authenticate")
    if reason is Reason.MISSING_CREDENTIALS:
        assert challenge == 'Bearer realm="extauthz"'
    elif reason in INVALID_TOKEN:
        assert challenge == (
            'Bearer realm="extauthz", error="invalid_token", '
            f'error_description="{MEANINGS[reason].title}"'
        )
    elif reason is Reason.INSUFFICIENT_SCOPE:
        assert challenge is not None and 'error="insufficient_scope"' in challenge
    else:
        assert challenge is None


@pytest.mark.parametrize("style", [STANDARD, WSO2])
@pytest.mark.parametrize("reason", Reason)
def test_every_401_has_a_challenge(reason: Reason, style: DenialStyle) -> None:
    written = answer(a_deny(reason), style)
    challenged = "www-authenticate" in dict(written.headers)
    assert challenged is (written.status == 401 or reason is Reason.INSUFFICIENT_SCOPE)


@pytest.mark.parametrize(
    ("security", "begin"),
    [
        ((SecurityScheme.JWT,), "Bearer "),
        ((SecurityScheme.OPAQUE,), "Bearer "),
        ((SecurityScheme.API_KEY, SecurityScheme.JWT), "Bearer "),
        ((SecurityScheme.API_KEY,), "ApiKey "),
        ((SecurityScheme.MTLS,), "ApiKey "),
    ],
)
def test_challenges_for_the_scheme_that_is_taken(
    security: tuple[SecurityScheme, ...], begin: str
) -> None:
    for reason in (Reason.MISSING_CREDENTIALS, Reason.INVALID_CREDENTIALS):
        challenge = fields_of(a_deny(reason, route=a_route(*security)))["www-authenticate"]
        assert challenge.startswith(begin)


def test_wso2_has_a_realm_of_its_own() -> None:
    challenge = fields_of(a_deny(Reason.TOKEN_EXPIRED), WSO2)["www-authenticate"]
    assert challenge.startswith('OAuth2 realm="WSO2 API Manager", error="invalid_token"')


def test_names_the_scopes_that_are_asked_for() -> None:
    challenge = fields_of(a_deny(Reason.INSUFFICIENT_SCOPE, scopes=("a", "b:c")))
    assert challenge["www-authenticate"].endswith(', scope="a b:c"')


@pytest.mark.parametrize(
    "hostile", ['a"b', "a\\b", "a\r\nx-evil: 1", "a b", "a\0", "é", "", '", realm="x']
)
def test_a_scope_that_is_none_is_left_out(hostile: str) -> None:
    challenge = fields_of(a_deny(Reason.INSUFFICIENT_SCOPE, scopes=(hostile, "good")))
    assert challenge["www-authenticate"].endswith(', scope="good"')
    only = fields_of(a_deny(Reason.INSUFFICIENT_SCOPE, scopes=(hostile,)))
    assert "scope=" not in only["www-authenticate"]


@pytest.mark.parametrize(
    ("realm", "written"),
    [
        ("shop", '"shop"'),
        ('the "shop"', r'"the \"shop\""'),
        ("back\\slash", r'"back\\slash"'),
        ("a\r\nx-evil: 1", '"ax-evil: 1"'),
        ("\0", '""'),
    ],
)
@pytest.mark.parametrize("scheme", [SecurityScheme.JWT, SecurityScheme.API_KEY])
def test_a_realm_is_quoted(realm: str, written: str, scheme: SecurityScheme) -> None:
    deny = a_deny(Reason.MISSING_CREDENTIALS, route=a_route(scheme))
    challenge = fields_of(deny, DenialStyle(realm=realm))["www-authenticate"]
    assert challenge.partition(" ")[2] == f"realm={written}"


# Allow, Retry-After, limits


def test_says_which_methods_are_taken() -> None:
    for style in (STANDARD, WSO2):
        deny = a_deny(Reason.METHOD_NOT_ALLOWED, allowed_methods=("GET", "HEAD"))
        assert fields_of(deny, style)["allow"] == "GET, HEAD"
    assert "allow" not in fields_of(a_deny(Reason.RESOURCE_NOT_FOUND))


# START_US is Tue, 14 Nov 2023 22:13:20 GMT
@pytest.mark.parametrize(
    ("retry_after_us", "now_us", "seconds", "date"),
    [
        (0, START_US, "1", "Tue, 14 Nov 2023 22:13:21 GMT"),
        (1, START_US, "1", "Tue, 14 Nov 2023 22:13:21 GMT"),
        (40 * S, START_US, "40", "Tue, 14 Nov 2023 22:14:00 GMT"),
        (40 * S + 1, START_US, "41", "Tue, 14 Nov 2023 22:14:01 GMT"),
        (40 * S, START_US + 1, "40", "Tue, 14 Nov 2023 22:14:01 GMT"),
        (10**20, START_US, "100000000000000", "Fri, 31 Dec 9999 23:59:59 GMT"),
    ],
)
def test_says_when_to_try_again_and_never_too_early(
    retry_after_us: int, now_us: int, seconds: str, date: str
) -> None:
    deny = a_deny(Reason.RATE_LIMITED, retry_after_us=retry_after_us, level=LimitLevel.API)
    standard = dict(write_denial(deny, a_request(), STANDARD, now_us).headers)
    assert standard["retry-after"] == seconds
    wso2 = write_denial(deny, a_request(), WSO2, now_us)
    assert dict(wso2.headers)["retry-after"] == date
    assert json.loads(wso2.body)["nextAccessTime"] == date


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason != Reason.RATE_LIMITED])
def test_only_a_rate_limit_says_when_to_try_again(reason: Reason) -> None:
    for style in (STANDARD, WSO2):
        assert "retry-after" not in fields_of(a_deny(reason, retry_after_us=S), style)


def test_tells_the_limits() -> None:
    reading = Reading(exceeded=True, remaining=0, reset_us=60 * S, retry_after_us=60 * S)
    status = LimitStatus(LimitLevel.API, "Gold", a_limit(10), reading, enforced=True)
    fields = fields_of(a_deny(Reason.RATE_LIMITED, limits=(status,)))
    assert fields["RateLimit"] == '"api";r=0;t=60'
    assert "Gold" not in str(fields)


# Whatever comes


@given(
    reason=st.sampled_from(Reason),
    profile=st.sampled_from(Profile),
    realm=st.text(),
    scopes=st.lists(st.text(), max_size=3),
    detail=st.text(),
    headers=st.dictionaries(
        st.sampled_from(["accept", "content-type", "soapaction", "authorization"]), st.text()
    ),
    retry_after_us=st.integers(0, 1 << 70),
    level=st.sampled_from([None, *LimitLevel]),
)
def test_an_answer_is_always_written_and_no_field_breaks_a_line(
    reason: Reason,
    profile: Profile,
    realm: str,
    scopes: list[str],
    detail: str,
    headers: dict[str, str],
    retry_after_us: int,
    level: LimitLevel | None,
) -> None:
    deny = a_deny(
        reason,
        scopes=tuple(scopes),
        detail=detail,
        level=level,
        retry_after_us=retry_after_us,
    )
    style = DenialStyle(profile=profile, realm=realm)
    written = answer(deny, style, a_request(headers=headers))
    assert 400 <= written.status <= 599
    for name, value in written.headers:
        assert not any(ord(character) < 32 and character != "\t" for character in name + value)
        assert "\x7f" not in value


@pytest.mark.parametrize("reason", Reason)
@pytest.mark.parametrize("style", [STANDARD, WSO2])
def test_nothing_that_the_client_sent_comes_back(reason: Reason, style: DenialStyle) -> None:
    secret = "s3cr3t-<b>"
    for accept in ("*/*", "text/xml"):
        request = a_request(
            f"/{secret}?apikey={secret}",
            headers={"authorization": f"Bearer {secret}", "x-api-key": secret, "accept": accept},
        )
        written = answer(a_deny(reason), style, request)
        assert secret not in written.body + str(written.headers)
