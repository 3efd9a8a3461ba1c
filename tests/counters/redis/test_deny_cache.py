"""Refusals that are remembered: never longer than the store said, never for another question."""

from __future__ import annotations

from dataclasses import replace

import pytest

from extauthz.counters.redis.deny_cache import DenyCache
from extauthz.model.limits import Algorithm, Charge, Reading, Taking
from tests.builders import FakeClock, S

FULL = Charge("{a}full", Algorithm.BURST, 5, 60 * S, cost=2)
ROOMY = Charge("{a}roomy", Algorithm.FIXED_WINDOW, 9, 60 * S)
FULL_READING = Reading(exceeded=True, remaining=1, reset_us=900_000, retry_after_us=400_000)
ROOMY_READING = Reading(exceeded=False, remaining=7, reset_us=600_000, retry_after_us=0)
REFUSAL = Taking(charged=False, readings=(FULL_READING, ROOMY_READING), at_us=77)


def a_cache(**fields: int) -> tuple[DenyCache, FakeClock]:
    clock = FakeClock(1000)
    cache = DenyCache(clock.now_us, **fields)
    cache.note([FULL, ROOMY], REFUSAL, clock.us)
    return cache, clock


def test_answers_as_the_store_did() -> None:
    cache, _ = a_cache()
    assert cache.find([FULL, ROOMY]) == REFUSAL
    assert cache.find([ROOMY, FULL]) == replace(REFUSAL, readings=(ROOMY_READING, FULL_READING))


def test_times_go_on_while_it_remembers() -> None:
    cache, clock = a_cache()
    clock.us += 150_000
    assert cache.find([FULL, ROOMY]) == Taking(
        charged=False,
        readings=(
            replace(FULL_READING, reset_us=750_000, retry_after_us=250_000),
            replace(ROOMY_READING, reset_us=450_000),
        ),
        at_us=150_077,
    )


def test_never_refuses_longer_than_the_store_said() -> None:
    cache, clock = a_cache()
    clock.us += 399_999
    assert cache.find([FULL]) is not None
    clock.us += 1
    assert cache.find([FULL]) is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_asks_the_store_again_after_its_longest_time() -> None:
    cache, clock = a_cache(longest_us=100)
    clock.us += 99
    assert cache.find([FULL]) is not None
    clock.us += 1
    assert cache.find([FULL]) is None


@pytest.mark.parametrize(
    "charge",
    [
        replace(FULL, cost=1),
        replace(FULL, cost=0),
        replace(FULL, limit=6),
        replace(FULL, limit=4),
        replace(FULL, enforced=False),
        replace(FULL, key="{b}full"),
        ROOMY,
    ],
    ids=str,
)
def test_does_not_refuse_another_question(charge: Charge) -> None:
    cache, _ = a_cache()
    assert cache.find([charge]) is None


def test_refuses_a_higher_cost_as_well() -> None:
    cache, _ = a_cache()
    assert cache.find([replace(FULL, cost=3)]) is not None


def test_a_counter_that_was_never_refused_reads_as_unused() -> None:
    cache, _ = a_cache()
    new = Charge("{k}new", Algorithm.SLIDING_WINDOW, 4, 60 * S)
    refusal = cache.find([new, FULL])
    assert refusal is not None and not refusal.charged
    assert refusal.readings[0] == Reading(exceeded=False, remaining=4, reset_us=0, retry_after_us=0)


def test_what_is_given_back_is_asked_for_anew() -> None:
    cache, _ = a_cache()
    cache.forget([FULL])
    assert cache.find([FULL, ROOMY]) is None


def test_forgets_the_counters_that_were_refused_longest_ago() -> None:
    cache, clock = a_cache(max_keys=2)
    other = replace(FULL, key="{b}full")
    cache.find([FULL])
    cache.note([other], Taking(charged=False, readings=(FULL_READING,)), clock.us)
    assert len(cache) == 2
    assert cache.find([FULL]) is not None and cache.find([other]) is not None
