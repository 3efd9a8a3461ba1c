"""Values of a request: quick to make, and frozen for the type checker."""

from __future__ import annotations

import pytest

from extauthz.model import values


def test_a_value_says_that_it_is_frozen() -> None:
    with pytest.raises(TypeError, match="write frozen=True"):
        values.request_value(frozen=False, slots=True)


def test_values_compare_and_hash_by_what_they_hold() -> None:
    @values.request_value(frozen=True, slots=True)
    class Pair:
        left: int
        right: str

    assert Pair(1, "a") == Pair(1, "a")
    assert len({Pair(1, "a"), Pair(1, "a"), Pair(2, "a")}) == 2
