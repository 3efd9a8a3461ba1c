"""Explanations of requests that are described over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from pydantic import ValidationError

from extauthz.answers.denial import DenialStyle
from extauthz.answers.upstream import IdentityFact, UpstreamStyle
from extauthz.envoy.authorization import AnswerStyle
from extauthz.inspection.example_request import UnknownName
from extauthz.inspection.explain_call import (
    BadQuestion,
    ExplainCalls,
    ExplainDocument,
    TooManyGuesses,
)
from extauthz.inspection.explanation import Explainer
from extauthz.model.applications import Application
from extauthz.model.request import ApiRequest
from extauthz.policy.authentication.credentials import CredentialPlaces
from extauthz.policy.authentication.failed_attempts import FailedAttempts, FailureLimit
from extauthz.policy.limits.quota import QuotaAsk
from extauthz.policy.pipeline import Pipeline
from extauthz.telemetry.decision_log.masking import Masks
from tests.builders import API_KEY, S, a_catalog, a_limit, a_request, a_tier
from tests.deciding import Deciding

PATH = "/httpbin/1.0.0/ip"
KEY = {"x-api-key": API_KEY}
MASKS = Masks()


def keyed() -> ApiRequest:
    return a_request(headers=KEY)


def calls_of(deciding: Deciding, *, guesses: int = 3) -> ExplainCalls:
    headers = {
        IdentityFact.APPLICATION: "x-application",
        IdentityFact.USER: "x-user",
        IdentityFact.CONSUMER_KEY: "x-consumer-key",
    }

    def make(*, trusted_hops: int | None = None) -> Pipeline:
        assert trusted_hops == 0, "no request here has X-Forwarded-For"
        return deciding.pipeline

    explainer = Explainer(
        make_pipeline=make,
        catalog=lambda: deciding.catalog,
        style=AnswerStyle(denial=DenialStyle(), upstream=UpstreamStyle(identity_headers=headers)),
        places=CredentialPlaces(),
        clock=deciding.clock,
        masks=MASKS,
    )
    limit = FailureLimit(requests=guesses, window_us=60 * S)
    return ExplainCalls(explainer, FailedAttempts(limit, deciding.failures))


def limited() -> Deciding:
    return Deciding(a_catalog(subscription_fields={"tier": a_tier("Gold", a_limit(10))}))


async def explained(calls: ExplainCalls, **fields: Any) -> dict[str, Any]:
    # As it is sent and answered.
    asked = ExplainDocument.model_validate_json(json.dumps(fields))
    told: dict[str, Any] = json.loads(json.dumps(await calls.explain(asked)))
    return told


def step(told: dict[str, Any], name: str) -> str:
    found: str = next(it["found"] for it in told["steps"] if it["step"] == name)
    return found


async def test_explains_a_request_with_its_credential() -> None:
    deciding = limited()
    told = await explained(calls_of(deciding), host="api.example.com", path=PATH, headers=KEY)
    assert (told["decision"], told["reason"], told["assumed"]) == ("allow", None, None)
    assert step(told, "rate limits").startswith("subscription (Gold): 10 left of 10")
    assert API_KEY not in str(told)


async def test_explains_as_an_application() -> None:
    told = await explained(calls_of(limited()), path=PATH, **{"as": {"application": "mobile"}})
    assert (told["decision"], told["assumed"]) == ("allow", "mobile")
    assert step(told, "authenticate").startswith("assumed, not checked: by jwt, application mobile")


async def test_explains_a_resource_of_an_api_that_is_named() -> None:
    calls = calls_of(limited())
    told = await explained(calls, api="HttpbinAPI", **{"as": {"application": "mobile"}})
    assert step(told, "match") == "HttpbinAPI 1.0.0, resource GET /ip"
    told = await explained(calls, api="HttpbinAPI", path="/nothing", method="post")
    assert told["reason"] == "resource_not_found"


async def test_counts_nothing_and_sees_what_is_counted() -> None:
    deciding = limited()
    calls = calls_of(deciding)
    for _ in range(3):
        told = await explained(calls, path=PATH, headers=KEY)
        assert "10 left of 10" in step(told, "rate limits")
    await deciding.pipeline.grant(keyed(), QuotaAsk(amount=4))
    told = await explained(calls, path=PATH, **{"as": {"application": "mobile"}})
    assert "6 left of 10" in step(told, "rate limits")


async def test_users_are_shown_as_in_the_log_of_decisions() -> None:
    told = await explained(calls_of(limited()), path=PATH, headers=KEY)
    hashed = MASKS.hash_text("alice")
    assert f"user {hashed}" in step(told, "authenticate")
    assert ["x-user", hashed] in told["upstream"]["set_headers"]
    assert "alice" not in str(told)


async def test_all_explanations_together_have_the_guesses_of_one_address() -> None:
    deciding = limited()
    calls = calls_of(deciding, guesses=3)

    async def guess(number: int) -> str:
        headers = {"x-api-key": f"guess {number}"}
        client = f"192.0.2.{number}"  # another address each time does not help
        told = await explained(calls, path=PATH, headers=headers, client=client)
        return str(told["reason"])

    outcomes = await asyncio.gather(*(guess(it) for it in range(9)), return_exceptions=True)
    assert outcomes[:3] == ["invalid_credentials"] * 3
    refused = outcomes[3:]
    assert all(isinstance(it, TooManyGuesses) for it in refused)
    assert isinstance(refused[0], TooManyGuesses) and 0 < refused[0].retry_after_s <= 60
    with pytest.raises(TooManyGuesses):
        # Nor is a right one told from a wrong one then.
        await explained(calls, path=PATH, headers=KEY)
    told = await explained(calls, path=PATH, **{"as": {"application": "mobile"}})
    assert told["decision"] == "allow"
    deciding.clock.advance(60)
    assert (await explained(calls, path=PATH, headers=KEY))["decision"] == "allow"


async def test_guesses_here_do_not_count_against_an_address_at_the_doors() -> None:
    limit = FailureLimit(requests=1, window_us=60 * S)
    deciding = Deciding(a_catalog(), failure_limit=limit)
    calls = calls_of(deciding, guesses=100)
    for number in range(5):
        await explained(calls, path=PATH, headers={"x-api-key": f"{number}"}, client="192.0.2.1")
    assert await deciding.reason(keyed()) == "allowed"


async def test_says_what_an_application_lacks() -> None:
    catalog = a_catalog(application=Application(name="mobile"), api_keys=[], consumer_keys={})
    told = await explained(
        calls_of(Deciding(catalog)), path=PATH, **{"as": {"application": "mobile"}}
    )
    assert told["decision"] == "allow"
    assert told["advice"] == [
        "In truth it cannot authenticate: application mobile has no consumer key and no API key in "
        "the catalog."
    ]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "say host and path, or api with resource or path"),
        ({"path": "ip"}, "path must begin with a slash"),
        ({"path": "/", "resource": "/ip"}, "version and resource are of an API; add api"),
        ({"path": "/", "api": "a", "resource": "/ip"}, "say resource or path, and not both"),
        ({"path": "/", "client": "me"}, "client must be an IP address"),
    ],
)
async def test_says_how_a_request_is_described(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadQuestion) as refused:
        await explained(calls_of(limited()), **fields)
    assert str(refused.value) == said


@pytest.mark.parametrize(
    "fields",
    [
        {"path": 1},
        {"path": "/" + "x" * 9_000},
        {"path": "/", "headers": [["a", "b"]]},
        {"path": "/", "headers": {str(it): "" for it in range(200)}},
        {"path": "/", "method": "GET /"},
        {"path": "/", "as": "mobile"},
        {"path": "/", "as": {"application": "mobile", "key_type": "TEST"}},
        {"path": "/", "as": {"application": "mobile", "scopes": "a b"}},
        {"path": "/", "aplication": "mobile"},
    ],
)
async def test_a_malformed_body_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        await explained(calls_of(limited()), **fields)


async def test_an_unknown_name_is_said_with_one_that_is_like_it() -> None:
    with pytest.raises(UnknownName, match="did you mean 'mobile'"):
        await explained(calls_of(limited()), path=PATH, **{"as": {"application": "Mobile"}})
    with pytest.raises(UnknownName, match="did you mean 'HttpbinAPI'"):
        await explained(calls_of(limited()), api="Httpbin API")
