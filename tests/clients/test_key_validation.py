"""WSO2 API Manager 2.6 is asked by SOAP: what is sent, and what each answer means.

The answers have the form that carbon-apimgt 6.5 shows in the tests of its key-validation client.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any, Final
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.clients.introspection import MAX_CALLS_PER_TOKEN, IntrospectionClient
from extauthz.clients.issuer_http import IssuerHttp
from extauthz.clients.key_validation import read_validation, write_question
from extauthz.errors import IntrospectionError
from extauthz.model.decision import Denial, Reason
from extauthz.model.identity import Secret
from extauthz.model.issuers import ApiCall, Issuer, KeyValidationEndpoint
from tests.builders import FakeClock
from tests.clients.loopback import Answer, LoopbackServer
from tests.clients.soap import refused, validated
from tests.keys import an_issuer

TOKEN: Final = Secret("opaque-token-1")
CALL: Final = ApiCall(
    api="Pizza", version="1.0.0", context="/pizza/1.0.0", resource="/menu", method="GET"
)
ENDPOINT: Final = KeyValidationEndpoint(
    url="http://apim.example/services/x", username="admin", password=Secret("a:b&c")
)
PATH: Final = "/services/validate"
NAMESPACE: Final = {"xsd": "http://org.apache.axis2/xsd"}


@pytest.fixture
def issuer(server: LoopbackServer) -> Issuer:
    server.answers[PATH] = validated()
    return an_issuer(
        introspection=None,
        key_validation=replace(ENDPOINT, url=f"{server.url}{PATH}"),
        subscriptions_from_token=True,
    )


@pytest.fixture
async def client(http: IssuerHttp, clock: FakeClock) -> AsyncIterator[IntrospectionClient]:
    client = IntrospectionClient(http, clock)
    yield client
    await client.close()


async def test_asks_as_the_gateway_of_api_manager_does(
    client: IntrospectionClient, issuer: Issuer, server: LoopbackServer
) -> None:
    call = replace(CALL, resource='/a<b>&"c"', version="]]>")
    await client.introspect(issuer, TOKEN, call=call)
    asked = server.asked[0]
    assert (asked.method, asked.headers["soapaction"]) == ("POST", "urn:validateKey")
    assert asked.headers["content-type"] == "application/soap+xml;charset=UTF-8"
    basic = asked.headers["authorization"].removeprefix("Basic ")
    assert base64.b64decode(basic) == b"admin:a:b&c"
    question = ET.fromstring(asked.body)
    found = question.find(".//xsd:validateKey", NAMESPACE)
    assert found is not None
    assert {one.tag.partition("}")[2]: one.text for one in found} == {
        "context": "/pizza/1.0.0",
        "version": "]]>",
        "accessToken": "opaque-token-1",
        "requiredAuthenticationLevel": "Any",
        "clientDomain": "?",
        "matchingResource": '/a<b>&"c"',
        "httpVerb": "GET",
    }


async def test_an_answer_becomes_the_claims_of_a_token_of_api_manager(
    client: IntrospectionClient, issuer: Issuer
) -> None:
    claims = await client.introspect(issuer, TOKEN, call=CALL)
    assert claims == {
        "active": True,
        "client_id": "abc123",
        "consumerKey": "abc123",
        "username": "admin@carbon.super",
        "sub": "admin@carbon.super",
        "scope": "am_application_scope default",
        "keytype": "PRODUCTION",
        "application": {
            "id": "1",
            "name": "DefaultApplication",
            "tier": "Unlimited",
            "owner": "admin",
        },
        "subscribedAPIs": [
            {
                "name": "Pizza",
                "version": "1.0.0",
                "context": "/pizza/1.0.0",
                "publisher": "admin",
                "subscriptionTier": "Gold",
                "subscriberTenantDomain": "carbon.super",
            }
        ],
    }


async def test_the_same_question_is_asked_once_and_another_call_is_another_question(
    client: IntrospectionClient, issuer: Issuer, server: LoopbackServer
) -> None:
    calls = [
        CALL,
        replace(CALL, method="POST"),
        replace(CALL, resource="/order"),
        replace(CALL, version="2.0.0"),
        replace(CALL, context="/other"),
    ]
    for call in (*calls, *calls):
        await client.introspect(issuer, TOKEN, call=call)
    assert len(server.asked) == len(calls)


async def test_answers_about_one_token_are_bounded(
    client: IntrospectionClient, issuer: Issuer, server: LoopbackServer
) -> None:
    for number in range(MAX_CALLS_PER_TOKEN + 1):
        await client.introspect(issuer, TOKEN, call=replace(CALL, resource=f"/{number}"))
    server.asked.clear()
    await client.introspect(issuer, TOKEN, call=replace(CALL, resource="/0"))
    await client.introspect(issuer, TOKEN, call=replace(CALL, resource="/2"))
    assert len(server.asked) == 1


async def test_an_answer_is_believed_until_the_token_expires(
    client: IntrospectionClient, issuer: Issuer, server: LoopbackServer, clock: FakeClock
) -> None:
    issued_ms = clock.now_us() // 1000
    server.answers[PATH] = validated(issuedTime=str(issued_ms), validityPeriod="10000")
    claims = await client.introspect(issuer, TOKEN, call=CALL)
    assert not isinstance(claims, Denial | None)
    assert claims["exp"] == issued_ms // 1000 + 10
    clock.advance(seconds=9)
    await client.introspect(issuer, TOKEN, call=CALL)
    assert len(server.asked) == 1
    clock.advance(seconds=1)
    await client.introspect(issuer, TOKEN, call=CALL)
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("900901", Reason.INVALID_CREDENTIALS),
        ("900902", Reason.MISSING_CREDENTIALS),
        ("900903", Reason.TOKEN_EXPIRED),
        ("900905", Reason.WRONG_KEY_TYPE),
        ("900906", Reason.RESOURCE_NOT_FOUND),
        ("900907", Reason.SUBSCRIPTION_BLOCKED),
        ("900908", Reason.SUBSCRIPTION_NOT_FOUND),
        ("900909", Reason.SUBSCRIPTION_INACTIVE),
        ("900910", Reason.INSUFFICIENT_SCOPE),
        ("900999", Reason.INVALID_CREDENTIALS),
        ("", Reason.INVALID_CREDENTIALS),
    ],
)
async def test_the_status_of_a_refusal_is_its_reason_and_is_kept_for_a_while(
    code: str,
    reason: Reason,
    client: IntrospectionClient,
    issuer: Issuer,
    server: LoopbackServer,
    clock: FakeClock,
) -> None:
    server.answers[PATH] = refused(code)
    for _ in range(2):
        denial = await client.introspect(issuer, TOKEN, call=CALL)
        assert isinstance(denial, Denial)
        assert denial.reason is reason
    assert len(server.asked) == 1
    clock.advance(seconds=10)
    await client.introspect(issuer, TOKEN, call=CALL)
    assert len(server.asked) == 2


BAD_ANSWERS: Final = {
    "wrong password": Answer(status=401),
    "no right": Answer(status=403),
    "away": Answer(status=503),
    "moved": Answer(status=302, headers={"location": "http://127.0.0.1:1/"}),
    "fault": Answer(
        body=b'<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope"><e:Body><e:Fault/>'
        b"</e:Body></e:Envelope>"
    ),
    "fault of status 500": Answer(status=500, body=b"<Envelope><Body><Fault/></Body></Envelope>"),
    "general error": refused("900900"),
    "empty": Answer(),
    "no XML": Answer(body=b"hello"),
    "a page": Answer(body=b"<html><body>login</body></html>"),
    "cut off": Answer(body=validated().body[:-20]),
    "unknown encoding": Answer(body=b'<?xml version="1.0" encoding="ebcdic"?><a/>'),
    "no word on it": Answer(body=validated().body.replace(b"authorized>", b"authorised>")),
    "neither": validated(authorized="maybe"),
    "no number": validated(issuedTime="soon"),
    "a long number": validated(validityPeriod="9" * 30),
    "a scope with a blank": validated(scopes=("a b",)),
    "two returns": Answer(
        body=validated().body.replace(b"<ns:return ", b"<ns:return/><ns:return ")
    ),
    "a member twice": Answer(
        body=validated().body.replace(
            b"</ns:return>", b"<ax2129:authorized>true</ax2129:authorized></ns:return>"
        )
    ),
    "an entity": Answer(
        body=b'<!DOCTYPE a [<!ENTITY t "true">]>' + validated(authorized="&t;").body
    ),
    "deep": Answer(body=b"<a>" * 50 + b"</a>" * 50),
    "long": Answer(body=validated().body + b" " * (1 << 16)),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_what_says_nothing_about_the_token_is_an_error_and_not_kept(
    name: str, client: IntrospectionClient, issuer: Issuer, server: LoopbackServer
) -> None:
    server.answers[PATH] = BAD_ANSWERS[name]
    for _ in range(2):
        with pytest.raises(IntrospectionError) as raised:
            await client.introspect(issuer, TOKEN, call=CALL)
        assert TOKEN.reveal() not in str(raised.value)
        assert "a:b&c" not in str(raised.value)
    assert len(server.asked) == 2


async def test_without_a_call_it_cannot_be_asked(
    client: IntrospectionClient, issuer: Issuer
) -> None:
    with pytest.raises(IntrospectionError, match="decides about calls"):
        await client.introspect(issuer, TOKEN)


@pytest.mark.parametrize("lifetime", ["9223372036854775807", "-1"])
def test_a_token_without_end_has_no_expiry(lifetime: str) -> None:
    answer = validated(issuedTime="1700000000000", validityPeriod=lifetime)
    claims = read_validation(200, answer.body, ENDPOINT, CALL)
    assert not isinstance(claims, Denial | None)
    assert "exp" not in claims


@given(body=st.binary(max_size=200))
def test_no_bytes_are_read_as_an_allow_or_crash(body: bytes) -> None:
    with pytest.raises(IntrospectionError):
        read_validation(200, body, ENDPOINT, CALL)


_TEXTS: Final = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufffe\uffff")
)


@given(context=_TEXTS, version=_TEXTS, resource=_TEXTS, method=_TEXTS)
def test_every_text_arrives_as_it_is(**parts: Any) -> None:
    call = replace(CALL, **parts)
    root = ET.fromstring(write_question(TOKEN, call))
    for name, text in (
        ("context", call.context or "/"),
        ("version", call.version),
        ("matchingResource", call.resource),
        ("httpVerb", call.method),
    ):
        assert (root.findtext(f".//xsd:{name}", namespaces=NAMESPACE) or "") == text
