"""A real Prometheus for tests, which scrapes one service each second."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
import yaml

from tests.free_ports import find_free_port

STEP_S: Final = 1
"""Between two scrapes, and two evaluations of the rules."""
JOB: Final = "extauthz"
_TURN_S: Final = 60.0


def find_program(name: str) -> str:
    """Where ``prometheus`` or ``promtool`` is."""
    program = shutil.which(name)
    assert program is not None, f"these tests need {name}: apt-get install prometheus"
    return program


@dataclass(frozen=True, slots=True)
class Prometheus:
    """A running one, and a client of its HTTP API."""

    http: httpx2.Client
    process: subprocess.Popen[bytes]

    def query(self, text: str) -> list[dict[str, Any]]:
        """The series of an instant vector, now. Raises AssertionError for a wrong query."""
        found: list[dict[str, Any]] = self._get("query", {"query": text})["result"]
        return found

    def read(self, text: str) -> float:
        """The only value of a query; 0 where there is none yet."""
        found = self.query(text)
        return float(found[0]["value"][1]) if found else 0.0

    def rules(self) -> list[dict[str, Any]]:
        """All rules, with what their last evaluation said."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def wait_until(self, happened: Callable[[], bool], what: str) -> None:
        """Looks again and again while it runs."""
        end_s = time.monotonic() + _TURN_S
        while not happened():
            assert time.monotonic() < end_s, f"{what}: did not happen in {_TURN_S:g} s"
            try:
                self.process.wait(STEP_S / 10)
            except subprocess.TimeoutExpired:
                continue
            raise AssertionError(f"prometheus ended before this happened: {what}")

    def _get(self, path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
        answer = self.http.get(f"/api/v1/{path}", params=parameters).json()
        assert answer["status"] == "success", f"{parameters}: {answer['error']}"
        data: dict[str, Any] = answer["data"]
        return data


@contextmanager
def run_prometheus(folder: Path, target: str, rules: Path) -> Iterator[Prometheus]:
    """A Prometheus with these rules, until the block ends.

    Args:
        folder: where its data and its log are.
        target: HOST:PORT with a page at /metrics.
        rules: a file of rules.
    """
    config = {
        "global": {
            "scrape_interval": f"{STEP_S}s",
            "scrape_timeout": f"{STEP_S}s",
            "evaluation_interval": f"{STEP_S}s",
        },
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": JOB, "static_configs": [{"targets": [target]}]}],
    }
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{find_free_port()}"
    command = [
        find_program("prometheus"),
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={address}",
        "--log.level=warn",
    ]
    with (
        (folder / "prometheus.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
        httpx2.Client(base_url=f"http://{address}", timeout=_TURN_S, trust_env=False) as http,
    ):
        prometheus = Prometheus(http, process)
        try:
            prometheus.wait_until(lambda: _is_ready(http), "prometheus is ready")
            yield prometheus
        finally:
            process.terminate()


def _is_ready(http: httpx2.Client) -> bool:
    try:
        return bool(http.get("/-/ready").status_code == 200)
    except httpx2.TransportError:
        return False
