"""Blocks and revocations outside of a catalog, for callers who were allowed a moment ago."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from extauthz.emergency.entries import make_rules
from extauthz.model.catalog import ApiKey
from extauthz.model.decision import Denial
from extauthz.model.identity import Secret
from extauthz.model.issuers import ApiCall, Issuer
from extauthz.ports import NO_DEADLINE, Deadline
from mixer_compat.proto import model_pb2
from tests.builders import API_KEY, START_US, S, a_catalog, sha256
from tests.deciding import Deciding, GivenTokens
from tests.emergency.stores import a_block, a_revocation
from tests.keys import ISSUER, a_jwt, an_issuer
from tests.mixer_compat.asking import LISTENTRY, Asking, a_listentry, reason_of
from tests.policy.authentication.identifying import (
    JWT,
    KEY,
    MOBILE,
    OPAQUE,
    SPIFFE,
    a_catalog_for,
    bearer,
    certified,
    keyed,
)

AN_HOUR = "2023-11-14T23:13:20Z"
"""After a FakeClock's start."""


def order(deciding: Deciding, *entries: Any) -> None:
    """Puts these in force in the place of the last ones."""
    rules, orders = make_rules(entries)
    deciding.pipeline.blocks.rules, deciding.revocations.standing = rules, orders


def opaque(deciding: Deciding, **claims: Any) -> Any:
    deciding.introspector.active["opaque-1"] = {"active": True, "aud": "httpbin", **claims}
    return bearer("opaque-1")


TOKEN = bearer(a_jwt())
"""Of user alice, consumer key abc123 and application mobile."""


@pytest.mark.parametrize(
    ("request_", "entry", "reason"),
    [
        (TOKEN, a_block(application="mobile"), "blocked"),
        (TOKEN, a_block(consumer_key="abc123"), "blocked"),
        (TOKEN, a_block(user="alice"), "blocked"),
        (TOKEN, a_block(user="alice", application="mobile", consumer_key="abc123"), "blocked"),
        (TOKEN, a_block(user="alice", application="other"), "allowed"),
        (TOKEN, a_block(application="mobile", api="HttpbinAPI", version="1.0.0"), "blocked"),
        (TOKEN, a_block(application="mobile", api="HttpbinAPI", version="2"), "allowed"),
        (TOKEN, a_block(application="mobile", ip="192.0.2.0/24"), "blocked"),
        (TOKEN, a_block(application="mobile", ip="198.51.100.0/24"), "allowed"),
        (TOKEN, a_block(application="Mobile"), "allowed"),
        (TOKEN, a_block(ip="192.0.2.1"), "blocked"),
        (TOKEN, a_block(ip="::ffff:192.0.2.0/120"), "blocked"),
        (TOKEN, a_block(api="HttpbinAPI"), "blocked"),
        (TOKEN, a_block(api="HttpbinAPI", version="2"), "allowed"),
        (TOKEN, a_revocation(jti="token-1"), "token_revoked"),
        (TOKEN, a_revocation(jti="token-1", issuer=ISSUER), "token_revoked"),
        (TOKEN, a_revocation(jti="token-1", issuer="https://other.example/"), "allowed"),
        (TOKEN, a_revocation(jti="token-2"), "allowed"),
        (TOKEN, a_revocation(user="alice", issued_before="2023-11-14T22:13:20Z"), "token_revoked"),
        (TOKEN, a_revocation(user="alice", issued_before="2023-11-14T22:13:10Z"), "allowed"),
        (
            TOKEN,
            a_revocation(consumer_key="abc123", issuer=ISSUER, issued_before=AN_HOUR),
            "token_revoked",
        ),
        (
            TOKEN,
            a_revocation(consumer_key="abc123", issuer="https://x/", issued_before=AN_HOUR),
            "allowed",
        ),
        (keyed(), a_block(application="mobile"), "blocked"),
        (keyed(), a_block(user="alice"), "blocked"),
        (keyed(), a_revocation(sha256=sha256(API_KEY).hex()), "token_revoked"),
        (keyed(), a_revocation(sha256=sha256("another").hex()), "allowed"),
        (keyed(), a_revocation(user="alice", issued_before=AN_HOUR), "allowed"),
        (certified(), a_block(application="web"), "blocked"),
        (certified(), a_block(user=SPIFFE), "blocked"),
    ],
)
async def test_an_order_meets_whoever_was_good_a_moment_ago(
    request_: Any, entry: Any, reason: str
) -> None:
    deciding = Deciding(a_catalog_for(api={"subscription_required": False}))
    assert await deciding.reason(request_) == "allowed"
    order(deciding, entry)
    assert await deciding.reason(request_) == reason
    # A new catalog changes nothing of it, and neither does asking again.
    deciding.catalog = a_catalog_for(api={"subscription_required": False})
    assert await deciding.reason(request_) == reason
    order(deciding)
    assert await deciding.reason(request_) == "allowed"


async def test_an_opaque_token_that_is_remembered_is_met_too() -> None:
    deciding = Deciding(a_catalog_for(OPAQUE, api={"subscription_required": False}))
    request = opaque(deciding, sub="dave", client_id="abc123")
    assert await deciding.reason(request) == "allowed"
    for entry, reason in (
        (a_revocation(sha256=sha256("opaque-1").hex()), "token_revoked"),
        # It hides when it was issued.
        (a_revocation(user="dave", issued_before="2001-01-01T00:00:00Z"), "token_revoked"),
        (a_block(user="dave"), "blocked"),
    ):
        order(deciding, entry)
        assert await deciding.reason(request) == reason
    order(deciding)
    assert await deciding.reason(request) == "allowed"


async def test_a_key_under_a_pepper_is_taken_back_by_what_the_catalog_holds() -> None:
    digest = hmac.digest(b"pepper", API_KEY.encode(), "sha256")
    deciding = Deciding(
        a_catalog_for(
            KEY,
            api={"subscription_required": False},
            api_keys=[ApiKey(digest=digest, application=MOBILE)],
        ),
        pepper=Secret("pepper"),
    )
    assert await deciding.reason(keyed()) == "allowed"
    order(deciding, a_revocation(sha256=digest.hex()))
    assert await deciding.reason(keyed()) == "token_revoked"
    order(deciding, a_revocation(sha256=sha256(API_KEY).hex()))
    assert await deciding.reason(keyed()) == "token_revoked"


async def test_an_order_ends_with_its_time() -> None:
    deciding = Deciding(a_catalog_for(api={"subscription_required": False}))
    entries = (a_block(ip="192.0.2.1", until=AN_HOUR), a_block(application="web", until=AN_HOUR))
    order(deciding, *entries, a_revocation(jti="token-1", until="2023-11-14T22:13:21Z"))
    deciding.clock.us = START_US + S - 1
    assert await deciding.reason(bearer(a_jwt(), client="198.51.100.1")) == "token_revoked"
    deciding.clock.us = START_US + S
    assert await deciding.reason(bearer(a_jwt(), client="198.51.100.1")) == "allowed"
    deciding.clock.us = START_US + 3600 * S - 1
    assert await deciding.reason(keyed()) == "blocked"
    deciding.clock.us = START_US + 3600 * S
    assert await deciding.reason(keyed()) == "allowed"


async def test_of_two_for_the_same_the_longer_one_counts() -> None:
    deciding = Deciding(a_catalog_for(api={"subscription_required": False}))
    short = a_block(id="short", ip="192.0.2.0/24", until=AN_HOUR)
    longer = a_block(id="longer", ip="192.0.2.0/24", until="2023-11-15T22:13:20Z")
    order(deciding, short, longer)
    deciding.clock.us = START_US + 3601 * S
    assert await deciding.reason(keyed()) == "blocked"


class BlocksMeanwhile(GivenTokens):
    """An issuer that is slow: an order comes while it is asked."""

    def __init__(self, deciding: Deciding) -> None:
        super().__init__()
        self._deciding = deciding

    async def introspect(
        self,
        issuer: Issuer,
        token: Secret,
        *,
        call: ApiCall | None = None,
        deadline: Deadline = NO_DEADLINE,
        client: str = "",
    ) -> Mapping[str, Any] | Denial | None:
        order(self._deciding, a_block(user="dave"))
        return await super().introspect(issuer, token, call=call, deadline=deadline, client=client)


async def test_a_block_that_comes_while_an_issuer_is_asked_counts() -> None:
    deciding = Deciding(a_catalog_for(OPAQUE, api={"subscription_required": False}))
    slow = BlocksMeanwhile(deciding)
    slow.active["opaque-1"] = {"active": True, "aud": "httpbin", "sub": "dave"}
    deciding.authenticator.tokens._introspector = slow
    assert await deciding.reason(bearer("opaque-1")) == "blocked"


async def test_an_application_that_only_its_token_names_is_blocked() -> None:
    issuers: Sequence[Issuer] = (an_issuer(subscriptions_from_token=True),)
    token = a_jwt(
        azp="unknown-key",
        application={"name": "FromToken", "owner": "bob", "tier": "Unlimited"},
        subscribedAPIs=[
            {"name": "HttpbinAPI", "version": "1.0.0", "subscriptionTier": "Unlimited"}
        ],
    )
    deciding = Deciding(a_catalog_for(JWT, issuers=issuers))
    assert await deciding.reason(bearer(token)) == "allowed"
    order(deciding, a_block(application="FromToken"))
    assert await deciding.reason(bearer(token)) == "blocked"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (bytes([203, 0, 113, 7]), "blocked"),
        ("203.0.113.7", "blocked"),
        ("rogue", "blocked"),
        ("mallory", "blocked"),
        ("key-1", "blocked"),
        ("mobile", "allowed"),
        ("203.0.113.7:80", "malformed_request"),
    ],
)
async def test_a_listentry_is_looked_up_in_the_blocks(value: object, reason: str) -> None:
    deciding = Deciding(a_catalog())
    order(
        deciding,
        a_block(ip="203.0.113.0/24"),
        a_block(application="rogue"),
        a_block(user="mallory"),
        a_block(consumer_key="key-1"),
    )
    result = await Asking(deciding).ask(LISTENTRY, a_listentry(value))
    assert reason_of(model_pb2.CheckResult.FromString(result)) == reason


async def test_the_decision_names_the_order_and_the_client_is_not_told() -> None:
    deciding = Deciding(a_catalog_for(api={"subscription_required": False}))
    for entry in (
        a_block(id="order-1", application="mobile"),
        a_block(id="order-1", ip="192.0.2.1"),
        a_revocation(id="order-1", jti="token-1"),
    ):
        order(deciding, entry)
        deny = await deciding.deny(TOKEN)
        assert deny.denial.rule == "order-1"
        assert "order-1" not in deny.denial.detail
