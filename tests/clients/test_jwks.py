from __future__ import annotations

import asyncio
import base64
import gzip
import logging
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from extauthz.clients.issuer_http import IssuerHttp
from extauthz.clients.jwks import MAX_BODY_BYTES, JwksKeySource
from extauthz.errors import KeySourceError
from extauthz.model.identity import Secret
from extauthz.model.issuers import Issuer, KeyLocation
from extauthz.policy.authentication.tokens import UnverifiedToken, read_token, verify_token
from extauthz.policy.authentication.verification_keys import NamedKey
from extauthz.ports import Deadline, KeySource
from tests.builders import START_US, FakeClock
from tests.clients.loopback import Answer, LoopbackServer, json_answer
from tests.keys import (
    ISSUER,
    PrivateKey,
    a_jwk,
    a_jwks,
    a_jwt,
    an_issuer,
    ec_key,
    public_pem,
    rsa_key,
)


@pytest.fixture
async def source(http: IssuerHttp, clock: FakeClock) -> AsyncIterator[JwksKeySource]:
    made = JwksKeySource(http, clock, timeout_s=5)
    yield made
    await made.close()


def publishes(server: LoopbackServer, **keys: PrivateKey) -> None:
    """Serves a JWK Set with these keys; none at all is an empty set."""
    jwks = [a_jwk(key, kid) for kid, key in keys.items()]
    server.answers["/jwks"] = json_answer({"keys": jwks})


def jwks_issuer(server: LoopbackServer, **fields: Any) -> Issuer:
    return an_issuer(keys=KeyLocation(jwks_url=f"{server.url}/jwks"), **fields)


def discovered_issuer(server: LoopbackServer) -> Issuer:
    return an_issuer(keys=KeyLocation(discovery_url=f"{server.url}/.well-known"))


def within(seconds: float) -> Deadline:
    return Deadline(time.monotonic() + seconds)


def names_of(keys: Sequence[NamedKey]) -> list[str | None]:
    return [key.key_id for key in keys]


async def settle(source: JwksKeySource) -> None:
    """Waits for fetches that run behind."""
    await asyncio.gather(*source._fetches)


async def test_fetches_once_and_remembers(source: JwksKeySource, server: LoopbackServer) -> None:
    publishes(server, k1=rsa_key(), k2=ec_key())
    issuer = jwks_issuer(server)
    assert names_of(await source.find_keys(issuer, "k1")) == ["k1"]
    assert names_of(await source.find_keys(issuer, None)) == ["k1", "k2"]
    assert len(server.asked) == 1
    assert (source.hits, source.misses) == (1, 1)
    port: KeySource = source
    token = read_token(a_jwt())
    assert isinstance(token, UnverifiedToken)
    keys = await port.find_keys(issuer, token.key_id)
    assert isinstance(verify_token(token, issuer, keys, START_US), dict)


async def test_fifty_concurrent_requests_share_one_fetch(
    source: JwksKeySource, server: LoopbackServer
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    found = await asyncio.gather(*(source.find_keys(issuer, "k1") for _ in range(50)))
    assert [names_of(keys) for keys in found] == [["k1"]] * 50
    assert len(server.asked) == 1


async def test_an_unknown_key_name_fetches_again_after_the_cool_down(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    publishes(server, k1=rsa_key(), k2=rsa_key("next"))
    clock.advance(29)
    for guess in ("k2", "x", "y"):
        assert await source.find_keys(issuer, guess) == ()
    assert len(server.asked) == 1
    clock.advance(1)
    assert names_of(await source.find_keys(issuer, "k2")) == ["k2"]
    assert len(server.asked) == 2


@pytest.mark.parametrize("kid", ["k1", None], ids=["under the same name", "without a name"])
async def test_a_replaced_key_is_fetched_when_a_signature_fails_after_the_cool_down(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock, kid: str | None
) -> None:
    server.answers["/jwks"] = Answer(body=a_jwks(a_jwk(rsa_key(), kid)).encode())
    issuer = jwks_issuer(server)
    before = await source.find_keys(issuer, kid)
    server.answers["/jwks"] = Answer(body=a_jwks(a_jwk(rsa_key("next"), kid)).encode())
    clock.advance(29)
    assert await source.find_newer_keys(issuer, kid, before) == ()
    clock.advance(1)
    (newer,) = await source.find_newer_keys(issuer, kid, before)
    assert newer.key == rsa_key("next").public_key()
    assert len(server.asked) == 2
    # Who looked at the old ones meanwhile gets these without a fetch.
    clock.advance(30)
    assert await source.find_newer_keys(issuer, kid, before) == (newer,)
    assert len(server.asked) == 2


async def test_bad_signatures_cost_one_fetch_for_each_cool_down_and_others_do_not_wait(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    known = await source.find_keys(issuer, "k1")
    for _ in range(3):
        clock.advance(30)
        server.hold()
        guesses = [
            asyncio.create_task(source.find_newer_keys(issuer, "k1", known)) for _ in range(20)
        ]
        await server.arrived.acquire()
        await server.arrived.acquire()
        assert await source.find_keys(issuer, "k1") == known
        server.arrived.release()
        server.release()
        assert set(await asyncio.gather(*guesses)) == {()}
    assert len(server.asked) == 4


async def test_a_failed_search_for_newer_keys_finds_none_and_keeps_the_old(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    known = await source.find_keys(issuer, "k1")
    server.hold()
    clock.advance(30)
    assert await source.find_newer_keys(issuer, "k1", known, deadline=within(0.05)) == ()
    server.release()
    await settle(source)
    await server.stop()
    clock.advance(30)
    assert await source.find_newer_keys(issuer, "k1", known) == ()
    assert await source.find_keys(issuer, "k1") == known


@pytest.mark.parametrize("kid", ["k1", "made-up", None])
async def test_a_token_that_no_key_signed_is_judged_in_time_while_its_issuer_hangs(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock, kid: str | None
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    server.hold()
    clock.advance(30)
    deadline = within(0.8)
    found = await source.find_keys(issuer, kid, deadline=deadline)
    assert await source.find_newer_keys(issuer, kid, found, deadline=deadline) == ()
    # Hosts end a call at its deadline: what comes together with it may not be sent any more.
    assert deadline.monotonic_s is not None
    assert deadline.monotonic_s - time.monotonic() > 0.08
    assert len(server.asked) == 2


async def test_configured_keys_are_not_looked_for_again(source: JwksKeySource) -> None:
    issuer = an_issuer(keys=KeyLocation(jwks=a_jwks()))
    known = await source.find_keys(issuer, "k1")
    assert await source.find_newer_keys(issuer, "k1", known) == ()
    assert await source.find_newer_keys(an_issuer(keys=None), "k1", known) == ()


async def test_random_key_names_cost_one_fetch_for_each_cool_down(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    for _ in range(3):
        clock.advance(30)
        guesses = (source.find_keys(issuer, f"guess-{number}") for number in range(20))
        assert set(await asyncio.gather(*guesses)) == {()}
        assert names_of(await source.find_keys(issuer, "k1")) == ["k1"]
    assert len(server.asked) == 4


async def test_a_clock_that_was_set_back_does_not_stop_rotation(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    publishes(server, k2=rsa_key("next"))
    clock.advance(-3600)
    assert names_of(await source.find_keys(issuer, "k2")) == ["k2"]


async def test_keys_are_refreshed_when_the_clock_was_set_back(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    publishes(server, k2=rsa_key("next"))
    clock.advance(-3600)
    await source.find_keys(issuer, "k1")
    await settle(source)
    assert await source.find_keys(issuer, "k1") == ()


async def test_old_keys_are_refreshed_behind_without_making_a_request_wait(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    publishes(server, k2=rsa_key("next"))
    server.hold()
    clock.advance(300)
    # The server does not answer, and yet the known key is there at once.
    assert names_of(await source.find_keys(issuer, "k1")) == ["k1"]
    server.release()
    await settle(source)
    assert await source.find_keys(issuer, "k1") == ()
    assert names_of(await source.find_keys(issuer, "k2")) == ["k2"]
    assert len(server.asked) == 2


async def test_known_keys_stay_when_a_refresh_fails_and_it_is_logged_once(
    source: JwksKeySource,
    server: LoopbackServer,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    server.answers["/jwks"] = Answer(status=500)
    with caplog.at_level(logging.INFO, "extauthz"):
        for _ in range(5):
            clock.advance(300)
            assert names_of(await source.find_keys(issuer, "k1")) == ["k1"]
            await settle(source)
        publishes(server, k1=rsa_key())
        clock.advance(300)
        await source.find_keys(issuer, "k1")
        await settle(source)
    assert len(server.asked) == 7
    assert [record.getMessage() for record in caplog.records] == [
        f"the keys of {ISSUER} could not be fetched (the answer is of status 500 and not 200); "
        "known keys stay in use",
        f"the keys of {ISSUER} can be fetched again",
    ]


async def test_an_unknown_key_name_during_an_outage_is_a_denial_and_no_outage(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    await server.stop()
    clock.advance(30)
    assert await source.find_keys(issuer, "forged") == ()


async def test_a_server_that_refuses_at_first_is_asked_again_after_the_cool_down(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    server.answers["/jwks"] = Answer(status=401)
    issuer = jwks_issuer(server)
    with pytest.raises(KeySourceError, match="status 401"):
        await source.find_keys(issuer, "k1")
    publishes(server, k1=rsa_key())
    for _ in range(10):
        with pytest.raises(KeySourceError, match="status 401"):
            await source.find_keys(issuer, "k1")
    assert len(server.asked) == 1
    clock.advance(30)
    assert names_of(await source.find_keys(issuer, "k1")) == ["k1"]


async def test_a_dead_server_fails_fast_and_is_left_alone(
    source: JwksKeySource, server: LoopbackServer
) -> None:
    issuer = jwks_issuer(server)
    await server.stop()
    for _ in range(3):
        with pytest.raises(KeySourceError, match="connection refused"):
            await source.find_keys(issuer, "k1", deadline=within(5))


async def test_a_silent_server_costs_a_request_no_more_than_its_deadline(
    source: JwksKeySource, server: LoopbackServer
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    server.hold()
    started_s = time.monotonic()
    with pytest.raises(KeySourceError, match="deadline"):
        await source.find_keys(issuer, "k1", deadline=within(0.05))
    with pytest.raises(KeySourceError, match="deadline"):
        await source.find_keys(issuer, "k1", deadline=within(-1))
    assert time.monotonic() - started_s < 2
    # The fetch went on for others.
    server.release()
    assert names_of(await source.find_keys(issuer, "k1")) == ["k1"]
    assert len(server.asked) == 1


async def test_a_rotation_that_takes_too_long_is_a_denial_and_no_outage(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    server.hold()
    clock.advance(30)
    assert await source.find_keys(issuer, "forged", deadline=within(0.05)) == ()
    assert names_of(await source.find_keys(issuer, "k1")) == ["k1"]


async def test_a_fetch_has_a_time_limit_of_its_own(
    http: IssuerHttp, clock: FakeClock, server: LoopbackServer
) -> None:
    server.hold()
    source = JwksKeySource(http, clock, timeout_s=0.05)
    with pytest.raises(KeySourceError, match=r"no answer within 0\.05 s|ReadTimeout"):
        await source.find_keys(jwks_issuer(server), "k1")
    await source.close()


async def test_a_cancelled_request_leaves_the_fetch_to_the_others(
    source: JwksKeySource, server: LoopbackServer
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    server.hold()
    first = asyncio.create_task(source.find_keys(issuer, "k1"))
    second = asyncio.create_task(source.find_keys(issuer, "k1"))
    await server.arrived.acquire()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    server.release()
    assert names_of(await second) == ["k1"]
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(body=b" " * (MAX_BODY_BYTES + 1)), "larger"),
        (Answer(body=b" " * 100, headers={"content-length": "200"}), "RemoteProtocolError"),
        (Answer(body=gzip.compress(b"{}"), headers={"content-encoding": "gzip"}), "compressed"),
        (Answer(status=302, headers={"location": "/good"}), "status 302"),
        (Answer(status=307, headers={"location": "http://127.0.0.1:9/"}), "status 307"),
        (Answer(status=204), "status 204"),
        (Answer(body=b""), "JSON"),
        (Answer(body=b"<html>"), "JSON"),
        (Answer(body=b"[]"), "not a JSON object"),
        (Answer(body=b'{"keys": 1}'), "keys"),
        (json_answer({"keys": [{}] * 101}), "101 keys"),
        (Answer(body=b"[" * 100_000), "JSON"),
    ],
)
async def test_refuses_an_answer_that_is_no_key_set(
    source: JwksKeySource, server: LoopbackServer, answer: Answer, told: str
) -> None:
    server.answers["/jwks"] = answer
    server.answers["/good"] = Answer(body=a_jwks().encode())
    with pytest.raises(KeySourceError, match=told):
        await source.find_keys(jwks_issuer(server), "k1")
    assert len(server.asked) == 1


async def test_uses_the_good_keys_of_a_set_and_names_the_others(
    source: JwksKeySource, server: LoopbackServer, caplog: pytest.LogCaptureFixture
) -> None:
    private = a_jwk(rsa_key("leaked"), "leaked", d="c2VjcmV0")
    jwks = [private, a_jwk(rsa_key(), "k1"), {"kty": "new"}]
    server.answers["/jwks"] = json_answer({"keys": jwks})
    issuer = jwks_issuer(server)
    assert names_of(await source.find_keys(issuer, None)) == ["k1"]
    assert await source.find_keys(issuer, "leaked") == ()
    assert "keys[0]: a private key" in caplog.text
    assert "keys[2]: kty is not" in caplog.text
    assert "c2VjcmV0" not in caplog.text


async def test_an_emptied_set_takes_every_key_back(
    source: JwksKeySource, server: LoopbackServer, clock: FakeClock
) -> None:
    publishes(server, k1=rsa_key())
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    publishes(server)
    clock.advance(300)
    await source.find_keys(issuer, "k1")
    await settle(source)
    assert await source.find_keys(issuer, None) == ()


async def test_finds_the_key_set_by_discovery(
    source: JwksKeySource, server: LoopbackServer
) -> None:
    publishes(server, k1=rsa_key())
    server.answers["/.well-known"] = json_answer(
        {"issuer": ISSUER, "jwks_uri": f"{server.url}/jwks"}
    )
    assert names_of(await source.find_keys(discovered_issuer(server), "k1")) == ["k1"]
    assert [asked.path for asked in server.asked] == ["/.well-known", "/jwks"]


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (
            {"issuer": "https://other.example/", "jwks_uri": "https://idp.example/"},
            "another issuer",
        ),
        ({"issuer": ISSUER.rstrip("/"), "jwks_uri": "https://idp.example/"}, "another issuer"),
        ({"jwks_uri": "https://idp.example/"}, "another issuer"),
        ({"issuer": ISSUER}, "without jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": 1}, "without jwks_uri"),
        ({"issuer": ISSUER, "jwks_uri": "file:///etc/passwd"}, "that is not https"),
        ({"issuer": ISSUER, "jwks_uri": "/jwks"}, "that is not https"),
        ({"issuer": ISSUER, "jwks_uri": "https://idp.example:port/"}, "InvalidURL"),
        ([], "not a JSON object"),
    ],
)
async def test_refuses_a_discovery_document_that_cannot_be_trusted(
    source: JwksKeySource, server: LoopbackServer, document: Any, told: str
) -> None:
    server.answers["/.well-known"] = json_answer(document)
    with pytest.raises(KeySourceError, match=told):
        await source.find_keys(discovered_issuer(server), "k1")
    assert [asked.path for asked in server.asked] == ["/.well-known"]


async def test_a_new_catalog_keeps_the_keys_of_unchanged_issuers(
    source: JwksKeySource, server: LoopbackServer
) -> None:
    publishes(server, k1=rsa_key())
    server.answers["/elsewhere"] = server.answers["/jwks"]
    issuer = jwks_issuer(server)
    await source.find_keys(issuer, "k1")
    relaxed = jwks_issuer(server, leeway_s=30)
    source.retain([relaxed])
    await source.find_keys(relaxed, "k1")
    assert len(server.asked) == 1
    moved = an_issuer(keys=KeyLocation(jwks_url=f"{server.url}/elsewhere"))
    await source.find_keys(moved, "k1")
    assert len(server.asked) == 2
    source.retain([moved])
    await source.find_keys(issuer, "k1")
    assert len(server.asked) == 3


async def test_closing_stops_fetches_and_whoever_waits_is_told(
    source: JwksKeySource, server: LoopbackServer
) -> None:
    server.hold()
    waiting = asyncio.create_task(source.find_keys(jwks_issuer(server), "k1"))
    await server.arrived.acquire()
    await source.close()
    with pytest.raises(KeySourceError, match="closed"):
        await waiting
    with pytest.raises(KeySourceError, match="closed"):
        await source.find_keys(an_issuer(keys=KeyLocation(jwks_url=f"{server.url}/b")), "k1")


@pytest.mark.parametrize(
    ("location", "key_type"),
    [
        (KeyLocation(jwks=a_jwks()), "RSAPublicKey"),
        (KeyLocation(pem=public_pem(ec_key())), "ECPublicKey"),
        (KeyLocation(hmac_secret=Secret("s" * 32)), "bytes"),
    ],
)
async def test_reads_keys_that_the_configuration_holds(
    source: JwksKeySource, location: KeyLocation, key_type: str
) -> None:
    issuer = an_issuer(keys=location)
    (key,) = await source.find_keys(issuer, "k1")
    assert type(key.key).__name__ == key_type
    assert (await source.find_keys(issuer, "k1"))[0] is key
    assert "s" * 32 not in repr(key)


async def test_reads_every_block_of_a_pem_text(source: JwksKeySource) -> None:
    pem = "# two keys\n" + public_pem(rsa_key()) + "\n" + public_pem(ec_key())
    assert len(await source.find_keys(an_issuer(keys=KeyLocation(pem=pem)), "any")) == 2


@pytest.mark.parametrize(
    ("location", "told"),
    [
        (None, "no keys"),
        (KeyLocation(), "no place"),
        (KeyLocation(jwks="{"), "JSON"),
        (KeyLocation(pem="nothing here"), "0 keys"),
        (KeyLocation(pem=public_pem(rsa_key("small", bits=1024))), "2048"),
        (KeyLocation(pem=public_pem(rsa_key()).replace("MIIB", "AAAA")), "cannot be read"),
        (
            KeyLocation(pem="-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"),
            "private key",
        ),
        (KeyLocation(hmac_secret=Secret("hunter2")), "shorter than 32 bytes"),
    ],
)
async def test_unusable_configured_keys_are_an_error_that_waiting_does_not_mend(
    source: JwksKeySource, location: KeyLocation | None, told: str
) -> None:
    with pytest.raises(KeySourceError, match=told) as raised:
        await source.find_keys(an_issuer(keys=location), "k1")
    assert not raised.value.transient
    assert "hunter2" not in str(raised.value)


async def test_a_password_in_a_url_is_sent_and_not_told(
    source: JwksKeySource,
    server: LoopbackServer,
    clock: FakeClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = server.url.replace("http://", "http://user:hunter2@")
    issuer = an_issuer(keys=KeyLocation(jwks_url=f"{url}/jwks"))
    with caplog.at_level(logging.INFO):
        with pytest.raises(KeySourceError) as raised:
            await source.find_keys(issuer, "k1")
        publishes(server, k1=rsa_key())
        clock.advance(30)
        assert names_of(await source.find_keys(issuer, "k1")) == ["k1"]
        await server.stop()
        clock.advance(300)
        await source.find_keys(issuer, "k1")
        await settle(source)
    assert "connection refused" in caplog.text
    assert "hunter2" not in caplog.text + str(raised.value)
    basic = base64.b64encode(b"user:hunter2").decode()
    assert [asked.headers["authorization"] for asked in server.asked] == [f"Basic {basic}"] * 2
