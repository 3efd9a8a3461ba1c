"""Bytes of finished requests, charged from the notes that their decisions left."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.counters.memory import MemoryCounterStore
from extauthz.errors import MalformedRequest
from extauthz.model.decision import Allow
from extauthz.model.limits import Algorithm, CalendarUnit, Limit, QuotaUnit
from extauthz.policy.limits.byte_charges import (
    MAX_NOTES,
    ByteCharger,
    list_byte_charges,
    read_byte_charge,
)
from extauthz.policy.limits.quota import UsedBytes
from tests.builders import API_KEY, START_US, FakeClock, a_catalog, a_limit, a_request, a_tier
from tests.deciding import Deciding

REQUEST: Final = a_request(headers={"x-api-key": API_KEY})
USED: Final = UsedBytes(request_bytes=300, response_bytes=600)
SLIDING: Final = a_limit(1000, quota_unit=QuotaUnit.BYTES)
LIMITS: Final = [
    SLIDING,
    replace(SLIDING, algorithm=Algorithm.FIXED_WINDOW),
    replace(
        SLIDING,
        algorithm=Algorithm.CALENDAR,
        unit=CalendarUnit.MONTH,
        timezone=ZoneInfo("Europe/Berlin"),
    ),
]
BAD: Final = MalformedRequest


def subscribed(*limits: Limit, **tier: Any) -> Deciding:
    made = replace(a_tier("T", *limits), **tier)
    return Deciding(a_catalog(subscription_fields={"tier": made}))


def a_charger(deciding: Deciding) -> ByteCharger:
    return ByteCharger(deciding.memory, deciding.clock)


async def notes_of(deciding: Deciding) -> tuple[Allow, list[str]]:
    allow = await deciding.allow(REQUEST)
    return allow, list_byte_charges(allow.limits)


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: limit.algorithm.value)
async def test_bytes_are_charged_to_the_counters_of_the_decision(limit: Limit) -> None:
    deciding = subscribed(limit, a_limit(5))
    allow, notes = await notes_of(deciding)
    assert len(notes) == 1, "a limit in requests is not noted"
    await a_charger(deciding).charge(notes, USED, allow.id)
    again = await deciding.allow(REQUEST)
    assert [status.reading.remaining for status in again.limits] == [100, 3]


async def test_a_decision_is_charged_once() -> None:
    deciding = subscribed(SLIDING)
    allow, notes = await notes_of(deciding)
    for _ in range(3):
        await a_charger(deciding).charge(notes, USED, allow.id)
    again = await deciding.allow(REQUEST)
    assert [status.reading.remaining for status in again.limits] == [100]


async def test_more_than_is_left_is_charged_and_refuses_the_next_request() -> None:
    deciding = subscribed(SLIDING)
    allow, notes = await notes_of(deciding)
    much = UsedBytes(request_bytes=10**13, response_bytes=10**13)
    await a_charger(deciding).charge(notes, much, allow.id)
    await deciding.deny(REQUEST)


@pytest.mark.parametrize("used", [(0, 0), (-1, -1), (-1, 0)])
async def test_nothing_used_or_known_charges_nothing(used: tuple[int, int]) -> None:
    deciding = subscribed(SLIDING)
    allow, notes = await notes_of(deciding)
    bytes_used = UsedBytes(request_bytes=used[0], response_bytes=used[1])
    await a_charger(deciding).charge(notes, bytes_used, allow.id)
    again = await deciding.allow(REQUEST)
    assert [status.reading.remaining for status in again.limits] == [1000]


async def test_a_note_has_all_that_the_charge_had() -> None:
    deciding = subscribed(*LIMITS)
    allow, notes = await notes_of(deciding)
    read = [read_byte_charge(note, 900, deciding.clock.now_us()) for note in notes]
    assert read == [
        replace(status.charge, cost=900, enforced=False)
        for status in allow.limits
        if status.charge is not None
    ]


GOOD: Final = ["{aapp}s|bytes-sliding-1", "sliding_window", 1000, 1, "", "", "local", "", False]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "{aapp}s|sliding-1"),
        (0, 1),
        (0, ["|bytes-sliding-1"]),
        (1, "burst"),
        (1, "fixed_window"),
        (3, 2),
        (1, "no-such"),
        (1, "calendar"),
        (2, -1),
        (2, 1.5),
        (2, True),
        (2, 2**60),
        (3, "1"),
        (4, "fortnight"),
        (5, "../../etc/passwd"),
        (6, "perhaps"),
        (7, None),
        (8, 1),
    ],
)
def test_a_note_that_is_none_is_refused(place: int, value: object) -> None:
    assert read_byte_charge(json.dumps(GOOD), 1, START_US).key == GOOD[0]
    written = list(GOOD)
    written[place] = value
    if place == 5:
        written[4], written[1] = "day", "calendar"
    with pytest.raises(BAD):
        read_byte_charge(json.dumps(written), 1, START_US)


@pytest.mark.parametrize("algorithm", ["sliding_window", "fixed_window", "burst"])
def test_a_window_without_a_length_is_refused(algorithm: str) -> None:
    rule = {"sliding_window": "sliding"}.get(algorithm, algorithm)
    note = json.dumps([f"{{aapp}}s|bytes-{rule}-0", algorithm, 1000, 0, *GOOD[4:]])
    with pytest.raises(BAD):
        read_byte_charge(note, 1, START_US)


@given(note=st.text(max_size=50) | st.just("[" * 5000))
def test_any_text_is_a_note_or_refused(note: str) -> None:
    with pytest.raises(BAD):
        read_byte_charge(note, 1, START_US)


async def test_too_many_notes_or_none_of_a_decision_are_refused() -> None:
    clock = FakeClock()
    charger = ByteCharger(MemoryCounterStore(clock), clock)
    note = json.dumps(GOOD)
    with pytest.raises(BAD):
        await charger.charge([note] * (MAX_NOTES + 1), USED, "d-1")
    with pytest.raises(BAD):
        await charger.charge([note], USED, "")
    await charger.charge([note] * MAX_NOTES, USED, "d-1")
