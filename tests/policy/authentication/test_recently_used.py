"""A bounded memory."""

from __future__ import annotations

from extauthz.policy.authentication.recently_used import RecentlyUsed


def test_forgets_what_was_not_asked_for_longest() -> None:
    kept: RecentlyUsed[str] = RecentlyUsed(2)
    kept.keep(b"a", "A")
    kept.keep(b"b", "B")
    assert kept.find(b"a") == "A"
    kept.keep(b"c", "C")
    assert (kept.find(b"a"), kept.find(b"b"), kept.find(b"c")) == ("A", None, "C")
    assert len(kept) == 2


def test_a_value_is_replaced_and_dropped() -> None:
    kept: RecentlyUsed[str] = RecentlyUsed(2)
    kept.keep(b"a", "A")
    kept.keep(b"a", "again")
    assert (kept.find(b"a"), len(kept)) == ("again", 1)
    kept.drop(b"a")
    kept.drop(b"a")
    assert kept.find(b"a") is None


def test_of_size_zero_it_keeps_nothing() -> None:
    kept: RecentlyUsed[str] = RecentlyUsed(0)
    kept.keep(b"a", "A")
    assert len(kept) == 0
