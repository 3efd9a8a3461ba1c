"""The file of usage: whole batches, rotation, one writer, and what a crash has cost."""

from __future__ import annotations

import gzip
import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from extauthz.errors import ConfigError
from extauthz.telemetry.decision_log.masking import Instant, Masks, Shown
from extauthz.telemetry.decision_log.sinks import Entry, SinkAway
from extauthz.usage.file import UsageFile, list_rotated, name_worker_file, open_usage_file
from extauthz.usage.marks import Marks
from tests.builders import FakeClock

MIB: Final = 1024 * 1024


class Line(NamedTuple):
    """A `Noted` of one text."""

    text: str
    time: Instant = Instant(0)

    def write(self, masks: Masks) -> dict[str, Shown]:
        return {"text": self.text}


def entries(*texts: str) -> list[Entry]:
    return [Entry(Line(text), Masks()) for text in texts]


def read(path: Path) -> list[str]:
    return [json.loads(line)["text"] for line in path.read_bytes().splitlines()]


def a_file(path: Path, clock: FakeClock, *, max_bytes: int = MIB, keep: int = 3) -> UsageFile:
    return open_usage_file(path, clock, max_bytes=max_bytes, keep=keep)[0]


def test_lines_are_appended(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    for text in ("1", "2"):
        file = a_file(path, FakeClock())
        file.write(entries(text, text))
        file.close()
    assert path.read_bytes() == b'{"text": "1"}\n{"text": "1"}\n{"text": "2"}\n{"text": "2"}\n'


def test_a_full_file_is_rotated_and_the_newest_stay(tmp_path: Path) -> None:
    path, clock = tmp_path / "usage.jsonl", FakeClock()
    (tmp_path / "usage.jsonl.mine").write_text("not a rotated file")
    file = a_file(path, clock, max_bytes=28, keep=2)
    for number in range(5):
        file.write(entries(str(number)))
        assert path.exists()
        file.write(entries(str(number)))
        assert not path.exists()
        clock.advance(1.5)
    file.write(entries("now"))
    file.close()
    assert read(path) == ["now"]
    kept = list_rotated(path)
    assert [read(old) for old in kept] == [["3", "3"], ["4", "4"]]
    assert kept[0].name < kept[1].name
    assert (tmp_path / "usage.jsonl.mine").exists()


def test_a_rotated_file_may_be_compressed(tmp_path: Path) -> None:
    path, clock = tmp_path / "usage.jsonl", FakeClock()
    file = a_file(path, clock, max_bytes=1, keep=2)
    for number in range(3):
        file.write(entries(str(number)))
        for old in list_rotated(path):
            if old.suffix != ".gz":
                Path(f"{old}.gz").write_bytes(gzip.compress(old.read_bytes()))
                old.unlink()
        clock.advance(1)
    file.close()
    packed = [gzip.decompress(old.read_bytes()) for old in list_rotated(path)]
    assert packed == [b'{"text": "1"}\n', b'{"text": "2"}\n']


def test_a_file_that_was_moved_or_removed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "usage.jsonl"
    file = a_file(path, FakeClock())
    file.write(entries("1"))
    path.rename(tmp_path / "moved")
    file.write(entries("2"))
    path.unlink()
    file.write(entries("3"))
    file.close()
    assert read(tmp_path / "moved") == ["1"]
    assert read(path) == ["3"]


@pytest.fixture
def little_space() -> Iterator[int]:
    """A bound on the size of every file that this process writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    yield 100
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


def test_a_batch_that_does_not_fit_is_not_written_in_part(
    tmp_path: Path, little_space: int
) -> None:
    path = tmp_path / "usage.jsonl"
    file = a_file(path, FakeClock())
    file.write(entries("x" * 50))
    with pytest.raises(SinkAway, match="too large"):
        file.write(entries("y" * 10, "z" * 10))
    assert read(path) == ["x" * 50]
    file.write(entries("y" * 10))
    file.close()
    assert read(path) == ["x" * 50, "y" * 10]
    assert path.stat().st_size <= little_space


def test_a_second_process_is_kept_away(tmp_path: Path) -> None:
    path, clock = tmp_path / "usage.jsonl", FakeClock()
    file = a_file(path, clock)
    with pytest.raises(ConfigError, match="another process"):
        a_file(path, clock)
    file.close()
    a_file(path, clock).close()


@pytest.mark.parametrize("name", ["missing/usage.jsonl", "folder"])
def test_a_file_that_cannot_be_made_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    for _ in range(2):  # the marks are not held
        with pytest.raises(ConfigError, match="cannot be written"):
            open_usage_file(tmp_path / name, FakeClock(), max_bytes=MIB, keep=1)


@pytest.mark.parametrize("junk", [b"", b"junk", b"x" * 32, b"usage-01" + b"\xff" * 24])
def test_marks_that_are_none_say_nothing(tmp_path: Path, junk: bytes) -> None:
    file = tmp_path / "marks"
    file.write_bytes(junk)
    marks = Marks(file)
    assert marks.lost == 0
    marks.close()


def test_marks_outlive_a_killed_process(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from extauthz.usage.marks import Marks\n"
        "marks = Marks(Path(sys.argv[1]))\n"
        "for _ in range(10): marks.accept()\n"
        "marks.write(3)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(file)], check=False)
    assert done.returncode == -signal.SIGKILL
    marks = Marks(file)
    assert marks.lost == 7
    marks.close()


def test_each_worker_has_a_file_of_its_own() -> None:
    path = Path("a/usage.jsonl")
    assert [name_worker_file(path, worker) for worker in (0, 1, 2)] == [
        path,
        Path("a/usage.1.jsonl"),
        Path("a/usage.2.jsonl"),
    ]
    assert os.fspath(name_worker_file(Path("usage"), 1)) == "usage.1"
