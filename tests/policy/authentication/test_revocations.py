from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.catalog import RevokedToken
from extauthz.model.decision import Reason
from extauthz.policy.authentication.revocations import KEPT_AFTER_EXPIRY_US, Revocations
from tests.builders import START_US, FakeClock, S, sha256

KEPT_S = KEPT_AFTER_EXPIRY_US // S


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def revocations(clock: FakeClock) -> Revocations:
    return Revocations(clock, max_entries=10)


def test_nothing_is_revoked_at_first(revocations: Revocations) -> None:
    assert not revocations.is_revoked()
    assert not revocations.is_revoked(
        token_id="t", digest=sha256("t"), consumer_key="c", issued_at_us=0
    )


def test_a_token_is_revoked_by_its_id_only(revocations: Revocations) -> None:
    revocations.revoke_token("t1", START_US + 60 * S)
    assert revocations.is_revoked(token_id="t1")
    assert not revocations.is_revoked(token_id="t2", consumer_key="t1")
    assert not revocations.is_revoked(token_id="")


def test_a_key_is_revoked_by_its_digest_only(revocations: Revocations) -> None:
    revocations.revoke_digest(sha256("key"))
    assert revocations.is_revoked(digest=sha256("key"))
    assert not revocations.is_revoked(digest=sha256("other"), token_id="key")


@pytest.mark.parametrize(
    ("issued_at_us", "expected"),
    [(START_US - 1, True), (START_US, False), (START_US + 1, False), (0, True), (None, True)],
)
def test_a_consumer_loses_the_tokens_that_were_issued_before(
    revocations: Revocations, issued_at_us: int | None, *, expected: bool
) -> None:
    revocations.revoke_consumer("c1", START_US)
    revocations.revoke_consumer("c1", START_US - 100 * S)  # an older order does not undo it
    assert revocations.is_revoked(consumer_key="c1", issued_at_us=issued_at_us) is expected
    assert not revocations.is_revoked(consumer_key="c2", issued_at_us=issued_at_us)


def test_a_source_s_list_replaces_its_last_one_only(revocations: Revocations) -> None:
    revocations.revoke_token("told")
    revocations.replace("catalog", [RevokedToken(token_id="a"), RevokedToken(token_id="b")])
    revocations.replace("feed", [RevokedToken(token_id="b"), RevokedToken(token_id="c")])
    revocations.replace("catalog", [RevokedToken(token_id="d")])
    revoked = {token_id for token_id in "abcd" if revocations.is_revoked(token_id=token_id)}
    assert revoked == {"b", "c", "d"}
    revocations.replace("feed", [])
    assert not revocations.is_revoked(token_id="b")
    assert revocations.is_revoked(token_id="told")
    assert len(revocations) == 2


def test_a_list_s_expired_entries_are_not_taken(revocations: Revocations) -> None:
    entries = [
        RevokedToken(token_id="over", expires_at_us=START_US - KEPT_AFTER_EXPIRY_US),
        RevokedToken(token_id="in leeway", expires_at_us=START_US - 5 * S),
        RevokedToken(token_id="for ever"),
    ]
    revocations.replace("catalog", entries)
    assert len(revocations) == 2
    assert revocations.is_revoked(token_id="in leeway")


@pytest.mark.parametrize(
    "revoke",
    [
        lambda revocations, end: revocations.revoke_token("t", end),
        lambda revocations, end: revocations.revoke_digest(b"d" * 32, end),
        lambda revocations, end: revocations.revoke_consumer("c", START_US, end),
    ],
)
def test_an_entry_is_kept_past_every_leeway_and_then_dropped(
    revocations: Revocations,
    clock: FakeClock,
    revoke: Callable[[Revocations, int | None], None],
) -> None:
    def is_revoked() -> bool:
        return revocations.is_revoked(token_id="t", digest=b"d" * 32, consumer_key="c")

    revoke(revocations, START_US + 60 * S)
    clock.advance(60 + KEPT_S - 1)
    revocations.replace("catalog", [])
    assert is_revoked()
    clock.advance(1)
    revocations.replace("catalog", [])
    assert not is_revoked()
    assert len(revocations) == 0
    revoke(revocations, None)
    clock.advance(10**9)
    revocations.replace("catalog", [])
    assert is_revoked()


def test_a_second_order_can_only_lengthen_the_first(
    revocations: Revocations, clock: FakeClock
) -> None:
    revocations.revoke_token("longer", START_US + 10 * S)
    revocations.revoke_token("longer", START_US + 99 * S)
    revocations.revoke_token("longer", START_US + 20 * S)
    revocations.revoke_token("for ever")
    revocations.revoke_token("for ever", START_US + 10 * S)
    clock.advance(98 + KEPT_S)
    revocations.replace("catalog", [])
    assert revocations.is_revoked(token_id="longer")
    clock.advance(1)
    revocations.replace("catalog", [])
    assert not revocations.is_revoked(token_id="longer")
    assert revocations.is_revoked(token_id="for ever")


def test_over_its_bound_it_complains_once_and_forgets_nothing(
    revocations: Revocations, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(20):
        revocations.revoke_token(f"t{number}", START_US + 60 * S)
    assert all(revocations.is_revoked(token_id=f"t{number}") for number in range(20))
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "11 revocations are more than the 10 expected" in record.getMessage()


def test_expired_entries_make_room_before_it_complains(
    revocations: Revocations, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(100):
        revocations.revoke_token(f"t{number}", clock.now_us())
        clock.advance(KEPT_S / 5)
    assert len(revocations) <= 6
    assert caplog.records == []


ORDERS = st.lists(st.tuples(st.integers(0, 5), st.none() | st.integers(-9000, 9000)), max_size=30)


@given(ORDERS, st.integers(0, 9000))
def test_whatever_the_order_a_live_revocation_counts(
    orders: list[tuple[int, int | None]], later_s: int
) -> None:
    clock = FakeClock()
    revocations = Revocations(clock, max_entries=2)
    ends_s: dict[int, list[int | None]] = {}
    for token, end_s in orders:
        revocations.revoke_token(str(token), None if end_s is None else START_US + end_s * S)
        ends_s.setdefault(token, []).append(end_s)
    clock.advance(later_s)
    revocations.replace("catalog", [])
    for token in range(6):
        live = any(end_s is None or end_s + KEPT_S > later_s for end_s in ends_s.get(token, []))
        assert revocations.is_revoked(token_id=str(token)) is live


# Lists that revoke all older tokens of somebody


def a_list_with(**fields: Any) -> list[RevokedToken]:
    return [RevokedToken(issued_before_us=START_US, **fields)]


@pytest.mark.parametrize(
    ("entry", "token", "expected"),
    [
        ({"user": "alice"}, {"user": "alice"}, True),
        ({"user": "alice"}, {"user": "alice", "issued_at_us": START_US - 1}, True),
        ({"user": "alice"}, {"user": "alice", "issued_at_us": START_US}, False),
        ({"user": "alice"}, {"user": "bob"}, False),
        ({"user": "alice"}, {"consumer_key": "alice"}, False),
        ({"user": "alice", "issuer": "i"}, {"user": "alice", "issuer": "i"}, True),
        ({"user": "alice", "issuer": "i"}, {"user": "alice", "issuer": "other"}, False),
        ({"consumer_key": "c"}, {"consumer_key": "c", "issuer": "i"}, True),
        ({"consumer_key": "c"}, {"consumer_key": "c", "issued_at_us": START_US}, False),
    ],
)
def test_a_list_may_revoke_the_older_tokens_of_a_client_or_user(
    revocations: Revocations, entry: dict[str, Any], token: dict[str, Any], *, expected: bool
) -> None:
    revocations.replace("catalog", a_list_with(**entry))
    denial = revocations.judge(**token)
    assert (denial is not None) is expected
    if denial is not None:
        assert denial.reason is Reason.TOKEN_REVOKED and denial.found == "revoked_tokens of catalog"
    revocations.replace("catalog", [])
    assert revocations.judge(**token) is None


def test_the_orders_of_several_lists_hold_side_by_side(revocations: Revocations) -> None:
    revocations.replace("catalog", a_list_with(user="alice"))
    revocations.replace("feed", [*a_list_with(consumer_key="c"), RevokedToken(digest=sha256("s"))])
    assert len(revocations) == 3
    assert revocations.judge(user="alice") and revocations.judge(consumer_key="c")
    assert revocations.judge(signature=sha256("s")) and revocations.judge(digest=sha256("s"))
    revocations.replace("feed", [])
    assert revocations.judge(user="alice") and not revocations.judge(consumer_key="c")
    assert not revocations.judge(signature=sha256("s"))


def test_an_order_in_a_list_ends_when_its_tokens_have_expired(clock: FakeClock) -> None:
    revocations = Revocations(clock)
    revocations.replace("catalog", a_list_with(user="alice", expires_at_us=START_US - KEPT_S * S))
    assert not revocations.judge(user="alice")


def test_a_user_loses_the_tokens_that_were_issued_before(
    revocations: Revocations, clock: FakeClock
) -> None:
    revocations.revoke_user("alice", START_US, START_US + S)
    assert revocations.is_revoked(user="alice", issued_at_us=START_US - 1)
    assert not revocations.is_revoked(user="alice", issued_at_us=START_US)
    assert not revocations.is_revoked(user="bob")
    clock.advance(KEPT_S + 1)
    revocations.replace("catalog", [])
    assert not revocations.is_revoked(user="alice")
