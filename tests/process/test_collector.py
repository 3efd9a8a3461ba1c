"""What is set of the collector, and that it is set back."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from extauthz.process import collector


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)


def test_no_full_collection_begins_while_one_holds_it_back() -> None:
    gc.set_threshold(500, 7, 9)
    with collector.without_full_collections():
        young, middle, old = gc.get_threshold()
        assert (young, middle) == (500, 7) and old > 10**9
        with collector.without_full_collections():
            assert gc.get_threshold()[2] == old
        assert gc.get_threshold()[2] == old
    assert gc.get_threshold() == (500, 7, 9)


def test_the_thresholds_come_back_after_a_failure_in_whatever_order_holds_end() -> None:
    gc.set_threshold(500, 7, 9)
    first, second = collector.without_full_collections(), collector.without_full_collections()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold()[2] > 10**9
    failure = KeyError()
    second.__exit__(KeyError, failure, failure.__traceback__)
    assert gc.get_threshold() == (500, 7, 9)


def test_what_is_kept_for_good_is_not_looked_at_until_it_is_taken_back() -> None:
    kept = [[number] for number in range(1_000)]
    collector.keep_for_good()
    try:
        assert gc.get_freeze_count() > len(kept)
        assert not any(it is kept for it in gc.get_objects())
    finally:
        collector.keep_no_longer()
    assert gc.get_freeze_count() == 0
    assert any(it is kept for it in gc.get_objects())
