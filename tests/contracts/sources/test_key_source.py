"""What every source of keys does: over HTTP, from the catalog, traced, and the tests' double."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from typing import Final

import pytest

from extauthz.clients.issuer_http import IssuerHttp
from extauthz.clients.jwks import JwksKeySource
from extauthz.errors import KeySourceError
from extauthz.model.issuers import Issuer, KeyLocation
from extauthz.policy.authentication.tokens import UnverifiedToken, read_token, verify_token
from extauthz.policy.authentication.verification_keys import read_jwks
from extauthz.ports import Deadline, KeySource, VerificationKey
from tests.builders import START_US, FakeClock
from tests.clients.loopback import Answer, LoopbackServer, json_answer
from tests.contracts.sources.tracing import trace_this_call
from tests.deciding import GivenKeys
from tests.keys import ISSUER, PrivateKey, a_jwk, a_jwks, a_jwt, an_issuer, ec_key, rsa_key


@dataclass(frozen=True)
class Kept:
    """A source, and an issuer with the keys k1 and k2 in it.

    Attributes:
        replace_keys: gives the issuer other keys; None where only a new catalog does.
        go_away: makes it impossible to find out what its keys are.
    """

    source: KeySource
    issuer: Issuer
    replace_keys: Callable[..., None] | None
    go_away: Callable[[], None]


@dataclass(frozen=True)
class Outside:
    """What a source is made with."""

    http: IssuerHttp
    server: LoopbackServer
    clock: FakeClock
    stack: AsyncExitStack

    def open_source(self) -> JwksKeySource:
        made = JwksKeySource(self.http, self.clock, timeout_s=5)
        self.stack.push_async_callback(made.close)
        return made

    def publish(self, **keys: PrivateKey) -> None:
        jwks = [a_jwk(key, kid) for kid, key in keys.items()]
        self.server.answers["/jwks"] = json_answer({"keys": jwks})
        told = {"issuer": ISSUER, "jwks_uri": f"{self.server.url}/jwks"}
        self.server.answers["/discovery"] = json_answer(told)

    def go_away(self) -> None:
        self.server.answers.clear()
        self.server.answers["/jwks"] = Answer(status=500)


def keep_fetched(outside: Outside) -> Kept:
    location = KeyLocation(jwks_url=f"{outside.server.url}/jwks")
    outside.publish(k1=rsa_key(), k2=ec_key())
    issuer = an_issuer(keys=location, algorithms=("RS256", "ES256"))
    return Kept(outside.open_source(), issuer, outside.publish, outside.go_away)


def keep_discovered(outside: Outside) -> Kept:
    kept = keep_fetched(outside)
    location = KeyLocation(discovery_url=f"{outside.server.url}/discovery")
    return replace(kept, issuer=replace(kept.issuer, keys=location))


def keep_configured(outside: Outside) -> Kept:
    jwks = a_jwks(a_jwk(rsa_key(), "k1"), a_jwk(ec_key(), "k2"))
    issuer = an_issuer(keys=KeyLocation(jwks=jwks), algorithms=("RS256", "ES256"))
    return Kept(outside.open_source(), issuer, None, lambda: None)


def keep_traced(outside: Outside) -> Kept:
    kept = keep_fetched(outside)
    return replace(kept, source=trace_this_call().watch_keys(kept.source))


def keep_given(outside: Outside) -> Kept:
    given = GivenKeys()

    def go_away() -> None:
        given.error = KeySourceError("away")

    def replace_keys(**keys: PrivateKey) -> None:
        written = a_jwks(*(a_jwk(key, kid) for kid, key in keys.items()))
        given.newer = read_jwks(written.encode()).find(None)

    return Kept(given, keep_configured(outside).issuer, replace_keys, go_away)


KEEPERS: Final = {
    "fetched": keep_fetched,
    "discovered": keep_discovered,
    "configured": keep_configured,
    "fetched, traced": keep_traced,
    "given": keep_given,
}
CHANGING: Final = [name for name in KEEPERS if name != "configured"]
"""Those whose keys may change, and be away, while the catalog stays."""


@pytest.fixture
async def outside(
    http: IssuerHttp, server: LoopbackServer, clock: FakeClock
) -> AsyncIterator[Outside]:
    async with AsyncExitStack() as stack:
        yield Outside(http, server, clock, stack)


def names_of(keys: Sequence[VerificationKey]) -> list[str | None]:
    return [getattr(key, "key_id", None) for key in keys]


def verifies(keys: Sequence[VerificationKey], issuer: Issuer, token: str) -> bool:
    read = read_token(token)
    assert isinstance(read, UnverifiedToken)
    return isinstance(verify_token(read, issuer, keys, START_US), dict)


@pytest.mark.parametrize("name", KEEPERS)
async def test_gives_the_keys_that_a_token_names(name: str, outside: Outside) -> None:
    kept = KEEPERS[name](outside)
    for kid, key, algorithm in (("k1", rsa_key(), "RS256"), ("k2", ec_key(), "ES256")):
        found = await kept.source.find_keys(kept.issuer, kid)
        assert names_of(found) == [kid]
        assert verifies(found, kept.issuer, a_jwt(key=key, algorithm=algorithm, kid=kid))


@pytest.mark.parametrize("name", KEEPERS)
async def test_gives_all_keys_for_a_token_that_names_none(name: str, outside: Outside) -> None:
    kept = KEEPERS[name](outside)
    assert names_of(await kept.source.find_keys(kept.issuer, None)) == ["k1", "k2"]


@pytest.mark.parametrize("name", KEEPERS)
async def test_gives_nothing_for_a_name_that_the_issuer_does_not_have(
    name: str, outside: Outside
) -> None:
    kept = KEEPERS[name](outside)
    assert await kept.source.find_keys(kept.issuer, "k3") == ()


@pytest.mark.parametrize("name", KEEPERS)
async def test_nothing_is_newer_while_nothing_changes(name: str, outside: Outside) -> None:
    kept = KEEPERS[name](outside)
    found = await kept.source.find_keys(kept.issuer, "k1")
    outside.clock.advance(60)
    assert await kept.source.find_newer_keys(kept.issuer, "k1", found) == ()


@pytest.mark.parametrize("name", CHANGING)
async def test_gives_a_key_that_took_the_place_of_one_with_its_name(
    name: str, outside: Outside
) -> None:
    kept = KEEPERS[name](outside)
    found = await kept.source.find_keys(kept.issuer, "k1")
    token = a_jwt(key=rsa_key("next"))
    assert not verifies(found, kept.issuer, token)
    assert kept.replace_keys is not None
    kept.replace_keys(k1=rsa_key("next"))
    outside.clock.advance(60)
    newer = await kept.source.find_newer_keys(kept.issuer, "k1", found)
    assert verifies(newer, kept.issuer, token)


@pytest.mark.parametrize("name", CHANGING)
async def test_raises_while_no_keys_are_known_and_none_can_be_had(
    name: str, outside: Outside
) -> None:
    kept = KEEPERS[name](outside)
    kept.go_away()
    with pytest.raises(KeySourceError):
        await kept.source.find_keys(kept.issuer, "k1")
    assert await kept.source.find_newer_keys(kept.issuer, "k1", ()) == ()


@pytest.mark.parametrize("name", ["fetched", "discovered", "fetched, traced"])
async def test_raises_at_the_deadline_while_the_issuer_is_silent(
    name: str, outside: Outside
) -> None:
    kept = KEEPERS[name](outside)
    outside.server.hold()
    with pytest.raises(KeySourceError):
        await kept.source.find_keys(kept.issuer, "k1", deadline=Deadline(time.monotonic() + 0.05))


@pytest.mark.parametrize("name", KEEPERS)
async def test_raises_for_an_issuer_whose_keys_are_nowhere(name: str, outside: Outside) -> None:
    kept = KEEPERS[name](outside)
    with pytest.raises(KeySourceError):
        await kept.source.find_keys(replace(kept.issuer, keys=None), "k1")
