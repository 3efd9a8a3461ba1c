from __future__ import annotations

import asyncio
import base64
import logging
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import pytest

from extauthz.clients.introspection import MAX_BODY_BYTES, IntrospectionClient
from extauthz.clients.issuer_http import IssuerHttp
from extauthz.errors import IntrospectionError, IntrospectionShareError
from extauthz.model.identity import Secret
from extauthz.model.issuers import IntrospectionEndpoint, Issuer
from extauthz.ports import Deadline, TokenIntrospector
from tests.builders import FakeClock
from tests.clients.loopback import Answer, LoopbackServer, json_answer
from tests.keys import START_S, an_issuer

TOKEN = Secret("opaque-token-1")
ACTIVE = {"active": True, "client_id": "abc123", "scope": "a b"}


@pytest.fixture
async def client(http: IssuerHttp, clock: FakeClock) -> AsyncIterator[IntrospectionClient]:
    made = IntrospectionClient(http, clock, max_entries=3, max_calls=5)
    yield made
    await made.close()


def says(server: LoopbackServer, answer: Any) -> None:
    server.answers["/introspect"] = json_answer(answer)


def issuer_at(server: LoopbackServer, **fields: Any) -> Issuer:
    fields.setdefault("client_id", "gw")
    fields.setdefault("client_secret", Secret("pass"))
    endpoint = IntrospectionEndpoint(url=f"{server.url}/introspect", **fields)
    return an_issuer(introspection=endpoint)


def within(seconds: float) -> Deadline:
    return Deadline(time.monotonic() + seconds)


async def test_asks_as_rfc_7662_says(client: IntrospectionClient, server: LoopbackServer) -> None:
    says(server, ACTIVE)
    port: TokenIntrospector = client
    claims = await port.introspect(
        issuer_at(server, client_id="g w", client_secret=Secret("p:/%é")), TOKEN
    )
    assert claims == ACTIVE
    (asked,) = server.asked
    assert asked.method == "POST"
    assert asked.headers["content-type"] == "application/x-www-form-urlencoded"
    assert parse_qs(asked.body.decode()) == {
        "token": ["opaque-token-1"],
        "token_type_hint": ["access_token"],
    }
    # RFC 6749 2.3.1: both are form-encoded before they become HTTP Basic.
    expected = base64.b64encode(b"g+w:p%3A%2F%25%C3%A9").decode()
    assert asked.headers["authorization"] == f"Basic {expected}"


async def test_sends_credentials_in_the_body_when_asked_to(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    says(server, ACTIVE)
    await client.introspect(issuer_at(server, credentials_in_body=True), TOKEN)
    form = parse_qs(server.asked[0].body.decode())
    assert (form["client_id"], form["client_secret"]) == (["gw"], ["pass"])
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize(
    ("expires_in_s", "believed_for_s"), [(None, 60), (30, 30), (3600, 60), (30.5, 30.5)]
)
async def test_believes_an_active_token_until_it_expires_and_no_longer_than_configured(
    client: IntrospectionClient,
    server: LoopbackServer,
    clock: FakeClock,
    expires_in_s: float | None,
    believed_for_s: float,
) -> None:
    answer = ACTIVE if expires_in_s is None else {**ACTIVE, "exp": START_S + expires_in_s}
    says(server, answer)
    issuer = issuer_at(server)
    await client.introspect(issuer, TOKEN)
    clock.advance(believed_for_s - 0.001)
    assert await client.introspect(issuer, TOKEN) == answer
    assert len(server.asked) == 1
    clock.advance(0.001)
    await client.introspect(issuer, TOKEN)
    assert len(server.asked) == 2
    assert (client.hits, client.misses) == (1, 2)


@pytest.mark.parametrize("answer", [ACTIVE, {"active": False}], ids=["active", "inactive"])
async def test_an_answer_is_not_believed_longer_because_the_clock_was_set_back(
    client: IntrospectionClient, server: LoopbackServer, clock: FakeClock, answer: dict[str, Any]
) -> None:
    says(server, answer)
    issuer = issuer_at(server)
    await client.introspect(issuer, TOKEN)
    clock.advance(-3600)
    await client.introspect(issuer, TOKEN)
    assert len(server.asked) == 2


@pytest.mark.parametrize("exp", [START_S, START_S - 1, "soon", True])
async def test_an_answer_without_a_future_is_given_and_not_kept(
    client: IntrospectionClient, server: LoopbackServer, exp: Any
) -> None:
    says(server, {**ACTIVE, "exp": exp})
    issuer = issuer_at(server)
    assert await client.introspect(issuer, TOKEN) == {**ACTIVE, "exp": exp}
    await client.introspect(issuer, TOKEN)
    assert len(server.asked) == 2


async def test_members_that_are_null_are_not_there(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    says(server, {**ACTIVE, "exp": None, "sub": None, "aud": None})
    issuer = issuer_at(server)
    assert await client.introspect(issuer, TOKEN) == ACTIVE
    await client.introspect(issuer, TOKEN)
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "answer",
    [
        json_answer({"error": "invalid_request"}, status=400),
        json_answer({"error": "unsupported_token_type"}, status=401),
        Answer(status=413, body=b"<html>too large</html>"),
        Answer(status=400, body=b" " * (MAX_BODY_BYTES + 1)),
        Answer(status=400, body=b"x", headers={"content-encoding": "br"}),
    ],
)
async def test_a_refused_token_is_denied_for_a_while_and_no_outage(
    client: IntrospectionClient,
    server: LoopbackServer,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
    answer: Answer,
) -> None:
    server.answers["/introspect"] = answer
    issuer = issuer_at(server)
    for _ in range(3):
        assert await client.introspect(issuer, TOKEN) is None
    assert len(server.asked) == 1
    # It may be the configuration, as long as nothing else was ever answered.
    assert "if it never does, check introspection" in caplog.text
    says(server, ACTIVE)
    clock.advance(10)
    assert await client.introspect(issuer, TOKEN) == ACTIVE
    caplog.clear()
    server.answers["/introspect"] = answer
    assert await client.introspect(issuer, Secret("other")) is None
    assert caplog.text == ""


async def test_believes_a_definite_inactive_for_a_while(
    client: IntrospectionClient, server: LoopbackServer, clock: FakeClock
) -> None:
    says(server, {"active": False})
    issuer = issuer_at(server)
    assert await client.introspect(issuer, TOKEN) is None
    says(server, ACTIVE)
    assert await client.introspect(issuer, TOKEN) is None
    clock.advance(10)
    assert await client.introspect(issuer, TOKEN) == ACTIVE
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("answer", "told", "transient"),
    [
        (json_answer({"client_id": "abc123"}), "active", True),
        (json_answer({"active": "true"}), "active", True),
        (json_answer({"active": 1}), "active", True),
        (json_answer({"active": 0}), "active", True),
        (json_answer({"active": None}), "active", True),
        (json_answer([{"active": True}]), "not a JSON object", True),
        (Answer(body=b'{"active":false,"active":true}'), "JSON", True),
        (Answer(body=b""), "JSON", True),
        (Answer(body=b" " * (MAX_BODY_BYTES + 1)), "larger", True),
        (Answer(body=b"{}", headers={"content-encoding": "br"}), "compressed", True),
        (Answer(body=b"{", headers={"content-length": "9"}), "RemoteProtocolError", True),
        (json_answer(ACTIVE, status=500), "500", True),
        (Answer(status=429), "429", True),
        (Answer(status=404), "404 .*url", False),
        (json_answer({"error": "invalid_client"}, status=400), "client id and secret", False),
        (json_answer(ACTIVE, status=302, headers={"location": "/introspect"}), "302 .*url", False),
        (json_answer({"active": False}, status=401), "client id and secret", False),
        (Answer(status=403), "client id and secret", False),
    ],
)
async def test_anything_else_is_no_decision_and_is_not_kept(
    client: IntrospectionClient,
    server: LoopbackServer,
    answer: Answer,
    told: str,
    *,
    transient: bool,
) -> None:
    server.answers["/introspect"] = answer
    issuer = issuer_at(server)
    with pytest.raises(IntrospectionError, match=told) as raised:
        await client.introspect(issuer, TOKEN)
    assert raised.value.transient is transient
    says(server, ACTIVE)
    assert await client.introspect(issuer, TOKEN) == ACTIVE


async def test_a_dead_endpoint_is_no_decision(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    issuer = issuer_at(server)
    await server.stop()
    with pytest.raises(IntrospectionError, match="connection refused") as raised:
        await client.introspect(issuer, TOKEN)
    assert raised.value.transient


async def test_concurrent_requests_share_one_call(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    says(server, ACTIVE)
    issuer = issuer_at(server)
    answers = await asyncio.gather(*(client.introspect(issuer, TOKEN) for _ in range(50)))
    assert answers == [ACTIVE] * 50
    assert len(server.asked) == 1


async def test_a_request_waits_no_longer_than_its_deadline_and_the_call_goes_on(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    says(server, ACTIVE)
    issuer = issuer_at(server, timeout_us=30_000_000)
    server.hold()
    started_s = time.monotonic()
    with pytest.raises(IntrospectionError, match="deadline"):
        await client.introspect(issuer, TOKEN, deadline=within(0.05))
    assert time.monotonic() - started_s < 2
    cancelled = asyncio.create_task(client.introspect(issuer, TOKEN))
    waiting = asyncio.create_task(client.introspect(issuer, TOKEN))
    await server.arrived.acquire()
    cancelled.cancel()
    server.release()
    assert await waiting == ACTIVE
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert len(server.asked) == 1


async def test_a_call_has_a_time_limit_of_its_own(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    server.hold()
    with pytest.raises(IntrospectionError, match=r"no answer within 0\.05 s|ReadTimeout"):
        await client.introspect(issuer_at(server, timeout_us=50_000), TOKEN)


async def test_calls_over_the_bound_are_refused_at_once_for_that_issuer_only(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    says(server, ACTIVE)
    issuer = issuer_at(server)
    assert issuer.introspection is not None
    other = an_issuer(issuer="https://other.example/", introspection=issuer.introspection)
    server.hold()
    waiting = [
        asyncio.create_task(client.introspect(issuer, Secret(f"t{number}"), client=str(number)))
        for number in range(5)
    ]
    for _ in waiting:
        await server.arrived.acquire()
    with pytest.raises(IntrospectionError, match="5 tokens already"):
        await client.introspect(issuer, TOKEN)
    elsewhere = asyncio.create_task(client.introspect(other, TOKEN))
    await server.arrived.acquire()
    server.release()
    assert await asyncio.gather(*waiting, elsewhere) == [ACTIVE] * 6
    assert await client.introspect(issuer, TOKEN) == ACTIVE


async def test_a_client_has_as_many_calls_as_are_left_for_all_others(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    says(server, ACTIVE)
    issuer = issuer_at(server)
    server.hold()

    def ask(text: str, who: str) -> asyncio.Task[Any]:
        return asyncio.create_task(client.introspect(issuer, Secret(text), client=who))

    flood = [ask(f"guess-{number}", "4-1") for number in range(20)]
    for _ in range(3):
        await server.arrived.acquire()
    others = [ask("guess-0", "4-2"), ask("t1", "4-2"), ask("t2", "4-3")]
    for _ in range(2):
        await server.arrived.acquire()
    with pytest.raises(IntrospectionShareError):
        await client.introspect(issuer, Secret("t3"), client="4-2")
    server.release()
    answers = await asyncio.gather(*flood, return_exceptions=True)
    assert answers[:3] == [ACTIVE] * 3
    assert {type(answer) for answer in answers[3:]} == {IntrospectionShareError}
    assert await asyncio.gather(*others) == [ACTIVE] * 3
    assert await client.introspect(issuer, Secret("guess-19"), client="4-1") == ACTIVE


async def test_keeps_the_answers_that_were_used_last(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    says(server, ACTIVE)
    issuer = issuer_at(server)
    for text in ("a", "b", "c", "a", "d"):
        await client.introspect(issuer, Secret(text))
    assert len(server.asked) == 4
    await client.introspect(issuer, Secret("a"))
    assert len(server.asked) == 4
    await client.introspect(issuer, Secret("b"))
    assert len(server.asked) == 5


async def test_an_answer_counts_only_for_who_was_asked_as_whom(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    says(server, ACTIVE)
    await client.introspect(issuer_at(server), TOKEN)
    says(server, {"active": False})
    assert await client.introspect(issuer_at(server, client_id="other"), TOKEN) is None


async def test_forgets_a_token(client: IntrospectionClient, server: LoopbackServer) -> None:
    says(server, ACTIVE)
    issuer = issuer_at(server)
    await client.introspect(issuer, TOKEN)
    client.forget(Secret("opaque-token-1"))
    client.forget(Secret("never seen"))
    says(server, {"active": False})
    assert await client.introspect(issuer, TOKEN) is None


async def test_an_answer_that_was_under_way_when_its_token_was_forgotten_is_not_kept(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    says(server, ACTIVE)
    issuer = issuer_at(server)
    server.hold()
    before = asyncio.create_task(client.introspect(issuer, TOKEN))
    await server.arrived.acquire()
    client.forget(TOKEN)
    server.release()
    assert await before == ACTIVE
    says(server, {"active": False})
    assert await client.introspect(issuer, TOKEN) is None


async def test_an_issuer_without_an_endpoint_is_an_error_that_waiting_does_not_mend(
    client: IntrospectionClient,
) -> None:
    with pytest.raises(
        IntrospectionError, match="neither introspection nor key_validation"
    ) as raised:
        await client.introspect(an_issuer(), TOKEN)
    assert not raised.value.transient


async def test_closing_stops_calls_and_whoever_waits_is_told(
    client: IntrospectionClient, server: LoopbackServer
) -> None:
    server.hold()
    waiting = asyncio.create_task(client.introspect(issuer_at(server), TOKEN))
    await server.arrived.acquire()
    await client.close()
    with pytest.raises(IntrospectionError, match="closed"):
        await waiting


async def test_no_secret_is_told(
    client: IntrospectionClient, server: LoopbackServer, caplog: pytest.LogCaptureFixture
) -> None:
    told = ""
    with caplog.at_level(logging.DEBUG):
        for answer in (Answer(status=401), Answer(body=b"opaque-token-1"), Answer(status=500)):
            server.answers["/introspect"] = answer
            with pytest.raises(IntrospectionError) as raised:
                await client.introspect(issuer_at(server), TOKEN)
            error: BaseException | None = raised.value
            while error is not None:
                told += repr(error) + repr(vars(error))
                error = error.__cause__ or error.__context__
        await server.stop()
        with pytest.raises(IntrospectionError) as raised:
            await client.introspect(issuer_at(server), TOKEN)
    told += caplog.text + repr(raised.value) + repr(vars(client))
    assert "could not be asked" in told
    for secret in ("opaque-token-1", "pass", base64.b64encode(b"gw:pass").decode()):
        assert secret not in told
