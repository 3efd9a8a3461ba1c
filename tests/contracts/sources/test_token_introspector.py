"""What everybody does who asks issuers about tokens: over HTTP, traced, and the tests' double."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

import pytest

from extauthz.clients.introspection import IntrospectionClient
from extauthz.clients.issuer_http import IssuerHttp
from extauthz.errors import IntrospectionError
from extauthz.model.decision import Denial
from extauthz.model.identity import Secret
from extauthz.model.issuers import (
    ApiCall,
    IntrospectionEndpoint,
    Issuer,
    KeyValidationEndpoint,
)
from extauthz.ports import Deadline, TokenIntrospector
from tests.builders import FakeClock
from tests.clients.loopback import Answer, LoopbackServer, json_answer
from tests.clients.soap import refused, validated
from tests.contracts.sources.tracing import trace_this_call
from tests.deciding import GivenTokens
from tests.keys import an_issuer

TOKEN: Final = Secret("opaque-token-1")
CLAIMS: Final[Mapping[str, Any]] = {"client_id": "abc123", "scope": "a b"}
CALL: Final = ApiCall(api="Shop", version="1", context="/shop", resource="/items", method="GET")
MAX_CALLS: Final = 5


@dataclass(frozen=True)
class Kept:
    """An introspector, and an issuer that can be asked.

    Attributes:
        activate: makes every token active, with `CLAIMS`. Without it, none is.
        go_away: makes all answers of the issuer unusable.
    """

    introspector: TokenIntrospector
    issuer: Issuer
    activate: Callable[[], None]
    go_away: Callable[[], None]


@dataclass(frozen=True)
class Outside:
    """What an introspector is made with."""

    http: IssuerHttp
    server: LoopbackServer
    clock: FakeClock
    stack: AsyncExitStack

    @property
    def issuer(self) -> Issuer:
        url = f"{self.server.url}/introspect"
        endpoint = IntrospectionEndpoint(url=url, client_id="gw", client_secret=Secret("pass"))
        return an_issuer(introspection=endpoint)

    def answer(self, answer: Answer) -> None:
        self.server.answers["/introspect"] = answer


def keep_asked(outside: Outside) -> Kept:
    client = IntrospectionClient(outside.http, outside.clock, max_calls=MAX_CALLS)
    outside.stack.push_async_callback(client.close)
    outside.answer(json_answer({"active": False}))
    return Kept(
        client,
        outside.issuer,
        activate=lambda: outside.answer(json_answer({"active": True, **CLAIMS})),
        go_away=lambda: outside.answer(Answer(status=500)),
    )


def keep_validated(outside: Outside) -> Kept:
    client = IntrospectionClient(outside.http, outside.clock, max_calls=MAX_CALLS)
    outside.stack.push_async_callback(client.close)
    outside.answer(refused("900904"))
    endpoint = KeyValidationEndpoint(
        url=f"{outside.server.url}/introspect", username="gw", password=Secret("pass")
    )
    active = validated(consumerKey="abc123", scopes=("a", "b"))
    return Kept(
        client,
        an_issuer(introspection=None, key_validation=endpoint),
        activate=lambda: outside.answer(active),
        go_away=lambda: outside.answer(Answer(status=500)),
    )


def keep_traced(outside: Outside) -> Kept:
    kept = keep_asked(outside)
    traced = trace_this_call().watch_introspector(kept.introspector)
    return replace(kept, introspector=traced)


class _AllActive(dict[str, Mapping[str, Any]]):
    def get(self, _key: str, _default: Any = None) -> Mapping[str, Any]:
        return CLAIMS


def keep_given(outside: Outside) -> Kept:
    given = GivenTokens()

    def go_away() -> None:
        given.error = IntrospectionError("away")

    return Kept(
        given,
        outside.issuer,
        activate=lambda: setattr(given, "active", _AllActive()),
        go_away=go_away,
    )


KEEPERS: Final = {
    "asked": keep_asked,
    "asked by SOAP": keep_validated,
    "asked, traced": keep_traced,
    "given": keep_given,
}


@pytest.fixture
async def outside(
    http: IssuerHttp, server: LoopbackServer, clock: FakeClock
) -> AsyncIterator[Outside]:
    async with AsyncExitStack() as stack:
        yield Outside(http, server, clock, stack)


@pytest.mark.parametrize("name", KEEPERS)
async def test_gives_the_claims_of_an_active_token(name: str, outside: Outside) -> None:
    kept = KEEPERS[name](outside)
    kept.activate()
    claims = await kept.introspector.introspect(kept.issuer, TOKEN, call=CALL)
    assert isinstance(claims, Mapping)
    assert claims.items() >= CLAIMS.items()


@pytest.mark.parametrize("name", KEEPERS)
async def test_gives_nothing_for_a_token_that_is_not_active(name: str, outside: Outside) -> None:
    kept = KEEPERS[name](outside)
    assert await kept.introspector.introspect(kept.issuer, TOKEN, call=CALL) is None


@pytest.mark.parametrize("name", KEEPERS)
async def test_no_usable_answer_is_an_error_and_not_an_inactive_token(
    name: str, outside: Outside
) -> None:
    kept = KEEPERS[name](outside)
    kept.go_away()
    with pytest.raises(IntrospectionError):
        await kept.introspector.introspect(kept.issuer, TOKEN, call=CALL)


@pytest.mark.parametrize("name", KEEPERS)
async def test_an_issuer_that_cannot_be_asked_is_an_error(name: str, outside: Outside) -> None:
    kept = KEEPERS[name](outside)
    with pytest.raises(IntrospectionError):
        await kept.introspector.introspect(
            replace(kept.issuer, introspection=None, key_validation=None), TOKEN, call=CALL
        )


@pytest.mark.parametrize("name", ["asked", "asked by SOAP", "asked, traced"])
async def test_no_answer_by_the_deadline_is_an_error(name: str, outside: Outside) -> None:
    kept = KEEPERS[name](outside)
    outside.server.hold()
    with pytest.raises(IntrospectionError):
        await kept.introspector.introspect(
            kept.issuer, TOKEN, call=CALL, deadline=Deadline(time.monotonic() + 0.05)
        )


@pytest.mark.parametrize("name", KEEPERS)
async def test_the_calls_of_one_client_prevent_no_call_for_another(
    name: str, outside: Outside
) -> None:
    kept = KEEPERS[name](outside)
    kept.activate()
    outside.server.hold()

    def ask(text: str, client: str) -> asyncio.Task[Mapping[str, Any] | Denial | None]:
        asking = kept.introspector.introspect(kept.issuer, Secret(text), call=CALL, client=client)
        return asyncio.create_task(asking)

    many = [ask(f"guess-{number}", "4-1") for number in range(4 * MAX_CALLS)]
    await asyncio.sleep(0)
    other = ask("token-of-another", "4-2")
    await asyncio.sleep(0)
    outside.server.release()
    assert await other is not None
    for outcome in await asyncio.gather(*many, return_exceptions=True):
        assert isinstance(outcome, Mapping | IntrospectionError)
