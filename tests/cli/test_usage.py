"""`extauthz usage`."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from extauthz.cli import main
from tests.usage.test_summing import a_line, write

LINES = (a_line(), a_line(), a_line(status=429, outcome="deny", application="=cmd()"))


def test_a_table_has_the_sums_the_most_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["usage", str(write(tmp_path, *LINES))]) == 0
    printed = capsys.readouterr()
    rows = [line.split() for line in printed.out.splitlines() if "Pets" in line]
    assert [row[1:-1:2] for row in rows] == [
        ["mobile", "Pets", "200", "2", "0", "20", "40", "3.0"],
        ["=cmd()", "Pets", "429", "1", "1", "10", "20", "3.0"],
    ]
    assert printed.err == ""


def test_csv_can_be_read_by_a_spreadsheet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["usage", "--csv", "--by", "application,day", str(write(tmp_path, *LINES))]) == 0
    rows = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert rows == [
        ["application", "day", "requests", "denied", "request_bytes", "response_bytes", "mean_ms"],
        ["mobile", "2026-01-02", "2", "0", "20", "40", "3.0"],
        ["'=cmd()", "2026-01-02", "1", "1", "10", "20", "3.0"],
    ]


def test_json_has_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, *LINES, '{"time": "2026", "lost": 3}', "cut sho")
    assert main(["usage", "--json", "--by", "status", str(file)]) == 1
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert told["groups"][0] == {
        "status": "200",
        "requests": 2,
        "denied": 0,
        "request_bytes": 20,
        "response_bytes": 40,
        "mean_ms": 3.0,
    }
    assert (told["lost"], told["unreadable_lines"]) == (3, 1)
    assert f"{file}:5: is no JSON" in printed.err
    assert "up to 3 records are missing" in printed.err


def test_a_picture_is_written(tmp_path: Path) -> None:
    picture = tmp_path / "usage.svg"
    assert main(["usage", "--picture", str(picture), str(write(tmp_path, *LINES))]) == 0
    texts = [
        "".join(element.itertext())
        for element in ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")
    ]
    assert "mobile · Pets" in texts and "=cmd() · Pets" in texts


def test_a_picture_that_cannot_be_written_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["usage", "--picture", str(tmp_path), str(write(tmp_path, *LINES))]) == 3
    assert "cannot be written" in capsys.readouterr().err


def test_standard_input_is_read(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = io.TextIOWrapper(io.BytesIO("\n".join(LINES).encode()))
    monkeypatch.setattr("sys.stdin", given)
    assert main(["usage", "-", "--csv", "--by", "api"]) == 0
    assert "Pets,3,1,30,60,3.0" in capsys.readouterr().out


def test_nothing_to_sum_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["usage", str(write(tmp_path))]) == 1
    assert "no records" in capsys.readouterr().err
    other = write(tmp_path, *["apis: []"] * 20)
    assert main(["usage", str(other)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        f"extauthz: {other}: none of its 20 lines is a record of usage; name files of `usage.file`"
    )
    assert main(["usage", str(tmp_path / "missing")]) == 3


@pytest.mark.parametrize("by", ["nothing", "api,api", "user", ""])
def test_a_field_that_is_none_is_wrong_usage(by: str) -> None:
    with pytest.raises(SystemExit) as end:
        main(["usage", "--by", by, "file"])
    assert end.value.code == 2
