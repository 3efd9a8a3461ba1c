"""Calls to issuers are counted by how they ended; what a cache answers is no call."""

from __future__ import annotations

from typing import Final

import pytest

from extauthz.clients.introspection import IntrospectionClient
from extauthz.clients.issuer_http import IssuerHttp
from extauthz.clients.jwks import JwksKeySource
from extauthz.errors import IntrospectionError, KeySourceError
from extauthz.model.identity import Secret
from extauthz.model.issuers import IntrospectionEndpoint, KeyLocation
from extauthz.telemetry.measures.dependencies import CallMeasure, CallResult
from tests.builders import FakeClock
from tests.clients.loopback import Answer, LoopbackServer, json_answer
from tests.keys import an_issuer

OK, ERROR, TIMEOUT = CallResult.OK, CallResult.ERROR, CallResult.TIMEOUT
ISSUER: Final = "https://idp.example"
SHORT_S: Final = 0.05


def list_counted(measure: CallMeasure) -> list[CallResult]:
    return [result for result, count in measure.counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("answer", "counted"),
    [
        (json_answer({"active": True}), OK),
        (json_answer({"active": False}), OK),
        (Answer(status=503), ERROR),
        (Answer(body=b"no JSON"), ERROR),
        (None, TIMEOUT),
    ],
    ids=["active", "inactive", "failing", "no answer of it", "hanging"],
)
async def test_a_question_about_a_token_counts_by_its_answer(
    answer: Answer | None, counted: CallResult, clock: FakeClock
) -> None:
    measure = CallMeasure()
    async with LoopbackServer() as server, IssuerHttp() as http:
        if answer is None:
            server.hold()
        else:
            server.answers["/introspect"] = answer
        endpoint = IntrospectionEndpoint(
            url=f"{server.url}/introspect",
            client_id="gw",
            client_secret=Secret("pass"),
            timeout_us=int((SHORT_S if answer is None else 20) * 1e6),
        )
        issuer = an_issuer(introspection=endpoint)
        client = IntrospectionClient(http, clock, measure=measure)
        if counted is OK:
            # The second answer is from the cache.
            await client.introspect(issuer, Secret("opaque"))
            await client.introspect(issuer, Secret("opaque"))
        else:
            with pytest.raises(IntrospectionError):
                await client.introspect(issuer, Secret("opaque"))
        await client.close()
    assert list_counted(measure) == [counted]


@pytest.mark.parametrize(
    ("discovery", "keys", "discovered", "fetched"),
    [
        ("good", json_answer({"keys": []}), [OK], [OK]),
        ("good", Answer(status=500), [OK], [ERROR]),
        ("good", Answer(body=b"no JSON"), [OK], [ERROR]),
        ("another's", None, [ERROR], []),
        ("hanging", None, [TIMEOUT], []),
        ("none", None, [ERROR], []),
    ],
)
async def test_a_fetch_of_keys_counts_both_of_its_calls(
    discovery: str,
    keys: Answer | None,
    discovered: list[CallResult],
    fetched: list[CallResult],
    clock: FakeClock,
) -> None:
    discoveries, fetches = CallMeasure(), CallMeasure()
    async with LoopbackServer() as server, IssuerHttp() as http:
        metadata = {
            "issuer": ISSUER if discovery == "good" else "https://another.example",
            "jwks_uri": f"{server.url}/keys",
        }
        if discovery == "hanging":
            server.hold()
        elif discovery != "none":
            server.answers["/discovery"] = json_answer(metadata)
        if keys is not None:
            server.answers["/keys"] = keys
        source = JwksKeySource(
            http,
            clock,
            timeout_s=SHORT_S if discovery == "hanging" else 20,
            fetches=fetches,
            discoveries=discoveries,
        )
        issuer = an_issuer(issuer=ISSUER, keys=KeyLocation(discovery_url=f"{server.url}/discovery"))
        if fetched == [OK]:
            await source.find_keys(issuer, "1")
        else:
            with pytest.raises(KeySourceError):
                await source.find_keys(issuer, "1")
        await source.close()
    assert list_counted(discoveries) == discovered
    assert list_counted(fetches) == fetched
