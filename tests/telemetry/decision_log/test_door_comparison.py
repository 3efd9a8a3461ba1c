"""Where two doors decided differently."""

from __future__ import annotations

import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extauthz.model.decision import Denial, Deny, Reason
from extauthz.telemetry.decision_log.door_comparison import Comparison, Difference, compare_doors
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.decision_log.record import note_decision
from extauthz.telemetry.decision_log.sinks import Entry
from tests.builders import a_request

PETS = "Pets v1"


def a_line(door: str = "envoy", reason: str = "", *, request: str = "r-1", **fields: object) -> str:
    return json.dumps(
        {
            "door": door,
            "request": request,
            "method": "GET",
            "path_hash": "00",
            "api": "Pets",
            "version": "v1",
            "reason": reason,
            **fields,
        }
    )


def test_equal_answers_are_counted_by_what_they_were() -> None:
    found = compare_doors(
        [
            a_line("envoy"),
            a_line("mixer"),
            a_line("mixer", "blocked", request="r-2"),
            a_line("envoy", "blocked", request="r-2"),
        ]
    )
    assert found == Comparison(equal=found.equal)
    assert found.equal == {"allow": 1, "blocked": 1}


OLD_LINE = (
    '{"time": "2026-11-30T08:15:00.000001+00:00", "decision": "5d6e8a41c0fb-1", "door": "envoy", '
    '"shadow": false, "request": "r-1", "method": "GET", "path_hash": "24b9ab6c0d6ebd5f", '
    '"outcome": "deny", "reason": "blocked", "level": "", "rule": "not-them", "api": "HttpbinAPI", '
    '"version": "1.0.0", "resource": "/ip", "application": "", "tier": "", "duration_us": 48}'
)
"""As files had it before users, addresses and limits were in them."""


def test_lines_of_an_older_file_and_of_this_one_are_compared() -> None:
    request = a_request(request_id="r-1", door="mixer")
    deny = Deny(id="d-1", denial=Denial(reason=Reason.BLOCKED, rule="not-them"))
    new_line = Entry(note_decision(request, deny, 7), Masks()).line.decode()
    assert set(json.loads(OLD_LINE)) < set(json.loads(new_line))
    old_line = OLD_LINE.replace("24b9ab6c0d6ebd5f", json.loads(new_line)["path_hash"])
    assert compare_doors([old_line, new_line]).equal == {"blocked": 1}


def test_differences_are_counted_by_api_and_both_answers_with_examples() -> None:
    lines = [a_line("envoy", request=f"r-{n}") for n in range(5)]
    lines += [a_line("mixer", "insufficient_scope", request=f"r-{n}") for n in range(5)]
    found = compare_doors(lines)
    difference = Difference(PETS, "allow", "insufficient_scope")
    assert found.different == {difference: 5}
    assert found.examples == {difference: ["r-0", "r-1", "r-2"]}
    assert not found.equal


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_a_door_that_was_asked_twice_refused_when_it_refused_once(order: tuple[int, ...]) -> None:
    lines = [a_line("mixer"), a_line("mixer", "rate_limited"), a_line("envoy", "rate_limited")]
    found = compare_doors(lines[n] for n in order)
    assert found.equal == {"rate_limited": 1}
    assert not found.different


@pytest.mark.parametrize(
    "other", [{"request": "r-2"}, {"method": "POST"}, {"path_hash": "01"}], ids=str
)
def test_another_id_method_or_path_is_another_request(other: dict[str, str]) -> None:
    found = compare_doors([a_line("envoy"), a_line("mixer", **other)])
    assert found.only == {"envoy": 1, "mixer": 1}
    assert not found.equal


def test_the_api_is_told_when_only_one_door_found_it() -> None:
    found = compare_doors([a_line("mixer", "api_not_found", api="", version=""), a_line("envoy")])
    assert list(found.different) == [Difference(PETS, "allow", "api_not_found")]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "no json",
        "[]",
        "null",
        '"envoy"',
        a_line("other"),
        a_line(request=""),
        a_line(reason=None),  # type: ignore[arg-type]
        a_line(api=7),
    ],
)
def test_a_line_that_cannot_be_used_is_counted(line: str) -> None:
    assert compare_doors([line]) == Comparison(unusable=1)


def test_the_oldest_request_no_longer_waits_when_too_many_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("extauthz.telemetry.decision_log.door_comparison.MAX_WAITING", 2)
    lines = [a_line("envoy", request=f"r-{n}") for n in range(3)]
    found = compare_doors([*lines, a_line("mixer", request="r-2"), a_line("mixer", request="r-0")])
    assert found.equal == {"allow": 1}
    assert found.only == {"envoy": 2, "mixer": 1}


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["envoy", "mixer"]),
            st.sampled_from(["", "blocked", "rate_limited"]),
            st.sampled_from(["r-1", "r-2", "r-3"]),
        )
    )
)
def test_each_request_is_counted_once(calls: list[tuple[str, str, str]]) -> None:
    found = compare_doors(a_line(door, reason, request=request) for door, reason, request in calls)
    total = found.equal.total() + found.different.total() + found.only.total()
    assert total == len({request for _, _, request in calls})
