"""Sums of usage: what is summed, what is left out, and what is wrong and where."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extauthz.errors import ConfigError
from extauthz.telemetry.decision_log.masking import Masks
from extauthz.telemetry.decision_log.sinks import Entry
from extauthz.usage import summing
from extauthz.usage.picture import MAX_BARS, draw_bars, find_class
from extauthz.usage.record import note_loss, note_usage
from extauthz.usage.summing import FIELDS, MAX_PROBLEMS, OTHERS, Sums, sum_files
from tests.usage.test_record import RECORD


def a_line(**members: Any) -> str:
    """A record with defaults for all but the point of a test; `...` leaves a member out."""
    made = {
        "time": "2026-01-02T03:04:05.678901+00:00",
        "source": "envoy_access_log",
        "outcome": "allow",
        "api": "Pets",
        "application": "mobile",
        "status": 200,
        "request_bytes": 10,
        "response_bytes": 20,
        "duration_us": 3000,
        **members,
    }
    return json.dumps({name: value for name, value in made.items() if value is not ...})


def write(folder: Path, *lines: str | bytes, name: str = "usage.jsonl") -> Path:
    file = folder / name
    octets = [line.encode() if isinstance(line, str) else line for line in lines]
    file.write_bytes(b"".join(b"%b\n" % line for line in octets))
    return file


BY = ("application", "api", "status")


def test_requests_are_summed_by_their_fields(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        a_line(),
        a_line(duration_us=5000),
        a_line(status=429, outcome="deny", duration_us=...),
        a_line(application=..., api=..., status=404, outcome="deny", request_bytes=...),
    )
    assert dict(sum_files([file], BY).groups) == {
        ("mobile", "Pets", "200"): Sums(2, 0, 20, 40, 2, 8000),
        ("mobile", "Pets", "429"): Sums(1, 1, 10, 20, 0, 0),
        ("", "", "404"): Sums(1, 1, 0, 20, 1, 3000),
    }


def test_a_line_that_was_written_is_summed(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        Entry(note_usage(RECORD), Masks()).line,
        Entry(note_loss(7, RECORD.at_us), Masks()).line,
    )
    summary = sum_files([file], FIELDS)
    ((key, sums),) = summary.groups.items()
    shown = dict(zip(FIELDS, key, strict=True))
    assert (shown["day"], shown["hour"]) == ("2026-01-02", "2026-01-02T03")
    assert (shown["status"], shown["tier"], shown["level"]) == ("429", "Gold", "subscription")
    assert (sums.requests, sums.denied, sums.mean_ms) == (1, 1, 0.001)
    assert (summary.lost, summary.unreadable) == (7, 0)


def test_gzipped_and_several_files_are_read(tmp_path: Path) -> None:
    plain = write(tmp_path, a_line())
    packed = tmp_path / "usage.jsonl.20260102T030405.678901Z"  # whatever its name is
    packed.write_bytes(gzip.compress(plain.read_bytes() * 2))
    assert sum_files([plain, packed], ("api",)).groups[("Pets",)].requests == 3


def test_records_that_tell_of_the_same_requests_again_are_left_out(tmp_path: Path) -> None:
    sources = ("envoy_access_log", "mixer_metric", "mixer_logentry", "mixer_tracespan")
    file = write(tmp_path, *[a_line(source=source) for source in sources])
    summary = sum_files([file], ("source",))
    assert set(summary.groups) == {("envoy_access_log",), ("mixer_metric",)}
    assert summary.other_sources == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is no record"),
        ("1", "is no record"),
        ('{"outcome": "allow"}', "has no source"),
        (a_line(duration_us=-1), "has a duration_us"),
        (a_line(request_bytes="1"), "has a request_bytes"),
        (a_line(status=True), "has a status"),
        (a_line(api=["Pets"]), "has a api"),
        ('{"lost": "many"}', "has a lost"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff\xfe", "is no JSON"),
    ],
)
def test_a_line_that_is_no_record_is_a_problem_with_its_place(
    tmp_path: Path, line: str | bytes, message: str
) -> None:
    file = write(tmp_path, a_line(), line, a_line())
    summary = sum_files([file], BY)
    (problem,) = summary.problems
    assert (problem.file, problem.line) == (str(file), 2)
    assert message in problem.message
    assert sum(sums.requests for sums in summary.groups.values()) == 2


def test_only_some_problems_are_kept(tmp_path: Path) -> None:
    summary = sum_files([write(tmp_path, a_line(), *["x"] * 1000)], BY)
    assert (len(summary.problems), summary.unreadable, summary.unlisted) == (
        MAX_PROBLEMS,
        1000,
        1000 - MAX_PROBLEMS,
    )


def test_a_file_of_another_kind_is_one_problem(tmp_path: Path) -> None:
    summary = sum_files([write(tmp_path, "apis:", '{"a": 1}', *["x"] * 1000)], BY)
    (problem,) = summary.problems
    assert (problem.line, summary.unreadable, summary.unlisted) == (0, 1002, 0)
    assert problem.message.startswith("none of its 1002 lines is a record of usage")


def test_groups_without_place_are_summed_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summing, "MAX_GROUPS", 2)
    file = write(tmp_path, *[a_line(api=f"api-{number % 5}") for number in range(20)])
    groups = sum_files([file], ("api", "status")).groups
    assert {key: sums.requests for key, sums in groups.items()} == {
        ("api-0", "200"): 4,
        ("api-1", "200"): 4,
        (OTHERS, OTHERS): 12,
    }


def test_a_line_without_end_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summing, "MAX_LINE", 1000)
    file = write(tmp_path, "x" * 2500, a_line())
    summary = sum_files([file], ("api",))
    assert (summary.unreadable, summary.groups[("Pets",)].requests) == (3, 1)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(a_line().encode() * 100)[:-20])
    for file in (torn, tmp_path / "missing", tmp_path):
        with pytest.raises(ConfigError, match="cannot be read"):
            sum_files([file], BY)


@given(line=st.binary(max_size=100))
@example(line=b"\x1f\x8b")
def test_any_bytes_are_summed_or_a_problem(
    tmp_path_factory: pytest.TempPathFactory, line: bytes
) -> None:
    file = tmp_path_factory.mktemp("any") / "usage.jsonl"
    file.write_bytes(line)
    try:
        sum_files([file], BY)
    except ConfigError:
        assert line.startswith(b"\x1f\x8b"), "only what begins as gzip can be unreadable"


# The picture


@pytest.mark.parametrize(
    ("status", "expected"),
    [("200", "2xx"), ("404", "4xx"), ("599", "5xx"), ("0", "none"), ("", "none"), ("101", "none")],
)
def test_statuses_have_classes(status: str, expected: str) -> None:
    assert find_class(status) == expected


def test_a_picture_has_a_bar_for_each_group_and_no_text_of_others_as_markup() -> None:
    bars = [(f"app-{number}", {"2xx": number, "5xx": 1}) for number in range(40)]
    picture = draw_bars("Requests", [*bars, ("<script>", {"4xx": 10_000})])
    assert picture.count("text-anchor") == MAX_BARS
    assert "&lt;script&gt;" in picture and "<script>" not in picture
    assert ">10,000<" in picture
    assert draw_bars("Nothing", []).endswith("</svg>\n")
