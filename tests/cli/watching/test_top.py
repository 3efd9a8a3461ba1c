"""``extauthz top`` before a real service, in a real terminal and without one."""

from __future__ import annotations

import fcntl
import os
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from tests.commands import run_command
from tests.free_ports import find_free_port
from tests.serving.admin.watched_service import HOSTILE, WatchedService, run_watched

PATIENCE_S: Final = 60.0
ENTER_SCREEN, LEAVE_SCREEN = "\x1b[?1049h", "\x1b[?1049l"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
TOKEN: Final = "a-token-that-nobody-guesses"
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WatchedService]:
    """A service with some decisions, one of them for a hostile name."""
    with run_watched(tmp_path_factory.mktemp("watched")) as service:
        service.ask("/pets/v1/7", "batch", times=12)
        service.ask("/pets/v1/7", HOSTILE)
        service.wait_for_rates()
        yield service


@dataclass(frozen=True, slots=True)
class Done:
    """How the command ended."""

    returncode: int
    stdout: str
    stderr: str


def run_top(*arguments: str, **environment: str) -> Done:
    """Runs the command where its output is no terminal."""
    done = run_command("top", *arguments, environment=environment)
    return Done(done.returncode, done.stdout.decode(), done.stderr.decode())


@dataclass(slots=True)
class Terminal:
    """A terminal with the command in it."""

    descriptor: int
    process: subprocess.Popen[bytes]
    text: str = ""

    def wait_for(self, wanted: str, *, after: int = 0) -> None:
        """Reads until the text has come, behind a place in what was read."""
        until_s = time.monotonic() + PATIENCE_S
        while wanted not in _CONTROL.sub("", self.text[after:]):
            assert time.monotonic() < until_s, f"{wanted!r} is not in {self.text!r}"
            self._read(until_s - time.monotonic())

    def press(self, keys: str) -> None:
        """Types keys."""
        os.write(self.descriptor, keys.encode())

    def wait_end(self) -> int:
        """Reads the rest; gives the exit code."""
        while self._read(PATIENCE_S):
            pass
        return self.process.wait(PATIENCE_S)

    def _read(self, within_s: float) -> bool:
        ready, _, _ = select.select([self.descriptor], [], [], within_s)
        try:
            piece = os.read(self.descriptor, 65_536) if ready else b""
        except OSError:  # what Linux says once the other end is closed
            piece = b""
        self.text += piece.decode(errors="replace")
        return bool(piece)


@contextmanager
def terminal(*arguments: str, columns: int = 100, **environment: str) -> Iterator[Terminal]:
    """The command in a terminal of this width, which is its controlling one."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    command = ("setsid", "--ctty", "--wait", sys.executable, "-m", "extauthz", "top", *arguments)
    process = subprocess.Popen(
        command,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        cwd=Path(__file__).parents[3],
        env={"PATH": os.environ["PATH"], "TERM": "xterm-256color", **environment},
    )
    os.close(theirs)
    try:
        yield Terminal(ours, process)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_one_frame_has_outcomes_reasons_limits_and_dependencies(service: WatchedService) -> None:
    done = run_top("--admin", service.admin, "--once", COLUMNS="100")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"^allowed +[\d.]+/s +[\d.]+%|^allowed +0\.0/s +-", done.stdout, re.MULTILINE)
    assert re.search(r"^reason +1 min +15 min *$", done.stdout, re.MULTILINE)
    assert re.search(
        r"^batch +PetsAPI v1 +subscription +Tiny +100 % +0 ", done.stdout, re.MULTILINE
    )
    assert "Dependencies, the slowest first\nnone was asked yet\n" in done.stdout
    assert "\x1b" not in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())


def test_it_is_live_in_a_terminal_which_ctrl_c_leaves_as_it_was(service: WatchedService) -> None:
    with terminal("--admin", service.admin, "--every", "0.5") as screen:
        screen.wait_for("Consumers near their limits")
        seen = len(screen.text)
        service.ask("/orders/v2/1", "mobile")
        # Rates are told when their step has ended.
        screen.wait_for("subscription_not_found", after=seen)
        screen.press("\x03")
        assert screen.wait_end() == 0
    for entering, leaving in ((ENTER_SCREEN, LEAVE_SCREEN), (HIDE_CURSOR, SHOW_CURSOR)):
        assert screen.text.count(entering) == screen.text.count(leaving) == 1
        assert screen.text.index(entering) < screen.text.index(leaving)
    assert "Traceback" not in screen.text


@pytest.mark.parametrize(
    ("columns", "environment", "colours"),
    [(40, {}, True), (100, {"NO_COLOR": "1"}, False)],
    ids=["narrow", "without colour"],
)
def test_it_fits_the_terminal(
    columns: int, environment: Mapping[str, str], *, colours: bool, service: WatchedService
) -> None:
    arguments = ("--admin", service.admin, "--once")
    with terminal(*arguments, columns=columns, **environment) as screen:
        assert screen.wait_end() == 0
    lines = _CONTROL.sub("", screen.text).splitlines()
    assert [line for line in lines if len(line.rstrip()) > columns] == []
    assert "Consumers near their limits" in lines
    assert bool(re.search(r"\x1b\[(?:\d;)*3[0-7]m", screen.text)) is colours


def test_a_terminal_that_can_do_nothing_gets_one_frame(service: WatchedService) -> None:
    with terminal("--admin", service.admin, TERM="dumb") as screen:
        assert screen.wait_end() == 0
    assert "Reasons of denials" in screen.text and "\x1b" not in screen.text


def test_it_goes_on_when_the_service_goes_away_and_comes_back(tmp_path: Path) -> None:
    with run_watched(tmp_path) as service:
        context = terminal("--admin", service.admin, "--every", "0.5", columns=160)
        screen = context.__enter__()
        screen.wait_for("Consumers near their limits")
    screen.wait_for("cannot connect (Connection refused)")
    seen = len(screen.text)
    with run_watched(tmp_path, port=int(service.admin.rpartition(":")[2])):
        screen.wait_for("one process", after=seen)
        screen.press("\x03")
        assert screen.wait_end() == 0
    context.__exit__(None, None, None)


def test_it_shows_a_token_and_says_when_one_is_needed(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text(f"{TOKEN}\n")
    (tmp_path / "wrong").write_text("a-token-that-is-wrong-here\n")
    socket = f"unix:{tmp_path}/admin"
    listen = {"admin": socket}
    with run_watched(tmp_path, listen=listen, admin={"token_file": str(tmp_path / "tokens")}):
        for given, said in (
            ((), "asks for a token; give --token-file"),
            (("wrong",), "asks for a token; the token is not one of its own"),
        ):
            files = [word for name in given for word in ("--token-file", str(tmp_path / name))]
            done = run_top("--admin", socket, "--once", *files)
            assert (done.returncode, done.stdout) == (3, "")
            assert said in done.stderr and done.stderr.count("\n") == 1
            assert "that-is-wrong" not in done.stderr
        done = run_top("--admin", socket, "--token-file", str(tmp_path / "tokens"))
        assert done.returncode == 0 and "Reasons of denials" in done.stdout


def test_it_says_that_the_api_is_closed(tmp_path: Path) -> None:
    with run_watched(tmp_path, admin={"api": False}) as service:
        done = run_top("--admin", service.admin)
    assert done.returncode == 3
    assert "has no API: set admin.api in the settings of the service" in done.stderr


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{port}", "cannot connect (Connection refused); is this its address?"),
        ("127.0.0.1:{port}", "is not a URL like"),
        ("unix:/nowhere/at-all", "cannot connect (No such file or directory)"),
    ],
)
def test_it_says_that_nobody_is_there(url: str, said: str) -> None:
    done = run_top("--admin", url.format(port=find_free_port()))
    assert (done.returncode, done.stdout) == (3, "")
    assert said in done.stderr and done.stderr.startswith("extauthz: --admin ")


def test_seconds_that_make_no_sense_are_wrong_usage() -> None:
    for seconds in ("0", "nan", "often"):
        assert run_top("--every", seconds).returncode == 2
