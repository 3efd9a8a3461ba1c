"""The exercise for the person on call: each fault that it causes is seen where it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from extauthz.cli import main
from tests.dashboards.reading import find_alerts
from tests.demo.keeping import keep_demo

pytestmark = pytest.mark.e2e

PAGE: Final = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "on-call-exercise.md"
TURN_S: Final = 60
_CURL: Final = """\
#!{python}
import sys, urllib.request
*options, url = sys.argv[1:]
headers = dict(pair.split(": ", 1) for flag, pair in zip(options, options[1:]) if flag == "-H")
try:
    urllib.request.urlopen(urllib.request.Request(url, headers=headers)).read()
except urllib.error.HTTPError:
    pass
"""
"""Sends what a line of the page sends, on machines without curl, too."""


@dataclass(frozen=True, slots=True)
class Exercise:
    """A demonstration that is kept, with the exercise's variables."""

    folder: Path
    variables: dict[str, str]
    process: subprocess.Popen[str]

    def get(self, path: str) -> dict[str, Any]:
        """What the admin API says."""
        url = f"{self.variables['ADMIN']}{path}"
        answer: dict[str, Any] = httpx2.get(url, trust_env=False, timeout=TURN_S).json()
        return answer

    def run(self, command: str) -> None:
        """Runs a block of the page."""
        subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env={
                **os.environ,
                **self.variables,
                "PATH": f"{self.folder}:{os.environ['PATH']}",
            },
            check=True,
            timeout=TURN_S,
        )

    def change(self, command: str) -> None:
        """Runs a block that changes the catalog; returns once the service has looked at it."""
        before = self._looked()
        self.run(command)
        self.wait_until(lambda: self._looked() != before, command)

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Looks again and again."""
        end_s = time.monotonic() + TURN_S
        while not happened():
            assert time.monotonic() < end_s, f"{what}: did not happen"
            assert self.process.poll() is None

    def call_until_denied(self, calls: str, reason: str, application: str = "") -> dict[str, Any]:
        """Runs a block with calls until there is another denial; gives its group.

        On a busy machine Envoy may give up on a call before anything is decided.
        """
        before = self._denied(reason, application).get("count", 0)

        def is_denied() -> bool:
            self.run(calls)
            return bool(self._denied(reason, application).get("count", 0) > before)

        self.wait_until(is_denied, f"denied as {reason}")
        return self._denied(reason, application)

    def _denied(self, reason: str, application: str) -> dict[str, Any]:
        for group in self.get("/api/denials")["groups"]:
            if (group["reason"], group["application"]) == (reason, application):
                found: dict[str, Any] = group
                return found
        return {}

    def _looked(self) -> tuple[object, ...]:
        catalog = self.get("/api/status")["catalog"]
        return catalog["loaded"], bool(catalog["problems"])


def read_faults() -> list[tuple[str, list[str]]]:
    """The title of each fault, and its blocks."""
    sections = re.findall(
        r"^## (\d\. .*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    return [(title, re.findall(r"```sh\n(.*?)```", text, re.DOTALL)) for title, text in sections]


@pytest.fixture(scope="module")
def exercise(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exercise]:
    folder = tmp_path_factory.mktemp("exercise")
    curl = folder / "curl"
    curl.write_text(_CURL.format(python=sys.executable))
    curl.chmod(0o755)
    with keep_demo(folder, "--folder", "demo", cwd=folder) as (process, lines):
        printed = "\n".join(lines)
        found = {
            "ADMIN": r"Watch: (http://127\.0\.0\.1:\d+)/",
            "ENVOY_ADMIN": r"--envoy-admin (http://127\.0\.0\.1:\d+)",
            "CALL": r"curl -i (http://\S+)/ip",
            "KEY": r"x-api-key: (\S+)'",
            "TOKEN": r"Bearer (\S+)'",
        }
        variables = {name: re.findall(text, printed)[0] for name, text in found.items()}
        yield Exercise(folder, variables, process)


def test_five_faults_are_seen_where_the_page_says(
    exercise: Exercise, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = dict(read_faults())
    assert [title[0] for title in faults] == ["1", "2", "3", "4", "5"]
    (
        (typing, mend_typing),
        (lost_key, calls_with_key, mend_key),
        (limit,),
        (issuer, calls_with_token, mend_issuer),
        (gone, calls_to_nobody, doctor),
    ) = faults.values()

    exercise.change(typing)
    problems = exercise.get("/api/status")["catalog"]["problems"]
    assert re.search(r"apis\.yaml.*\d+.*kontext", json.dumps(problems)), problems
    exercise.change(mend_typing)
    assert exercise.get("/api/status")["catalog"]["problems"] == []

    exercise.change(lost_key)
    group = exercise.call_until_denied(calls_with_key, "invalid_credentials")
    assert group["api"] == "HttpbinAPI"
    assert group["last"] > exercise.get("/api/status")["catalog"]["loaded"]
    exercise.change(mend_key)

    group = exercise.call_until_denied(limit, "rate_limited", "mobile")
    assert (group["level"], group["rule"]) == ("resource", "10PerMin")
    (nearest, *_) = exercise.get("/api/limits")["limits"]
    assert (nearest["tier"], nearest["share"]) == ("10PerMin", 1)

    exercise.change(issuer)
    assert exercise.call_until_denied(calls_with_token, "unavailable")["api"] == "HttpbinAPI"
    dependencies = {one["name"]: one for one in exercise.get("/api/status")["dependencies"]}
    assert dependencies["jwks"]["state"] == "failing"
    log = (exercise.folder / "demo" / "extauthz.log").read_text()
    assert "the keys of https://idp.example/ could not be fetched (connection refused)" in log
    exercise.change(mend_issuer)

    exercise.run(gone)
    command = doctor.replace("$ENVOY_ADMIN", exercise.variables["ENVOY_ADMIN"]).split()

    def is_diagnosed() -> bool:
        # Until all processes have ended, a call may still meet an open connection.
        exercise.run(calls_to_nobody)
        assert main(command[1:]) in {0, 1}
        return "error: nobody_listens" in capsys.readouterr().out

    exercise.wait_until(is_diagnosed, "the doctor says that nobody listens")
    assert main(command[1:]) == 1


def test_every_alert_that_the_page_names_has_a_runbook() -> None:
    named = re.findall(r"\[(Extauthz\w+)\]\(runbooks\.md#(\w+)\)", PAGE.read_text())
    assert named
    for alert, anchor in named:
        assert alert in find_alerts()
        assert anchor == alert.lower()
