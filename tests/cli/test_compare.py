"""`extauthz compare`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from extauthz.cli import main
from tests.telemetry.decision_log.test_door_comparison import a_line


def write(folder: Path, *lines: str) -> str:
    file = folder / "decisions.jsonl"
    file.write_text("".join(f"{line}\n" for line in lines))
    return str(file)


def test_differences_are_a_table_and_exit_code_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(
        tmp_path,
        a_line("envoy"),
        a_line("mixer", "blocked"),
        a_line("envoy", request="r-2"),
        "cut short",
    )
    assert main(["compare", file]) == 1
    printed = capsys.readouterr().out
    assert "1 requests came to both doors; 1 were answered differently" in printed
    assert "Pets v1" in printed and "blocked" in printed and "'r-1'" in printed
    assert "1 came to envoy only" in printed
    assert "1 lines are no decision, or name no request" in printed


def test_no_difference_is_exit_code_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", write(tmp_path, a_line("envoy"), a_line("mixer"))]) == 0
    assert "1 requests came to both doors; 0 were answered differently" in capsys.readouterr().out


def test_several_files_are_compared_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(tmp_path, a_line("envoy", "blocked"))
    monkeypatch.setattr("sys.stdin", io.StringIO(a_line("mixer")))
    assert main(["compare", "--json", file, "-"]) == 1
    assert json.loads(capsys.readouterr().out) == {
        "equal": {},
        "different": [
            {
                "api": "Pets v1",
                "envoy": "blocked",
                "mixer": "allow",
                "requests": 1,
                "examples": ["r-1"],
            }
        ],
        "only": {},
        "unusable_lines": 0,
    }


def test_an_id_with_control_characters_does_not_reach_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b[2J[red]"
    file = write(tmp_path, a_line("envoy", request=evil), a_line("mixer", "blocked", request=evil))
    main(["compare", file])
    assert "\x1b[2J" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "lines", [(), (a_line("envoy"), a_line("envoy", request="r-2")), ("apis: []",)]
)
def test_nothing_to_compare_is_exit_code_1_and_told(
    lines: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", write(tmp_path, *lines)]) == 1
    said = capsys.readouterr()
    assert "0 requests came to both doors" in said.out
    assert "nothing was compared" in said.err and said.err.count("\n") == 1


def test_a_file_that_cannot_be_read_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(tmp_path / "none")]) == 3
    assert "none: cannot be read: No such file or directory" in capsys.readouterr().err
