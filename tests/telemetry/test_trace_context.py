"""What a caller says of its span, in each form, and which calls are traced."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import TraceState

from extauthz.telemetry.trace_context import (
    FIELDS,
    MAX_STATE_CHARACTERS,
    PROPAGATORS,
    Parent,
    Sampling,
    find_parent,
    read_state,
)

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
LOW = TRACE[16:]
READERS = tuple(PROPAGATORS.values())


def parent(*, sampled: bool | None, trace: str = TRACE) -> Parent:
    return Parent(int(trace, 16), int(SPAN, 16), sampled)


GOOD = {
    "sampled": ({"traceparent": f"00-{TRACE}-{SPAN}-01"}, parent(sampled=True)),
    "not sampled": ({"traceparent": f"00-{TRACE}-{SPAN}-00"}, parent(sampled=False)),
    "further flags": ({"traceparent": f"00-{TRACE}-{SPAN}-03"}, parent(sampled=True)),
    "tracestate": (
        {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "a=1,b=2"},
        Parent(int(TRACE, 16), int(SPAN, 16), sampled=True, state="a=1,b=2"),
    ),
    "tracestate is not b3's": (
        {"b3": f"{TRACE}-{SPAN}-1", "tracestate": "a=1"},
        parent(sampled=True),
    ),
    "a later version": ({"traceparent": f"cc-{TRACE}-{SPAN}-01-what"}, parent(sampled=True)),
    "b3": ({"b3": f"{TRACE}-{SPAN}-1"}, parent(sampled=True)),
    "b3, not sampled": ({"b3": f"{TRACE}-{SPAN}-0"}, parent(sampled=False)),
    "b3, debug": ({"b3": f"{TRACE}-{SPAN}-d"}, parent(sampled=True)),
    "b3, left to us": ({"b3": f"{TRACE}-{SPAN}"}, parent(sampled=None)),
    "b3, 64 bits": ({"b3": f"{LOW}-{SPAN}-1-{SPAN}"}, parent(sampled=True, trace=LOW)),
    "b3, only no": ({"b3": "0"}, Parent(0, 0, sampled=False)),
    "b3, only yes": ({"b3": "1"}, Parent(0, 0, sampled=True)),
    "b3 in several fields": (
        {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-sampled": "1"},
        parent(sampled=True),
    ),
    "x-b3-flags": (
        {"x-b3-traceid": TRACE, "x-b3-spanid": SPAN, "x-b3-flags": "1"},
        parent(sampled=True),
    ),
    "x-b3 left to us": ({"x-b3-traceid": TRACE, "x-b3-spanid": SPAN}, parent(sampled=None)),
    "only x-b3-sampled": ({"x-b3-sampled": "0"}, Parent(0, 0, sampled=False)),
    "W3C first": (
        {"traceparent": f"00-{TRACE}-{SPAN}-00", "b3": f"{TRACE}-{SPAN}-1"},
        parent(sampled=False),
    ),
    "the next, where one is wrong": (
        {"traceparent": "00-what", "b3": f"{TRACE}-{SPAN}-1"},
        parent(sampled=True),
    ),
}


@pytest.mark.parametrize(("fields", "expected"), GOOD.values(), ids=GOOD)
def test_reads_what_a_caller_says_of_its_span(fields: dict[str, str], expected: Parent) -> None:
    assert find_parent(fields, READERS) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"traceparent": ""},
        {"traceparent": f"ff-{TRACE}-{SPAN}-01"},
        {"traceparent": f"00-{TRACE}-{SPAN}-01-what"},
        {"traceparent": f"00-{TRACE.upper()}-{SPAN}-01"},
        {"traceparent": f"00-{'0' * 32}-{SPAN}-01"},
        {"traceparent": f"00-{TRACE}-{'0' * 16}-01"},
        {"traceparent": f"00-{TRACE}-{SPAN}-1"},
        {"b3": "2"},
        {"b3": f"{TRACE}-{SPAN}-x"},
        {"b3": f"{'0' * 32}-{SPAN}-1"},
        {"x-b3-traceid": TRACE},
        {"x-b3-traceid": "what", "x-b3-spanid": SPAN},
    ],
    ids=str,
)
def test_what_is_written_wrong_is_as_if_it_were_missing(fields: dict[str, str]) -> None:
    assert find_parent(fields, READERS) is None


@pytest.mark.parametrize(
    ("state", "members"),
    [
        ("", []),
        ("congo=t61rcWkgMzE", [("congo", "t61rcWkgMzE")]),
        ("rojo=00f067aa0ba902b7, congo=t61\t,,", [("rojo", "00f067aa0ba902b7"), ("congo", "t61")]),
        ("fw529a3039@dt=FfAxMDAw,a/b-c_*=x y", [("fw529a3039@dt", "FfAxMDAw"), ("a/b-c_*", "x y")]),
        ("a=1,Upper=2", []),
        ("a=1,a=2", []),
        ("a=1,b", []),
        ("a=1,b=", []),
        ("a=1,b=two=2", []),
        ("a=1,b=\u00e9", []),
        ("a" * 257 + "=1", []),
        ("a=" + "1" * 257, []),
        (",".join(f"k{number}=1" for number in range(33)), []),
        ("a=1," + "," * MAX_STATE_CHARACTERS, []),
    ],
)
def test_tracestate_is_kept_as_a_whole_or_not_at_all(
    state: str, members: list[tuple[str, str]]
) -> None:
    assert read_state(state) == members


@given(st.text("ab1@=, *-/_\t\u00e9", max_size=40) | st.text(max_size=40))
def test_what_is_read_of_tracestate_is_good_for_opentelemetry(state: str) -> None:
    members = read_state(state)
    assert list(TraceState(members).items()) == members


@given(st.dictionaries(st.sampled_from(FIELDS), st.text(max_size=80)))
def test_nothing_that_a_caller_sends_raises(fields: dict[str, str]) -> None:
    found = find_parent(fields, READERS)
    assert found is None or found.trace_id == found.span_id == 0 or found.trace_id < 1 << 128


@pytest.mark.parametrize(
    ("ratio", "follows", "told", "expected"),
    [
        (0, True, True, True),
        (1, True, False, False),
        (0, False, True, False),
        (1, False, False, True),
        (1, True, None, True),
        (0, True, None, False),
    ],
)
def test_a_callers_word_counts_where_it_is_followed(
    ratio: float,
    follows: bool,  # noqa: FBT001
    told: bool | None,  # noqa: FBT001
    expected: bool,  # noqa: FBT001
) -> None:
    sampling = Sampling(ratio, follows)
    assert sampling.takes(parent(sampled=told)) is expected
    assert Sampling(ratio).takes(None) is bool(ratio)


@given(st.floats(1e-9, 1), st.integers(0, (1 << 128) - 1))
def test_a_trace_is_taken_by_its_id_the_same_everywhere(ratio: float, trace_id: int) -> None:
    told = Parent(trace_id or 1, 1, sampled=None)
    low = (trace_id or 1) & ((1 << 64) - 1)
    assert Sampling(ratio).takes(told) is (low < round(ratio * 2**64))


@given(st.floats(1e-9, 1))
def test_a_trace_that_begins_here_has_an_id_that_the_ratio_takes(ratio: float) -> None:
    made = Sampling(ratio).make_trace_id()
    assert 0 < made < 1 << 128
    assert Sampling(ratio).takes(Parent(made, 1, sampled=None))


def test_takes_the_share_that_is_wanted() -> None:
    sampling = Sampling(0.1)
    taken = sum(sampling.takes(None) for _ in range(20_000))
    assert 1_600 < taken < 2_400  # 9 standard deviations
