"""``extauthz demo`` as a newcomer runs it: real processes, a table, and nothing left behind."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import httpx2
import pytest

from tests.demo.keeping import DEMO, keep_demo, write_environment

pytestmark = pytest.mark.e2e

TURN_S: Final = 60
ROWS: Final = (
    ("no credential", 401, "missing_credentials"),
    ("bad API key", 401, "invalid_credentials"),
    ("good API key", 200, "allowed"),
    ("JWT without the scope", 403, "insufficient_scope"),
    ("JWT with the scope", 200, "allowed"),
    ("unknown resource", 404, "resource_not_found"),
    ("wrong method", 405, "method_not_allowed"),
    ("not subscribed", 403, "subscription_not_found"),
    ("blocked subscription", 403, "subscription_blocked"),
    ("spoofed identity header", 200, "allowed"),
    ("11th of 10 a minute", 429, "rate_limited"),
)


def read_rows(printed: str) -> list[tuple[str, int, str]]:
    """Call, answer and reason of each row of the table."""
    cells = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in printed.splitlines()
        if line.startswith("│")
    ]
    return [(call, int(answer), reason) for call, answer, reason, _ in cells if call]


def test_the_demonstration_shows_what_it_should(tmp_path: Path, temporary: Path) -> None:
    folder = tmp_path / "new" / "demo"
    done = subprocess.run(
        [*DEMO, "--folder", str(folder)],
        env=write_environment(temporary),
        capture_output=True,
        text=True,
        timeout=TURN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_rows(done.stdout) == list(ROWS)
    assert "11 of 11 calls showed what they should." in done.stdout
    assert done.stderr == ""
    assert list(temporary.iterdir()) == []
    # The folder that was asked for stays, and is good.
    validate = [sys.executable, "-m", "extauthz", "validate", str(folder / "extauthz.yaml")]
    checked = subprocess.run(validate, capture_output=True, text=True, timeout=TURN_S, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "Traceback" not in (folder / "extauthz.log").read_text()
    assert not re.search(r"\[(error|critical)\]", (folder / "envoy.log").read_text())


WSO2_ROWS: Final = (
    ("no credential", 401, "missing_credentials"),
    ("JWT with the scope", 200, "allowed"),
    ("JWT without the scope", 403, "insufficient_scope"),
    ("opaque token with the scope", 200, "allowed"),
    ("unknown opaque token", 401, "token_inactive"),
    ("JWT, not subscribed", 403, "subscription_not_found"),
    ("11th of 10 a minute", 429, "rate_limited"),
    ("API not published yet", 404, "api_not_found"),
    ("JWT, PetsAPI published", 200, "allowed"),
    ("the same JWT, revoked", 401, "token_revoked"),
    ("JWT, application blocked", 403, "blocked"),
)


def test_what_is_published_in_an_api_manager_is_enforced(tmp_path: Path, temporary: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(
        [*DEMO, "--wso2", "--folder", str(folder)],
        env=write_environment(temporary),
        capture_output=True,
        text=True,
        timeout=2 * TURN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_rows(done.stdout) == list(WSO2_ROWS)
    assert done.stdout.count("enforced after") == 3
    assert done.stderr == ""
    assert list(temporary.iterdir()) == []
    log = (folder / "extauthz.log").read_text()
    assert "Traceback" not in log
    assert (folder / "apim-password").read_text() not in log


def list_children(process: subprocess.Popen[str]) -> list[int]:
    """What the process has started itself."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return [int(pid) for pid in listed.split()]


def is_running(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def run_curl(line: str) -> httpx2.Response:
    """Does what a line that is pasted into a shell does, on machines without curl, too."""
    command, *words = shlex.split(line)
    assert command == "curl"
    headers = {}
    while len(words) > 1:
        option = words.pop(0)
        assert option in {"-i", "-H"}
        if option == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
    return httpx2.get(words[0], headers=headers, timeout=TURN_S, trust_env=False)


def test_the_lines_to_try_work_until_it_is_interrupted(temporary: Path) -> None:
    with keep_demo(temporary) as (process, lines):
        curl = [line.strip() for line in lines if line.strip().startswith("curl ")]
        assert [run_curl(line).status_code for line in curl] == [401, 200, 200]
        (ask,) = [line for line in lines if line.startswith("Ask why:")]
        explain = [sys.executable, "-m", *shlex.split(ask.removeprefix("Ask why: "))]
        assert subprocess.run(explain, capture_output=True, timeout=TURN_S, check=False).stdout
        (port,) = {int(found) for found in re.findall(r"http://127\.0\.0\.1:(\d+)/", "".join(curl))}
        children = list_children(process)
        assert len(children) == 2
        # As a terminal does: everybody in the group gets the signal.
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(TURN_S) == 0
        assert [pid for pid in children if is_running(pid)] == []
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False)
    assert list(temporary.iterdir()) == []


def test_a_signal_to_it_alone_stops_everything(temporary: Path) -> None:
    with keep_demo(temporary) as (process, _):
        children = list_children(process)
        process.terminate()
        assert process.wait(TURN_S) == 0
        assert [pid for pid in children if is_running(pid)] == []
    assert list(temporary.iterdir()) == []
