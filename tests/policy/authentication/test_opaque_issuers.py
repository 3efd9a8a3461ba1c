"""Opaque tokens of several issuers: who is asked, in which order, and what the answers mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from extauthz.errors import IntrospectionError, IntrospectionShareError
from extauthz.model.catalog import ClientRegistration
from extauthz.model.identity import KeyType, Secret
from extauthz.ports import Deadline
from tests.deciding import OPAQUE_ENDPOINT, Deciding
from tests.keys import a_jwt, an_issuer, claims_of
from tests.policy.authentication.identifying import (
    ACTIVE,
    MOBILE,
    OPAQUE,
    WEB,
    a_catalog_for,
    bearer,
    identify,
    identity_of,
    who,
)

RESIDENT, OKTA, AUTH0 = (
    "https://resident.example/",
    "https://okta.example/",
    "https://a0.example/",
)
ENDPOINT = replace(OPAQUE_ENDPOINT, allow_foreign_tokens=True)


def deciding_for(**known_to: str) -> Deciding:
    """Three issuers; the consumer key abc123 is that of another application at each of two."""
    catalog = a_catalog_for(
        OPAQUE,
        issuers=tuple(
            an_issuer(issuer=name, introspection=ENDPOINT) for name in (RESIDENT, OKTA, AUTH0)
        ),
        consumer_keys={
            (RESIDENT, "abc123"): ClientRegistration(application=MOBILE),
            (OKTA, "abc123"): ClientRegistration(application=WEB, key_type=KeyType.SANDBOX),
        },
    )
    deciding = Deciding(catalog)
    for token, issuer in known_to.items():
        deciding.introspector.active[token] = ACTIVE
        deciding.introspector.known_to[token] = issuer
    return deciding


async def test_the_issuers_are_asked_in_their_order_until_one_knows_the_token() -> None:
    deciding = deciding_for(one=RESIDENT, two=OKTA)
    assert await who(deciding, bearer("one")) == "opaque:mobile"
    assert deciding.introspector.asked_issuers == [RESIDENT]
    assert await who(deciding, bearer("two")) == "opaque:web"
    assert deciding.introspector.asked_issuers == [RESIDENT, RESIDENT, OKTA]


async def test_the_application_is_found_by_the_consumer_key_and_the_issuer() -> None:
    identity = await identity_of(deciding_for(two=OKTA), bearer("two"))
    assert (identity.application, identity.issuer) == (WEB, OKTA)
    assert identity.key_type is KeyType.SANDBOX
    stranger = await identity_of(deciding_for(three=AUTH0), bearer("three"))
    assert (stranger.application, stranger.consumer_key) == (None, "abc123")


async def test_a_token_that_nobody_knows_is_inactive() -> None:
    deciding = deciding_for()
    assert await who(deciding, bearer("unknown")) == "token_inactive"
    assert deciding.introspector.asked_issuers == [RESIDENT, OKTA, AUTH0]


async def test_an_issuer_that_is_away_does_not_keep_the_others_from_being_asked() -> None:
    deciding = deciding_for(two=OKTA)
    deciding.introspector.errors[RESIDENT] = IntrospectionError("away")
    assert await who(deciding, bearer("two")) == "opaque:web"


async def test_an_unknown_token_is_undecided_while_one_that_may_know_it_is_away() -> None:
    deciding = deciding_for()
    deciding.introspector.errors[OKTA] = IntrospectionError("away")
    with pytest.raises(IntrospectionError, match="away"):
        await identify(deciding, bearer("unknown"))
    assert deciding.introspector.asked_issuers == [RESIDENT, OKTA, AUTH0]


async def test_a_token_that_its_issuer_knows_and_that_does_not_fit_is_denied_in_any_case() -> None:
    deciding = deciding_for(three=AUTH0)
    deciding.introspector.active["three"] = {**ACTIVE, "aud": "elsewhere"}
    deciding.introspector.errors[RESIDENT] = IntrospectionError("away")
    assert await who(deciding, bearer("three")) == "invalid_credentials"


async def test_a_client_that_has_used_up_its_share_is_told_so_at_once() -> None:
    deciding = deciding_for()
    deciding.introspector.errors[RESIDENT] = IntrospectionShareError("too many")
    assert await who(deciding, bearer("unknown")) == "rate_limited"
    assert deciding.introspector.asked_issuers == [RESIDENT]


async def test_a_jwt_is_shown_to_its_own_issuer_alone() -> None:
    deciding = deciding_for()
    token = a_jwt(iss=OKTA)
    deciding.introspector.active[token] = claims_of(iss=OKTA)
    assert await who(deciding, bearer(token)) == "opaque:web"
    assert deciding.introspector.asked_issuers == [OKTA]
    assert await who(deciding, bearer(a_jwt(iss="https://evil.example/"))) == "invalid_credentials"
    assert deciding.introspector.asked_issuers == [OKTA]


async def test_each_issuer_gets_an_equal_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    deciding = deciding_for()
    parts: list[float | None] = []

    async def answer(*_: Any, deadline: Deadline, **__: Any) -> None:
        parts.append(deadline.monotonic_s)

    monkeypatch.setattr(deciding.introspector, "introspect", answer)
    monkeypatch.setattr("extauthz.ports.time.monotonic", lambda: 10.0)
    catalog = deciding.catalog
    verify = deciding.authenticator.tokens.verify
    await verify(Secret("unknown"), (OPAQUE,), catalog, Deadline(10.9))
    assert parts == [pytest.approx(10.3), pytest.approx(10.45), 10.9]
    parts.clear()
    await verify(Secret("unknown"), (OPAQUE,), catalog, Deadline())
    assert parts == [None, None, None]
